//! A private directory for each test, and the processes that run in it.
//!
//! A sandbox is a directory with a root to watch and everything that orphand needs from its environment: a
//! home, and folders for state, configuration and locks. Programs run in it as the sandbox's user, with no
//! other environment variables, under a deadline, and no longer than the test.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use orphand::evidence::container_pids::ContainerPids;
use orphand::sys::clock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::{contract, schema};

/// The longest time to wait for anything. It is generous: it only makes a test fail with a message instead of
/// hanging.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// The uid of an ordinary user that every system has and that owns no file.
pub(crate) const NOBODY: u32 = 65_534;

/// The highest allowed peak memory of one of our processes, in bytes. Most of it is the code of a debug
/// build.
pub(crate) const MAX_MEMORY: u64 = 48 << 20;

/// The most descriptors that one of our processes may have open. A reaping batch needs the most, and
/// launchd's default limit is no higher.
pub(crate) const MAX_DESCRIPTORS: u64 = 256;

/// Reports whether the tests run under a sanitizer, which needs much memory itself and must be the first
/// library.
pub(crate) fn is_sanitized() -> bool {
    std::env::var_os("ASAN_OPTIONS").is_some()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The directory of a test, and its user.
pub(crate) struct Sandbox {
    base: PathBuf,
    user: Option<u32>,
    descriptors: u64,
    threads: Option<u64>,
    env: BTreeMap<&'static str, OsString>,
    binary: PathBuf,
    #[cfg(target_os = "linux")]
    disk: Option<PrivateDisk>,
    _dir: TempDir,
}

/// Sets a limit of this process. Makes only system calls, so it may be called between fork and exec.
fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let most = Rlimit {
        current: Some(most),
        ..getrlimit(resource)
    };
    Ok(setrlimit(resource, most)?)
}

/// Held for reading while a file is open that orphand may look at, and for writing while a program starts.
/// Between fork and exec the child has all descriptors of this process, and orphand would see it as a holder.
static START_LOCK: RwLock<()> = RwLock::new(());

/// Starts programs without passing them files that other tests have open. No method may have the name of one
/// of [`Command`]'s own methods: a call would reach that one instead.
pub(crate) trait StartChild {
    /// Starts the program, which has passed exec when this returns.
    fn start_child(&mut self) -> std::io::Result<Child>;

    /// Runs the program to its end.
    fn run_to_end(&mut self) -> std::io::Result<ExitStatus> {
        self.start_child()?.wait()
    }

    /// Runs the program to its end and reads its output.
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

/// Writes a file. No program that starts at the same time has it open.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    without_starts(|| fs::write(path, content)).unwrap();
}

