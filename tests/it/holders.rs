//! Every way in which a process can hold a file is detected, and the check disturbs no process.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orphand::core::event::Event;
use orphand::core::judge::Reason;
use orphand::core::observation::{FileSize, Holder};

use crate::fixture::*;

/// The way in which a process holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldKind {
    /// Opened for writing.
    Write,
    /// Opened for reading.
    Read,
    /// Mapped for reading, without a descriptor.
    Map,
    /// Mapped for writing, without a descriptor.
    MapToWrite,
    /// Mapped without a descriptor, by a process whose first thread has ended.
    MapInThread,
    /// BSD lock.
    Flock,
    /// POSIX lock.
    Posix,
    /// In flight over a socket; no process has a descriptor.
    InFlight,
    /// `O_PATH` handle, which is not an open file.
    #[cfg(target_os = "linux")]
    Path,
    /// The file's directory is the working directory of the process.
    Directory,
}

impl HoldKind {
    pub(crate) const ALL: &[HoldKind] = &[
        HoldKind::Write,
        HoldKind::Read,
        HoldKind::Map,
        HoldKind::MapToWrite,
        HoldKind::MapInThread,
        HoldKind::Flock,
        HoldKind::Posix,
        HoldKind::InFlight,
        #[cfg(target_os = "linux")]
        HoldKind::Path,
        HoldKind::Directory,
    ];
}

const HOW: &str = "ORPHAND_TEST_HOLDS";
const FILE: &str = "ORPHAND_TEST_FILE";
const READY: &str = "the file is held";

/// Prepares the environment of a process before it starts.
pub(crate) type Prepare = fn(&mut Command);

/// A process that holds a file until this value is dropped.
pub(crate) struct Holding {
    child: Child,
    pub(crate) pid: u32,
}

impl Holding {
    pub(crate) fn new(how: HoldKind, file: &Path) -> Holding {
        Holding::within(how, file, |_| {})
    }

