//! The state of a running watch, as `orphand status` and the metrics show it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use orphand::core::event::{Event, RootState, Summary};
use orphand::core::judge::Reason;
use orphand::core::learn::KnownShape;
use orphand::core::observation::Holder;
use orphand::core::sums::{RecentSums, SumKey, Summand, Sums, TempSum};
use orphand::core::time::Wall;
use orphand::daemon::{RootStatus, StatusHandle};
use orphand::fs::root::Root;
use orphand::sys::clock;
use orphand::sys::mutex::guard;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::groups::{self, Grouping, MAX_GROUPS};
use super::held_temps::HeldTemps;
use super::shell::Suggestion;
use super::text;
use crate::cli::runtime::program::Program;

/// The shared state. The watch writes it; the status server, the metrics and the status line read it.
#[derive(Debug)]
pub(crate) struct WatchStatus {
    pub(crate) program: Program,
    pub(crate) since: Wall,
    /// The watch covers the directories of the configuration file, not directories from the command line.
    pub(crate) is_background: bool,
    content: Mutex<StatusContent>,
}

#[derive(Debug)]
struct StatusContent {
    status_handle: Option<StatusHandle>,
    config: Option<PathBuf>,
    config_error: Option<String>,
    grouping: Grouping,
    held: HeldTemps,
    /// The leaks of the last hour.
    hour: RecentSums,
    /// The leaks of the last minute.
    minute: RecentSums,
}

/// The time that the leaks in `status` cover.
pub(crate) const LEAK_SPAN: Duration = Duration::from_secs(60 * 60);

const MINUTE: Duration = Duration::from_secs(60);

impl Default for StatusContent {
    fn default() -> StatusContent {
        StatusContent {
            status_handle: None,
            config: None,
            config_error: None,
            grouping: Grouping::default(),
            held: HeldTemps::default(),
            hour: RecentSums::new(LEAK_SPAN, MINUTE),
            minute: RecentSums::new(MINUTE, MINUTE / 12),
        }
    }
}

/// A copy of the state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The roots; empty while the watch waits for a correct configuration file.
    pub(crate) roots: Vec<RootStatus>,
    pub(crate) summary: Summary,
    /// The shapes of temps that are known from healthy renames.
    pub(crate) learned: Vec<KnownShape>,
    pub(crate) tracked: usize,
    /// The time since the last create event of a temp, in milliseconds.
    pub(crate) last_created_ms: Option<u64>,
    /// The configuration file that is in force.
    pub(crate) config: Option<PathBuf>,
    /// The error in the current configuration file, because of which that file is not in force.
    pub(crate) config_error: Option<String>,
    /// The leaks of the last hour.
    pub(crate) leaks: Sums,
    /// For each root, the processes that hold its temps, with the numbers of these.
    pub(crate) holders: BTreeMap<PathBuf, Vec<(Holder, u64)>>,
    /// The watch has not started, because the configuration file is wrong.
    pub(crate) is_waiting: bool,
}

impl WatchStatus {
    pub(crate) fn new(is_background: bool) -> WatchStatus {
        WatchStatus {
            program: Program::current(),
            since: clock::wall(),
            is_background,
            content: Mutex::default(),
        }
    }

    /// Stores the handle of the watch that has started.
    pub(crate) fn set_status_handle(&self, handle: StatusHandle) {
        self.lock_content().status_handle = Some(handle);
    }

    /// Stores the path of the configuration file that was read, or its error. With an error, the previous
    /// configuration stays in force.
    pub(crate) fn set_config(&self, config: Option<PathBuf>, config_error: Option<String>) {
        let mut content = self.lock_content();
        if config_error.is_none() {
            content.config = config;
        }
        content.config_error = config_error;
    }

    /// Stores the roots, whose rules determine the groups.
    pub(crate) fn set_roots(&self, roots: &[Root]) {
        self.lock_content().grouping = Grouping::new(roots);
    }

    /// Counts the temp of `event` as a leak of its group, and returns both, if the event concerns a disposed temp.
    pub(crate) fn note_leak<'e>(&self, event: &'e Event) -> Option<(SumKey, Summand<'e>)> {
        if !matches!(event, Event::Reaped(_) | Event::Quarantined { .. }) {
            return None;
        }
        let mut content = self.lock_content();
        let (key, one) = content.grouping.of_event(event)?;
        let now = clock::mono();
        content.hour.add(now, key.clone(), one);
        content.minute.add(now, key.clone(), one);
        Some((key, one))
    }

    /// Remembers or forgets the processes that hold the temp of `event`.
    pub(crate) fn note_holders(&self, event: &Event) {
        let mut content = self.lock_content();
        let handle = content.status_handle.clone();
        content
            .held
            .note(event, |path| is_held(handle.as_ref(), path));
    }

    /// Returns the leaks of the last minute.
    pub(crate) fn last_minute(&self) -> Sums {
        self.lock_content().minute.before(clock::mono())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let content = self.lock_content();
        let handle = content.status_handle.clone();
        let mut snapshot = Snapshot {
            roots: Vec::new(),
            summary: Summary::default(),
            learned: Vec::new(),
            tracked: 0,
            last_created_ms: None,
            config: content.config.clone(),
            config_error: content.config_error.clone(),
            leaks: content.hour.before(clock::mono()),
            holders: content
                .held
                .by_root(|path| is_held(handle.as_ref(), path), is_running),
            is_waiting: handle.is_none(),
        };
        drop(content);
        if let Some(handle) = handle {
            snapshot.roots = handle.roots();
            snapshot.summary = handle.summary();
            snapshot.learned = handle.known_shapes();
            snapshot.tracked = handle.tracked();
            let ago = handle.last_created().map(|ago| ago.as_millis());
            snapshot.last_created_ms = ago.and_then(|ms| u64::try_from(ms).ok());
        }
        snapshot
    }

    fn lock_content(&self) -> MutexGuard<'_, StatusContent> {
        guard(&self.content)
    }
}

