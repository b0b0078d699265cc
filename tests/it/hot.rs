//! Hot directories: written faster than it is worth hearing of each temp, they leave the event path
//! for scans, and come back. Nothing is missed or late on the way, and no writer loses a write.

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
use orphand::daemon::Existing;
use orphand::decide::policy::{Graces, Policy};
use orphand::decide::rate::Threshold;
use orphand::event::Event;

use crate::fixture::{As, alone, skipped, wait_until};
use crate::intercept::{self, Answer, Asked, Call};
use crate::sandbox::{DEADLINE, Sandbox};

const GRACE: Duration = Duration::from_secs(2);

/// The kernel's dates are as coarse as its tick.
const TICK: Duration = Duration::from_millis(10);

/// So few a second that a writer on a busy machine comes up to it.
const HOT: Threshold = Threshold(200);

/// What orphand has said in this process.
struct ReportedReasons(Mutex<String>);

impl log::Log for ReportedReasons {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut said = self.0.lock().unwrap();
        *said += &format!("{} {}\n", record.level(), record.args());
    }

    fn flush(&self) {}
}

static SAID: ReportedReasons = ReportedReasons(Mutex::new(String::new()));

/// A watcher in this process, and when what went.
struct Watch {
    watcher: Watcher,
    gone: Arc<Mutex<HashMap<PathBuf, Timestamp>>>,
}

impl Watch {
    #[track_caller]
    fn start(root: &Path) -> Watch {
        Watch::with(root, Existing::Take)
    }

