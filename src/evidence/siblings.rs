//! Finds the other names in a temp's directory that concern the temp: its companions (`x.tmp-wal` beside `x.tmp`), and
//! temps of which it may be the target (`x.tmp.tmp` beside `x.tmp`).
//!
//! A directory is listed once for many temps. The listing of a directory with more names than due temps is reused for
//! fifty times the time that it took, so that listings take at most a fiftieth of the time. The companions are read
//! again right before each removal: by another listing, or looked up if there are few temps.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};

use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::temp_name::{Names, ParsedName, ends_in_uuid, strip_number};
use crate::core::temp_set::SetNames;
use crate::core::time::Mono;
use crate::fs::dir::{Buffer, Dir, RootId};
use crate::sys::clock;
use crate::sys::mutex::guard;

/// About the number of names that can be listed in the time in which the three companions of one temp can be looked up (ext4:
/// 9 µs for a temp, 280 ns for a listed name).
const LISTED_PER_TEMP: usize = 40;
/// A listing is reused for this multiple of the time that it took.
const REUSE_FACTOR: u32 = 50;
/// The largest number of listings that are stored.
const MAX_LISTINGS: usize = 16;

/// The names in one directory that concern temps.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    /// The companions of each temp.
    companions: HashMap<OsString, BTreeSet<OsString>>,
    /// The names that may be targets of a temp in the directory, each with that temp.
    targets: HashMap<OsString, OsString>,
    /// The names of files that no program is known to write as temps, without the numbers and uuids at their end; and the
    /// targets of learned shapes whose temps may have longer targets.
    numbered: HashSet<OsString>,
    /// The forms of those names that end in a uuid.
    forms: HashSet<Vec<u8>>,
}

/// The names in a directory.
#[derive(Debug, Default)]
pub struct NameList {
    /// The bytes of all names, without separators.
    bytes: Vec<u8>,
    names: Vec<ListedName>,
}

#[derive(Debug)]
struct ListedName {
    /// The kernel's record of a directory entry, which has a 16-bit length, contains the whole name.
    length: u16,
    /// False if it is known that the rule does not match the name.
    may_match: bool,
}

impl NameList {
    /// Adds a name.
    pub fn push(&mut self, name: &OsStr) {
        let name = name.as_bytes();
        let Ok(length) = u16::try_from(name.len()) else {
            // No file has such a name.
            return;
        };
        if self.names.is_empty() {
            // Most directories need no more.
            self.bytes.reserve(4096);
            self.names.reserve(256);
        }
        self.bytes.extend_from_slice(name);
        self.names.push(ListedName {
            length,
            may_match: true,
        });
    }

    /// Records that the rule does not match the name that was added last.
    pub fn last_is_unmatched(&mut self) {
        if let Some(last) = self.names.last_mut() {
            last.may_match = false;
        }
    }

    /// Returns the names in the order in which they were added, each with whether the rule may match it.
    fn iter(&self) -> impl Iterator<Item = (&OsStr, bool)> {
        let mut rest = self.bytes.as_slice();
        self.names.iter().map_while(move |listed| {
            let (name, after) = rest.split_at_checked(usize::from(listed.length))?;
            rest = after;
            Some((OsStr::from_bytes(name), listed.may_match))
        })
    }
}

/// Collects the siblings from the names in a directory.
struct Collector<'n> {
    names: &'n Names,
    companions: HashMap<OsString, BTreeSet<OsString>>,
    temps: Vec<OsString>,
    numbered: HashSet<OsString>,
    forms: HashSet<Vec<u8>>,
}

