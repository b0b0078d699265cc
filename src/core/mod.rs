//! The decisions: pure functions of values.
//!
//! No function here reads a clock, opens a file or queries a process. Time, observations and evidence are arguments,
//! and verdicts are return values. So the tests of the decisions need no sleep and no file, and a dry run makes the
//! same decisions as a real run.
//!
//! - [`temp_name`]: parses the name of a temp into its grammar, target and pid
//! - [`reserved`]: the list of names that are never leftovers
//! - [`companions`]: the files that share the fate of a temp
//! - [`temp_set`]: what happens to a temp with its companions
//! - [`policy`]: the rule that the user sets for a root
//! - [`census`]: what a scan finds beside temps
//! - [`event`]: what a watcher or a sweep reports
//! - [`exclude`]: the files and folders below a root that a rule ignores
//! - [`process`]: the process that wrote or holds a temp
//! - [`rate`]: *is a directory hot?*
//! - [`observation`]: the result of a look at a name
//! - [`own_names`]: the names that orphand itself creates
//! - [`packed`]: a fingerprint in as few bytes as possible
//! - [`retention`]: how long a quarantine keeps its files
//! - [`sort`]: a sort with little code
//! - [`sums`]: how many temps of each directory and shape got each verdict
//! - [`learn`]: shapes of names, learned from healthy renames
//! - [`target`]: when a target counts
//! - [`time`]: moments as values
//! - [`tracker`]: *is it time?*
//! - [`macos_use`]: *does a process use it?*, on macOS, where an ordinary program gets no lease
//! - [`judge`]: *is it safe?*
//! - [`write_times`]: how long healthy writes take
#![deny(clippy::disallowed_methods)]

#[macro_use]
mod words;

pub mod census;
pub mod companions;
pub mod event;
pub mod exclude;
pub mod glob;
pub mod group;
pub mod judge;
pub mod learn;
pub mod macos_use;
pub mod observation;
pub mod own_names;
pub mod packed;
pub mod policy;
pub mod process;
mod random;
pub mod rate;
pub(crate) mod rescan_schedule;
pub mod reserved;
pub mod retention;
pub mod sort;
mod suffix;
pub mod sums;
pub mod target;
pub mod temp_name;
pub mod temp_set;
pub mod time;
pub mod tracker;
pub mod write_times;
