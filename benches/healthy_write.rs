//! What a healthy atomic write costs whoever watches: CPU time of a watching process, per write.
//!
//!     cargo bench --bench healthy_write -- [WRITES] [WRITES_PER_SECOND]
//!
//! The watchers take turns, each in a process of its own: orphand; the leanest handler on the same
//! notify, mask and map, and one with notify's default mask; a bare inotify read loop that keeps the
//! same names in a hash map; inotifywait and watchman, where they are installed. Another process
//! writes, at full speed with two threads; in one run nobody watches, which shows what being watched
//! costs the writer. Only Linux has inotify.

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
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs};

    use super::watchers::{self, INOTIFY, NOBODY, NOTIFY, ORPHAND};

    const ROUNDS: usize = 3;

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
            ["child", watcher, dir] => watchers::watch(watcher, Path::new(dir)),
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
            "{:<22} {:>12} {:>12} {:>9}",
            "", "watcher CPU", "writer", "peak MB"
        );
        let there: Vec<&str> = watchers::there().collect();
        let mut all: HashMap<&str, Vec<Run>> = HashMap::new();
        for round in 0..ROUNDS {
            for &watcher in &there {
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
        for &watcher in &there {
            let (cpu, wall) = (
                median(watcher, |run| run.cpu),
                median(watcher, |run| run.wall),
            );
            let peak = median(watcher, |run| run.peak);
            print(&format!("median {watcher}"), Run { cpu, wall, peak });
        }
        let cpu = |watcher| median(watcher, |run| run.cpu);
        println!(
            "CPU of orphand: {:.2} of {NOTIFY}'s, {:.2} of {INOTIFY}'s",
            cpu(ORPHAND) / cpu(NOTIFY),
            cpu(ORPHAND) / cpu(INOTIFY),
        );
        let wall = |watcher| median(watcher, |run| run.wall);
        for &watcher in &there {
            let speed = 100.0 * wall(NOBODY) / wall(watcher);
            println!("speed of the writer, watched by {watcher}: {speed:.0} %");
        }
    }

    fn print(what: &str, run: Run) {
        let Run { cpu, wall, peak } = run;
        println!("{what:<22} {cpu:>12.2} {wall:>12.2} {peak:>9.1}");
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
            ORPHAND => assert_eq!(left, 0.0, "orphand must know of no temp afterwards"),
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
}
