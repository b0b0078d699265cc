//! Decides about a *set*, a temp with its companions, from the names that a directory has.
//!
//! The members of a set are removed, moved and put back together. The main file is claimed first, and put back last: as
//! long as a program can open it, its companions have their names.

use std::collections::BTreeSet;
use std::ffi::OsString;

/// The names of a set that a directory has, as one reading of the directory shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetNames {
    /// A file has the name of the main file.
    pub has_main: bool,
    /// The names of the companions.
    pub companions: BTreeSet<OsString>,
}

/// The next step for a set after a reading of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetStep {
    /// The set is complete, and nothing was added.
    Continue,
    /// Another process has changed the set: all its members get their names back.
    PutBack,
    /// Another file has the name of the main file: all members are moved to the quarantine.
    Quarantine,
}

/// Returns the next step before the first claim. `members` are the names of the companions that are proven.
#[must_use]
pub fn before_claims(members: &BTreeSet<OsString>, now: &SetNames) -> SetStep {
    match now.has_main && now.companions == *members {
        true => SetStep::Continue,
        false => SetStep::PutBack,
    }
}

/// Returns the next step after the last claim. No member has its name any more, so every name belongs to another file.
#[must_use]
pub fn after_claims(now: &SetNames) -> SetStep {
    match (now.has_main, now.companions.is_empty()) {
        (true, _) => SetStep::Quarantine,
        (false, false) => SetStep::PutBack,
        (false, true) => SetStep::Continue,
    }
}

/// A set that a killed orphand left, as far as the claims and the names in its directory show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftSet {
    /// The main file still has the name of its claim.
    pub has_main_claim: bool,
    /// The companions that still have the names of their claims.
    pub claimed: BTreeSet<OsString>,
    /// The names of the set that files have now.
    pub names: SetNames,
    /// A file that has the name of a companion was changed after the main file was claimed, so it may belong to another
    /// main file.
    pub has_newer_companion: bool,
}

/// The recovery of a set that a killed orphand left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetRecovery {
    /// The companions get their names back, and then the main file does.
    PutBack,
    /// All members are moved to the quarantine. A name of the set belongs to another file.
    Quarantine,
    /// The main file was removed or moved before. Its companions are moved to the quarantine: beside another main file
    /// they would damage it.
    QuarantineRest,
}

