//! End-to-end tests with real files, real processes and real kills.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
// Some helpers are called only by the tests for Linux.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

mod contract;
#[cfg(target_os = "linux")]
mod intercept;
mod sandbox;
mod schema;

mod background;
mod census;
mod cli;
mod config;
mod doctor;
mod history;
mod layout;
mod manual;
mod names;
#[cfg(target_os = "linux")]
mod no_answer;
mod notices;
mod public_api;
mod quarantine;
mod reserved;
mod restore_target;
mod rules;
mod safety_rules;
mod scan;
mod seeds;
mod service;
mod sight;
mod sweep;
mod targets;
mod texts;
mod users;
mod watch;
mod watch_roots;
mod writers;

// Needs Linux: open files of other processes are visible there.
#[cfg(target_os = "linux")]
mod attacks;
// Needs Linux: a preloaded clock and time namespaces.
#[cfg(target_os = "linux")]
mod clocks;
mod crashes;
// Needs Linux: seccomp(2).
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod file_systems;
// Needs Linux: seccomp(2).
#[cfg(target_os = "linux")]
mod git;
mod holders;
// Needs Linux: only there each directory has a watch of its own, and can leave the event path.
#[cfg(target_os = "linux")]
mod hot;
// Needs Linux: strace(1).
#[cfg(target_os = "linux")]
mod killed_programs;
#[cfg(target_os = "linux")]
mod kills;
// Needs Linux: events of FSEvents do not show which side of a rename a name is.
#[cfg(target_os = "linux")]
mod learning;
mod model;
mod model_sets;
// Needs Linux: without leases no set is taken.
#[cfg(target_os = "linux")]
mod set_attacks;
#[cfg(target_os = "linux")]
mod sets;
// Most of these incidents happened on Linux.
#[cfg(target_os = "linux")]
mod incidents;
#[cfg(target_os = "linux")]
mod missed;
// Needs Linux: leases and seccomp(2).
#[cfg(target_os = "linux")]
mod overdue;
// Needs Linux: mounts, overlayfs, chattr(1) and ext4.
#[cfg(target_os = "linux")]
mod places;

mod explorer;
mod fixture;
// Needs Linux: without leases a guard file always keeps.
#[cfg(target_os = "linux")]
mod guard;
// Needs Linux: elsewhere no birth time is known that no process can set, so nothing is superseded.
#[cfg(target_os = "linux")]
mod groups;
mod protocol;
// Its rates and pauses were measured only on Linux.
#[cfg(target_os = "linux")]
mod storm;
// Needs Linux: the service in it is one of systemd.
#[cfg(target_os = "linux")]
mod fake_env;
#[cfg(target_os = "linux")]
mod transcript;
mod verdicts;
// Needs Linux: events of FSEvents do not show which side of a rename a name is.
#[cfg(target_os = "linux")]
mod write_times;
