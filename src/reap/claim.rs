//! The name of a temp from its claim to its removal: `.orphand-<16 hex>-<name>`.
//!
//! A claim is in the same directory, so it needs no new directory and crosses no file system. The suffix is kept, so
//! programs that ignore temps ignore claims too. The name alone shows that the file is a claim and what its original
//! name was, so a crash can be recovered from without any other record.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::core::own_names::{CLAIM_HEX, CLAIM_PREFIX, NAME_MAX, SET_BIT, set_digits};
use crate::core::time::Wall;
use crate::fs::dir::RootId;
use crate::sys::mutex::guard;

/// Creates claim names, and tracks those that this process is using. Any other claim was left by a crash or could not
/// be put back.
#[derive(Debug)]
pub struct Claims {
    session: u32,
    next: AtomicU32,
    /// The time in the digits of the last set, in microseconds since 1970.
    last_set: AtomicU64,
    in_progress: Mutex<HashSet<OsString>>,
    /// Pending claims, which could not be put back, by the directory that contains them and the temp's original name.
    pending: Mutex<HashMap<(RootId, OsString), BTreeSet<OsString>>>,
}

/// A claim name that is in use until this value is dropped.
#[derive(Debug)]
pub struct ClaimName<'a> {
    claims: &'a Claims,
    name: OsString,
}

impl Claims {
    /// Creates claim names with the number `session`. The caller chooses it at random, so that two processes never
    /// create the same names.
    #[must_use]
    pub fn new(session: u32) -> Claims {
        Claims {
            session,
            next: AtomicU32::new(0),
            last_set: AtomicU64::new(0),
            in_progress: Mutex::default(),
            pending: Mutex::default(),
        }
    }

    /// Creates a claim name for `name`. A name that is too long is cut in the middle.
    #[must_use]
    pub fn name(&self, name: &OsStr) -> ClaimName<'_> {
        let number = self.next_number();
        self.with_digits((u64::from(self.session) << 32) | u64::from(number), name)
    }

    /// Creates claim names for the members of a set, which is claimed at the time `at`. They have the same digits, which
    /// show that they belong together, and when they were claimed.
    #[must_use]
    pub fn names_of_set<'n>(
        &self,
        at: Wall,
        names: impl Iterator<Item = &'n OsStr>,
    ) -> Vec<ClaimName<'_>> {
        let micros = u64::try_from(at.sec).unwrap_or(0).saturating_mul(1_000_000);
        let micros = micros.saturating_add(u64::from(at.nsec / 1_000));
        let after = |last: u64| Some(micros.max(last.saturating_add(1)));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let last = self.last_set.fetch_update(set, fetch, after).unwrap_or(0);
        let micros = after(last).unwrap_or(micros);
        let digits = set_digits(micros, self.session);
        names.map(|name| self.with_digits(digits, name)).collect()
    }

    fn next_number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed) & !SET_BIT
    }

    fn with_digits(&self, digits: u64, name: &OsStr) -> ClaimName<'_> {
        let mut claim = Vec::with_capacity(NAME_MAX);
        claim.extend_from_slice(CLAIM_PREFIX);
        let hex = |shift: usize| b"0123456789abcdef"[(digits >> (4 * shift)) as usize & 0xf];
        claim.extend((0..CLAIM_HEX).rev().map(hex));
        claim.push(b'-');
        let space = NAME_MAX - claim.len();
        let name = name.as_bytes();
        if name.len() <= space {
            claim.extend_from_slice(name);
        } else {
            let head = space / 2;
            let tail = name.len() - (space - head);
            claim.extend_from_slice(name.get(..head).unwrap_or_default());
            claim.extend_from_slice(name.get(tail..).unwrap_or_default());
        }
        let name = OsString::from_vec(claim);
        self.in_progress().insert(name.clone());
        ClaimName { claims: self, name }
    }

    /// Reports whether this process is currently processing `claim`.
    #[must_use]
    pub fn is_in_progress(&self, claim: &OsStr) -> bool {
        self.in_progress().contains(claim)
    }

    /// Records that `claim` in the directory `dir` could not be put back and is pending. The put-back is tried again
    /// when the temp `name` is due. Returns whether the claim is a new entry.
    pub(crate) fn add_pending(&self, dir: RootId, name: &OsStr, claim: &OsStr) -> bool {
        let mut pending = guard(&self.pending);
        let of_name = pending.entry((dir, name.to_owned())).or_default();
        of_name.insert(claim.to_owned())
    }

    /// Removes and returns the pending claims of the temp `name` in the directory `dir`, so that the caller tries
    /// again to put them back.
    #[must_use]
    pub(crate) fn take_pending(&self, dir: RootId, name: &OsStr) -> BTreeSet<OsString> {
        let mut pending = guard(&self.pending);
        // The usual case.
        if pending.is_empty() {
            return BTreeSet::new();
        }
        pending.remove(&(dir, name.to_owned())).unwrap_or_default()
    }

    fn in_progress(&self) -> MutexGuard<'_, HashSet<OsString>> {
        guard(&self.in_progress)
    }
}

