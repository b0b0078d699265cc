//! The directories that a scan still has to read, for several threads. Their results are passed on in the order of
//! their paths.
//!
//! Each thread takes the first directory by path. So few results wait for one before them, and the order of the output
//! does not depend on the threads.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::mutex::guard;

/// The result of reading one directory.
pub trait DirResult: Default + Send {
    /// Returns about how many bytes the result holds.
    fn bytes(&self) -> usize {
        0
    }
}

impl DirResult for () {}

/// The largest size of the results that wait for one before them, in bytes. With more, only directories before them are
/// read.
const MAX_WAITING: usize = 8 << 20;

/// A path relative to the root. A directory comes directly before the paths in it, as in the order of [`Path`], which
/// takes longer to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TreePath(PathBuf);

impl Ord for TreePath {
    fn cmp(&self, other: &TreePath) -> Ordering {
        let [one, other] = [&self.0, &other.0].map(|path| path.as_os_str().as_bytes());
        let mut pairs = one.iter().zip(other);
        match pairs.find(|(a, b)| a != b) {
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((a, b)) => a.cmp(b),
            None => one.len().cmp(&other.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &TreePath) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Directories to read, and the results of those that were read.
pub(super) struct DirQueue<'e, T> {
    state: Mutex<QueueState<T>>,
    /// Wakes the threads that wait for a directory.
    changed: Condvar,
    /// Receives the results in the order of their paths.
    emit: Mutex<&'e mut (dyn FnMut(T) + Send)>,
}

struct QueueState<T> {
    unread: BTreeSet<TreePath>,
    /// The directories that threads are reading now.
    reading: Vec<TreePath>,
    /// The results that wait for one before them.
    read: BTreeMap<TreePath, T>,
    /// The size of these results, in bytes.
    waiting_bytes: usize,
    /// The number of threads that wait for a directory.
    idle: usize,
}

impl<'e, T: DirResult> DirQueue<'e, T> {
    /// Returns the queue for the directory `first`, which the caller is already reading.
    pub(super) fn new(first: &Path, emit: &'e mut (dyn FnMut(T) + Send)) -> DirQueue<'e, T> {
        DirQueue {
            state: Mutex::new(QueueState {
                unread: BTreeSet::new(),
                reading: vec![TreePath(first.to_owned())],
                read: BTreeMap::new(),
                waiting_bytes: 0,
                idle: 0,
            }),
            changed: Condvar::new(),
            emit: Mutex::new(emit),
        }
    }

    /// Adds directories in a directory that a thread is reading now.
    pub(super) fn add(&self, dirs: &mut Vec<PathBuf>) {
        if dirs.is_empty() {
            return;
        }
        let mut state = guard(&self.state);
        state.unread.extend(dirs.drain(..).map(TreePath));
        self.wake(&state);
    }

    /// Returns the next directory to read. Waits until there is one. Returns `None` once all are read.
    pub(super) fn take(&self) -> Option<PathBuf> {
        let mut state = guard(&self.state);
        loop {
            if state.may_take()
                && let Some(first) = state.unread.pop_first()
            {
                state.reading.push(first.clone());
                return Some(first.0);
            }
            if state.reading.is_empty() {
                return None;
            }
            state.idle += 1;
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Drops the directories that no thread has begun to read.
    pub(super) fn stop(&self) {
        let mut state = guard(&self.state);
        state.unread.clear();
        self.wake(&state);
    }

    /// Reports whether all directories are read.
    pub(super) fn is_done(&self) -> bool {
        let state = guard(&self.state);
        state.unread.is_empty() && state.reading.is_empty()
    }

    /// Adds the result of a directory, and passes on the results that no longer wait for another one.
    pub(super) fn finish(&self, dir: PathBuf, result: T) {
        let dir = TreePath(dir);
        {
            let mut state = guard(&self.state);
            state.reading.retain(|reading| *reading != dir);
            state.waiting_bytes += result.bytes();
            state.read.insert(dir, result);
        }
        // With this lock, a thread that took results passes them on before any later result is taken.
        let mut emit = guard(&self.emit);
        loop {
            let ready = {
                let mut state = guard(&self.state);
                let ready = state.take_ready();
                self.wake(&state);
                ready
            };
            if ready.is_empty() {
                break;
            }
            ready.into_iter().for_each(&mut **emit);
        }
    }

    fn wake(&self, state: &MutexGuard<'_, QueueState<T>>) {
        if state.idle > 0 {
            self.changed.notify_all();
        }
    }
}

impl<T: DirResult> QueueState<T> {
    /// Reports whether the next directory may be read now. A directory before all waiting results always may: they wait
    /// for it.
    fn may_take(&self) -> bool {
        self.waiting_bytes <= MAX_WAITING || self.unread.first() < self.read.keys().next()
    }

    /// Removes the results before which no directory is left to read.
    fn take_ready(&mut self) -> Vec<T> {
        let left = self.reading.iter().chain(self.unread.first()).min();
        let mut ready = Vec::new();
        while let Some(first) = self.read.first_entry()
            && left.is_none_or(|left| first.key() < left)
        {
            ready.push(first.remove());
        }
        self.waiting_bytes -= ready.iter().map(T::bytes).sum::<usize>();
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn paths_have_the_order_of_their_parts() {
        let paths = [
            "", "a", "a/b", "a/b/c", "a/b!", "a!", "a-b", "a.b/c", "ab", "b", "é",
        ];
        for one in paths {
            for other in paths {
                let tree = |path: &str| TreePath(path.into());
                let want = Path::new(one).cmp(Path::new(other));
                assert_eq!(tree(one).cmp(&tree(other)), want, "{one} {other}");
            }
        }
    }

    /// A path, and the size that its result claims to have.
    #[derive(Default)]
    struct Sized(PathBuf, usize);

    impl DirResult for Sized {
        fn bytes(&self) -> usize {
            self.1
        }
    }

    /// Reads a tree of three levels in `threads` threads. Each result has `bytes`. Returns the paths in the order of
    /// the results.
    fn read(threads: usize, bytes: usize) -> Vec<PathBuf> {
        let mut order = Vec::new();
        let mut emit = |result: Sized| order.push(result.0);
        let queue = DirQueue::new(Path::new(""), &mut emit);
        let visit = |dir: PathBuf| {
            if dir.components().count() < 3 {
                let below = (0..4).rev().map(|n| dir.join(n.to_string()));
                queue.add(&mut below.collect());
            }
            // The first directories take longest, so that results wait for them.
            let is_first = dir.ends_with("0");
            std::thread::sleep(std::time::Duration::from_millis(if is_first {
                3
            } else {
                0
            }));
            queue.finish(dir.clone(), Sized(dir, bytes));
        };
        visit(PathBuf::new());
        let visited = AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(dir) = queue.take() {
                        visit(dir);
                        visited.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert!(queue.is_done());
        assert_eq!(guard(&queue.state).waiting_bytes, 0);
        drop(queue);
        assert_eq!(order.len(), visited.into_inner());
        order
    }

    #[test]
    fn results_come_in_the_order_of_paths_whatever_the_threads() {
        let want = read(1, 1);
        assert_eq!(want.len(), 1 + 4 + 16 + 64);
        assert!(want.is_sorted());
        for (threads, bytes) in [(2, 1), (8, 1), (8, MAX_WAITING), (3, MAX_WAITING / 2)] {
            assert_eq!(
                read(threads, bytes),
                want,
                "{threads} threads, {bytes} bytes"
            );
        }
    }

    #[test]
    fn a_large_result_waits_alone() {
        let mut emit = |_: Sized| {};
        let queue = DirQueue::new(Path::new(""), &mut emit);
        queue.add(&mut ["a", "b", "c"].map(PathBuf::from).to_vec());
        assert_eq!(queue.take(), Some("a".into()));
        assert_eq!(queue.take(), Some("b".into()));
        queue.finish("b".into(), Sized("b".into(), MAX_WAITING + 1));
        assert!(!guard(&queue.state).may_take(), "c would wait too");
        queue.add(&mut vec!["a/a".into()]);
        assert!(guard(&queue.state).may_take(), "b waits for a/a");
        assert_eq!(queue.take(), Some("a/a".into()));
        for dir in ["a", "a/a", ""] {
            queue.finish(dir.into(), Sized::default());
        }
        assert_eq!(queue.take(), Some("c".into()), "b waits no longer");
    }
}
