//! Finds temp files that a killed atomic writer left behind, and removes them once it is proven
//! that nobody holds them, still writes them, or has no other copy.
//!
//! A program that writes `sessions.json` atomically writes `sessions.json.<uuid>.tmp` and renames
//! it. Killed in between, it leaves the temp for ever. orphand watches the directory from outside.
//!
//! # Embedding it
//!
//! ```
//! use std::time::Duration;
//!
//! use orphand::decide::policy::{Graces, Policy};
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
//!         // Its writer was killed before it wrote anything.
//!         Event::Ready { .. } => std::fs::write(dir.path().join("sessions.json.4711.tmp"), "")?,
//!         Event::Reaped(temp) => {
//!             assert!(temp.subject.path.ends_with("sessions.json.4711.tmp"));
//!             break;
//!         }
//!         _ => {}
//!     }
//! }
//! drop(watcher); // stops; nothing is half done when this returns
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is printed, no signal is touched, and without [`daemon::Builder::folders`] no file is
//! written but in the quarantine. The `orphand` binary is made of the same parts.
//!
//! A look opens a temp and closes it, and with any close of a file a process loses all its POSIX locks on it
//! (fcntl(2)). A program that watches its own temps locks them by flock(2) or by OFD locks instead.
//!
//! # The map
//!
//! An event is only a hint; looking is the truth; two pure decisions stand between a look and a
//! removal:
//!
//! ```text
//! kernel -> watch (hints) -> temps (map + deadlines) -> timer -> look -> tracker: is it time?
//!                                ^                                          |
//!           scan (start, lost events, hourly)                judge: is it safe? -> reap
//! ```
//!
//! - [`watch`] hears names, [`scan`] reads them; both put them into [`temps`].
//! - [`daemon`] has the threads: a timer that passes over what is due, a keeper that attaches roots.
//! - [`pass`] is the one door for whatever is due: [`look`], [`evidence`], [`decide`], [`reap`].
//! - [`decide`] is pure: [`decide::tracker`] and [`decide::judge`] read no clock and no file.
//! - [`reap`] removes, by a protocol that can put back until its last step.
//! - [`sweep`] is one pass without a watcher; [`journal`], [`event`] and [`json`] tell what was done.
//!
//! `docs/architecture.md` follows one event through all of it; `docs/safety.md` argues for each
//! removal and names every window that is left.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "orphand works on Linux and on macOS: elsewhere it could not prove that a file is unused"
);

#[macro_use]
mod rule;

pub mod capped;
pub mod clock;
pub mod daemon;
pub mod decide;
pub mod error;
pub mod event;
pub mod evidence;
mod free_memory;
pub mod journal;
pub mod json;
pub mod look;
pub mod pass;
pub mod random;
pub mod reap;
pub mod root;
pub mod scan;
pub mod state;
pub mod stats;
pub mod stop;
pub mod sweep;
pub mod temps;
pub mod watch;

pub use daemon::Watcher;
pub use event::Event;
