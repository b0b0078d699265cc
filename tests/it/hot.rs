//! Hot directories: at high event rates a directory is scanned instead of watched, and is watched again
//! later. No temp is missed or late, and no writer loses a write.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use orphand::Watcher;
use orphand::core::event::Event;
use orphand::core::policy::{Graces, Policy};
use orphand::core::rate::Threshold;
use orphand::daemon::Existing;

use crate::fixture::{RunAs, in_own_process, remove_watched_dir, report_skipped, wait_until};
use crate::intercept::{self, Call, CallResponse, PendingCall};
use crate::sandbox::{DEADLINE, Sandbox};

const GRACE: Duration = Duration::from_secs(2);

/// The kernel dates files by its tick.
const TICK: Duration = Duration::from_millis(10);

/// Low enough (temps per second) for a writer on a busy machine to reach it.
const HOT: Threshold = Threshold(200);

/// The log messages of orphand in this process.
struct LogBuffer(Mutex<String>);

impl log::Log for LogBuffer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut log = self.0.lock().unwrap();
        *log += &format!("{} {}\n", record.level(), record.args());
    }

    fn flush(&self) {}
}

static LOG: LogBuffer = LogBuffer(Mutex::new(String::new()));

/// A watcher in this process, and the time of each removal.
struct LoggedWatch {
    watcher: Watcher,
    removals: Arc<Mutex<HashMap<PathBuf, Timestamp>>>,
}

impl LoggedWatch {
    #[track_caller]
    fn start(root: &Path) -> LoggedWatch {
        LoggedWatch::start_with(root, Existing::Take)
    }

    #[track_caller]
    fn start_with(root: &Path, existing: Existing) -> LoggedWatch {
        static ONCE: OnceLock<()> = OnceLock::new();
        ONCE.get_or_init(|| {
            log::set_logger(&LOG).unwrap();
            log::set_max_level(log::LevelFilter::Info);
        });
        let policy = Policy {
            grace: Graces::both(GRACE),
            recursive: true,
            ..Policy::default()
        };
        let watcher = Watcher::builder()
            .root(root, policy)
            .hot_from(HOT)
            .existing(existing)
            .start()
            .unwrap();
        let (events, gone) = (
            watcher.events().clone(),
            Arc::<Mutex<HashMap<_, _>>>::default(),
        );
        while !matches!(events.recv_timeout(DEADLINE).unwrap(), Event::Ready { .. }) {}
        let shared = Arc::clone(&gone);
        thread::spawn(move || {
            for event in events {
                if let Event::Reaped(what) = event {
                    shared
                        .lock()
                        .unwrap()
                        .insert(what.subject.path, Timestamp::now());
                }
            }
        });
        LoggedWatch {
            watcher,
            removals: gone,
        }
    }

