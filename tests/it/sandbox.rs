//! A place of its own for each test, and the processes that live in it.
//!
//! A sandbox is a directory with a root to watch and everything that orphand may want from its
//! environment: a home, and folders for state, configuration and locks. Programs run in it with
//! nothing else in their environment, as the sandbox's user, under a deadline, and not longer than
//! the test.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use orphand::clock;
use orphand::evidence::container_pids::ContainerPids;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::contract;

/// How long anything may take that is waited for. Generous: it is only there so that a test that
/// waits for what never comes ends and says so.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// An ordinary user that every system has, and that owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// The most memory that a process of ours may ever have had, bytes. A debug build: the code alone
/// is most of it.
pub(crate) const MAX_MEMORY: u64 = 48 << 20;

/// The most descriptors that a process of ours may have open: a reaping batch is the most that it
/// ever needs, and launchd gives no more than this by default.
pub(crate) const MAX_DESCRIPTORS: u64 = 256;

/// Memory is watched by a sanitizer, which takes a lot of its own and must be the first library.
pub(crate) fn is_sanitized() -> bool {
    std::env::var_os("ASAN_OPTIONS").is_some()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory of its own, and whose.
pub(crate) struct Sandbox {
    base: PathBuf,
    user: Option<u32>,
    descriptors: u64,
    threads: Option<u64>,
    env: BTreeMap<&'static str, OsString>,
    binary: PathBuf,
    #[cfg(target_os = "linux")]
    disk: Option<Disk>,
    _dir: TempDir,
}

/// Limits this process, with system calls alone: it may be called between fork and exec.
fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let most = Rlimit {
        current: Some(most),
        ..getrlimit(resource)
    };
    Ok(setrlimit(resource, most)?)
}

/// Held by whoever has a file open that orphand may look at; alone by whoever starts a program. Until that
/// has begun it has all descriptors of this process, and orphand would see a holder.
static START_LOCK: RwLock<()> = RwLock::new(());

/// How the tests start programs.
pub(crate) trait StartChild {
    /// Starts it; it has begun when this returns.
    fn start_child(&mut self) -> std::io::Result<Child>;

    /// Waits for its end.
    fn run_to_end(&mut self) -> std::io::Result<ExitStatus> {
        self.start_child()?.wait()
    }

    /// Waits for its end, and reads all it says.
    fn collect_output(&mut self) -> std::io::Result<Output>;
}

impl StartChild for Command {
    fn start_child(&mut self) -> std::io::Result<Child> {
        let _alone = START_LOCK.write().unwrap_or_else(PoisonError::into_inner);
        self.spawn()
    }

    fn collect_output(&mut self) -> std::io::Result<Output> {
        self.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.start_child()?.wait_with_output()
    }
}

/// Writes a file that no program which starts meanwhile has open.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    let _nobody_starts = START_LOCK.read().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, content).unwrap();
}

impl Sandbox {
    /// A sandbox of the user who runs the tests.
    pub(crate) fn new() -> Sandbox {
        Sandbox::for_user(None)
    }

    /// A sandbox of an ordinary user, whoever runs the tests.
    pub(crate) fn ordinary() -> Sandbox {
        Sandbox::for_user(is_root().then_some(NOBODY))
    }

    /// Does the same for every user that there can be: whoever runs the tests and, if that is
    /// root, an ordinary one.
    pub(crate) fn for_each_user(test: impl Fn(Sandbox)) {
        test(Sandbox::new());
        match is_root() {
            true => test(Sandbox::ordinary()),
            false => eprintln!(
                "not root: tried as uid {} only",
                rustix::process::geteuid().as_raw()
            ),
        }
    }

    /// A sandbox of an ordinary user where writing is fastest: in memory, where there is such a place.
    pub(crate) fn in_memory() -> Sandbox {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() {
            memory
        } else {
            default_parent()
        };
        Sandbox::for_user_in(is_root().then_some(NOBODY), &place)
    }

