//! The groups of one directory: finds the temps that better copies supersede.
//!
//! [`group`](crate::core::group) decides; this module gathers the copies, in place and in the quarantine.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use super::context::DirContext;
use super::examine::Examined;
use crate::core::group::{self, ENOUGH, Fate, GroupCopy, Place};
use crate::core::judge::{Reason, Verdict, judge};
use crate::core::observation::Observation;
use crate::core::policy::Policy;
use crate::evidence::UseChecker;
use crate::fs::dir::Dir;
use crate::reap::better_copies::BetterCopies;
use crate::reap::quarantine::{Quarantine, Stored, origin_id};
use crate::sys::clock;

/// The largest number of stored copies of a group that are opened to supersede its temps, the newest first.
const MAX_OPENED: usize = 256;

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

/// The copies in the quarantine that come from one directory, by their groups.
#[derive(Debug, Default)]
pub struct StoredCopies {
    quarantine: Option<Arc<Quarantine>>,
    /// The newest copy of each group is last.
    groups: HashMap<GroupKey, Vec<Arc<Stored>>>,
}

/// The decisions about a group, as far as they are known before its best copies are moved.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// Whether each of the temps in place will be superseded.
    pub superseded: Vec<bool>,
    /// The copies that will not be superseded: names in the directory, and paths in the quarantine below the root.
    pub best: Vec<PathBuf>,
    /// The number of copies that are in the quarantine.
    pub stored: usize,
}

