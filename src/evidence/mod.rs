//! Gathers the evidence about a temp: its use by processes, the state of its writer, and its target.
//!
//! Each system has its own file with the same functions. [`UseChecker`] and [`CheckedFile`] prove that a file is
//! unused. [`scan_processes`] finds the processes that use it, for messages, and as proof where a lease does not cover
//! mappings. [`writer`] checks the process whose pid is in the name, and [`open_for_check`] opens a file. If a system
//! cannot prove something, it reports that, and the temp is kept.

#[cfg_attr(target_os = "linux", path = "linux/mod.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub mod container_pids;
mod flushed_targets;
mod gather;
pub mod guard;
mod holders;
pub mod learned;
pub mod locks;
pub mod restore_marks;
pub mod siblings;
mod target;
pub mod writer_names;

pub use flushed_targets::FlushedTargets;
pub use gather::{EvidenceContext, FileUse, KnownTarget, Role, TempInfo, gather};
pub use holders::{FileId, ProcessScan};
#[cfg(target_os = "linux")]
pub use system::shows_our_processes;
pub(crate) use system::{CHECK_ONLY, may_let_others_in};
pub use system::{
    CheckedFile, HAS_LEASES, ORIGIN, SET, UseChecker, open_for_check, open_own_for_check,
    read_mark, scan_processes, set_mark, writer,
};
pub use target::{
    ComparedTemp, FoundTarget, SharedTargets, find_target, recheck_target, target_name,
    with_longer_target,
};