/// Returns the recovery of a set.
#[must_use]
pub fn recovery(left: &LeftSet) -> SetRecovery {
    let is_taken = left.names.has_main
        || rule!(
            "newer-companion-is-of-another-set",
            left.has_newer_companion
        )
        || left
            .claimed
            .iter()
            .any(|name| left.names.companions.contains(name));
    match (left.has_main_claim, is_taken) {
        (true, false) => SetRecovery::PutBack,
        (true, true) => SetRecovery::Quarantine,
        (false, _) => SetRecovery::QuarantineRest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(names: &[&str]) -> BTreeSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    fn names(has_main: bool, companions: &[&str]) -> SetNames {
        SetNames {
            has_main,
            companions: set(companions),
        }
    }

    #[test]
    fn a_changed_set_is_not_claimed() {
        for (now, step) in [
            (names(true, &["a", "b"]), SetStep::Continue),
            (names(true, &["a"]), SetStep::PutBack),
            (names(true, &["a", "b", "c"]), SetStep::PutBack),
            (names(false, &["a", "b"]), SetStep::PutBack),
        ] {
            assert_eq!(before_claims(&set(&["a", "b"]), &now), step, "{now:?}");
        }
    }

    #[test]
    fn a_name_that_is_taken_after_the_claims_ends_the_removal() {
        for (now, step) in [
            (names(false, &[]), SetStep::Continue),
            (names(false, &["c"]), SetStep::PutBack),
            (names(true, &[]), SetStep::Quarantine),
            (names(true, &["c"]), SetStep::Quarantine),
        ] {
            assert_eq!(after_claims(&now), step, "{now:?}");
        }
    }

    #[test]
    fn a_left_set_is_put_back_unless_a_name_is_taken() {
        for (has_main_claim, claimed, now, recovery_is) in [
            (true, set(&[]), names(false, &["a"]), SetRecovery::PutBack),
            (
                true,
                set(&["a"]),
                names(false, &["b"]),
                SetRecovery::PutBack,
            ),
            (
                true,
                set(&["a"]),
                names(false, &["a"]),
                SetRecovery::Quarantine,
            ),
            (true, set(&["a"]), names(true, &[]), SetRecovery::Quarantine),
            (
                false,
                set(&["a"]),
                names(false, &[]),
                SetRecovery::QuarantineRest,
            ),
            (
                false,
                set(&["a"]),
                names(true, &["a"]),
                SetRecovery::QuarantineRest,
            ),
        ] {
            let left = LeftSet {
                has_main_claim,
                claimed,
                names: now,
                has_newer_companion: false,
            };
            assert_eq!(recovery(&left), recovery_is, "{left:?}");
            let left = LeftSet {
                has_newer_companion: true,
                ..left
            };
            let with_newer = match has_main_claim {
                true => SetRecovery::Quarantine,
                false => SetRecovery::QuarantineRest,
            };
            assert_eq!(recovery(&left), with_newer, "{left:?}");
        }
    }

    /// One step of a protocol, of a crash, of a recovery or of another program.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Claim,
        Undo,
        CrashAndRecover,
        TakeMainName,
        TakeCompanionName(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => Just(Act::Claim),
            1 => Just(Act::Undo),
            2 => Just(Act::CrashAndRecover),
            1 => Just(Act::TakeMainName),
            1 => (0usize..3).prop_map(Act::TakeCompanionName),
        ];
        proptest::collection::vec(act, 0..12)
    }

    /// The places of the files of one set: its first member is the main file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Place {
        Named,
        Claimed,
        Stored,
    }

    proptest! {
        /// In each state that claims, put-backs and crashes can reach, either no file of the set has the main file's
        /// name, or each companion has its own one.
        #[test]
        fn the_main_file_never_has_its_name_without_its_companions(acts in acts()) {
            const NAMES: [&str; 4] = ["main", "a", "b", "c"];
            let mut places = [Place::Named; 4];
            let mut taken = [false; 4];
            let check = |places: &[Place; 4]| {
                let is_apart = places[0] == Place::Named
                    && places.iter().any(|place| *place != Place::Named);
                prop_assert!(!is_apart, "{places:?}");
                Ok(())
            };
            for act in acts {
                match act {
                    Act::Claim => {
                        if let Some(next) = places.iter().position(|place| *place == Place::Named)
                            && !places.contains(&Place::Stored)
                        {
                            places[next] = Place::Claimed;
                        }
                    }
                    Act::TakeMainName if places[0] != Place::Named => taken[0] = true,
                    Act::TakeCompanionName(n) if places[n + 1] != Place::Named => {
                        taken[n + 1] = true;
                    }
                    Act::TakeMainName | Act::TakeCompanionName(_) => {}
                    Act::Undo | Act::CrashAndRecover => {
                        let claimed = |n: &usize| places[*n] == Place::Claimed;
                        let there = |n: &usize| taken[*n] || places[*n] == Place::Named;
                        let of = |want: &dyn Fn(&usize) -> bool| {
                            (1..4).filter(want).map(|n| NAMES[n].into()).collect()
                        };
                        let left = LeftSet {
                            has_main_claim: places[0] == Place::Claimed,
                            claimed: of(&claimed),
                            names: SetNames { has_main: there(&0), companions: of(&there) },
                            has_newer_companion: false,
                        };
                        if !left.has_main_claim && left.claimed.is_empty() {
                            continue;
                        }
                        match recovery(&left) {
                            SetRecovery::PutBack => {
                                for n in (0..4).rev() {
                                    prop_assert!(!taken[n] || places[n] == Place::Named);
                                    places[n] = Place::Named;
                                    check(&places)?;
                                }
                            }
                            SetRecovery::Quarantine | SetRecovery::QuarantineRest => {
                                places.fill(Place::Stored);
                            }
                        }
                    }
                }
                check(&places)?;
            }
        }
    }
}
