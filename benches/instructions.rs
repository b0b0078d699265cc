//! Regression check: counts instructions with valgrind, and compares them with a stored count.
//!
//!     cargo bench --no-default-features --profile instructions --bench instructions
//!
//! compares, and fails if a count exceeds its limit. With `-- --store` appended, it stores the new counts.
//!
//! Wall time on a shared machine is noise; the number of instructions of a piece of work is not. Three pieces are
//! counted: a healthy atomic write, from notify's events into the map and out of it again; two creations, in two
//! directories that are hot; and the removal of one orphan in a sweep, with both looks, the whole protocol and the
//! journal. Each count is the difference between a large and a small run, which cancels the start of the process.
//! Instructions in the kernel are not counted.
//!
//! The profile is the release profile without link-time optimization, which would take longer than the counting. The
//! counts of another profile are not compared.
//!
//! The stored counts are in `benches/instructions.txt`. The tolerance covers a patch release of the compiler, another C
//! library and longer paths. A larger difference should be investigated.
//!
//! Needs valgrind, and Linux. Without valgrind it fails if `CI` is `true`; otherwise it prints that nothing was
//! counted.

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
    use orphand::core::policy::{Graces, Policy};
    use orphand::core::rate::{RateMeter, Threshold};
    use orphand::core::time::Mono;
    use orphand::engine::Engine;
    use orphand::engine::sweep::sweep;

    use orphand::fs::root::Root;
    use orphand::index;
    use orphand::index::Temps;

    use orphand::sys::stop::Stop;
    use orphand::watch::{self, CallbackContext};

    /// The percentage by which a count may exceed the stored one.
    const TOLERANCE: u64 = 10;

    /// The pieces of work, with their repetitions in the small and in the large run.
    const WORK: [(&str, u64, u64); 3] = [
        ("write", 10_000, 30_000),
        ("rate", 100_000, 300_000),
        ("reap", 512, 1_536),
    ];

    const PROFILE: &str = "instructions";

    pub(super) fn main() -> ExitCode {
        let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args.as_slice() {
            ["child", "write", times] => write(number(times)),
            ["child", "rate", times] => rate(number(times)),
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
            println!("error: the stored counts are for --profile {PROFILE}");
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
            println!("{work:<6} {each:>7} instructions each; stored {known}, limit {limit}");
            worse |= each > limit;
        }
        if store {
            fs::write(&file, lines).expect("the file of stored counts");
            println!("stored in {}", file.display());
            return ExitCode::SUCCESS;
        }
        if worse {
            println!(
                "error: more than {TOLERANCE} % above the stored count. If that is intended: \
                  cargo bench --no-default-features --profile {PROFILE} --bench instructions -- --store"
            );
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    /// Returns the instructions of a process that does `work` `times` times; `None` without valgrind.
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
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{work}: {stderr}");
        // ==PID== Collected : COUNT
        let collected = stderr
            .lines()
            .find_map(|line| line.split_once("Collected :"));
        Some(number(collected.expect("a count").1.trim()))
    }

    /// Does the work of notify's thread for the events of `times` healthy writes.
    fn write(times: u64) {
        let folder = folder();
        let root = Root::new(folder.path(), Arc::default(), false).expect("a root");
        let (temps, _waker) = Temps::new(Duration::from_secs(30), index::MAX_TRACKED);
        let temps = Arc::new(temps);
        let (notifications, _receiver) = crossbeam_channel::unbounded();
        let mut callback = watch::callback(CallbackContext {
            temps: Arc::clone(&temps),
            notifications,
            roots: Arc::new([root]),
            hot_threshold: Threshold::default(),
            event_tx: None,
            writes: Arc::default(),
            learn: Some(Arc::default()),
        });
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let target = PathBuf::from("/srv/app/sessions/sessions.json");
        for n in 0..times {
            let temp = format!("{}.3f2504e0-4f89-41d3-9a0c-{n:012x}.tmp", target.display());
            let temp = PathBuf::from(temp);
            let cookie = usize::try_from(n).unwrap_or_default();
            let create = EventKind::Create(CreateKind::File);
            callback(Ok(Event::new(create).add_path(temp.clone())));
            assert_eq!(temps.len(), 1);
            let from = Event::new(name(RenameMode::From)).add_path(temp);
            callback(Ok(from.set_tracker(cookie)));
            assert!(temps.is_empty());
            let to = Event::new(name(RenameMode::To)).add_path(target.clone());
            callback(Ok(to.set_tracker(cookie)));
        }
    }

    /// Counts `times` creations, 4,000 per second, and as many in another directory. Under valgrind the creations of
    /// `write` are so slow that most of them are not counted for their directory.
    fn rate(times: u64) {
        let mut meter = RateMeter::default();
        let (mut now, step) = (Mono(1_000_000_000_000), Duration::from_micros(250));
        let mut hot = 0;
        for _ in 0..times {
            meter.count(b"/srv/app/cache", now);
            hot += u64::from(meter.count(b"/srv/app/sessions", now));
            now = now.after(step);
        }
        assert_eq!(
            hot,
            times / 4_000 - 2,
            "once per second, from the third second on"
        );
    }

    /// Sweeps a directory with `times` orphans.
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
        let engine = Engine::new(Some(&state));
        let mut reaped = 0;
        let mut emit = |event: orphand::Event| {
            reaped += u64::from(matches!(event, orphand::Event::Reaped(_)));
        };
        sweep(&root, &engine, &Stop::default(), &mut emit, &|_, _| {}).expect("a sweep");
        assert_eq!(reaped, times, "all of them must be removed");
    }
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a directory")
    }
}
