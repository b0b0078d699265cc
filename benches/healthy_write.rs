//! The cost of a healthy atomic write for a watching process: CPU time per write.
//!
//!     cargo bench --bench healthy_write -- [WRITES [0 [ROUNDS [WATCHER]]]]
//!     cargo bench --bench healthy_write -- WRITES WRITES_PER_SECOND [other-names]
//!
//! The watchers, each in its own process: orphand; a minimal handler with the same notify, mask and map, and one with
//! notify's default mask; a bare inotify read loop that keeps the same names in a hash map; inotifywait and watchman,
//! if they are installed. Only Linux has inotify.
//!
//! At full speed (0 writes per second) the watchers take turns while another process writes with two threads. After
//! each of them there is one run without a watcher, which shows how much a watcher slows down the writer.
//!
//! At a given rate all watchers run at the same time, each with its own directory, and the writer writes to one
//! directory after the other for a second each. Load from other users of the machine then affects all of them alike, so
//! the ratio between them is more precise than the time of each. With `other-names` the temps have names that the rule
//! does not match, `sessions.json.<9 digits>`: orphand only learns from them.

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

    /// The result of a run with one watcher.
    #[derive(Clone, Copy)]
    struct Run {
        /// CPU time of the watching process per write, in microseconds.
        cpu: f64,
        /// Time of the writer per write, in microseconds.
        wall: f64,
        /// Peak memory of the watching process, in MB.
        peak: f64,
        /// Speed of the writer, as a percentage of the next run, which had no watcher.
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
                    rate => {
                        let temp_name = match rest.get(2) {
                            None => matched_name,
                            Some(&"other-names") => other_name,
                            Some(unknown) => panic!("{unknown:?}: only \"other-names\" is known"),
                        };
                        compare_by_the_second(writes, rate, temp_name);
                    }
                }
            }
        }
    }

    fn number(text: &str) -> u64 {
        text.parse().expect("a number")
    }

    fn compare(writes: u64, rounds: u64, only: Option<&str>) {
        println!("{writes} atomic writes by two threads at full speed; µs per write");
        println!(
            "{:<22} {:>12} {:>12} {:>9} {:>22}",
            "", "watcher CPU", "writer", "peak MB", "% of unwatched"
        );
        let installed: Vec<&str> = watchers::installed()
            .filter(|&watcher| watcher != NONE && only.is_none_or(|only| only == watcher))
            .collect();
        let mut all: HashMap<&str, Vec<Run>> = HashMap::new();
        for round in 0..rounds {
            for &watcher in &installed {
                let run = run(watcher, writes).beside(run(NONE, writes));
                print(&format!("{round} {watcher}"), run);
                all.entry(watcher).or_default().push(run);
            }
        }
        let median = |watcher: &str, value: fn(&Run) -> f64| {
            let [_, median, _] = quartiles(all[watcher].iter().map(value).collect());
            median
        };
        for &watcher in &installed {
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
                "CPU of orphand: {:.2} times {NOTIFY}, {:.2} times {INOTIFY}",
                cpu(ORPHAND) / cpu(NOTIFY),
                cpu(ORPHAND) / cpu(INOTIFY),
            );
        }
    }

    fn print(label: &str, run: Run) {
        let Run {
            cpu,
            wall,
            peak,
            speed,
        } = run;
        println!("{label:<22} {cpu:>12.2} {wall:>12.2} {peak:>9.1} {speed:>20.0} %");
    }

    /// A running watcher, and the directory that it watches.
    struct WatchedDir {
        watcher: &'static str,
        dir: tempfile::TempDir,
        child: Child,
        output: BufReader<ChildStdout>,
        /// The process whose CPU time is measured.
        pid: u32,
        /// CPU time of that process at the start, in microseconds.
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
            says.read_line(&mut line).expect("its pid");
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

        /// Stops the watcher. Returns its CPU time in microseconds and its peak memory in MB.
        fn end(mut self) -> (f64, f64) {
            drop(self.child.stdin.take());
            let mut rest = String::new();
            self.output.read_to_string(&mut rest).expect("its output");
            self.child.wait().expect("the watcher");
            let numbers: Vec<f64> = rest.split_whitespace().flat_map(str::parse).collect();
            let watcher = self.watcher;
            let [after, peak, left] = numbers[..] else {
                panic!("unexpected output of {watcher}: {rest:?}");
            };
            // The others keep names whose events the kernel had to drop.
            match watcher {
                ORPHAND => assert_eq!(left, 0.0, "orphand must track no temp afterwards"),
                _ if left > 0.0 => println!("  {watcher} still lists {left} removed temps"),
                _ => {}
            }
            (after - self.before, peak / 1e3)
        }
    }

    /// Returns the name of the temp of a write.
    type TempName = fn(u64) -> String;

    fn matched_name(n: u64) -> String {
        format!("sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp")
    }

    /// The digits look random, as those of a hash of the time do.
    fn other_name(n: u64) -> String {
        format!(
            "sessions.json.{:09}",
            100_000_000 + n * 618_033_989 % 900_000_000
        )
    }

    fn compare_by_the_second(writes: u64, rate: u64, temp_name: TempName) {
        println!("{writes} atomic writes, {rate} per second; CPU of each watcher per write, µs");
        let installed = watchers::installed().filter(|&watcher| watcher != NONE);
        let mut all: Vec<WatchedDir> = installed.map(WatchedDir::by).collect();
        let mut taken: HashMap<&str, Vec<f64>> = HashMap::new();
        for second in 0..writes / rate {
            for WatchedDir {
                watcher, dir, pid, ..
            } in &all
            {
                let before = watchers::cpu(*pid);
                let all = second * rate..(second + 1) * rate;
                write_one_after_the_other(dir.path(), all, rate, temp_name);
                std::thread::sleep(SETTLE);
                let each = (watchers::cpu(*pid) - before) / rate as f64;
                taken.entry(watcher).or_default().push(each);
            }
            // Each round starts with another watcher.
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
            let overall = sum(ORPHAND) / sum(other);
            println!(
                "orphand / {other}: {overall:.2} overall; per second: median {median:.2}, middle half {low:.2}–{high:.2}"
            );
        }
    }

    /// The time after a second of writes until the watcher is idle.
    const SETTLE: Duration = Duration::from_millis(50);

    /// Returns the first quartile, the median and the third quartile.
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
        // It exits with an error if a rename fails.
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
            scope.spawn(|| write_one_after_the_other(dir, 0..writes / 2, 0, matched_name));
            write_one_after_the_other(dir, writes / 2..writes, 0, matched_name);
        });
    }

    fn write_one_after_the_other(dir: &Path, writes: Range<u64>, rate: u64, temp_name: TempName) {
        let start = Instant::now();
        // At full speed each thread has a target of its own.
        let target = dir.join(match rate {
            0 => format!("sessions-{}.json", writes.start),
            _ => "sessions.json".to_owned(),
        });
        for n in writes.clone() {
            let temp = dir.join(temp_name(n));
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