    /// A sandbox of a user who has nothing else, and of whose each process may have so many threads at most.
    /// Only root can make one.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_thread_limit(most: u64) -> Sandbox {
        static USER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = USER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // No system gives out such numbers by itself, and no other test run uses the same.
        let user = 1_500_000_000 + std::process::id() % 4_000_000 * 100 + number;
        let mut sandbox = Sandbox::for_user(Some(user));
        sandbox.threads = Some(most);
        sandbox
    }

    fn for_user(user: Option<u32>) -> Sandbox {
        Sandbox::for_user_in(user, &default_parent())
    }

    fn for_user_in(user: Option<u32>, place: &Path) -> Sandbox {
        let dir = tempfile::Builder::new()
            .prefix("orphand-it-")
            .tempdir_in(place)
            .unwrap();
        let base = dir.path().to_owned();
        let mut sandbox = Sandbox {
            user,
            descriptors: MAX_DESCRIPTORS,
            threads: None,
            env: BTreeMap::new(),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_orphand")),
            #[cfg(target_os = "linux")]
            disk: None,
            base,
            _dir: dir,
        };
        sandbox.chown_to_user(&sandbox.base);
        for folder in ["root", "home", "state", "runtime", "config"] {
            sandbox.make_dir_at(&sandbox.base.join(folder));
        }
        let folders = [
            ("HOME", "home"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "runtime"),
            ("XDG_CONFIG_HOME", "config"),
        ];
        for (name, folder) in folders {
            sandbox.env.insert(name, sandbox.base.join(folder).into());
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        sandbox.env.insert("PATH", path);
        if user.is_some() && !is_executable_by_all(&sandbox.binary) {
            // The build directory may lie in somebody's home.
            let copy = sandbox.base.join("orphand");
            fs::copy(&sandbox.binary, &copy).unwrap();
            sandbox.binary = copy;
        }
        sandbox
    }

    /// With this variable in the environment of everything that runs here.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Sandbox {
        self.env.insert(name, value.into());
        self
    }

    /// With at most so many descriptors for each process.
    pub(crate) fn with_descriptor_limit(mut self, most: u64) -> Sandbox {
        self.descriptors = most;
        self
    }

    /// With a file in the root.
    pub(crate) fn file(self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Sandbox {
        self.write(name, content);
        self
    }

    /// With a directory in the root.
    pub(crate) fn dir(self, name: impl AsRef<Path>) -> Sandbox {
        self.make_dir(name);
        self
    }

    /// Only once nothing in the root was touched for so long, by its own dates.
    pub(crate) fn aged(self, age: Duration) -> Sandbox {
        self.age(age);
        self
    }

    /// Writes a file in the root, and the directories that it needs.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        self.make_dir_at(path.parent().unwrap());
        write(&path, content);
        self.chown_to_user(&path);
    }

    /// Makes a directory in the root, and those above it.
    pub(crate) fn make_dir(&self, name: impl AsRef<Path>) {
        self.make_dir_at(&self.path(name));
    }

    fn make_dir_at(&self, path: &Path) {
        if !path.is_dir() {
            self.make_dir_at(path.parent().unwrap());
            fs::create_dir(path).unwrap();
            self.chown_to_user(path);
        }
    }

    /// Makes `path` the sandbox's user's.
    pub(crate) fn chown_to_user(&self, path: &Path) {
        if let Some(uid) = self.user {
            std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Whose it is, if not the one's who runs the tests.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Waits until nothing in the root was touched for `age`. A change time cannot be set back, so
    /// a file that is to be old has to become old.
    pub(crate) fn age(&self, age: Duration) {
        // A little more, because the kernel dates a change by its last tick.
        let age = age + Duration::from_millis(20);
        let newest = newest(&self.root());
        while let Some(rest) = age.checked_sub(newest.elapsed().unwrap_or_default()) {
            thread::sleep(rest.max(Duration::from_millis(1)));
        }
    }

    /// The directory that all of it lies in.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The directory to watch.
    pub(crate) fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// A path in the root.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Whether something stands at this name in the root.
    pub(crate) fn has(&self, name: impl AsRef<Path>) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// What a file in the root holds.
    #[track_caller]
    pub(crate) fn content(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// The names in the root, sorted.
    pub(crate) fn listing(&self) -> Vec<String> {
        let names = fs::read_dir(self.root()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Everything in the sandbox, with all that a change would show in.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut all = Vec::new();
        walk(&self.base, &mut |path, meta| {
            all.push(format!(
                "{path:?} {:o} {} {} {} {}.{}",
                meta.mode(),
                meta.len(),
                meta.ino(),
                meta.nlink(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
        });
        all.sort();
        all
    }

    /// Runs orphand to its end. `{base}` in an argument stands for the sandbox.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> CommandResult {
        self.finish(self.command(args))
    }

    /// Runs `sweep --yes --json` on the root.
    #[track_caller]
    pub(crate) fn sweep<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> CommandResult {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let fixed = ["sweep", "--yes", "--json"].into_iter().map(OsString::from);
        self.run(fixed.chain(args).chain(["root".into()]))
    }

    /// Runs `scan --json` on the root.
    #[track_caller]
    pub(crate) fn scan<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> CommandResult {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let fixed = ["scan", "--json"].into_iter().map(OsString::from);
        self.run(fixed.chain(args).chain(["root".into()]))
    }

    /// Starts `watch --json` on the root.
    #[track_caller]
    pub(crate) fn watch<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> WatchProcess {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.watch_dirs(args.chain(["root".into()]))
    }

    /// Starts `watch --json` with these arguments.
    #[track_caller]
    pub(crate) fn watch_dirs<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> WatchProcess {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        WatchProcess::start(self.command(["watch".into(), "--json".into()].into_iter().chain(args)))
    }

    /// orphand with these arguments, not yet started.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(&self.binary);
        command.args(args.into_iter().map(|arg| self.expand_base(arg.as_ref())));
        command
    }

    /// The path of orphand, for who starts it.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Any program, as it runs here.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(&self.base);
        // The rule that `tests/without-each-rule` leaves out.
        if let Some(rule) = std::env::var_os("WITHOUT_RULE") {
            command.env("WITHOUT_RULE", rule);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (most, threads) = (self.descriptors, self.threads);
        #[cfg(target_os = "linux")]
        let entering = self.disk.as_ref().map(|disk| disk.enter_disk(self));
        // SAFETY: only async-signal-safe calls between fork and exec, on values made before.
        unsafe {
            command.pre_exec(move || {
                // The tests may run under nohup.
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                limit(Resource::Nofile, most)?;
                if let Some(threads) = threads {
                    limit(Resource::Nproc, threads)?;
                }
                #[cfg(target_os = "linux")]
                if let Some(entering) = &entering {
                    entering.enter()?;
                }
                Ok(())
            });
        }
        #[cfg(target_os = "linux")]
        if self.disk.is_some() {
            // Entering the mounts needs root: the user is changed after that, by the same hook.
            return command;
        }
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Waits for the end of `command`.
    #[track_caller]
    pub(crate) fn finish(&self, mut command: Command) -> CommandResult {
        let said = format!("{command:?}");
        let ours = our_peak();
        let mut child = command
            .start_child()
            .unwrap_or_else(|error| panic!("{said}: {error}"));
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let (status, peak) = wait(child, &said);
        // A process begins as a copy of its parent, and Linux counts that too: where other tests have
        // made this one large, nothing can be told.
        let peak = if peak <= ours { 0 } else { peak };
        CommandResult {
            command_line: said,
            status,
            stdout: join_text(stdout),
            stderr: join_text(stderr),
            peak,
        }
    }

    /// A shell in the root: a real process that holds files, and can be killed.
    #[track_caller]
    pub(crate) fn shell(&self) -> Shell {
        Shell::start(self)
    }

    /// `{base}` in an argument is where the sandbox is.
    fn expand_base(&self, arg: &OsStr) -> OsString {
        match arg.to_str() {
            Some(text) => text.replace("{base}", self.base.to_str().unwrap()).into(),
            None => arg.to_owned(),
        }
    }
}

/// Where sandboxes are made: where the proof that nobody holds a file is whole.
fn default_parent() -> PathBuf {
    let place = fs::canonicalize(std::env::temp_dir()).unwrap();
    #[cfg(target_os = "linux")]
    {
        // In a container /tmp often lies on overlayfs, where the proof does not see mappings, and
        // what is deleted elsewhere may be quarantined.
        const OVERLAYFS: u32 = 0x794C_7630;
        let seen = rustix::fs::statfs(&place).unwrap();
        // The type of the number differs from one processor to another.
        if seen.f_type as u32 == OVERLAYFS {
            return "/dev/shm".into();
        }
    }
    place
}

fn is_executable_by_all(file: &Path) -> bool {
    let may = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    file.ancestors().all(may)
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let Ok(meta) = dir.symlink_metadata() else {
        return;
    };
    each(dir, &meta);
    if meta.is_dir() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            walk(&entry.path(), each);
        }
    }
}

/// When anything in `dir` was last touched.
fn newest(dir: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    walk(dir, &mut |_, meta| {
        let since = Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
        newest = newest.max(SystemTime::UNIX_EPOCH + since);
        newest = newest.max(meta.modified().unwrap_or(newest).min(SystemTime::now()));
    });
    newest
}

fn drain(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut all);
        }
        all
    })
}

