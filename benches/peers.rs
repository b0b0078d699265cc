//! Compares orphand with similar programs, on the same work, in one run.
//!
//!     cargo bench --bench peers                  all of the following
//!     cargo bench --bench peers -- scan          a tree with 550,000 entries, 50,000 of them temps: fd, find
//!     cargo bench --bench peers -- sweep         10,000 orphans in one directory: find, tmpreaper,
//!                                                systemd-tmpfiles, fuser, lsof
//!     cargo bench --bench peers -- where         the time of each call for one temp
//!     cargo bench --bench peers -- start         the start of each command; 4,000 rules
//!     cargo bench --bench peers -- grow          1 to 1,000 directories, 1,000 to 1,000,000 temps, 1 to 8 threads
//!     cargo bench --bench peers -- grow scan     only of a scan
//!     cargo bench --bench peers -- memory [N]    bytes for each of N temps that are tracked
//!
//! Each figure is the median of three rounds, in each of which all programs take their turn. Programs that are not
//! installed are listed as such. The files are created in the directory `DIR` of the environment, or by default on the
//! file system of temporary files.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark compares with programs of Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
#[path = "peers/calls.rs"]
mod calls;

#[cfg(target_os = "linux")]
mod linux {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use orphand::core::policy::{Graces, Hot, Policy};
    use tempfile::TempDir;

    use super::calls;

    const ROUNDS: usize = 3;
    const STARTS: usize = 9;
    const GRACE: Duration = Duration::from_millis(200);
    /// The time that a sweep sleeps between its two looks.
    const LOOK_PAUSE: Duration = Duration::from_millis(100);

    pub(super) fn main() {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if args.first() != Some(&"child") {
            conditions();
        }
        match args.as_slice() {
            ["child", "calls", dir] => calls::make(Path::new(dir)),
            ["child", "calls", dir, workers] => calls::make_by(Path::new(dir), number(workers)),
            ["child", "renames", dir] => calls::rename_and_unlink(Path::new(dir)),
            ["child", "watch", dir] => watch(Path::new(dir)),
            ["child", how, count] => track(how, number(count)),
            ["scan", ..] => scan(),
            ["sweep", ..] => sweep(),
            ["where", ..] => time_by_call(),
            ["start", ..] => start(),
            ["grow", "scan"] => grow_scan(),
            ["grow", ..] => {
                grow();
                grow_scan();
            }
            ["memory", rest @ ..] => memory(rest.first().map_or(1_000_000, |n| number(n))),
            _ => {
                scan();
                sweep();
                time_by_call();
                start();
                grow();
                grow_scan();
                memory(1_000_000);
            }
        }
    }

    fn number(text: &str) -> usize {
        text.parse().expect("a number")
    }

    fn conditions() {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
        println!(
            "Linux {}, {cores} cores, load {}",
            kernel.trim(),
            load.trim()
        );
    }

    fn folder() -> TempDir {
        match env::var_os("DIR") {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        }
        .expect("a directory")
    }

    /// A program with its arguments; `{}` is replaced by the directory.
    struct Peer {
        name: &'static str,
        command: Vec<String>,
        /// The part of its time that is not work.
        sleeps: Duration,
    }

    fn peer(name: &'static str, command: &[&str]) -> Peer {
        Peer {
            name,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            sleeps: Duration::ZERO,
        }
    }

    impl Peer {
        fn is_installed(&self) -> bool {
            let path = env::var_os("PATH").unwrap_or_default();
            let has_it = |dir: PathBuf| dir.join(&self.command[0]).is_file();
            env::split_paths(&path).any(has_it)
        }

        /// Runs it, and returns its time in milliseconds.
        fn run(&self, dir: &Path) -> f64 {
            let word = |word: &String| word.replace("{}", dir.to_str().expect("a plain path"));
            let words: Vec<String> = self.command.iter().map(word).collect();
            let state = dir.with_extension("state");
            let began = Instant::now();
            let status = Command::new(&words[0])
                .args(&words[1..])
                .env("XDG_STATE_HOME", &state)
                .env("XDG_RUNTIME_DIR", &state)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let took = began.elapsed().saturating_sub(self.sleeps);
            status.expect(self.name);
            took.as_secs_f64() * 1e3
        }
    }

    fn ours(args: &[&str]) -> Peer {
        let mut command = vec![env!("CARGO_BIN_EXE_orphand")];
        command.extend_from_slice(args);
        peer("orphand", &command)
    }

