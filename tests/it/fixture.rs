//! A root with a leaked temp in it, and tests that run in processes of their own.
//!
//! Each test that asks for leases runs in a process of its own. The other tests of this program fork: for a
//! moment the child of a fork shares the descriptors of its parent, and a file that a forked child has open
//! is in use.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sandbox::start_with_plain_pid;
pub(crate) use crate::sandbox::{StartChild, in_parallel};
use orphand::core::event::Event;
use orphand::core::judge::{LeaseCoverage, Reason, Verdict};
use orphand::core::policy::{Graces, Policy};
use orphand::core::time::ClockJumpDetector;
use orphand::core::tracker::{Origin, Tracked};
use orphand::engine::{DirContext, Engine, Examined, Pass, PassItem, ScannedDir, judge_dir};
use orphand::evidence::container_pids::ContainerPids;
use orphand::evidence::guard::GuardChecks;
use orphand::evidence::locks::Locks;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::Siblings;
use orphand::evidence::{self, EvidenceContext, FlushedTargets, Role, TempInfo, UseChecker};
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use orphand::reap::quarantine::Quarantine;
use orphand::reap::{
    BatchContext, Candidate, Hook, Looked, Outcome, Reaper, Recovered, Step, quarantine,
};
use orphand::sys::clock;
use orphand::sys::stop::Stop;
use tempfile::TempDir;

/// The content that a killed writer left.
pub(crate) const TEMP_CONTENT: &[u8] = b"what the dead writer wrote";
/// The name of the leaked temp.
pub(crate) const TEMP: &str = "sessions.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
/// The name of the target.
pub(crate) const TARGET: &str = "sessions.json";
/// The content of the target. It is at least as large as the temp, because both are written within one tick
/// of the clock.
pub(crate) const TARGET_CONTENT: &[u8] = b"the last good state, from the first byte to the last";
/// The directory of both, below the root.
pub(crate) const SUBDIR: &str = "agent";
/// The longest time that a condition of these tests takes on a slow machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// The grace of these tests.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

/// What the look before the protocol leaves to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LookBefore {
    /// The temp is closed again.
    Closed,
    /// The temp is still open.
    Opened,
    /// The temp was not opened, and so not proven unused.
    Unproven,
}

impl LookBefore {
    pub(crate) const ALL: [LookBefore; 3] =
        [LookBefore::Closed, LookBefore::Opened, LookBefore::Unproven];
}

/// A root, a directory below it, and a directory outside the root.
pub(crate) struct Fixture {
    home: PathBuf,
    _temp_dir: Option<TempDir>,
    pub(crate) root: Root,
    pub(crate) dir: PathBuf,
    pub(crate) outside: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) target: PathBuf,
}

