//! The thread that learns the shapes of temps from healthy renames.
//!
//! It sleeps until a callback has followed a file, and then collects for a second. It is the only part of the learning
//! that looks at files. Without it, everything else works as before.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::learning::{Content, Leftover, Unsaved};
use super::shared::Shared;
use crate::core::learn::{Created, DirId, LateFile, Renamed};
use crate::core::observation::Kind;
use crate::core::own_names::is_own;
use crate::core::policy::Learn;
use crate::core::time::Mono;
use crate::evidence::learned::AppearedFile;
use crate::fs::dir::{Dir, has_access_times};
use crate::sys::clock;
use crate::watch::Seen;

/// The time for which the thread collects what is seen before it learns from that.
const COLLECT_FOR: Duration = Duration::from_secs(1);

/// The shortest time between two writes of the file of shapes if only the counts of healthy writes have changed, or if
/// the last write of the file has failed.
const STORE_COUNTS_EVERY: Duration = Duration::from_secs(60);

/// The shortest time between two writes of the file of shapes for any other change. Commands read the file, so a shape
/// must not stay in force there for long after there is evidence against it.
const STORE_KNOWLEDGE_EVERY: Duration = Duration::from_secs(3);

/// Starts the thread. If that is not possible, nothing is learned.
pub(super) fn start(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("orphand-learner".into());
    let shared = Arc::clone(shared);
    thread.spawn(move || run(&shared)).ok()
}

/// Ends the thread. A file system that does not answer may block it; the thread is then abandoned.
pub(super) fn end(shared: &Shared, thread: JoinHandle<()>) {
    const WAIT: Duration = Duration::from_secs(2);
    let began = clock::mono();
    while !thread.is_finished() && clock::mono().since(began) < WAIT {
        shared.learning.feed.wake();
        std::thread::sleep(Duration::from_millis(1));
    }
    if thread.is_finished() {
        let _ = thread.join();
    }
}

