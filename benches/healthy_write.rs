//! What a healthy atomic write costs whoever watches: CPU time of a watching process, per write.
//!
//!     cargo bench --bench healthy_write -- [WRITES [WRITES_PER_SECOND [ROUNDS [WATCHER]]]]
//!
//! The watchers, each in a process of its own: orphand; the leanest handler on the same notify, mask
//! and map, and one with notify's default mask; a bare inotify read loop that keeps the same names in a
//! hash map; inotifywait and watchman, where they are installed. Only Linux has inotify.
//!
//! At full speed (0 a second) they take turns, and another process writes with two threads; after each of
//! them nobody watches for one run, which shows what being watched costs the writer.
//!
//! At a rate all of them are there, each with its own directory, and one after the other is written to for
//! a second: what a machine that others use does to one of them, it does to the next a second later, so
//! that their ratio is known better than what each of them takes.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark compares with inotify, so it runs on Linux only");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
#[path = "healthy_write/watchers.rs"]
mod watchers;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Read};
    use std::ops::Range;
    use std::path::Path;
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs};

    use super::watchers::{self, INOTIFY, NONE, NOTIFY, ORPHAND};

    /// What a run with one of them showed.
    #[derive(Clone, Copy)]
    struct Run {
        /// CPU of the watching process for each write, microseconds.
        cpu: f64,
        /// How long the writer took for each, microseconds.
        wall: f64,
        /// The most memory that the watching process ever had, MB.
        peak: f64,
        /// The writer's speed, percent of what it was in the next run, which nobody watched.
        speed: f64,
    }

    impl Run {
        fn beside(self, unwatched: Run) -> Run {
            let speed = 100.0 * unwatched.wall / self.wall;
            Run { speed, ..self }
        }
    }

    pub(super) fn main() {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["child", "writer", dir, writes] => write(Path::new(dir), number(writes)),
            ["child", watcher, dir] => watchers::watch(watcher, Path::new(dir)),
            rest => {
                let writes = rest.first().map_or(30_000, |n| number(n));
                match rest.get(1).map_or(500, |n| number(n)) {
                    0 => {
                        let rounds = rest.get(2).map_or(3, |n| number(n));
                        compare(writes, rounds, rest.get(3).copied());
                    }
                    rate => compare_by_the_second(writes, rate),
                }
            }
        }
    }

    fn number(text: &str) -> u64 {
        text.parse().expect("a number")
    }

    fn compare(writes: u64, rounds: u64, only: Option<&str>) {
        println!("{writes} atomic writes, as fast as two threads can; each write, µs");
        println!(
            "{:<22} {:>12} {:>12} {:>9} {:>22}",
            "", "watcher CPU", "writer", "peak MB", "speed of the unwatched"
        );
        let there: Vec<&str> = watchers::installed()
            .filter(|&watcher| watcher != NONE && only.is_none_or(|only| only == watcher))
            .collect();
        let mut all: HashMap<&str, Vec<Run>> = HashMap::new();
        for round in 0..rounds {
            for &watcher in &there {
                let run = run(watcher, writes).beside(run(NONE, writes));
                print(&format!("{round} {watcher}"), run);
                all.entry(watcher).or_default().push(run);
            }
        }
        let median = |watcher: &str, what: fn(&Run) -> f64| {
            let [_, median, _] = quartiles(all[watcher].iter().map(what).collect());
            median
        };
        for &watcher in &there {
            let run = Run {
                cpu: median(watcher, |run| run.cpu),
                wall: median(watcher, |run| run.wall),
                peak: median(watcher, |run| run.peak),
                speed: median(watcher, |run| run.speed),
            };
            print(&format!("median {watcher}"), run);
        }
        if only.is_none() {
            let cpu = |watcher| median(watcher, |run| run.cpu);
            println!(
                "CPU of orphand: {:.2} of {NOTIFY}'s, {:.2} of {INOTIFY}'s",
                cpu(ORPHAND) / cpu(NOTIFY),
                cpu(ORPHAND) / cpu(INOTIFY),
            );
        }
    }

    fn print(what: &str, run: Run) {
        let Run {
            cpu,
            wall,
            peak,
            speed,
        } = run;
        println!("{what:<22} {cpu:>12.2} {wall:>12.2} {peak:>9.1} {speed:>20.0} %");
    }

    /// A watcher at work, and the directory that it watches.
    struct WatchedDir {
        watcher: &'static str,
        dir: tempfile::TempDir,
        child: Child,
        output: BufReader<ChildStdout>,
        /// The process whose CPU is measured.
        pid: u32,
        /// What that had taken at the start, microseconds.
        before: f64,
    }

    impl WatchedDir {
        fn by(watcher: &'static str) -> WatchedDir {
            let dir = tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a directory");
            let mut child = child(&["child", watcher], dir.path());
            let mut says = BufReader::new(child.stdout.take().expect("its output"));
            let mut line = String::new();
            says.read_line(&mut line).expect("ready");
            let pid = line.trim().parse().expect("a pid");
            WatchedDir {
                watcher,
                dir,
                child,
                output: says,
                pid,
                before: watchers::cpu(pid),
            }
        }

        /// CPU that it took, microseconds, and the most memory that it had, MB.
        fn end(mut self) -> (f64, f64) {
            drop(self.child.stdin.take());
            let mut rest = String::new();
            self.output.read_to_string(&mut rest).expect("the end");
            self.child.wait().expect("the watcher");
            let numbers: Vec<f64> = rest.split_whitespace().flat_map(str::parse).collect();
            let watcher = self.watcher;
            let [after, peak, left] = numbers[..] else {
                panic!("{watcher} said {rest:?}");
            };
            // The others keep what they knew of when the kernel had to drop events.
            match watcher {
                ORPHAND => assert_eq!(left, 0.0, "orphand must know of no temp afterwards"),
                _ if left > 0.0 => println!("  {watcher} knows of {left} temps that are gone"),
                _ => {}
            }
            (after - self.before, peak / 1e3)
        }
    }

    fn compare_by_the_second(writes: u64, rate: u64) {
        println!("{writes} atomic writes, {rate} a second; CPU of each watcher for one, µs");
        let there = watchers::installed().filter(|&watcher| watcher != NONE);
        let mut all: Vec<WatchedDir> = there.map(WatchedDir::by).collect();
        let mut taken: HashMap<&str, Vec<f64>> = HashMap::new();
        for _ in 0..writes / rate {
            for WatchedDir {
                watcher, dir, pid, ..
            } in &all
            {
                let before = watchers::cpu(*pid);
                write_one_after_the_other(dir.path(), 0..rate, rate);
                std::thread::sleep(SETTLE);
                let each = (watchers::cpu(*pid) - before) / rate as f64;
                taken.entry(watcher).or_default().push(each);
            }
            // Whoever is the first of a round is another one each time.
            all.rotate_left(1);
        }
        println!(
            "{:<22} {:>8} {:>16} {:>9}",
            "", "median", "middle half", "peak MB"
        );
        for watched in all {
            let (watcher, (_, peak)) = (watched.watcher, watched.end());
            let [low, median, high] = quartiles(taken[watcher].clone());
            println!("{watcher:<22} {median:>8.2} {low:>8.2}–{high:<7.2} {peak:>9.1}");
        }
        for other in [NOTIFY, INOTIFY] {
            let ratios = taken[ORPHAND].iter().zip(&taken[other]);
            let [low, median, high] = quartiles(ratios.map(|(ours, its)| ours / its).collect());
            let sum = |watcher| taken[watcher].iter().sum::<f64>();
            let whole = sum(ORPHAND) / sum(other);
            println!(
                "orphand to {other}: {whole:.2} in all; second by second {median:.2}, middle half {low:.2}–{high:.2}"
            );
        }
    }

    /// After a second's writes: until whoever watches has nothing left to do.
    const SETTLE: Duration = Duration::from_millis(50);

    /// What a quarter, half and three quarters of them do not exceed.
    fn quartiles(mut of: Vec<f64>) -> [f64; 3] {
        of.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| of[of.len() * quarter / 4])
    }

    fn run(watcher: &'static str, writes: u64) -> Run {
        let watched = WatchedDir::by(watcher);
        let began = Instant::now();
        let mut writer = Command::new(env::current_exe().expect("this program"))
            .args(["child", "writer"])
            .arg(watched.dir.path())
            .arg(writes.to_string())
            .spawn()
            .expect("a writer");
        // It ends with an error where one rename fails.
        assert!(writer.wait().expect("the writer").success());
        let wall = began.elapsed().as_secs_f64() * 1e6;
        let (cpu, peak) = watched.end();
        Run {
            cpu: cpu / writes as f64,
            wall: wall / writes as f64,
            peak,
            speed: 100.0,
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

    fn write(dir: &Path, writes: u64) {
        std::thread::scope(|scope| {
            scope.spawn(|| write_one_after_the_other(dir, 0..writes / 2, 0));
            write_one_after_the_other(dir, writes / 2..writes, 0);
        });
    }

    fn write_one_after_the_other(dir: &Path, writes: Range<u64>, rate: u64) {
        let start = Instant::now();
        let target = dir.join(format!("sessions-{}.json", writes.start));
        for n in writes.clone() {
            let temp = dir.join(format!(
                "sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp"
            ));
            fs::write(&temp, b"{}").expect("write");
            fs::rename(&temp, &target).expect("rename");
            if let Some(nanos) = ((n - writes.start) * 1_000_000_000).checked_div(rate) {
                let due = Duration::from_nanos(nanos);
                if let Some(early) = due.checked_sub(start.elapsed()) {
                    std::thread::sleep(early);
                }
            }
        }
    }
}