    #[track_caller]
    fn with(root: &Path, existing: Existing) -> Watch {
        static ONCE: OnceLock<()> = OnceLock::new();
        ONCE.get_or_init(|| {
            log::set_logger(&SAID).unwrap();
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
        let tell = Arc::clone(&gone);
        thread::spawn(move || {
            for event in events {
                if let Event::Reaped(what) = event {
                    tell.lock()
                        .unwrap()
                        .insert(what.subject.path, Timestamp::now());
                }
            }
        });
        Watch { watcher, gone }
    }

    /// Waits until this was said so often.
    #[track_caller]
    fn says(&self, words: &str, times: usize) {
        let end = Instant::now() + DEADLINE;
        while said(words) < times {
            assert!(
                Instant::now() < end,
                "no {words:?}: {}",
                SAID.0.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until this temp is gone by orphand's doing.
    #[track_caller]
    fn takes(&self, temp: &Path) -> Timestamp {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(when) = self.gone.lock().unwrap().get(temp) {
                return *when;
            }
            assert!(
                Instant::now() < end,
                "{temp:?} is left: {}",
                SAID.0.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How often this was said.
fn said(words: &str) -> usize {
    SAID.0.lock().unwrap().matches(words).count()
}

const IS_HOT: &str = " is hot: it is scanned every 1 s instead of being watched";
const IS_CALM: &str = " temps in 100ms): it is watched again";

/// What the writers do just now.
#[derive(Clone, Copy)]
enum Pace {
    FullSpeed,
    /// Ten a second; of who forgets, [`BETWEEN`] apart, and each is forgotten.
    Calm,
    Stop,
}

/// From one forgotten temp to the next. Some fall into each moment of which no event tells and that
/// no scan by time sees: from the last scan of a hot directory, which is followed by a sample of
/// 100 ms, to its watch.
const BETWEEN: Duration = Duration::from_millis(40);

/// Two healthy writers of which one forgets a temp now and then.
struct WriterNames {
    pace: Arc<AtomicU8>,
    forgotten: Arc<Mutex<Vec<(PathBuf, Timestamp)>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl WriterNames {
    fn start(dir: &Path) -> WriterNames {
        let pace = Arc::new(AtomicU8::new(Pace::FullSpeed as u8));
        let forgotten = Arc::default();
        let threads = ["a", "b"].map(|who| {
            let (dir, pace, forgotten) =
                (dir.to_owned(), Arc::clone(&pace), Arc::clone(&forgotten));
            thread::spawn(move || write(&dir, who, &pace, &forgotten))
        });
        WriterNames {
            pace,
            forgotten,
            threads: threads.into(),
        }
    }

    fn go(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::SeqCst);
    }

    /// What one of them has forgotten so far, and when.
    fn forgotten(&self) -> Vec<(PathBuf, Timestamp)> {
        self.forgotten.lock().unwrap().clone()
    }

    /// How much they wrote, and what one of them forgot and when.
    fn stop(self) -> (u64, Vec<(PathBuf, Timestamp)>) {
        self.go(Pace::Stop);
        let wrote = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        (wrote, std::mem::take(&mut *self.forgotten.lock().unwrap()))
    }
}

/// Writes until it is told to stop. Each rename must go well, as long as the directory is there.
fn write(
    dir: &Path,
    who: &str,
    pace: &AtomicU8,
    forgotten: &Mutex<Vec<(PathBuf, Timestamp)>>,
) -> u64 {
    let target = dir.join(format!("{who}.json"));
    let mut forgot = Instant::now();
    for n in 0_u64.. {
        let pace = pace.load(Ordering::SeqCst);
        if pace == Pace::Stop as u8 {
            return n;
        }
        let temp = dir.join(format!(
            "{who}.json.{n:08x}-2fa1-41d2-883f-0016d3cca427.tmp"
        ));
        let began = Timestamp::now();
        let wrote = fs::write(&temp, "");
        if who == "a" && forgot.elapsed() >= BETWEEN && wrote.is_ok() {
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
            // It has come back with nothing in it between the two calls.
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
fn no_orphan_is_missed_or_late_when_it_becomes_hot_and_calm() {
    alone(&[As::Us], || {
        let sandbox = Sandbox::new();
        let watch = Watch::start(&sandbox.root());
        let writers = WriterNames::start(&sandbox.root());
        watch.says(IS_HOT, 1);
        // Hot for some graces, calm until all is gone that was forgotten before, and once more.
        thread::sleep(3 * GRACE);
        writers.go(Pace::Calm);
        watch.says(IS_CALM, 1);
        // While it is watched: becoming hot once more, it would be scanned.
        for (temp, _) in writers.forgotten() {
            watch.takes(&temp);
        }
        let changes = said(IS_HOT);
        writers.go(Pace::FullSpeed);
        watch.says(IS_HOT, changes + 1);
        writers.go(Pace::Calm);
        watch.says(IS_CALM, changes + 1);
        let (wrote, forgotten) = writers.stop();
        assert!(forgotten.len() > 50, "{}", forgotten.len());
        let mut latest = Duration::ZERO;
        for (path, made) in &forgotten {
            let after = watch.takes(path).duration_since(*made);
            let after = Duration::try_from(after).unwrap_or_default();
            assert!(after + TICK >= GRACE, "{path:?} went after {after:?}");
            latest = latest.max(after.saturating_sub(GRACE));
        }
        let (hot, calm) = (said(IS_HOT), said(IS_CALM));
        println!(
            "{wrote} writes, {} forgotten, the last one {latest:.0?} late; {hot} times hot",
            forgotten.len()
        );
        // Much for a busy machine; a temp that nothing tells of goes with the scan by time, in an hour.
        // A scan by time alone would come in an hour.
        assert!(latest < DEADLINE, "one went {latest:?} late");
        assert_eq!(hot, calm);
        // A writer that others hold up may seem calm for a moment; each time costs a longer wait.
        assert!(hot <= 6, "it comes and goes: {}", SAID.0.lock().unwrap());
        assert_eq!(sandbox.listing(), ["a.json", "b.json"]);
    });
}

/// Scans of a hot directory that take too much of the time are given up: it is watched again.
#[test]
fn one_that_is_scanned_too_slowly_is_watched() {
    alone(&[As::Us], || {
        if !intercept::is_possible() {
            return skipped("calls cannot be handed over here");
        }
        let sandbox = Sandbox::new();
        let writers = WriterNames::start(&sandbox.root());
        writers.go(Pace::Calm);
        let (pace, forgotten) = (Arc::clone(&writers.pace), Arc::clone(&writers.forgotten));
        let (root, slow) = (sandbox.root(), Arc::new(AtomicBool::new(false)));
        let (hot, is_slow) = (root.clone(), Arc::clone(&slow));
        let watch = move || {
            let watch = Watch::start(&root);
            slow.store(true, Ordering::SeqCst);
            pace.store(Pace::FullSpeed as u8, Ordering::SeqCst);
            watch.says(TOO_SLOW, 1);
            slow.store(false, Ordering::SeqCst);
            pace.store(Pace::Calm as u8, Ordering::SeqCst);
            let before = forgotten.lock().unwrap().clone();
            for (temp, _) in &before {
                watch.takes(temp);
            }
            // It hears of what comes then.
            let comes = || forgotten.lock().unwrap().get(before.len() + 10).cloned();
            wait_until("more is forgotten", || comes().is_some());
            watch.takes(&comes().unwrap().0);
            assert_eq!((said(IS_HOT), said(IS_CALM)), (1, 0));
        };
        let answer = move |asked: &Asked| {
            if asked.call == Call::List && is_slow.load(Ordering::SeqCst) && asked.path() == hot {
                thread::sleep(SLOW);
            }
            Answer::Pass
        };
        let watched = intercept::thread(watch, answer).unwrap();
        writers.stop();
        watched.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

const TOO_SLOW: &str = " is hot, but scans of hot directories take too long";

/// Longer than a quarter of a second, for which one that is scanned every second may be read.
const SLOW: Duration = Duration::from_millis(300);

/// No event tells of a directory that is made in a hot one: a scan does, and then it is watched.
#[test]
fn directories_below_a_hot_one_come_and_go() {
    alone(&[As::Us], || {
        let sandbox = Sandbox::new().dir("old");
        let watch = Watch::start(&sandbox.root());
        let writers = WriterNames::start(&sandbox.root());
        watch.says(IS_HOT, 1);
        let takes = |temp: &str| {
            sandbox.write(temp, "");
            watch.takes(&sandbox.path(temp));
        };
        sandbox.write("new/deep/first.4194304.tmp", "");
        takes("old/heard.4194304.tmp");
        watch.takes(&sandbox.path("new/deep/first.4194304.tmp"));
        takes("new/deep/second.4194304.tmp");
        // One that takes another's place is another.
        fs::rename(sandbox.path("old"), sandbox.base().join("away")).unwrap();
        fs::rename(sandbox.path("new"), sandbox.path("old")).unwrap();
        takes("old/third.4194304.tmp");
        writers.go(Pace::Calm);
        watch.says(IS_CALM, 1);
        takes("made/later.4194304.tmp");
        writers.stop();
    });
}

/// A temp that was there before the start is moved into a hot directory, with the directory that it is
/// in: no event tells of it there. `then` is told when that was.
fn moved_into_a_hot_one(existing: Existing, then: impl FnOnce(&Sandbox, &Watch, Timestamp)) {
    alone(&[As::Us], || {
        let sandbox = Sandbox::new();
        let old = sandbox.base().join("old");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("before.4194304.tmp"), "").unwrap();
        // Longer than the grace: it would be taken at once.
        thread::sleep(GRACE + GRACE / 2);
        let watch = Watch::with(&sandbox.root(), existing);
        let writers = WriterNames::start(&sandbox.root());
        watch.says(IS_HOT, 1);
        // The next scan is to come soon: what it gives less than a whole grace must show.
        thread::sleep(GRACE * 3 / 8);
        let moved = Timestamp::now();
        fs::rename(&old, sandbox.path("old")).unwrap();
        then(&sandbox, &watch, moved);
        writers.stop();
    });
}

#[test]
fn what_is_to_be_left_alone_comes_into_a_hot_one() {
    moved_into_a_hot_one(Existing::Leave, |sandbox, watch, _| {
        sandbox.write("old/later.4194304.tmp", "");
        watch.takes(&sandbox.path("old/later.4194304.tmp"));
        assert!(
            sandbox.has("old/before.4194304.tmp"),
            "it was not to be touched"
        );
    });
}

#[test]
fn what_is_to_have_its_whole_grace_comes_into_a_hot_one() {
    moved_into_a_hot_one(Existing::Wait, |sandbox, watch, moved| {
        let gone = watch.takes(&sandbox.path("old/before.4194304.tmp"));
        let had = Duration::try_from(gone.duration_since(moved)).unwrap();
        assert!(had + TICK >= GRACE, "it went after {had:?}");
    });
}

/// What is hot is a directory, not a path.
#[test]
fn a_hot_root_that_is_replaced_is_watched() {
    alone(&[As::Us], || {
        let sandbox = Sandbox::new();
        let watch = Watch::start(&sandbox.root());
        let writers = WriterNames::start(&sandbox.root());
        watch.says(IS_HOT, 1);
        let (root, away) = (sandbox.root(), sandbox.base().join("away"));
        fs::rename(&root, &away).unwrap();
        writers.stop();
        fs::write(away.join("spared.4194304.tmp"), "").unwrap();
        fs::create_dir(&root).unwrap();
        let takes = |temp: &str| {
            sandbox.write(temp, "");
            watch.takes(&sandbox.path(temp));
        };
        takes("taken.4194304.tmp");
        takes("heard.4194304.tmp");
        // A second writer makes that one hot, too.
        let hot = said(IS_HOT);
        let writers = WriterNames::start(&root);
        watch.says(IS_HOT, hot + 1);
        writers.stop();
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        takes("taken-too.4194304.tmp");
        assert!(
            away.join("spared.4194304.tmp").exists(),
            "it is at no root's path"
        );
        assert!(watch.watcher.tracked() < 10);
    });
}