/// A file in a fixture.
#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) path: PathBuf,
    pub(crate) ino: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Fixture {
    /// Creates a leaked temp beside its whole target, on a file system where a lease covers opens and
    /// mappings.
    pub(crate) fn new() -> Fixture {
        Fixture::in_one_of([
            std::env::temp_dir(),
            PathBuf::from("/dev/shm"),
            PathBuf::from("/var/tmp"),
        ])
    }

    /// Creates the same in memory, if there is such a file system. Creating and removing files is fastest there: on
    /// ext4, each new file takes longer after many removals, for all tests.
    pub(crate) fn in_memory() -> Fixture {
        Fixture::in_one_of([
            PathBuf::from("/dev/shm"),
            std::env::temp_dir(),
            PathBuf::from("/var/tmp"),
        ])
    }

    fn in_one_of(homes: [PathBuf; 3]) -> Fixture {
        let whole = homes
            .iter()
            .filter_map(|home| TempDir::new_in(home).ok())
            .find(|home| {
                let home = Dir::open_root(&canonical(home.path()), None);
                home.is_ok_and(|home| home.lease_coverage() == LeaseCoverage::OpensAndMaps)
            });
        Fixture::within(whole.expect("a file system on which a lease covers opens and mappings"))
    }

    /// Creates the same in the given directory.
    pub(crate) fn within(home: TempDir) -> Fixture {
        let path = canonical(home.path());
        fs::create_dir_all(path.join("root").join(SUBDIR)).unwrap();
        fs::create_dir(path.join("outside")).unwrap();
        let fixture = Fixture {
            _temp_dir: Some(home),
            ..Fixture::at(path)
        };
        fs::write(&fixture.target, TARGET_CONTENT).unwrap();
        fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
        fixture
    }

    /// Returns the fixture that another process has created at `home`.
    pub(crate) fn at(home: PathBuf) -> Fixture {
        let dir = home.join("root").join(SUBDIR);
        Fixture {
            root: Fixture::root(&home.join("root"), Fixture::policy()),
            temp: dir.join(TEMP),
            target: dir.join(TARGET),
            dir,
            outside: home.join("outside"),
            home,
            _temp_dir: None,
        }
    }

    /// Removes the target, so that the temp may be the only copy.
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

    /// Returns the directory that holds the root and everything outside it.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the path of the quarantine.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.path.join(quarantine::FOLDER)
    }

    /// Returns every regular file of the fixture.
    pub(crate) fn files(&self) -> Vec<FoundFile> {
        let mut found = Vec::new();
        collect_files(&self.home, &mut found);
        found
    }

    /// Returns the paths of all files with this content.
    pub(crate) fn copies(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let files = self.files().into_iter().filter(|file| file.bytes == bytes);
        files.map(|file| file.path).collect()
    }

    /// Asserts that the file at `path` is the only one with this content.
    #[track_caller]
    pub(crate) fn assert_only_at(&self, bytes: &[u8], path: &Path, what: &str) {
        let copies = self.copies(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert!(
            copies == [path],
            "{what}: {text:?} is at {copies:?}, not only at {path:?}"
        );
    }

    /// Asserts that no claim and no empty quarantine folder is left.
    #[track_caller]
    pub(crate) fn assert_no_leftovers(&self, what: &str) {
        let mut leftovers = Vec::new();
        walk_tree(&self.home, &mut |path, is_dir| {
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
                leftovers.push(path.to_owned());
            }
        });
        assert!(leftovers.is_empty(), "{what}: {leftovers:?} is left behind");
    }

    /// Runs the deletion protocol on the temp, which counts as a proven orphan. No time passes.
    pub(crate) fn reap(&self, hook: Hook) -> Outcome {
        self.reap_by(&Reaper::new().with_hook(Some(hook)))
    }

    pub(crate) fn reap_by(&self, reaper: &Reaper) -> Outcome {
        self.reap_as(reaper, self.verdict())
    }

    /// Does the same after a look of this kind.
    pub(crate) fn reap_after(&self, look: LookBefore, hook: Hook) -> Outcome {
        let use_checker = UseChecker::new();
        let reaper = Reaper::new().with_hook(Some(hook));
        let candidate = match look {
            LookBefore::Closed => self.candidate(self.verdict()),
            LookBefore::Opened => self.opened(&use_checker, self.verdict()),
            LookBefore::Unproven => self.unproven(self.candidate(self.verdict())),
        };
        self.reap_with(&use_checker, &reaper, candidate)
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
        self.candidate_named(TEMP, verdict)
    }

    pub(crate) fn candidate_named(&self, name: &str, verdict: Verdict) -> Candidate {
        let dir = Dir::open_below(&self.root.path, None, Path::new(SUBDIR)).unwrap();
        let name = OsStr::new(name);
        let seen = dir.observe(name).unwrap().expect("the temp");
        let temp_info = TempInfo {
            name: name.to_owned(),
            parsed: self.root.policy.names.parse(name),
            expected: Some(seen.fingerprint),
            quiet: GRACE,
            unused: GRACE,
            grace: GRACE,
            by_shape: false,
            written: None,
            closed: false,
            reserved: None,
            role: Role::Single,
        };
        Candidate {
            temp_info,
            verdict,
            target_counts: self.target.exists(),
            better: None,
            frees_space: false,
            opened: None,
            looked: None,
            companions: Vec::new(),
        }
    }

    /// Returns a candidate that a look has opened, as a pass hands it to the reaper.
    pub(crate) fn opened(&self, use_checker: &UseChecker, verdict: Verdict) -> Candidate {
        let candidate = self.candidate(verdict);
        let dir = Dir::open_below(&self.root.path, None, Path::new(SUBDIR)).unwrap();
        let file = evidence::open_for_check(&dir, &candidate.temp_info.name).unwrap();
        let (_, mut checked) = use_checker.check(file);
        checked.release();
        Candidate {
            opened: Some(checked),
            ..candidate
        }
    }

    /// Returns the candidate after a look that left the proof to the protocol.
    pub(crate) fn unproven(&self, candidate: Candidate) -> Candidate {
        let dir = Dir::open_below(&self.root.path, None, Path::new(SUBDIR)).unwrap();
        let TempInfo { name, parsed, .. } = &candidate.temp_info;
        let observation = dir.observe(name).unwrap().expect("the temp");
        let temp = evidence::ComparedTemp {
            seen: &observation,
            file: None,
            companion_bytes: 0,
            shared: None,
            flushed: None,
        };
        let target = evidence::find_target(&dir, &self.root.policy, parsed, temp).unwrap();
        Candidate {
            looked: Some(Looked {
                observation,
                target: Some(target),
            }),
            ..candidate
        }
    }

    pub(crate) fn reap_candidate(&self, reaper: &Reaper, candidate: Candidate) -> Outcome {
        self.reap_with(&UseChecker::new(), reaper, candidate)
    }

    /// Runs the protocol with the use checker that opened the candidate.
    pub(crate) fn reap_with(
        &self,
        use_checker: &UseChecker,
        reaper: &Reaper,
        candidate: Candidate,
    ) -> Outcome {
        let mut outcomes = self.with_batch_context(use_checker, |batch_context| {
            reaper.reap(batch_context, vec![candidate])
        });
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0).1
    }

    pub(crate) fn reap_batch(&self, reaper: &Reaper, batch: Vec<Candidate>) -> Vec<Outcome> {
        let outcomes = self.with_batch_context(&UseChecker::new(), |batch_context| {
            reaper.reap(batch_context, batch)
        });
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Recovers a claim that a crash left.
    pub(crate) fn recover(&self, claim: &str) -> io::Result<Option<Recovered>> {
        self.with_batch_context(&UseChecker::new(), |batch_context| {
            orphand::reap::recover(batch_context, OsStr::new(claim))
        })
    }

    pub(crate) fn with_batch_context<T>(
        &self,
        use_checker: &UseChecker,
        act: impl FnOnce(BatchContext<'_>) -> T,
    ) -> T {
        let root_dir = Dir::open_root(&self.root.path, None).unwrap();
        let dir = Dir::open_below(&self.root.path, None, Path::new(SUBDIR)).unwrap();
        let marks = RestoreMarks::new(None);
        act(BatchContext {
            root: &self.root.path,
            id: Some(root_dir.id()),
            dir: &dir,
            use_checker,
            context: EvidenceContext {
                policy: &self.root.policy,
                our_uid: rustix::process::geteuid().as_raw(),
                marks: &marks,
                container_pids: &ContainerPids::default(),
                locks: &Locks::default(),
                siblings: &Siblings::default(),
                guards: &GuardChecks::default(),
                since: clock::mono(),
                quarantine: quarantine::is_possible(&root_dir),
                process_scan: None,
                flushed: Some(&FlushedTargets::default()),
            },
        })
    }

    /// Looks at `name` in the directory until an event is reported about it.
    pub(crate) fn judge(&self, name: &str) -> Event {
        let engine = engine(None);
        let mut due = self.pass_items(name);
        let mut clocks = ClockJumpDetector::default();
        let end = Instant::now() + TIMEOUT;
        loop {
            let mut events = self.pass(&engine, &mut clocks, &mut due);
            if let Some(event) = events.pop() {
                assert!(events.is_empty(), "{events:?}, then {event:?}");
                return event;
            }
            assert!(Instant::now() < end, "no event about {name} in {TIMEOUT:?}");
            let temp = due.first().and_then(|one| one.temp.as_ref());
            let temp = temp.unwrap_or_else(|| panic!("{name} was dropped without an event"));
            std::thread::sleep(temp.due().since(clock::mono()));
        }
    }

    pub(crate) fn pass_items(&self, name: &str) -> Vec<PassItem> {
        let temp = Tracked::found(clock::mono(), Origin::Found);
        vec![PassItem::new(name.into(), temp)]
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
            below: Path::new(SUBDIR),
        };
        let mut events = Vec::new();
        let use_checker = UseChecker::new();
        let mut emit = |event| events.push(event);
        Pass::new(engine, dir_context, &use_checker, &mut emit).run(clocks, due);
        events
    }

    /// Judges the temps with these names as a scan does.
    pub(crate) fn judge_all(&self, names: Vec<String>) -> Vec<Examined> {
        let (engine, below) = (engine(None), Path::new(SUBDIR));
        let root = &self.root;
        let dir_context = DirContext {
            root,
            id: None,
            below,
        };
        let dir = Dir::open_below(&root.path, None, below).unwrap();
        let siblings = Siblings::of_dir(&dir, &root.policy.names).unwrap();
        let scanned = ScannedDir::new(&engine, &dir, dir_context, siblings, true);
        let names: Vec<OsString> = names.into_iter().map(Into::into).collect();
        let quarantine = Quarantine::open_existing(&root.path, None).unwrap();
        judge_dir(&engine, &scanned, &names, quarantine.as_ref()).temps
    }

    /// Sweeps the root until nothing in it is too young, and returns the events.
    pub(crate) fn sweep(&self) -> Vec<Event> {
        let end = Instant::now() + TIMEOUT;
        let mut all = Vec::new();
        loop {
            let mut events = Vec::new();
            orphand::engine::sweep::sweep(
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
            assert!(Instant::now() < end, "still too young after {TIMEOUT:?}");
            std::thread::sleep(GRACE / 4);
        }
    }
}

pub(crate) fn engine(hook: Option<Hook>) -> Engine {
    Engine {
        reaper: Reaper::new().with_hook(hook),
        ..Engine::new(None)
    }
}

/// Resolves symlinks: a root that is reached through a symlink is refused, and on macOS `/tmp` is one.
fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap()
}

