//! The files that orphand keeps for itself: its state folder, the locks on roots, and the journal.
//!
//! - [`folders`]: the folders for these files
//! - [`regular_file`]: opens, reads and replaces regular files
//! - [`lock`]: the locks on roots
//! - [`capped_file`]: a file of limited size
//! - [`journal`]: each removal, before and after it happens
//! - [`json`]: the JSON form of events
//! - [`shapes`]: the file of learned shapes

pub mod capped_file;
pub mod folders;
pub mod journal;
pub mod json;
pub mod lock;
pub mod regular_file;
pub mod shapes;
