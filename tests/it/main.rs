//! End to end: real files, real processes, real kills.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
// What only the tests for Linux call stands beside what all of them do.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

mod contract;
mod sandbox;

mod cli;
mod history;
mod names;
mod quarantine;
mod scan;
mod sweep;
mod users;
mod watch;
mod watch_roots;

// Other users, huge directories, deep trees: Linux tells what a process has open.
#[cfg(target_os = "linux")]
mod attacks;
mod crashes;
#[cfg(target_os = "linux")]
mod file_systems;
mod holders;
// What happened to others, on Linux for the most part.
#[cfg(target_os = "linux")]
mod incidents;
// Mounts, overlays, chattr(1) and ext4 are Linux's.
#[cfg(target_os = "linux")]
mod places;
mod protocol;
mod stage;
// Its rates and pauses were measured on Linux and nowhere else.
#[cfg(target_os = "linux")]
mod storm;
mod verdicts;
