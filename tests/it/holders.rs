//! Who holds a file is seen, however they hold it; and asking harms nobody.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orphand::decide::judge::Reason;
use orphand::decide::observation::{FileSize, Holder};
use orphand::event::Event;

use crate::fixture::*;

/// How a process holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseState {
    /// It has it open for writing.
    Write,
    /// It has it open for reading.
    Read,
    /// It has it mapped for reading, and no descriptor.
    Map,
    /// It has it mapped for writing, and no descriptor.
    MapToWrite,
    /// It has it mapped and no descriptor, and its first thread has ended.
    MapInThread,
    /// It holds a BSD lock.
    Flock,
    /// It holds a POSIX lock.
    Posix,
    /// The file is in flight over a socket; nobody has a descriptor.
    Flight,
    /// It has a handle that is no open file.
    #[cfg(target_os = "linux")]
    Path,
    /// Its working directory is there.
    Directory,
}

impl UseState {
    const ALL: &[UseState] = &[
        UseState::Write,
        UseState::Read,
        UseState::Map,
        UseState::MapToWrite,
        UseState::MapInThread,
        UseState::Flock,
        UseState::Posix,
        UseState::Flight,
        #[cfg(target_os = "linux")]
        UseState::Path,
        UseState::Directory,
    ];
}

const HOW: &str = "ORPHAND_TEST_HOLDS";
const FILE: &str = "ORPHAND_TEST_FILE";
const READY: &str = "it is held";

/// Puts a process where it is to run.
pub(crate) type Prepare = fn(&mut Command);

/// A process that holds a file until this is dropped.
pub(crate) struct Holding {
    child: Child,
    pub(crate) pid: u32,
}

impl Holding {
    pub(crate) fn new(how: UseState, file: &Path) -> Holding {
        Holding::within(how, file, |_| {})
    }

    /// `prepare` may put the process into a namespace.
    pub(crate) fn within(how: UseState, file: &Path, prepare: Prepare) -> Holding {
        let mut command = test_command("holders::the_holder");
        command.env(HOW, format!("{how:?}")).env(FILE, file);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        prepare(&mut command);
        let mut child = command.start_child().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut lines = lines.lines().map_while(Result::ok);
        let ready = lines.find_map(|line| Some(line.split_once(READY)?.1.to_owned()));
        let Some(ready) = ready else {
            panic!("{how:?} came to nothing: {:?}", child.wait());
        };
        // Where it is not the child itself, it says who it is.
        let pid = ready
            .trim_start_matches(" by ")
            .parse()
            .unwrap_or(child.id());
        Holding { child, pid }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The holder's part: not a test, but the process that the tests start. Alone it does nothing.
#[test]
fn the_holder() {
    let (Ok(how), Some(file)) = (std::env::var(HOW), std::env::var_os(FILE)) else {
        return;
    };
    let how = UseState::ALL
        .iter()
        .find(|known| format!("{known:?}") == how)
        .unwrap();
    let path = PathBuf::from(file);
    let until_the_end = || {
        println!("{READY}");
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // What the harness has to say nobody reads.
        std::process::exit(0);
    };
    match how {
        UseState::Write => {
            let _file = File::options().append(true).open(path).unwrap();
            until_the_end();
        }
        UseState::Read => {
            let _file = File::open(path).unwrap();
            until_the_end();
        }
        UseState::Map | UseState::MapToWrite => {
            let to_write = *how == UseState::MapToWrite;
            map(File::options()
                .read(true)
                .write(to_write)
                .open(path)
                .unwrap());
            until_the_end();
        }
        UseState::MapInThread => {
            map_in_thread(&path);
        }
        UseState::Flock => {
            let file = File::open(path).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            until_the_end();
        }
        UseState::Posix => {
            let file = File::options().write(true).open(path).unwrap();
            rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            until_the_end();
        }
        UseState::Flight => {
            let _socket = in_flight(File::open(path).unwrap());
            until_the_end();
        }
        #[cfg(target_os = "linux")]
        UseState::Path => {
            use std::os::unix::fs::OpenOptionsExt;
            let options = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .clone();
            let _handle = options.open(path).unwrap();
            until_the_end();
        }
        UseState::Directory => {
            std::env::set_current_dir(path.parent().unwrap()).unwrap();
            let _dir = File::open(".").unwrap();
            until_the_end();
        }
    }
}

/// Maps a file for as long as the process lives, with the raw call, and closes it: no descriptor
/// is left.
pub(crate) fn map(file: File) {
    let length = file.metadata().unwrap().len() as usize;
    let mode = rustix::fs::fcntl_getfl(&file).unwrap();
    let to_write = mode.contains(rustix::fs::OFlags::RDWR);
    let protection = libc::PROT_READ | if to_write { libc::PROT_WRITE } else { 0 };
    // SAFETY: a new mapping of an open file; nothing else is there to be harmed.
    let at = unsafe {
        let (fd, shared) = (file.as_raw_fd(), libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), length, protection, shared, fd, 0)
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
}

/// Forks; the child maps the file in a second thread, and its first one ends.
fn map_in_thread(path: &Path) {
    // SAFETY: the child goes on with its one thread; glibc and Apple's libc let it make another.
    let child = unsafe { libc::fork() };
    if child != 0 {
        // The harness of the test reads nothing more from here.
        let mut status = 0;
        // SAFETY: waits for our child.
        while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {}
        std::process::exit(0);
    }
    let path = path.to_owned();
    std::thread::spawn(move || {
        map(File::open(path).unwrap());
        let stat = "/proc/self/stat";
        if cfg!(target_os = "linux") {
            let has_ended = || fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") Z "));
            wait_until("the first thread has ended", has_ended);
        }
        println!("{READY} by {}", std::process::id());
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    });
    loop {
        #[cfg(target_os = "linux")]
        // SAFETY: exit(2), which ends this one thread; the other one goes on.
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
        std::thread::park();
    }
}

