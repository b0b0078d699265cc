//! Finds the target of a temp, which is the file that the temp would have replaced, and decides whether it counts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::FileId;
use super::flushed_targets::FlushedTargets;
use crate::core::judge::{LinkFault, Target};
use crate::core::observation::{Kind, Observation};
use crate::core::policy::Policy;
use crate::core::target::{TargetFile, TempFile, assess};
use crate::core::temp_name::ParsedName;
use crate::core::time::Now;
use crate::fs::dir;
use crate::fs::dir::Dir;
use crate::sys::clock;

/// The temp that a target is compared with.
#[derive(Clone, Copy, Debug)]
pub struct ComparedTemp<'a> {
    /// The observation of the temp.
    pub seen: &'a Observation,
    /// The open temp. `None` if it could not be opened; its length counts as data then.
    pub file: Option<BorrowedFd<'a>>,
    /// The sum of the sizes of its companions, in bytes. It is added to the size and to the data of the temp.
    pub companion_bytes: u64,
    /// The looks at targets that it shares with other temps.
    pub shared: Option<&'a SharedTargets>,
    /// The targets that are on the disk, if a target must be before it counts. `None` if nothing will be removed.
    pub flushed: Option<&'a FlushedTargets>,
}

impl ComparedTemp<'_> {
    /// Observes a possible target. Returns the observation and its time.
    fn observe(&self, dir: &Dir, name: &OsStr) -> io::Result<(Option<Observation>, Now)> {
        match self.shared {
            Some(shared) => shared.observe(dir, name),
            None => {
                let at = clock::now();
                Ok((dir.observe(name)?, at))
            }
        }
    }

    /// Returns a lower bound for the data of the file at `place`, of which `seen` is the observation. Counting stops
    /// when `enough` is reached. The inner value is `None` if the file cannot be read.
    fn data_of(
        &self,
        place: TargetPlace<'_>,
        seen: &Observation,
        enough: u64,
    ) -> io::Result<Option<u64>> {
        match self.shared {
            Some(shared) if !place.by_link => {
                shared.data_of(place, enough, || self.measure(place, seen, enough))
            }
            _ => self.measure(place, seen, enough),
        }
    }

    /// Returns a lower bound for the data of the file at `place`, if it can be read and is the one that was seen. Writes
    /// it to the disk first if the temp may be removed.
    fn measure(
        &self,
        place: TargetPlace<'_>,
        seen: &Observation,
        enough: u64,
    ) -> io::Result<Option<u64>> {
        use std::os::fd::AsFd;
        let Some(opened) = dir::open_to_measure(place.at, place.name)? else {
            return Ok(None);
        };
        let opened = opened.as_fd();
        if dir::observe_fd(opened)? != *seen {
            return Ok(None);
        }
        if let Some(flushed) = self.flushed {
            flushed.flush(opened, seen, clock::wall())?;
        }
        dir::data_at_least(opened, seen, enough).map(Some)
    }
}

/// Looks at targets that the temps of one directory share, for at most 100 ms.
///
/// They are for a verdict that removes nothing, or after which the protocol looks at the target of each temp once more.
#[derive(Debug, Default)]
pub struct SharedTargets(RefCell<HashMap<OsString, SharedTarget>>);

/// The time for which temps share the look at a target.
const SHARED_FOR: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct SharedTarget {
    at: Now,
    seen: Option<Observation>,
    measured: Option<Measured>,
}

/// The data of a target.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Counting stopped at this number.
    enough: u64,
    data: u64,
}

impl SharedTargets {
    fn observe(&self, dir: &Dir, name: &OsStr) -> io::Result<(Option<Observation>, Now)> {
        let at = clock::now();
        let mut known = self.0.borrow_mut();
        let Some(target) = known.get_mut(name) else {
            let target = SharedTarget {
                at,
                seen: dir.observe(name)?,
                measured: None,
            };
            let seen = target.seen;
            known.insert(name.to_owned(), target);
            return Ok((seen, at));
        };
        if at.mono.since(target.at.mono) < SHARED_FOR {
            return Ok((target.seen, target.at));
        }
        let seen = dir.observe(name)?;
        let file = target.seen.filter(|file| Some(*file) == seen);
        let is_same = file.is_some_and(|file| has_settled(dir, &file, target.at));
        *target = SharedTarget {
            at,
            seen,
            measured: target.measured.filter(|_| is_same),
        };
        Ok((seen, at))
    }

