//! orphand
pub mod clock;
pub mod decide;
pub mod event;
pub mod evidence;
pub mod journal;
pub mod json;
pub mod look;
pub mod pass;
pub mod reap;
pub mod root;
pub mod state;
pub mod temps;
pub mod watch;