/// Judges the temps of one directory again: those that will be superseded once the others are moved get the verdict that
/// they will have then. Returns the decisions about the group of the first temp, if it belongs to one.
pub fn judge_groups(dir_context: DirContext<'_>, temps: &mut [Examined]) -> Option<Prediction> {
    let policy = &dir_context.root.policy;
    let mut groups: HashMap<GroupKey, Vec<&mut Examined>> = HashMap::new();
    let mut first = None;
    for (index, temp) in temps.iter_mut().enumerate() {
        let is_sole = temp.verdict == Verdict::Quarantine(Some(Reason::SoleCopy));
        let key = GroupKey::of(policy, &temp.temp_info.name, &temp.evidence.observation);
        if let Some(key) = key.filter(|_| is_sole) {
            if index == 0 {
                first = Some(key.clone());
            }
            groups.entry(key).or_default().push(temp);
        }
    }
    if groups.is_empty() {
        return None;
    }
    let stored = StoredCopies::read(dir_context);
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

impl GroupKey {
    /// Returns the group of the file `name`. `None` if the name belongs to no group.
    #[must_use]
    pub fn of(policy: &Policy, name: &OsStr, seen: &Observation) -> Option<GroupKey> {
        let target = policy.names.shape(name).group?;
        let uid = rule!("group-has-one-owner", seen.fingerprint.uid, without: 0);
        Some(GroupKey { target, uid })
    }
}

impl StoredCopies {
    /// Reads the quarantine. Without one, or if it cannot be read, there are no copies.
    #[must_use]
    pub fn read(dir_context: DirContext<'_>) -> StoredCopies {
        let root = dir_context.root;
        let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, dir_context.id) else {
            return StoredCopies::default();
        };
        let stored = match quarantine.stored_from(dir_context.below) {
            Ok(stored) => stored,
            Err(error) => {
                log::warn!("cannot read the quarantine of {:?}: {error}", root.path);
                return StoredCopies::default();
            }
        };
        // The name may have been given to another directory since.
        let present = Dir::open_below(&root.path, dir_context.id, dir_context.below).ok();
        let present = present.as_ref().and_then(origin_id);
        let mut folders: HashMap<String, bool> = HashMap::new();
        let mut is_from_here = |one: &Stored| {
            let is_same = || present.is_some() && quarantine.origin_of(one) == present;
            let folder = folders.entry(one.folder_name().to_owned());
            let is_same = *folder.or_insert_with(is_same);
            rule!("group-has-one-directory", is_same, without: true)
        };
        let mut groups: HashMap<GroupKey, Vec<Arc<Stored>>> = HashMap::new();
        for one in stored {
            let key = GroupKey::of(&root.policy, one.name(), &one.seen);
            if let Some(key) = key.filter(|_| is_from_here(&one)) {
                groups.entry(key).or_default().push(Arc::new(one));
            }
        }
        StoredCopies {
            quarantine: Some(Arc::new(quarantine)),
            groups,
        }
    }

    fn of_group(&self, key: &GroupKey) -> &[Arc<Stored>] {
        self.groups.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns which temps of a group will be superseded once the others are moved. The result is exact only if no
    /// process uses the copies and they have no holes.
    #[must_use]
    pub fn predict(&self, key: &GroupKey, temps: &[GroupTemp<'_>]) -> Prediction {
        let stored = self.of_group(key);
        let now = clock::wall();
        let in_place = temps.iter().map(|temp| GroupCopy {
            is_reliable: group::is_reliable(&temp.seen.fingerprint, now),
            ..copy(temp.name, temp.seen, Place::Orphan)
        });
        let in_quarantine = stored.iter().map(|one| GroupCopy {
            data: one.seen.fingerprint.size.min(one.seen.allocated),
            is_reliable: group::is_reliable(&one.seen.fingerprint, now),
            ..copy(one.name(), &one.seen, Place::Quarantine)
        });
        let copies: Vec<GroupCopy> = in_place.chain(in_quarantine).collect();
        let fates = group::decide(&copies);
        let path = |at: usize| match temps.get(at) {
            Some(temp) => PathBuf::from(temp.name),
            None => stored[at - temps.len()].path(),
        };
        let is_superseded = |fate: &Fate| matches!(fate, Fate::Superseded(_));
        let numbered = fates.iter().enumerate();
        let best = numbered.filter(|(_, fate)| !is_superseded(fate));
        Prediction {
            superseded: fates.iter().take(temps.len()).map(is_superseded).collect(),
            best: best.map(|(at, _)| path(at)).collect(),
            stored: stored.len(),
        }
    }

    /// Returns for each temp of a group the copies that supersede it now. They are in the quarantine, no process uses
    /// them, and their data is on the disk: a crash of the machine must not leave an empty file of a later copy.
    #[must_use]
    pub fn supersede(
        &self,
        key: &GroupKey,
        temps: &[GroupTemp<'_>],
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> Vec<Option<BetterCopies>> {
        let stored = self.of_group(key);
        let stored = &stored[stored.len().saturating_sub(MAX_OPENED)..];
        let (Some(quarantine), true) = (&self.quarantine, stored.len() >= ENOUGH) else {
            return vec![None; temps.len()];
        };
        let now = clock::wall();
        let in_place = temps
            .iter()
            .map(|temp| copy(temp.name, temp.seen, Place::Orphan));
        let in_quarantine = stored.iter().map(|one| {
            let data = quarantine.flushed_data(one).unwrap_or(0);
            GroupCopy {
                data,
                is_reliable: group::is_reliable(&one.seen.fingerprint, now)
                    && data > 0
                    && quarantine.is_proven_unused(one, policy, use_checker),
                ..copy(one.name(), &one.seen, Place::Quarantine)
            }
        });
        let copies: Vec<GroupCopy> = in_place.chain(in_quarantine).collect();
        let better = |fate| match fate {
            Fate::Superseded(better) => {
                let stored = better
                    .iter()
                    .map(|&at| stored.get(at.checked_sub(temps.len())?));
                let stored: Option<Vec<_>> = stored.map(|one| one.cloned()).collect();
                Some(BetterCopies::new(Arc::clone(quarantine), stored?))
            }
            Fate::Needed | Fate::Spare => None,
        };
        let fates = group::decide(&copies).into_iter().take(temps.len());
        fates.map(better).collect()
    }
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
