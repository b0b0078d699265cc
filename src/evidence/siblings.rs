//! Finds the other names in a temp's directory that protect the temp: companions (`x.tmp-wal` beside `x.tmp`), and
//! temps of which it may be the target (`x.tmp.tmp` beside `x.tmp`).
//!
//! A directory is listed once for many temps. For few temps it is cheaper to look up the three companions of each. The
//! listing of a large directory is reused for fifty times the time that it took, so that listings take at most a
//! fiftieth of the time. The companions are looked up again right before each removal.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::policy::Policy;
use crate::core::reserved;
use crate::core::reserved::Reserved;
use crate::core::temp_name::{Names, ParsedName, strip_number};
use crate::core::time::Mono;
use crate::fs::dir::{Buffer, Dir, RootId};
use crate::sys::clock;

/// The number of names that can be listed in the time in which the three companions of one temp can be looked up (ext4:
/// 9 µs for a temp, 280 ns for a listed name).
const LISTED_PER_TEMP: usize = 32;
/// The listing of a large directory is reused for this multiple of the time that it took.
const REUSE_FACTOR: u32 = 50;
/// The largest number of listings that are stored.
const MAX_LISTINGS: usize = 16;

/// The names in one directory that protect temps.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    companions: HashSet<OsString>,
    /// The names that may be targets of a temp in the directory, each with that temp.
    targets: HashMap<OsString, OsString>,
    /// The names of files that are not temps, without the number or uuid at their end.
    numbered: HashSet<OsString>,
}

impl Siblings {
    /// Lists `dir` and counts its names. Stops early if there are more than `max`.
    fn read(dir: &Dir, names: &Names, max: usize) -> io::Result<(Siblings, usize)> {
        let mut companions = HashSet::new();
        let mut temps = Vec::new();
        let mut numbered = HashSet::new();
        let mut count = 0;
        let listed = dir.read_while(&mut Buffer::default(), &mut |name, _| {
            count += 1;
            let is_companion = |temp: &OsStr| names.matches(temp.as_encoded_bytes());
            if reserved::companion_of(name).is_some_and(is_companion) {
                companions.insert(name.to_owned());
            }
            let bytes = name.as_encoded_bytes();
            if names.may_have_target(bytes) {
                temps.push(name.to_owned());
            } else if let Some(stem) = strip_number(bytes)
                && !numbered.contains(OsStr::from_bytes(stem))
            {
                numbered.insert(OsStr::from_bytes(stem).to_owned());
            }
            count <= max
        });
        match listed {
            // The directory was removed while it was listed, so it is empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => listed?,
        }
        let targets = names.targets_among(temps.iter().map(OsString::as_os_str));
        let siblings = Siblings {
            companions,
            targets,
            numbered,
        };
        Ok((siblings, count))
    }

    /// Corrects the parsed name of a temp by the other names in the directory. Digits before a uuid belong to the
    /// target if another file shows that targets end in such numbers: beside `metrics.4710`, `metrics.4711.<uuid>.tmp`
    /// is a temp of `metrics.4711`.
    #[must_use]
    pub fn apply_numbered(&self, parsed: ParsedName) -> ParsedName {
        let mut targets = parsed.targets.iter();
        let is_numbered =
            !parsed.numbered_targets.is_empty() && targets.any(|name| self.numbered.contains(name));
        match rule!("digits-like-another-files", is_numbered) {
            true => parsed.with_numbered_targets(),
            false => parsed,
        }
    }

    /// Returns the sibling for which the temp `name` is reserved, if there is one.
    #[must_use]
    pub fn protect(&self, name: &OsStr) -> Option<Reserved> {
        let temp = rule!("target-of-another-temp", self.targets.get(name), without: None);
        temp.cloned().map(Reserved::TargetOf).or_else(|| {
            // The usual case.
            if self.companions.is_empty() {
                return None;
            }
            let companion = reserved::companions(name).find(|name| self.companions.contains(name));
            companion.map(Reserved::HasCompanion)
        })
    }
}

