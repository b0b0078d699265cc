//! The other names in a temp's directory, as far as they protect it: companions (`x.tmp-wal` beside
//! `x.tmp`), and temps that may be meant for it (`x.tmp.tmp` beside `x.tmp`).
//!
//! A directory is listed once for many temps, and three names are asked for where that is cheaper. The
//! listing of a large directory is used again for fifty times as long as it took, so that listings take
//! no more than a fiftieth of the time; right before each removal the companions are asked for anew.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::decide::policy::Policy;
use crate::decide::reserved::{self, Reserved};
use crate::decide::temp_name::{Names, ParsedName, strip_number};
use crate::decide::time::Mono;
use crate::look::{Buffer, Dir, RootId};

/// Looking up the three companions of a temp takes as long as listing this number of names (ext4: 9 µs, and
/// 280 ns for each name).
const LISTED_PER_TEMP: usize = 32;
/// The listing of a large directory is reused for this multiple of the time that it took.
const USED_FOR: u32 = 50;
/// The largest number of listings that are kept.
const MOST_KEPT: usize = 16;

/// The names that protect temps of one directory.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    companions: HashSet<OsString>,
    /// Names that another name may be meant for, and that other one.
    targets: HashMap<OsString, OsString>,
    /// What stands before a number or a uuid at the end of names that are no temps.
    numbered: HashSet<OsString>,
}

impl Siblings {
    /// Lists `dir` and counts its names; stops early where there are more than `most`.
    fn read(dir: &Dir, names: &Names, most: usize) -> io::Result<(Siblings, usize)> {
        let mut companions = HashSet::new();
        let mut taken = Vec::new();
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
                taken.push(name.to_owned());
            } else if let Some(stem) = strip_number(bytes)
                && !numbered.contains(OsStr::from_bytes(stem))
            {
                numbered.insert(OsStr::from_bytes(stem).to_owned());
            }
            count <= most
        });
        match listed {
            // It was removed while it was listed: nothing is in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => listed?,
        }
        let targets = names.targets_among(taken.iter().map(OsString::as_os_str));
        let siblings = Siblings {
            companions,
            targets,
            numbered,
        };
        Ok((siblings, count))
    }

    /// Returns what a temp's name says, in view of the other names: digits before a uuid belong to the target where
    /// another file shows that targets end in such numbers. `metrics.4711.<uuid>.tmp` beside `metrics.4710` is one of
    /// `metrics.4711`.
    #[must_use]
    pub fn parsed(&self, parsed: ParsedName) -> ParsedName {
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
            // Nearly always.
            if self.companions.is_empty() {
                return None;
            }
            let companion = reserved::companions(name).find(|name| self.companions.contains(name));
            companion.map(Reserved::HasCompanion)
        })
    }
}

/// Looks up the companions of the temp `name`.
pub fn companion(dir: &Dir, name: &OsStr) -> io::Result<Option<Reserved>> {
    for companion in reserved::companions(name) {
        match dir.observe(&companion) {
            Ok(None) => {}
            // A name that is too long has no file.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {}
            Ok(Some(_)) => return Ok(Some(Reserved::HasCompanion(companion))),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The siblings of a batch of temps, asked for at the last moment.
#[derive(Debug)]
pub struct Fresh<'a> {
    dir: &'a Dir,
    temps: usize,
    /// Once it was listed; `None` in it: it is too large for that.
    listed: Option<Option<Siblings>>,
}

impl<'a> Fresh<'a> {
    /// `temps` temps of `dir` are to be asked about.
    #[must_use]
    pub fn new(dir: &'a Dir, temps: usize) -> Fresh<'a> {
        Fresh {
            dir,
            temps,
            listed: None,
        }
    }

    /// Returns the sibling for which the temp `name` is reserved, if there is one. The first call of a batch
    /// lists the directory.
    pub fn protect(&mut self, names: &Names, name: &OsStr) -> io::Result<Option<Reserved>> {
        if self.listed.is_none() {
            let most = self.temps.saturating_mul(LISTED_PER_TEMP);
            let (siblings, count) = Siblings::read(self.dir, names, most)?;
            self.listed = Some((count <= most).then_some(siblings));
        }
        match &self.listed {
            Some(Some(siblings)) => Ok(siblings.protect(name)),
            _ => rule!(
                "companions-in-a-large-directory",
                companion(self.dir, name),
                without: Ok(None),
            ),
        }
    }
}

/// Lists directories, and keeps the listings of large ones for a while.
#[derive(Debug, Default)]
pub struct Listings {
    kept: Mutex<Vec<Listing>>,
    shortest: Duration,
}

#[derive(Debug)]
struct Listing {
    dir: RootId,
    policy: Arc<Policy>,
    until: Mono,
    siblings: Arc<Siblings>,
}

impl Listings {
    /// Keeps every listing for a second: for a command that looks once, and removes nothing.
    #[must_use]
    pub fn for_one_look() -> Listings {
        Listings {
            shortest: Duration::from_secs(1),
            ..Listings::default()
        }
    }

    /// Returns the siblings of `temps` temps in `dir`.
    pub fn of(&self, dir: &Dir, policy: &Arc<Policy>, temps: usize) -> io::Result<Arc<Siblings>> {
        let started = clock::mono();
        let is_it =
            |listing: &&Listing| listing.dir == dir.id() && Arc::ptr_eq(&listing.policy, policy);
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|listing| listing.until > started);
            if let Some(listing) = kept.iter().find(is_it) {
                return Ok(Arc::clone(&listing.siblings));
            }
        }
        let (siblings, count) = Siblings::read(dir, &policy.names, usize::MAX)?;
        let siblings = Arc::new(siblings);
        let ended = clock::mono();
        let used_for = match count > temps.saturating_mul(LISTED_PER_TEMP) {
            true => (ended.since(started) * USED_FOR).max(self.shortest),
            false => self.shortest,
        };
        if !used_for.is_zero() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|listing| !is_it(&listing));
            if kept.len() == MOST_KEPT {
                kept.remove(0);
            }
            kept.push(Listing {
                dir: dir.id(),
                policy: Arc::clone(policy),
                until: ended.after(used_for),
                siblings: Arc::clone(&siblings),
            });
        }
        Ok(siblings)
    }
}
