//! The board: what a running watch shows of itself to `status` and to the metrics.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use orphand::clock;
use orphand::daemon::{RootStatus, StatusHandle};
use orphand::decide::judge::Reason;
use orphand::decide::leaks::{Leak, LeakSum, Leaks, Who};
use orphand::decide::time::Wall;
use orphand::event::{Disposed, Event, RootState, Summary};

use super::program::Program;
use super::shell::Suggestion;
use super::text;

/// What is shown. The watch writes it, and whoever asks reads it.
#[derive(Debug)]
pub(crate) struct WatchStatus {
    pub(crate) program: Program,
    pub(crate) since: Wall,
    /// It watches what the configuration file lists.
    pub(crate) is_background: bool,
    content: Mutex<StatusContent>,
}

#[derive(Debug, Default)]
struct StatusContent {
    status_handle: Option<StatusHandle>,
    config: Option<PathBuf>,
    mistake: Option<String>,
    leaks: Leaks,
}

/// A moment of it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The roots; none while the configuration is waited for.
    pub(crate) roots: Vec<RootStatus>,
    pub(crate) summary: Summary,
    pub(crate) tracked: usize,
    /// How long ago a temp was last seen being created, milliseconds.
    pub(crate) last_created_ms: Option<u64>,
    /// The configuration file that is in force.
    pub(crate) config: Option<PathBuf>,
    /// Why the file as it is now is not.
    pub(crate) mistake: Option<String>,
    pub(crate) leaks: Vec<(Leak, LeakSum)>,
    /// Nothing is watched before the configuration is right.
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

    /// The watch has begun.
    pub(crate) fn set_status_handle(&self, observer: StatusHandle) {
        self.lock_content().status_handle = Some(observer);
    }

    /// The configuration file `config` was read; or it has a mistake, and what was in force still is.
    pub(crate) fn read(&self, config: Option<PathBuf>, mistake: Option<String>) {
        let mut content = self.lock_content();
        if mistake.is_none() {
            content.config = config;
        }
        content.mistake = mistake;
    }

    /// Takes in what is said of leaks. `true`: a temp was left behind.
    pub(crate) fn note_leak(&self, event: &Event) -> bool {
        let (Event::Reaped(left) | Event::Quarantined { disposed: left, .. }) = event else {
            return false;
        };
        let bytes = left.subject.size.map_or(0, |size| size.bytes);
        self.lock_content().leaks.note(clock::mono(), leak(left), bytes);
        true
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let content = self.lock_content();
        let observer = content.status_handle.clone();
        let mut snapshot = Snapshot {
            roots: Vec::new(),
            summary: Summary::default(),
            tracked: 0,
            last_created_ms: None,
            config: content.config.clone(),
            mistake: content.mistake.clone(),
            leaks: content.leaks.within_an_hour(clock::mono()),
            is_waiting: observer.is_none(),
        };
        drop(content);
        if let Some(observer) = observer {
            snapshot.roots = observer.roots();
            snapshot.summary = observer.summary();
            snapshot.tracked = observer.tracked();
            let ago = observer.last_created().map(|ago| ago.as_millis());
            snapshot.last_created_ms = ago.and_then(|ms| u64::try_from(ms).ok());
        }
        snapshot
    }

    fn lock_content(&self) -> MutexGuard<'_, StatusContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// What keeps it from its work, in words; empty where nothing does.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        let doctor = Suggestion::new("doctor").configured();
        if let Some(mistake) = &self.mistake {
            let then = match self.is_waiting {
                true => "nothing is watched or removed until it is mended",
                false => "the rules from before are in force",
            };
            trouble.push(format!("{mistake}; {then}"));
        }
        for one in &self.roots {
            let root = text::escaped(&one.root.path);
            match state(one) {
                RootState::Watching | RootState::Gone => {}
                RootState::Polling => trouble.push(format!(
                    "{root} cannot be watched, it is scanned by time; why: {doctor}"
                )),
                RootState::Denied => trouble.push(format!(
                    "{root} may not be opened, or is another orphand's; why: {doctor}"
                )),
                RootState::NoAnswer => trouble.push(format!(
                    "the file system of {root} does not answer; it is watched when it does. Why: orphand doctor"
                )),
                RootState::Blind => {
                    trouble.push(format!("{root} cannot be judged; why: {doctor}"));
                }
            }
            if is_blind(one) {
                trouble.push(format!(
                    "{root} has temps of which nobody can tell whether they are used; why: {doctor}"
                ));
            }
        }
        trouble
    }

    /// `watching 2 roots, 3 waiting, 51.2 GB freed`
    pub(crate) fn line(&self) -> String {
        if self.is_waiting {
            return format!(
                "degraded: {}",
                self.mistake.as_deref().unwrap_or("not watching yet")
            );
        }
        let roots = text::counted(self.roots.len() as u64, "root", "roots");
        let waiting: usize = self.roots.iter().map(|one| one.pending.waiting).sum();
        let held: usize = self.roots.iter().map(|one| one.pending.held).sum();
        let mut line = format!(
            "watching {roots}, {} waiting, {} kept, {} freed",
            text::count(waiting as u64),
            text::count(held as u64),
            text::size(self.summary.freed.disk_bytes)
        );
        if self.mistake.is_some() {
            line.push_str("; the configuration file has a mistake: orphand status");
        }
        line
    }
}

/// The state of a root; nothing is said of one that is simply watched.
pub(crate) fn state(one: &RootStatus) -> RootState {
    one.root_stats.state.unwrap_or(RootState::Watching)
}

/// Something is kept because it cannot be told whether it is used.
pub(crate) fn is_blind(one: &RootStatus) -> bool {
    let unknown = one.pending.reasons.get(Reason::CannotTell.as_str());
    state(one) == RootState::Blind || unknown.is_some_and(|n| *n > 0)
}

fn leak(left: &Disposed) -> Leak {
    let target = left.target.as_deref().and_then(|target| target.file_name());
    let target = target.map(|target| target.to_string_lossy());
    let who = match (&left.writer, target) {
        (Some(program), _) => Who::Program(program.clone()),
        (None, Some(target)) => {
            // Where it is not certain that the digits are a pid, the target has them too: each temp
            // would be another writer's.
            let pid = left.writer_pid.map(|pid| format!(".{pid}"));
            let name = pid.and_then(|pid| target.strip_suffix(&pid));
            Who::WriterOf(name.unwrap_or(&target).to_owned())
        }
        (None, None) => Who::Unknown,
    };
    Leak {
        who,
        dir: left.subject.path.parent().map(Into::into),
    }
}

/// `openclaw-gateway left 12 temps (71 MB) in /srv/app/sessions/ in the last hour`
pub(crate) fn leak_line(leak: &Leak, sum: &LeakSum) -> String {
    let name = |name: &str| text::escaped(std::path::Path::new(name));
    let who = match &leak.who {
        Who::Program(program) => name(program),
        Who::WriterOf(target) => format!("the writer of \"{}\"", name(target)),
        Who::Unknown => "an unknown writer".to_owned(),
    };
    let dir = match &leak.dir {
        Some(dir) => format!("in {}/", text::escaped(dir).trim_end_matches('/')),
        None => "in other places".to_owned(),
    };
    format!(
        "{who} left {} ({}) {dir} in the last hour",
        text::counted(sum.temps, "temp", "temps"),
        text::size(sum.bytes)
    )
}
