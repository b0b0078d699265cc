//! The groups of one directory: finds the temps that better copies supersede.
//!
//! [`group`](crate::core::group) decides; this module gathers the copies, in place and in the quarantine.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::context::DirContext;
use super::examine::Examined;
use crate::core::group::{self, ENOUGH, Fate, GroupCopy, Place};
use crate::core::judge::{Reason, Verdict, judge};
use crate::core::observation::Observation;
use crate::core::policy::Policy;
use crate::core::time::Wall;
use crate::evidence::{FileId, TempInfo, UseChecker};
use crate::fs::dir::Dir;
use crate::reap::better_copies::BetterCopies;
use crate::reap::quarantine::{Quarantine, Stored, origin_id};
use crate::sys::clock;
use crate::sys::mutex::guard;

/// The largest number of stored copies of a group that can supersede its temps: those that were moved last. More of
/// them would make a pass over many needed copies slow, and each may have to be opened.
const MAX_STORED: usize = 256;

/// The group of a temp in its directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    target: OsString,
    uid: u32,
}

/// A temp of a group for which every gate except the one against sole copies passes.
#[derive(Clone, Copy, Debug)]
pub struct GroupTemp<'a> {
    /// Its base name.
    pub name: &'a OsStr,
    /// Its observation.
    pub seen: &'a Observation,
}

/// The copies in the quarantine that come from one directory, by their groups. They are read once, and the files that
/// are moved later are added.
///
/// The copies may have changed since. So they only predict: a temp is removed only after a proof of its better copies.
#[derive(Debug, Default)]
pub struct StoredCopies {
    groups: Mutex<Option<Groups>>,
    /// The temps that a dry run would have moved.
    previewed: Mutex<HashMap<GroupKey, Vec<GroupCopy>>>,
}

/// The copies of each group.
#[derive(Debug, Default)]
struct Groups {
    /// The directory that all copies come from. `None` if it is unknown; there are no copies then.
    origin: Option<Vec<u8>>,
    /// The last moved copy of each group is last.
    copies: HashMap<GroupKey, Vec<Arc<StoredCopy>>>,
    /// All these files.
    known: HashSet<FileId>,
}

/// A copy in the quarantine.
#[derive(Debug)]
struct StoredCopy {
    file: Arc<Stored>,
    /// Its data in bytes, once the data is on the disk.
    flushed: OnceLock<u64>,
}

/// The decisions about a group, as far as they are known before its best copies are moved.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// Whether each of the temps in place will be superseded.
    pub superseded: Vec<bool>,
    /// The copies that will not be superseded: names in the directory, and paths in the quarantine below the root. Of
    /// many stored copies, only the last moved ones.
    pub best: Vec<PathBuf>,
    /// The number of copies that are in the quarantine.
    pub stored: usize,
}

/// Judges the temps of one directory again: those that will be superseded once the others are moved get the verdict
/// that they will have then. `dir` is the directory, and `quarantine` that of the root, if there is one. Returns the
/// decisions about the group of the first temp, if it belongs to one.
pub fn judge_groups(
    dir_context: DirContext<'_>,
    dir: &Dir,
    quarantine: Option<&Quarantine>,
    temps: &mut [Examined],
) -> Option<Prediction> {
    let policy = &dir_context.root.policy;
    let mut groups: HashMap<GroupKey, Vec<&mut Examined>> = HashMap::new();
    let mut first = None;
    for (index, temp) in temps.iter_mut().enumerate() {
        let is_sole = temp.verdict == Verdict::Quarantine(Some(Reason::SoleCopy));
        let is_single =
            rule!("scanned-set-is-in-no-group", temp.companions.is_empty(), without: true);
        if !is_sole || !is_single {
            continue;
        }
        let seen = &temp.evidence.observation;
        if let Some(key) = GroupKey::of_temp(policy, &temp.temp_info, seen) {
            if index == 0 {
                first = Some(key.clone());
            }
            groups.entry(key).or_default().push(temp);
        }
    }
    if groups.is_empty() {
        return None;
    }
    let stored = quarantine.map(|quarantine| Groups::read(dir_context, origin_id(dir), quarantine));
    let stored = StoredCopies {
        groups: Mutex::new(stored),
        ..StoredCopies::default()
    };
    let mut of_first = None;
    for (key, mut members) in groups {
        let temps: Vec<GroupTemp<'_>> = members.iter().map(|temp| group_temp(temp)).collect();
        let prediction = stored.predict(&key, &temps);
        for (temp, superseded) in members.iter_mut().zip(&prediction.superseded) {
            temp.evidence.superseded = *superseded;
            temp.verdict = judge(&temp.evidence, policy);
        }
        if first.as_ref() == Some(&key) {
            of_first = Some(prediction);
        }
    }
    of_first
}