fn walk_tree(dir: &Path, visit: &mut dyn FnMut(&Path, bool)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        visit(&path, is_dir);
        if is_dir {
            walk_tree(&path, visit);
        }
    }
}

fn collect_files(dir: &Path, found: &mut Vec<FoundFile>) {
    walk_tree(dir, &mut |path, _| {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return;
        };
        if meta.is_file() {
            // The test may have given it any mode.
            if meta.mode() & 0o400 == 0 {
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
            }
            let bytes = match fs::read(path) {
                // It was removed since, like those that are removed before the look at them.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                bytes => bytes.unwrap(),
            };
            found.push(FoundFile {
                path: path.to_owned(),
                ino: meta.ino(),
                bytes,
            });
        }
    });
}

/// Calls `act` once, before `step` of a temp, and records the steps that have begun.
pub(crate) struct AtStep {
    pub(crate) steps: Arc<Mutex<Vec<Step>>>,
    pub(crate) hook: Hook,
}

impl AtStep {
    pub(crate) fn new(step: Step, act: impl FnOnce() + Send + 'static) -> AtStep {
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
        AtStep { steps, hook }
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }
}

/// Waits until the condition holds. `what` completes "timed out waiting until …".
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes a directory in which a watch may rename temps meanwhile: a file that gets another name after the directory was
/// listed is still there when the directory itself is removed.
pub(crate) fn remove_watched_dir(dir: &Path) {
    wait_until("the directory is removed", || {
        fs::remove_dir_all(dir).is_ok() || !dir.exists()
    });
}