    /// Returns the data of a target, which `measure` finds out if no other temp did.
    fn data_of(
        &self,
        place: TargetPlace<'_>,
        enough: u64,
        measure: impl FnOnce() -> io::Result<Option<u64>>,
    ) -> io::Result<Option<u64>> {
        let mut known = self.0.borrow_mut();
        let Some(target) = known.get_mut(place.name) else {
            return measure();
        };
        if let Some(measured) = target.measured
            && (enough <= measured.enough || measured.data < measured.enough)
        {
            return Ok(Some(measured.data));
        }
        let data = measure()?;
        target.measured = data.map(|data| Measured { enough, data });
        Ok(data)
    }
}

/// The result of the search for a target.
#[derive(Clone, Copy, Debug)]
pub struct FoundTarget {
    /// The state of the target.
    pub target: Target,
    /// The index of the target's name among the possible target names of the temp.
    pub index: Option<usize>,
    /// The regular file with the target's name, if the state was derived from it.
    seen: Option<Observation>,
    /// The time right before the first observation.
    at: Now,
}

impl FoundTarget {
    fn without_file(target: Target, index: Option<usize>, at: Now) -> FoundTarget {
        FoundTarget {
            target,
            index,
            seen: None,
            at,
        }
    }

    /// Returns the file that counts, if it has the name of the target itself.
    #[must_use]
    pub fn counting_file(&self) -> Option<&Observation> {
        self.seen.as_ref().filter(|_| self.target.counts())
    }

    /// Returns the newest date of the regular file at the name of the target. Returns `None` if there is no such file, or
    /// if it may have been mounted there later.
    #[must_use]
    pub fn newest_date(&self) -> Option<crate::core::time::Wall> {
        let seen = self
            .seen
            .filter(|seen| rule!("mount-has-no-date", !seen.mount_root, without: true));
        seen.map(|seen| seen.fingerprint.newest())
    }
}

/// Returns the parsed name of a temp, with a longer target if that file exists: beside `x.repair`, the name
/// `x.repair.<pid>.<uuid>.tmp` may be that of a temp of `x.repair`, whatever the grammar of a writer tells.
///
/// # Errors
///
/// The system reports an error.
pub fn with_longer_target(dir: &Dir, mut parsed: ParsedName) -> io::Result<ParsedName> {
    for target in std::mem::take(&mut parsed.longer_targets) {
        let exists = dir.observe(&target)?.is_some();
        if rule!("longer-target-exists", exists) {
            return Ok(parsed.with_longer_target(target));
        }
    }
    Ok(parsed)
}

/// Finds the target of a temp in `dir`: the first of its possible target names that exists, and whether that file
/// counts. If none exists, the result has the index of the first name.
///
/// A target whose own name ends like the name of a temp cannot be recognized if no such file exists: `app.<uuid>.tmp` is
/// then parsed as a temp of `app`, as its writers name it.
///
/// # Errors
///
/// The system reports an error.
pub fn find_target(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: ComparedTemp<'_>,
) -> io::Result<FoundTarget> {
    if rule!("every-target-of-a-shared-name-counts", parsed.shares_name()) {
        return find_every_target(dir, policy, parsed, temp);
    }
    let mut first = None;
    for (index, name) in parsed.targets.iter().enumerate() {
        let (seen, at) = temp.observe(dir, name)?;
        let Some(seen) = seen else {
            first.get_or_insert_with(|| FoundTarget::without_file(Target::Absent, Some(index), at));
            continue;
        };
        let is_foreign = parsed
            .owner
            .is_some_and(|owner| owner != seen.fingerprint.uid);
        if rule!("told-target-has-the-owner", is_foreign) {
            return Ok(FoundTarget::without_file(Target::Foreign, Some(index), at));
        }
        let target = compare(dir, policy, name, &seen, temp)?;
        // If only `config` exists beside `.config.tmp`, the temp may hold the only copy of `.config`.
        let is_guess = index > 0 && !parsed.dot_is_prefix();
        if rule!("namesake-is-no-copy", is_guess) && target == (Target::Whole { same_file: false })
        {
            let at = first.map_or(at, |first| first.at);
            return Ok(FoundTarget::without_file(Target::Unknown, Some(0), at));
        }
        // The file that exists is the target, even if it does not count.
        return Ok(FoundTarget {
            target,
            index: Some(index),
            seen: (seen.fingerprint.kind == Kind::File).then_some(seen),
            at,
        });
    }
    Ok(first.unwrap_or_else(|| FoundTarget::without_file(Target::Unknown, None, clock::now())))
}