    /// Runs the programs in turn. Prints their medians, and the ratio of the first program to each.
    fn compare(title: &str, peers: &[Peer], prepare: &dyn Fn() -> PathBuf) {
        println!("\n{title}");
        let mut times = vec![Vec::new(); peers.len()];
        for _ in 0..ROUNDS {
            for (peer, times) in peers.iter().zip(&mut times) {
                if peer.is_installed() || peer.name == "orphand" {
                    times.push(peer.run(&prepare()));
                }
            }
        }
        let medians: Vec<Option<f64>> = times.into_iter().map(median).collect();
        let first = medians[0].expect("ours");
        for (peer, median) in peers.iter().zip(medians) {
            match median {
                Some(ms) => println!(
                    "{:<18} {ms:>9.1} ms   orphand / it {:.2}",
                    peer.name,
                    first / ms
                ),
                None => println!("{:<18} not installed", peer.name),
            }
        }
    }

    fn median(mut all: Vec<f64>) -> Option<f64> {
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// Creates `directories` with 100 files and `temps` temps each. A temp belongs to a file with content, to an empty
    /// one in every second directory, and to none if there are more temps than files.
    fn tree(at: &Path, directories: usize, temps: usize) {
        const FILES: usize = 100;
        for d in 0..directories {
            let dir = at.join(format!("a{}/b{d}", d % 50));
            fs::create_dir_all(&dir).expect("a directory");
            for f in 0..FILES {
                let content = if f < temps && d % 2 == 0 { "{}" } else { "" };
                fs::write(dir.join(format!("file-{f:05}.json")), content).expect("a file");
            }
            for t in 0..temps {
                let name = format!("file-{t:05}.json.3f2504e0-4f89-41d3-9a0c-{t:012x}.tmp");
                fs::write(dir.join(name), "{").expect("a temp");
            }
        }
    }

    /// Creates `count` orphans beside a healthy file, and waits until they are older than the grace.
    fn orphans(dir: &Path, count: usize) {
        fs::create_dir_all(dir).expect("a directory");
        fs::write(dir.join("sessions.json"), "{}").expect("a target");
        for n in 0..count {
            let name = format!("sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp");
            fs::write(dir.join(name), "{").expect("a temp");
        }
        thread::sleep(GRACE);
    }

    fn scan() {
        let folder = folder();
        let fd = if which("fd") { "fd" } else { "fdfind" };
        let same = |peer: Peer, name| Peer { name, ..peer };
        for temps in [1, 10] {
            let dir = folder.path().join(format!("tree{temps}"));
            tree(&dir, 5_000, temps);
            // With the default grace all temps are too young for a removal, so nothing is proven about them.
            let due = ["scan", "-r", "--grace", "200ms", "{}"];
            let json = ["scan", "-r", "--grace", "200ms", "--json", "{}"];
            let peers = [
                ours(&due),
                same(ours(&json), "orphand --json"),
                same(ours(&["scan", "-r", "{}"]), "orphand, young"),
                peer("find", &["find", "{}", "-name", "*.tmp"]),
                peer("fd", &[fd, "-u", "-g", "*.tmp", "{}"]),
            ];
            let entries = 5_000 * (100 + temps);
            compare(
                &format!(
                    "scan: {entries} entries in 5,000 directories, {} temps; orphand gives verdicts with all proofs, and for young temps without",
                    5_000 * temps
                ),
                &peers,
                &|| dir.clone(),
            );
        }
    }

    /// The longest time of a start that is not reported.
    const START_GOAL: f64 = 10.0;

    /// Measures the start of each command, and the check of a configuration with 4,000 rules.
    fn start() {
        const RULES: usize = 4_000;
        let folder = folder();
        let dir = folder.path().join("empty");
        fs::create_dir(&dir).expect("a directory");
        fs::write(folder.path().join("x.tmp"), "").expect("a temp");
        println!("\nthe start of each command, median of {STARTS} runs");
        for words in [
            "--version",
            "--help",
            "scan --help",
            "scan {}",
            "scan --json {}",
            "sweep -n {}",
            "explain {}/../x.tmp",
            "status",
            "history",
            "quarantine list {}",
            "config check",
            "config show",
            "report",
            "doctor {}",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let one = ours(&words);
            let ms = median((0..STARTS).map(|_| one.run(&dir)).collect()).expect("rounds");
            let above = if ms > START_GOAL {
                "   above 10 ms"
            } else {
                ""
            };
            println!("{:<28} {ms:>7.1} ms{above}", words.join(" "));
        }
        let config = folder.path().join("config.toml");
        let mut text = String::new();
        for n in 0..RULES {
            let dir = folder.path().join(format!("{}/{n}", n % 7));
            fs::create_dir_all(&dir).expect("a directory");
            text +=
                &format!("[[watch]]\npath = {dir:?}\nrecursive = true\nexclude = [\"cache/**\"]\n");
        }
        fs::write(&config, text).expect("a file");
        let check = ours(&["config", "check", "--config", "{}"]);
        let ms = median((0..ROUNDS).map(|_| check.run(&config)).collect()).expect("rounds");
        println!("config check, {RULES} rules    {ms:>7.1} ms");
    }

    /// Measures how the time of a scan grows with directories, temps and threads.
    fn grow_scan() {
        println!("\ngrowth of a scan, 10,000 temps in all");
        for directories in [1, 10, 100, 1_000] {
            scan_growth(directories, 10_000);
        }
        println!("growth of a scan, one directory");
        for temps in [1_000, 10_000, 100_000, 1_000_000] {
            scan_growth(1, temps);
        }
        println!("growth of a scan, 100 directories");
        for temps in [1_000, 10_000, 100_000, 1_000_000] {
            scan_growth(100, temps);
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        println!("a scan of 100,000 temps in 1,000 directories by threads, on {cores} cores");
        let folder = folder();
        let root = folder.path().join("root");
        leaks(&root, 1_000, 100_000);
        thread::sleep(GRACE);
        for threads in [1, 2, 4, 8] {
            // A scan has as many threads as it may use processors.
            if threads > cores {
                println!("{threads:>5} threads: there are only {cores} cores");
                continue;
            }
            let cpus = format!("0-{}", threads - 1);
            let orphand = env!("CARGO_BIN_EXE_orphand");
            let scan = ["scan", "-r", "--grace", "200ms", "{}"];
            let limited = [&["taskset", "-c", &cpus, orphand][..], &scan].concat();
            let limited = peer("taskset", &limited);
            let ms = median((0..ROUNDS).map(|_| limited.run(&root)).collect()).expect("rounds");
            println!("{threads:>5} threads {ms:>9.1} ms");
        }
    }

    fn scan_growth(directories: usize, temps: usize) {
        let folder = folder();
        let root = folder.path().join("root");
        leaks(&root, directories, temps);
        thread::sleep(GRACE);
        let scan = ours(&["scan", "-r", "--grace", "200ms", "{}"]);
        let ms = median((0..ROUNDS).map(|_| scan.run(&root)).collect()).expect("rounds");
        let each = ms * 1e3 / temps as f64;
        println!("{directories:>5} directories {temps:>8} temps {ms:>9.1} ms {each:>8.1} µs each");
    }

    fn which(name: &str) -> bool {
        peer("", &[name]).is_installed()
    }

    fn sweep() {
        const COUNT: usize = 10_000;
        let folder = folder();
        let dir = folder.path().join("sessions");
        let rules = folder.path().join("rules.conf");
        // Most of them know no ages below a second, so they remove all files.
        fs::write(&rules, format!("e {} - - - 0\n", dir.display())).expect("rules");
        let rules = rules.to_str().expect("a plain path");
        let this = env::current_exe().expect("this program");
        let this = this.to_str().expect("a plain path");
        let peers = [
            sweeping(),
            peer("its calls alone", &[this, "child", "calls", "{}"]),
            peer("claim and unlink", &[this, "child", "renames", "{}"]),
            peer("find -delete", &["find", "{}", "-name", "*.tmp", "-delete"]),
            peer(
                "tmpreaper",
                &["tmpreaper", "--protect", "*.json", "0s", "{}"],
            ),
            peer("systemd-tmpfiles", &["systemd-tmpfiles", "--clean", rules]),
        ];
        compare(
            "sweep: 10,000 orphans in one directory; orphand with all proofs and the journal, without \
             the pause between its looks",
            &peers,
            &|| {
                orphans(&dir, COUNT);
                dir.clone()
            },
        );
        orphans(&dir, COUNT);
        let one = dir.join("sessions.json");
        let ask = [
            peer("fuser, one file", &["fuser", "{}"]),
            peer("lsof, one file", &["lsof", "{}"]),
        ];
        let began = sweeping().run(&dir);
        let each = began / COUNT as f64;
        println!("orphand, one file  {each:>9.3} ms");
        // They examine each process, so their time depends on the number of processes.
        for more in [0, 500] {
            let _asleep: Vec<SleepingProcess> =
                (0..more).map(|_| SleepingProcess::begin()).collect();
            println!("beside {} processes", processes());
            for peer in &ask {
                if !peer.is_installed() {
                    println!("{:<18} not installed", peer.name);
                    continue;
                }
                let ms = median((0..ROUNDS).map(|_| peer.run(&one)).collect()).expect("rounds");
                println!(
                    "{:<18} {ms:>9.1} ms   {:.0} times orphand",
                    peer.name,
                    ms / each
                );
            }
        }
    }

    /// A process that sleeps until this value is dropped.
    struct SleepingProcess(Child);

    impl SleepingProcess {
        fn begin() -> SleepingProcess {
            SleepingProcess(Command::new("sleep").arg("3600").spawn().expect("sleep"))
        }
    }

    impl Drop for SleepingProcess {
        fn drop(&mut self) {
            self.0.kill().expect("a running sleep");
            self.0.wait().expect("its exit status");
        }
    }

    fn processes() -> usize {
        let is_pid = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        };
        let entries = fs::read_dir("/proc").expect("procfs").flatten();
        entries.filter(is_pid).count()
    }

    fn sweeping() -> Peer {
        let mut ours = ours(&["sweep", "-r", "--yes", "--grace", "200ms", "{}"]);
        ours.sleeps = LOOK_PAUSE;
        ours
    }

    /// Makes the calls of a sweep in their order, in one thread, and prints the time of each.
    fn time_by_call() {
        const COUNT: usize = 10_000;
        let folder = folder();
        let dir = folder.path().join("sessions");
        println!("\ntime of each call for one of {COUNT} temps, one thread");
        orphans(&dir, COUNT);
        calls::table(&dir);
        orphans(&dir, COUNT);
        let find = peer("find", &["find", "{}", "-name", "*.tmp", "-delete"]);
        let each = find.run(&dir) * 1e3 / COUNT as f64;
        println!("find -delete: {each:.1} µs per temp");
    }

    fn grow() {
        const DIRECTORIES: [usize; 4] = [1, 10, 100, 1_000];
        println!("\ngrowth of a sweep, 10,000 orphans in all");
        for directories in DIRECTORIES {
            growth(directories, 10_000, ROUNDS);
        }
        println!("growth of a sweep, one directory");
        for (temps, rounds) in [
            (1_000, ROUNDS),
            (10_000, ROUNDS),
            (100_000, ROUNDS),
            (1_000_000, 1),
        ] {
            growth(1, temps, rounds);
        }
        println!("the calls of a sweep alone, one directory with 10,000 temps");
        let this = env::current_exe().expect("this program");
        let this = this.to_str().expect("a plain path");
        for workers in ["1", "2", "4", "8"] {
            let calls = peer("calls", &[this, "child", "calls", "{}", workers]);
            let ms = median((0..ROUNDS).map(|_| of_orphans(&calls)).collect()).expect("rounds");
            println!("{workers:>5} threads {:>31.1} µs each", ms * 1e3 / 1e4);
        }
        println!("a sweep of one directory with 10,000 temps, on some of the cores");
        for cores in 1..=std::thread::available_parallelism().map_or(1, usize::from) {
            let list = format!("0-{}", cores - 1);
            let mut command = vec!["taskset", "-c", &list];
            let sweep = sweeping();
            command.extend(sweep.command.iter().map(String::as_str));
            let mut pinned = peer("sweep", &command);
            pinned.sleeps = sweep.sleeps;
            let ms = median((0..ROUNDS).map(|_| of_orphans(&pinned)).collect()).expect("rounds");
            println!("{cores:>5} cores {:>33.1} µs each", ms * 1e3 / 1e4);
        }
        println!("growth of a watcher, 10,000 temps in all, from its start to ready");
        for directories in DIRECTORIES {
            let folder = folder();
            leaks(&folder.path().join("root"), directories, 10_000);
            let child = Command::new(env::current_exe().expect("this program"))
                .args(["child", "watch"])
                .arg(folder.path().join("root"))
                .status();
            assert!(child.expect("a child").success());
        }
    }

    /// Returns the milliseconds that a program needs for 10,000 orphans in one directory.
    fn of_orphans(peer: &Peer) -> f64 {
        let folder = folder();
        let dir = folder.path().join("sessions");
        orphans(&dir, 10_000);
        peer.run(&dir)
    }

    /// Creates `temps` temps beside their targets, evenly distributed over `directories`.
    fn leaks(root: &Path, directories: usize, temps: usize) {
        for d in 0..directories {
            let dir = root.join(d.to_string());
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("s.json"), "{}").expect("a target");
            for n in 0..temps / directories {
                // The target of the name exists: a temp that may be the only copy would be moved instead of removed.
                let name = format!("s.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp");
                fs::write(dir.join(name), "{").expect("a temp");
            }
        }
    }

