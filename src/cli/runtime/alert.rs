//! `[alert]`: runs a command of the user when a root has many leaks, or its file system is nearly full.
//!
//! A thread of its own checks the limits and runs the command, so an alert delays no removal.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use orphand::core::observation::FileSize;
use orphand::core::sums::{Outcome, SumKey, Summand, Sums};
use orphand::fs::response::responds;
use orphand::store::json::{self, WirePath, field};
use orphand::sys::clock;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use crate::cli::config::AlertSettings;
use crate::cli::output::groups;
use crate::cli::output::text;

/// The time limit for the command.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The time that a running command gets at the end of the watch.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The interval at which the command is checked for its end.
const END_CHECK: Duration = Duration::from_millis(50);

/// The interval of the checks for free space.
const SPACE_INTERVAL: Duration = Duration::from_secs(60);

/// The shortest interval of the checks for leaks.
const LEAK_INTERVAL: Duration = Duration::from_secs(1);

/// The largest number of groups that are counted one by one for each root.
const MAX_COUNTED_GROUPS: usize = 64;

/// The largest number of groups in an alert.
const MAX_GROUPS: usize = 5;

/// Collects leaks, and passes them to the thread that runs the command.
pub(crate) struct Alerts {
    settings: AlertSettings,
    leaks: HashMap<PathBuf, LeakCount>,
    send: Sender<Vec<Candidate>>,
    thread: AlertThread,
    due: Option<Instant>,
}

/// The leaks of one root in the present interval.
struct LeakCount {
    began: Instant,
    sums: Sums,
    /// A check has seen all of them.
    is_checked: bool,
}

impl LeakCount {
    fn new(began: Instant) -> LeakCount {
        LeakCount {
            began,
            sums: Sums::with_limit(MAX_COUNTED_GROUPS),
            is_checked: true,
        }
    }

    /// Begins a new interval if the present one of length `every` has ended, unless no check has seen its last leaks yet.
    fn renew(&mut self, now: Instant, every: Duration) {
        if self.is_checked && now.saturating_duration_since(self.began) >= every {
            *self = LeakCount::new(now);
        }
    }
}

/// The thread that runs the command.
pub(crate) struct AlertThread {
    thread: JoinHandle<()>,
    end: Arc<End>,
}

/// The end of the watch.
#[derive(Default)]
struct End {
    /// The time at which a running command is killed.
    at: OnceLock<Instant>,
}

/// A root about which there may be an alert.
struct Candidate {
    root: PathBuf,
    leaks: u64,
    size: FileSize,
    groups: Vec<(SumKey, u64, u64)>,
}

/// The object on the command's stdin.
#[derive(Serialize)]
struct AlertFields<'a> {
    event: &'static str,
    time: String,
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    cause: &'static str,
    leaks: u64,
    bytes: u64,
    disk_bytes: u64,
    /// The free bytes of the file system of the root, and their part in percent.
    free: Option<u64>,
    free_percent: Option<u8>,
    groups: Vec<AlertGroup<'a>>,
    /// The same for people.
    text: &'a str,
}

#[derive(Serialize)]
struct AlertGroup<'a> {
    #[serde(flatten, with = "field::dir")]
    dir: WirePath<'a>,
    shape: String,
    verdict: &'static str,
    temps: u64,
    bytes: u64,
}

impl Alerts {
    /// Starts the thread for alerts, if there is a command.
    pub(crate) fn start(settings: &AlertSettings, roots: &[PathBuf]) -> Option<Alerts> {
        let (program, _) = settings.command.as_deref()?.split_first()?;
        let (send, candidates) = bounded(1);
        let mut worker = AlertWorker {
            settings: settings.clone(),
            last: HashMap::new(),
            end: Arc::default(),
        };
        let end = Arc::clone(&worker.end);
        let thread = std::thread::Builder::new().name("orphand-alert".into());
        let thread = match thread.spawn(move || worker.run(&candidates)) {
            Ok(thread) => AlertThread { thread, end },
            Err(error) => {
                ::log::error!("cannot start a thread for [alert] {program:?}: {error}");
                return None;
            }
        };
        let none = || LeakCount::new(Instant::now());
        Some(Alerts {
            settings: settings.clone(),
            leaks: roots.iter().map(|root| (root.clone(), none())).collect(),
            send,
            thread,
            due: (settings.min_free > 0).then(Instant::now),
        })
    }