fn join_text(text: JoinHandle<Vec<u8>>) -> String {
    let text = text.join().unwrap();
    String::from_utf8(text).unwrap_or_else(|error| panic!("printed what is not UTF-8: {error}"))
}

/// Waits for the end, and says how much memory the process had at most, bytes.
#[track_caller]
fn wait(child: Child, said: &str) -> (ExitStatus, u64) {
    let pid = child.id() as libc::pid_t;
    let (send, ended) = channel();
    thread::spawn(move || {
        let mut status = 0;
        // SAFETY: all zeroes are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are valid for the call, which fills them.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        let _ = send.send((waited == pid).then_some((status, usage)));
    });
    let ended = ended.recv_timeout(DEADLINE * 2).unwrap_or_else(|_| {
        signal(pid as u32, libc::SIGKILL);
        panic!("it does not end: {said}")
    });
    let (status, usage) = ended.expect("a child of ours");
    // Kilobytes, but on macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    (
        ExitStatus::from_raw(status),
        u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit,
    )
}

/// The most memory that this process ever had, bytes; 0 where the system does not tell.
fn our_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|kb| kb.trim_end_matches("kB").trim().parse::<u64>().ok());
    peak.unwrap_or(0) * 1024
}

/// Sends a signal to a process that this test has started. After SIGSTOP it stands still, with all its
/// threads: they may run on for a moment after kill(2) has returned.
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: kill(2) takes any numbers.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
    if signal == libc::SIGSTOP {
        let how = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: what is told of it is valid for the call, which fills it.
        unsafe {
            let mut about = std::mem::zeroed::<libc::siginfo_t>();
            libc::waitid(libc::P_PID, pid, &raw mut about, how);
        }
    }
}

