//! A root with a leaked temp in it, and processes of their own to play in.
//!
//! Each test that asks for leases runs alone, in a process of its own: whoever forks beside it, as
//! every other test may, shares its descriptors for a moment, and a file that a fork has open is
//! in use, rightly.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use crate::sandbox::Begin;
use orphand::clock;
use orphand::decide::judge::{LeaseCoverage, Reason, Verdict};
use orphand::decide::policy::{Graces, Policy};
use orphand::decide::time::ClockJumpDetector;
use orphand::decide::tracker::{Origin, Tracked};
use orphand::event::Event;
use orphand::evidence::container_pids::ContainerPids;
use orphand::evidence::locks::Locks;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::{Listings, Siblings};
use orphand::evidence::writer_names::WriterNames;
use orphand::evidence::{self, EvidenceContext, LeaseThread, TempInfo};
use orphand::journal::Journal;
use orphand::look::Dir;
use orphand::pass::{DirContext, Engine, Pass, PassItem};
use orphand::reap::{BatchContext, Candidate, Hook, Outcome, Reaper, Recovered, Step, quarantine};
use orphand::root::Root;
use orphand::stop::Stop;
use tempfile::TempDir;

/// What a killed writer left.
pub(crate) const OLD: &[u8] = b"what the dead writer wrote";
/// The name that it left it under.
pub(crate) const TEMP: &str = "sessions.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
/// The name that it was to get.
pub(crate) const TARGET: &str = "sessions.json";
/// What stands there: no less than the temp holds, because both are written within one tick of the clock.
pub(crate) const WHOLE: &[u8] = b"the last good state, from the first byte to the last";
/// The directory that they lie in, below the root.
pub(crate) const BELOW: &str = "agent";
/// No condition of these tests takes longer to come, on however slow a machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// The grace of these tests.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

/// A root, a directory below it, and a directory outside of it.
pub(crate) struct Fixture {
    home: PathBuf,
    _removed_in_the_end: Option<TempDir>,
    pub(crate) root: Root,
    pub(crate) dir: PathBuf,
    pub(crate) outside: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) target: PathBuf,
}

