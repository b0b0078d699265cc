//! The watcher and its threads.
//!
//! - *notify's threads* call [`crate::watch`], which adds temps to the map and removes them from it.
//! - The *scheduler* sleeps until the next deadline, then dispatches due temps to workers.
//! - A *worker* processes due temps of one directory.
//! - The *supervisor* attaches roots: it watches and scans them. It does so again when a root returns, when events were
//!   lost, when directories appeared, and once an hour.
//! - The *learner* derives the shapes of temps from healthy renames. The watch works without it.
//!
//! The callbacks, the workers and the supervisor send their events to the consumer through one channel.

mod active_roots;
mod builder;
mod command;
mod existing;
mod learner;
mod learning;
mod panic_guard;
mod scheduler;
mod shared;
pub mod stats;
mod status;
mod supervisor;
mod watcher;
mod worker;

pub use builder::{Builder, StartError};
pub use existing::Existing;
pub use status::{RootStatus, StatusHandle};
pub use watcher::{Stopper, Watcher};