    fn growth(directories: usize, temps: usize, rounds: usize) {
        let mut ms = Vec::new();
        for _ in 0..rounds {
            let folder = folder();
            let root = folder.path().join("root");
            leaks(&root, directories, temps);
            thread::sleep(GRACE);
            ms.push(sweeping().run(&root));
        }
        let ms = median(ms).expect("rounds");
        let each = ms * 1e3 / temps as f64;
        println!("{directories:>5} directories {temps:>8} temps {ms:>9.1} ms {each:>8.1} µs each");
    }

    /// Watches the directory and its subdirectories until the watcher is ready, in a separate process.
    fn watch(dir: &Path) {
        let directories = fs::read_dir(dir).expect("a directory").count();
        let policy = Policy {
            grace: Graces::both(Duration::from_secs(24 * 3600)),
            recursive: true,
            ..Policy::default()
        };
        let (empty, began) = (resident(), Instant::now());
        let watcher = orphand::Watcher::builder().root(dir, policy).start();
        let watcher = watcher.expect("a watcher");
        while !matches!(watcher.events().recv(), Ok(orphand::Event::Ready { .. })) {}
        let (ms, temps) = (began.elapsed().as_secs_f64() * 1e3, watcher.tracked());
        let kb = resident().saturating_sub(empty) as f64 / 1e3;
        println!(
            "{directories:>5} directories {temps:>8} temps {ms:>9.1} ms {kb:>8.0} kB more memory"
        );
    }