    /// Starts a holder; `prepare` may put it into a namespace.
    pub(crate) fn within(how: HoldKind, file: &Path, prepare: Prepare) -> Holding {
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
        let suffix = lines.find_map(|line| Some(line.split_once(READY)?.1.to_owned()));
        let Some(suffix) = suffix else {
            panic!("the holder {how:?} failed: {:?}", child.wait());
        };
        // If the holder is not the child itself, it prints its pid.
        let pid = suffix
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

/// The code of the holder process: the tests start it as a separate process. As a test of its own it does nothing.
#[test]
fn the_holder() {
    let (Ok(how), Some(file)) = (std::env::var(HOW), std::env::var_os(FILE)) else {
        return;
    };
    let how = HoldKind::ALL
        .iter()
        .find(|known| format!("{known:?}") == how)
        .unwrap();
    let path = PathBuf::from(file);
    let until_the_end = || {
        println!("{READY}");
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // The output of the test harness is not read.
        std::process::exit(0);
    };
    match how {
        HoldKind::Write => {
            let _file = File::options().append(true).open(path).unwrap();
            until_the_end();
        }
        HoldKind::Read => {
            let _file = File::open(path).unwrap();
            until_the_end();
        }
        HoldKind::Map | HoldKind::MapToWrite => {
            let to_write = *how == HoldKind::MapToWrite;
            map(File::options()
                .read(true)
                .write(to_write)
                .open(path)
                .unwrap());
            until_the_end();
        }
        HoldKind::MapInThread => {
            map_in_thread(&path);
        }
        HoldKind::Flock => {
            let file = File::open(path).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            until_the_end();
        }
        HoldKind::Posix => {
            let file = File::options().write(true).open(path).unwrap();
            rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            until_the_end();
        }
        HoldKind::InFlight => {
            let _socket = in_flight(File::open(path).unwrap());
            until_the_end();
        }
        #[cfg(target_os = "linux")]
        HoldKind::Path => {
            use std::os::unix::fs::OpenOptionsExt;
            let options = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .clone();
            let _handle = options.open(path).unwrap();
            until_the_end();
        }
        HoldKind::Directory => {
            std::env::set_current_dir(path.parent().unwrap()).unwrap();
            let _dir = File::open(".").unwrap();
            until_the_end();
        }
    }
}

/// Maps a file for the lifetime of the process, with the raw call, and closes it, so that no descriptor is left.
pub(crate) fn map(file: File) {
    let length = file.metadata().unwrap().len() as usize;
    let mode = rustix::fs::fcntl_getfl(&file).unwrap();
    let to_write = mode.contains(rustix::fs::OFlags::RDWR);
    let protection = libc::PROT_READ | if to_write { libc::PROT_WRITE } else { 0 };
    // SAFETY: creates a new mapping of an open file and changes no other memory.
    let at = unsafe {
        let (fd, shared) = (file.as_raw_fd(), libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), length, protection, shared, fd, 0)
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
}

/// Forks. The child maps the file in a second thread, and its first thread ends.
fn map_in_thread(path: &Path) {
    // SAFETY: the child continues with its one thread, and both glibc and Apple's libc allow it to create another.
    let child = unsafe { libc::fork() };
    if child != 0 {
        // This process prints nothing more for the test harness.
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
        // SAFETY: exit(2) ends this one thread; the other thread continues.
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
        std::thread::park();
    }
}

/// Sends an open file to a socket that no process reads, and closes all its descriptors.
fn in_flight(file: File) -> std::os::unix::net::UnixStream {
    let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut byte = [0u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut space = [0u64; 8];
    // SAFETY: the message refers to one byte and to space for one descriptor, both of which outlive the call.
    // CMSG_FIRSTHDR returns an address in that space, with enough room for the header.
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

/// Returns the reason to keep the temp, and its holders.
#[track_caller]
fn kept_because(fixture: &Fixture) -> (Reason, Vec<Holder>) {
    match fixture.judge(TEMP) {
        Event::Kept {
            reason, holders, ..
        } => (reason, holders),
        event => panic!("{event:?}"),
    }
}

#[track_caller]
fn check_reaped(fixture: &Fixture, what: &str) {
    let event = fixture.judge(TEMP);
    assert!(matches!(event, Event::Reaped(_)), "{what}: {event:?}");
    assert!(!fixture.temp.exists(), "{what}");
}

/// The name that Linux gives to a program that was started as `/proc/self/exe`.
const NAME: &str = "exe";

/// Only Linux has leases. On other systems the same holders must keep the temp, for any reason.
#[test]
fn every_holder_keeps_the_temp() {
    in_own_process(ALL_USERS, || {
        for how in HoldKind::ALL {
            let fixture = Fixture::new();
            let holding = Holding::new(*how, &fixture.temp);
            let (want, named) = match how {
                HoldKind::Write | HoldKind::Read | HoldKind::Map | HoldKind::MapToWrite => {
                    (Some(Reason::InUse), true)
                }
                HoldKind::MapInThread => (Some(Reason::InUse), true),
                HoldKind::Flock | HoldKind::Posix => (Some(Reason::Locked), true),
                HoldKind::InFlight => (Some(Reason::InUse), false),
                #[cfg(target_os = "linux")]
                HoldKind::Path => (None, false),
                HoldKind::Directory => (None, false),
            };
            let Some(want) = want else {
                // Neither of these loses a byte of the file.
                check_reaped(&fixture, &format!("{how:?}"));
                continue;
            };
            let (reason, holders) = kept_because(&fixture);
            assert!(fixture.temp.exists(), "{how:?}");
            if cfg!(target_os = "linux") {
                assert_eq!(reason, want, "{how:?}");
                let name = match how {
                    // It was forked by a thread with this name.
                    HoldKind::MapInThread => "holders::the_ho",
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
            check_reaped(&fixture, &format!("{how:?}, released"));
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        }
    });
}

#[test]
fn a_second_hard_link_keeps_the_temp() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let other = fixture.outside.join("the-other-name");
        fs::hard_link(&fixture.temp, &other).unwrap();
        assert_eq!(
            kept_because(&fixture).0,
            Reason::HardLinked,
            "no process holds it"
        );
        let holding = Holding::new(HoldKind::Write, &other);
        assert_eq!(
            kept_because(&fixture).0,
            Reason::HardLinked,
            "held under the other name"
        );
        // The other name is removed, but the holder still has the file.
        fs::remove_file(&other).unwrap();
        assert_eq!(kept_because(&fixture).0, Reason::InUse);
        drop(holding);
        check_reaped(&fixture, "one name, no holder");
    });
}

/// The writer linked the temp to its target and was killed before the unlink. Removing the temp's name loses nothing
/// and frees nothing.
#[test]
fn a_hard_link_to_the_target_is_removed() {
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

/// A lock, which `systemd-tmpfiles` honors as an opt-out, keeps a temp that is otherwise an orphan.
#[test]
fn a_shared_lock_keeps_the_temp() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let file = File::open(&fixture.temp).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
        let reason = kept_because(&fixture).0;
        if cfg!(target_os = "linux") {
            assert_eq!(reason, Reason::Locked);
        }
        drop(file);
        check_reaped(&fixture, "unlocked");
    });
}

/// Namespaces, `/proc` and signals by descriptor exist only on Linux.
#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use orphand::core::judge::{LeaseCoverage, Verdict, Writer};
    use orphand::core::policy::{Open, Policy};
    use orphand::core::time::Mono;
    use orphand::daemon::Watcher;
    use orphand::evidence::container_pids::ContainerPids;
    use orphand::evidence::{self, FileId};
    use orphand::fs::dir;
    use orphand::reap::{Outcome, Step};
    use orphand::sys::clock;