impl Collector<'_> {
    fn new(names: &Names) -> Collector<'_> {
        Collector {
            names,
            companions: HashMap::new(),
            temps: Vec::new(),
            numbered: HashSet::new(),
            forms: HashSet::new(),
        }
    }

    /// Adds a name. `may_match` is false if it is known that the rule does not match the name.
    fn add(&mut self, name: &OsStr, may_match: bool) {
        for temp in self.names.temps_of(name) {
            let of_temp = self.companions.entry(temp.to_owned()).or_default();
            of_temp.insert(name.to_owned());
        }
        let bytes = name.as_encoded_bytes();
        if may_match && self.names.may_have_target(bytes) {
            self.temps.push(name.to_owned());
        } else {
            for shape in self.names.shapes_with_longer_target(bytes) {
                let target = OsStr::from_bytes(&shape.target);
                self.numbered.insert(target.to_owned());
            }
        }
        if strip_number(bytes).is_some() && !self.is_by_program(bytes, may_match) {
            self.add_numbered(bytes);
        }
    }

    /// Reports whether a temp has its name from a known program. Otherwise only a glob of the rule matches it, and it may
    /// be a target too.
    fn is_by_program(&self, name: &[u8], may_match: bool) -> bool {
        let is_temp = may_match && self.names.may_have_target(name);
        is_temp
            && rule!("file-of-a-glob-shows-a-number", self.names.is_by_program(name), without: true)
    }

    /// Adds the name of a file that ends in a number or a uuid.
    fn add_numbered(&mut self, name: &[u8]) {
        if ends_in_uuid(name) {
            self.forms.insert(number_form(name));
        }
        let mut rest = name;
        while let Some(stem) = strip_number(rest) {
            if !self.numbered.contains(OsStr::from_bytes(stem)) {
                self.numbered.insert(OsStr::from_bytes(stem).to_owned());
            }
            rest = rule!("every-number-of-a-sibling", stem, without: b"".as_slice());
        }
    }

    fn siblings(self) -> Siblings {
        let temps = self.temps.iter().map(OsString::as_os_str);
        Siblings {
            targets: self.names.targets_among(temps),
            companions: self.companions,
            numbered: self.numbered,
            forms: self.forms,
        }
    }
}

impl Siblings {
    /// Lists `dir`.
    pub fn of_dir(dir: &Dir, names: &Names) -> io::Result<Siblings> {
        Ok(Siblings::read(dir, names, usize::MAX)?.0)
    }

    /// Returns the siblings in a directory with the names `all`.
    #[must_use]
    pub fn of_list(all: &NameList, names: &Names) -> Siblings {
        let mut collector = Collector::new(names);
        for (name, may_match) in all.iter() {
            collector.add(name, may_match);
        }
        collector.siblings()
    }

    /// Lists `dir` and counts its names. Stops early if there are more than `max`.
    fn read(dir: &Dir, names: &Names, max: usize) -> io::Result<(Siblings, usize)> {
        let mut collector = Collector::new(names);
        let mut count = 0;
        let listed = dir.read_while(&mut Buffer::default(), &mut |name, _| {
            count += 1;
            collector.add(name, true);
            count <= max
        });
        match listed {
            // The directory was removed while it was listed, so it is empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => listed?,
        }
        Ok((collector.siblings(), count))
    }

    /// Reports whether a temp in the directory may be the target of another one.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Reports whether a temp in the directory has a companion.
    #[must_use]
    pub fn has_companions(&self) -> bool {
        !self.companions.is_empty()
    }

    /// Corrects the parsed name of a temp by the other names in the directory. Digits before a uuid belong to the
    /// target if another file shows that targets end in such numbers: beside `metrics.4710`, `metrics.4711.<uuid>.tmp`
    /// is a temp of `metrics.4711`.
    #[must_use]
    fn apply_numbered(&self, parsed: ParsedName) -> ParsedName {
        let mut targets = parsed.targets.iter();
        let is_numbered =
            !parsed.numbered_targets.is_empty() && targets.any(|name| self.numbered.contains(name));
        match rule!("digits-like-another-files", is_numbered) {
            true => ParsedName {
                is_longest: true,
                ..parsed.with_numbered_targets()
            },
            false => parsed,
        }
    }