/// A file that lies somewhere on a stage.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) ino: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Fixture {
    /// A leaked temp beside its whole target, on a file system where the proof reaches everything.
    pub(crate) fn new() -> Fixture {
        let homes = [
            std::env::temp_dir(),
            PathBuf::from("/dev/shm"),
            PathBuf::from("/var/tmp"),
        ];
        let whole = homes
            .iter()
            .filter_map(|home| TempDir::new_in(home).ok())
            .find(|home| {
                let home = Dir::open_root(&canonical(home.path()), None);
                home.is_ok_and(|home| home.reach() == LeaseCoverage::OpensAndMaps)
            });
        Fixture::within(whole.expect("no file system here on which leases prove anything"))
    }

    /// The same in a directory of one's own choice.
    pub(crate) fn within(home: TempDir) -> Fixture {
        let path = canonical(home.path());
        fs::create_dir_all(path.join("root").join(BELOW)).unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        let fixture = Fixture {
            _removed_in_the_end: Some(home),
            ..Fixture::at(path)
        };
        fs::write(&fixture.target, WHOLE).unwrap();
        fs::write(&fixture.temp, OLD).unwrap();
        fixture
    }

    /// The one that another process has made at `home`.
    pub(crate) fn at(home: PathBuf) -> Fixture {
        let dir = home.join("root").join(BELOW);
        Fixture {
            root: Fixture::root(&home.join("root"), Fixture::policy()),
            temp: dir.join(TEMP),
            target: dir.join(TARGET),
            dir,
            outside: home.join("outside"),
            home,
            _removed_in_the_end: None,
        }
    }

    /// Without a target the temp may be the only copy.
    pub(crate) fn with_sole_copy(self) -> Fixture {
        fs::remove_file(&self.target).unwrap();
        self
    }

    pub(crate) fn policy() -> Policy {
        Policy {
            grace: Graces::both(GRACE),
            recursive: true,
            ..Policy::default()
        }
    }

    pub(crate) fn with_policy(mut self, policy: Policy) -> Fixture {
        self.root = Fixture::root(&self.root.path, policy);
        self
    }

    fn root(path: &Path, policy: Policy) -> Root {
        Root::new(path, Arc::new(policy), true).unwrap()
    }

    /// Everything is here, the root and what is outside of it.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The quarantine.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.path.join(quarantine::FOLDER)
    }

    /// Every regular file on the stage.
    pub(crate) fn files(&self) -> Vec<Found> {
        let mut found = Vec::new();
        files_in(&self.home, &mut found);
        found
    }

    /// The files with this content.
    pub(crate) fn copies(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let files = self.files().into_iter().filter(|file| file.bytes == bytes);
        files.map(|file| file.path).collect()
    }

    /// This content lies there and nowhere else.
    #[track_caller]
    pub(crate) fn has_only(&self, bytes: &[u8], path: &Path, what: &str) {
        let copies = self.copies(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert!(
            copies == [path],
            "{what}: {text:?} is at {copies:?}, not at {path:?}"
        );
    }

    /// No claim is left that nobody is at work on any more, and no folder without a file in it.
    #[track_caller]
    pub(crate) fn is_tidy(&self, what: &str) {
        let mut litter = Vec::new();
        names_in(&self.home, &mut |path, is_dir| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            let in_quarantine = path
                .components()
                .any(|part| part.as_os_str() == quarantine::FOLDER);
            if name.starts_with(".orphand-") || (is_dir && in_quarantine && empty()) {
                litter.push(path.to_owned());
            }
        });
        assert!(litter.is_empty(), "{what}: {litter:?} is left behind");
    }

    /// Takes the temp through the protocol, as one that has been found an orphan. No time passes.
    pub(crate) fn reap(&self, hook: Hook) -> Outcome {
        self.reap_by(&Reaper::new().with_hook(Some(hook)))
    }

    pub(crate) fn reap_by(&self, reaper: &Reaper) -> Outcome {
        self.reap_as(reaper, self.verdict())
    }

    /// The same of one that the look before has opened already.
    pub(crate) fn reap_opened(&self, hook: Hook) -> Outcome {
        let lease_thread = LeaseThread::new();
        let reaper = Reaper::new().with_hook(Some(hook));
        self.reap_asking(
            &lease_thread,
            &reaper,
            self.opened(&lease_thread, self.verdict()),
        )
    }

    fn verdict(&self) -> Verdict {
        match self.target.exists() {
            true => Verdict::Reap,
            false => Verdict::Quarantine(Some(Reason::SoleCopy)),
        }
    }

    pub(crate) fn reap_as(&self, reaper: &Reaper, verdict: Verdict) -> Outcome {
        self.reap_candidate(reaper, self.candidate(verdict))
    }

    pub(crate) fn candidate(&self, verdict: Verdict) -> Candidate {
        self.candidate_called(TEMP, verdict)
    }

    pub(crate) fn candidate_called(&self, name: &str, verdict: Verdict) -> Candidate {
        let dir = Dir::open_below(&self.root.path, None, Path::new(BELOW)).unwrap();
        let name = OsStr::new(name);
        let seen = dir.observe(name).unwrap().expect("the temp");
        let temp_info = TempInfo {
            name: name.to_owned(),
            parsed: self.root.policy.names.parse(name),
            expected: Some(seen.fingerprint),
            quiet: GRACE,
            unused: GRACE,
            grace: GRACE,
            written: None,
            closed: false,
            reserved: None,
        };
        Candidate {
            temp_info,
            verdict,
            opened: None,
        }
    }

    /// The same, opened by the look, as a pass hands it on.
    pub(crate) fn opened(&self, lease_thread: &LeaseThread, verdict: Verdict) -> Candidate {
        let candidate = self.candidate(verdict);
        let dir = Dir::open_below(&self.root.path, None, Path::new(BELOW)).unwrap();
        let file = evidence::open_to_ask(&dir, &candidate.temp_info.name).unwrap();
        let (_, mut leased) = lease_thread.lease(file);
        leased.release();
        Candidate {
            opened: Some(leased),
            ..candidate
        }
    }

    pub(crate) fn reap_candidate(&self, reaper: &Reaper, candidate: Candidate) -> Outcome {
        self.reap_asking(&LeaseThread::new(), reaper, candidate)
    }

    /// By somebody who asked about it before.
    pub(crate) fn reap_asking(
        &self,
        lease_thread: &LeaseThread,
        reaper: &Reaper,
        candidate: Candidate,
    ) -> Outcome {
        let mut outcomes = self
            .on_batch(|batch_context| reaper.reap(batch_context, lease_thread, &mut [candidate]));
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    pub(crate) fn reap_batch(&self, reaper: &Reaper, batch: &mut [Candidate]) -> Vec<Outcome> {
        self.on_batch(|batch_context| reaper.reap(batch_context, &LeaseThread::new(), batch))
    }

    /// Puts a claim in order, as what a crash left.
    pub(crate) fn recover(&self, claim: &str) -> io::Result<Option<Recovered>> {
        self.on_batch(|batch_context| {
            orphand::reap::recover(batch_context, &LeaseThread::new(), OsStr::new(claim))
        })
    }

    pub(crate) fn on_batch<T>(&self, act: impl FnOnce(BatchContext<'_>) -> T) -> T {
        let root_dir = Dir::open_root(&self.root.path, None).unwrap();
        let dir = Dir::open_below(&self.root.path, None, Path::new(BELOW)).unwrap();
        let marks = RestoreMarks::new(None);
        act(BatchContext {
            root: &self.root.path,
            id: Some(root_dir.id()),
            dir: &dir,
            context: EvidenceContext {
                policy: &self.root.policy,
                our_uid: rustix::process::geteuid().as_raw(),
                marks: &marks,
                nested: &ContainerPids::default(),
                locks: &Locks::default(),
                siblings: &Siblings::default(),
                since: clock::mono(),
                quarantine: quarantine::is_possible(&root_dir),
                process_scan: None,
            },
        })
    }

    /// Looks at `name` in the directory until something is said of it.
    pub(crate) fn judge(&self, name: &str) -> Event {
        let engine = engine(None);
        let mut due = self.due(name);
        let mut clocks = ClockJumpDetector::default();
        let end = Instant::now() + LONG;
        loop {
            let mut events = self.pass(&engine, &mut clocks, &mut due);
            if let Some(event) = events.pop() {
                assert!(events.is_empty(), "{events:?}, then {event:?}");
                return event;
            }
            assert!(
                Instant::now() < end,
                "nothing was said of {name} in {LONG:?}"
            );
            let temp = due.first().and_then(|one| one.temp.as_ref());
            let temp = temp.unwrap_or_else(|| panic!("{name} was forgotten without a word"));
            std::thread::sleep(temp.due().since(clock::mono()));
        }
    }

    pub(crate) fn due(&self, name: &str) -> Vec<PassItem> {
        vec![PassItem {
            name: name.into(),
            temp: Some(Tracked::found(clock::mono(), Origin::Found)),
        }]
    }

    pub(crate) fn pass(
        &self,
        engine: &Engine,
        clocks: &mut ClockJumpDetector,
        due: &mut [PassItem],
    ) -> Vec<Event> {
        let dir_context = DirContext {
            root: &self.root,
            id: None,
            below: Path::new(BELOW),
        };
        let mut events = Vec::new();
        let lease_thread = LeaseThread::new();
        let mut tell = |event| events.push(event);
        Pass::new(engine, dir_context, &lease_thread, &mut tell).run(clocks, due);
        events
    }

    /// Sweeps the root until nothing young is left in it, and returns what was said.
    pub(crate) fn sweep(&self) -> Vec<Event> {
        let end = Instant::now() + LONG;
        let mut all = Vec::new();
        loop {
            let mut events = Vec::new();
            orphand::sweep::sweep(
                &self.root,
                &engine(None),
                &Stop::default(),
                &mut |e| events.push(e),
                &|_, _| {},
            )
            .unwrap();
            let young = |event: &Event| {
                matches!(
                    event,
                    Event::Kept {
                        reason: Reason::Young,
                        ..
                    }
                )
            };
            let again = events.iter().any(young);
            all.extend(events.into_iter().filter(|event| !young(event)));
            if !again {
                return all;
            }
            assert!(Instant::now() < end, "still young after {LONG:?}");
            std::thread::sleep(GRACE / 4);
        }
    }
}

pub(crate) fn engine(hook: Option<Hook>) -> Engine {
    Engine {
        reaper: Reaper::new().with_hook(hook),
        journal: Journal::new(None),
        marks: RestoreMarks::new(None),
        writers: WriterNames::default(),
        container_pids: ContainerPids::default(),
        locks: Locks::default(),
        listings: Listings::default(),
        verbose: false,
    }
}

/// A root that is reached through a symlink is refused, and on macOS `/tmp` is one.
fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap()
}

