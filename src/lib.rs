//! Finds temp files that killed atomic writers left behind, and removes them once that is proven to be safe.
//!
//! A program that writes `sessions.json` atomically first writes `sessions.json.<uuid>.tmp` (the *temp*) and then
//! renames it to `sessions.json` (its *target*). If the program is killed in between, the temp stays forever.
//!
//! orphand watches a directory from outside the program. By default, it removes a temp that was never renamed only
//! if three things are true: it is proven that no process has it open, no process with the pid in its name is running,
//! and its target counts as a copy. An empty temp needs no target if its name has a random part. A temp that may be the only copy of its data is moved to a quarantine instead.
//!
//! # Example
//!
//! A [`Watcher`] watches directories in its own threads, and sends an [`Event`] for each thing that it does:
//!
//! ```
//! use std::time::Duration;
//!
//! use orphand::core::policy::{Graces, Policy};
//! use orphand::{Event, Watcher};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let policy = Policy {
//!     grace: Graces::both(Duration::from_millis(200)),
//!     ..Policy::default()
//! };
//! let watcher = Watcher::builder().root(dir.path(), policy).start()?;
//! for event in watcher.events() {
//!     match event {
//!         // Creates the temp of a writer that was killed before it wrote anything.
//!         Event::Ready { .. } => std::fs::write(dir.path().join("sessions.json.4711.tmp"), "")?,
//!         Event::Reaped(temp) => {
//!             assert!(temp.subject.path.ends_with("sessions.json.4711.tmp"));
//!             break;
//!         }
//!         _ => {}
//!     }
//! }
//! drop(watcher); // stops the watcher; no removal is half done when this returns
//! # Ok(())
//! # }
//! ```
//!
//! The library prints nothing and handles no signals. Without [`daemon::Builder::folders`] it writes no files outside
//! the quarantine. The `orphand` binary uses the same modules.
//!
//! orphand opens a temp to look at it, and closes it again. When a process closes any descriptor of a file, it loses
//! all its POSIX locks on that file (fcntl(2)). A program that embeds orphand and locks its own temps must therefore
//! use flock(2) or OFD locks.
//!
//! # Map of the modules
//!
//! An event only says which name to look at. orphand then looks at the file itself, and two pure decisions follow
//! before a temp can be removed:
//!
//! ```text
//! kernel -> watch (events) -> temps (map with deadlines) -> scheduler -> look -> tracker: is it time?
//!                                 ^                                                |
//!         scan (at the start, after lost events, hourly)              judge: is it safe? -> reap
//! ```
//!
//! - [`watch`] receives the names of new files from the kernel, and [`scan`] reads them from directories. Both add them
//!   to the map in [`temps`].
//! - [`daemon`] runs the threads: a scheduler that dispatches due temps to workers, and a supervisor that attaches
//!   roots.
//! - [`pass`] processes the due temps of one directory. It uses [`look`], [`evidence`], [`decide`] and [`reap`], and no
//!   other code path removes a temp from a root. Files in a quarantine are deleted by its limits
//!   ([`reap::quarantine`]) and by the command `quarantine purge`.
//! - [`decide`] contains the pure decisions: [`decide::tracker`] and [`decide::judge`] read no clock and no file.
//! - [`reap`] removes a temp by a protocol that can put it back until the last step.
//! - [`sweep`] processes a root once, without a watcher.
//! - [`event`], [`journal`] and [`json`] report what was done.
//! - [`root`] defines the directories, and [`state`] has orphand's own folders and the locks on roots.
//!
//! `docs/architecture.md` follows one event through all modules. `docs/safety.md` argues for each removal and lists
//! each remaining race.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "orphand supports only Linux and macOS: on other systems it cannot prove that a file is unused"
);

#[macro_use]
mod rule;

#[doc(hidden)]
pub mod core;
#[doc(hidden)]
pub mod daemon;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod evidence;
#[doc(hidden)]
pub mod fs;
#[doc(hidden)]
pub mod index;
#[doc(hidden)]
pub mod reap;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod watch;

pub use crate::core::event::Event;
pub use daemon::Watcher;