    /// Waits until this message was logged `times` times.
    #[track_caller]
    fn wait_for_message(&self, words: &str, times: usize) {
        let end = Instant::now() + DEADLINE;
        while count_messages(words) < times {
            assert!(
                Instant::now() < end,
                "no {words:?}: {}",
                LOG.0.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until orphand has removed this temp.
    #[track_caller]
    fn wait_for_removal(&self, temp: &Path) -> Timestamp {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(when) = self.removals.lock().unwrap().get(temp) {
                return *when;
            }
            assert!(
                Instant::now() < end,
                "{temp:?} was not removed: {}",
                LOG.0.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns how often this message was logged.
fn count_messages(words: &str) -> usize {
    LOG.0.lock().unwrap().matches(words).count()
}

const IS_HOT: &str = " is hot: it is scanned every 1 s instead of being watched";
const IS_CALM: &str = " temps in 100ms): it is watched again";

/// The current speed of the writers.
#[derive(Clone, Copy)]
enum Pace {
    FullSpeed,
    /// Ten writes per second. The writer that forgets temps writes one every [`BETWEEN`], and forgets each.
    Calm,
    Stop,
}

/// The time from one forgotten temp to the next. Some of them fall into the gap in which no event reports a
/// temp and no periodic scan finds it: from the last scan of a hot directory, through a rate probe of 100 ms,
/// to its watch.
const BETWEEN: Duration = Duration::from_millis(40);

/// Two healthy writers, one of which forgets a temp now and then.
struct WriterThreads {
    pace: Arc<AtomicU8>,
    forgotten: Arc<Mutex<Vec<(PathBuf, Timestamp)>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl WriterThreads {
    fn start(dir: &Path) -> WriterThreads {
        let pace = Arc::new(AtomicU8::new(Pace::FullSpeed as u8));
        let forgotten = Arc::default();
        let threads = ["a", "b"].map(|writer| {
            let (dir, pace, forgotten) =
                (dir.to_owned(), Arc::clone(&pace), Arc::clone(&forgotten));
            thread::spawn(move || write(&dir, writer, &pace, &forgotten))
        });
        WriterThreads {
            pace,
            forgotten,
            threads: threads.into(),
        }
    }

    fn set_pace(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::SeqCst);
    }

    /// Returns the forgotten temps so far, with their times.
    fn forgotten(&self) -> Vec<(PathBuf, Timestamp)> {
        self.forgotten.lock().unwrap().clone()
    }

    /// Stops the writers. Returns the number of writes, and the forgotten temps with their times.
    fn stop(self) -> (u64, Vec<(PathBuf, Timestamp)>) {
        self.set_pace(Pace::Stop);
        let wrote = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        (wrote, std::mem::take(&mut *self.forgotten.lock().unwrap()))
    }
}

/// Writes until the pace is [`Pace::Stop`]. Each rename must succeed as long as the directory exists.
fn write(
    dir: &Path,
    writer: &str,
    pace: &AtomicU8,
    forgotten: &Mutex<Vec<(PathBuf, Timestamp)>>,
) -> u64 {
    let target = dir.join(format!("{writer}.json"));
    let mut forgot = Instant::now();
    for n in 0_u64.. {
        let pace = pace.load(Ordering::SeqCst);
        if pace == Pace::Stop as u8 {
            return n;
        }
        let temp = dir.join(format!(
            "{writer}.json.{n:08x}-2fa1-41d2-883f-0016d3cca427.tmp"
        ));
        let began = Timestamp::now();
        let wrote = fs::write(&temp, "");
        if writer == "a" && forgot.elapsed() >= BETWEEN && wrote.is_ok() {
            forgot = Instant::now();
            forgotten.lock().unwrap().push((temp, began));
            if pace == Pace::Calm as u8 {
                thread::sleep(BETWEEN);
            }
            continue;
        }
        match wrote.and_then(|()| fs::rename(&temp, &target)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && !dir.exists() => {}
            // The directory was recreated empty between the two calls.
            Err(error) if error.kind() == ErrorKind::NotFound && !temp.exists() && n == 0 => {}
            Err(error) => panic!("{temp:?}: {error}"),
        }
        if pace == Pace::Calm as u8 {
            thread::sleep(Duration::from_millis(100));
        }
    }
    unreachable!("2^64 writes")
}

#[test]
fn no_orphan_is_missed_when_a_directory_becomes_hot_and_calm() {
    in_own_process(&[RunAs::CurrentUser], || {
        let sandbox = Sandbox::in_memory_for(None);
        let watch = LoggedWatch::start(&sandbox.root());
        let writers = WriterThreads::start(&sandbox.root());
        watch.wait_for_message(IS_HOT, 1);
        // Hot for some graces, calm until all temps forgotten before are removed, and the same again.
        thread::sleep(3 * GRACE);
        writers.set_pace(Pace::Calm);
        watch.wait_for_message(IS_CALM, 1);
        // While it is watched: a hot directory would be scanned.
        for (temp, _) in writers.forgotten() {
            watch.wait_for_removal(&temp);
        }
        let changes = count_messages(IS_HOT);
        writers.set_pace(Pace::FullSpeed);
        watch.wait_for_message(IS_HOT, changes + 1);
        writers.set_pace(Pace::Calm);
        watch.wait_for_message(IS_CALM, changes + 1);
        let (wrote, forgotten) = writers.stop();
        assert!(forgotten.len() > 50, "{}", forgotten.len());
        let mut latest = Duration::ZERO;
        for (path, made) in &forgotten {
            let after = watch.wait_for_removal(path).duration_since(*made);
            let after = Duration::try_from(after).unwrap_or_default();
            assert!(
                after + TICK >= GRACE,
                "{path:?} was removed after {after:?}"
            );
            latest = latest.max(after.saturating_sub(GRACE));
        }
        let (hot, calm) = (count_messages(IS_HOT), count_messages(IS_CALM));
        println!(
            "{wrote} writes, {} forgotten, the last one {latest:.0?} late; {hot} times hot",
            forgotten.len()
        );
        // Generous for a busy machine. A temp that no event reports would wait for the periodic scan, in an
        // hour.
        assert!(latest < DEADLINE, "a temp was removed {latest:?} late");
        assert_eq!(hot, calm);
        // A writer that other processes slow down may seem calm for a moment; each change costs a longer
        // wait.
        assert!(hot <= 6, "too many changes: {}", LOG.0.lock().unwrap());
        assert_eq!(sandbox.listing(), ["a.json", "b.json"]);
    });
}

/// If scans of a hot directory take too long, it is watched again.
#[test]
fn a_hot_directory_with_slow_scans_is_watched_again() {
    in_own_process(&[RunAs::CurrentUser], || {
        if !intercept::is_possible() {
            return report_skipped("calls cannot be intercepted");
        }
        let sandbox = Sandbox::in_memory_for(None);
        let writers = WriterThreads::start(&sandbox.root());
        writers.set_pace(Pace::Calm);
        let (pace, forgotten) = (Arc::clone(&writers.pace), Arc::clone(&writers.forgotten));
        let (root, slow) = (sandbox.root(), Arc::new(AtomicBool::new(false)));
        let (hot, is_slow) = (root.clone(), Arc::clone(&slow));
        let watch = move || {
            let watch = LoggedWatch::start(&root);
            slow.store(true, Ordering::SeqCst);
            pace.store(Pace::FullSpeed as u8, Ordering::SeqCst);
            watch.wait_for_message(TOO_SLOW, 1);
            slow.store(false, Ordering::SeqCst);
            pace.store(Pace::Calm as u8, Ordering::SeqCst);
            let before = forgotten.lock().unwrap().clone();
            for (temp, _) in &before {
                watch.wait_for_removal(temp);
            }
            // Later temps are reported by events.
            let comes = || forgotten.lock().unwrap().get(before.len() + 10).cloned();
            wait_until("more temps are forgotten", || comes().is_some());
            watch.wait_for_removal(&comes().unwrap().0);
            assert_eq!((count_messages(IS_HOT), count_messages(IS_CALM)), (1, 0));
        };
        let answer = move |asked: &PendingCall| {
            if asked.call == Call::List && is_slow.load(Ordering::SeqCst) && asked.path() == hot {
                thread::sleep(SLOW);
            }
            CallResponse::Allow
        };
        let watched = intercept::thread(watch, answer).unwrap();
        writers.stop();
        watched.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

const TOO_SLOW: &str = " is hot, but scans of hot directories take too long";

/// Longer than the limit for a directory that is scanned every second: a quarter of a second.
const SLOW: Duration = Duration::from_millis(300);

/// No event reports a directory that is created in a hot one: a scan finds it, and then it is watched.
#[test]
fn new_directories_below_a_hot_one_are_watched() {
    in_own_process(&[RunAs::CurrentUser], || {
        let sandbox = Sandbox::in_memory_for(None).dir("old");
        let watch = LoggedWatch::start(&sandbox.root());
        let writers = WriterThreads::start(&sandbox.root());
        watch.wait_for_message(IS_HOT, 1);
        let takes = |temp: &str| {
            sandbox.write(temp, "");
            watch.wait_for_removal(&sandbox.path(temp));
        };
        sandbox.write("new/deep/first.4194304.tmp", "");
        takes("old/reported.4194304.tmp");
        watch.wait_for_removal(&sandbox.path("new/deep/first.4194304.tmp"));
        takes("new/deep/second.4194304.tmp");
        // A directory that replaces another one is a different directory.
        fs::rename(sandbox.path("old"), sandbox.base().join("away")).unwrap();
        fs::rename(sandbox.path("new"), sandbox.path("old")).unwrap();
        takes("old/third.4194304.tmp");
        writers.set_pace(Pace::Calm);
        watch.wait_for_message(IS_CALM, 1);
        takes("made/later.4194304.tmp");
        writers.stop();
    });
}

/// A temp from before the start is moved into a hot directory, together with its own directory: no event
/// reports it there. `then` receives the time of the move.
fn move_into_hot_directory(
    existing: Existing,
    then: impl FnOnce(&Sandbox, &LoggedWatch, Timestamp),
) {
    in_own_process(&[RunAs::CurrentUser], || {
        let sandbox = Sandbox::in_memory_for(None);
        let old = sandbox.base().join("old");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("before.4194304.tmp"), "").unwrap();
        // Longer than the grace: it would be removed at once.
        thread::sleep(GRACE + GRACE / 2);
        let watch = LoggedWatch::start_with(&sandbox.root(), existing);
        let writers = WriterThreads::start(&sandbox.root());
        watch.wait_for_message(IS_HOT, 1);
        // Shortly before the next scan, so that a credit from that scan would show.
        thread::sleep(GRACE * 3 / 8);
        let moved = Timestamp::now();
        fs::rename(&old, sandbox.path("old")).unwrap();
        then(&sandbox, &watch, moved);
        writers.stop();
    });
}

#[test]
fn an_ignored_temp_moved_into_a_hot_directory_is_kept() {
    move_into_hot_directory(Existing::Leave, |sandbox, watch, _| {
        sandbox.write("old/later.4194304.tmp", "");
        watch.wait_for_removal(&sandbox.path("old/later.4194304.tmp"));
        assert!(
            sandbox.has("old/before.4194304.tmp"),
            "an ignored temp was removed"
        );
    });
}

#[test]
fn a_temp_moved_into_a_hot_directory_waits_its_grace() {
    move_into_hot_directory(Existing::Wait, |sandbox, watch, moved| {
        let gone = watch.wait_for_removal(&sandbox.path("old/before.4194304.tmp"));
        let had = Duration::try_from(gone.duration_since(moved)).unwrap();
        assert!(had + TICK >= GRACE, "removed after {had:?}");
    });
}

/// Being hot is a property of a directory, not of a path.
#[test]
fn a_hot_root_that_is_replaced_is_watched() {
    in_own_process(&[RunAs::CurrentUser], || {
        let sandbox = Sandbox::in_memory_for(None);
        let watch = LoggedWatch::start(&sandbox.root());
        let writers = WriterThreads::start(&sandbox.root());
        watch.wait_for_message(IS_HOT, 1);
        let (root, away) = (sandbox.root(), sandbox.base().join("away"));
        fs::rename(&root, &away).unwrap();
        writers.stop();
        fs::write(away.join("spared.4194304.tmp"), "").unwrap();
        fs::create_dir(&root).unwrap();
        let takes = |temp: &str| {
            sandbox.write(temp, "");
            watch.wait_for_removal(&sandbox.path(temp));
        };
        takes("taken.4194304.tmp");
        takes("reported.4194304.tmp");
        // A second set of writers makes the new directory hot too.
        let hot = count_messages(IS_HOT);
        let writers = WriterThreads::start(&root);
        watch.wait_for_message(IS_HOT, hot + 1);
        writers.stop();
        remove_watched_dir(&root);
        fs::create_dir(&root).unwrap();
        takes("taken-too.4194304.tmp");
        assert!(
            away.join("spared.4194304.tmp").exists(),
            "it is outside every root"
        );
        assert!(watch.watcher.tracked() < 10);
    });
}
