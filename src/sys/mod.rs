//! The system apart from its file systems: clocks, random numbers, tables of the kernel, priorities.

pub mod clock;
pub mod error;
pub mod free_memory;
pub(crate) mod idle_io;
pub(crate) mod kernel_events;
pub mod kernel_version;
pub mod mountinfo;
pub mod mutex;
pub mod own_process;
pub mod passwd;
pub mod random;
pub mod stop;
