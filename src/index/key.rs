//! The path of a temp as a key of the map: one word. All temps of a directory share its path.
//!
//! A million paths with the same beginning would need more memory than all other data of their temps. So a key is one
//! allocation, with a reference to the directory followed by the base name, and the table holds only a pointer to it. A
//! hash table that has just grown is half empty, so the data in its slots counts twice.

use std::alloc::{self, Layout};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

/// The path of a directory, shared by all temps in it.
pub type DirPath = Arc<PathBuf>;

/// The directory and the base name of a temp.
pub struct Key(NonNull<Head>);

/// The head of a key's allocation; the name follows it.
#[repr(C)]
struct Head {
    dir: DirPath,
    length: u32,
}

/// The offset of the name.
const NAME: usize = std::mem::offset_of!(Head, length) + size_of::<u32>();

fn layout(length: u32) -> Layout {
    let size = (NAME + length as usize).max(size_of::<Head>());
    // SAFETY: the alignment is that of a type. With pointers of 64 bits, a size slightly above 4 GiB is less than
    // isize::MAX. With pointers of 32 bits, no name of such a length fits into memory.
    unsafe { Layout::from_size_align_unchecked(size, align_of::<Head>()) }
}

impl Key {
    /// Returns the key of the temp `name` in `dir`.
    #[must_use]
    pub fn new(dir: DirPath, name: &OsStr) -> Key {
        let name = name.as_bytes();
        // No file system has names of 4 GiB.
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let layout = layout(length);
        // SAFETY: the layout is at least that of a `Head`, so its size is not zero.
        let Some(head) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            alloc::handle_alloc_error(layout)
        };
        let head = head.cast::<Head>();
        // SAFETY: the allocation has room for a `Head`, for which it is aligned, and for `length` bytes from `NAME` on.
        // `name` has at least `length` bytes.
        unsafe {
            head.write(Head { dir, length });
            let destination = head.cast::<u8>().add(NAME);
            destination.copy_from_nonoverlapping(NonNull::from(name).cast(), length as usize);
        }
        Key(head)
    }

    /// Returns the directory.
    #[must_use]
    pub fn dir(&self) -> &DirPath {
        // SAFETY: `new` wrote the value, and only `drop` drops it.
        unsafe { &(*self.0.as_ptr()).dir }
    }

    /// Returns the base name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        // SAFETY: `new` wrote `length` bytes there, and no code changes them.
        let name = unsafe {
            let length = (*self.0.as_ptr()).length as usize;
            std::slice::from_raw_parts(self.0.cast::<u8>().add(NAME).as_ptr(), length)
        };
        OsStr::from_bytes(name)
    }

    /// Returns the whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir().join(self.name())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: `new` allocated this memory with this layout and wrote the `Head`. No reference to it is left.
        unsafe {
            let layout = layout((*self.0.as_ptr()).length);
            self.0.drop_in_place();
            alloc::dealloc(self.0.as_ptr().cast(), layout);
        }
    }
}

// SAFETY: a key owns its allocation, which no code changes. An `Arc<PathBuf>` may be sent to and shared with any
// thread.
unsafe impl Send for Key {}
// SAFETY: as above.
unsafe impl Sync for Key {}

impl Clone for Key {
    fn clone(&self) -> Key {
        Key::new(Arc::clone(self.dir()), self.name())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().fmt(f)
    }
}

/// The data by which a key can be looked up without creating one: the bytes of the directory's path, and of the name.
pub(super) trait KeyParts {
    fn parts(&self) -> (&[u8], &[u8]);
}

impl KeyParts for Key {
    fn parts(&self) -> (&[u8], &[u8]) {
        (self.dir().as_os_str().as_bytes(), self.name().as_bytes())
    }
}

/// A path, split before its base name.
///
/// The standard library looks at each component of a path for its parent and for its base name, which takes 20 times as
/// many instructions.
#[derive(Clone, Copy, Debug)]
pub struct SplitPath<'a>(&'a [u8], &'a [u8]);

impl<'a> SplitPath<'a> {
    /// Splits a path. The paths of temps consist of a directory's path and a name, so they are already in their
    /// shortest form.
    #[must_use]
    pub fn new(path: &'a Path) -> SplitPath<'a> {
        let path = path.as_os_str().as_bytes();
        match memchr::memrchr(b'/', path) {
            Some(0) => SplitPath(b"/", path.get(1..).unwrap_or_default()),
            Some(slash) => {
                let (dir, name) = path.split_at(slash);
                SplitPath(dir, name.get(1..).unwrap_or_default())
            }
            None => SplitPath(b"", path),
        }
    }

    /// Returns the path of the directory: `/` for a file in the root directory, and nothing for a path without a slash.
    #[must_use]
    pub fn dir(&self) -> &'a Path {
        Path::new(OsStr::from_bytes(self.0))
    }