/// Opens files, and closes them. No program that starts at the same time has them open.
pub(crate) fn without_starts<T>(act: impl FnOnce() -> T) -> T {
    let _no_start = START_LOCK.read().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Runs `test` with all `items` at the same time, because most tests wait. Returns when all have ended, and panics if
/// one of them has panicked. Each thread has the name of the test.
pub(crate) fn in_parallel<T: Send>(items: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::scope(|scope| {
        let start = |item| {
            let thread = thread::Builder::new().name(name.clone());
            thread.spawn_scoped(scope, move || test(item)).unwrap()
        };
        let threads: Vec<_> = items.into_iter().map(start).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        if let Some(panic) = results.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    });
}

impl Sandbox {
    /// Creates a sandbox of the user who runs the tests.
    pub(crate) fn new() -> Sandbox {
        Sandbox::for_user(None)
    }

    /// Creates a sandbox of an ordinary user, even if the tests run as root.
    pub(crate) fn ordinary() -> Sandbox {
        Sandbox::for_user(is_root().then_some(NOBODY))
    }

    /// Runs `test` for each kind of user: the one who runs the tests and, if that is root, an ordinary one.
    pub(crate) fn for_each_user(test: impl Fn(Sandbox) + Sync) {
        Sandbox::for_each_user_in(&default_parent(), test);
    }

    /// Does the same in memory, for tests that create and remove thousands of files: ext4 searches longer for a free
    /// inode after many removals, for all tests.
    pub(crate) fn for_each_user_in_memory(test: impl Fn(Sandbox) + Sync) {
        Sandbox::for_each_user_in(&memory(), test);
    }

    fn for_each_user_in(place: &Path, test: impl Fn(Sandbox) + Sync) {
        let mut sandboxes = vec![Sandbox::for_user_in(None, place)];
        match is_root() {
            true => sandboxes.push(Sandbox::for_user_in(Some(NOBODY), place)),
            false => eprintln!(
                "not root: runs only as uid {}",
                rustix::process::geteuid().as_raw()
            ),
        }
        in_parallel(sandboxes, test);
    }

    /// Creates a sandbox of an ordinary user in memory, where writing is fastest, if there is such a file
    /// system.
    pub(crate) fn in_memory() -> Sandbox {
        Sandbox::in_memory_for(is_root().then_some(NOBODY))
    }

    /// Creates a sandbox in memory for this user, or for the user who runs the tests.
    pub(crate) fn in_memory_for(user: Option<u32>) -> Sandbox {
        Sandbox::for_user_in(user, &memory())
    }

    /// Creates a sandbox of a user who owns nothing else, and whose processes may have at most `most` threads
    /// each. Needs root.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_thread_limit(most: u64) -> Sandbox {
        static USER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = USER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // No system assigns such uids by itself, and no other test run uses the same one.
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
            // The build directory may be in a home that this user cannot read.
            let copy = sandbox.base.join("orphand");
            fs::copy(&sandbox.binary, &copy).unwrap();
            sandbox.binary = copy;
        }
        sandbox
    }

    /// Adds a variable to the environment of everything that runs here.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Sandbox {
        self.env.insert(name, value.into());
        self
    }

    /// Limits the descriptors of each process.
    pub(crate) fn with_descriptor_limit(mut self, most: u64) -> Sandbox {
        self.descriptors = most;
        self
    }

    /// Adds a file to the root.
    pub(crate) fn file(self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Sandbox {
        self.write(name, content);
        self
    }

    /// Adds a directory to the root.
    pub(crate) fn dir(self, name: impl AsRef<Path>) -> Sandbox {
        self.make_dir(name);
        self
    }

    /// Returns the sandbox once nothing in the root has changed for `age`, by the dates of the files.
    pub(crate) fn aged(self, age: Duration) -> Sandbox {
        self.age(age);
        self
    }

    /// Writes a file in the root, and creates the directories that it needs.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        self.make_dir_at(path.parent().unwrap());
        write(&path, content);
        self.chown_to_user(&path);
    }

    /// Creates a directory in the root, and those above it.
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

    /// Gives `path` to the sandbox's user.
    pub(crate) fn chown_to_user(&self, path: &Path) {
        if let Some(uid) = self.user {
            std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Returns the sandbox's user, if it is not the one who runs the tests.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Waits until nothing in the root has changed for `age`. A change time cannot be set back, so an old
    /// file has to become old.
    pub(crate) fn age(&self, age: Duration) {
        // A little longer, because the kernel dates a change by its last tick.
        let age = age + Duration::from_millis(20);
        let newest = newest(&self.root());
        while let Some(rest) = age.checked_sub(newest.elapsed().unwrap_or_default()) {
            thread::sleep(rest.max(Duration::from_millis(1)));
        }
    }

    /// Returns the directory of the whole sandbox.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the directory to watch.
    pub(crate) fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Returns a path in the root.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Reports whether something exists at this name in the root.
    pub(crate) fn has(&self, name: impl AsRef<Path>) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Returns the content of a file in the root.
    #[track_caller]
    pub(crate) fn content(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// Returns the names in the root, sorted.
    pub(crate) fn listing(&self) -> Vec<String> {
        let names = fs::read_dir(self.root()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Returns everything in the sandbox, with all metadata that a change would alter.
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

    /// Runs orphand to its end. `{base}` in an argument is replaced by the path of the sandbox.
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

    /// Returns the command for orphand with these arguments.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(&self.binary);
        command.args(args.into_iter().map(|arg| self.expand_base(arg.as_ref())));
        command
    }

    /// Returns the path of orphand.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Returns the command for any program, in the environment of the sandbox.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(&self.base);
        // The safety rule that `tests/without-each-rule` disables.
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
        // SAFETY: the hook makes only async-signal-safe calls between fork and exec, on values created
        // before.
        unsafe {
            command.pre_exec(move || {
                // The tests may run under nohup, which ignores SIGHUP.
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
            // Entering the mount namespace needs root; the same hook changes the user after that.
            return command;
        }
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs `command` to its end.
    #[track_caller]
    pub(crate) fn finish(&self, mut command: Command) -> CommandResult {
        let command_line = format!("{command:?}");
        let ours = our_peak();
        let mut child = command
            .start_child()
            .unwrap_or_else(|error| panic!("{command_line}: {error}"));
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let (status, peak) = wait(child, &command_line);
        // A process begins as a copy of its parent, and Linux counts that too. If other tests have made this
        // process large, the peak is unknown.
        let peak = if peak <= ours { 0 } else { peak };
        CommandResult {
            command_line,
            status,
            stdout: join_text(stdout),
            stderr: join_text(stderr),
            peak,
        }
    }

    /// Starts a shell in the root: a real process that holds files and can be killed.
    #[track_caller]
    pub(crate) fn shell(&self) -> Shell {
        Shell::start(self)
    }

    /// Replaces `{base}` in an argument by the path of the sandbox.
    fn expand_base(&self, arg: &OsStr) -> OsString {
        match arg.to_str() {
            Some(text) => text.replace("{base}", self.base.to_str().unwrap()).into(),
            None => arg.to_owned(),
        }
    }
}

/// Returns a directory in memory, or the one for sandboxes if there is none.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => memory,
        false => default_parent(),
    }
}

/// Returns the directory for sandboxes, on a file system where a lease covers opens and mappings.
fn default_parent() -> PathBuf {
    let place = fs::canonicalize(std::env::temp_dir()).unwrap();
    #[cfg(target_os = "linux")]
    {
        // In a container, /tmp is often on overlayfs. There a lease does not cover mappings, and a temp may
        // be quarantined that would be deleted elsewhere.
        const OVERLAYFS: u32 = 0x794C_7630;
        let seen = rustix::fs::statfs(&place).unwrap();
        // The type of the number differs between architectures.
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

/// Returns the time of the last change in `dir`.
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
    String::from_utf8(text).unwrap_or_else(|error| panic!("the output is not UTF-8: {error}"))
}

/// Waits for the end of a process, and returns its peak memory in bytes.
#[track_caller]
fn wait(child: Child, command_line: &str) -> (ExitStatus, u64) {
    let pid = child.id() as libc::pid_t;
    let (send, ended) = channel();
    thread::spawn(move || {
        let mut status = 0;
        // SAFETY: an rusage of all zeroes is valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are valid for the call, which fills them.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        let _ = send.send((waited == pid).then_some((status, usage)));
    });
    let ended = ended.recv_timeout(DEADLINE * 2).unwrap_or_else(|_| {
        signal(pid as u32, libc::SIGKILL);
        panic!("timed out: {command_line}")
    });
    let (status, usage) = ended.expect("a child of ours");
    // In kilobytes; on macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    (
        ExitStatus::from_raw(status),
        u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit,
    )
}

/// Returns the peak memory of this process in bytes, or 0 if the system does not report it.
fn our_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|kb| kb.trim_end_matches("kB").trim().parse::<u64>().ok());
    peak.unwrap_or(0) * 1024
}

/// Sends a signal to a process that this test has started. After SIGSTOP it waits until the process has
/// stopped, with all its threads: they may run on for a moment after kill(2) has returned.
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: kill(2) takes any numbers.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
    if signal == libc::SIGSTOP {
        let how = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: the struct is valid for the call, which fills it.
        unsafe {
            let mut about = std::mem::zeroed::<libc::siginfo_t>();
            libc::waitid(libc::P_PID, pid, &raw mut about, how);
        }
    }
}

