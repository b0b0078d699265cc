//! The keeper: attaches roots, and attaches them again when that is needed.
//!
//! To attach is to watch first and scan second: what is created in between is heard of twice, which
//! is dull, instead of never. The same door serves the start, lost events, roots that return,
//! directories that appear, and the hourly look at everything.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};

use super::{Existing, Shared, Territory, Whose, guard};
use crate::clock;
use crate::decide::policy::Closed;
use crate::decide::retention::Trust;
use crate::decide::time::{ClockWatch, Now, Wall};
use crate::decide::tracker::Origin;
use crate::event::{Cause, Event, RootState, Subject};
use crate::evidence::Asker;
use crate::ledger::Scan;
use crate::look::{Dir, RootError, RootId};
use crate::pass::{self, Ground};
use crate::reap::quarantine::{self, Keeping, Room};
use crate::root::Root;
use crate::scan::{self, Met};
use crate::state::RootLock;
use crate::watch::debounce::Calmer;
use crate::watch::{Inlet, Kernel, RECURSIVE, Rare, Unwatched};

/// What the keeper is told by the other threads.
#[derive(Debug)]
pub(super) enum Word {
    /// Something was moved to a quarantine.
    Quarantined,
    /// Other rules are to hold.
    Territory(Territory),
    /// Somebody wants to know whether this thread comes round.
    Round,
    /// End.
    Stop,
}

/// One root, as it stands.
struct Post {
    state: RootState,
    lock: Option<RootLock>,
    /// Directories that are watched, and what they were then.
    watched: HashMap<PathBuf, RootId>,
}

impl Post {
    fn new(lock: Option<RootLock>) -> Post {
        Post {
            state: RootState::Watching,
            lock,
            watched: HashMap::new(),
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    /// The rules in force. Only this thread changes them.
    territory: Arc<Territory>,
    kernel: Kernel,
    posts: Vec<Post>,
    calmer: Calmer,
    /// Claims left by a crash are put in order under this thread's leases.
    asker: Asker,
    alarm: Alarm,
    clocks: ClockWatch,
    /// When the watch began.
    began: Now,
}

/// When the keeper does something by itself.
#[derive(Default)]
struct Alarm {
    /// Events were lost: scan everything then.
    lost: Option<Instant>,
    /// How long to wait before that, the next time.
    back_off: Duration,
    /// The last time that everything was scanned because of it.
    last: Option<Instant>,
    /// Every root is due for its scan by time.
    periodic: Option<Instant>,
    /// Roots that are not watched are scanned.
    polling: Option<Instant>,
}

/// The longest wait between two scans because of lost events.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

pub(super) fn run(
    shared: Arc<Shared>,
    inlet: Inlet,
    locks: Vec<Option<RootLock>>,
    timer: JoinHandle<()>,
    rare: &Receiver<Rare>,
    words: &Receiver<Word>,
) {
    let (calm, calmed) = unbounded();
    let _guard = Guard(Arc::clone(&shared));
    let began = clock::now();
    let mut clocks = ClockWatch::default();
    clocks.read(began);
    let mut keeper = Keeper {
        kernel: Kernel::new(inlet),
        posts: locks.into_iter().map(Post::new).collect(),
        calmer: Calmer::new(calm),
        asker: Asker::new(),
        alarm: Alarm::default(),
        clocks,
        began,
        territory: shared.territory(),
        shared,
    };
    keeper.start();
    keeper.listen(rare, words, &calmed);
    keeper.end(timer);
}

/// A keeper that panics ends the watcher: nobody would attach a root again.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a mistake in orphand has ended its keeper thread; the watch ends with it");
            self.0
                .stopping
                .store(true, std::sync::atomic::Ordering::SeqCst);
            guard(&self.0.ledger).total.failed += 1;
            self.0.temps.wake();
            *guard(&self.0.events) = None;
        }
    }
}

impl Keeper {
    fn start(&mut self) {
        for index in 0..self.posts.len() {
            self.attach(index, Cause::Startup);
        }
        self.tend_quarantines();
        self.shared.tell(Event::Ready {
            roots: self
                .territory
                .roots
                .iter()
                .map(|root| root.path.clone())
                .collect(),
            tracked: self.shared.temps.len(),
        });
        self.alarm.periodic = Instant::now().checked_add(self.shared.rescan);
    }

