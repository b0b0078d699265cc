//! The messages of the callback to the thread that learns the shapes of temps: the creations, renames and removals of
//! some files.
//!
//! A healthy write must cost next to nothing. So only a limited number of creations a second is *followed*. The events
//! of all other files cost a few comparisons, or one lookup in a small table. What is seen is collected in a buffer of
//! fixed size, and the thread is woken at most once a second. No file is looked at here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::event::{CreateKind, Event, EventKind, ModifyKind, RenameMode};

use crate::core::time::Mono;
use crate::sys::mutex::guard;

/// Something that was seen of a followed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was created.
    Created(PathBuf, Mono),
    /// It was renamed from the first path to the second.
    Renamed(PathBuf, PathBuf, Mono),
    /// It was removed, or renamed to a directory that is not watched.
    Removed(PathBuf),
    /// Events were lost, so the ends of the followed files may not be seen.
    Lost,
}

/// The buffer between the callbacks and the learning thread.
#[derive(Debug)]
pub struct LearnFeed {
    seen: Mutex<Vec<Seen>>,
    wake_tx: Sender<()>,
    wake_rx: Receiver<()>,
}

/// The maximum number of items in the buffer. Further ones are dropped, and so are their files.
const MAX_SEEN: usize = 2_048;

/// The number of creations that one callback follows in a second.
const FOLLOWED_PER_SECOND: u32 = 32;

/// The maximum number of files that one callback follows at a time.
const MAX_FOLLOWED: usize = 1_024;

/// The time after which a file is no longer followed. It is longer than the longest write that is learned from.
const FOLLOWED_FOR: Duration = Duration::from_secs(90);

impl Default for LearnFeed {
    fn default() -> LearnFeed {
        let (wake_tx, wake_rx) = bounded(1);
        LearnFeed {
            seen: Mutex::default(),
            wake_tx,
            wake_rx,
        }
    }
}

impl LearnFeed {
    /// Returns the channel that receives a message when the first item is added to an empty buffer.
    #[must_use]
    pub fn wake_rx(&self) -> &Receiver<()> {
        &self.wake_rx
    }

    /// Takes all items out of the buffer.
    #[must_use]
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *guard(&self.seen))
    }

    /// Wakes the learning thread, so that it can end.
    pub fn wake(&self) {
        let _ = self.wake_tx.try_send(());
    }

    /// Notes that events were lost.
    pub fn note_lost(&self) {
        self.add(Seen::Lost);
    }

    /// Adds an item. Returns false if there is no room for it.
    fn add(&self, item: Seen) -> bool {
        let mut seen = guard(&self.seen);
        // The end of a followed file always has room, and so has the loss of events.
        let most = match item {
            Seen::Created(..) => MAX_SEEN / 2,
            _ => MAX_SEEN,
        };
        if seen.len() >= most {
            return false;
        }
        let was_empty = seen.is_empty();
        seen.push(item);
        drop(seen);
        if was_empty {
            self.wake();
        }
        true
    }
}

/// The files that one callback follows.
pub(super) struct Follower {
    feed: std::sync::Arc<LearnFeed>,
    /// The paths of the followed files, with the time of their creation. They are compared as bytes, which is faster
    /// than by components, and notify writes all paths in one directory alike.
    followed: HashMap<OsString, Mono>,
    second_start: Mono,
    /// The number of creations followed in this second.
    in_second: u32,
    /// The followed file that the last event has renamed, with notify's number of that rename.
    renamed: Option<(PathBuf, usize)>,
}

impl Follower {
    pub(super) fn new(feed: std::sync::Arc<LearnFeed>) -> Follower {
        Follower {
            feed,
            followed: HashMap::new(),
            second_start: Mono(0),
            in_second: 0,
            renamed: None,
        }
    }

