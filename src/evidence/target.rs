//! The target of a temp: what stands at the name that it was to be renamed to, and whether that counts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::FileId;
use crate::clock;
use crate::decide::judge::{LinkFault, Target};
use crate::decide::observation::{Kind, Observation};
use crate::decide::policy::Policy;
use crate::decide::target::{TargetFile, TempFile, assess};
use crate::decide::temp_name::ParsedName;
use crate::look::{self, Dir};

/// The temp that a target is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// It, as it was observed.
    pub seen: &'a Observation,
    /// It, open; `None` where it could not be opened. Then its length counts as data.
    pub file: Option<BorrowedFd<'a>>,
}

/// What was found at the name of a target.
#[derive(Clone, Copy, Debug)]
pub struct FoundTarget {
    /// What stands there.
    pub target: Target,
    /// Which of the names that the temp may have been meant for it has, or would have.
    pub index: Option<usize>,
    /// The regular file that stands at that very name, where the answer rests on it.
    seen: Option<Observation>,
}

impl FoundTarget {
    fn plain(target: Target, index: Option<usize>) -> FoundTarget {
        FoundTarget {
            target,
            index,
            seen: None,
        }
    }

    /// When the regular file at the name of the target last changed, or was born. `None` where there is none.
    #[must_use]
    pub fn newest(&self) -> Option<crate::decide::time::Wall> {
        self.seen.map(|seen| seen.fingerprint.newest())
    }
}

/// Looks for the target of a temp: which of the names that it may have been meant for stands in `dir`, and whether
/// that counts. Where none of them does, the first is the name to speak of.
///
/// No name can tell a target whose own name ends like a temp's. `app.<uuid>.tmp` is read as one of `app`, as its
/// writers name it; where `app` stands, nothing shows that `app.<uuid>` was meant.
///
/// # Errors
///
/// The system does not answer.
pub fn target(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: Compared<'_>,
) -> io::Result<FoundTarget> {
    let mut first = FoundTarget::plain(Target::Unknown, None);
    for (index, name) in parsed.targets.iter().enumerate() {
        let Some(seen) = dir.observe(name)? else {
            if first.index.is_none() {
                first = FoundTarget::plain(Target::Absent, Some(index));
            }
            continue;
        };
        let target = match seen.fingerprint.kind {
            Kind::File => {
                let place = TargetPlace {
                    at: dir.fd(),
                    name,
                    by_link: false,
                };
                weighed(dir, place, &seen, temp)?
            }
            Kind::Symlink => behind(dir, policy, name, temp)?,
            kind => Target::NotRegular(kind),
        };
        // `.config.tmp` beside `config` alone: it may as well be all that there is of `.config`.
        let is_guess = index > 0 && !parsed.dot_is_prefix();
        if rule!("namesake-is-no-copy", is_guess) && target == (Target::Whole { same_file: false })
        {
            return Ok(FoundTarget::plain(Target::Unknown, Some(0)));
        }
        // The one that exists is the target, though it does not count.
        return Ok(FoundTarget {
            target,
            index: Some(index),
            seen: (seen.fingerprint.kind == Kind::File).then_some(seen),
        });
    }
    Ok(first)
}

/// Looks for the target again, of which `found` was found before. A file that has not been touched since is not
/// measured a second time.
///
/// # Errors
///
/// The system does not answer.
pub fn target_again(
    dir: &Dir,
    policy: &Policy,
    parsed: &ParsedName,
    temp: Compared<'_>,
    found: &FoundTarget,
) -> io::Result<Target> {
    /// A file that changed so recently may have changed again without another date.
    const RECENT: Duration = Duration::from_secs(3);
    if let (Some(before), Some(name)) = (found.seen, target_name(parsed, found.index)) {
        let file = &before.fingerprint;
        let has_rested = clock::wall().since(file.mtime.max(file.ctime)) >= RECENT;
        if has_rested && dir.observe(name)? == Some(before) {
            return Ok(found.target);
        }
    }
    Ok(target(dir, policy, parsed, temp)?.target)
}

/// Returns the base name that `index` speaks of.
#[must_use]
pub fn target_name(parsed: &ParsedName, index: Option<usize>) -> Option<&OsStr> {
    parsed.targets.get(index?).map(AsRef::as_ref)
}

/// A name that leads to a target.
#[derive(Clone, Copy)]
struct TargetPlace<'a> {
    /// The directory.
    at: BorrowedFd<'a>,
    /// The name in it.
    name: &'a OsStr,
    /// A symlink at the target's own name leads there.
    by_link: bool,
}

/// Weighs the regular file at `place`, which was observed as `seen`, against `temp` in `dir`.
fn weighed(
    dir: &Dir,
    place: TargetPlace<'_>,
    seen: &Observation,
    temp: Compared<'_>,
) -> io::Result<Target> {
    let (file, other) = (&seen.fingerprint, &temp.seen.fingerprint);
    if FileId::from(file) == FileId::from(other) {
        return Ok(match file.size {
            0 => Target::Empty,
            _ => Target::Whole { same_file: true },
        });
    }
    if seen.dataless {
        return Ok(Target::Unreadable);
    }
    let dates = dir.place().dates;
    let step = dates.step(file).max(dates.step(other));
    let mut target = TargetFile {
        uid: file.uid,
        data: 0,
        // The file's dates do not tell when the symlink was turned to it, nor when it was mounted.
        changed: (rule!("link-may-have-been-turned", !place.by_link, without: true)
            && rule!("mount-may-be-later", !seen.mount_root, without: true))
        .then(|| file.mtime.max(file.ctime)),
    };
    let mut compared = TempFile {
        uid: other.uid,
        // No file holds more data than its length.
        data: other.size,
        written: TempFile::written(other.mtime, other.ctime),
    };
    if let Target::Foreign = assess(&target, &compared, clock::wall(), step) {
        return Ok(Target::Foreign);
    }
    if rule!("empty-target-does-not-count", file.size == 0) {
        return Ok(Target::Empty);
    }
    let opened = match look::open_to_measure(place.at, place.name) {
        // It is gone, or something else stands there now: the caller asks again.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Ok(Target::Absent),
        opened => opened?,
    };
    let Some(opened) = opened else {
        return Ok(Target::Unreadable);
    };
    use std::os::fd::AsFd;
    let opened = opened.as_fd();
    if look::observe_fd(opened)? != *seen {
        return Ok(Target::Unreadable);
    }
    target.data = look::data_at_least(opened, seen, other.size.max(1))?;
    if let (true, Some(temp_file)) = (target.data < other.size, temp.file) {
        compared.data = look::data_at_most(temp_file, temp.seen).unwrap_or(other.size);
    }
    Ok(assess(&target, &compared, clock::wall(), step))
}

/// Weighs the file that the symlink `name` in `dir` leads to against `temp`.
fn behind(dir: &Dir, policy: &Policy, name: &OsStr, temp: Compared<'_>) -> io::Result<Target> {
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
            weighed(dir, place, &found.seen, temp)
        }
        kind => Ok(Target::NotRegular(kind)),
    }
}
