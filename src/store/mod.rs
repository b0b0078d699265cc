//! What orphand keeps on the disk for itself: its state folder, the locks on roots, and the journal.
//!
//! - [`state`]: the folders, and the locks
//! - [`capped_file`]: a file of limited size
//! - [`journal`]: each removal, before and after it happens
//! - [`json`]: the JSON form of events

pub mod capped_file;
pub mod journal;
pub mod json;
pub mod state;