/// Sends an open file to a socket that nobody reads, and closes every descriptor of it.
fn in_flight(file: File) -> std::os::unix::net::UnixStream {
    let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut byte = [0u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut space = [0u64; 8];
    // SAFETY: the message names one byte and room for one descriptor, all of which outlive the
    // call; CMSG_FIRSTHDR gives a place within that room, large enough for it.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<libc::c_int>()
            .write_unaligned(file.as_raw_fd());
        libc::sendmsg(from.as_raw_fd(), &raw const message, 0)
    };
    assert_eq!(sent, 1, "{}", io::Error::last_os_error());
    to
}

/// What is said of the temp, and who holds it.
#[track_caller]
fn kept(fixture: &Fixture) -> (Reason, Vec<Holder>) {
    match fixture.judge(TEMP) {
        Event::Kept {
            reason, holders, ..
        } => (reason, holders),
        event => panic!("{event:?}"),
    }
}

#[track_caller]
fn is_taken(fixture: &Fixture, what: &str) {
    let event = fixture.judge(TEMP);
    assert!(matches!(event, Event::Reaped(_)), "{what}: {event:?}");
    assert!(!fixture.temp.exists(), "{what}");
}

/// What Linux calls a program that was started as `/proc/self/exe`.
const NAME: &str = "exe";

/// Leases are Linux's: elsewhere the same holders must keep it, for whatever reason.
#[test]
fn whoever_holds_it_is_seen() {
    in_own_process(ALL_USERS, || {
        for how in UseState::ALL {
            let fixture = Fixture::new();
            let holding = Holding::new(*how, &fixture.temp);
            let (want, named) = match how {
                UseState::Write | UseState::Read | UseState::Map | UseState::MapToWrite => {
                    (Some(Reason::InUse), true)
                }
                UseState::MapInThread => (Some(Reason::InUse), true),
                UseState::Flock | UseState::Posix => (Some(Reason::Locked), true),
                UseState::Flight => (Some(Reason::InUse), false),
                #[cfg(target_os = "linux")]
                UseState::Path => (None, false),
                UseState::Directory => (None, false),
            };
            let Some(want) = want else {
                // Neither of them can lose a byte of the file.
                is_taken(&fixture, &format!("{how:?}"));
                continue;
            };
            let (reason, holders) = kept(&fixture);
            assert!(fixture.temp.exists(), "{how:?}");
            if cfg!(target_os = "linux") {
                assert_eq!(reason, want, "{how:?}");
                let name = match how {
                    // It was not started, but forked by a thread of that name.
                    UseState::MapInThread => "holders::the_ho",
                    _ => NAME,
                };
                let holder = Holder {
                    pid: holding.pid,
                    name: name.into(),
                };
                match named {
                    true => assert_eq!(holders, [holder], "{how:?}"),
                    false => assert!(holders.iter().all(|seen| *seen == holder), "{how:?}"),
                }
            }
            drop(holding);
            is_taken(&fixture, &format!("{how:?}, over"));
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        }
    });
}