    /// Returns the base name.
    #[must_use]
    pub fn name(&self) -> &'a OsStr {
        OsStr::from_bytes(self.1)
    }
}

impl KeyParts for SplitPath<'_> {
    fn parts(&self) -> (&[u8], &[u8]) {
        (self.0, self.1)
    }
}

impl<'a> Borrow<dyn KeyParts + 'a> for Key {
    fn borrow(&self) -> &(dyn KeyParts + 'a) {
        self
    }
}

impl Hash for dyn KeyParts + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (dir, name) = self.parts();
        state.write(dir);
        state.write_u8(b'/');
        state.write(name);
    }
}

impl PartialEq for dyn KeyParts + '_ {
    fn eq(&self, other: &Self) -> bool {
        let ((dir, name), (other_dir, other_name)) = (self.parts(), other.parts());
        name == other_name && dir == other_dir
    }
}

impl Eq for dyn KeyParts + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let parts: &dyn KeyParts = self;
        parts.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

/// The directories of all keys, each once.
#[derive(Debug, Default)]
pub(super) struct DirSet {
    all: HashSet<SharedName>,
    /// The directory of the last call: most events come from the same directory as the one before.
    last: Option<DirPath>,
    /// The number of directories from which on unused ones are looked for.
    shrink_at: usize,
}

/// The smallest number of directories for which this is worth its cost.
const MIN_SHRINK: usize = 64;

impl DirSet {
    /// Returns the shared path that equals `path`.
    pub(super) fn get(&mut self, path: &Path) -> DirPath {
        let path = path.as_os_str();
        if let Some(last) = self.last.as_ref().filter(|last| last.as_os_str() == path) {
            return Arc::clone(last);
        }
        let dir = match self.all.get(path) {
            Some(SharedName(known)) => Arc::clone(known),
            None => {
                if self.all.len() >= self.shrink_at.max(MIN_SHRINK) {
                    self.shrink();
                }
                let new = Arc::new(PathBuf::from(path));
                self.all.insert(SharedName(Arc::clone(&new)));
                new
            }
        };
        self.last = Some(Arc::clone(&dir));
        dir
    }

    /// Forgets the directories that no key uses any more.
    pub(super) fn shrink(&mut self) {
        self.last = None;
        self.all
            .retain(|SharedName(dir)| Arc::strong_count(dir) > 1);
        self.shrink_at = self.all.len() * 2;
        self.all.shrink_to(self.shrink_at);
    }
}

/// Found by the bytes of its path, because two values of `Path` are compared component by component.
#[derive(Debug, PartialEq, Eq)]
struct SharedName(DirPath);

impl Borrow<OsStr> for SharedName {
    fn borrow(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl Hash for SharedName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_os_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};
    use std::thread;

    use dashmap::DashMap;
    use proptest::prelude::*;

    fn key(dir: &str, name: &[u8]) -> Key {
        Key::new(Arc::new(dir.into()), OsStr::from_bytes(name))
    }

    #[test]
    fn a_key_returns_its_directory_and_name() {
        for name in [&b""[..], b"a", b"a.tmp", b"\xff\n.tmp", &[b'x'; 255]] {
            let key = key("/r/b", name);
            let copy = key.clone();
            drop(key);
            assert_eq!(copy.name().as_bytes(), name);
            assert_eq!(**copy.dir(), Path::new("/r/b"));
            assert_eq!(copy.path(), Path::new("/r/b").join(OsStr::from_bytes(name)));
        }
    }

    #[test]
    fn a_key_is_found_by_its_path() {
        let hasher = RandomState::new();
        for (dir, name) in [("/r", "a.tmp"), ("/", "a.tmp"), ("", "a.tmp"), ("/r/b", "")] {
            let key = key(dir, name.as_bytes());
            let path = key.path();
            let cut = SplitPath::new(&path);
            let (one, other): (&dyn KeyParts, &dyn KeyParts) = (&key, &cut);
            assert!(one == other, "{path:?}");
            assert_eq!(hasher.hash_one(&key), hasher.hash_one(other), "{path:?}");
            assert_eq!((cut.dir(), cut.name()), (Path::new(dir), OsStr::new(name)));
        }
        assert_ne!(key("/r", b"a.tmp"), key("/r", b"b.tmp"));
        assert_ne!(key("/r", b"a.tmp"), key("/q", b"a.tmp"));
    }