/// A run of orphand that has ended.
#[derive(Debug)]
pub(crate) struct CommandResult {
    command_line: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The most memory that it had, bytes.
    pub(crate) peak: u64,
}

impl CommandResult {
    /// It ended by itself, with this code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> CommandResult {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\n{}\n--- stdout\n{}--- stderr\n{}",
            self.command_line,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// The code that it ended with, if it ended by itself.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// It said this on stderr.
    #[track_caller]
    pub(crate) fn stderr_has(self, words: &str) -> CommandResult {
        assert!(
            self.stderr.contains(words),
            "{words:?} is not in: {}",
            self.stderr
        );
        self
    }

    /// It said this on stdout.
    #[track_caller]
    pub(crate) fn stdout_has(self, words: &str) -> CommandResult {
        assert!(
            self.stdout.contains(words),
            "{words:?} is not in: {}",
            self.stdout
        );
        self
    }

    /// It printed nothing on stdout.
    #[track_caller]
    pub(crate) fn prints_nothing(self) -> CommandResult {
        assert_eq!(self.stdout, "", "{}", self.command_line);
        self
    }

    /// The one document that it printed.
    #[track_caller]
    pub(crate) fn stdout_json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// The events that it printed, each of them whole.
    #[track_caller]
    pub(crate) fn events(&self) -> Events {
        Events(self.stdout.lines().map(parse_event).collect())
    }
}

