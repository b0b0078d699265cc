//! Writes metrics for Prometheus to a file for node_exporter's textfile collector. There is no listener.
//!
//! Labels are roots and values of closed lists. They never contain a path below a root or a pid, so a leaking program
//! cannot create new series.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orphand::core::event::RootState;
use orphand::core::time::Wall;

use crate::cli::output::watch_status::{Snapshot, WatchStatus, is_blind, state};

/// The metrics file, and the time at which it is written next.
#[derive(Debug)]
pub(crate) struct Textfile {
    path: PathBuf,
    every: Duration,
    written: Instant,
    has_changed: bool,
    /// True if it was reported that the file cannot be written.
    reported: bool,
}

/// The interval at which the file is written while nothing happens. Its modification time shows that the watcher is
/// running.
const HEARTBEAT: Duration = Duration::from_secs(60);

impl Textfile {
    /// Returns the file at `path`, which is written at the interval `every` while something happens.
    pub(crate) fn new(path: &Path, every: Duration) -> Textfile {
        Textfile {
            path: path.to_owned(),
            every,
            written: Instant::now(),
            has_changed: true,
            reported: false,
        }
    }

    /// Notes that something has happened since the last write.
    pub(crate) fn mark_changed(&mut self) {
        self.has_changed = true;
    }

    /// Returns the time of the next write.
    pub(crate) fn due(&self) -> Instant {
        match self.has_changed {
            true => self.written + self.every,
            false => self.written + self.every.max(HEARTBEAT),
        }
    }

    /// Writes the current status. An error, such as a full disk, is reported once and stops nothing.
    pub(crate) fn write(&mut self, status: &WatchStatus) {
        self.written = Instant::now();
        self.has_changed = false;
        let text = render(&status.snapshot(), status.since);
        match replace(&self.path, &text) {
            Ok(()) => self.reported = false,
            Err(error) if !self.reported => {
                self.reported = true;
                log::warn!("cannot write the metrics {:?}: {error}", self.path);
            }
            Err(_) => {}
        }
    }
}

/// Replaces the file at `path` with `text` atomically. The temp always has the same name: if this is killed, however
/// often, at most one temp is left, and the next call removes it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    // The old file is removed and not opened, because it may be a FIFO or a symlink.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(&new)?.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// A metric with its samples.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The labels and the value of each sample.
    samples: Vec<(String, f64)>,
}

const STATES: [RootState; 6] = [
    RootState::Watching,
    RootState::Gone,
    RootState::Polling,
    RootState::Denied,
    RootState::Blind,
    RootState::NoAnswer,
];

/// Renders the metrics in the text format of Prometheus, version 0.0.4.
fn render(snapshot: &Snapshot, since: Wall) -> String {
    let mut out = String::new();
    for family in families(snapshot, since) {
        if family.samples.is_empty() {
            continue;
        }
        let Family {
            name, kind, help, ..
        } = family;
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in family.samples {
            out.push_str(&format!("{name}{labels} {value}\n"));
        }
    }
    out
}

