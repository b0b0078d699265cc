//! Determines the [`UseState`] of a file on macOS.
//!
//! An ordinary program cannot take a lease there. So the use state is derived from the processes that were found, and
//! from the operations that the kernel refuses later. `evidence/macos.rs` gathers the facts; the rule is here, where
//! every system can test it.

use super::observation::{OTHERS_WRITE, UseState};

/// The known facts about an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A process was found that has it open or mapped. A descriptor that is only for event notifications and not for
    /// writing does not count: orphand has one itself.
    pub seen: bool,
    /// Another process holds an advisory lock on it.
    pub locked: bool,
    /// The descriptors and mappings of every process with orphand's uid were examined.
    pub examined: bool,
    /// On its file system the kernel refuses to remove the name of a file that is in use. This was tried with a file of
    /// orphand's own.
    pub kernel_refuses: bool,
    /// The uid of its owner.
    pub owner: u32,
    /// The effective uid of this process.
    pub our_uid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// It has an access control list, or this could not be determined.
    pub acl: bool,
    /// Its volume ignores owners, or this could not be determined. Each user then sees itself as the owner.
    pub owners_ignored: bool,
}

/// Returns the use state that follows from the facts.
///
/// With [`Facts::kernel_refuses`], [`UseState::Unused`] is provisional: it permits an attempt to remove the file, and
/// the removal itself is the proof. Without it, `Unused` means that the file belongs to orphand's uid, that only this
/// uid and root may write it, and that no process of this uid uses it. This trusts root, because an ordinary user may
/// not examine root's processes, and it misses a descriptor in flight over a socket.
#[must_use]
pub fn use_state(facts: &Facts) -> UseState {
    let only_ours = facts.owner == facts.our_uid
        && facts.mode & OTHERS_WRITE == 0
        && !facts.acl
        && !facts.owners_ignored;
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

    /// A file of orphand's uid that no process of this uid uses, on a file system where the kernel refuses nothing.
    const OURS: Facts = Facts {
        seen: false,
        locked: false,
        examined: true,
        kernel_refuses: false,
        owner: 501,
        our_uid: 501,
        mode: 0o100_644,
        acl: false,
        owners_ignored: false,
    };

    #[test]
    fn a_file_of_the_own_uid_without_holders_is_unused() {
        assert_eq!(use_state(&OURS), UseState::Unused);
        assert_eq!(
            use_state(&Facts {
                mode: 0o100_600,
                ..OURS
            }),
            UseState::Unused
        );
        // A process that may only read the file cannot lose written data.
        assert_eq!(
            use_state(&Facts {
                mode: 0o100_444,
                ..OURS
            }),
            UseState::Unused
        );
    }

    #[test]
    fn each_missing_fact_alone_makes_it_unknown() {
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
            Facts {
                owners_ignored: true,
                ..OURS
            },
        ] {
            assert_eq!(use_state(&facts), UseState::Unknown, "{facts:?}");
        }
    }

    #[test]
    fn the_kernels_refusal_replaces_every_missing_fact() {
        let facts = Facts {
            examined: false,
            kernel_refuses: true,
            owner: 502,
            mode: 0o100_666,
            acl: true,
            owners_ignored: true,
            ..OURS
        };
        assert_eq!(use_state(&facts), UseState::Unused);
    }

    #[test]
    fn a_found_holder_decides_whatever_else_is_known() {
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
    fn a_lock_decides_even_if_no_holder_was_found() {
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