/// The result of a program that has ended.
#[derive(Debug)]
pub(crate) struct CommandResult {
    command_line: String,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Its peak memory, in bytes.
    pub(crate) peak: u64,
}

impl CommandResult {
    /// Asserts that it exited with this code.
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

    /// Returns the exit code, or `None` if a signal ended the program.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts that stderr contains these words.
    #[track_caller]
    pub(crate) fn stderr_has(self, words: &str) -> CommandResult {
        assert!(
            self.stderr.contains(words),
            "{words:?} is not in: {}",
            self.stderr
        );
        self
    }

    /// Asserts that stdout contains these words.
    #[track_caller]
    pub(crate) fn stdout_has(self, words: &str) -> CommandResult {
        assert!(
            self.stdout.contains(words),
            "{words:?} is not in: {}",
            self.stdout
        );
        self
    }

    /// Asserts that stdout is empty.
    #[track_caller]
    pub(crate) fn prints_nothing(self) -> CommandResult {
        assert_eq!(self.stdout, "", "{}", self.command_line);
        self
    }

    /// Returns the only JSON document on stdout.
    #[track_caller]
    pub(crate) fn stdout_json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// Returns the events on stdout, after checking that each is complete.
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
    schema::check_event(&event);
    event
}

/// Returns the base name of the path of an event.
pub(crate) fn name(event: &Value) -> &str {
    let path = event["path"].as_str().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns a predicate for events of this kind about a file of this name.
pub(crate) fn is<'a>(event: &'a str, file: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |seen| seen["event"] == event && name(seen) == file
}

