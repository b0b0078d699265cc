//! The supervisor: attaches roots, and attaches them again when that is needed.
//!
//! To attach a root means to watch it first and scan it second. A temp that is created in between is reported twice,
//! which is harmless. In the other order it could be missed. The same code serves the start, lost events, roots that
//! return, directories that appear, and the periodic scan of everything.
//!
//! - [`event_loop`]: the thread, and its reactions to messages and deadlines
//! - [`reload`]: puts other rules in force
//! - [`services`]: the state that all roots share
//! - [`root_watch`]: the state of one root
//! - [`dir_watches`]: the directories of a root that are watched, and those that are not
//! - [`attach`]: roots that appear, disappear and change
//! - [`poll`]: roots whose changes cause no events
//! - [`scan`]: watches and tracks the contents of a root
//! - [`recover`]: claims that a crash left behind
//! - [`hot_dir`], [`hot_scan`]: directories that are scanned instead of watched, because temps are created in them too
//!   fast
//! - [`limits`]: the limits of the quarantines

mod attach;
mod dir_watches;
mod event_loop;
mod hot_dir;
mod hot_scan;
mod limits;
mod poll;
mod recover;
mod reload;
mod root_watch;
mod scan;
mod services;

pub(super) use event_loop::run;
pub(super) use root_watch::lock_roots;