#[track_caller]
fn parse_event(line: &str) -> Value {
    let event = serde_json::from_str(line);
    let event: Value = event.unwrap_or_else(|error| panic!("{error} in a line: {line:?}"));
    contract::check_event(&event);
    event
}

/// The base name of what an event is about.
pub(crate) fn name(event: &Value) -> &str {
    let path = event["path"].as_str().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether an event is this one, about a file of this name.
pub(crate) fn is<'a>(event: &'a str, file: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |seen| seen["event"] == event && name(seen) == file
}

/// Whether an event says that a file of this name is kept for this reason.
pub(crate) fn kept<'a>(file: &'a str, reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |seen| is("kept", file)(seen) && seen["reason"] == reason
}

/// Events in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(pub(crate) Vec<Value>);

impl Events {
    /// All of one sort.
    pub(crate) fn of(&self, event: &str) -> Vec<&Value> {
        self.0
            .iter()
            .filter(|seen| seen["event"] == event)
            .collect()
    }

    /// The names of the files of all of one sort, sorted.
    pub(crate) fn names(&self, event: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.of(event).into_iter().map(name).collect();
        names.sort_unstable();
        names
    }

    /// The only one of its sort.
    #[track_caller]
    pub(crate) fn one(&self, event: &str) -> &Value {
        match self.of(event).as_slice() {
            [one] => one,
            others => panic!("{} times {event:?} in {self:#?}", others.len()),
        }
    }