    /// Notes an event, before it is handled.
    pub(super) fn note(&mut self, event: &Event, now: impl Fn() -> Mono) {
        if event.need_rescan() {
            return self.forget();
        }
        let Some(path) = event.paths.first() else {
            return;
        };
        if let Some((temp, tracker)) = self.renamed.take() {
            let is_rest = event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::To))
                && event.tracker() == Some(tracker);
            self.feed.add(match is_rest {
                true => Seen::Renamed(temp, path.clone(), now()),
                false => Seen::Removed(temp),
            });
            if is_rest {
                return;
            }
        }
        match event.kind {
            EventKind::Create(CreateKind::File) => self.created(path, now()),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                if let (Some(temp), Some(tracker)) = (self.take(path), event.tracker()) {
                    self.renamed = Some((temp, tracker));
                }
            }
            EventKind::Remove(_) => {
                if let Some(temp) = self.take(path) {
                    self.feed.add(Seen::Removed(temp));
                }
            }
            _ => {}
        }
    }

    fn created(&mut self, path: &Path, now: Mono) {
        if now.since(self.second_start) >= Duration::from_secs(1) {
            self.second_start = now;
            self.in_second = 0;
        }
        if self.in_second >= FOLLOWED_PER_SECOND {
            return;
        }
        self.in_second += 1;
        if self.followed.len() >= MAX_FOLLOWED {
            self.followed
                .retain(|_, created| now.since(*created) <= FOLLOWED_FOR);
        }
        if self.followed.len() < MAX_FOLLOWED && self.feed.add(Seen::Created(path.to_owned(), now))
        {
            self.followed.insert(path.as_os_str().to_owned(), now);
        }
    }

    fn take(&mut self, path: &Path) -> Option<PathBuf> {
        if self.followed.is_empty() {
            return None;
        }
        let (path, _) = self.followed.remove_entry(path.as_os_str())?;
        Some(path.into())
    }

    /// Forgets the followed files, because events were lost.
    fn forget(&mut self) {
        self.renamed = None;
        if !self.followed.is_empty() {
            self.followed = HashMap::new();
            self.feed.add(Seen::Lost);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;

    struct Feed {
        follower: Follower,
        feed: Arc<LearnFeed>,
        now: Cell<Mono>,
    }

    impl Feed {
        fn new() -> Feed {
            let feed = Arc::<LearnFeed>::default();
            Feed {
                follower: Follower::new(Arc::clone(&feed)),
                feed,
                now: Cell::new(Mono(1_000_000_000_000)),
            }
        }

        fn event(&mut self, kind: EventKind, path: &str, tracker: Option<usize>) {
            let mut event = Event::new(kind).add_path(path.into());
            if let Some(tracker) = tracker {
                event = event.set_tracker(tracker);
            }
            let now = self.now.get();
            self.follower.note(&event, || now);
        }

        fn create(&mut self, path: &str) {
            self.event(EventKind::Create(CreateKind::File), path, None);
        }

        fn rename(&mut self, mode: RenameMode, path: &str, tracker: usize) {
            self.event(
                EventKind::Modify(ModifyKind::Name(mode)),
                path,
                Some(tracker),
            );
        }

        fn wait(&mut self, span: Duration) {
            self.now.set(self.now.get().after(span));
        }

        /// Returns what was seen: `+` a creation, `-` a removal, and `>` a rename.
        fn seen(&self) -> Vec<String> {
            let text = |seen| match seen {
                Seen::Created(path, _) => format!("+{}", path.display()),
                Seen::Renamed(from, to, _) => format!("{}>{}", from.display(), to.display()),
                Seen::Removed(path) => format!("-{}", path.display()),
                Seen::Lost => "lost".to_owned(),
            };
            self.feed.take().into_iter().map(text).collect()
        }
    }

    #[test]
    fn followed_files_are_seen_from_their_creation_to_their_end() {
        let mut feed = Feed::new();
        feed.create("/r/t");
        feed.rename(RenameMode::From, "/r/t", 7);
        feed.rename(RenameMode::To, "/r/a", 7);
        assert_eq!(feed.seen(), ["+/r/t", "/r/t>/r/a"]);
        // Files that were not seen from their creation are not followed.
        feed.rename(RenameMode::From, "/r/a", 8);
        feed.rename(RenameMode::To, "/r/b", 8);
        assert_eq!(feed.seen(), [""; 0]);
        feed.create("/r/t");
        feed.event(
            EventKind::Remove(notify::event::RemoveKind::File),
            "/r/t",
            None,
        );
        assert_eq!(feed.seen(), ["+/r/t", "-/r/t"]);
        // It is renamed to another directory, and something else is renamed.
        feed.create("/r/t");
        feed.rename(RenameMode::From, "/r/t", 9);
        feed.rename(RenameMode::To, "/r/a", 10);
        assert_eq!(feed.seen(), ["+/r/t", "-/r/t"]);
        feed.create("/r/t");
        feed.follower.note(
            &Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan),
            || Mono(1),
        );
        feed.rename(RenameMode::From, "/r/t", 11);
        feed.rename(RenameMode::To, "/r/a", 11);
        assert_eq!(feed.seen(), ["+/r/t", "lost"]);
    }

    #[test]
    fn a_fast_writer_is_sampled() {
        let mut feed = Feed::new();
        for second in 0..3 {
            for n in 0..10_000 {
                let temp = format!("/r/{second}-{n}");
                feed.create(&temp);
                feed.rename(RenameMode::From, &temp, n);
                feed.rename(RenameMode::To, "/r/a", n);
            }
            assert_eq!(feed.seen().len(), 2 * FOLLOWED_PER_SECOND as usize);
            feed.wait(Duration::from_secs(1));
        }
        let woken = feed.feed.wake_rx();
        assert!(
            woken.try_recv().is_ok() && woken.try_recv().is_err(),
            "one message"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut feed = Feed::new();
        for n in 0..10_000 {
            feed.create(&format!("/r/{n}"));
            feed.wait(Duration::from_millis(16));
        }
        assert!(feed.follower.followed.len() <= MAX_FOLLOWED);
        assert!(feed.seen().len() <= MAX_SEEN);
        feed.wait(FOLLOWED_FOR * 2);
        feed.create("/r/new");
        assert_eq!(feed.seen(), ["+/r/new"], "old files make room");
    }
}
