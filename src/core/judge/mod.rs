//! Decides from the evidence whether a temp is removed, moved to the quarantine or kept.
//!
//! The decision consists of the conditions in [`GATES`], which are checked in order. A temp that fails a gate is kept,
//! or moved to the quarantine if the gate permits that. The first gate that keeps the temp gives the reason. A gate
//! fails if a fact that it needs is unknown.

use super::policy::{Action, Open, Policy, SoleCopy};
pub use super::target::{LinkFault, Target};
pub use dates::Dates;
pub use evidence::{DirProperties, Evidence, LeaseCoverage, Writer};
pub use gates::{GATES, Gate, GateResult, is_too_young};
pub use guard::{GuardFile, GuardState};
pub use set::{check_companion, judge_set};
pub use verdict::{Reason, Verdict};

mod dates;
mod evidence;
mod gates;
mod guard;
mod set;
mod verdict;

#[cfg(test)]
mod tests;

/// Returns the verdict on a temp.
///
/// The first gate that keeps the temp decides. If no gate keeps it, it is moved to the quarantine if a gate or the rule
/// requires that, and otherwise deleted. Without a quarantine, it is kept instead of moved.
#[must_use]
pub fn judge(evidence: &Evidence, policy: &Policy) -> Verdict {
    let mut quarantine = None;
    for gate in GATES {
        match gate.check(evidence, policy) {
            GateResult::Pass | GateResult::Allow(_) => {}
            GateResult::Keep(reason) => return Verdict::Keep(reason),
            GateResult::Quarantine(reason) => quarantine = quarantine.or(Some(reason)),
        }
    }
    let to_quarantine = quarantine.is_some() || policy.action == Action::Quarantine;
    match to_quarantine {
        true if evidence.dir.quarantine => Verdict::Quarantine(quarantine),
        true => Verdict::Keep(Reason::NoQuarantine),
        false => Verdict::Reap,
    }
}

/// Returns the reason for which a temp would not be removed if a setting of its rule did not allow it.
#[must_use]
pub fn allowed(evidence: &Evidence, policy: &Policy) -> Option<Reason> {
    if policy.open != Open::Reap && policy.sole_copy != SoleCopy::Reap {
        return None;
    }
    GATES
        .iter()
        .find_map(|gate| match gate.check(evidence, policy) {
            GateResult::Allow(reason) => Some(reason),
            _ => None,
        })
}
