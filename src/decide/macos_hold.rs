//! *Does anybody hold it?* as far as macOS can tell. Facts in, [`UseState`] out.
//!
//! An ordinary program gets no lease there, so the answer is put together from what was seen and
//! from what the kernel will refuse later. The facts are gathered in `evidence/macos.rs`; the rule
//! stands here, where every system can test it.

use super::observation::UseState;

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Somebody was seen with it open or mapped. Who opened it for event notifications only, and
    /// not for writing, does not count: so do we.
    pub seen: bool,
    /// Somebody else holds an advisory lock on it.
    pub locked: bool,
    /// Every process of our uid was examined, descriptors and mappings.
    pub examined: bool,
    /// On its file system the kernel refuses to remove the name of a file that is in use, as was
    /// tried on a file of our own.
    pub kernel_refuses: bool,
    /// Its owner.
    pub owner: u32,
    /// The uid that this process acts as.
    pub our_uid: u32,
    /// Permission bits.
    pub mode: u32,
    /// It has an access control list, or that could not be found out.
    pub acl: bool,
}

/// Write permission for the group and for everybody else.
const OTHERS_WRITE: u32 = 0o022;

/// What the facts come to.
///
/// With [`Facts::kernel_refuses`], [`UseState::Unused`] is provisional: it allows the removal to be
/// tried, and the removal itself is the proof. Without, it stands for a file of ours that nobody
/// but our uid and root may write, held by no process of our uid. It trusts root, whose processes
/// an ordinary user may not examine, and it does not see a descriptor in flight over a socket.
#[must_use]
pub fn use_state(facts: &Facts) -> UseState {
    let only_ours = facts.owner == facts.our_uid && facts.mode & OTHERS_WRITE == 0 && !facts.acl;
    if facts.locked {
        UseState::Locked
    } else if facts.seen {
        UseState::InUse
    } else if facts.kernel_refuses || (only_ours && facts.examined) {
        UseState::Unused
    } else {
        UseState::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of ours that no process of ours holds, on a system without any kernel proof.
    const OURS: Facts = Facts {
        seen: false,
        locked: false,
        examined: true,
        kernel_refuses: false,
        owner: 501,
        our_uid: 501,
        mode: 0o100_644,
        acl: false,
    };

    #[test]
    fn a_file_of_ours_that_nobody_of_us_holds_is_free() {
        assert_eq!(use_state(&OURS), UseState::Unused);
        assert_eq!(
            use_state(&Facts {
                mode: 0o100_600,
                ..OURS
            }),
            UseState::Unused
        );
        // Who may only read it cannot lose anything that was written.
        assert_eq!(
            use_state(&Facts {
                mode: 0o100_444,
                ..OURS
            }),
            UseState::Unused
        );
    }

    #[test]
    fn each_doubt_alone_is_enough() {
        for facts in [
            Facts {
                examined: false,
                ..OURS
            },
            Facts { owner: 502, ..OURS },
            Facts { owner: 0, ..OURS },
            Facts { our_uid: 0, ..OURS },
            Facts {
                mode: 0o100_664,
                ..OURS
            },
            Facts {
                mode: 0o100_646,
                ..OURS
            },
            Facts { acl: true, ..OURS },
        ] {
            assert_eq!(use_state(&facts), UseState::Unknown, "{facts:?}");
        }
    }

    #[test]
    fn the_kernels_refusal_makes_up_for_every_doubt() {
        let facts = Facts {
            examined: false,
            kernel_refuses: true,
            owner: 502,
            mode: 0o100_666,
            acl: true,
            ..OURS
        };
        assert_eq!(use_state(&facts), UseState::Unused);
    }

    #[test]
    fn whoever_is_seen_keeps_it_whatever_else_is_known() {
        for bits in 0..32_u32 {
            let has = |bit: u32| bits & (1 << bit) != 0;
            let facts = Facts {
                seen: true,
                locked: has(0),
                examined: has(1),
                kernel_refuses: has(2),
                owner: if has(3) { 501 } else { 0 },
                acl: has(4),
                ..OURS
            };
            let want = if facts.locked {
                UseState::Locked
            } else {
                UseState::InUse
            };
            assert_eq!(use_state(&facts), want, "{facts:?}");
        }
    }

    #[test]
    fn a_lock_is_a_holder_even_if_nobody_was_seen() {
        assert_eq!(
            use_state(&Facts {
                locked: true,
                ..OURS
            }),
            UseState::Locked
        );
        let facts = Facts {
            locked: true,
            kernel_refuses: true,
            ..OURS
        };
        assert_eq!(use_state(&facts), UseState::Locked);
    }
}