fn names_in(dir: &Path, met: &mut dyn FnMut(&Path, bool)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        met(&path, is_dir);
        if is_dir {
            names_in(&path, met);
        }
    }
}

fn files_in(dir: &Path, found: &mut Vec<Found>) {
    names_in(dir, &mut |path, _| {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return;
        };
        if meta.is_file() {
            // Whatever mode somebody gave it.
            if meta.mode() & 0o400 == 0 {
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
            }
            found.push(Found {
                path: path.to_owned(),
                ino: meta.ino(),
                bytes: fs::read(path).unwrap(),
            });
        }
    });
}

/// Calls `act` once, before `step` of a temp, and notes which steps were begun.
pub(crate) struct Stunt {
    pub(crate) steps: Arc<Mutex<Vec<Step>>>,
    pub(crate) hook: Hook,
}

impl Stunt {
    pub(crate) fn new(step: Step, act: impl FnOnce() + Send + 'static) -> Stunt {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let begun = Arc::clone(&steps);
        let act = Mutex::new(Some(act));
        let hook = Hook::new(move |now, _| {
            begun.lock().unwrap().push(now);
            if now == step
                && let Some(act) = act.lock().unwrap().take()
            {
                act();
            }
        });
        Stunt { steps, hook }
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }
}

/// Waits for `what`.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether somebody waits for a lease on this file to end.
pub(crate) fn waits_for_lease(ino: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let file = format!(":{ino} ");
    locks
        .lines()
        .any(|line| line.contains("LEASE") && line.contains("BREAKING") && line.contains(&file))
}

