//! Evidence on Linux. A lease proves that a file is unused. `/proc` shows whether a writer runs, proves the absence of
//! mappings where a lease does not cover them, and names holders.

mod flush;
mod guard;
mod lease;
mod locks;
mod marks;
mod proc;
mod process;
mod process_scan;
mod writer;

pub use lease::{CheckedFile, HAS_LEASES, UseChecker, open_for_check, open_own_for_check};
pub use marks::{ORIGIN, SET, read_mark, set_mark};
pub use proc::shows_our_processes;
pub use process_scan::scan_processes;
pub use writer::writer;

pub(crate) use lease::CHECK_ONLY;
pub(crate) use marks::may_let_others_in;

pub(super) use flush::flush_file_system;
pub(super) use guard::guard_use;
pub(super) use lease::is_locked;
pub(super) use locks::{locked_files, may_be_device};
pub(super) use marks::{RESTORED, has_attributes};
pub(super) use process::{ProcessHandle, program, unit};
pub(super) use writer::{container_pids, writer_name};