/// Finds the name of the target of a temp, as [`find_target`] does. The file with that name is not compared with the
/// temp unless the name depends on the result.
///
/// # Errors
///
/// The system reports an error.
pub(super) fn find_target_name(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: ComparedTemp<'_>,
) -> io::Result<FoundTarget> {
    if let (Some(first), false) = (parsed.targets.first(), parsed.shares_name()) {
        let (seen, at) = temp.observe(dir, first)?;
        if seen.is_some() {
            return Ok(FoundTarget::without_file(Target::Unknown, Some(0), at));
        }
    }
    find_target(dir, policy, parsed, temp)
}

/// Finds all targets of a temp whose name several targets share. The first one that does not count is the result.
fn find_every_target(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: ComparedTemp<'_>,
) -> io::Result<FoundTarget> {
    let at = clock::now();
    let mut last = FoundTarget::without_file(Target::Unknown, None, at);
    for (index, name) in parsed.targets.iter().enumerate() {
        let Some(seen) = dir.observe(name)? else {
            return Ok(FoundTarget::without_file(Target::Absent, Some(index), at));
        };
        // The later check must measure all of them again, so none is remembered.
        let target = compare(dir, policy, name, &seen, temp)?;
        last = FoundTarget::without_file(target, Some(index), at);
        if !last.target.counts() {
            break;
        }
    }
    Ok(last)
}

/// Compares the file `name` in `dir`, of which `seen` is the observation, with `temp`.
fn compare(
    dir: &Dir,
    policy: &Policy,
    name: &OsStr,
    seen: &Observation,
    temp: ComparedTemp<'_>,
) -> io::Result<Target> {
    match seen.fingerprint.kind {
        Kind::File => {
            let place = TargetPlace {
                at: dir.fd(),
                name,
                by_link: false,
            };
            compare_with_file(dir, place, seen, temp)
        }
        Kind::Symlink => compare_with_link_target(dir, policy, name, temp),
        kind => Ok(Target::NotRegular(kind)),
    }
}

/// Finds the target again after the result `found`. A file that has not changed since then is not measured a second
/// time.
///
/// # Errors
///
/// The system reports an error.
pub fn recheck_target(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: ComparedTemp<'_>,
    found: &FoundTarget,
) -> io::Result<FoundTarget> {
    if let (Some(before), Some(name)) = (found.seen, target_name(parsed, found.index))
        && has_settled(dir, &before, found.at)
        && dir.observe(name)? == Some(before)
    {
        return Ok(*found);
    }
    find_target(dir, policy, parsed, temp)
}

/// Reports whether any change of a file after the observation `seen`, which was made at `at`, gives it a new date.
///
/// If the last change was more recent, the file may have changed again without a new date: the kernel dates changes by
/// its last tick, 10 ms ago at most.
fn has_settled(dir: &Dir, seen: &Observation, at: Now) -> bool {
    let file = &seen.fingerprint;
    let recent = match dir.properties().dates.lag(file) {
        Duration::ZERO => Duration::from_millis(100),
        _ => Duration::from_secs(3),
    };
    at.wall.since(file.mtime.max(file.ctime)) >= recent
}

/// Returns the possible target name at `index`.
#[must_use]
pub fn target_name(parsed: &ParsedName, index: Option<usize>) -> Option<&OsStr> {
    parsed.targets.get(index?).map(AsRef::as_ref)
}

