//! The watchers of the benchmark. Each runs in its own process, which reports its CPU time and memory.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use dashmap::DashMap;
use notify::event::{CreateKind, EventKindMask, ModifyKind, RenameMode};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use orphand::core::policy::{Graces, Policy};
use rustix::fs::inotify;

pub(crate) const ORPHAND: &str = "orphand";
pub(crate) const NOTIFY: &str = "notify";
pub(crate) const INOTIFY: &str = "inotify";
pub(crate) const NONE: &str = "no watcher";
const DEFAULT_MASK: &str = "notify's default";
const INOTIFYWAIT: &str = "inotifywait";
const WATCHMAN: &str = "watchman";

/// Short, so that temps of a hot directory leave the map soon after the end.
const GRACE: Duration = Duration::from_secs(10);

/// Returns the watchers whose programs are installed.
pub(crate) fn installed() -> impl Iterator<Item = &'static str> {
    let installed = |program: &str| {
        let paths = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&paths).any(|dir| dir.join(program).is_file());
        if !found {
            println!("{program} is not installed");
        }
        found
    };
    let all = [
        ORPHAND,
        NOTIFY,
        DEFAULT_MASK,
        INOTIFY,
        INOTIFYWAIT,
        WATCHMAN,
        NONE,
    ];
    all.into_iter().filter(move |&watcher| match watcher {
        INOTIFYWAIT | WATCHMAN => installed(watcher),
        _ => true,
    })
}

/// A running watcher.
struct RunningWatcher {
    pid: u32,
    left: Box<dyn Fn() -> usize>,
    /// The program of the watcher, to be killed at the end.
    program: Option<Child>,
}

impl RunningWatcher {
    fn here(left: impl Fn() -> usize + 'static) -> RunningWatcher {
        RunningWatcher {
            pid: std::process::id(),
            left: Box::new(left),
            program: None,
        }
    }

    /// A watcher in another program, whose temps cannot be counted.
    fn other(program: Child) -> RunningWatcher {
        RunningWatcher {
            pid: program.id(),
            left: Box::new(|| 0),
            program: Some(program),
        }
    }
}

/// Runs a watcher, and prints the pid of its process. When standard input ends, prints its CPU time, its memory and the
/// number of temps that it tracks.
pub(crate) fn watch(watcher: &str, dir: &Path) {
    let own = tempfile::tempdir().expect("a directory");
    let mut watching = match watcher {
        ORPHAND => orphand(dir),
        NOTIFY => {
            let mask = EventKindMask::CREATE | EventKindMask::REMOVE | EventKindMask::MODIFY_NAME;
            lean(dir, Config::default().with_event_kinds(mask))
        }
        DEFAULT_MASK => lean(dir, Config::default()),
        INOTIFY => bare(dir),
        INOTIFYWAIT => inotifywait(dir),
        WATCHMAN => watchman(dir, own.path()),
        _ => RunningWatcher::here(|| 0),
    };
    println!("{}", watching.pid);
    let mut nothing = Vec::new();
    let mut until = std::io::stdin();
    until.read_to_end(&mut nothing).expect("the end of input");
    let deadline = Instant::now() + GRACE * 3;
    while (watching.left)() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    if watching.program.is_some() {
        settle(watching.pid);
    }
    println!(
        "{} {} {}",
        cpu(watching.pid),
        peak(watching.pid),
        (watching.left)()
    );
    if let Some(mut program) = watching.program.take() {
        program.kill().expect("a running program");
        program.wait().expect("its exit status");
    }
    drop(own);
    std::process::exit(0);
}

/// Waits until a process is idle.
fn settle(pid: u32) {
    let mut before = cpu(pid);
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = cpu(pid);
        if now - before < 100.0 {
            return;
        }
        before = now;
    }
}

fn orphand(dir: &Path) -> RunningWatcher {
    let policy = Policy {
        grace: Graces::both(GRACE),
        ..Policy::default()
    };
    let builder = orphand::Watcher::builder().root(dir, policy);
    let watcher = builder.start().expect("start");
    while !matches!(watcher.events().recv(), Ok(orphand::Event::Ready { .. })) {}
    RunningWatcher::here(move || watcher.tracked())
}