/// Returns a predicate for `kept` events about a file of this name with this reason.
pub(crate) fn kept<'a>(file: &'a str, reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |seen| is("kept", file)(seen) && seen["reason"] == reason
}

/// Events in the order in which they were printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(pub(crate) Vec<Value>);

impl Events {
    /// Returns the events of these lines.
    pub(crate) fn of_lines(lines: &str) -> Events {
        Events(lines.lines().map(parse_event).collect())
    }

    /// Returns all events of one kind.
    pub(crate) fn of(&self, event: &str) -> Vec<&Value> {
        self.0
            .iter()
            .filter(|seen| seen["event"] == event)
            .collect()
    }

    /// Returns the file names of all events of one kind, sorted.
    pub(crate) fn names(&self, event: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.of(event).into_iter().map(name).collect();
        names.sort_unstable();
        names
    }

    /// Returns the only event of its kind.
    #[track_caller]
    pub(crate) fn one(&self, event: &str) -> &Value {
        match self.of(event).as_slice() {
            [one] => one,
            others => panic!("{} times {event:?} in {self:#?}", others.len()),
        }
    }

    /// Returns the events about the file of this name: kind and reason.
    pub(crate) fn about(&self, file: &str) -> Vec<String> {
        let about = self.0.iter().filter(|seen| name(seen) == file);
        let summary = |seen: &Value| {
            let word = |key: &str| seen[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", word("event"), word("reason"))
                .trim_end()
                .to_owned()
        };
        about.map(summary).collect()
    }

    /// Returns the summary, which must be the last event.
    #[track_caller]
    pub(crate) fn summary(&self) -> &Value {
        let last = self.0.last().unwrap_or_else(|| panic!("no events"));
        assert_eq!(last["event"], "summary", "the last line in {self:#?}");
        self.one("summary")
    }

    /// Returns `reaped, quarantined, kept, failed` of the summary.
    #[track_caller]
    pub(crate) fn sums(&self) -> [u64; 4] {
        let summary = self.summary();
        ["reaped", "quarantined", "kept", "failed"].map(|key| summary[key].as_u64().unwrap())
    }
}

/// A running watcher. It is killed with the test.
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

    /// Waits until its watches are set and its first scan is done.
    #[track_caller]
    pub(crate) fn ready(mut self) -> WatchProcess {
        self.wait_for(|event| event["event"] == "ready");
        self
    }

