//! One root, as it stands: what of it is watched and what is not.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock;
use crate::daemon;
use crate::decide::policy::Closed;
use crate::decide::time::Wall;
use crate::event::RootState;
use crate::look::RootId;
use crate::root::Root;
use crate::state::RootLock;
use crate::watch::{Hearing, Kernel, Limit, Unwatched};

use super::hot::Heat;

pub(super) struct Post {
    pub(super) state: RootState,
    pub(super) lock: Option<RootLock>,
    /// Directories that are watched, or scanned because they are hot.
    pub(super) watched: HashMap<PathBuf, Watched>,
    /// Those of them that have become hot. What is so no more is dropped when that is noticed.
    pub(super) hot: BTreeSet<PathBuf>,
    /// Directories that should be, and cannot.
    pub(super) unwatched: BTreeSet<PathBuf>,
    /// Mounts and subvolumes below it of which it was said that they are not entered.
    pub(super) not_entered: BTreeSet<PathBuf>,
    /// It was said that nothing proves a file unused on its file system.
    pub(super) said_no_proof: bool,
    /// How much is heard of the way to it.
    pub(super) hearing: Hearing,
    /// Another orphand works on it.
    pub(super) is_busy: bool,
    /// The system says of it what no event takes back.
    pub(super) is_broken: bool,
    /// It was said that some of it cannot be watched, and that is still so.
    pub(super) said: bool,
    /// A temp that should have been heard of and was not, since the last scan of everything by time.
    pub(super) unheard: Option<PathBuf>,
    /// How many scans of everything by time in a row have found one.
    pub(super) silent: u32,
    /// The next look at its quarantine, if that may hold files.
    pub(super) tending: Option<Tending>,
    /// How often it was scanned.
    round: u64,
}

/// The next look at a quarantine.
#[derive(Clone, Copy)]
pub(super) struct Tending {
    /// The moment when a file becomes too old; `None`: none will.
    pub(super) due: Option<Instant>,
    /// The moment to check the free space.
    pub(super) look: Instant,
}

impl Tending {
    pub(super) fn next(&self) -> Instant {
        self.due.map_or(self.look, |due| due.min(self.look))
    }
}

/// A directory that is watched, or was until it became hot.
pub(super) struct Watched {
    /// What it was then.
    pub(super) id: RootId,
    /// When that was.
    pub(super) since: Wall,
    /// Whether it is hot: then it is scanned, and its watch is taken away.
    pub(super) heat: Heat,
    /// The last scan that met it.
    round: u64,
}

/// From so many silent scans on its events are not relied upon.
const SILENT: u32 = 2;

/// How long the news of a temp may take in the worst case.
const LATE: Duration = Duration::from_secs(2);

impl Post {
    pub(super) fn new(lock: Option<RootLock>) -> Post {
        Post {
            state: RootState::Watching,
            lock,
            watched: HashMap::new(),
            hot: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            not_entered: BTreeSet::new(),
            said_no_proof: false,
            hearing: Hearing::Whole,
            is_busy: false,
            is_broken: false,
            said: false,
            unheard: None,
            silent: 0,
            tending: None,
            round: 0,
        }
    }

    /// Whether nobody else works on it. Locks it, if it is not and can be.
    pub(super) fn may_work(&mut self, root: &Root, runtime: Option<&Path>) -> bool {
        if self.lock.is_some() {
            return true;
        }
        match daemon::lock(std::slice::from_ref(root), runtime) {
            Ok(locks) => {
                self.lock = locks.into_iter().next().flatten();
                self.is_busy = false;
            }
            Err(busy) => {
                if !std::mem::replace(&mut self.is_busy, true) {
                    log::warn!("{busy}");
                }
            }
        }
        !self.is_busy
    }

    /// Nothing of it is watched any more.
    pub(super) fn forget_watches(&mut self) {
        self.watched.clear();
        self.unwatched.clear();
    }

    /// Whether its events may not arrive, all of them or some.
    pub(super) fn is_deaf(&self) -> bool {
        !self.unwatched.is_empty() || self.is_silent()
    }

    /// Whether it was watched and nothing was heard, again and again.
    pub(super) fn is_silent(&self) -> bool {
        self.silent >= SILENT
    }

    /// How old a temp must be before it can be said that it was not heard of.
    pub(super) fn patience(&self, root: &Root) -> Duration {
        match self.is_silent() {
            // It is looked at often, so that nothing gets old before it is found.
            true => LATE,
            false => root.policy.grace.shortest().max(LATE),
        }
    }

    /// Everything was scanned by time. Says whether its watches should be set anew.
    pub(super) fn hear_silence(&mut self) -> bool {
        match self.unheard.take() {
            Some(_) => self.silent += 1,
            None => self.silent = 0,
        }
        // Where that did not help the last time, it is looked at by time instead.
        self.silent == 1
    }

    /// Whether it has to be looked at by time, because something about it makes no event.
    pub(super) fn needs_visits(&self) -> bool {
        let is_away = matches!(self.state, RootState::Gone | RootState::Denied);
        self.is_deaf()
            || self.state == RootState::NoAnswer
            || self.is_busy
            || self.is_broken
            || matches!(self.hearing, Hearing::Full(_))
            || (self.hearing == Hearing::Shut && is_away)
    }