/// A minimal handler that keeps the same map from the same events.
fn lean(dir: &Path, config: Config) -> RunningWatcher {
    let map: &'static DashMap<PathBuf, Instant> = Box::leak(Box::default());
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(mut event) = event else { return };
        let Some(path) = event.paths.pop() else {
            return;
        };
        let is_temp = path.as_os_str().as_bytes().ends_with(b".tmp");
        match event.kind {
            EventKind::Create(CreateKind::File) if is_temp => {
                map.insert(path, Instant::now());
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_)
                if is_temp =>
            {
                map.remove(&path);
            }
            _ => {}
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, config).expect("a watcher");
    watcher
        .watch(dir, RecursiveMode::NonRecursive)
        .expect("a watch");
    RunningWatcher::here(move || {
        let _ = &watcher;
        map.len()
    })
}

fn bare(dir: &Path) -> RunningWatcher {
    use inotify::{CreateFlags, ReadFlags, WatchFlags};
    let map: &'static DashMap<Vec<u8>, Instant> = Box::leak(Box::default());
    let fd = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
    let mask =
        WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, dir, mask).expect("a watch");
    thread::spawn(move || {
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 64 * 1024];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event
                .file_name()
                .map(|name| name.to_bytes())
                .unwrap_or_default();
            if !name.ends_with(b".tmp") {
                continue;
            }
            let flags = event.events();
            if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                map.insert(name.to_vec(), Instant::now());
            } else {
                map.remove(OsStr::from_bytes(name).as_bytes());
            }
        }
    });
    RunningWatcher::here(|| map.len())
}

/// Prints each event of a temp to /dev/null.
fn inotifywait(dir: &Path) -> RunningWatcher {
    let mut command = Command::new(INOTIFYWAIT);
    command
        .args(["-m", "-e", "create,delete,moved_from,moved_to"])
        .args(["--include", r"\.tmp$", "--format", "%e %f"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut program = with_us(&mut command).spawn().expect("inotifywait");
    let stderr = BufReader::new(program.stderr.take().expect("its errors"));
    let mut lines = stderr.lines().map_while(Result::ok);
    lines
        .find(|line| line.contains("Watches established"))
        .expect("its watch");
    // It prints nothing more, but its output must stay open.
    thread::spawn(move || lines.for_each(drop));
    RunningWatcher::other(program)
}

/// Keeps an index of all files of the directory; no client is subscribed.
fn watchman(dir: &Path, own: &Path) -> RunningWatcher {
    let socket = own.join("socket");
    let at = |name: &str, file: &str| format!("--{name}={}", own.join(file).display());
    let mut command = Command::new(WATCHMAN);
    command
        .args(["--foreground", "--no-save-state"])
        .args([at("sockname", "socket"), at("logfile", "log")])
        .args([at("pidfile", "pid"), at("statefile", "state")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let program = with_us(&mut command).spawn().expect("watchman");
    let deadline = Instant::now() + GRACE * 3;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "watchman has not started");
        thread::sleep(Duration::from_millis(20));
    }
    let watched = Command::new(WATCHMAN)
        .args(["--no-spawn", &at("sockname", "socket"), "watch"])
        .arg(dir)
        .output()
        .expect("watchman");
    assert!(watched.status.success(), "{watched:?}");
    RunningWatcher::other(program)
}

/// Makes the program end with this process, however that ends.
fn with_us(command: &mut Command) -> &mut Command {
    // SAFETY: prctl(2) is async-signal-safe, and nothing else is called.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}

/// Returns the CPU time of a process with all its threads, in microseconds (clock_getcpuclockid(3)).
pub(crate) fn cpu(pid: u32) -> f64 {
    // SAFETY: both are valid for the calls, which fill them.
    unsafe {
        let (mut clock, mut time) = (0, std::mem::zeroed::<libc::timespec>());
        let pid = libc::pid_t::try_from(pid).expect("a pid");
        assert_eq!(libc::clock_getcpuclockid(pid, &raw mut clock), 0);
        assert_eq!(libc::clock_gettime(clock, &raw mut time), 0);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    }
}

/// Returns the peak memory of a process, in kB (proc_pid_status(5); getrusage(2) would count the memory of its parent's
/// program).
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    peak.and_then(|peak| peak.parse().ok()).expect("a peak")
}