    /// Corrects the parsed name of the temp `name` by other files whose names end in a uuid or a number.
    ///
    /// Beside `app.<uuid>`, `app.<uuid>.tmp` may be a temp of `app.<uuid>`. The grammar of a writer applies unless a
    /// file has exactly the longer name; the caller checks that.
    fn apply_uuid(&self, mut parsed: ParsedName, name: &OsStr) -> ParsedName {
        let longest = name.as_bytes().strip_suffix(b".tmp");
        let longest = longest.filter(|longest| !self.numbered.is_empty() && ends_in_uuid(longest));
        let Some((longest, stem)) =
            longest.and_then(|longest| Some((longest, strip_number(longest)?)))
        else {
            return parsed;
        };
        let is_shown = self.forms.contains(&number_form(longest));
        if rule!("uuid-like-another-file", is_shown) {
            let longest = OsStr::from_bytes(longest).to_owned();
            if parsed.writer.is_none() {
                return parsed.with_longer_target(longest);
            }
            parsed.longer_targets.push(longest);
        }
        let base = strip_number(stem).filter(|_| parsed.writer.is_some());
        if base.is_some_and(|base| self.numbered.contains(OsStr::from_bytes(base))) {
            parsed
                .longer_targets
                .push(OsStr::from_bytes(stem).to_owned());
        }
        parsed
    }

    /// Returns the parsed name of the temp `name` of `owner`, corrected by the other names in the directory, and by the
    /// learned shape that tells its target. No shape does if another file shows that the target may be longer.
    ///
    /// RACE: a file that shows a longer target may appear after the listing. Worst case: the temp is removed because its
    /// shorter target counts.
    #[must_use]
    pub fn apply(&self, parsed: ParsedName, names: &Names, name: &OsStr, owner: u32) -> ParsedName {
        let parsed = self.apply_uuid(parsed, name);
        if parsed.is_longest {
            return parsed;
        }
        let parsed = self.apply_numbered(parsed);
        let Some(shape) = names.telling_shape(name.as_bytes(), owner) else {
            return parsed;
        };
        let is_longer = self.numbered.contains(OsStr::from_bytes(&shape.target));
        match rule!("longer-target-than-told", is_longer) {
            true => parsed,
            false => parsed.told_by(shape),
        }
    }

    /// Returns the sibling for which the temp `name` is reserved, if there is one.
    #[must_use]
    pub fn protect(&self, name: &OsStr) -> Option<Reserved> {
        let temp = rule!("target-of-another-temp", self.targets.get(name), without: None);
        temp.cloned().map(Reserved::TargetOf)
    }

    /// Returns the companions of the temp `name`, and their companions.
    #[must_use]
    pub fn companions_of(&self, name: &OsStr) -> BTreeSet<OsString> {
        // The usual case.
        if self.companions.is_empty() {
            return BTreeSet::new();
        }
        let of = |name: &OsStr| Ok(self.companions.get(name).cloned().unwrap_or_default());
        with_their_own(name, of).unwrap_or_default()
    }
}

/// Returns a name with the numbers and uuids at its end replaced by their kinds: `job.7.<uuid>` and `job.8.<uuid>` have
/// the same form.
fn number_form(name: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = name;
    while let Some(stem) = strip_number(rest) {
        kinds.push(if ends_in_uuid(rest) { b'u' } else { b'n' });
        rest = stem;
    }
    // No name contains a zero byte.
    [rest, b"\0", &kinds].concat()
}

/// Returns the companions of the temp `name`, and their companions. `of` returns the companions of one file.
fn with_their_own(
    name: &OsStr,
    of: impl Fn(&OsStr) -> io::Result<BTreeSet<OsString>>,
) -> io::Result<BTreeSet<OsString>> {
    let mut all = of(name)?;
    let mut unread: Vec<OsString> = all.iter().cloned().collect();
    while let Some(companion) = unread.pop() {
        for more in of(&companion)? {
            if all.insert(more.clone()) {
                unread.push(more);
            }
        }
    }
    Ok(all)
}