/// Reports whether a process waits for a lock on this file.
pub(crate) fn waits_for_lock(ino: u64) -> bool {
    has_lock_with(ino, &["->", "FLOCK"])
}

/// Reports whether a process waits for a lease on this file to end.
pub(crate) fn waits_for_lease(ino: u64) -> bool {
    has_lock_with(ino, &["LEASE", "BREAKING"])
}

/// Reports whether the kernel's table of locks has a line about this file with these words.
fn has_lock_with(ino: u64, words: &[&str]) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let file = format!(":{ino} ");
    locks
        .lines()
        .any(|line| line.contains(&file) && words.iter().all(|word| line.contains(word)))
}

/// Joins a thread, and fails instead of hanging if it does not end.
#[track_caller]
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    wait_until("the thread ends", || thread.is_finished());
    thread.join().unwrap()
}

/// Returns the name of the test that this thread runs: the harness gives it to its threads.
pub(crate) fn this_test() -> String {
    let name = std::thread::current().name().map(str::to_owned);
    name.filter(|name| name.contains("::"))
        .expect("a named thread of the test harness")
}

/// Reports that this test is skipped, on the process's stderr: the harness would capture `eprintln!`.
#[cfg(target_os = "linux")]
pub(crate) fn report_skipped(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", this_test());
}

/// The user and the namespaces that a test runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// The user who runs the tests.
    CurrentUser,
    /// The ordinary user with the uid [`NOBODY`].
    Nobody,
    /// Root, in a mount namespace of its own. Linux only.
    #[cfg(target_os = "linux")]
    OwnMounts,
    /// Root, as the first process of a pid namespace with its own `/proc`. Linux only.
    #[cfg(target_os = "linux")]
    OwnPidNamespace,
}

/// The users of most tests: the one who runs them and, if that is root, an ordinary user as well.
pub(crate) const ALL_USERS: &[RunAs] = &[RunAs::CurrentUser, RunAs::Nobody];
pub(crate) const NOBODY: u32 = 65_534;

/// Set in the process that a test has to itself, to the [`RunAs`] that it runs with.
const OWN_PROCESS: &str = "ORPHAND_TEST_ALONE";