/// Waits for the end of a thread, and fails instead of hanging with it.
#[track_caller]
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    wait_until("the other thread ends", || thread.is_finished());
    thread.join().unwrap()
}

/// The name of the test that this thread runs: the harness names its threads so.
pub(crate) fn this_test() -> String {
    let name = std::thread::current().name().map(str::to_owned);
    name.filter(|name| name.contains("::"))
        .expect("a thread of the test harness")
}

/// Says that something cannot be tried here, past the test harness, which would swallow it.
#[cfg(target_os = "linux")]
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", this_test());
}

/// Who plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// Whoever runs the tests.
    Us,
    /// An ordinary user.
    Nobody,
    /// Root, with mounts of its own: Linux's.
    #[cfg(target_os = "linux")]
    Mounts,
    /// Root, as the first process of a pid namespace, with a `/proc` of its own: Linux's.
    #[cfg(target_os = "linux")]
    PidNamespace,
}

/// Who a test is for: whoever runs it and, if that is root, an ordinary user as well.
pub(crate) const EVERYBODY: &[As] = &[As::Us, As::Nobody];
pub(crate) const NOBODY: u32 = 65_534;

/// Set in the process that a test has to itself.
const ALONE: &str = "ORPHAND_TEST_ALONE";

/// Runs `body`, and with it the rest of this test, in processes of its own, as each of `cast`.
///
/// What cannot be had here, for want of root, is said to be skipped.
pub(crate) fn alone(cast: &[As], body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    for who in cast {
        let root = rustix::process::geteuid().is_root();
        match who {
            As::Us => {}
            // Whoever runs the tests is one.
            As::Nobody if !root => continue,
            As::Nobody => {}
            #[cfg(target_os = "linux")]
            As::Mounts | As::PidNamespace if !root => {
                skipped(&format!("{who:?} needs root"));
                continue;
            }
            #[cfg(target_os = "linux")]
            As::Mounts | As::PidNamespace => {}
        }
        run(again(&this_test()), *who);
    }
}