    /// What is said of the file of this name: event and reason.
    pub(crate) fn about(&self, file: &str) -> Vec<String> {
        let about = self.0.iter().filter(|seen| name(seen) == file);
        let said = |seen: &Value| {
            let word = |key: &str| seen[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", word("event"), word("reason"))
                .trim_end()
                .to_owned()
        };
        about.map(said).collect()
    }

    /// The last word.
    #[track_caller]
    pub(crate) fn summary(&self) -> &Value {
        let last = self.0.last().unwrap_or_else(|| panic!("nothing was said"));
        assert_eq!(last["event"], "summary", "the last line in {self:#?}");
        self.one("summary")
    }

    /// `reaped, quarantined, kept, failed` of the summary.
    #[track_caller]
    pub(crate) fn sums(&self) -> [u64; 4] {
        let summary = self.summary();
        ["reaped", "quarantined", "kept", "failed"].map(|key| summary[key].as_u64().unwrap())
    }
}

/// A watcher at work. It is killed with the test.
pub(crate) struct WatchProcess {
    child: Child,
    lines: Receiver<String>,
    events: Events,
    stderr: Arc<Mutex<Vec<u8>>>,
    sentinels: u32,
}

impl WatchProcess {
    /// Starts `command`, which prints events.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> WatchProcess {
        let mut child = command.start_child().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut some) {
                to.lock().unwrap().extend_from_slice(&some[..length]);
            }
        });
        WatchProcess {
            child,
            lines,
            events: Events::default(),
            stderr,
            sentinels: 0,
        }
    }

    /// Until its watches stand and its first scan is in.
    #[track_caller]
    pub(crate) fn ready(mut self) -> WatchProcess {
        self.wait_for(|event| event["event"] == "ready");
        self
    }

    /// The first event for which this holds, of those that were and those to come.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_nth(1, wanted)
    }

    /// The *n*-th event for which this holds.
    #[track_caller]
    pub(crate) fn wait_for_nth(&mut self, n: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut left = n;
        let mut index = 0;
        loop {
            while let Some(event) = self.events.0.get(index) {
                left -= usize::from(wanted(event));
                if left == 0 {
                    return event.clone();
                }
                index += 1;
            }
            let rest = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) => self.events.0.push(parse_event(&line)),
                Err(why) => panic!(
                    "{why}: what was waited for did not come.\n{}",
                    self.all_output()
                ),
            }
        }
    }

    /// Waits until a temp that is made now has had its whole grace and is gone: whatever was to
    /// happen before that has happened.
    #[track_caller]
    pub(crate) fn wait_for_sentinel(&mut self, sandbox: &Sandbox) {
        self.wait_for_sentinel_in(sandbox, "");
    }

    /// The same, in a directory below the root.
    #[track_caller]
    pub(crate) fn wait_for_sentinel_in(&mut self, sandbox: &Sandbox, below: &str) {
        self.sentinels += 1;
        // An empty file with a random name is no copy of anything.
        let file = format!(
            "sentinel-{}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
            self.sentinels
        );
        sandbox.write(Path::new(below).join(&file), "");
        self.wait_for(is("reaped", &file));
    }

    /// The events so far, as far as they were waited for.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Ends it by SIGTERM, and checks all that holds for every watch.
    #[track_caller]
    pub(crate) fn stop(self) -> WatchResult {
        self.stop_by(libc::SIGTERM)
    }

    /// The same by another signal.
    #[track_caller]
    pub(crate) fn stop_by(self, number: i32) -> WatchResult {
        self.check_size();
        self.signal(number);
        let stopped = self.end();
        stopped.events.summary();
        stopped.events.one("ready");
        stopped
    }

    /// Waits until it ends.
    #[track_caller]
    pub(crate) fn end(mut self) -> WatchResult {
        let end = Instant::now() + DEADLINE;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.events.0.push(parse_event(&line)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end.\n{}", self.all_output()),
            }
        }
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => panic!("it does not end.\n{}", self.all_output()),
                // Its output has ended, so this is a matter of microseconds.
                None => thread::yield_now(),
            }
        };
        WatchResult {
            status,
            events: std::mem::take(&mut self.events),
            stderr: self.stderr(),
        }
    }

    /// Memory and descriptors, where the system tells them of a process that still runs.
    #[track_caller]
    fn check_size(&self) {
        if cfg!(not(target_os = "linux")) || is_sanitized() {
            return;
        }
        let of = |what: &str| PathBuf::from(format!("/proc/{}/{what}", self.pid()));
        let status = fs::read_to_string(of("status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|kb| kb.trim_end_matches("kB").trim().parse::<u64>().ok());
        let peak = peak.unwrap_or(0) * 1024;
        assert!(
            peak <= MAX_MEMORY,
            "{peak} bytes of memory.\n{}",
            self.all_output()
        );
        let open = fs::read_dir(of("fd")).map_or(0, Iterator::count);
        assert!(
            open <= 32,
            "{open} descriptors are open.\n{}",
            self.all_output()
        );
    }

    fn all_output(&self) -> String {
        let events = self.events.0.iter().map(Value::to_string);
        format!(
            "{}\n--- stderr\n{}",
            events.collect::<Vec<_>>().join("\n"),
            self.stderr()
        )
    }
}

impl Drop for WatchProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A watcher that has ended.
#[derive(Debug)]
pub(crate) struct WatchResult {
    pub(crate) status: ExitStatus,
    pub(crate) events: Events,
    pub(crate) stderr: String,
}

impl WatchResult {
    /// It ended by itself, with this code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> WatchResult {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }
}

/// A shell that does what it is told, line by line, and is killed with the test.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    #[track_caller]
    fn start(sandbox: &Sandbox) -> Shell {
        let mut command = sandbox.program("sh");
        command
            .current_dir(sandbox.root())
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.start_child().unwrap();
        Shell {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Does `line`, and has done it when this returns. Says whether it went well.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> bool {
        writeln!(self.input, "{line}\necho \"done $?\"").unwrap();
        let mut answer = String::new();
        while !answer.starts_with("done ") {
            answer.clear();
            let read = self.output.read_line(&mut answer).unwrap();
            assert!(read > 0, "the shell has ended at: {line}");
        }
        answer == "done 0\n"
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as the kernel does when memory runs out: no trap, no cleaning up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pid that no process has, here or in a container: that of a child which has ended and was waited for.
pub(crate) fn dead_pid() -> u32 {
    loop {
        let mut child = Command::new("true").start_child().unwrap();
        child.wait().unwrap();
        let called = ContainerPids::default().resolve(child.id(), clock::mono());
        if called.is_ok_and(|called| called.is_empty()) {
            return child.id();
        }
    }
}

/// Both ends of a terminal: ours, and the one for a program's standard input.
pub(crate) fn terminal() -> (fs::File, Stdio) {
    use std::os::fd::{FromRawFd, OwnedFd};
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: the first two are valid for the call, which fills them; the others may be null.
    let made = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were opened just now, and nobody else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    (ours.into(), theirs.into())
}

/// Makes a FIFO: whoever opens one without care waits for the other end for ever.
pub(crate) fn fifo(path: &Path) {
    let path = std::ffi::CString::new(path_bytes(path)).unwrap();
    // SAFETY: the path is valid for the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
}

/// The mode of a file, permissions only.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A name out of bytes.
pub(crate) fn name_from_bytes(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

/// A path as bytes.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A small disk in the sandbox that only a process of ours and its children see: the machine's own
/// mounts are left alone, and it is gone with that process.
#[cfg(target_os = "linux")]
pub(crate) struct Disk {
    holder: Child,
}

#[cfg(target_os = "linux")]
impl Sandbox {
    /// A sandbox of an ordinary user whose root, state and locks are on a disk of their own, which
    /// the shell command `mount` mounts at `$1`. Says why where there can be none.
    pub(crate) fn on_disk(mount: &str) -> Result<Sandbox, String> {
        if !is_root() {
            return Err("mounting needs root".into());
        }
        let mut sandbox = Sandbox::ordinary();
        let at = sandbox.base.join("disk");
        fs::create_dir(&at).unwrap();
        let script =
            format!("cd \"$2\" && {mount} && chown {NOBODY} \"$1\" && echo mounted && read end");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&at)
            .arg(&sandbox.base);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut holder = command
            .start_child()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        if said != "mounted\n" {
            let mut why = String::new();
            let _ = holder.stderr.take().unwrap().read_to_string(&mut why);
            let _ = holder.wait();
            return Err(format!("no disk can be mounted here: {why}"));
        }
        for (name, folder) in [("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "runtime")] {
            sandbox.env.insert(name, at.join(folder).into());
        }
        sandbox.disk = Some(Disk { holder });
        for folder in ["root", "state", "runtime"] {
            let folder = sandbox.disk_path(folder);
            fs::create_dir(&folder).unwrap();
            sandbox.chown_to_user(&folder);
        }
        Ok(sandbox)
    }

    /// A path on the disk, as this process reaches it: by way of one that sees the mount.
    pub(crate) fn disk_path(&self, name: &str) -> PathBuf {
        let pid = self.disk.as_ref().expect("a disk").holder.id();
        let at = self.base.join("disk").join(name);
        Path::new(&format!("/proc/{pid}/root")).join(at.strip_prefix("/").unwrap())
    }
}

#[cfg(target_os = "linux")]
impl Disk {
    fn enter_disk(&self, sandbox: &Sandbox) -> EnterDisk {
        let pid = self.holder.id();
        EnterDisk {
            mounts: fs::File::open(format!("/proc/{pid}/ns/mnt")).unwrap(),
            base: std::ffi::CString::new(path_bytes(&sandbox.base)).unwrap(),
            uid: sandbox.user.unwrap_or(0),
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What a child needs to come to see the disk.
#[cfg(target_os = "linux")]
struct EnterDisk {
    mounts: fs::File,
    base: std::ffi::CString,
    uid: u32,
}

#[cfg(target_os = "linux")]
impl EnterDisk {
    /// Called between fork and exec: system calls and nothing else.
    fn enter(&self) -> std::io::Result<()> {
        use std::os::fd::AsRawFd;
        // SAFETY: plain system calls on values that outlive them.
        let done = unsafe {
            libc::setns(self.mounts.as_raw_fd(), libc::CLONE_NEWNS) == 0
                && libc::chdir(self.base.as_ptr()) == 0
                && libc::setgroups(0, std::ptr::null()) == 0
                && libc::setgid(self.uid) == 0
                && libc::setuid(self.uid) == 0
        };
        match done {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        }
    }
}
