//! Finds temp files that killed atomic writers left behind, and removes them once that is proven to be safe.
//!
//! A program that writes `sessions.json` atomically first writes `sessions.json.<uuid>.tmp` (the *temp*) and then
//! renames it to `sessions.json` (its *target*). If the program is killed in between, the temp stays forever.
//!
//! orphand watches a directory from outside the program. By default, it removes a temp that was never renamed only
//! if three things are true: it is proven that no process has it open, no process with the pid in its name is running,
//! and its target counts as a copy. An empty temp needs no target if its name has a random part. A temp that may be
//! the only copy of its data is moved to a quarantine instead.
//!
//! # Example
//!
//! A [`Watcher`] watches directories in its own threads, and sends an [`Event`] for each thing that it does. A
//! [`Policy`] is the rule for one directory. `examples/embed.rs` is a complete program.
//!
//! ```
//! use std::time::Duration;
//!
//! use orphand::{Event, Graces, Policy, Watcher};
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
//! # Dependencies
//!
//! The default feature `cli` is for the `orphand` binary. A program that embeds the library does not need it:
//!
//! ```toml
//! [dependencies]
//! orphand = { version = "0.1", default-features = false }
//! ```
//!
//! orphand requires exactly notify 9.0.0-rc.7 and notify-debouncer-full 0.8.0-rc.2. This matters if your program
//! depends on notify too:
//!
//! - A requirement that these versions meet, such as `notify = "9.0.0-rc.7"`, is resolved to one common copy.
//! - notify 8 and earlier versions are built in addition, as a second copy.
//! - Any other version 9, including the final release, cannot be resolved: Cargo reports an error, because it accepts
//!   only one version 9 of a crate.
//!
//! # Effects on the program
//!
//! - The library prints nothing and handles no signals. It logs through the crate `log`.
//! - Without [`Builder::folders`] it writes no files except in the watched directories: it renames temps before it
//!   removes them, and creates the quarantine `.orphand`. It then takes no lock either, so do not let another orphand
//!   process work on the same directory.
//! - It ends all its threads before the [`Watcher`] is dropped completely. The channel of events is bounded: a program
//!   that does not read it stops the removals.
//! - orphand opens a temp to look at it, and closes it again. When a process closes any descriptor of a file, it loses
//!   all its POSIX locks on that file (fcntl(2)). A program that embeds orphand and locks its own temps must therefore
//!   use flock(2) or OFD locks.
//!
//! # Documentation
//!
//! The modules [`event`], [`settings`] and [`status`] contain the types of the items on this page. All other modules
//! are hidden: they are for the binary, the tests and the benchmarks, and they change without notice.
//! `docs/architecture.md` in the repository follows one event through these modules, and `docs/safety.md` gives the
//! reasons for each removal and lists each remaining race.

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

// The public API. tests/it/public_api.rs limits the number of its items.
pub use crate::core::event::Event;
pub use crate::core::judge::Reason;
pub use crate::core::policy::{Graces, Policy};
pub use crate::core::temp_name::Names;
pub use crate::daemon::{Builder, Existing, StartError, Stopper, Watcher};

/// The contents of an [`Event`].
pub mod event {
    pub use crate::core::event::{
        Details, Disposed, RescanCause, RootState, Settlement, Subject, Summary,
    };
    pub use crate::core::judge::{LinkFault, Target};
    pub use crate::core::observation::{FileSize, Holder, Kind};
}

/// The values in a [`Policy`], the arguments of a [`Builder`], and their errors.
pub mod settings {
    pub use crate::core::exclude::{Exclude, ExcludeError};
    pub use crate::core::policy::{
        Action, Closed, Hot, Learn, Open, PolicyError, SHORTEST_GRACE, SoleCopy,
    };
    pub use crate::core::rate::Threshold;
    pub use crate::core::retention::Limits;
    pub use crate::core::temp_name::{NameError, WriterGrammar, writers};
    pub use crate::fs::root::{Refused, Root};
    pub use crate::store::folders::Folders;
    pub use crate::store::lock::{LockHolder, RootBusy};
}

/// The status of a running [`Watcher`].
pub mod status {
    pub use crate::core::time::{Mono, Wall};
    pub use crate::core::write_times::WriteSummary;
    pub use crate::daemon::stats::{LastScan, RootStats};
    pub use crate::daemon::{RootStatus, StatusHandle};
    pub use crate::index::PendingCounts;
    pub use crate::watch::SlowWrite;
}
