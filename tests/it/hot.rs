//! Hot directories: written faster than it is worth hearing of each temp, they leave the event path
//! for scans, and come back. Nothing is missed or late on the way, and no writer loses a write.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::sandbox::{DEADLINE, Sandbox, Watching, is};

const GRACE: Duration = Duration::from_secs(2);

/// The kernel's dates are as coarse as its tick.
const TICK: Duration = Duration::from_millis(10);

const ARGS: [&str; 4] = ["-r", "-v", "--grace", "2s"];

/// What the writers do just now.
#[derive(Clone, Copy)]
enum Pace {
    FullSpeed,
    /// Fifty a second.
    Calm,
    Stop,
}

/// Two healthy writers of which one forgets a temp now and then.
struct Writers {
    pace: Arc<AtomicU8>,
    forgotten: Arc<Mutex<Vec<(PathBuf, Timestamp)>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(dir: &Path) -> Writers {
        let pace = Arc::new(AtomicU8::new(Pace::FullSpeed as u8));
        let forgotten = Arc::default();
        let threads = ["a", "b"].map(|who| {
            let (dir, pace, forgotten) =
                (dir.to_owned(), Arc::clone(&pace), Arc::clone(&forgotten));
            thread::spawn(move || write(&dir, who, &pace, &forgotten))
        });
        Writers {
            pace,
            forgotten,
            threads: threads.into(),
        }
    }

    fn go(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::SeqCst);
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
        if who == "a" && forgot.elapsed() > Duration::from_millis(40) && wrote.is_ok() {
            forgot = Instant::now();
            forgotten.lock().unwrap().push((temp, began));
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
            thread::sleep(Duration::from_millis(20));
        }
    }
    unreachable!("2^64 writes")
}

/// Waits until this was said so often.
#[track_caller]
fn says(watching: &Watching, words: &str, times: usize) {
    let end = Instant::now() + DEADLINE * 2;
    while said(&watching.stderr(), words) < times {
        assert!(Instant::now() < end, "no {words:?}: {}", watching.stderr());
        thread::sleep(Duration::from_millis(20));
    }
}

fn said(stderr: &str, words: &str) -> usize {
    stderr.matches(words).count()
}

const IS_HOT: &str = " is hot: it is scanned every 1s instead of being watched";
const IS_CALM: &str = ": it is watched again";

/// Each of these went, not before its grace was over and not long after. Says by how much the last
/// one was late.
#[track_caller]
fn went_in_time(events: &[Value], forgotten: &[(PathBuf, Timestamp)]) -> Duration {
    let mut latest = Duration::ZERO;
    for (path, made) in forgotten {
        let went =
            |event: &&Value| event["event"] == "reaped" && event["path"] == path.to_str().unwrap();
        let event = events
            .iter()
            .find(went)
            .unwrap_or_else(|| panic!("{path:?} did not go"));
        let time: Timestamp = event["time"].as_str().unwrap().parse().unwrap();
        let after = Duration::try_from(time.duration_since(*made)).unwrap_or_default();
        assert!(after + TICK >= GRACE, "{path:?} went after {after:?}");
        latest = latest.max(after.saturating_sub(GRACE));
    }
    latest
}

#[test]
fn no_orphan_is_missed_or_late_when_it_becomes_hot_and_calm() {
    let sandbox = Sandbox::new();
    let watching = sandbox.watch(ARGS).ready();
    let writers = Writers::start(&sandbox.root());
    says(&watching, IS_HOT, 1);
    // Hot for some graces, calm for one, and once more.
    thread::sleep(3 * GRACE);
    writers.go(Pace::Calm);
    says(&watching, IS_CALM, 1);
    thread::sleep(GRACE);
    let changes = said(&watching.stderr(), IS_HOT);
    writers.go(Pace::FullSpeed);
    says(&watching, IS_HOT, changes + 1);
    writers.go(Pace::Calm);
    says(&watching, IS_CALM, changes + 1);
    let (wrote, forgotten) = writers.stop();
    assert!(forgotten.len() > 100, "{}", forgotten.len());
    let mut watching = watching;
    watching.outlive_a_sentinel(&sandbox);
    let stopped = watching.stop().exit(0);
    let latest = went_in_time(&stopped.events.0, &forgotten);
    let (hot, calm) = (
        said(&stopped.stderr, IS_HOT),
        said(&stopped.stderr, IS_CALM),
    );
    println!(
        "{wrote} writes, {} forgotten, the last one {latest:.0?} late; {hot} times hot",
        forgotten.len()
    );
    assert!(
        latest < GRACE,
        "one went {latest:?} late\n{}",
        stopped.stderr
    );
    assert_eq!(hot, calm);
    // A writer that other tests hold up may seem calm for a moment; each time costs a longer wait.
    assert!(hot <= 5, "it comes and goes: {}", stopped.stderr);
    assert_eq!(stopped.events.of("failed").len(), 0);
    assert_eq!(sandbox.listing(), ["a.json", "b.json"]);
}

/// No event tells of a directory that is made in a hot one: a scan does, and then it is watched.
#[test]
fn directories_below_a_hot_one_come_and_go() {
    let sandbox = Sandbox::new().dir("old");
    let mut watching = sandbox.watch(ARGS).ready();
    let writers = Writers::start(&sandbox.root());
    says(&watching, IS_HOT, 1);
    sandbox.write("new/deep/first.tmp", "");
    sandbox.write("old/heard.tmp", "");
    watching.wait_for(is("reaped", "heard.tmp"));
    watching.wait_for(is("reaped", "first.tmp"));
    sandbox.write("new/deep/second.tmp", "");
    watching.wait_for(is("reaped", "second.tmp"));
    // One that takes another's place is another.
    fs::rename(sandbox.path("old"), sandbox.base().join("away")).unwrap();
    fs::rename(sandbox.path("new"), sandbox.path("old")).unwrap();
    sandbox.write("old/third.tmp", "");
    watching.wait_for(is("reaped", "third.tmp"));
    writers.go(Pace::Calm);
    says(&watching, IS_CALM, 1);
    sandbox.write("made/later.tmp", "");
    watching.wait_for(is("reaped", "later.tmp"));
    writers.stop();
    watching.stop().exit(0);
}

/// What is hot is a directory, not a path.
#[test]
fn a_hot_root_that_is_replaced_is_watched() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(ARGS).ready();
    let writers = Writers::start(&sandbox.root());
    says(&watching, IS_HOT, 1);
    let (root, away) = (sandbox.root(), sandbox.base().join("away"));
    fs::rename(&root, &away).unwrap();
    writers.stop();
    fs::write(away.join("spared.tmp"), "").unwrap();
    fs::create_dir(&root).unwrap();
    sandbox.write("taken.tmp", "");
    watching.wait_for(is("reaped", "taken.tmp"));
    watching.outlive_a_sentinel(&sandbox);
    // A second writer makes that one hot, too.
    let writers = Writers::start(&root);
    says(&watching, IS_HOT, 2);
    writers.stop();
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    sandbox.write("taken-too.tmp", "");
    watching.wait_for(is("reaped", "taken-too.tmp"));
    assert!(away.join("spared.tmp").exists(), "it is at no root's path");
    watching.stop().exit(0);
}
