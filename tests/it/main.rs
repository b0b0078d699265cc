//! End to end: real files, real processes, real kills.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
// What only the tests for Linux call stands beside what all of them do.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

mod contract;
mod sandbox;

mod background;
mod cli;
mod history;
mod names;
mod quarantine;
mod scan;
mod sweep;
mod users;
mod watch;
mod watch_roots;

mod crashes;
mod holders;
// Mounts, overlays, namespaces, chattr(1) and ext4 are Linux's.
#[cfg(target_os = "linux")]
mod clocks;
#[cfg(target_os = "linux")]
mod missed;
#[cfg(target_os = "linux")]
mod places;
mod protocol;
mod stage;
mod verdicts;
#[cfg(target_os = "linux")]
mod world;
