//! The name that a temp bears between its claim and its end: `.orphand-<16 hex>-<name>`.
//!
//! It lies in the same directory, so a claim needs no new directory and crosses no file system. The
//! suffix stays, so whoever ignores temps ignores it. What it is and where it came from is told by
//! the name alone, so that a crash can be put in order without any other record.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::look::RootId;

const PREFIX: &[u8] = b".orphand-";
const HEX: usize = 16;
/// NAME_MAX of every file system that the proof is trusted on.
const NAME_MAX: usize = 255;

/// What all names of orphand's own begin with; scans and watches pass over them.
pub const OWN_PREFIX: &[u8] = b".orphand";

/// Gives out claim names, and knows which of them are being worked on: any other claim is one that
/// a crash left, or that could not be put back.
#[derive(Debug)]
pub struct Claims {
    session: u32,
    next: AtomicU32,
    in_progress: Mutex<HashSet<OsString>>,
    /// Claims that could not be put back, by the directory that they lie in and the temp's name.
    deferred: Mutex<HashMap<(RootId, OsString), BTreeSet<OsString>>>,
}

/// A claim name that is being worked on, until this is dropped.
#[derive(Debug)]
pub struct ClaimName<'a> {
    claims: &'a Claims,
    name: OsString,
}

impl Claims {
    /// `session` is drawn at random by the caller, so that two processes never give the same names.
    #[must_use]
    pub fn new(session: u32) -> Claims {
        Claims {
            session,
            next: AtomicU32::new(0),
            in_progress: Mutex::default(),
            deferred: Mutex::default(),
        }
    }

    /// A claim name for `name`. Too long a name is cut in the middle.
    #[must_use]
    pub fn name(&self, name: &OsStr) -> ClaimName<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut claim = Vec::with_capacity(NAME_MAX);
        claim.extend_from_slice(PREFIX);
        // Memory takes what is written.
        let _ = write!(claim, "{:08x}{number:08x}-", self.session);
        let room = NAME_MAX - claim.len();
        let name = name.as_bytes();
        if name.len() <= room {
            claim.extend_from_slice(name);
        } else {
            let head = room / 2;
            let tail = name.len() - (room - head);
            claim.extend_from_slice(name.get(..head).unwrap_or_default());
            claim.extend_from_slice(name.get(tail..).unwrap_or_default());
        }
        let name = OsString::from_vec(claim);
        self.in_progress().insert(name.clone());
        ClaimName { claims: self, name }
    }

    /// Whether this process is working on `claim` right now.
    #[must_use]
    pub fn is_in_progress(&self, claim: &OsStr) -> bool {
        self.in_progress().contains(claim)
    }

    /// Notes that `claim` in the directory `dir` could not be put back. It is to be tried again when it is time
    /// for the temp `name`. Says whether that is news.
    pub(crate) fn defer(&self, dir: RootId, name: &OsStr, claim: &OsStr) -> bool {
        let mut stranded = lock(&self.deferred);
        let of_name = stranded.entry((dir, name.to_owned())).or_default();
        of_name.insert(claim.to_owned())
    }

    /// Those of the temp `name` in the directory `dir` that could not be put back: it is to be tried again.
    #[must_use]
    pub(crate) fn take_deferred(&self, dir: RootId, name: &OsStr) -> BTreeSet<OsString> {
        let mut stranded = lock(&self.deferred);
        // Nearly always.
        if stranded.is_empty() {
            return BTreeSet::new();
        }
        stranded.remove(&(dir, name.to_owned())).unwrap_or_default()
    }

    fn in_progress(&self) -> MutexGuard<'_, HashSet<OsString>> {
        lock(&self.in_progress)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClaimName<'_> {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }
}

impl Drop for ClaimName<'_> {
    fn drop(&mut self) {
        self.claims.in_progress().remove(&self.name);
    }
}

/// A claim name, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name that the file had; `None` if it may have been cut and cannot be told any more.
    pub original: Option<OsString>,
}

/// Whether the file at `path` has a claim's name.
#[must_use]
pub fn is_claim(path: &Path) -> bool {
    path.file_name().is_some_and(|name| parse(name).is_some())
}

