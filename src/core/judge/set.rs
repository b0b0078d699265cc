//! The verdict on a set: a temp with its companions.

use super::evidence::Evidence;
use super::gates::{GATES, Gate, GateResult, ONLY_COPY};
use super::judge;
use super::verdict::{Reason, Verdict};
use crate::core::observation::UseState;
use crate::core::policy::Policy;

/// Returns the verdict on a set. Every gate is checked for each member, except that only the main file can be the only
/// copy: its evidence has the size of its companions.
///
/// The first member that is kept gives the reason. No member may be in use, whatever the rule says about open temps,
/// and without leases (`has_leases` is false) every set is kept.
#[must_use]
pub fn judge_set(
    main: &Evidence,
    companions: &[Evidence],
    policy: &Policy,
    has_leases: bool,
) -> Verdict {
    let verdict = judge(main, policy);
    if companions.is_empty() || matches!(verdict, Verdict::Keep(_)) {
        return verdict;
    }
    let mut moved = None;
    for companion in companions {
        for gate in GATES {
            match check_companion(gate, companion, policy) {
                GateResult::Pass | GateResult::Allow(_) => {}
                GateResult::Keep(reason) => return Verdict::Keep(reason),
                GateResult::Quarantine(reason) => moved = moved.or(Some(reason)),
            }
        }
    }
    let held = std::iter::once(main)
        .chain(companions)
        .find_map(reason_in_use);
    if let Some(reason) = rule!("set-is-proven-unused", held, without: None) {
        return Verdict::Keep(reason);
    }
    if !rule!("set-needs-leases", has_leases, without: true) {
        return Verdict::Keep(Reason::CannotTell);
    }
    match (verdict, moved) {
        (Verdict::Reap, Some(_)) if !main.dir.quarantine => Verdict::Keep(Reason::NoQuarantine),
        (Verdict::Reap, Some(reason)) => Verdict::Quarantine(Some(reason)),
        _ => verdict,
    }
}

/// Checks a gate for a companion.
#[must_use]
pub fn check_companion(gate: &Gate, companion: &Evidence, policy: &Policy) -> GateResult {
    match gate.name == ONLY_COPY {
        true => GateResult::Pass,
        false => {
            let result = gate.check(companion, policy);
            rule!("companions-pass-every-gate", result, without: GateResult::Pass)
        }
    }
}

fn reason_in_use(member: &Evidence) -> Option<Reason> {
    match member.use_state {
        UseState::Unused => None,
        UseState::InUse => Some(Reason::InUse),
        UseState::Locked => Some(Reason::Locked),
        UseState::Unknown => Some(Reason::CannotTell),
    }
}
