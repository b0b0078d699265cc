//! The commands. Each has its own file, or its own folder.

pub(super) mod completions;
pub(super) mod config;
pub(super) mod explain;
pub(super) mod history;
pub(super) mod man;
pub(super) mod quarantine;
pub(super) mod report;
pub(super) mod restore;
mod restore_target;
mod restored_file;
pub(super) mod scan;
pub(super) mod status;
pub(super) mod sweep;
pub(super) mod watch;
