//! The protocol that removes an orphan.
//!
//! All calls use an open directory and bare names. Except on a full disk (`unlink_unclaimed`), a file is not deleted
//! under the name that its writer knows. It is first *claimed*: renamed, without overwriting anything. A claimed file
//! can be put back until it is removed. So no byte is lost if the file is opened or replaced, or if a check fails,
//! between the verdict and the removal. The remaining races are marked `RACE:`.
//!
//! A temp with its companions is a *set*, whose members go through the protocol together (`set.rs`).
//!
//! [`Step`] lists the steps. docs/safety.md gives the reason for each of them.

mod batch;
pub mod better_copies;
pub mod claim;
mod claimed;
mod lazy_quarantine;
mod protocol;
pub mod quarantine;
mod reaper;
mod recover;
mod recover_set;
mod recovered;
mod set;
mod types;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod calls;

pub(crate) use reaper::affordable_batch;
pub use reaper::{BATCH, RELEASE_WAIT, Reaper};
pub use recover::recover;
pub use recovered::{Recovered, StoredMember};
pub use types::{BatchContext, Candidate, Companion, CompanionResult, Hook, Looked, Outcome, Step};