    /// Waits for the first event that matches, among past and future events.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_nth(1, wanted)
    }

    /// Waits for the *n*-th event that matches.
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
                    "{why}: the expected event did not come.\n{}",
                    self.all_output()
                ),
            }
        }
    }

    /// Waits until a new temp has had its whole grace and is removed: everything due before that has
    /// happened.
    #[track_caller]
    pub(crate) fn wait_for_sentinel(&mut self, sandbox: &Sandbox) {
        self.wait_for_sentinel_in(sandbox, "");
    }

    /// Does the same in a directory below the root.
    #[track_caller]
    pub(crate) fn wait_for_sentinel_in(&mut self, sandbox: &Sandbox, below: &str) {
        self.sentinels += 1;
        // An empty file with a random name is not a copy of anything.
        let file = format!(
            "sentinel-{}.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
            self.sentinels
        );
        sandbox.write(Path::new(below).join(&file), "");
        self.wait_for(is("reaped", &file));
    }

    /// Returns the events that were received so far.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Reports whether it is running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns its output on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Ends it by SIGTERM, and checks what holds for every watch.
    #[track_caller]
    pub(crate) fn stop(self) -> WatchResult {
        self.stop_by(libc::SIGTERM)
    }

    /// Does the same with another signal.
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
                Err(RecvTimeoutError::Timeout) => panic!("timed out.\n{}", self.all_output()),
            }
        }
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => panic!("timed out.\n{}", self.all_output()),
                // Its output has ended, so it ends within microseconds.
                None => thread::yield_now(),
            }
        };
        WatchResult {
            status,
            events: std::mem::take(&mut self.events),
            stderr: self.stderr(),
        }
    }

    /// Checks memory and descriptors, if the system reports them for a running process.
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
        let open = || -> Vec<PathBuf> {
            let files = fs::read_dir(of("fd")).into_iter().flatten().flatten();
            files.flat_map(|file| fs::read_link(file.path())).collect()
        };
        // A batch that is still being removed has more of them open. Up to 16 are pidfds of writers.
        let end = Instant::now() + DEADLINE;
        while open().len() > 40 && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let open = open();
        assert!(
            open.len() <= 40,
            "{} descriptors are open: {open:?}\n{}",
            open.len(),
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

/// The result of a watcher that has ended.
#[derive(Debug)]
pub(crate) struct WatchResult {
    pub(crate) status: ExitStatus,
    pub(crate) events: Events,
    pub(crate) stderr: String,
}

impl WatchResult {
    /// Asserts that it exited with this code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> WatchResult {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }
}

/// A shell that runs one line at a time, and is killed with the test.
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
        let mut child = start_with_plain_pid(&mut command);
        Shell {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Runs `line` to its end, and returns whether it succeeded.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> bool {
        writeln!(self.input, "{line}\necho \"done $?\"").unwrap();
        let mut answer = String::new();
        while !answer.starts_with("done ") {
            answer.clear();
            let read = self.output.read_line(&mut answer).unwrap();
            assert!(read > 0, "the shell ended at: {line}");
        }
        answer == "done 0\n"
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as the kernel does when memory runs out: no trap and no cleanup runs.
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

/// Reports whether a pid in the name of a temp may be a date, so that it may belong to the target: 1970, 190012, 991231,
/// 123124, 311224 or 2024366.
pub(crate) fn is_like_date(pid: u32) -> bool {
    let is_year = |number| (1_900..=2_100).contains(&number);
    let is_month = |number| (1..=12).contains(&number);
    let is_day = |number| (1..=31).contains(&number);
    let [first, second, third] = [pid / 10_000, pid / 100 % 100, pid % 100];
    match pid {
        1_900..=2_100 => true,
        100_000..=999_999 => {
            (is_year(pid / 100) && is_month(third))
                || (is_month(second) && (is_day(third) || is_day(first)))
                || (is_month(first) && is_day(second))
        }
        1_000_000..=9_999_999 => is_year(pid / 1_000) && (1..=366).contains(&(pid % 1_000)),
        _ => false,
    }
}

/// Starts `command` until its pid is not like a date, for tests of temps with that pid in their names.
#[track_caller]
pub(crate) fn start_with_plain_pid(command: &mut Command) -> Child {
    loop {
        let mut child = command.start_child().unwrap();
        if !is_like_date(child.id()) {
            return child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Returns the pid of a process that runs as long as this one does, for the name of a temp.
pub(crate) fn live_pid() -> u32 {
    static LIVE: OnceLock<Child> = OnceLock::new();
    let start = || {
        let mut command = Command::new("cat");
        // Its input ends with this process.
        start_with_plain_pid(command.stdin(Stdio::piped()).stdout(Stdio::null()))
    };
    LIVE.get_or_init(start).id()
}

/// Returns a pid that no process has, here or in a container: that of a child that has ended and was reaped.
pub(crate) fn dead_pid() -> u32 {
    loop {
        let mut child = start_with_plain_pid(&mut Command::new("true"));
        child.wait().unwrap();
        let called = ContainerPids::default().resolve(child.id(), clock::mono());
        if called.is_ok_and(|called| called.is_empty()) {
            return child.id();
        }
    }
}

/// Opens a terminal. Returns our end, and the one for a program's standard input.
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
    // SAFETY: both were just opened, and have no other owner.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    (ours.into(), theirs.into())
}

/// Creates a FIFO. A plain open of it waits for the other end forever.
pub(crate) fn fifo(path: &Path) {
    let path = std::ffi::CString::new(path_bytes(path)).unwrap();
    // SAFETY: the path is valid for the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
}

/// Returns the permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Creates a name from bytes.
pub(crate) fn name_from_bytes(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

/// Returns a path as bytes.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Every open of a file, or of a directory and the files in it, waits until this is dropped, as on a mount whose server
/// is away, or while a virus scanner examines the file. Needs root (fanotify(7)).
#[cfg(target_os = "linux")]
pub(crate) struct BlockedOpens(OwnedFd);

#[cfg(target_os = "linux")]
impl BlockedOpens {
    pub(crate) fn new(path: &Path) -> std::io::Result<BlockedOpens> {
        let mask = match path.is_dir() {
            true => libc::FAN_OPEN_PERM | libc::FAN_ONDIR | libc::FAN_EVENT_ON_CHILD,
            false => libc::FAN_OPEN_PERM,
        };
        let path = std::ffi::CString::new(path_bytes(path)).unwrap();
        let (class, add) = (
            libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC,
            libc::FAN_MARK_ADD,
        );
        // SAFETY: plain system calls; the path outlives them, and the descriptor belongs to this process.
        unsafe {
            let fd = libc::fanotify_init(class, libc::O_RDONLY as u32);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            let at = libc::AT_FDCWD;
            match libc::fanotify_mark(fd.as_raw_fd(), add, mask, at, path.as_ptr()) {
                0 => Ok(BlockedOpens(fd)),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    }

    /// Waits until an open waits.
    #[track_caller]
    pub(crate) fn wait_for_open(&self) {
        let mut asked = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        let asks = unsafe { libc::poll(&raw mut asked, 1, DEADLINE.as_millis() as i32) };
        assert_eq!(asks, 1, "no process opens the file");
    }
}

/// A small disk in the sandbox, mounted in the mount namespace of a helper process. The machine's own mounts
/// do not change, and the disk disappears with that process.
#[cfg(target_os = "linux")]
pub(crate) struct PrivateDisk {
    holder: Child,
}

#[cfg(target_os = "linux")]
impl Sandbox {
    /// Creates a sandbox of an ordinary user whose root, state and locks are on a disk of their own. The
    /// shell command `mount` mounts it at `$1`. Returns the reason as the error if this is impossible.
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
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line != "mounted\n" {
            let mut why = String::new();
            let _ = holder.stderr.take().unwrap().read_to_string(&mut why);
            let _ = holder.wait();
            return Err(format!("cannot mount a disk: {why}"));
        }
        for (name, folder) in [("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "runtime")] {
            sandbox.env.insert(name, at.join(folder).into());
        }
        sandbox.disk = Some(PrivateDisk { holder });
        for folder in ["root", "state", "runtime"] {
            let folder = sandbox.disk_path(folder);
            fs::create_dir(&folder).unwrap();
            sandbox.chown_to_user(&folder);
        }
        Ok(sandbox)
    }

    /// Returns a path on the disk as this process reaches it: through the helper process, which sees the
    /// mount.
    pub(crate) fn disk_path(&self, name: &str) -> PathBuf {
        let pid = self.disk.as_ref().expect("a disk").holder.id();
        let at = self.base.join("disk").join(name);
        Path::new(&format!("/proc/{pid}/root")).join(at.strip_prefix("/").unwrap())
    }
}

#[cfg(target_os = "linux")]
impl PrivateDisk {
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
impl Drop for PrivateDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The values that a child needs to enter the mount namespace of the disk.
#[cfg(target_os = "linux")]
struct EnterDisk {
    mounts: fs::File,
    base: std::ffi::CString,
    uid: u32,
}

#[cfg(target_os = "linux")]
impl EnterDisk {
    /// Enters the namespace and changes the user. Called between fork and exec, so it makes only system
    /// calls.
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

/// Checks that the list of `holders` contains this process. A child of another test may have the file too, between its
/// fork and its exec.
#[track_caller]
pub(crate) fn assert_held_by_us(holders: &Value) {
    let mut pids = holders.as_array().unwrap().iter().map(|one| &one["pid"]);
    assert!(pids.any(|pid| *pid == std::process::id()), "{holders}");
}