    use super::*;
    use crate::sandbox::Sandbox;

    fn in_own_pids(command: &mut Command) {
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(unshare_pids) };
    }

    fn in_own_users(command: &mut Command) {
        // SAFETY: as above.
        unsafe { command.pre_exec(|| check_syscall(libc::unshare(libc::CLONE_NEWUSER))) };
    }

    fn may_create(namespace: Prepare) -> bool {
        let mut command = Command::new("/bin/true");
        namespace(&mut command);
        command.run_to_end().is_ok_and(|status| status.success())
    }

    #[test]
    fn holders_in_other_namespaces_are_seen() {
        in_own_process(&[RunAs::CurrentUser], || {
            let namespaces: [(&str, Prepare); 2] = [("pid", in_own_pids), ("user", in_own_users)];
            for (name, namespace) in namespaces {
                if !may_create(namespace) {
                    report_skipped(&format!("this user may not create a {name} namespace"));
                    continue;
                }
                for how in [
                    HoldKind::Write,
                    HoldKind::Read,
                    HoldKind::Map,
                    HoldKind::Flock,
                    HoldKind::InFlight,
                ] {
                    let fixture = Fixture::new();
                    // The file treats a process of an unmapped user as "other".
                    fs::set_permissions(&fixture.temp, fs::Permissions::from_mode(0o666)).unwrap();
                    let holding = Holding::within(how, &fixture.temp, namespace);
                    let (reason, holders) = kept_because(&fixture);
                    match how {
                        // The table of locks shows the locks of this pid namespace and of its children.
                        HoldKind::Flock => assert_eq!(reason, Reason::Locked, "{name} {how:?}"),
                        _ => assert_eq!(reason, Reason::InUse, "{name} {how:?}"),
                    }
                    if how != HoldKind::InFlight && rustix::process::geteuid().is_root() {
                        let named = holders.iter().any(|holder| holder.name == NAME);
                        assert!(named, "{name} {how:?}: {holders:?}");
                    }
                    drop(holding);
                    check_reaped(&fixture, &format!("{name} {how:?}, released"));
                }
            }
        });
    }

    /// In a pid namespace, `/proc` shows none of the holders and no error. The lease is the proof.
    #[test]
    fn holders_are_seen_from_inside_a_pid_namespace() {
        const HOME: &str = "ORPHAND_TEST_HOME";
        in_own_process(&[RunAs::CurrentUser], || {
            if let Some(home) = std::env::var_os(HOME) {
                let fixture = Fixture::at(home.into());
                assert_eq!(std::process::id(), 1);
                assert_eq!(kept_because(&fixture), (Reason::InUse, Vec::new()));
                return;
            }
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            for how in [
                HoldKind::Write,
                HoldKind::Read,
                HoldKind::Map,
                HoldKind::InFlight,
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

    /// A process scan names the holders. It proves a file unused only if it could examine all processes.
    #[test]
    fn a_process_scan_finds_holders() {
        in_own_process(ALL_USERS, || {
            let kinds = [
                HoldKind::Write,
                HoldKind::Read,
                HoldKind::Map,
                HoldKind::MapToWrite,
            ];
            for how in kinds.into_iter().chain([HoldKind::Flock]) {
                let fixture = Fixture::new();
                let holding = Holding::new(how, &fixture.temp);
                let (held, free) = (id(&fixture.temp), id(&fixture.target));
                for reach in [LeaseCoverage::OpensAndMaps, LeaseCoverage::OpensOnly] {
                    let process_scan = evidence::scan_processes(&[held, free], reach);
                    assert_eq!(pids(&process_scan, held), [holding.pid], "{how:?}");
                    assert!(!process_scan.proves_unmapped(held), "{how:?}");
                    // A file with the same inode number on another device: no holder is named, but it may be the same
                    // file.
                    let same_ino = FileId {
                        dev: held.dev + 1,
                        ..held
                    };
                    let process_scan = evidence::scan_processes(&[same_ino, free], reach);
                    assert!(process_scan.holders_of(same_ino).is_empty(), "{how:?}");
                    let is_doubtful = process_scan.uncertain.contains(&same_ino);
                    assert_eq!(is_doubtful, reach == LeaseCoverage::OpensOnly, "{how:?}");
                    assert!(
                        !process_scan.proves_unmapped(same_ino) || !is_doubtful,
                        "{how:?}"
                    );
                    if reach == LeaseCoverage::OpensAndMaps {
                        assert!(process_scan.holders_of(free).is_empty(), "{how:?}");
                        assert_eq!(process_scan.proves_unmapped(free), process_scan.complete);
                    }
                }
            }
        });
    }

    fn pids(process_scan: &evidence::ProcessScan, file: FileId) -> Vec<u32> {
        process_scan
            .holders_of(file)
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

    /// The `/proc/PID/maps` of such a process is empty and its state is `Z`, but its other threads run.
    #[test]
    fn a_process_scan_sees_mappings_of_other_threads() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(HoldKind::MapInThread, &fixture.temp);
            let process_scan =
                evidence::scan_processes(&[id(&fixture.temp)], LeaseCoverage::OpensOnly);
            let seen = pids(&process_scan, id(&fixture.temp));
            let missed = "the scan misses its mapping, and on overlayfs the scan is the only proof";
            assert_eq!(seen, [holding.pid], "{missed}");
        });
    }

    /// Such a process still counts as the live writer that a name refers to.
    #[test]
    fn a_writer_is_alive_after_its_first_thread_ended() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(HoldKind::MapInThread, &fixture.target);
            check_kept_until_writer_ends(&fixture, holding.pid, || drop(holding));
        });
    }

    /// Checks that a temp whose name contains `pid` is kept. Returns its name.
    #[track_caller]
    fn check_kept_for_writer(fixture: &Fixture, pid: u32) -> String {
        let name = format!("{TARGET}.{pid}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
        fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
        match fixture.judge(&name) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::WriterAlive),
            event => panic!("its writer may be alive: {event:?}"),
        }
        name
    }

    /// Checks that a temp whose name contains `pid` is kept, and removed once `end` has ended that process.
    #[track_caller]
    fn check_kept_until_writer_ends(fixture: &Fixture, pid: u32, end: impl FnOnce()) {
        let name = check_kept_for_writer(fixture, pid);
        end();
        // Another test may run a process that has the same pid in a namespace of its own.
        let mut event = fixture.judge(&name);
        wait_until("the temp of a writer that is gone is removed", || {
            let is_kept =
                matches!(&event, Event::Kept { reason, .. } if *reason == Reason::WriterAlive);
            if is_kept {
                event = fixture.judge(&name);
            }
            !is_kept
        });
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
    }

    /// A writer in a container uses its pid in the container for the name. Outside, no process has this pid.
    #[test]
    fn a_writer_in_a_child_pid_namespace_is_alive() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let Some(mut inside) = Inside::new() else {
                return report_skipped("no pid namespace can be created here");
            };
            check_kept_until_writer_ends(&fixture, inside.pid, || inside.end());
        });
    }

    /// Threads have ids too, and kill(2) accepts them.
    #[test]
    fn a_thread_in_a_child_pid_namespace_has_a_pid() {
        in_own_process(&[RunAs::CurrentUser], || {
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            let fixture = Fixture::new();
            let _holding = Holding::within(HoldKind::MapInThread, &fixture.temp, |command| {
                // SAFETY: between fork and exec only system calls are made.
                unsafe { command.pre_exec(unshare_pids) };
            });
            let resolve = |pid| {
                ContainerPids::default()
                    .resolve(pid, clock::mono())
                    .unwrap()
            };
            let first = resolve(1);
            let both = resolve(2).into_iter().filter(|pid| first.contains(pid));
            assert_ne!(both.count(), 0, "no thread has both ids");
        });
    }

    /// If `/proc` is empty or belongs to another pid namespace, no writer counts as gone.
    #[test]
    fn an_empty_proc_proves_nothing() {
        in_own_process(&[RunAs::OwnMounts], || {
            let fixture = Fixture::new();
            let Some(inside) = Inside::new() else {
                return report_skipped("no pid namespace can be created here");
            };
            mount("none", Path::new("/proc"), "tmpfs", 0, "");
            check_kept_for_writer(&fixture, inside.pid);
        });
    }

    /// In the namespace that `/proc` shows, the pid of a live writer also belongs to another process, which started
    /// after the temp was created.
    #[test]
    fn a_proc_of_another_pid_namespace_proves_nothing() {
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
            // Our pid in the outer namespace; the process that has it in this namespace is created next.
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
            // The holder has a pid that belongs to another process here. So no holder is named, and nothing is proven.
            let fixture = Fixture::new();
            let held = File::open(&fixture.temp).unwrap();
            let file = FileId::from(&dir::observe_fd(held.as_fd()).unwrap().fingerprint);
            let mut holder = Command::new("sleep")
                .arg("600")
                .stdin(held)
                .start_child()
                .unwrap();
            let process_scan = evidence::scan_processes(&[file], LeaseCoverage::OpensAndMaps);
            holder.kill().unwrap();
            holder.wait().unwrap();
            assert_eq!(process_scan.holders_of(file), [], "{process_scan:?}");
            assert!(process_scan.uncertain.contains(&file), "{process_scan:?}");
            // The process that `/proc` shows does not prove that no writer runs in a child namespace.
            check_kept_for_writer(&fixture, pid);
        });
    }

    /// Without free descriptors no process can be examined. That proves nothing, not even later.
    #[test]
    fn a_failed_process_scan_proves_nothing() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let pid = crate::sandbox::dead_pid();
            let name = format!("{TARGET}.{pid}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
            fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
            let temp_info = fixture.candidate_named(&name, Verdict::Reap).temp_info;
            // There is no descriptor to measure a target with, either.
            fs::remove_file(&fixture.target).unwrap();
            let container_pids = ContainerPids::default();
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
                fixture.with_batch_context(&orphand::evidence::UseChecker::new(), |batch_context| {
                    let seen = batch_context
                        .dir
                        .observe(OsStr::new(&name))
                        .unwrap()
                        .unwrap();
                    let unused = evidence::FileUse {
                        state: orphand::core::observation::UseState::Unused,
                        file: None,
                        target: evidence::KnownTarget::Nothing,
                        is_needed: true,
                    };
                    limit(most);
                    let gathered = evidence::gather(
                        batch_context.dir,
                        &temp_info,
                        seen,
                        unused,
                        batch_context.context,
                    );
                    limit(before.current);
                    gathered.unwrap().0.writer
                })
            };
            assert_eq!(writer(before.current), Writer::Gone(pid));
            assert_eq!(writer(Some(0)), Writer::Unknown(pid), "it may be alive");
            limit(Some(0));
            let seen = container_pids.resolve(1, long_ago);
            let process_scan = evidence::scan_processes(&[file], LeaseCoverage::OpensOnly);
            limit(before.current);
            assert!(seen.is_err(), "{seen:?}");
            assert!(container_pids.resolve(1, long_ago).is_ok());
            assert!(!process_scan.proves_unmapped(file), "{process_scan:?}");
        });
    }

    /// In a pid namespace, no table shows the locks of processes outside. If open files may be removed, only such a
    /// lock keeps them.
    #[test]
    fn a_lock_outside_the_pid_namespace_keeps_the_temp() {
        const HOME: &str = "ORPHAND_TEST_HOME";
        let policy = |open| Policy {
            open,
            ..Fixture::policy()
        };
        in_own_process(&[RunAs::CurrentUser], || {
            if let Some(home) = std::env::var_os(HOME) {
                for open in [Open::Reap, Open::Quarantine] {
                    let fixture = Fixture::at(home.clone().into()).with_policy(policy(open));
                    assert_eq!(kept_because(&fixture).0, Reason::Locked, "{open:?}");
                }
                return;
            }
            if !rustix::process::geteuid().is_root() {
                return report_skipped("a pid namespace needs root");
            }
            let fixture = Fixture::new();
            let holding = Holding::new(HoldKind::Flock, &fixture.temp);
            let changed = || {
                let meta = fs::metadata(&fixture.temp).unwrap();
                (meta.ctime(), meta.ctime_nsec())
            };
            let before = changed();
            let mut inside = test_command(&this_test());
            inside.env(HOME, fixture.home());
            run_test(inside, RunAs::OwnPidNamespace);
            assert_eq!(changed(), before, "the temp was renamed in between");
            drop(holding);
        });
    }

    /// A process in its own pid namespace. Outside, no process has its pid.
    struct Inside {
        unshare: std::process::Child,
        pid: u32,
    }

    impl Inside {
        /// Starts the process. Returns `None` if this user may not create such a namespace.
        fn new() -> Option<Inside> {
            // Each process gets the next pid, until one of them is chosen.
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
                // The pid must not belong to a process in another container on this machine either.
                let resolved = ContainerPids::default()
                    .resolve(pid, clock::mono())
                    .unwrap();
                let is_unused = evidence::writer(pid, None) == Writer::Gone(pid);
                let is_unused = is_unused && resolved.len() == 1;
                let word = if is_unused { "stay" } else { "go" };
                writeln!(answer, "{word}").unwrap();
                if is_unused {
                    return Some(Inside { unshare, pid });
                }
            }
            unshare.wait().unwrap();
            None
        }

        fn end(&mut self) {
            let _ = self.unshare.kill();
            self.unshare.wait().unwrap();
            wait_until("the process is gone", || {
                let container_pids = ContainerPids::default();
                let mut left = container_pids
                    .resolve(self.pid, clock::mono())
                    .unwrap()
                    .into_iter();
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

    /// A writer that was killed and whose parent has not waited for it.
    #[test]
    fn a_zombie_writer_counts_as_gone() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let mut child = Command::new("/bin/true").start_child().unwrap();
            let stat = format!("/proc/{}/stat", child.id());
            wait_until("the process is a zombie", || {
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

    /// A program that embeds orphand may itself have mapped the files that it wrote.
    #[test]
    fn our_own_mapping_keeps_the_temp() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            map(File::open(&fixture.temp).unwrap());
            assert_eq!(kept_because(&fixture).0, Reason::InUse);
            let process_scan =
                evidence::scan_processes(&[id(&fixture.temp)], LeaseCoverage::OpensOnly);
            let seen = pids(&process_scan, id(&fixture.temp));
            let missed = "the scan misses our mapping, and on overlayfs the scan is the only proof";
            assert_eq!(seen, [std::process::id()], "{missed}");
        });
    }

    /// Returns all state of the kernel for SIGIO: the mask of this thread and the action of the process.
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

    /// Opens the temp before each step, with and without waiting. If orphand has a lease at that moment, the open
    /// breaks it.
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
                let at_step = AtStep::new(step, move || {
                    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
                    let opener = std::thread::spawn(move || {
                        let options = File::options().read(true).custom_flags(flags).clone();
                        let _ = options.open(path);
                        drop(handle);
                    });
                    wait_until("the opener has tried", || {
                        opener.is_finished() || is_waiting(&opener)
                    });
                    others.lock().unwrap().push(opener);
                });
                let outcome = fixture.reap(at_step.hook);
                let harmless = matches!(outcome, Outcome::Kept(_) | Outcome::Reaped { .. });
                assert!(harmless, "{step:?}: {outcome:?}");
                openers.lock().unwrap().drain(..).for_each(join);
            }
        }
    }

    /// Reports whether any lease of this process is being broken.
    fn is_waiting<T>(_: &std::thread::JoinHandle<T>) -> bool {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let us = std::process::id().to_string();
        locks.lines().any(|line| {
            line.contains("LEASE") && line.contains("BREAKING") && line.split(' ').any(|w| w == us)
        })
    }

    /// The kernel announces a broken lease by SIGIO, which by default kills the process. It must not affect the
    /// process.
    #[test]
    fn a_broken_lease_kills_no_process() {
        in_own_process(ALL_USERS, || {
            let before = signals();
            break_leases();
            assert_eq!(signals(), before);
        });
    }

    #[test]
    fn a_broken_lease_keeps_signal_masks() {
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

    static SIGNALS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count_signal(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::SeqCst);
    }

    /// A program's handler for SIGIO belongs to the program, and must not receive orphand's signals.
    #[test]
    fn a_sigio_handler_gets_no_signal_of_ours() {
        in_own_process(ALL_USERS, || {
            // SAFETY: the handler does nothing but count.
            unsafe { libc::signal(libc::SIGIO, count_signal as *const () as libc::sighandler_t) };
            let before = signals();
            join(std::thread::spawn(break_leases));
            break_leases();
            assert_eq!(signals(), before);
            assert_eq!(
                SIGNALS.load(Ordering::SeqCst),
                0,
                "SIGIO was sent to the process"
            );
            // SAFETY: raises a signal that has a handler.
            unsafe { libc::raise(libc::SIGIO) };
            assert_eq!(
                SIGNALS.load(Ordering::SeqCst),
                1,
                "the handler does not work"
            );
        });
    }

    /// A whole watcher, in a program that does not know about leases.
    #[test]
    fn a_watcher_does_not_kill_its_process() {
        in_own_process(ALL_USERS, || {
            let before = signals();
            let fixture = Fixture::new();
            let handle = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .clone();
            let handle = handle.open(&fixture.temp).unwrap();
            let at_step = AtStep::new(Step::Unlink, move || {
                let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
                let options = File::options()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .clone();
                let error = options.open(path).unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::WouldBlock,
                    "the file was not leased"
                );
            });
            let watcher = Watcher::builder();
            let watcher = watcher.roots(vec![fixture.root.clone()]);
            let watcher = watcher.hook(Some(at_step.hook)).start().unwrap();
            let end = std::time::Instant::now() + TIMEOUT;
            while !matches!(watcher.events().recv_deadline(end), Ok(Event::Reaped(_))) {
                assert!(std::time::Instant::now() < end);
            }
            drop(watcher);
            assert_eq!(signals(), before);
        });
    }

    /// The binary names no thread as the receiver of the signal, so every thread must block it.
    #[test]
    fn sigio_does_not_end_the_binary() {
        let sandbox = Sandbox::new();
        let mut watching = sandbox.watch(["--grace", "100ms"]).ready();
        watching.wait_for_sentinel(&sandbox);
        let sigio = 1_u64 << (libc::SIGIO - 1);
        let tasks = fs::read_dir(format!("/proc/{}/task", watching.pid())).unwrap();
        let blocked = tasks.flatten().map(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            u64::from_str_radix(mask.expect("a mask").trim(), 16).unwrap() & sigio
        });
        let blocked = Vec::from_iter(blocked);
        assert!(
            blocked.len() > 1 && !blocked.contains(&0),
            "a thread does not block SIGIO: {blocked:?}"
        );
        watching.signal(libc::SIGIO);
        watching.wait_for_sentinel(&sandbox);
        watching.stop().exit(0);
    }

    /// A lease that orphand does not release would make other processes wait. None is left.
    #[test]
    fn no_lease_is_left() {
        in_own_process(ALL_USERS, || {
            let fixture = Fixture::new();
            let holding = Holding::new(HoldKind::Write, &fixture.temp);
            kept_because(&fixture);
            drop(holding);
            let _ = fixture.reap(AtStep::new(Step::Look, || {}).hook);
            let us = std::process::id().to_string();
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let ours = |line: &&str| line.contains("LEASE") && line.split(' ').any(|w| w == us);
            assert_eq!(locks.lines().find(ours), None);
        });
    }
}