fn group_temp(temp: &Examined) -> GroupTemp<'_> {
    GroupTemp {
        name: &temp.temp_info.name,
        seen: &temp.evidence.observation,
    }
}

impl GroupTemp<'_> {
    /// Returns the temp as a copy, presumed to be unused and without holes.
    fn presumed(&self, now: Wall) -> GroupCopy {
        GroupCopy {
            is_reliable: group::is_reliable(&self.seen.fingerprint, now),
            ..copy(self.name, self.seen, Place::Orphan)
        }
    }
}

impl GroupKey {
    /// Returns the group of the file `name`. `None` if the name belongs to no group.
    #[must_use]
    pub fn of(policy: &Policy, name: &OsStr, seen: &Observation) -> Option<GroupKey> {
        let target = policy.names.group_of(name, seen.fingerprint.uid)?;
        let uid = rule!("group-has-one-owner", seen.fingerprint.uid, without: 0);
        Some(GroupKey { target, uid })
    }

    /// Returns the group of a temp in place. No other file in the directory may show that its target is longer.
    #[must_use]
    pub fn of_temp(policy: &Policy, temp_info: &TempInfo, seen: &Observation) -> Option<GroupKey> {
        if rule!("longer-target-forms-no-group", temp_info.parsed.is_longest) {
            return None;
        }
        let is_told = temp_info.parsed.owner.is_some();
        // Only the grammars of writers and learned shapes form groups.
        if !is_told && temp_info.parsed.writer.is_none() {
            return None;
        }
        let key = GroupKey::of(policy, &temp_info.name, seen)?;
        (is_told || policy.names.shape(&temp_info.name).group.is_some()).then_some(key)
    }
}

impl StoredCopies {
    /// Reads the quarantine, unless that was done before for the same directory. Without a quarantine, or if it cannot
    /// be read, there are no copies.
    pub fn read(&self, dir_context: DirContext<'_>) {
        let mut groups = self.groups();
        // The name may have been given to another directory since.
        let origin = origin_of(dir_context);
        if origin.is_some() && groups.as_ref().is_some_and(|known| known.origin == origin) {
            return;
        }
        *groups = Some(match open_quarantine(dir_context) {
            Some(quarantine) => Groups::read(dir_context, origin, &quarantine),
            None => Groups::from(origin),
        });
    }

    /// Adds the files that were moved from the directory since: their names, by their folders in the quarantine.
    pub fn add_moved(&self, dir_context: DirContext<'_>, moved: HashMap<String, Vec<OsString>>) {
        if let (Some(groups), false) = (&mut *self.groups(), moved.is_empty())
            && let Some(quarantine) = open_quarantine(dir_context)
        {
            let stored = quarantine.stored_as(dir_context.below, moved);
            groups.add(dir_context, &quarantine, stored);
        }
    }

