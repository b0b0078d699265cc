//! Measures a watcher as it usually runs, by the events that it prints.
//!
//!     cargo bench --bench watcher                all of the following
//!     cargo bench --bench watcher -- late        time from the end of the grace to the removal: 1,000
//!                                                leaks, one every 10 ms
//!     cargo bench --bench watcher -- origin      8,662 orphans that exist at the start
//!     cargo bench --bench watcher -- idle [S]    number of wake-ups in S seconds, and memory
//!     cargo bench --bench watcher -- start       1 to 10,000 directories, time from the start to ready
//!
//! The files are created in the directory `DIR` of the environment, or by default on the file system of temporary
//! files.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Lines};
    use std::path::{Path, PathBuf};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use jiff::Timestamp;
    use serde_json::Value;
    use tempfile::TempDir;

    pub(super) fn main() {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["late", ..] => late(),
            ["origin", ..] => origin(),
            ["idle", rest @ ..] => idle(rest.first().map_or(60, |n| n.parse().expect("seconds"))),
            ["start", ..] => start(),
            _ => {
                late();
                origin();
                start();
                idle(60);
            }
        }
    }

    struct BenchDir(TempDir);

    impl BenchDir {
        fn new() -> BenchDir {
            let made = match env::var_os("DIR") {
                Some(dir) => tempfile::tempdir_in(dir),
                None => tempfile::tempdir(),
            };
            let place = BenchDir(made.expect("a directory"));
            fs::create_dir(place.root()).expect("a directory");
            fs::write(place.root().join("sessions.json"), "{}").expect("a target");
            place
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("root")
        }

        fn temp(&self, n: usize) -> PathBuf {
            let name = format!("sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp");
            self.root().join(name)
        }

        /// Starts orphand as a service does, with its journal.
        fn watch(&self, args: &[&str]) -> WatchProcess {
            let state = self.0.path().join("state");
            let mut child = Command::new(env!("CARGO_BIN_EXE_orphand"))
                .args(["watch", "--json"])
                .args(args)
                .arg(self.root())
                .env("XDG_STATE_HOME", &state)
                .env("XDG_RUNTIME_DIR", &state)
                .stdout(Stdio::piped())
                .spawn()
                .expect("orphand");
            let out = child.stdout.take().expect("its output");
            WatchProcess {
                child,
                lines: BufReader::new(out).lines(),
            }
        }
    }

    struct WatchProcess {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl WatchProcess {
        /// Returns the next event of this kind.
        fn next(&mut self, kind: &str) -> Value {
            loop {
                let line = self.lines.next().expect("an event").expect("a line");
                let event: Value = serde_json::from_str(&line).expect("an object");
                if event["event"] == kind {
                    return event;
                }
            }
        }

        /// Returns the number of voluntary sleeps of its threads, which equals the number of wake-ups
        /// (proc_pid_status(5)).
        fn sleeps(&self) -> u64 {
            let tasks = format!("/proc/{}/task", self.child.id());
            let tasks = fs::read_dir(tasks).expect("procfs").flatten();
            tasks
                .map(|task| number(&task.path(), "voluntary_ctxt_switches:"))
                .sum()
        }

        /// Returns the resident memory and its peak, in kB.
        fn memory(&self) -> (u64, u64) {
            let process = PathBuf::from(format!("/proc/{}", self.child.id()));
            (number(&process, "VmRSS:"), number(&process, "VmHWM:"))
        }
    }

    impl Drop for WatchProcess {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn number(process: &Path, key: &str) -> u64 {
        let status = fs::read_to_string(process.join("status")).expect("procfs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("a line");
        let number = line.trim().trim_end_matches(" kB");
        number.parse().expect("a number")
    }

    fn when(event: &Value) -> Timestamp {
        let time = event["time"].as_str().expect("a time");
        time.parse().expect("a time")
    }

    fn late() {
        const LEAKS: usize = 1_000;
        const GRACE: Duration = Duration::from_secs(2);
        let place = BenchDir::new();
        let mut watch = place.watch(&["--grace", "2s"]);
        watch.next("ready");
        // Events are read as they come, because orphand waits for a slow reader.
        let reader = thread::spawn(move || {
            let events: Vec<Value> = (0..LEAKS).map(|_| watch.next("reaped")).collect();
            events
        });
        let closed: HashMap<PathBuf, Timestamp> = (0..LEAKS)
            .map(|n| {
                thread::sleep(Duration::from_millis(10));
                fs::write(place.temp(n), "{").expect("a temp");
                (place.temp(n), Timestamp::now())
            })
            .collect();
        let events = reader.join().expect("the events");
        let mut late: Vec<f64> = events
            .iter()
            .map(|event| {
                let path = Path::new(event["path"].as_str().expect("a path"));
                let after = when(event).duration_since(closed[path]);
                (after.as_secs_f64() - GRACE.as_secs_f64()) * 1e3
            })
            .collect();
        late.sort_by(f64::total_cmp);
        let at = |percent: usize| late[(LEAKS - 1) * percent / 100];
        println!(
            "from the end of the grace to the removal, {LEAKS} leaks: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            at(50),
            at(99),
            at(100)
        );
    }

    fn origin() {
        const ORPHANS: usize = 8_662;
        let place = BenchDir::new();
        for n in 0..ORPHANS {
            fs::write(place.temp(n), "{").expect("a temp");
        }
        thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let mut watch = place.watch(&["--grace", "200ms"]);
        for _ in 0..ORPHANS {
            watch.next("reaped");
        }
        let took = began.elapsed().as_secs_f64();
        let (_, peak) = watch.memory();
        println!("{ORPHANS} orphans, from the start to their removal: {took:.2} s; peak {peak} kB");
    }

    fn start() {
        for directories in [1, 10, 100, 1_000, 10_000] {
            let place = BenchDir::new();
            for n in 0..directories {
                fs::create_dir(place.root().join(n.to_string())).expect("a directory");
            }
            let began = Instant::now();
            let mut watch = place.watch(&["-r"]);
            watch.next("ready");
            let ms = began.elapsed().as_secs_f64() * 1e3;
            let (resident, _) = watch.memory();
            println!("{directories:>6} directories: ready after {ms:.1} ms, {resident} kB");
        }
    }

    fn idle(seconds: u64) {
        let place = BenchDir::new();
        let mut watch = place.watch(&[]);
        watch.next("ready");
        // Wait for the work that remains after a start.
        thread::sleep(Duration::from_secs(5));
        let before = watch.sleeps();
        thread::sleep(Duration::from_secs(seconds));
        let (woke, (resident, peak)) = (watch.sleeps() - before, watch.memory());
        println!("idle for {seconds} s: {woke} wake-ups; {resident} kB, peak {peak} kB");
    }
}