impl Snapshot {
    /// Returns the problems that keep the watch from working, for people; empty if there are none.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let doctor = Suggestion::new("doctor").configured();
        if let Some(config_error) = &self.config_error {
            let then = match self.is_waiting {
                true => "nothing is watched or removed until it is fixed",
                false => "the previous rules are still in force",
            };
            problems.push(format!("{config_error}; {then}"));
        }
        for one in &self.roots {
            let root = text::escaped(&one.root.path);
            match state(one) {
                RootState::Polling => problems.push(format!(
                    "{root} cannot be watched; it is scanned periodically instead; to find the cause: {doctor}"
                )),
                RootState::Denied => problems.push(format!(
                    "{root} cannot be opened, or another orphand process works on it; to find the cause: {doctor}"
                )),
                RootState::NoAnswer => problems.push(format!(
                    "the file system of {root} does not answer; orphand watches it again when it answers; to find \
                     the cause: {doctor}"
                )),
                RootState::Blind => {
                    problems.push(format!(
                        "changes in {root} cannot be noticed; to find the cause: {doctor}"
                    ));
                }
                _ => {}
            }
            if is_blind(one) {
                problems.push(format!(
                    "{root} has temps that cannot be proven unused; to find the cause: {doctor}"
                ));
            }
        }
        problems
    }

    /// Returns the status in one line: `watching 2 directories, 3 waiting, 0 kept, 51.2 GB freed`.
    pub(crate) fn line(&self) -> String {
        if self.is_waiting {
            return format!(
                "degraded: {}",
                self.config_error.as_deref().unwrap_or("not watching yet")
            );
        }
        let roots = text::counted(self.roots.len() as u64, "directory", "directories");
        let waiting: usize = self.roots.iter().map(|one| one.pending.waiting).sum();
        let held: usize = self.roots.iter().map(|one| one.pending.held).sum();
        let mut line = format!(
            "watching {roots}, {} waiting, {} kept, {} freed",
            text::count(waiting as u64),
            text::count(held as u64),
            text::size(self.summary.freed.disk_bytes)
        );
        if self.config_error.is_some() {
            line.push_str("; the configuration file has an error: orphand status");
        }
        line
    }
}

/// Reports whether the temp at `path` is kept because a process uses it.
fn is_held(handle: Option<&StatusHandle>, path: &Path) -> bool {
    let reason = handle.and_then(|handle| handle.kept_for(path));
    reason.is_some_and(Reason::is_held)
}

/// Reports whether a process has this pid.
fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Returns the state of a root. A root without a recorded state is watched.
pub(crate) fn state(one: &RootStatus) -> RootState {
    one.stats.state.unwrap_or(RootState::Watching)
}

/// Returns whether a root has temps that are kept because nothing proves whether they are in use.
pub(crate) fn is_blind(one: &RootStatus) -> bool {
    let unknown = one.pending.reasons.get(Reason::CannotTell.as_str());
    state(one) == RootState::Blind || unknown.is_some_and(|n| *n > 0)
}

/// Returns the lines about the largest leaks in `sums`: `openclaw-gateway left 12 temps (71 MB) in /srv/app/sessions/
/// (x.json.<uuid>.tmp) in the last hour`.
pub(crate) fn leak_lines(sums: &Sums) -> Vec<String> {
    let largest = sums.largest_first();
    let shown = largest.iter().take(MAX_GROUPS);
    let lines = shown.map(|(key, sum)| leak_line(key, sum));
    let hidden = groups::hidden_groups(sums, MAX_GROUPS);
    lines.chain(hidden.line()).collect()
}

/// Returns the line about one group of leaks.
pub(crate) fn leak_line(key: &SumKey, sum: &TempSum) -> String {
    let name = |name: &OsStr| text::escaped(Path::new(name));
    let programs = groups::programs(sum);
    let target = sum.target().and_then(|target| target.file_name());
    let who = match target {
        _ if !programs.is_empty() => programs,
        Some(target) => format!("the writer of \"{}\"", name(target)),
        None => "an unknown writer".to_owned(),
    };
    format!(
        "{who} left {} ({}) in {}/ ({}) in the last hour",
        text::counted(sum.temps, "temp", "temps"),
        text::size(sum.size.bytes),
        text::escaped(&key.dir).trim_end_matches('/'),
        name(&key.shape)
    )
}