fn families(snapshot: &Snapshot, since: Wall) -> Vec<Family> {
    let per_root = |value: &dyn Fn(&orphand::daemon::RootStatus) -> f64| {
        let sample = |one| (labels(one, None), value(one));
        snapshot.roots.iter().map(sample).collect::<Vec<_>>()
    };
    let by_reason = |counts: &dyn Fn(&orphand::daemon::RootStatus) -> Vec<(&'static str, f64)>| {
        let samples = |one| {
            let sample = move |(reason, value)| (labels(one, Some(reason)), value);
            counts(one).into_iter().map(sample)
        };
        snapshot.roots.iter().flat_map(samples).collect::<Vec<_>>()
    };
    let gauge = |name, help, samples| Family {
        name,
        kind: "gauge",
        help,
        samples,
    };
    let counter = |name, help, samples| Family {
        name,
        kind: "counter",
        help,
        samples,
    };
    let plain = |value: f64| vec![(String::new(), value)];
    let flag = |flag: bool| f64::from(u8::from(flag));
    let floats = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        let float = |(reason, count): (&&'static str, &u64)| (*reason, *count as f64);
        counts.iter().map(float).collect::<Vec<_>>()
    };
    let scanned = |value: &dyn Fn(orphand::daemon::stats::LastScan) -> f64| {
        let sample = |one: &orphand::daemon::RootStatus| {
            let scan = one.stats.last_scan?;
            Some((labels(one, None), value(scan)))
        };
        snapshot.roots.iter().filter_map(sample).collect::<Vec<_>>()
    };
    vec![
        Family {
            name: "orphand_build_info",
            kind: "gauge",
            help: "The version of orphand; always 1.",
            samples: vec![(
                format!("{{version=\"{}\"}}", escaped(env!("CARGO_PKG_VERSION"))),
                1.0,
            )],
        },
        gauge(
            "orphand_start_time_seconds",
            "The time at which the watch began, in seconds since 1970.",
            plain(seconds(since)),
        ),
        gauge(
            "orphand_config_ok",
            "0 while the configuration file has an error, otherwise 1.",
            plain(flag(snapshot.config_error.is_none())),
        ),
        gauge(
            "orphand_blind",
            "1 if orphand cannot determine of some temp whether it is in use, otherwise 0.",
            plain(flag(snapshot.roots.iter().any(is_blind))),
        ),
        gauge(
            "orphand_root_state",
            "1 for the current state of the root, 0 for the others.",
            by_reason(&|one| {
                let now = state(one);
                let value = |state: &RootState| (state.as_str(), flag(*state == now));
                STATES.iter().map(value).collect()
            }),
        ),
        gauge(
            "orphand_waiting_files",
            "Temps that are within their grace.",
            per_root(&|one| one.pending.waiting as f64),
        ),
        gauge(
            "orphand_orphan_files",
            "Temps that are older than their grace and still exist.",
            per_root(&|one| one.pending.held as f64),
        ),
        gauge(
            "orphand_orphan_bytes",
            "The sum of the lengths of the temps that are older than their grace and still exist.",
            per_root(&|one| one.pending.held_bytes as f64),
        ),
        counter(
            "orphand_removed_files_total",
            "Removed temps.",
            per_root(&|one| one.stats.summary.reaped as f64),
        ),
        counter(
            "orphand_reclaimed_bytes_total",
            "The sum of the lengths of the removed temps.",
            per_root(&|one| one.stats.summary.freed.bytes as f64),
        ),
        counter(
            "orphand_reclaimed_disk_bytes_total",
            "The disk space that the removals freed, in bytes.",
            per_root(&|one| one.stats.summary.freed.disk_bytes as f64),
        ),
        counter(
            "orphand_quarantined_files_total",
            "Temps that were moved to the quarantine.",
            per_root(&|one| one.stats.summary.quarantined as f64),
        ),
        counter(
            "orphand_quarantined_bytes_total",
            "The sum of the lengths of the temps that were moved to the quarantine. Their space is not free.",
            per_root(&|one| one.stats.summary.quarantined_size.bytes as f64),
        ),
        counter(
            "orphand_kept_total",
            "The number of kept temps, counted once for each temp and reason.",
            by_reason(&|one| floats(&one.stats.kept)),
        ),
        counter(
            "orphand_unlink_errors_total",
            "Temps that could not be processed, and directories that could not be read.",
            per_root(&|one| one.stats.summary.failed as f64),
        ),
        counter(
            "orphand_rescans_total",
            "The number of scans of the root, by cause.",
            by_reason(&|one| floats(&one.stats.rescans)),
        ),
        gauge(
            "orphand_scan_duration_seconds",
            "The duration of the last scan of the root.",
            scanned(&|scan| scan.took.as_secs_f64()),
        ),
        gauge(
            "orphand_last_scan_timestamp_seconds",
            "The end of the last scan of the root, in seconds since 1970.",
            scanned(&|scan| seconds(scan.ended)),
        ),
    ]
}

fn seconds(at: Wall) -> f64 {
    at.sec as f64 + f64::from(at.nsec) / 1e9
}

fn labels(one: &orphand::daemon::RootStatus, reason: Option<&str>) -> String {
    let root = escaped(&one.root.path.to_string_lossy());
    match reason {
        Some(reason) => format!("{{root=\"{root}\",reason=\"{}\"}}", escaped(reason)),
        None => format!("{{root=\"{root}\"}}"),
    }
}

/// Escapes the value of a label. Only backslashes, quotes and line ends need it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opening a FIFO would block, and opening a symlink would write to another file.
    #[test]
    fn an_existing_file_at_the_temp_name_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo")
            .arg(path(".a.prom.new"))
            .status();
        assert!(made.unwrap().success());
        replace(&path("a.prom"), "one").unwrap();
        fs::write(path("other"), "another file").unwrap();
        std::os::unix::fs::symlink("other", path(".a.prom.new")).unwrap();
        replace(&path("a.prom"), "two").unwrap();
        assert_eq!(fs::read_to_string(path("a.prom")).unwrap(), "two");
        assert_eq!(fs::read_to_string(path("other")).unwrap(), "another file");
        assert!(!path("a.prom").is_symlink());
    }
}
