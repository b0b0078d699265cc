//! The decisions: pure functions of values.
//!
//! Nothing here reads a clock, opens a file or asks another process. Time, observations and
//! evidence come in as arguments; verdicts go out as values. So every rule is tested without a
//! sleep and without a file, and a dry run cannot decide otherwise than a real one.
//!
//! - [`temp_name`]: what a name says about its writer and its target
//! - [`reserved`]: names that are no leftovers, as a list
//! - [`policy`]: what the user wants for a root
//! - [`exclude`]: what a rule leaves alone below it
//! - [`rate`]: *is a directory hot?*
//! - [`observation`]: what looking at a name can say
//! - [`packed`]: the same in as few bytes as it takes
//! - [`retention`]: how long a quarantine keeps what lies in it
//! - [`target`]: when a target counts
//! - [`time`]: moments as values
//! - [`tracker`]: *is it time?*
//! - [`macos_hold`]: *does anybody hold it?*, where no kernel says so by itself
//! - [`judge`]: *is it safe?*
#![deny(clippy::disallowed_methods)]

pub mod exclude;
mod glob;
pub mod judge;
pub mod leaks;
pub mod macos_hold;
pub mod observation;
pub mod packed;
pub mod policy;
pub mod rate;
pub mod reserved;
pub mod retention;
pub mod target;
pub mod temp_name;
pub mod time;
pub mod tracker;
