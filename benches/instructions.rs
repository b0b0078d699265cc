//! The guard against getting slower: instructions, counted by valgrind, compared with a stored count.
//!
//!     cargo bench --no-default-features --profile instructions --bench instructions
//!
//! compares, and fails where a count is exceeded; with `-- --store` behind it, it stores what is
//! counted now.
//!
//! Wall time on a shared machine is noise; how many instructions a piece of work takes is not. Three
//! pieces are counted: a healthy atomic write, from notify's events to the map and out of it again;
//! two creations, in two directories that are hot; and the end of one orphan in a sweep, with both
//! looks, the whole protocol and the journal. Each is the difference between a large and a small
//! number of them, so the start of the process falls out. What the kernel does is not counted.
//!
//! The profile is the release profile without link-time optimization, which would take longer than
//! the counting; the counts of another profile are not compared.
//!
//! The stored counts are in `benches/instructions.txt`. The tolerance covers another compiler's patch
//! release, another C library and longer paths; what it does not cover is a reason to look.
//!
//! Needs valgrind, and Linux. Without valgrind it fails, where `CI` is `true`, and else says so.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("valgrind counts on Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::ErrorKind;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitCode};
    use std::sync::Arc;
    use std::time::Duration;
    use std::{env, fs};

    use notify::event::{CreateKind, Event, EventKind, ModifyKind, RenameMode};
    use orphand::decide::policy::{Graces, Policy};
    use orphand::decide::rate::{RateMeter, Threshold};
    use orphand::decide::time::Mono;
    use orphand::evidence::container_pids::ContainerPids;
    use orphand::evidence::locks::Locks;
    use orphand::evidence::restore_marks::RestoreMarks;
    use orphand::evidence::siblings::Listings;
    use orphand::evidence::writer_names::WriterNames;
    use orphand::journal::Journal;
    use orphand::pass::Engine;
    use orphand::reap::Reaper;
    use orphand::root::Root;
    use orphand::stop::Stop;
    use orphand::sweep::sweep;
    use orphand::temps::{self, Temps};
    use orphand::watch::{self, CallbackContext};

    /// By how many percent a count may exceed the stored one.
    const TOLERANCE: u64 = 10;

    /// A piece of work, and how often it is done in the small and in the large run.
    const WORK: [(&str, u64, u64); 3] = [
        ("write", 10_000, 30_000),
        ("heat", 100_000, 300_000),
        ("reap", 512, 1_536),
    ];

    const PROFILE: &str = "instructions";

    pub(super) fn main() -> ExitCode {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["child", "write", times] => write(number(times)),
            ["child", "heat", times] => heat(number(times)),
            ["child", "reap", times] => reap(number(times)),
            ["--store"] => return compare(true),
            _ => return compare(false),
        }
        ExitCode::SUCCESS
    }

    fn number(text: &str) -> u64 {
        text.parse().expect("a number")
    }

    fn compare(store: bool) -> ExitCode {
        let this = env::current_exe().expect("this program");
        if !this.iter().any(|part| part == PROFILE) {
            println!("the stored counts are those of --profile {PROFILE}");
            return ExitCode::FAILURE;
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
        let stored = fs::read_to_string(&file).unwrap_or_default();
        let mut lines = String::new();
        let mut worse = false;
        for (work, few, many) in WORK {
            let (Some(small), Some(large)) = (count(work, few), count(work, many)) else {
                println!("not counted: valgrind is not installed");
                return match env::var("CI").as_deref() {
                    Ok("true") => ExitCode::FAILURE,
                    _ => ExitCode::SUCCESS,
                };
            };
            let each = large.saturating_sub(small) / (many - few);
            lines += &format!("{work} {each}\n");
            let known = stored.lines().find_map(|line| line.strip_prefix(work));
            let known = known.map_or(0, |known| number(known.trim()));
            let limit = known + known * TOLERANCE / 100;
            println!("{work:<6} {each:>7} instructions each; stored {known}, at most {limit}");
            worse |= each > limit;
        }
        if store {
            fs::write(&file, lines).expect("the file of stored counts");
            println!("stored in {}", file.display());
            return ExitCode::SUCCESS;
        }
        if worse {
            println!(
                "more than {TOLERANCE} % above what is stored. If that is meant to be: \
                 cargo bench --no-default-features --profile {PROFILE} --bench instructions -- --store"
            );
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    /// Instructions of a process that does `work` so many times; `None` without valgrind.
    fn count(work: &str, times: u64) -> Option<u64> {
        let run = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().expect("this program"))
            .args(["child", work, &times.to_string()])
            .output();
        let run = match run {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            run => run.expect("valgrind"),
        };
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{work}: {said}");
        // ==PID== Collected : COUNT
        let collected = said.lines().find_map(|line| line.split_once("Collected :"));
        Some(number(collected.expect("a count").1.trim()))
    }

    /// What notify's thread does with the events of so many healthy writes.
    fn write(times: u64) {
        let folder = folder();
        let root = Root::new(folder.path(), Arc::default(), false).expect("a root");
        let (temps, _bell) = Temps::new(Duration::from_secs(30), temps::MAX_TRACKED);
        let temps = Arc::new(temps);
        let (rare, _rare) = crossbeam_channel::unbounded();
        let mut hear = watch::callback(CallbackContext {
            temps: Arc::clone(&temps),
            notifications: rare,
            roots: Arc::new([root]),
            hot_from: Threshold::default(),
            tell: None,
        });
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let target = PathBuf::from("/srv/app/sessions/sessions.json");
        for n in 0..times {
            let temp = format!("{}.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp", target.display());
            let temp = PathBuf::from(temp);
            let cookie = usize::try_from(n).unwrap_or_default();
            let create = EventKind::Create(CreateKind::File);
            hear(Ok(Event::new(create).add_path(temp.clone())));
            assert_eq!(temps.len(), 1);
            let from = Event::new(name(RenameMode::From)).add_path(temp);
            hear(Ok(from.set_tracker(cookie)));
            assert!(temps.is_empty());
            let to = Event::new(name(RenameMode::To)).add_path(target.clone());
            hear(Ok(to.set_tracker(cookie)));
        }
    }

    /// Counts so many creations, 4,000 a second, and as many in another directory. Under valgrind those
    /// of `write` come so slowly that most are not counted for their directory.
    fn heat(times: u64) {
        let mut heat = RateMeter::default();
        let (mut now, step) = (Mono(1_000_000_000_000), Duration::from_micros(250));
        let mut hot = 0;
        for _ in 0..times {
            heat.count(b"/srv/app/cache", now);
            hot += u64::from(heat.count(b"/srv/app/sessions", now));
            now = now.after(step);
        }
        assert_eq!(hot, times / 4_000 - 2, "once a second, from the third on");
    }

    /// Sweeps a directory with so many orphans.
    fn reap(times: u64) {
        let folder = folder();
        let (dir, state) = (folder.path().join("sessions"), folder.path().join("state"));
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("sessions.json"), "{}").expect("a target");
        for n in 0..times {
            let name = format!("sessions.json.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp");
            fs::write(dir.join(name), "{").expect("a temp");
        }
        let grace = Duration::from_millis(100);
        std::thread::sleep(grace);
        let policy = Policy {
            grace: Graces::both(grace),
            ..Policy::default()
        };
        let root = Root::new(&dir, Arc::new(policy), false).expect("a root");
        let engine = Engine {
            reaper: Reaper::new(),
            journal: Journal::new(Some(&state)),
            marks: RestoreMarks::new(Some(&state)),
            writers: WriterNames::default(),
            container_pids: ContainerPids::default(),
            locks: Locks::default(),
            listings: Listings::default(),
            verbose: false,
        };
        let mut reaped = 0;
        let mut tell = |event: orphand::Event| {
            reaped += u64::from(matches!(event, orphand::Event::Reaped(_)));
        };
        sweep(&root, &engine, &Stop::default(), &mut tell, &|_, _| {}).expect("a sweep");
        assert_eq!(reaped, times, "all of them must go");
    }
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a directory")
    }
}
