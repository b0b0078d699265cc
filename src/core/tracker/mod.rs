//! Decides when a temp is looked at and when it is judged.
//!
//! [`Tracked`] is the state of one temp from its discovery to its verdict. The map of all temps is in [`crate::index`];
//! events and scans add to it, and workers look at the temps that are due. Each look changes the state by these rules:
//!
//! - A temp can be removed only after two looks that saw the same fingerprint and, unless the policy allows it, no
//!   holder, and only once it has been quiet for its grace. The looks are at least one
//!   [`min_observation_gap`](super::policy::min_observation_gap) apart. A temp with a holder is judged too, so that the
//!   holder is reported.
//! - A holder counts like a change: after a look that saw one, the grace starts again at the first look that sees none.
//!   (Closing a file does not change its fingerprint.)
//! - The first look at a fingerprint gives a credit for the time for which the file was quiet before, by its own dates
//!   and within bounds. From then on only the monotonic clock counts.

mod flags;
mod look;
mod tracked;

#[cfg(test)]
mod tests;

pub use flags::Origin;
pub use look::{Look, Next, Quiet};
pub use tracked::{Kept, Tracked};
