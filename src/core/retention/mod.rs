//! Decides how long a quarantine keeps its files, and which copies it drops.

mod age;
mod copies;
mod entry;
mod groups;
mod limits;
mod plan;
mod shapes;

#[cfg(test)]
mod tests;

pub use age::ClockTrust;
pub use copies::SupersededBy;
pub use entry::{Entry, TargetState};
pub use limits::{Limits, NeededSpace, Space};
pub use plan::{RetentionPlan, plan};
pub use shapes::KEPT_PER_SHAPE;