/// Runs a test of this program as `who`. It must pass.
#[track_caller]
pub(crate) fn run(mut test: Command, who: As) {
    test.env(ALONE, format!("{who:?}"));
    play(&mut test, who);
    test.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = test.start_child().unwrap();
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait_or_kill(&mut child, 10 * LONG);
    let (out, err) = (join(out), join(err));
    for line in err.lines().filter(|line| line.starts_with("SKIPPED")) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    let passed = out.contains("1 passed") && status.is_some_and(|status| status.success());
    let ended = status.map_or("it hung".to_owned(), |status| status.to_string());
    assert!(passed, "as {who:?}: {ended}\n{out}\n{err}");
}

/// This very test program, for one of its tests.
pub(crate) fn again(test: &str) -> Command {
    // By /proc, because an ordinary user may not be let into the folder that it lies in.
    let program = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe().unwrap(),
    };
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.current_dir("/");
    command
}

fn drain(from: Option<impl io::Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn wait_or_kill(child: &mut Child, longest: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + longest;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn play(command: &mut Command, who: As) {
    match who {
        As::Us => {}
        As::Nobody => {
            command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
            // A folder for temporary files of one's own is closed to everybody else.
            let mode = fs::metadata(std::env::temp_dir()).map(|meta| meta.mode());
            if mode.is_ok_and(|mode| mode & 0o007 != 0o007) {
                command.env_remove("TMPDIR");
            }
        }
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only system calls are made, on values made before.
        As::Mounts => unsafe {
            command.pre_exec(own_mounts);
        },
        #[cfg(target_os = "linux")]
        // SAFETY: as above.
        As::PidNamespace => unsafe {
            command.pre_exec(own_pids_and_proc);
        },
    }
}

#[cfg(target_os = "linux")]
fn own_pids_and_proc() -> io::Result<()> {
    own_mounts()?;
    own_pids()?;
    let (proc, on, kind) = (c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr());
    // SAFETY: all strings end in NUL.
    check(unsafe { libc::mount(proc, on, kind, 0, std::ptr::null()) })
}

/// From here on nothing that is mounted is seen outside.
#[cfg(target_os = "linux")]
fn own_mounts() -> io::Result<()> {
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: both calls take flags and strings that end in NUL, or none.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, root, none, private, std::ptr::null()))
    }
}

/// From here on this is the first process of a pid namespace; whoever was it waits for it.
#[cfg(target_os = "linux")]
pub(crate) fn own_pids() -> io::Result<()> {
    // SAFETY: system calls on integers. The parent makes nothing but such calls until it ends.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWPID))?;
        let child = libc::fork();
        check(child)?;
        if child == 0 {
            // Nobody waits for what nobody hears of: it ends with the one who waits.
            return check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL));
        }
        libc::close_range(3, libc::c_uint::MAX, 0);
        let mut status = 0;
        while libc::waitpid(child, &raw mut status, 0) < 0 {}
        libc::_exit(match libc::WIFEXITED(status) {
            true => libc::WEXITSTATUS(status),
            false => 128 + libc::WTERMSIG(status),
        })
    }
}

/// What a system call answered.
#[cfg(target_os = "linux")]
pub(crate) fn check(answer: libc::c_int) -> io::Result<()> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Mounts something; in a process with mounts of its own.
#[cfg(target_os = "linux")]
pub(crate) fn mount(what: &str, on: &Path, kind: &str, flags: u64, options: &str) {
    try_mount(what, on, kind, flags, options)
        .unwrap_or_else(|error| panic!("mount {kind:?} on {on:?}: {error}"));
}

#[cfg(target_os = "linux")]
pub(crate) fn try_mount(
    what: &str,
    on: &Path,
    kind: &str,
    flags: u64,
    options: &str,
) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(
        std::env::var(ALONE).unwrap(),
        "Mounts",
        "mounts of one's own first"
    );
    let string = |bytes: &[u8]| CString::new(bytes).unwrap();
    let (what, kind) = (string(what.as_bytes()), string(kind.as_bytes()));
    let (on, options) = (
        string(on.as_os_str().as_bytes()),
        string(options.as_bytes()),
    );
    let data = options.as_ptr().cast();
    // SAFETY: all strings end in NUL and outlive the call.
    check(unsafe { libc::mount(what.as_ptr(), on.as_ptr(), kind.as_ptr(), flags, data) })
}