/// Reads a claim name; `None` if it is none.
#[must_use]
pub fn parse(name: &OsStr) -> Option<Claim> {
    let name = name.as_bytes();
    let rest = name.strip_prefix(PREFIX)?;
    let (hex, rest) = rest.split_at_checked(HEX)?;
    let lower = hex
        .iter()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let original = rest.strip_prefix(b"-")?;
    if !lower || original.is_empty() || original == b"." || original == b".." {
        return None;
    }
    Some(Claim {
        original: (name.len() < NAME_MAX).then(|| OsString::from_vec(original.to_vec())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_name_contains_the_original_name() {
        let claims = Claims::new(0xdead_beef);

        let at_most = NAME_MAX - PREFIX.len() - HEX - 1;
        for name in [
            "a.tmp".to_owned(),
            "-\n\x1b[2J.tmp".into(),
            "x".repeat(at_most - 1),
        ] {
            let claim = claims.name(OsStr::new(&name));
            let read = parse(claim.name()).expect("a claim name");
            assert_eq!(read.original.as_deref(), Some(OsStr::new(&name)));
            let name = claim.name().to_owned();
            assert!(claims.is_in_progress(&name));
            drop(claim);
            assert!(!claims.is_in_progress(&name));
        }
        let bytes = OsStr::from_bytes(b"\xff\xfe.tmp");
        let read = parse(claims.name(bytes).name()).expect("a claim name");
        assert_eq!(read.original.as_deref(), Some(bytes));
    }

    #[test]
    fn a_long_name_is_cut_in_the_middle() {
        let claims = Claims::new(7);
        for length in [229, 230, 255] {
            let name = "sessions.json".to_owned() + &"x".repeat(length - 17) + ".tmp";
            let ticket = claims.name(OsStr::new(&name));
            let claim = ticket.name();
            assert_eq!(claim.len(), NAME_MAX, "{length}");
            assert!(claim.as_bytes().ends_with(b".tmp"), "{length}");
            let kept = claim.as_bytes().split_at(PREFIX.len() + HEX + 1).1;
            assert!(kept.starts_with(b"sessions.json"), "{length}");
            assert_eq!(
                parse(claim).expect("a claim name").original,
                None,
                "{length}"
            );
        }
    }

    #[test]
    fn deferred_claims_are_returned_once() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = |dir: &tempfile::TempDir| {
            RootId::of(&dir.path().canonicalize().unwrap()).expect("a directory")
        };
        let (here, there) = (dir(&here), dir(&there));
        let claims = Claims::new(7);
        let strand =
            |dir, name: &str, claim: &str| claims.defer(dir, name.as_ref(), claim.as_ref());
        assert!(strand(here, "a", "1"));
        assert!(strand(there, "a", "2"));
        assert!(strand(here, "a", "3"));
        assert!(strand(here, "b", "4"));
        assert!(!strand(here, "b", "4"), "no news");
        let stranded = |dir, name: &str| Vec::from_iter(claims.take_deferred(dir, name.as_ref()));
        assert_eq!(stranded(here, "a"), ["1", "3"]);
        assert!(stranded(here, "a").is_empty());
        assert_eq!(stranded(there, "a"), ["2"]);
        assert_eq!(stranded(here, "b"), ["4"]);
    }

    #[test]
    fn claim_names_differ() {
        let claims = Claims::new(7);
        let (one, two) = (claims.name(OsStr::new("a")), claims.name(OsStr::new("a")));
        assert_ne!(one.name(), two.name());
    }

    #[test]
    fn other_names_are_no_claims() {
        for name in [
            ".orphand",
            ".orphand-",
            ".orphand-0123456789abcdef",
            ".orphand-0123456789abcdef-",
            ".orphand-0123456789abcdef-..",
            ".orphand-0123456789ABCDEF-a.tmp",
            ".orphand-0123456789abcdeg-a.tmp",
            ".orphand-0123456789abcde-a.tmp",
            "orphand-0123456789abcdef-a.tmp",
        ] {
            assert_eq!(parse(OsStr::new(name)), None, "{name}");
        }
    }
}