/// Runs `body`, and with it the rest of this test, in a process of its own for each of `users`.
///
/// Those that need root are skipped with a report if the tests do not run as root.
pub(crate) fn in_own_process(users: &[RunAs], body: impl FnOnce()) {
    if std::env::var_os(OWN_PROCESS).is_some() {
        return body();
    }
    let root = rustix::process::geteuid().is_root();
    in_parallel(users, |user| {
        match user {
            RunAs::CurrentUser => {}
            // The user who runs the tests is an ordinary one.
            RunAs::Nobody if !root => return,
            RunAs::Nobody => {}
            #[cfg(target_os = "linux")]
            RunAs::OwnMounts | RunAs::OwnPidNamespace if !root => {
                return report_skipped(&format!("{user:?} needs root"));
            }
            #[cfg(target_os = "linux")]
            RunAs::OwnMounts | RunAs::OwnPidNamespace => {}
        }
        run_test(test_command(&this_test()), *user);
    });
}

/// Runs a test of this program as `user`, and asserts that it passes.
#[track_caller]
pub(crate) fn run_test(mut test: Command, user: RunAs) {
    test.env(OWN_PROCESS, format!("{user:?}"));
    apply_user(&mut test, user);
    test.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = start_with_plain_pid(&mut test);
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait_or_kill(&mut child, 10 * TIMEOUT);
    let (out, err) = (join(out), join(err));
    for line in err.lines().filter(|line| line.starts_with("SKIPPED")) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    let passed = out.contains("1 passed") && status.is_some_and(|status| status.success());
    let ended = status.map_or("timed out".to_owned(), |status| status.to_string());
    assert!(passed, "as {user:?}: {ended}\n{out}\n{err}");
}

/// Returns the command that runs one test of this test program.
pub(crate) fn test_command(test: &str) -> Command {
    // Through /proc: an ordinary user may have no access to the folder of the program.
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

fn apply_user(command: &mut Command, user: RunAs) {
    match user {
        RunAs::CurrentUser => {}
        RunAs::Nobody => {
            command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent");
            // A private folder for temporary files is closed to other users.
            let mode = fs::metadata(std::env::temp_dir()).map(|meta| meta.mode());
            if mode.is_ok_and(|mode| mode & 0o007 != 0o007) {
                command.env_remove("TMPDIR");
            }
        }
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec the hook makes only system calls, on values created before.
        RunAs::OwnMounts => unsafe {
            command.pre_exec(unshare_mounts);
        },
        #[cfg(target_os = "linux")]
        // SAFETY: as above.
        RunAs::OwnPidNamespace => unsafe {
            command.pre_exec(enter_pid_namespace_with_proc);
        },
    }
}

#[cfg(target_os = "linux")]
fn enter_pid_namespace_with_proc() -> io::Result<()> {
    unshare_mounts()?;
    unshare_pids()?;
    let (proc, on, kind) = (c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr());
    // SAFETY: all strings end in NUL.
    check_syscall(unsafe { libc::mount(proc, on, kind, 0, std::ptr::null()) })
}

/// Moves this process into a private mount namespace: its mounts are invisible outside.
#[cfg(target_os = "linux")]
fn unshare_mounts() -> io::Result<()> {
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: both calls take flags and strings that end in NUL, or none.
    unsafe {
        check_syscall(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check_syscall(libc::mount(none, root, none, private, std::ptr::null()))
    }
}

/// Moves this process into a new pid namespace, as its first process. The original process waits for it.
#[cfg(target_os = "linux")]
pub(crate) fn unshare_pids() -> io::Result<()> {
    // SAFETY: system calls on integers. The parent makes nothing but such calls until it ends.
    unsafe {
        check_syscall(libc::unshare(libc::CLONE_NEWPID))?;
        let child = libc::fork();
        check_syscall(child)?;
        if child == 0 {
            // The child ends with the process that waits for it.
            return check_syscall(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL));
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

/// Converts the result of a system call.
#[cfg(target_os = "linux")]
pub(crate) fn check_syscall(answer: libc::c_int) -> io::Result<()> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Mounts a file system. The process must have a mount namespace of its own.
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
        std::env::var(OWN_PROCESS).unwrap(),
        "OwnMounts",
        "mounting needs a mount namespace of its own"
    );
    let string = |bytes: &[u8]| CString::new(bytes).unwrap();
    let (what, kind) = (string(what.as_bytes()), string(kind.as_bytes()));
    let (on, options) = (
        string(on.as_os_str().as_bytes()),
        string(options.as_bytes()),
    );
    let data = options.as_ptr().cast();
    // SAFETY: all strings end in NUL and outlive the call.
    check_syscall(unsafe { libc::mount(what.as_ptr(), on.as_ptr(), kind.as_ptr(), flags, data) })
}