    /// Measures the memory of tracked temps. Each way to discover them gets its own process.
    fn memory(count: usize) {
        println!("\nmemory of {count} temps on tmpfs, their names of 54 bytes");
        for how in ["made", "found"] {
            let status = Command::new(env::current_exe().expect("this program"))
                .args(["child", how, &count.to_string()])
                .status();
            assert!(status.expect("a child").success());
        }
    }

    /// Watches a directory in which temps are created, or existed before, and are removed again.
    fn track(how: &str, count: usize) {
        // The number that fits into the kernel's event queue at a time.
        const STEP: usize = 4_000;
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a directory");
        let dir = folder.path();
        let name = |n| {
            dir.join(format!(
                "sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp"
            ))
        };
        let make = |n| fs::write(name(n), "").expect("a temp");
        let found = how == "found";
        if found {
            (0..count).for_each(make);
        }
        let policy = Policy {
            grace: Graces::both(Duration::from_secs(24 * 3600)),
            // This many creations make the directory hot: it would be scanned, half a day later.
            hot: Hot::Watch,
            ..Policy::default()
        };
        let empty = resident();
        let watcher = orphand::Watcher::builder().root(dir, policy).start();
        let watcher = watcher.expect("a watcher");
        while !matches!(watcher.events().recv(), Ok(orphand::Event::Ready { .. })) {}
        for start in (0..count).step_by(STEP).filter(|_| !found) {
            let end = count.min(start + STEP);
            (start..end).for_each(make);
            wait_until(|| watcher.tracked() >= end);
        }
        // Found temps are looked at; wait until the process is idle.
        let mut last = 0;
        wait_until(|| {
            thread::sleep(Duration::from_secs(2));
            std::mem::replace(&mut last, busy()) + 50_000 > last
        });
        let full = resident();
        for start in (0..count).step_by(STEP) {
            let end = count.min(start + STEP);
            (start..end).for_each(|n| fs::remove_file(name(n)).expect("a temp"));
            wait_until(|| watcher.tracked() <= count - end);
        }
        let _ = watcher.heartbeats();
        let each = full.saturating_sub(empty) as f64 / count as f64;
        let mb = |bytes: usize| bytes as f64 / 1e6;
        wait_until(|| resident() < empty + (full - empty) / 10 + (4 << 20));
        println!(
            "{how:<6} {each:>5.0} bytes each; resident {:.1} MB, then {:.1} MB, and {:.1} MB after \
             their removal",
            mb(empty),
            mb(full),
            mb(resident()),
        );
    }

    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(1_800);
        while !is_so() {
            assert!(Instant::now() < deadline, "it takes too long");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the resident memory of this process, in bytes.
    fn resident() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").expect("procfs");
        let pages = statm.split(' ').nth(1).map_or(0, number);
        pages * rustix::param::page_size()
    }

    /// Returns the CPU time of this process, in microseconds.
    fn busy() -> i64 {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        at.tv_sec * 1_000_000 + at.tv_nsec / 1_000
    }
}