/// Looks up the companions of the temp `name`.
pub fn find_companion(dir: &Dir, name: &OsStr) -> io::Result<Option<Reserved>> {
    for companion in reserved::companions(name) {
        match dir.observe(&companion) {
            Ok(None) => {}
            // No file can have a name that is too long.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {}
            Ok(Some(_)) => return Ok(Some(Reserved::HasCompanion(companion))),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The siblings of a batch of temps, read right before their removal.
#[derive(Debug)]
pub struct FreshSiblings<'a> {
    dir: &'a Dir,
    temps: usize,
    /// `None` until the directory was listed. `Some(None)` if it is too large to be listed.
    listed: Option<Option<Siblings>>,
}

impl<'a> FreshSiblings<'a> {
    /// Creates the siblings for `temps` temps of `dir`. Nothing is read before the first question.
    #[must_use]
    pub fn new(dir: &'a Dir, temps: usize) -> FreshSiblings<'a> {
        FreshSiblings {
            dir,
            temps,
            listed: None,
        }
    }

    /// Returns the sibling for which the temp `name` is reserved, if there is one. The first call of a batch
    /// lists the directory.
    pub fn protect(&mut self, names: &Names, name: &OsStr) -> io::Result<Option<Reserved>> {
        if self.listed.is_none() {
            let max = self.temps.saturating_mul(LISTED_PER_TEMP);
            let (siblings, count) = Siblings::read(self.dir, names, max)?;
            self.listed = Some((count <= max).then_some(siblings));
        }
        match &self.listed {
            Some(Some(siblings)) => Ok(siblings.protect(name)),
            _ => rule!(
                "companions-in-a-large-directory",
                find_companion(self.dir, name),
                without: Ok(None),
            ),
        }
    }
}

/// Lists directories, and stores the listings of large ones for a while.
#[derive(Debug, Default)]
pub struct Listings {
    stored: Mutex<Vec<Listing>>,
    /// Each listing is reused at least for this time.
    min_reuse: Duration,
}

#[derive(Debug)]
struct Listing {
    dir: RootId,
    policy: Arc<Policy>,
    until: Mono,
    siblings: Arc<Siblings>,
}

impl Listings {
    /// Reuses every listing for a second. This is for a command that looks once and removes nothing.
    #[must_use]
    pub fn for_one_command() -> Listings {
        Listings {
            min_reuse: Duration::from_secs(1),
            ..Listings::default()
        }
    }

    /// Returns the siblings of `temps` temps in `dir`.
    pub fn siblings_of(
        &self,
        dir: &Dir,
        policy: &Arc<Policy>,
        temps: usize,
    ) -> io::Result<Arc<Siblings>> {
        let started = clock::mono();
        let matches =
            |listing: &&Listing| listing.dir == dir.id() && Arc::ptr_eq(&listing.policy, policy);
        {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            stored.retain(|listing| listing.until > started);
            if let Some(listing) = stored.iter().find(matches) {
                return Ok(Arc::clone(&listing.siblings));
            }
        }
        let (siblings, count) = Siblings::read(dir, &policy.names, usize::MAX)?;
        let siblings = Arc::new(siblings);
        let ended = clock::mono();
        let reuse = match count > temps.saturating_mul(LISTED_PER_TEMP) {
            true => (ended.since(started) * REUSE_FACTOR).max(self.min_reuse),
            false => self.min_reuse,
        };
        if !reuse.is_zero() {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            stored.retain(|listing| !matches(&listing));
            if stored.len() == MAX_LISTINGS {
                stored.remove(0);
            }
            stored.push(Listing {
                dir: dir.id(),
                policy: Arc::clone(policy),
                until: ended.after(reuse),
                siblings: Arc::clone(&siblings),
            });
        }
        Ok(siblings)
    }
}
