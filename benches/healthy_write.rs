//! What a healthy atomic write costs whoever watches: CPU time of a watching process, per write.
//!
//!     cargo bench --bench healthy_write -- [WRITES] [WRITES_PER_SECOND]
//!
//! Three watchers, each in a process of its own, one after the other in each round: orphand, the
//! leanest handler on the same notify, mask and map, and a bare inotify read loop that keeps the
//! same names in a hash map. A fourth process writes; at full speed with two threads, and then one
//! more run has nobody watch, so that it shows what being watched costs the writer. Only Linux has
//! inotify.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark compares with inotify, so it runs on Linux only");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::ffi::OsStr;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::ops::Range;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs};

    use dashmap::DashMap;
    use notify::event::{CreateKind, EventKindMask, ModifyKind, RenameMode};
    use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
    use orphand::decide::policy::{Graces, Policy};
    use rustix::fs::inotify;

    const ROUNDS: usize = 3;
    const WATCHERS: [&str; 4] = ["orphand", "notify", "inotify", "nobody"];

    /// Short enough that what a hot directory leaves in the map is gone soon after the end.
    const GRACE: Duration = Duration::from_secs(10);

    /// What a run with one of them showed.
    #[derive(Clone, Copy)]
    struct Run {
        /// CPU of the watching process for each write, microseconds.
        cpu: f64,
        /// How long the writer took for each, microseconds.
        wall: f64,
        /// The most memory that the watching process ever had, MB.
        peak: f64,
    }

    pub(super) fn main() {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["child", "writer", dir, writes, rate] => {
                write(Path::new(dir), number(writes), number(rate))
            }
            ["child", watcher, dir] => watch(watcher, Path::new(dir)),
            rest => {
                let writes = rest.first().map_or(30_000, |n| number(n));
                let rate = rest.get(1).map_or(500, |n| number(n));
                compare(writes, rate);
            }
        }
    }

    fn number(text: &str) -> u64 {
        text.parse().expect("a number")
    }

    fn compare(writes: u64, rate: u64) {
        println!(
            "{writes} atomic writes, {rate} a second (0: as fast as two threads can); each write, µs"
        );
        println!(
            "{:<14} {:>12} {:>12} {:>9}",
            "", "watcher CPU", "writer", "peak MB"
        );
        let mut all: HashMap<&str, Vec<Run>> = HashMap::new();
        for round in 0..ROUNDS {
            for watcher in WATCHERS {
                let run = run(watcher, writes, rate);
                print(&format!("{round} {watcher}"), run);
                all.entry(watcher).or_default().push(run);
            }
        }
        let median = |watcher: &str, what: fn(&Run) -> f64| {
            let mut runs: Vec<f64> = all[watcher].iter().map(what).collect();
            runs.sort_by(f64::total_cmp);
            runs[runs.len() / 2]
        };
        for watcher in WATCHERS {
            let (cpu, wall) = (
                median(watcher, |run| run.cpu),
                median(watcher, |run| run.wall),
            );
            let peak = median(watcher, |run| run.peak);
            print(&format!("median {watcher}"), Run { cpu, wall, peak });
        }
        let cpu = |watcher| median(watcher, |run| run.cpu);
        println!(
            "CPU of orphand: {:.2} of notify's, {:.2} of inotify's",
            cpu("orphand") / cpu("notify"),
            cpu("orphand") / cpu("inotify"),
        );
        let wall = |watcher| median(watcher, |run| run.wall);
        for watcher in WATCHERS {
            let speed = 100.0 * wall("nobody") / wall(watcher);
            println!("speed of the writer, watched by {watcher}: {speed:.0} %");
        }
    }

    fn print(what: &str, run: Run) {
        let Run { cpu, wall, peak } = run;
        println!("{what:<14} {cpu:>12.2} {wall:>12.2} {peak:>9.1}");
    }

    fn run(watcher: &str, writes: u64, rate: u64) -> Run {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a directory");
        let mut watching = child(&["child", watcher], dir.path());
        let mut out = BufReader::new(watching.stdout.take().expect("its output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("ready");
        let before: f64 = line.trim().parse().expect("CPU at the start");
        let began = Instant::now();
        let mut writer = Command::new(env::current_exe().expect("this program"))
            .args(["child", "writer"])
            .arg(dir.path())
            .args([writes.to_string(), rate.to_string()])
            .spawn()
            .expect("a writer");
        // It ends with an error where one rename fails.
        assert!(writer.wait().expect("the writer").success());
        let wall = began.elapsed().as_secs_f64() * 1e6;
        drop(watching.stdin.take());
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("the end");
        watching.wait().expect("the watcher");
        let numbers: Vec<f64> = rest.split_whitespace().flat_map(str::parse).collect();
        let [after, peak, left] = numbers[..] else {
            panic!("{watcher} said {rest:?}");
        };
        // The others keep what they knew of when the kernel had to drop events.
        match watcher {
            "orphand" => assert_eq!(left, 0.0, "orphand must know of no temp afterwards"),
            _ if left > 0.0 => println!("  {watcher} knows of {left} temps that are gone"),
            _ => {}
        }
        Run {
            cpu: (after - before) / writes as f64,
            wall: wall / writes as f64,
            peak: peak / 1e3,
        }
    }

    fn child(args: &[&str], dir: &Path) -> Child {
        Command::new(env::current_exe().expect("this program"))
            .args(args)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child")
    }

    fn write(dir: &Path, writes: u64, rate: u64) {
        if rate > 0 {
            return write_one_after_the_other(dir, 0..writes, rate);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| write_one_after_the_other(dir, 0..writes / 2, 0));
            write_one_after_the_other(dir, writes / 2..writes, 0);
        });
    }

    fn write_one_after_the_other(dir: &Path, writes: Range<u64>, rate: u64) {
        let start = Instant::now();
        let target = dir.join(format!("sessions-{}.json", writes.start));
        for n in writes {
            let temp = dir.join(format!(
                "sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp"
            ));
            fs::write(&temp, b"{}").expect("write");
            fs::rename(&temp, &target).expect("rename");
            if let Some(nanos) = (n * 1_000_000_000).checked_div(rate) {
                let due = Duration::from_nanos(nanos);
                if let Some(early) = due.checked_sub(start.elapsed()) {
                    std::thread::sleep(early);
                }
            }
        }
    }

    /// Watches until its standard input ends, and says what CPU it took before and after.
    fn watch(watcher: &str, dir: &Path) {
        let left: Box<dyn Fn() -> usize> = match watcher {
            "orphand" => {
                let policy = Policy {
                    grace: Graces::both(GRACE),
                    ..Policy::default()
                };
                let watcher = orphand::Watcher::builder()
                    .root(dir, policy)
                    .start()
                    .expect("start");
                while !matches!(watcher.events().recv(), Ok(orphand::Event::Ready { .. })) {}
                Box::new(move || watcher.tracked())
            }
            "notify" => {
                let map: &'static DashMap<PathBuf, Instant> = Box::leak(Box::default());
                let watcher = lean(dir, map);
                Box::new(move || {
                    let _ = &watcher;
                    map.len()
                })
            }
            "nobody" => Box::new(|| 0),
            _ => {
                let map: &'static DashMap<Vec<u8>, Instant> = Box::leak(Box::default());
                bare(dir, map);
                Box::new(|| map.len())
            }
        };
        println!("{}", cpu());
        let mut nothing = Vec::new();
        std::io::stdin()
            .read_to_end(&mut nothing)
            .expect("the end of input");
        let deadline = Instant::now() + GRACE * 3;
        while left() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("{} {} {}", cpu(), peak(), left());
        std::io::stdout().flush().expect("told");
        std::process::exit(0);
    }

    /// The leanest handler that keeps the same map from the same events.
    fn lean(dir: &Path, map: &'static DashMap<PathBuf, Instant>) -> RecommendedWatcher {
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
        let mask = EventKindMask::CREATE | EventKindMask::REMOVE | EventKindMask::MODIFY_NAME;
        let config = Config::default().with_event_kinds(mask);
        let mut watcher = RecommendedWatcher::new(handler, config).expect("a watcher");
        watcher
            .watch(dir, RecursiveMode::NonRecursive)
            .expect("a watch");
        watcher
    }

    fn bare(dir: &Path, map: &'static DashMap<Vec<u8>, Instant>) {
        use inotify::{CreateFlags, ReadFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
        let mask =
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, mask).expect("a watch");
        std::thread::spawn(move || {
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
    }

    /// CPU that this process has taken, microseconds.
    fn cpu() -> f64 {
        // SAFETY: `usage` is valid for the call, which fills it.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
            usage
        };
        let micros = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
        micros(usage.ru_utime) + micros(usage.ru_stime)
    }

    /// The most memory that it ever had, kB (proc_pid_status(5); getrusage(2) would count what it was
    /// started from).
    fn peak() -> u64 {
        let status = fs::read_to_string("/proc/self/status").expect("procfs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        peak.and_then(|peak| peak.parse().ok()).expect("a peak")
    }
}