    /// Starts no further command. Returns the thread, which may still run one.
    pub(crate) fn close(self) -> AlertThread {
        self.thread
    }

    /// Counts a leak.
    pub(crate) fn count(&mut self, key: SumKey, one: Summand<'_>) {
        let now = Instant::now();
        let leaks = self.leaks.entry(PathBuf::clone(&key.root));
        let leaks = leaks.or_insert_with(|| LeakCount::new(now));
        leaks.renew(now, self.settings.every);
        leaks.sums.add(key, one);
        leaks.is_checked = false;
        let at = now + LEAK_INTERVAL;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Returns the time of the next check.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Passes the counts to the thread, if a check is due.
    pub(crate) fn check(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for leaks in self.leaks.values_mut() {
            leaks.renew(now, self.settings.every);
        }
        self.due = (self.settings.min_free > 0).then(|| now + SPACE_INTERVAL);
        let candidate = |(root, leaks): (&PathBuf, &LeakCount)| {
            let mut total = leaks.sums.others().clone();
            let largest = leaks.sums.largest_first();
            largest
                .iter()
                .for_each(|(_, sum)| total.merge((*sum).clone()));
            let shown = largest.into_iter().take(MAX_GROUPS);
            Candidate {
                root: root.clone(),
                leaks: total.temps,
                size: total.size,
                groups: shown
                    .map(|(key, sum)| (key.clone(), sum.temps, sum.size.bytes))
                    .collect(),
            }
        };
        let candidates = self.leaks.iter().map(candidate).collect();
        match self.send.try_send(candidates) {
            Ok(()) => {
                for leaks in self.leaks.values_mut() {
                    leaks.is_checked = true;
                }
            }
            // While the command runs, the next check waits.
            Err(_) => self.due = Some(now + LEAK_INTERVAL),
        }
    }
}

impl AlertThread {
    /// Returns whether the thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends threads at the end of the watch. Their commands get [`END_LIMIT`], and are then killed. A file system that
    /// does not answer may block a thread; the thread is then abandoned.
    pub(crate) fn end(threads: Vec<AlertThread>) {
        let at = Instant::now() + END_LIMIT;
        for one in &threads {
            let _ = one.end.at.set(at);
        }
        let last = at + END_LIMIT / 2;
        while threads.iter().any(|one| !one.is_finished()) && Instant::now() < last {
            std::thread::sleep(END_CHECK / 10);
        }
    }
}

impl End {
    /// Reports whether the watch ends.
    fn has_begun(&self) -> bool {
        self.at.get().is_some()
    }
}

/// Checks the limits, and runs the command.
struct AlertWorker {
    settings: AlertSettings,
    /// The time of the last alert about each root.
    last: HashMap<PathBuf, Instant>,
    end: Arc<End>,
}

impl AlertWorker {
    fn run(&mut self, candidates: &Receiver<Vec<Candidate>>) {
        for candidate in candidates.iter().flatten() {
            if self.end.has_begun() {
                return;
            }
            let is_early = |at: &Instant| at.elapsed() < self.settings.every;
            if self.last.get(&candidate.root).is_some_and(is_early) {
                continue;
            }
            let free = free_space(&candidate.root);
            let Some(cause) = self.cause(&candidate, free) else {
                continue;
            };
            self.last.insert(candidate.root.clone(), Instant::now());
            if let Err(error) = self.alert(&candidate, cause, free) {
                match self.end.has_begun() {
                    true => ::log::error!("{error}"),
                    false => ::log::error!("{error}; removals continue"),
                }
            }
        }
    }