    #[test]
    fn a_path_is_split_as_by_the_standard_library() {
        for path in [
            "/a/b/c.tmp",
            "/c.tmp",
            "a/c.tmp",
            "c.tmp",
            "/a b/\u{e4}.tmp",
        ] {
            let path = Path::new(path);
            let split = SplitPath::new(path);
            assert_eq!(Some(split.dir()), path.parent(), "{path:?}");
            assert_eq!(Some(split.name()), path.file_name(), "{path:?}");
        }
    }

    #[test]
    fn a_key_is_one_word_and_shares_its_directory() {
        assert_eq!(size_of::<Option<Key>>(), size_of::<usize>());
        let mut dirs = DirSet::default();
        let (one, two) = (dirs.get(Path::new("/r")), dirs.get(Path::new("/q")));
        assert!(Arc::ptr_eq(&one, &dirs.get(Path::new("/r"))));
        assert!(!Arc::ptr_eq(&one, &two));
        drop(two);
        for n in 0..10 * MIN_SHRINK {
            dirs.get(Path::new(&format!("/{n}")));
        }
        assert!(dirs.all.len() <= MIN_SHRINK, "{}", dirs.all.len());
        assert!(
            Arc::ptr_eq(&one, &dirs.get(Path::new("/r"))),
            "still in use"
        );
    }

    /// An operation on a few keys.
    #[derive(Clone, Debug)]
    enum KeyStep {
        Make(Vec<u8>),
        Copy(usize),
        Drop(usize),
        Move(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<KeyStep>> {
        let name = || prop::collection::vec(any::<u8>(), 0..40);
        let step = prop_oneof![
            name().prop_map(KeyStep::Make),
            any::<usize>().prop_map(KeyStep::Copy),
            any::<usize>().prop_map(KeyStep::Drop),
            any::<usize>().prop_map(KeyStep::Move),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// Short names share the padding of the head, so each length is another layout.
        #[test]
        fn keys_share_their_directory_and_own_their_names(steps in steps()) {
            let dir = DirPath::new("/r/b".into());
            let mut all: Vec<(Key, Vec<u8>)> = Vec::new();
            for step in steps {
                let index = |n: usize| n.checked_rem(all.len());
                match step {
                    KeyStep::Make(name) => {
                        all.push((Key::new(Arc::clone(&dir), OsStr::from_bytes(&name)), name));
                    }
                    KeyStep::Copy(n) => {
                        if let Some((key, name)) = index(n).map(|n| &all[n]) {
                            let copy = (key.clone(), name.clone());
                            let address = |key: &Key| key.name().as_bytes().as_ptr();
                            prop_assert_ne!(address(&copy.0), address(key));
                            all.push(copy);
                        }
                    }
                    KeyStep::Drop(n) => {
                        if let Some(n) = index(n) {
                            all.swap_remove(n);
                        }
                    }
                    KeyStep::Move(n) => {
                        if let Some(n) = index(n) {
                            let (key, name) = all.swap_remove(n);
                            let key = thread::spawn(move || key).join().unwrap();
                            all.push((key, name));
                        }
                    }
                }
                prop_assert_eq!(Arc::strong_count(&dir), 1 + all.len());
                for (key, name) in &all {
                    prop_assert_eq!(key.name().as_bytes(), &name[..]);
                    prop_assert!(Arc::ptr_eq(key.dir(), &dir));
                }
            }
        }
    }

    /// The callback, the scans and the scheduler use keys at the same time, with the same names. The last owner of a
    /// key frees it, and each key is freed once.
    #[test]
    fn concurrent_insertions_and_removals_leak_nothing() {
        const NAMES: usize = 50;
        let map: DashMap<Key, usize> = DashMap::new();
        let dir = DirPath::new("/r".into());
        let paths: Vec<PathBuf> = (0..NAMES).map(|n| format!("/r/{n}.tmp").into()).collect();
        let find = |path| -> Option<Key> {
            let found = map.get(&SplitPath::new(path) as &dyn KeyParts)?;
            Some(found.key().clone())
        };
        thread::scope(|scope| {
            for thread in 0..4 {
                let (map, dir, paths, find) = (&map, &dir, &paths, &find);
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let path = &paths[(n * (thread + 1)) % NAMES];
                        let name = path.file_name().unwrap();
                        match (n + thread) % 3 {
                            0 => _ = map.insert(Key::new(Arc::clone(dir), name), thread),
                            1 => {
                                if let Some(key) = find(path) {
                                    assert_eq!((key.name(), key.dir()), (name, dir));
                                }
                            }
                            _ => _ = map.remove(&SplitPath::new(path) as &dyn KeyParts),
                        }
                    }
                });
            }
        });
        assert_eq!(Arc::strong_count(&dir), 1 + map.len());
        map.retain(|key, _| key.name() == "7.tmp");
        assert!(map.len() <= 1);
        drop(map);
        assert_eq!(Arc::strong_count(&dir), 1);
    }
}
