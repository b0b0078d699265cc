//! From a due temp to its removal: one pass over a directory, and the sweep of a whole root.

mod clock_reading;
mod context;
mod examine;
pub mod groups;
mod judge_dir;
pub mod limits;
mod look;
mod pass;
mod recover;
mod sets;
mod stored_targets;
pub mod sweep;

pub use context::{DirContext, Engine, max_workers};
pub use examine::{Examined, ScannedDir, SharedChecks, judge_now};
pub use judge_dir::{JudgedDir, judge_dir};
pub use pass::{Pass, PassItem};
pub use recover::{RecoveryOutcome, kept_claim, recover};
pub use sets::{ExaminedMember, TrackedSets};