/// The directory and the name of a target.
#[derive(Clone, Copy)]
struct TargetPlace<'a> {
    /// The directory.
    at: BorrowedFd<'a>,
    /// The base name in the directory.
    name: &'a OsStr,
    /// A symlink at the target's own name leads to this file.
    by_link: bool,
}

/// Reports whether users other than the owner of `dir` may create names in it. With a hard link a user gives a file of
/// another user a name (`fs.protected_hardlinks` of proc(5) allows that for files that the user may write).
fn others_can_create_names(dir: &Dir) -> io::Result<bool> {
    Ok(dir::observe_fd(dir.fd())?.others_may_write())
}

/// Compares the regular file at `place`, of which `seen` is the observation, with `temp` in `dir`.
fn compare_with_file(
    dir: &Dir,
    place: TargetPlace<'_>,
    seen: &Observation,
    temp: ComparedTemp<'_>,
) -> io::Result<Target> {
    let (file, other) = (&seen.fingerprint, &temp.seen.fingerprint);
    if FileId::from(file) == FileId::from(other) {
        let is_mounted = seen.mount_root || file.links < 2;
        return Ok(match file.size {
            0 => Target::Empty,
            _ if rule!("mounted-temp-is-no-copy", is_mounted) => Target::Itself,
            _ => Target::Whole { same_file: true },
        });
    }
    if seen.dataless {
        return Ok(Target::Unreadable);
    }
    let has_other_names = file.links > 1 && !place.by_link;
    if rule!(
        "link-by-another-user-is-no-copy",
        has_other_names && others_can_create_names(dir)?
    ) {
        return Ok(Target::Linked);
    }
    let dates = dir.properties().dates;
    let step = dates.step(file).max(dates.step(other));
    let mut target = TargetFile {
        uid: file.uid,
        data: 0,
        // The dates of the file do not show when the symlink was set to it, nor when the file was mounted at its path.
        changed: (rule!("symlink-age-is-unknown", !place.by_link, without: true)
            && rule!("mount-may-be-later", !seen.mount_root, without: true))
        .then(|| file.mtime.max(file.ctime)),
    };
    let companions = rule!("companions-count-as-data", temp.companion_bytes, without: 0);
    let size = other.size.saturating_add(companions);
    let mut compared = TempFile {
        uid: other.uid,
        // The data of a file is at most its length.
        data: size,
        written: TempFile::written(other.mtime, other.ctime),
    };
    if let Target::Foreign = assess(&target, &compared, clock::wall(), step) {
        return Ok(Target::Foreign);
    }
    if rule!("empty-target-does-not-count", file.size == 0) {
        return Ok(Target::Empty);
    }
    target.data = match temp.data_of(place, seen, size.max(1)) {
        // The file was removed after the observation. The caller looks again before it removes the temp.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(Target::Absent),
        Ok(None) => return Ok(Target::Unreadable),
        data => data?.unwrap_or(0),
    };
    if let (true, Some(temp_file)) = (target.data < size, temp.file) {
        let data = dir::data_at_most(temp_file, temp.seen).unwrap_or(other.size);
        compared.data = data.saturating_add(companions);
    }
    Ok(assess(&target, &compared, clock::wall(), step))
}

/// Compares the file that the symlink `name` in `dir` leads to with `temp`.
fn compare_with_link_target(
    dir: &Dir,
    policy: &Policy,
    name: &OsStr,
    temp: ComparedTemp<'_>,
) -> io::Result<Target> {
    use std::os::fd::AsFd;
    let found = match dir.follow(name, temp.seen.fingerprint.uid)? {
        Ok(found) => found,
        Err(fault) => return Ok(Target::Link(fault)),
    };
    if rule!(
        "link-to-a-temp",
        policy.names.matches(found.name.as_encoded_bytes())
    ) || FileId::from(&found.seen.fingerprint) == FileId::from(&temp.seen.fingerprint)
    {
        return Ok(Target::Link(LinkFault::Temp));
    }
    match found.seen.fingerprint.kind {
        Kind::File => {
            let place = TargetPlace {
                at: found.dir.as_fd(),
                name: &found.name,
                by_link: true,
            };
            compare_with_file(dir, place, &found.seen, temp)
        }
        kind => Ok(Target::NotRegular(kind)),
    }
}