/// Reads the names of the set of the temp `name` from the directory.
pub fn find_set(dir: &Dir, names: &Names, name: &OsStr) -> io::Result<SetNames> {
    let exists = |name: &OsStr| -> io::Result<bool> {
        match dir.observe(name) {
            // No file can have a name that is too long.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => Ok(false),
            seen => Ok(seen?.is_some()),
        }
    };
    // There are too many possible names if a row has patterns with variable parts.
    let has_too_many = Cell::new(false);
    let looked_up = with_their_own(name, |name| {
        let possible = names.companion_names(name);
        has_too_many.set(has_too_many.get() || possible.is_none());
        let mut found = BTreeSet::new();
        for companion in possible.unwrap_or_default() {
            if exists(&companion)? {
                found.insert(companion);
            }
        }
        Ok(found)
    })?;
    Ok(SetNames {
        has_main: exists(name)?,
        companions: match has_too_many.get() {
            false => looked_up,
            true => Siblings::of_dir(dir, names)?.companions_of(name),
        },
    })
}

/// Returns the temp of which the file `name` is a companion, if both exist and the rule matches both.
pub fn find_main(dir: &Dir, names: &Names, name: &OsStr) -> io::Result<Option<OsString>> {
    for temp in names.temps_of(name) {
        let is_companion = names.matches(temp.as_bytes()) && dir.observe(temp)?.is_some();
        if rule!("companion-is-not-taken-alone", is_companion) {
            return Ok(Some(temp.to_owned()));
        }
    }
    Ok(None)
}

/// The result of a check whether another name concerns a temp that is about to be removed.
#[derive(Debug, PartialEq, Eq)]
pub enum FreshSibling {
    /// No name does.
    None,
    /// Its name is reserved because of another one.
    Reserved(Reserved),
    /// A companion has appeared.
    Companion,
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

    /// Returns the sibling that concerns the single temp `name`, if there is one. The first call of a batch lists the
    /// directory.
    pub fn find(&mut self, names: &Names, name: &OsStr) -> io::Result<FreshSibling> {
        if self.listed.is_none() {
            let max = self.temps.saturating_mul(LISTED_PER_TEMP);
            let (siblings, count) = Siblings::read(self.dir, names, max)?;
            self.listed = Some((count <= max).then_some(siblings));
        }
        let has_companion = match &self.listed {
            Some(Some(siblings)) => {
                if let Some(reserved) = siblings.protect(name) {
                    return Ok(FreshSibling::Reserved(reserved));
                }
                !siblings.companions_of(name).is_empty()
            }
            _ => rule!(
                "companions-in-a-large-directory",
                has_companion(self.dir, names, name)?,
                without: false,
            ),
        };
        if has_companion {
            return Ok(FreshSibling::Companion);
        }
        let main = find_main(self.dir, names, name)?;
        Ok(main.map_or(FreshSibling::None, |main| {
            FreshSibling::Reserved(Reserved::CompanionOf(main))
        }))
    }
}

/// Reports whether the directory has a companion of the temp `name`.
pub fn has_companion(dir: &Dir, names: &Names, name: &OsStr) -> io::Result<bool> {
    Ok(!find_set(dir, names, name)?.companions.is_empty())
}

/// Lists directories, and stores the listings for a while.
#[derive(Debug, Default)]
pub struct Listings {
    stored: Mutex<Vec<Listing>>,
    /// The directories that are being listed.
    running: Mutex<Vec<(ListingKey, Arc<RunningListing>)>>,
}

/// A listing that another thread makes. Its lock is held until the listing is complete. `None` if it failed.
type RunningListing = Mutex<Option<Arc<Siblings>>>;

/// The directory and the rule of a listing.
#[derive(Clone, Debug)]
struct ListingKey {
    dir: RootId,
    policy: Arc<Policy>,
}