    /// Returns the limit that is exceeded.
    fn cause(&self, candidate: &Candidate, free: Option<(u64, u8)>) -> Option<&'static str> {
        let settings = &self.settings;
        let is_full =
            settings.min_free > 0 && free.is_some_and(|(_, free)| free < settings.min_free);
        let has = |limit: u64, value: u64| limit > 0 && value >= limit;
        // A command without any limit is run at the first leak.
        let leaks = match (settings.leaks, settings.bytes, settings.min_free) {
            (0, 0, 0) => 1,
            (leaks, ..) => leaks,
        };
        match () {
            () if is_full => Some("min_free"),
            () if has(settings.bytes, candidate.size.disk_bytes) => Some("bytes"),
            () if has(leaks, candidate.leaks) => Some("leaks"),
            () => None,
        }
    }

    fn alert(
        &self,
        candidate: &Candidate,
        cause: &'static str,
        free: Option<(u64, u8)>,
    ) -> Result<(), String> {
        let text = alert_text(candidate, cause, free);
        let group = |(key, temps, bytes): &(SumKey, u64, u64)| AlertGroup {
            dir: Some(key.dir.clone().into()),
            shape: key.shape.to_string_lossy().into_owned(),
            verdict: match key.outcome {
                Outcome::Judged(verdict) => verdict.as_str(),
                Outcome::Failed | Outcome::Purged => "",
            },
            temps: *temps,
            bytes: *bytes,
        };
        let object = AlertFields {
            event: "alert",
            time: json::time(clock::wall()),
            root: Some(candidate.root.as_path().into()),
            cause,
            leaks: candidate.leaks,
            bytes: candidate.size.bytes,
            disk_bytes: candidate.size.disk_bytes,
            free: free.map(|(bytes, _)| bytes),
            free_percent: free.map(|(_, percent)| percent),
            groups: candidate.groups.iter().map(group).collect(),
            text: &text,
        };
        let mut input = serde_json::to_vec(&object).map_err(|error| error.to_string())?;
        input.push(b'\n');
        let command = self.settings.command.as_deref();
        run(command.unwrap_or_default(), input, &self.end)
    }
}

/// Returns the free bytes of the file system of `root`, and their part in percent.
fn free_space(root: &Path) -> Option<(u64, u8)> {
    if !responds(root) {
        return None;
    }
    let system = rustix::fs::statvfs(root).ok()?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let used = system.f_blocks.saturating_sub(system.f_bfree);
    let all = u128::from(used) + u128::from(system.f_bavail);
    let percent = u128::from(system.f_bavail) * 100 / all.max(1);
    Some((free, u8::try_from(percent).unwrap_or(100)))
}

fn alert_text(candidate: &Candidate, cause: &str, free: Option<(u64, u8)>) -> String {
    let root = text::escaped(&candidate.root);
    let mut line = match (cause, free) {
        ("min_free", Some((bytes, percent))) => {
            format!(
                "{root}: only {percent} % ({}) of the disk is free",
                text::size(bytes)
            )
        }
        _ => format!("{root}: many temps were left behind"),
    };
    if candidate.leaks > 0 {
        line.push_str(&format!(
            "; {} left behind ({})",
            text::counted(candidate.leaks, "temp", "temps"),
            text::size(candidate.size.bytes)
        ));
    }
    if let Some((key, ..)) = candidate.groups.first() {
        line.push_str(&format!(", mostly {}", text::escaped(&groups::path(key))));
    }
    line
}

/// Runs a command with `input` on its stdin. Kills it with its process group after [`COMMAND_LIMIT`], or at the end of
/// the watch.
fn run(command: &[String], input: Vec<u8>, watch_end: &End) -> Result<(), String> {
    let Some((program, args)) = command.split_first() else {
        return Ok(());
    };
    let name = text::escaped(Path::new(program));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // The programs that it starts are killed with it. Ctrl-C reaches only the watch, which then ends the command.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot run {name:?} of [alert]: {error}"))?;
    // The object is smaller than the buffer of a pipe, so this does not wait for the command to read it.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&input);
    }
    wait(&mut child, &name, watch_end)
}