#[test]
fn another_name_keeps_it() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let other = fixture.outside.join("the-other-name");
        fs::hard_link(&fixture.temp, &other).unwrap();
        assert_eq!(kept(&fixture).0, Reason::HardLinked, "nobody holds it");
        let holding = Holding::new(UseState::Write, &other);
        assert_eq!(kept(&fixture).0, Reason::HardLinked, "held by that name");
        // The name goes, the holder stays.
        fs::remove_file(&other).unwrap();
        assert_eq!(kept(&fixture).0, Reason::InUse);
        drop(holding);
        is_taken(&fixture, "one name, nobody holds it");
    });
}

/// Linked to its target, then killed before the unlink: nothing is lost with the temp's name, and
/// nothing comes free.
#[test]
fn its_target_as_its_other_name() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::remove_file(&fixture.target).unwrap();
        fs::hard_link(&fixture.temp, &fixture.target).unwrap();
        match fixture.judge(TEMP) {
            Event::Reaped(disposed) => assert_eq!(disposed.freed, FileSize::default()),
            event => panic!("{event:?}"),
        }
        fixture.assert_only_at(TEMP_CONTENT, &fixture.target, "");
    });
}

/// The opt-outs that `systemd-tmpfiles` honours: a lock on a temp that is otherwise an orphan.
#[test]
fn a_shared_lock_keeps_it_too() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let file = File::open(&fixture.temp).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
        let reason = kept(&fixture).0;
        if cfg!(target_os = "linux") {
            assert_eq!(reason, Reason::Locked);
        }
        drop(file);
        is_taken(&fixture, "unlocked");
    });
}

