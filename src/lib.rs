//! orphand
pub mod clock;
pub mod daemon;
pub mod decide;
pub mod error;
pub mod event;
pub mod evidence;
pub mod journal;
pub mod json;
pub mod look;
pub mod pass;
pub mod reap;
pub mod root;
pub mod scan;
pub mod state;
pub mod sweep;
pub mod temps;
pub mod watch;