    fn listen(
        &mut self,
        rare: &Receiver<Rare>,
        words: &Receiver<Word>,
        calmed: &Receiver<Vec<PathBuf>>,
    ) {
        while !self.shared.is_stopping() {
            self.shared.round(Whose::Keeper);
            let mut select = Select::new();
            let word = select.recv(words);
            let hint = select.recv(rare);
            let calm = select.recv(calmed);
            let ready = match self.next_alarm() {
                Some(at) => select.ready_deadline(at).ok(),
                None => Some(select.ready()),
            };
            match ready {
                None => self.on_alarm(),
                Some(i) if i == word => match words.try_recv() {
                    Ok(Word::Quarantined) => self.tend_quarantines(),
                    Ok(Word::Territory(territory)) => self.reload(territory),
                    Ok(Word::Stop) => return,
                    Ok(Word::Round) | Err(_) => {}
                },
                Some(i) if i == hint => self.on_hints(rare),
                Some(i) if i == calm => {
                    let paths: BTreeSet<PathBuf> = calmed.try_iter().flatten().collect();
                    paths.iter().for_each(|path| self.restructure(path));
                }
                Some(_) => {}
            }
        }
    }

    /// Takes in all hints that are there: a storm of them is answered once.
    fn on_hints(&mut self, rare: &Receiver<Rare>) {
        let (mut check, mut dead) = (false, false);
        for hint in rare.try_iter() {
            match hint {
                Rare::Structure(path) | Rare::SelfGone(path) => {
                    check |= self
                        .territory
                        .roots
                        .iter()
                        .any(|root| root.path.starts_with(&path));
                    self.doubt(&path);
                    self.calmer.feed(path);
                }
                Rare::Parent => check = true,
                Rare::Lost => self.lost(),
                Rare::Error(error) => {
                    log::warn!("watching: {error}; everything is scanned again");
                    self.lost();
                }
                Rare::Dead(generation) => dead |= generation == self.kernel.generation(),
            }
        }
        if dead && !self.shared.is_stopping() {
            log::error!("the thread that hears the kernel's events has ended; it is started anew");
            self.kernel.clear();
            for post in &mut self.posts {
                post.watched.clear();
            }
            self.rescan_all(Cause::Overflow);
        } else if check {
            for index in 0..self.posts.len() {
                self.check(index);
            }
        }
    }

    /// The watch on `path` may be dead with the directory that it was on, even where the next one
    /// there looks the same: it is set anew when that is attached.
    fn doubt(&mut self, path: &Path) {
        for post in &mut self.posts {
            if post.watched.remove(path).is_some() {
                self.kernel.unwatch(path);
            }
        }
    }

    fn lost(&mut self) {
        if self.alarm.lost.is_some() {
            return;
        }
        let now = Instant::now();
        // Calm for long enough: no reason to wait any more.
        if self
            .alarm
            .last
            .is_none_or(|last| now - last > LONGEST_BACK_OFF * 2)
        {
            self.alarm.back_off = Duration::ZERO;
        }
        self.alarm.lost = Some(now + self.alarm.back_off);
    }

    fn next_alarm(&self) -> Option<Instant> {
        let alarm = &self.alarm;
        let times = [
            alarm.lost,
            alarm.periodic,
            alarm.polling,
            self.calmer.rests_at(),
        ];
        times.into_iter().flatten().min()
    }