    /// A scan begins.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Watches one directory, unless it is the one that is watched already. Says whether it was.
    pub(super) fn watch(
        &mut self,
        kernel: &mut Kernel,
        root: &Root,
        dir: &Path,
        id: RootId,
    ) -> Result<bool, Unwatched> {
        match self.watched.get_mut(dir) {
            Some(known) if known.id == id => {
                known.round = self.round;
                return Ok(true);
            }
            // Another directory stands there now. Watching a watched path is no news to notify.
            Some(_) => {
                self.watched.remove(dir);
                kernel.unwatch(dir);
            }
            None => {}
        }
        let closes = root.policy.closed == Closed::Settled;
        if let Err(why) = kernel.watch(dir, closes) {
            match why {
                Unwatched::Gone => _ = self.unwatched.remove(dir),
                _ => _ = self.unwatched.insert(dir.to_owned()),
            }
            return Err(why);
        }
        self.unwatched.remove(dir);
        let watched = Watched {
            id,
            since: clock::wall(),
            heat: Heat::default(),
            round: self.round,
        };
        self.watched.insert(dir.to_owned(), watched);
        Ok(false)
    }

    /// Watches a directory again that was scanned because it was hot.
    pub(super) fn watch_again(
        &mut self,
        kernel: &mut Kernel,
        root: &Root,
        dir: &Path,
    ) -> Result<(), Unwatched> {
        let Some(known) = self.watched.remove(dir) else {
            return Ok(());
        };
        self.watch(kernel, root, dir, known.id)?;
        if let Some(now) = self.watched.get_mut(dir) {
            now.heat = known.heat;
        }
        Ok(())
    }

    /// Gives up what stands below `dir` and was not met by the scan that has just ended, but what is
    /// below one of `spared`: that could not be read.
    pub(super) fn give_up_unmet(&mut self, kernel: &mut Kernel, dir: &Path, spared: &[&Path]) {
        let round = self.round;
        self.watched.retain(|path, watched| {
            let stays = watched.round == round
                || !path.starts_with(dir)
                || spared.iter().any(|spared| path.starts_with(spared));
            if !stays {
                kernel.unwatch(path);
            }
            stays
        });
    }

    /// The directories that are not watched, and none that is below another one of them.
    pub(super) fn take_unwatched(&mut self) -> Vec<PathBuf> {
        let mut tops: Vec<PathBuf> = Vec::new();
        // In this order what is below a directory follows it.
        for dir in std::mem::take(&mut self.unwatched) {
            if tops.last().is_none_or(|top| !dir.starts_with(top)) {
                tops.push(dir);
            }
        }
        tops
    }
}

/// How often what cannot be watched is scanned: often enough that a temp is seen before its grace
/// is over.
pub(super) fn poll_interval(root: &Root) -> Duration {
    (root.policy.grace.shortest() / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

/// Says which limit leaves no room for another watch, and how to raise it.
pub(super) fn no_room(limit: Limit) -> &'static str {
    match limit {
        Limit::Instances => {
            "A limit of the kernel's is reached: this user may have no more inotify instances. Disks have \
             nothing to do with it. The cure: sudo sysctl fs.inotify.max_user_instances=1024 (in a user \
             namespace also user.max_inotify_instances)."
        }
        Limit::Files => {
            "A limit is reached: there can be no more open files. The cure: a higher limit (ulimit -n, \
             LimitNOFILE= of a unit; of the whole system: sysctl fs.file-max)."
        }
        Limit::Threads => {
            "There can be no more threads. The cure: a higher limit of processes (ulimit -u, TasksMax= \
             of a unit)."
        }
        Limit::Watches => {
            "A limit of the kernel's is reached: this user may watch no more directories. Disks have \
             nothing to do with it. The cure: sudo sysctl fs.inotify.max_user_watches=524288 (in a user \
             namespace also user.max_inotify_watches)."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_not_watched_the_topmost_are_visited() {
        let mut post = Post::new(None);
        let all = ["/r/a", "/r/a/b", "/r/a/b/c", "/r/a-b", "/r/b/c", "/r/b/c/d"];
        post.unwatched = all.map(PathBuf::from).into();
        let tops = ["/r/a", "/r/a-b", "/r/b/c"].map(PathBuf::from);
        assert_eq!(post.take_unwatched(), tops);
        assert!(post.take_unwatched().is_empty() && !post.needs_visits());
    }

    #[test]
    fn silence_is_cured_once_and_then_lived_with() {
        let mut post = Post::new(None);
        let mut round = |unheard: bool| {
            post.unheard = unheard.then(|| "/r/a.tmp".into());
            (post.hear_silence(), post.is_silent())
        };
        assert_eq!(round(false), (false, false));
        assert_eq!(round(true), (true, false), "the watches are set anew");
        assert_eq!(round(false), (false, false), "that helped");
        assert_eq!(round(true), (true, false));
        assert_eq!(round(true), (false, true), "that did not help");
        assert_eq!(round(true), (false, true));
        assert_eq!(round(false), (false, false));
    }

    #[test]
    fn a_root_is_visited_by_time_only_where_no_event_will_tell() {
        let check = |change: fn(&mut Post), want: bool, why: &str| {
            let mut post = Post::new(None);
            change(&mut post);
            assert_eq!(post.needs_visits(), want, "{why}");
        };
        check(|_| {}, false, "it is watched");
        check(
            |post| post.state = RootState::Gone,
            false,
            "its coming is heard",
        );
        check(
            |post| post.state = RootState::Denied,
            false,
            "a chmod is heard",
        );
        check(
            |post| post.hearing = Hearing::Shut,
            false,
            "its own watch tells of it",
        );
        let shut = |post: &mut Post| {
            post.hearing = Hearing::Shut;
            post.state = RootState::Gone;
        };
        check(shut, true, "its coming is not heard");
        check(
            |post| post.hearing = Hearing::Full(Limit::Watches),
            true,
            "nor its being replaced",
        );
        check(|post| post.is_busy = true, true, "a lock makes no event");
        check(
            |post| post.state = RootState::NoAnswer,
            true,
            "an answer makes no event",
        );
        check(|post| post.silent = 1, false, "its watches were set anew");
        check(|post| post.silent = 2, true, "that did not help");
    }
}