/// Namespaces, `/proc` and signals by descriptor are Linux's.
#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use orphand::clock;
    use orphand::daemon::Watcher;
    use orphand::decide::judge::{LeaseCoverage, Verdict, Writer};
    use orphand::decide::policy::{Open, Policy};
    use orphand::decide::time::Mono;
    use orphand::evidence::container_pids::ContainerPids;
    use orphand::evidence::{self, FileId};
    use orphand::look;
    use orphand::reap::{Outcome, Step};

    use super::*;

    fn in_own_pids(command: &mut Command) {
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(unshare_pids) };
    }

    fn in_own_users(command: &mut Command) {
        // SAFETY: as above.
        unsafe { command.pre_exec(|| check_syscall(libc::unshare(libc::CLONE_NEWUSER))) };
    }

    fn may(namespace: Prepare) -> bool {
        let mut command = Command::new("/bin/true");
        namespace(&mut command);
        command.run_to_end().is_ok_and(|status| status.success())
    }

    #[test]
    fn from_other_namespaces() {
        in_own_process(&[RunAs::CurrentUser], || {
            let namespaces: [(&str, Prepare); 2] = [("pid", in_own_pids), ("user", in_own_users)];
            for (name, namespace) in namespaces {
                if !may(namespace) {
                    report_skipped(&format!("a {name} namespace may not be made here"));
                    continue;
                }
                for how in [
                    UseState::Write,
                    UseState::Read,
                    UseState::Map,
                    UseState::Flock,
                    UseState::Flight,
                ] {
                    let fixture = Fixture::new();
                    // A process without any user of ours is everybody else to the file.
                    fs::set_permissions(&fixture.temp, fs::Permissions::from_mode(0o666)).unwrap();
                    let holding = Holding::within(how, &fixture.temp, namespace);
                    let (reason, holders) = kept(&fixture);
                    match how {
                        // The table of locks shows those of this pid namespace and of those below.
                        UseState::Flock => assert_eq!(reason, Reason::Locked, "{name} {how:?}"),
                        _ => assert_eq!(reason, Reason::InUse, "{name} {how:?}"),
                    }
                    if how != UseState::Flight && rustix::process::geteuid().is_root() {
                        let named = holders.iter().any(|holder| holder.name == NAME);
                        assert!(named, "{name} {how:?}: {holders:?}");
                    }
                    drop(holding);
                    is_taken(&fixture, &format!("{name} {how:?}, over"));
                }
            }
        });
    }

    /// `/proc` shows none of the holders in there, without an error: the lease is the proof.
    #[test]
    fn seen_from_within_a_pid_namespace() {
        const HOME: &str = "ORPHAND_TEST_HOME";
        in_own_process(&[RunAs::CurrentUser], || {
            if let Some(home) = std::env::var_os(HOME) {
                let fixture = Fixture::at(home.into());
                assert_eq!(std::process::id(), 1);
                assert_eq!(kept(&fixture), (Reason::InUse, Vec::new()));
                return;
            }
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            for how in [
                UseState::Write,
                UseState::Read,
                UseState::Map,
                UseState::Flight,
            ] {
                let fixture = Fixture::new();
                let holding = Holding::new(how, &fixture.temp);
                let mut inside = test_command(&this_test());
                inside.env(HOME, fixture.home());
                run_test(inside, RunAs::OwnPidNamespace);
                assert!(fixture.temp.exists());
                drop(holding);
            }
        });
    }

    /// A walk over the processes names them; and it can only ever clear a file if it saw all.
    #[test]
    fn a_walk_over_the_processes() {
        in_own_process(ALL_USERS, || {
            let ways = [
                UseState::Write,
                UseState::Read,
                UseState::Map,
                UseState::MapToWrite,
            ];
            for how in ways.into_iter().chain([UseState::Flock]) {
                let fixture = Fixture::new();
                let holding = Holding::new(how, &fixture.temp);
                let (held, free) = (id(&fixture.temp), id(&fixture.target));
                for reach in [LeaseCoverage::OpensAndMaps, LeaseCoverage::OpensOnly] {
                    let process_scan = evidence::scan_processes(&[held, free], reach);
                    assert_eq!(pids(&process_scan, held), [holding.pid], "{how:?}");
                    assert!(!process_scan.proves_unmapped(held), "{how:?}");
                    // One with the same number on another device: nobody is named, and it may be the same.
                    let namesake = FileId {
                        dev: held.dev + 1,
                        ..held
                    };
                    let process_scan = evidence::scan_processes(&[namesake, free], reach);
                    assert!(process_scan.of(namesake).is_empty(), "{how:?}");
                    let is_it = process_scan.doubtful.contains(&namesake);
                    assert_eq!(is_it, reach == LeaseCoverage::OpensOnly, "{how:?}");
                    assert!(!process_scan.proves_unmapped(namesake) || !is_it, "{how:?}");
                    if reach == LeaseCoverage::OpensAndMaps {
                        assert!(process_scan.of(free).is_empty(), "{how:?}");
                        assert_eq!(process_scan.proves_unmapped(free), process_scan.complete);
                    }
                }
            }
        });
    }

    fn pids(process_scan: &evidence::ProcessScan, file: FileId) -> Vec<u32> {
        process_scan
            .of(file)
            .iter()
            .map(|holder| holder.pid)
            .collect()
    }

    fn id(path: &Path) -> FileId {
        let seen = fs::metadata(path).unwrap();
        FileId {
            dev: seen.dev(),
            ino: seen.ino(),
        }
    }

    /// Its `/proc/PID/maps` is empty and its state is `Z`, while its other threads go on.
    #[test]
    fn a_process_whose_first_thread_has_ended() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(UseState::MapInThread, &fixture.temp);
            let process_scan =
                evidence::scan_processes(&[id(&fixture.temp)], LeaseCoverage::OpensOnly);
            let seen = pids(&process_scan, id(&fixture.temp));
            let missed = "its mapping is missed, and on overlayfs the walk is the only proof";
            assert_eq!(seen, [holding.pid], "{missed}");
        });
    }

    /// The same process as the writer that a name speaks of: it lives.
    #[test]
    fn a_writer_whose_first_thread_has_ended() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(UseState::MapInThread, &fixture.target);
            stays_while_its_writer_lives(&fixture, holding.pid, || drop(holding));
        });
    }

    /// A temp whose name carries `pid` stays. Its name.
    #[track_caller]
    fn stays_while_its_writer_may_live(fixture: &Fixture, pid: u32) -> String {
        let name = format!("{TARGET}.{pid}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
        fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
        match fixture.judge(&name) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::WriterAlive),
            event => panic!("its writer may live: {event:?}"),
        }
        name
    }

    /// A temp whose name carries `pid` stays, and goes when `end` has ended that process.
    #[track_caller]
    fn stays_while_its_writer_lives(fixture: &Fixture, pid: u32, end: impl FnOnce()) {
        let name = stays_while_its_writer_may_live(fixture, pid);
        end();
        let event = fixture.judge(&name);
        assert!(
            matches!(event, Event::Reaped(_)),
            "its writer is gone: {event:?}"
        );
    }

    /// A writer in a container puts the number into the name by which it knows itself, and here that is
    /// nobody's.
    #[test]
    fn a_writer_in_a_pid_namespace_below() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let Some(mut inside) = Inside::new() else {
                return report_skipped("no pid namespace can be made here");
            };
            stays_while_its_writer_lives(&fixture, inside.pid, || inside.end());
        });
    }

    /// Threads have numbers too, and kill(2) knows them.
    #[test]
    fn a_thread_in_a_pid_namespace_below() {
        in_own_process(&[RunAs::CurrentUser], || {
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            let fixture = Fixture::new();
            let _holding = Holding::within(UseState::MapInThread, &fixture.temp, |command| {
                // SAFETY: between fork and exec only system calls are made.
                unsafe { command.pre_exec(unshare_pids) };
            });
            let called = |pid| {
                ContainerPids::default()
                    .resolve(pid, clock::mono())
                    .unwrap()
            };
            let first = called(1);
            let both = called(2).into_iter().filter(|pid| first.contains(pid));
            assert_ne!(both.count(), 0, "it goes by two numbers");
        });
    }

    /// Where `/proc` is empty, or not that of the own pid namespace, it tells of no writer that it is gone.
    #[test]
    fn a_proc_that_is_not_ours() {
        in_own_process(&[RunAs::OwnMounts], || {
            let fixture = Fixture::new();
            let Some(inside) = Inside::new() else {
                return report_skipped("no pid namespace can be made here");
            };
            mount("none", Path::new("/proc"), "tmpfs", 0, "");
            stays_while_its_writer_may_live(&fixture, inside.pid);
        });
    }

    /// The number of a live writer is another process's too, in the namespace that `/proc` shows: one that
    /// started later than the temp was made.
    #[test]
    fn a_proc_of_another_pid_namespace() {
        const WITHIN: &str = "ORPHAND_TEST_WITHIN";
        in_own_process(&[RunAs::CurrentUser], || {
            if std::env::var_os(WITHIN).is_none() {
                if !rustix::process::geteuid().is_root() {
                    return report_skipped("a pid namespace needs root");
                }
                let mut inside = test_command(&this_test());
                inside.env(WITHIN, "");
                // SAFETY: between fork and exec only system calls are made.
                unsafe { inside.pre_exec(unshare_pids) };
                return run_test(inside, RunAs::CurrentUser);
            }
            // The number that we have outside; the process that has it here is made now.
            let pid: u32 = fs::read_link("/proc/self")
                .unwrap()
                .to_string_lossy()
                .parse()
                .unwrap();
            assert_ne!(pid, std::process::id());
            let last = "/proc/sys/kernel/ns_last_pid";
            if let Err(error) = fs::write(last, (pid - 1).to_string()) {
                return report_skipped(&format!("{last}: {error}"));
            }
            let mut writer = Command::new("sleep").arg("600").start_child().unwrap();
            assert_eq!(writer.id(), pid);
            let before_us = Some(Mono::default());
            assert_eq!(evidence::writer(pid, before_us), Writer::Alive(pid));
            writer.kill().unwrap();
            writer.wait().unwrap();
            assert_eq!(evidence::writer(pid, before_us), Writer::Gone(pid));
            // Whoever holds it is known by a number that is another's here: nobody is named, and nothing proven.
            let fixture = Fixture::new();
            let held = File::open(&fixture.temp).unwrap();
            let file = FileId::from(&look::observe_fd(held.as_fd()).unwrap().fingerprint);
            let mut holder = Command::new("sleep")
                .arg("600")
                .stdin(held)
                .start_child()
                .unwrap();
            let process_scan = evidence::scan_processes(&[file], LeaseCoverage::OpensAndMaps);
            holder.kill().unwrap();
            holder.wait().unwrap();
            assert_eq!(process_scan.of(file), [], "{process_scan:?}");
            assert!(process_scan.doubtful.contains(&file), "{process_scan:?}");
            // The one that is seen is no answer to whether one lives below.
            stays_while_its_writer_may_live(&fixture, pid);
        });
    }

    /// For want of descriptors nobody is seen. That says nothing of anybody, also later.
    #[test]
    fn a_walk_that_cannot_be_made() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let pid = crate::sandbox::dead_pid();
            let name = format!("{TARGET}.{pid}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
            fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
            let temp_info = fixture.candidate_named(&name, Verdict::Reap).temp_info;
            // There is no descriptor to measure a target with, either.
            fs::remove_file(&fixture.target).unwrap();
            let nested = ContainerPids::default();
            let long_ago = Mono::default();
            let file = FileId { dev: 0, ino: 0 };
            let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let limit = |most| {
                let limit = rustix::process::Rlimit {
                    current: most,
                    ..before
                };
                rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            };
            let writer = |most| {
                fixture.with_batch_context(|batch_context| {
                    let seen = batch_context
                        .dir
                        .observe(OsStr::new(&name))
                        .unwrap()
                        .unwrap();
                    let free = (None, orphand::decide::observation::UseState::Unused);
                    limit(most);
                    let gathered = evidence::gather(
                        batch_context.dir,
                        &temp_info,
                        seen,
                        free,
                        batch_context.context,
                    );
                    limit(before.current);
                    gathered.unwrap().0.writer
                })
            };
            assert_eq!(writer(before.current), Writer::Gone(pid));
            assert_eq!(writer(Some(0)), Writer::Unknown(pid), "it may live");
            limit(Some(0));
            let seen = nested.resolve(1, long_ago);
            let process_scan = evidence::scan_processes(&[file], LeaseCoverage::OpensOnly);
            limit(before.current);
            assert!(seen.is_err(), "{seen:?}");
            assert!(nested.resolve(1, long_ago).is_ok());
            assert!(!process_scan.proves_unmapped(file), "{process_scan:?}");
        });
    }

    /// No table shows the locks of processes outside in a pid namespace: where what is open may go, they are
    /// all that keeps it.
    #[test]
    fn locked_outside_of_a_pid_namespace() {
        const HOME: &str = "ORPHAND_TEST_HOME";
        let policy = |open| Policy {
            open,
            ..Fixture::policy()
        };
        in_own_process(&[RunAs::CurrentUser], || {
            if let Some(home) = std::env::var_os(HOME) {
                for open in [Open::Reap, Open::Quarantine] {
                    let fixture = Fixture::at(home.clone().into()).with_policy(policy(open));
                    assert_eq!(kept(&fixture).0, Reason::Locked, "{open:?}");
                }
                return;
            }
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            let fixture = Fixture::new();
            let holding = Holding::new(UseState::Flock, &fixture.temp);
            let changed = || {
                let meta = fs::metadata(&fixture.temp).unwrap();
                (meta.ctime(), meta.ctime_nsec())
            };
            let before = changed();
            let mut inside = test_command(&this_test());
            inside.env(HOME, fixture.home());
            run_test(inside, RunAs::OwnPidNamespace);
            assert_eq!(changed(), before, "its name was taken from it for a moment");
            drop(holding);
        });
    }

    /// A process in a pid namespace of its own, whose number there is nobody's here.
    struct Inside {
        unshare: std::process::Child,
        pid: u32,
    }

    impl Inside {
        /// `None` where this user may have no such namespace.
        fn new() -> Option<Inside> {
            // One after the other gets the next number, until one is told to stay.
            let script =
                "while :; do sh -c 'echo $$; read a; test $a = go || exec sleep 600'; done";
            let mut command = Command::new("unshare");
            command.args(["--fork", "--pid", "--kill-child"]);
            if !rustix::process::geteuid().is_root() {
                command.arg("--user");
            }
            command.args(["sh", "-c", script]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut unshare = command.stderr(Stdio::null()).start_child().ok()?;
            let mut answer = unshare.stdin.take()?;
            let numbers = BufReader::new(unshare.stdout.take()?).lines();
            for number in numbers.map_while(Result::ok) {
                let pid: u32 = number.parse().unwrap();
                // Nor that of a process in another container that runs here.
                let called = ContainerPids::default()
                    .resolve(pid, clock::mono())
                    .unwrap();
                let is_nobody = evidence::writer(pid, None) == Writer::Gone(pid);
                let is_nobody = is_nobody && called.len() == 1;
                let word = if is_nobody { "stay" } else { "go" };
                writeln!(answer, "{word}").unwrap();
                if is_nobody {
                    return Some(Inside { unshare, pid });
                }
            }
            unshare.wait().unwrap();
            None
        }

        fn end(&mut self) {
            let _ = self.unshare.kill();
            self.unshare.wait().unwrap();
            wait_until("it is gone", || {
                let nested = ContainerPids::default();
                let mut left = nested.resolve(self.pid, clock::mono()).unwrap().into_iter();
                left.all(|pid| evidence::writer(pid, None) == Writer::Gone(pid))
            });
        }
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
        }
    }

    /// A writer that was killed, and whose parent does not ask for it.
    #[test]
    fn a_zombie_is_gone() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let mut child = Command::new("/bin/true").start_child().unwrap();
            let stat = format!("/proc/{}/stat", child.id());
            wait_until("it is a zombie", || {
                fs::read_to_string(&stat).unwrap().contains(") Z ")
            });
            let name = format!(
                "{TARGET}.{}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
                child.id()
            );
            fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
            let event = fixture.judge(&name);
            assert!(matches!(event, Event::Reaped(_)), "{event:?}");
            child.wait().unwrap();
        });
    }

    /// A program that embeds orphand may itself have mapped what it wrote.
    #[test]
    fn what_we_have_mapped_ourselves() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            map(File::open(&fixture.temp).unwrap());
            assert_eq!(kept(&fixture).0, Reason::InUse);
            let process_scan =
                evidence::scan_processes(&[id(&fixture.temp)], LeaseCoverage::OpensOnly);
            let seen = pids(&process_scan, id(&fixture.temp));
            let missed = "our mapping is missed, and on overlayfs the walk is the only proof";
            assert_eq!(seen, [std::process::id()], "{missed}");
        });
    }

    /// Everything that the kernel keeps about SIGIO: this thread's mask, and the process' action.
    fn signals() -> (Vec<bool>, usize, i32) {
        let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: both calls fill what they are given and change nothing.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
            libc::sigaction(libc::SIGIO, std::ptr::null(), action.as_mut_ptr());
            let (mask, action) = (mask.assume_init(), action.assume_init());
            let blocked = (1..=64)
                .map(|n| libc::sigismember(&raw const mask, n) == 1)
                .collect();
            (blocked, action.sa_sigaction, action.sa_flags)
        }
    }

    fn block(signal: libc::c_int) {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the set is filled before it is used.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        }
    }

    /// Lets somebody open the temp before each step, with and without waiting: wherever we have a
    /// lease then, it breaks.
    fn break_leases() {
        for step in Step::ALL {
            for flags in [0, libc::O_NONBLOCK] {
                let fixture = Fixture::new();
                let handle = File::options()
                    .read(true)
                    .custom_flags(libc::O_PATH)
                    .clone();
                let handle = handle.open(&fixture.temp).unwrap();
                let openers = Arc::new(Mutex::new(Vec::new()));
                let others = Arc::clone(&openers);
                let stunt = AtStep::new(step, move || {
                    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
                    let opener = std::thread::spawn(move || {
                        let options = File::options().read(true).custom_flags(flags).clone();
                        let _ = options.open(path);
                        drop(handle);
                    });
                    wait_until("it has tried", || {
                        opener.is_finished() || is_waiting(&opener)
                    });
                    others.lock().unwrap().push(opener);
                });
                let outcome = fixture.reap(stunt.hook);
                let harmless = matches!(outcome, Outcome::Kept(_) | Outcome::Reaped { .. });
                assert!(harmless, "{step:?}: {outcome:?}");
                openers.lock().unwrap().drain(..).for_each(join);
            }
        }
    }

    /// Whether any lease of this process is being broken.
    fn is_waiting<T>(_: &std::thread::JoinHandle<T>) -> bool {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let us = std::process::id().to_string();
        locks.lines().any(|line| {
            line.contains("LEASE") && line.contains("BREAKING") && line.split(' ').any(|w| w == us)
        })
    }

    /// A broken lease is announced by SIGIO, and by default that kills. Nobody else is to notice.
    #[test]
    fn a_broken_lease_kills_nobody() {
        in_own_process(ALL_USERS, || {
            let before = signals();
            break_leases();
            assert_eq!(signals(), before);
        });
    }

    #[test]
    fn nor_in_a_thread_with_a_mask_of_its_own() {
        in_own_process(ALL_USERS, || {
            for signal in [libc::SIGUSR2, libc::SIGIO] {
                let thread = std::thread::spawn(move || {
                    block(signal);
                    let before = signals();
                    break_leases();
                    assert_eq!(signals(), before);
                });
                join(thread);
            }
        });
    }

    static HEARD: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn hear(_: libc::c_int) {
        HEARD.fetch_add(1, Ordering::SeqCst);
    }

    /// Its handler for SIGIO is its own, and hears nothing of ours.
    #[test]
    fn nor_does_a_handler_hear_of_it() {
        in_own_process(ALL_USERS, || {
            // SAFETY: the handler does nothing but count.
            unsafe { libc::signal(libc::SIGIO, hear as *const () as libc::sighandler_t) };
            let before = signals();
            join(std::thread::spawn(break_leases));
            break_leases();
            assert_eq!(signals(), before);
            assert_eq!(HEARD.load(Ordering::SeqCst), 0, "SIGIO went to the process");
            // SAFETY: raises a signal that has a handler.
            unsafe { libc::raise(libc::SIGIO) };
            assert_eq!(HEARD.load(Ordering::SeqCst), 1, "and is its own again");
        });
    }

    /// The whole watcher in a program that knows nothing of leases.
    #[test]
    fn nor_does_a_watcher_kill_its_program() {
        in_own_process(ALL_USERS, || {
            let before = signals();
            let fixture = Fixture::new();
            let handle = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .clone();
            let handle = handle.open(&fixture.temp).unwrap();
            let stunt = AtStep::new(Step::Unlink, move || {
                let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
                let options = File::options()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .clone();
                let error = options.open(path).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it was leased");
            });
            let watcher = Watcher::builder();
            let watcher = watcher
                .root(&fixture.root.path, Fixture::policy())
                .allow_broad_roots(true);
            let watcher = watcher.hook(Some(stunt.hook)).start().unwrap();
            let end = std::time::Instant::now() + TIMEOUT;
            while !matches!(watcher.events().recv_deadline(end), Ok(Event::Reaped(_))) {
                assert!(std::time::Instant::now() < end);
            }
            drop(watcher);
            assert_eq!(signals(), before);
        });
    }

    /// A lease of ours that is not let go would make others wait: there is none left over.
    #[test]
    fn nothing_stays_leased() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(UseState::Write, &fixture.temp);
            kept(&fixture);
            drop(holding);
            let _ = fixture.reap(AtStep::new(Step::Look, || {}).hook);
            let us = std::process::id().to_string();
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let ours = |line: &&str| line.contains("LEASE") && line.split(' ').any(|w| w == us);
            assert_eq!(locks.lines().find(ours), None);
        });
    }
}