fn wait(child: &mut Child, name: &str, watch_end: &End) -> Result<(), String> {
    let limit = Instant::now() + COMMAND_LIMIT;
    loop {
        let now = Instant::now();
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{name:?} of [alert] failed: {status}")),
            Ok(None) if watch_end.at.get().is_some_and(|at| *at <= now) => {
                kill_group(child);
                return Err(format!(
                    "{name:?} of [alert] was killed at the end of the watch"
                ));
            }
            Ok(None) if now < limit => std::thread::sleep(END_CHECK),
            Ok(None) => {
                kill_group(child);
                let limit = text::span(COMMAND_LIMIT);
                return Err(format!("{name:?} of [alert] was killed after {limit}"));
            }
            Err(error) => return Err(format!("cannot wait for {name:?} of [alert]: {error}")),
        }
    }
}

/// Kills the process group of a command that was not waited for yet, so its number belongs to no other group.
fn kill_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_decides_about_the_alert() {
        let check = |limits: (u64, u64, u8), seen: (u64, u64, u8), want: Option<&str>| {
            let (leaks, bytes, min_free) = limits;
            let worker = AlertWorker {
                settings: AlertSettings {
                    leaks,
                    bytes,
                    min_free,
                    ..AlertSettings::default()
                },
                last: HashMap::new(),
                end: Arc::default(),
            };
            let candidate = Candidate {
                root: "/r".into(),
                leaks: seen.0,
                size: FileSize {
                    bytes: 0,
                    disk_bytes: seen.1,
                },
                groups: Vec::new(),
            };
            let cause = worker.cause(&candidate, Some((1, seen.2)));
            assert_eq!(cause, want, "{limits:?} {seen:?}");
        };
        check((0, 0, 0), (0, 0, 0), None);
        check((0, 0, 0), (1, 0, 0), Some("leaks"));
        check((5, 0, 0), (4, 1 << 40, 0), None);
        check((5, 0, 0), (5, 0, 0), Some("leaks"));
        check((0, 1000, 0), (100, 999, 0), None);
        check((9, 1000, 0), (9, 1000, 0), Some("bytes"));
        check((0, 0, 5), (100, 100, 5), None);
        check((1, 0, 5), (100, 100, 4), Some("min_free"));
    }

    /// With a limit of free space the check is made each minute, also if nothing was left behind since.
    #[test]
    fn leaks_are_forgotten_after_an_interval() {
        let (send, receive) = bounded(8);
        let every = Duration::from_secs(3600);
        let root = Arc::new(PathBuf::from("/r"));
        let mut alerts = Alerts {
            settings: AlertSettings {
                every,
                leaks: 1,
                min_free: 5,
                ..AlertSettings::default()
            },
            leaks: HashMap::new(),
            send,
            thread: AlertThread {
                thread: std::thread::spawn(|| {}),
                end: Arc::default(),
            },
            due: None,
        };
        let key = SumKey {
            root: Arc::clone(&root),
            dir: PathBuf::clone(&root),
            shape: "<uuid>.tmp".into(),
            outcome: Outcome::Failed,
        };
        alerts.count(key, Summand::default());
        let counted = Instant::now();
        let mut leaks_at = |after: Duration| {
            alerts.check(counted + after);
            let candidates = receive.try_recv().expect("a check");
            candidates.iter().map(|one| one.leaks).sum::<u64>()
        };
        let minute = Duration::from_secs(60);
        // The last leaks of an interval are checked after its end.
        assert_eq!(leaks_at(every), 1);
        assert_eq!(leaks_at(every + minute), 0);
        assert_eq!(leaks_at(every + minute * 2), 0);
    }

    #[test]
    fn a_command_that_fails_is_reported() {
        let end = End::default();
        let command = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(&command(&["cat"]), b"x".to_vec(), &end), Ok(()));
        assert_eq!(run(&command(&["true"]), vec![b'x'; 1 << 10], &end), Ok(()));
        let failed = run(&command(&["false"]), Vec::new(), &end);
        assert!(failed.unwrap_err().contains("\"false\" of [alert] failed"));
        let missing = run(&command(&["/no/such/program"]), Vec::new(), &end);
        assert!(missing.unwrap_err().starts_with("cannot run"));
    }
}