/// Learns until the watch ends.
fn run(shared: &Shared) {
    let (learning, wake_rx) = (&shared.learning, shared.learning.feed.wake_rx());
    let mut storing = Storing::default();
    learning.load(shared.folders.state.as_deref());
    use_shapes(shared);
    while !shared.is_stopping() {
        let late = learning.content().learner.next_late(clock::mono());
        // A second more, because a file is late only once its time is over.
        let late = late.map(|late| late + COLLECT_FOR);
        // Without a followed file and with everything stored, the thread sleeps until something is seen.
        let next = late.into_iter().chain(storing.due_in(shared)).min();
        let woken = match next {
            Some(next) => wake_rx.recv_timeout(next),
            None => wake_rx.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if woken == Err(RecvTimeoutError::Disconnected) || shared.is_stopping() {
            break;
        }
        if woken.is_ok() {
            let _ = wake_rx.recv_timeout(COLLECT_FOR);
        }
        learn(shared);
        use_shapes(shared);
        if storing.due_in(shared).is_some_and(|due| due.is_zero()) {
            storing.store(shared);
        }
    }
    // The last events, and reads of files since then, may be evidence against a shape.
    learn(shared);
    storing.store(shared);
}

/// Puts the shapes in force that are learned well enough.
fn use_shapes(shared: &Shared) {
    shared
        .engine
        .shapes
        .set(shared.learning.learned_well().iter());
    take_leftovers(shared);
}

/// Tracks the files that only a learned shape takes, by a rule with `learn = "take"`.
fn take_leftovers(shared: &Shared) {
    let leftovers = shared.learning.content().leftovers.clone();
    let mut appeared = HashMap::<DirId, HashMap<OsString, AppearedFile>>::new();
    let mut paths = Vec::new();
    for leftover in leftovers {
        if let Some(file) = taken_by_shape(shared, &leftover)
            && let Some(name) = leftover.path.file_name()
        {
            let of_dir = appeared.entry(leftover.dir).or_default();
            of_dir.insert(name.to_owned(), file);
            paths.push(leftover.path);
        }
    }
    shared.engine.shapes.set_appeared(appeared);
    for path in paths {
        let _ = shared.temps.record_appeared(&path, clock::mono());
    }
}

/// Returns the file of a leftover if only a learned shape takes it: the rule says so, and the file is still the one whose
/// creation was seen.
fn taken_by_shape(shared: &Shared, leftover: &Leftover) -> Option<AppearedFile> {
    /// The longest time between the creation of a file and its event.
    const EVENT_DELAY: Duration = Duration::from_secs(1);
    let (path, active_roots) = (&leftover.path, shared.active_roots());
    let (active, below) = active_roots.root_of(path.parent()?)?;
    let (root, name) = (&active.root, path.file_name()?);
    if rule!("only-if-told-to-take", root.policy.learn != Learn::Take) {
        return None;
    }
    let is_temp = root.policy.is_temp(below, name);
    if is_temp || root.policy.exclude.excludes(&below.join(name)) {
        return None;
    }
    let dir = Dir::open_below(&root.path, active.id(), below).ok()?;
    let seen = dir.observe(name).ok()??.fingerprint;
    let file = AppearedFile::new(&seen).filter(|_| seen.kind == Kind::File)?;
    let root = shared.engine.shapes.root_in(root, &dir);
    root.policy.names.telling_shape(name.as_bytes(), seen.uid)?;
    let age = clock::mono().since(leftover.created);
    let off = clock::wall().since(file.born()).abs_diff(age);
    let is_created = rule!("appeared-in-this-watch", off <= EVENT_DELAY, without: true);
    let is_same_dir = DirId::from(dir.id()) == leftover.dir;
    let was_read = dir.was_read_after_write(name).ok()?;
    (is_created && is_same_dir && !was_read).then_some(file)
}

/// Decides when the shapes are stored, and stores them.
#[derive(Debug, Default)]
struct Storing {
    /// The time of the last attempt.
    tried_at: Option<Mono>,
    /// The last attempt has failed.
    has_failed: bool,
}

impl Storing {
    /// Returns the folder for the shapes. A dry run creates no files.
    fn folder(shared: &Shared) -> Option<&Path> {
        let active_roots = shared.active_roots();
        let is_dry_run = active_roots.roots().all(|root| root.policy.is_dry_run());
        let state = shared.folders.state.as_deref();
        rule!("dry-run-stores-no-shapes", state.filter(|_| !is_dry_run), without: state)
    }

    /// Returns the time until the shapes must be stored. `None` if nothing has to be stored.
    fn due_in(&self, shared: &Shared) -> Option<Duration> {
        Storing::folder(shared)?;
        let every = match shared.learning.unsaved()? {
            Unsaved::Knowledge if !self.has_failed => STORE_KNOWLEDGE_EVERY,
            Unsaved::Knowledge | Unsaved::Counts => STORE_COUNTS_EVERY,
        };
        let due = self.tried_at.map(|tried_at| tried_at.after(every));
        Some(due.map_or(Duration::ZERO, |due| due.since(clock::mono())))
    }

    /// Stores the shapes, and reports the first error.
    fn store(&mut self, shared: &Shared) {
        let Some(folder) = Storing::folder(shared) else {
            return;
        };
        self.tried_at = Some(clock::mono());
        let stored = shared.learning.store(folder);
        if let Err(error) = &stored
            && !self.has_failed
        {
            log::warn!("cannot store the learned shapes of temps: {error}; the watch continues");
        }
        self.has_failed = stored.is_err();
    }
}

/// Learns from everything that was seen.
fn learn(shared: &Shared) {
    let seen = shared.learning.feed.take();
    let mut dirs = Dirs {
        shared,
        opened: HashMap::new(),
    };
    let mut steps = Vec::with_capacity(seen.len());
    for item in &seen {
        steps.extend(dirs.step(item));
    }
    let opened = dirs.opened.into_iter();
    let opened = opened.filter_map(|(path, dir)| Some((dir?.0, path.to_owned())));
    let now = clock::mono();
    learn_steps(&mut shared.learning.content(), steps, opened, now);
    observe_leftovers(shared, now);
    let content = &mut *shared.learning.content();
    let is_used = |id: &DirId| content.learner.has_shapes_in(*id);
    content.dirs.retain(|id, _| is_used(id));
}

/// Passes `steps` to the learner, and observes the files that no rename followed. `opened` are the directories of all
/// files.
fn learn_steps(
    content: &mut Content,
    steps: Vec<Step<'_>>,
    opened: impl Iterator<Item = (DirId, PathBuf)>,
    now: Mono,
) {
    for step in steps {
        match step {
            Step::Created(created) => _ = content.learner.created(created),
            Step::Renamed(renamed) => content.learner.renamed(&renamed),
            Step::Removed(dir, name) => content.learner.removed(dir, name),
            Step::Lost => content.learner.forget_pending(),
        }
    }
    let late = content.learner.expire(now, clock::wall());
    content.dirs.extend(opened);
    for LateFile { dir, name, created } in late {
        if let Some(path) = content.dirs.get(&dir) {
            content.observe_later(Leftover {
                dir,
                path: path.join(OsStr::from_bytes(&name)),
                late_at: now,
                created,
            });
        }
    }
}

/// A message to the learner.
enum Step<'a> {
    Created(Created<'a>),
    Renamed(Renamed<'a>),
    Removed(DirId, &'a [u8]),
    Lost,
}

/// The directories of the files that were seen, which are opened once.
struct Dirs<'a> {
    shared: &'a Shared,
    opened: HashMap<&'a Path, Option<(DirId, Dir)>>,
}

impl<'a> Dirs<'a> {
    /// Returns the message to the learner about an item. `None` if nothing is learned from it.
    fn step(&mut self, item: &'a Seen) -> Option<Step<'a>> {
        match item {
            Seen::Created(path, at) => {
                let (dir, name) = split(path)?;
                let (dir, _) = self.open(dir)?;
                Some(Step::Created(Created {
                    dir: *dir,
                    name,
                    at: *at,
                }))
            }
            Seen::Removed(path) => {
                let (dir, name) = split(path)?;
                let (dir, _) = self.open(dir)?;
                Some(Step::Removed(*dir, name))
            }
            Seen::Renamed(from, to, at) => self.renamed(from, to, *at),
            Seen::Lost => Some(Step::Lost),
        }
    }

    fn renamed(&mut self, from: &'a Path, to: &'a Path, at: Mono) -> Option<Step<'a>> {
        let (dir, temp) = split(from)?;
        let (to_dir, target) = split(to)?;
        let (id, opened) = self.open(dir)?;
        let target_name = to.file_name()?;
        // orphand itself gives a temp another name before it removes it.
        if dir != to_dir || is_own(target_name) {
            return Some(Step::Removed(*id, temp));
        }
        // Another file may have the name by now. It was put there by a rename too, as a rule of the same owner.
        let Ok(Some(seen)) = opened.observe(target_name) else {
            return Some(Step::Removed(*id, temp));
        };
        if seen.fingerprint.kind != Kind::File {
            return Some(Step::Removed(*id, temp));
        }
        Some(Step::Renamed(Renamed {
            dir: *id,
            temp,
            target,
            owner: seen.fingerprint.uid,
            born: seen.fingerprint.btime,
            at,
            wall: clock::wall(),
        }))
    }

    fn open(&mut self, dir: &'a Path) -> Option<&(DirId, Dir)> {
        let shared = self.shared;
        let opened = self.opened.entry(dir).or_insert_with(|| {
            let active_roots = shared.active_roots();
            let (active, below) = active_roots.root_of(dir)?;
            if active.root.policy.learn == Learn::Off {
                return None;
            }
            let opened = Dir::open_below(&active.root.path, active.id(), below).ok()?;
            Some((opened.id().into(), opened))
        });
        opened.as_ref()
    }
}

/// Returns the directory and the base name of a path.
fn split(path: &Path) -> Option<(&Path, &[u8])> {
    Some((path.parent()?, path.file_name()?.as_bytes()))
}

/// Tells the learner which leftovers were read after their whole grace, and forgets those that no longer exist.
///
/// The lock on what was learned is not held during the calls to the file system, which may not answer: the status of the
/// watch needs that lock too.
fn observe_leftovers(shared: &Shared, now: Mono) {
    let all = std::mem::take(&mut shared.learning.content().leftovers);
    let mut kept = Vec::with_capacity(all.len());
    let mut read = Vec::new();
    for leftover in all {
        let Some(grace) = grace_of(shared, &leftover.path) else {
            continue;
        };
        let is_due = now.since(leftover.late_at) >= grace;
        match is_due.then(|| was_read_after(&leftover.path, grace)) {
            None | Some(Some(false)) => kept.push(leftover),
            Some(Some(true)) => read.push(leftover),
            Some(None) => {}
        }
    }
    let content = &mut *shared.learning.content();
    for leftover in read {
        let name = leftover.path.file_name().unwrap_or_default();
        content.learner.was_read(leftover.dir, name.as_bytes());
    }
    content.leftovers = kept;
}

/// Returns the grace of a file by the rule of its directory, if there is one.
fn grace_of(shared: &Shared, path: &Path) -> Option<Duration> {
    let active_roots = shared.active_roots();
    let (active, _) = active_roots.root_of(path.parent()?)?;
    let policy = &active.root.policy;
    let parsed = policy.names.parse(path.file_name().unwrap_or_default());
    Some(policy.grace_of(&parsed, false, Duration::ZERO))
}

/// Returns whether a file was read later than `grace` after its last write, or true if this is unknown. Returns `None`
/// if it no longer exists.
fn was_read_after(path: &Path, grace: Duration) -> Option<bool> {
    let seen = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        seen => seen.ok(),
    };
    // Without access times a read leaves no trace.
    Some(
        !has_access_times(path)
            || seen.is_none_or(|seen| {
                let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
                seen.atime() > seen.mtime().saturating_add(grace)
            }),
    )
}