impl ClaimName<'_> {
    /// Returns the name.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::own_names::{CLAIM_HEX as HEX, parse_claim as parse};

    #[test]
    fn a_claim_name_contains_the_original_name() {
        let claims = Claims::new(0xdead_beef);

        let at_most = NAME_MAX - CLAIM_PREFIX.len() - HEX - 1;
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
            let claim_name = claims.name(OsStr::new(&name));
            let claim = claim_name.name();
            assert_eq!(claim.len(), NAME_MAX, "{length}");
            assert!(claim.as_bytes().ends_with(b".tmp"), "{length}");
            let kept = claim.as_bytes().split_at(CLAIM_PREFIX.len() + HEX + 1).1;
            assert!(kept.starts_with(b"sessions.json"), "{length}");
            assert_eq!(
                parse(claim).expect("a claim name").original,
                None,
                "{length}"
            );
        }
    }

    #[test]
    fn pending_claims_are_returned_once() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = |dir: &tempfile::TempDir| {
            RootId::of(&dir.path().canonicalize().unwrap()).expect("a directory")
        };
        let (here, there) = (dir(&here), dir(&there));
        let claims = Claims::new(7);
        let add =
            |dir, name: &str, claim: &str| claims.add_pending(dir, name.as_ref(), claim.as_ref());
        assert!(add(here, "a", "1"));
        assert!(add(there, "a", "2"));
        assert!(add(here, "a", "3"));
        assert!(add(here, "b", "4"));
        assert!(!add(here, "b", "4"), "already recorded");
        let take = |dir, name: &str| Vec::from_iter(claims.take_pending(dir, name.as_ref()));
        assert_eq!(take(here, "a"), ["1", "3"]);
        assert!(take(here, "a").is_empty());
        assert_eq!(take(there, "a"), ["2"]);
        assert_eq!(take(here, "b"), ["4"]);
    }

    #[test]
    fn the_claims_of_a_set_belong_together() {
        let claims = Claims::new(7);
        let names = ["a.tmp", "a.tmp-wal"].map(OsStr::new);
        let set = |claim: &ClaimName<'_>| parse(claim.name()).unwrap().set;
        let one = claims.names_of_set(Wall::default(), names.into_iter());
        let two = claims.names_of_set(Wall::default(), names.into_iter());
        assert!(set(&one[0]).is_some());
        assert_eq!(set(&one[0]), set(&one[1]));
        assert_ne!(set(&one[0]), set(&two[0]));
        assert_eq!(set(&claims.name(names[0])), None);
    }

    #[test]
    fn claim_names_differ() {
        let claims = Claims::new(7);
        let (one, two) = (claims.name(OsStr::new("a")), claims.name(OsStr::new("a")));
        assert_ne!(one.name(), two.name());
    }
}