    fn on_alarm(&mut self) {
        let now = Instant::now();
        self.calmer.rest();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.alarm.lost) {
            self.rescan_all(Cause::Overflow);
            self.alarm.lost = None;
            self.alarm.last = Some(Instant::now());
            let back_off = (self.alarm.back_off * 2).max(now.elapsed() * 4);
            self.alarm.back_off = back_off.clamp(Duration::from_millis(100), LONGEST_BACK_OFF);
        }
        if is_due(self.alarm.periodic) {
            self.rescan_all(Cause::Periodic);
            self.tend_quarantines();
            self.alarm.periodic = Instant::now().checked_add(self.shared.rescan);
        }
        if is_due(self.alarm.polling) {
            self.alarm.polling = None;
            for index in 0..self.posts.len() {
                if self.state(index) == Some(RootState::Polling) {
                    self.attach(index, Cause::Periodic);
                }
            }
        }
    }

    /// Puts other rules in force: the roots that both have keep their locks, and what is known of
    /// their temps. All watches are set anew, because each hears names by all rules.
    fn reload(&mut self, territory: Territory) {
        let old = std::mem::replace(&mut self.territory, Arc::new(territory));
        let territory = Arc::clone(&self.territory);
        let mut posts: Vec<Option<Post>> = self.posts.drain(..).map(Some).collect();
        let mut known = Vec::new();
        for (index, root) in territory.roots.iter().enumerate() {
            let before = old.roots.iter().position(|old| old.path == root.path);
            let post = before.and_then(|before| posts.get_mut(before)?.take());
            territory.set_id(index, before.and_then(|before| old.id(before)));
            known.push(post.is_some());
            let mut post = post.unwrap_or_else(|| Post::new(None));
            post.watched.clear();
            self.posts.push(post);
        }
        // The locks of roots that are listed no more end here.
        drop(posts);
        if let Some(shortest) = territory.shortest() {
            self.shared.temps.set_shortest(shortest);
        }
        self.kernel.renew(Arc::clone(&territory.roots));
        self.shared.set_territory(Arc::clone(&territory));
        self.shared.temps.review(clock::mono(), |path| {
            path.parent()
                .is_some_and(|dir| territory.root_of(dir).is_some())
        });
        for (index, known) in known.into_iter().enumerate() {
            self.attach(
                index,
                if known {
                    Cause::Periodic
                } else {
                    Cause::Startup
                },
            );
        }
        self.tend_quarantines();
    }

    fn rescan_all(&mut self, cause: Cause) {
        for index in 0..self.posts.len() {
            self.attach(index, cause);
        }
    }

    fn state(&self, index: usize) -> Option<RootState> {
        self.posts.get(index).map(|post| post.state)
    }

    fn set_state(&mut self, index: usize, state: RootState) {
        let root = self.root(index).path;
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        if std::mem::replace(&mut post.state, state) != state {
            self.shared.tell(Event::Root { root, state });
        }
    }

    fn root(&self, index: usize) -> Root {
        // There is a post for each root, and both are changed together.
        #[allow(clippy::indexing_slicing)]
        self.territory.roots[index].clone()
    }

    /// Whether what stands at the root's path is still what was attached; if not, attaches that.
    fn check(&mut self, index: usize) {
        let root = self.root(index);
        let known = self.territory.id(index);
        match (RootId::of(&root.path), known) {
            (Ok(now), Some(known)) if now == known && self.is_watched(index, &root) => {}
            (Err(_), None) if self.state(index) == Some(RootState::Gone) => {
                // It is still away, but what led to it may have changed.
                self.kernel.watch_parents(&root.path);
                if RootId::of(&root.path).is_ok() {
                    self.attach(index, Cause::RootReturned);
                }
            }
            _ => self.attach(index, Cause::RootReturned),
        }
    }

    fn is_watched(&self, index: usize, root: &Root) -> bool {
        let watched = |post: &Post| {
            post.state != RootState::Watching || post.watched.contains_key(&root.path)
        };
        self.posts.get(index).is_some_and(watched)
    }

    /// Watches a root and scans it. What was known of another directory at its path is forgotten.
    fn attach(&mut self, index: usize, cause: Cause) {
        let root = self.root(index);
        self.kernel.watch_parents(&root.path);
        let id = match RootId::of(&root.path) {
            Ok(id) => id,
            Err(error) => return self.away(index, &root, &error),
        };
        let replaced = self.territory.id(index).is_some_and(|known| known != id);
        if replaced {
            self.detach(index, &root);
        }
        if !self.has_lock(index, &root) {
            return self.set_state(index, RootState::Denied);
        }
        self.territory.set_id(index, Some(id));
        let returned = replaced || self.state(index) == Some(RootState::Gone);
        let cause = match cause {
            Cause::Periodic | Cause::Overflow if returned => Cause::RootReturned,
            cause => cause,
        };
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        let state = match watch(&mut self.kernel, post, &root, &root.path, id) {
            Ok(()) => RootState::Watching,
            Err(Unwatched::Gone) => {
                return self.away(index, &root, &RootError::Missing);
            }
            Err(why) => {
                self.unwatched(&root, &root.path, &why);
                RootState::Polling
            }
        };
        self.set_state(index, state);
        let path = root.path.clone();
        self.shared.tell(Event::Rescan { root: path, cause });
        if cause == Cause::Startup && !root.policy.is_dry_run() {
            // Nothing is tracked here yet, so nothing is on its way to the quarantine.
            if let Ok(Some(room)) = Room::find(&root.path, Some(id)) {
                room.tidy();
            }
        }
        self.scan(index, &root, Path::new(""), cause);
    }

    fn away(&mut self, index: usize, root: &Root, error: &RootError) {
        self.detach(index, root);
        let state = match error {
            RootError::Missing | RootError::Replaced => RootState::Gone,
            RootError::NotADirectory | RootError::Symlink { .. } | RootError::Io(_) => {
                log::warn!("{:?} is not watched: {error}", root.path);
                RootState::Denied
            }
        };
        self.set_state(index, state);
        // RACE: it may have come between the look and the watch on its parent. One more look.
        if state == RootState::Gone && RootId::of(&root.path).is_ok() {
            self.attach(index, Cause::RootReturned);
        }
    }

    fn detach(&mut self, index: usize, root: &Root) {
        self.territory.set_id(index, None);
        self.shared.temps.forget_below(&root.path);
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        for (dir, _) in post.watched.drain() {
            self.kernel.unwatch(&dir);
        }
        // The lock was on a directory that is not there any more.
        post.lock = None;
    }

    fn has_lock(&mut self, index: usize, root: &Root) -> bool {
        let Some(post) = self.posts.get_mut(index) else {
            return false;
        };
        if post.lock.is_some() {
            return true;
        }
        match super::lock(root, self.shared.folders.runtime.as_deref()) {
            Ok(lock) => {
                post.lock = lock;
                true
            }
            Err(pid) => {
                log::warn!("another orphand (pid {pid:?}) works on {:?}", root.path);
                false
            }
        }
    }

    fn unwatched(&mut self, root: &Root, dir: &Path, why: &Unwatched) {
        let every = poll_interval(root);
        match why {
            Unwatched::Limit => log::warn!(
                "cannot watch {dir:?}: the limit of inotify watches or instances is reached. \
                 This is not a full disk, though Linux calls it \"no space left on device\". \
                 Now: sudo sysctl fs.inotify.max_user_watches=524288 \
                 fs.inotify.max_user_instances=1024. \
                 Meanwhile it is scanned every {every:?}: nothing is missed, only later"
            ),
            Unwatched::Gone => return,
            Unwatched::Other(error) => {
                log::warn!("cannot watch {dir:?}: {error}; it is scanned every {every:?} instead");
            }
        }
        let at = Instant::now() + every;
        self.alarm.polling = Some(self.alarm.polling.map_or(at, |known| known.min(at)));
    }

    /// Scans the directory `below` a root: watches what is below it, and tracks what is there.
    fn scan(&mut self, index: usize, root: &Root, below: &Path, cause: Cause) {
        let origin = match (cause, self.shared.existing) {
            (Cause::Startup | Cause::RootReturned, Existing::Leave) => None,
            // What comes back with its directory may have been there before, too.
            (Cause::Startup | Cause::RootReturned, Existing::Wait) => Some(Origin::FoundToWait),
            _ => Some(Origin::Found),
        };
        let (shared, started) = (Arc::clone(&self.shared), clock::mono());
        let id = self.territory.id(index);
        let recovers = !root.policy.is_dry_run();
        let began = self.began.wall;
        let claims = Mutex::new(Vec::new());
        let denied = Mutex::new(Vec::new());
        // The walk has several threads, the kernel's watcher has one door.
        let unwatched = Mutex::new(Vec::new());
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        let door = Mutex::new((&mut self.kernel, post));
        let walked = scan::scan(root, id, below, &|met| match met {
            Met::Dir(dir) if !RECURSIVE && !dir.below().as_os_str().is_empty() => {
                let (kernel, post) = &mut *guard(&door);
                if let Err(why) = watch(kernel, post, root, dir.path(), dir.id()) {
                    guard(&unwatched).push((dir.path().to_owned(), why));
                }
            }
            Met::Temp(dir, name) => {
                let (path, now) = (dir.path().join(name), clock::mono());
                match origin {
                    Some(origin) => shared.temps.found(&path, now, origin),
                    None if is_older(dir, name, began) => shared.temps.leave(&path, now),
                    None => shared.temps.found(&path, now, Origin::Found),
                }
            }
            Met::Claim(dir, name) if recovers => {
                guard(&claims).push((dir.below().to_owned(), name.to_owned()));
            }
            Met::Denied(path, error) => {
                guard(&denied).push((path.to_owned(), crate::error::copy(error)));
            }
            // A long walk is no hanging one.
            Met::Done(_) => shared.round(Whose::Keeper),
            Met::Dir(_) | Met::Claim(..) => {}
        });
        let lists = (
            into_inner(claims),
            into_inner(denied),
            into_inner(unwatched),
        );
        let (claims, denied, unwatched) = lists;
        for (below, name) in claims {
            self.recover(index, root, &below, &name);
        }
        for (dir, why) in unwatched {
            self.unwatched(root, &dir, &why);
            if matches!(why, Unwatched::Limit | Unwatched::Other(_)) {
                self.set_state(index, RootState::Polling);
            }
        }
        for (path, error) in denied {
            self.failed(root, path, "read this directory", &error);
        }
        if let Err(RootError::Io(error)) = walked
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            self.failed(root, root.path.join(below), "read this directory", &error);
        }
        let scan = Scan {
            ended: clock::wall(),
            took: clock::mono().since(started),
        };
        let directories = self.posts.get(index).map_or(0, |post| post.watched.len());
        guard(&self.shared.ledger).scanned(&root.path, scan, directories);
        self.shared.temps.wake();
    }

    fn failed(&self, root: &Root, path: PathBuf, doing: &str, error: &io::Error) {
        self.shared.tell(Event::Failed {
            subject: Subject {
                path,
                root: root.path.clone(),
                bytes: None,
            },
            error: format!("cannot {doing}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn recover(&self, index: usize, root: &Root, below: &Path, claim: &OsStr) {
        let folder = root.path.join(below);
        // A root inside another root has a rule of its own.
        if self.territory.root_of(&folder).map(|(owner, _, _)| owner) != Some(index) {
            return;
        }
        let id = self.territory.id(index);
        let ground = Ground { root, id, below };
        let mut tell = |event| self.shared.tell(event);
        let back = pass::recover(&self.shared.tools, ground, &self.asker, claim, &mut tell);
        if let Some(name) = back {
            self.shared.temps.created(&folder.join(name), clock::mono());
        }
    }

    /// Something happened at `path`: it may be a directory now, or none any more.
    fn restructure(&mut self, path: &Path) {
        let (shared, territory) = (Arc::clone(&self.shared), Arc::clone(&self.territory));
        let Some((index, root, below)) = territory.root_of(path) else {
            return;
        };
        if below.as_os_str().is_empty() {
            return self.check(index);
        }
        let now = Dir::open_below(&root.path, territory.id(index), below).map(|dir| dir.id());
        let moved = |known: &RootId| now.as_ref().is_ok_and(|now| now != known) || now.is_err();
        let stale: Vec<PathBuf> = match self.posts.get(index) {
            Some(post) if post.watched.get(path).is_none_or(moved) => post
                .watched
                .keys()
                .filter(|dir| dir.starts_with(path))
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        for dir in stale {
            self.kernel.unwatch(&dir);
            if let Some(post) = self.posts.get_mut(index) {
                post.watched.remove(&dir);
            }
            shared.temps.forget_below(&dir);
        }
        if now.is_ok() {
            self.scan(index, root, below, Cause::RootReturned);
        }
    }

    /// Drops from each quarantine what has lain there for too long or takes too much.
    fn tend_quarantines(&mut self) {
        let now = clock::now();
        let parted = self.clocks.read(now);
        let trust = Trust {
            running: now.mono.since(self.began.mono),
            since_parted: parted.map(|parted| now.mono.since(parted)),
        };
        for (index, root) in self.territory.roots.iter().enumerate() {
            let id = self.territory.id(index);
            if root.policy.is_dry_run() || id.is_none() {
                continue;
            }
            let keeping = Keeping {
                limits: self.territory.limits,
                journal: &self.shared.tools.journal,
                asker: &self.asker,
                trust,
            };
            let dropped = quarantine::tend(root, id, keeping);
            for one in dropped {
                self.shared.tell(one);
            }
        }
    }

    /// The timer ends first: nothing is half done then. Then the watchers, and the last word.
    fn end(mut self, timer: JoinHandle<()>) {
        self.shared.temps.wake();
        let _ = timer.join();
        self.kernel.clear();
        self.posts.clear();
        let summary = guard(&self.shared.ledger).total;
        self.shared.tell(Event::Summary(summary));
        *guard(&self.shared.events) = None;
    }
}

/// Watches one directory, unless it is the one that is watched already.
fn watch(
    kernel: &mut Kernel,
    post: &mut Post,
    root: &Root,
    dir: &Path,
    id: RootId,
) -> Result<(), Unwatched> {
    match post.watched.get(dir) {
        Some(known) if *known == id => return Ok(()),
        // Another directory stands there now. Watching a watched path is no news to notify.
        Some(_) => kernel.unwatch(dir),
        None => {}
    }
    let closes = root.policy.closed == Closed::Settled;
    kernel.watch(dir, closes)?;
    post.watched.insert(dir.to_owned(), id);
    Ok(())
}

/// Whether a file was there before `began`, or that cannot be told. Moving the directory that it is
/// in does not change its dates.
fn is_older(dir: &Dir, name: &OsStr, began: Wall) -> bool {
    match dir.observe(name) {
        Ok(Some(seen)) => seen.fingerprint.ctime <= began,
        _ => true,
    }
}

fn poll_interval(root: &Root) -> Duration {
    (root.policy.grace.shortest() / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