impl PartialEq for ListingKey {
    fn eq(&self, other: &ListingKey) -> bool {
        self.dir == other.dir && Arc::ptr_eq(&self.policy, &other.policy)
    }
}

#[derive(Debug)]
struct Listing {
    key: ListingKey,
    until: Mono,
    siblings: Arc<Siblings>,
}

impl Listings {
    /// Returns the siblings of `temps` temps in `dir`. If another thread is listing the directory, this waits for it.
    pub fn siblings_of(
        &self,
        dir: &Dir,
        policy: &Arc<Policy>,
        temps: usize,
    ) -> io::Result<Arc<Siblings>> {
        let key = ListingKey {
            dir: dir.id(),
            policy: Arc::clone(policy),
        };
        let slot = Arc::new(RunningListing::default());
        let mut result = guard(&slot);
        {
            // A listing that ends in between is stored before it is no longer running.
            let mut running = guard(&self.running);
            let other = running.iter().find(|(other, _)| *other == key);
            let other = other.map(|(_, other)| Arc::clone(other));
            if other.is_none() {
                if let Some(siblings) = self.stored(&key) {
                    return Ok(siblings);
                }
                running.push((key.clone(), Arc::clone(&slot)));
            }
            drop(running);
            if let Some(siblings) = other.and_then(|other| guard(&other).clone()) {
                return Ok(siblings);
            }
        }
        let listed = self.list(&key, dir, temps);
        *result = listed.as_ref().ok().map(Arc::clone);
        guard(&self.running).retain(|(_, other)| !Arc::ptr_eq(other, &slot));
        listed
    }

    fn stored(&self, key: &ListingKey) -> Option<Arc<Siblings>> {
        let (mut stored, now) = (guard(&self.stored), clock::mono());
        stored.retain(|listing| listing.until > now);
        let listing = stored.iter().find(|listing| listing.key == *key)?;
        Some(Arc::clone(&listing.siblings))
    }

    /// Lists the directory, and stores the listing if other passes of the same directory follow.
    fn list(&self, key: &ListingKey, dir: &Dir, temps: usize) -> io::Result<Arc<Siblings>> {
        let started = clock::mono();
        let (siblings, count) = Siblings::read(dir, &key.policy.names, usize::MAX)?;
        let siblings = Arc::new(siblings);
        let ended = clock::mono();
        if count > temps {
            let reuse = ended.since(started) * REUSE_FACTOR;
            let mut stored = guard(&self.stored);
            stored.retain(|listing| listing.key != *key);
            if stored.len() == MAX_LISTINGS {
                stored.remove(0);
            }
            stored.push(Listing {
                key: key.clone(),
                until: ended.after(reuse),
                siblings: Arc::clone(&siblings),
            });
        }
        Ok(siblings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Policy;
    use std::time::Duration;

    /// A second thread waits for the listing of the first one, and uses it unless it has failed.
    #[test]
    fn a_directory_is_listed_by_one_thread_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let dir = Dir::open_root(&path, None).unwrap();
        let policy = Arc::new(Policy::default());
        for is_listed in [true, false] {
            let (listings, by_first) = (Listings::default(), Arc::new(Siblings::default()));
            let slot = Arc::new(RunningListing::default());
            let mut result = guard(&slot);
            let key = ListingKey {
                dir: dir.id(),
                policy: Arc::clone(&policy),
            };
            guard(&listings.running).push((key, Arc::clone(&slot)));
            std::thread::scope(|scope| {
                let ask = || listings.siblings_of(&dir, &policy, 1).unwrap();
                let second = scope.spawn(ask);
                std::thread::sleep(Duration::from_millis(50));
                assert!(!second.is_finished(), "it waits");
                *result = is_listed.then(|| Arc::clone(&by_first));
                drop(result);
                let by_second = second.join().unwrap();
                assert_eq!(Arc::ptr_eq(&by_first, &by_second), is_listed);
            });
        }
    }
}
