//! Separates the temps that better copies supersede, or will supersede once those are moved.

use std::collections::HashMap;

use super::{Pass, Removal};
use crate::core::judge::{Reason, Verdict};
use crate::core::policy::Policy;
use crate::engine::groups::{GroupKey, GroupTemp};

use crate::reap::better_copies::BetterCopies;

/// The temps to be removed, in two steps.
pub(super) struct SplitRemovals<'i> {
    /// All temps that no other temp supersedes.
    pub(super) first: Vec<Removal<'i>>,
    /// The temps that are superseded once `first` is in the quarantine.
    pub(super) superseded: Vec<Removal<'i>>,
}

impl<'a> Pass<'a> {
    /// Separates the temps that will be superseded once the others are moved to the quarantine. They get the verdict
    /// that they will have then.
    pub(super) fn split_superseded<'i>(&self, removals: Vec<Removal<'i>>) -> SplitRemovals<'i> {
        let policy = self.policy();
        let (mut first, groups) = by_group(policy, removals);
        let mut superseded = Vec::new();
        if groups.is_empty() {
            return SplitRemovals { first, superseded };
        }
        self.stored.read(self.dir_context);
        for (key, members) in groups {
            let temps: Vec<GroupTemp<'_>> = members.iter().map(Removal::group_temp).collect();
            let predicted = self.stored.predict(&key, &temps).superseded;
            let (mut removed, mut moved) = (Vec::new(), Vec::new());
            for (mut removal, is_superseded) in members.into_iter().zip(predicted) {
                removal.set_superseded(is_superseded, policy);
                match removal.temp.judged.candidate.verdict {
                    Verdict::Reap => removed.push(removal),
                    // Also one that the action of the rule moves although it is superseded.
                    _ => {
                        removal.set_superseded(false, policy);
                        moved.push(removal);
                    }
                }
            }
            if policy.is_dry_run() {
                let moved: Vec<GroupTemp<'_>> = moved.iter().map(Removal::group_temp).collect();
                self.stored.preview(key, &moved);
            }
            let frees_space = allocated(&removed) > allocated(&moved);
            for removal in &mut moved {
                removal.temp.judged.candidate.frees_space = frees_space;
            }
            first.extend(moved);
            superseded.extend(removed);
        }
        SplitRemovals { first, superseded }
    }

    /// Finds the copies in the quarantine that supersede these temps. A temp without such copies is to be moved.
    pub(super) fn with_better_copies<'i>(&self, removals: Vec<Removal<'i>>) -> Vec<Removal<'i>> {
        let policy = self.policy();
        let (mut all, groups) = by_group(policy, removals);
        for (key, mut members) in groups {
            let temps: Vec<GroupTemp<'_>> = members.iter().map(Removal::group_temp).collect();
            let (stored, dir_context) = (&self.stored, self.dir_context);
            stored.read(dir_context);
            let better = stored.supersede(&key, &temps, dir_context, self.use_checker);
            for (removal, better) in members.iter_mut().zip(better) {
                let newest = better.as_ref().and_then(BetterCopies::newest);
                removal.disposed.superseded_by =
                    newest.map(|path| self.dir_context.root.path.join(path));
                removal.set_superseded(better.is_some(), policy);
                removal.temp.judged.candidate.better = better;
            }
            all.extend(members);
        }
        all
    }
}

impl Removal<'_> {
    fn group_temp(&self) -> GroupTemp<'_> {
        GroupTemp {
            name: &self.temp.item.name,
            seen: self.temp.judged.observation(),
        }
    }

    /// Judges the temp again, as one that better copies supersede or do not.
    fn set_superseded(&mut self, is_superseded: bool, policy: &Policy) {
        self.disposed.superseded = is_superseded;
        let judged = &mut self.temp.judged;
        judged.evidence.superseded = is_superseded;
        judged.judge_again(policy);
    }
}

/// Separates the temps that form groups: those for which only the gate against sole copies does not pass, or passes
/// because they are superseded.
fn by_group<'i>(
    policy: &Policy,
    removals: Vec<Removal<'i>>,
) -> (Vec<Removal<'i>>, HashMap<GroupKey, Vec<Removal<'i>>>) {
    let (mut others, mut groups) = (Vec::new(), HashMap::<GroupKey, Vec<Removal<'i>>>::new());
    for removal in removals {
        let judged = &removal.temp.judged;
        let is_sole = judged.candidate.verdict == Verdict::Quarantine(Some(Reason::SoleCopy));
        let temp = removal.group_temp();
        let is_single = rule!("set-is-in-no-group", judged.companions.is_empty(), without: true);
        let key = (is_single && (is_sole || judged.evidence.superseded))
            .then(|| GroupKey::of_temp(policy, &judged.candidate.temp_info, temp.seen))
            .flatten();
        match key {
            Some(key) => groups.entry(key).or_default().push(removal),
            None => others.push(removal),
        }
    }
    (others, groups)
}

/// Returns the space of the temps on the disk, in bytes.
fn allocated(removals: &[Removal<'_>]) -> u64 {
    let temps = removals.iter().map(|removal| &removal.temp.judged);
    temps.fold(0, |sum, temp| sum.saturating_add(temp.allocated()))
}