    /// Notes that a dry run would move these temps of a group.
    pub fn preview(&self, key: GroupKey, temps: &[GroupTemp<'_>]) {
        let now = clock::wall();
        let copies = temps.iter().map(|temp| temp.presumed(now));
        guard(&self.previewed)
            .entry(key)
            .or_default()
            .extend(copies);
    }

    /// Returns the copies of a group that can supersede its temps. The last moved copy is last. Also returns the number
    /// of all its copies.
    fn of_group(&self, key: &GroupKey) -> (Vec<Arc<StoredCopy>>, usize) {
        let groups = self.groups();
        let copies = groups.as_ref().and_then(|groups| groups.copies.get(key));
        let copies = copies.map_or(&[][..], Vec::as_slice);
        let last = &copies[copies.len().saturating_sub(MAX_STORED)..];
        (last.to_vec(), copies.len())
    }

    fn groups(&self) -> MutexGuard<'_, Option<Groups>> {
        guard(&self.groups)
    }

    /// Returns which temps of a group will be superseded once the others are moved. The result is exact only if no
    /// process uses the copies and they have no holes.
    #[must_use]
    pub fn predict(&self, key: &GroupKey, temps: &[GroupTemp<'_>]) -> Prediction {
        let (stored, all_stored) = self.of_group(key);
        let now = clock::wall();
        let in_place = temps.iter().map(|temp| temp.presumed(now));
        let in_quarantine = stored.iter().map(|one| one.presumed(now));
        let mut copies: Vec<GroupCopy> = in_place.chain(in_quarantine).collect();
        let known = copies.len();
        copies.extend(
            guard(&self.previewed)
                .get(key)
                .into_iter()
                .flatten()
                .cloned(),
        );
        let mut fates = group::decide(&copies);
        fates.truncate(known);
        let path = |at: usize| match temps.get(at) {
            Some(temp) => PathBuf::from(temp.name),
            None => stored[at - temps.len()].file.path(),
        };
        let is_superseded = |fate: &Fate| matches!(fate, Fate::Superseded(_));
        let numbered = fates.iter().enumerate();
        let best = numbered.filter(|(_, fate)| !is_superseded(fate));
        Prediction {
            superseded: fates.iter().take(temps.len()).map(is_superseded).collect(),
            best: best.map(|(at, _)| path(at)).collect(),
            stored: all_stored,
        }
    }

    /// Returns for each temp of a group the copies that supersede it now. They are in the quarantine, no process uses
    /// them, and their data is on the disk: a crash of the machine must not leave an empty file of a later copy.
    #[must_use]
    pub fn supersede(
        &self,
        key: &GroupKey,
        temps: &[GroupTemp<'_>],
        dir_context: DirContext<'_>,
        use_checker: &UseChecker,
    ) -> Vec<Option<BetterCopies>> {
        let (stored, _) = self.of_group(key);
        let quarantine = open_quarantine(dir_context).filter(|_| stored.len() >= ENOUGH);
        let Some(quarantine) = quarantine.map(Arc::new) else {
            return vec![None; temps.len()];
        };
        let now = clock::wall();
        let in_place = temps
            .iter()
            .map(|temp| copy(temp.name, temp.seen, Place::Orphan));
        let in_quarantine = stored.iter().map(|one| one.presumed(now));
        let mut copies: Vec<GroupCopy> = in_place.chain(in_quarantine).collect();
        // Only the copies that supersede others are opened. One that fails the proof supersedes nothing, and others are
        // then chosen.
        let mut proven = HashSet::new();
        let fates = loop {
            let fates = group::decide(&copies);
            let better = fates[..temps.len()].iter().filter_map(Fate::better);
            let unproven: HashSet<usize> = better
                .flatten()
                .copied()
                .filter(|at| !proven.contains(at))
                .collect();
            if unproven.is_empty() {
                break fates;
            }
            for at in unproven {
                let one = &stored[at - temps.len()];
                copies[at] = one.proven(&quarantine, &dir_context.root.policy, use_checker);
                proven.insert(at);
            }
        };
        let better = |fate: &Fate| {
            let better = fate.better()?.iter();
            let stored = better.map(|at| Arc::clone(&stored[at - temps.len()].file));
            Some(BetterCopies::new(Arc::clone(&quarantine), stored.collect()))
        };
        fates[..temps.len()].iter().map(better).collect()
    }
}

impl From<Option<Vec<u8>>> for Groups {
    /// Returns no copies from the directory with this id.
    fn from(origin: Option<Vec<u8>>) -> Groups {
        Groups {
            origin,
            ..Groups::default()
        }
    }
}

impl Groups {
    /// Reads the copies in `quarantine` that come from the directory with the id `origin`.
    fn read(
        dir_context: DirContext<'_>,
        origin: Option<Vec<u8>>,
        quarantine: &Quarantine,
    ) -> Groups {
        let mut groups = Groups::from(origin);
        let names = &dir_context.root.policy.names;
        let is_wanted = |name: &OsStr| names.may_form_group(name);
        let stored = quarantine.stored_from(dir_context.below, &is_wanted);
        groups.add(dir_context, quarantine, stored);
        groups
    }

    /// Adds files of the quarantine, if they come from this directory.
    fn add(
        &mut self,
        dir_context: DirContext<'_>,
        quarantine: &Quarantine,
        stored: io::Result<Vec<Stored>>,
    ) {
        let root = dir_context.root;
        let stored = stored.unwrap_or_else(|error| {
            log::warn!("cannot read the quarantine of {:?}: {error}", root.path);
            Vec::new()
        });
        let mut folders: HashMap<String, bool> = HashMap::new();
        for file in stored.into_iter().filter(Stored::may_be_of_group) {
            let is_same = || self.origin.is_some() && quarantine.origin_of(&file) == self.origin;
            let folder = folders.entry(file.folder_name().to_owned());
            let is_same = *folder.or_insert_with(is_same);
            let is_from_here = rule!("group-has-one-directory", is_same, without: true);
            let key = GroupKey::of(&root.policy, file.name(), &file.seen);
            if let Some(key) = key.filter(|_| is_from_here)
                && self.known.insert(FileId::from(&file.seen.fingerprint))
            {
                let copies = self.copies.entry(key).or_default();
                copies.push(Arc::new(StoredCopy {
                    file: Arc::new(file),
                    flushed: OnceLock::new(),
                }));
            }
        }
    }
}

/// Returns the id of the directory that is processed, as it is recorded in the quarantine.
fn origin_of(dir_context: DirContext<'_>) -> Option<Vec<u8>> {
    origin_id(&dir_context.open().ok()?)
}

impl StoredCopy {
    /// Returns the copy, presumed to be unused and without holes.
    fn presumed(&self, now: Wall) -> GroupCopy {
        let seen = &self.file.seen;
        GroupCopy {
            data: seen.fingerprint.size.min(seen.allocated),
            is_reliable: group::is_reliable(&seen.fingerprint, now),
            ..copy(self.file.name(), seen, Place::Quarantine)
        }
    }

    /// Returns the copy, which is reliable only if it is proven now that no process uses it.
    fn proven(
        &self,
        quarantine: &Quarantine,
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> GroupCopy {
        let flushed = self.flushed.get().copied();
        let data = flushed.or_else(|| {
            let data = quarantine.flushed_data(&self.file).ok()?;
            Some(*self.flushed.get_or_init(|| data))
        });
        let data = data.unwrap_or(0);
        let presumed = self.presumed(clock::wall());
        GroupCopy {
            data,
            // This also proves that the file has not changed since its data was measured.
            is_reliable: presumed.is_reliable
                && data > 0
                && quarantine.is_proven_unused(&self.file, policy, use_checker),
            ..presumed
        }
    }
}

/// Opens the quarantine, if there is one.
fn open_quarantine(dir_context: DirContext<'_>) -> Option<Quarantine> {
    let root = &dir_context.root.path;
    Quarantine::open_existing(root, dir_context.id)
        .ok()
        .flatten()
}

/// Returns a copy that supersedes no other one.
fn copy(name: &OsStr, seen: &Observation, place: Place) -> GroupCopy {
    let fingerprint = &seen.fingerprint;
    GroupCopy {
        name: name.to_owned(),
        born: fingerprint.btime,
        written: fingerprint.mtime,
        bytes: fingerprint.size,
        data: fingerprint.size,
        place,
        is_reliable: false,
    }
}
