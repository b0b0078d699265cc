//! End to end: real files, real processes, real kills.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
// What only the tests for Linux call stands beside what all of them do.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

mod contract;
#[cfg(target_os = "linux")]
mod intercept;
mod sandbox;

mod background;
mod cli;
mod config;
mod doctor;
mod history;
mod manual;
mod names;
#[cfg(target_os = "linux")]
mod no_answer;
mod notices;
mod quarantine;
mod reserved;
mod rules;
mod safety_rules;
mod scan;
mod seeds;
mod service;
mod sweep;
mod targets;
mod users;
mod watch;
mod watch_roots;

// Other users, huge directories, deep trees: Linux tells what a process has open.
#[cfg(target_os = "linux")]
mod attacks;
// A clock, limits, namespaces and mounts of one's own are Linux's.
#[cfg(target_os = "linux")]
mod clocks;
mod crashes;
// seccomp(2) is Linux's.
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod file_systems;
mod holders;
// Directories leave the event path where each has a watch of its own: on Linux.
#[cfg(target_os = "linux")]
mod hot;
#[cfg(target_os = "linux")]
mod kills;
mod model;
// What happened to others, on Linux for the most part.
#[cfg(target_os = "linux")]
mod incidents;
#[cfg(target_os = "linux")]
mod missed;
// Leases and seccomp(2) are Linux's.
#[cfg(target_os = "linux")]
mod overdue;
// Mounts, overlays, chattr(1) and ext4 are Linux's.
#[cfg(target_os = "linux")]
mod places;

mod fixture;
mod protocol;
// Its rates and pauses were measured on Linux and nowhere else.
#[cfg(target_os = "linux")]
mod storm;
// The service in it is systemd's.
#[cfg(target_os = "linux")]
mod fake_env;
#[cfg(target_os = "linux")]
mod transcript;
mod verdicts;
