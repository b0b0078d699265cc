//! Writes metrics for Prometheus to a file for node_exporter's textfile collector. There is no listener.
//!
//! Labels are roots and values of closed lists. They never contain a path below a root or a pid, so a leaking program
//! cannot create new series.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orphand::core::event::RootState;
use orphand::core::time::Wall;
use orphand::daemon::RootStatus;
use orphand::daemon::stats::LastScan;
use orphand::store::regular_file;

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

/// The permissions of the file. The collector runs as another user.
const MODE: u32 = 0o644;

/// Replaces the file at `path` with `text` atomically.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    regular_file::replace(path, &new, MODE, |file| {
        file.write_all(text.as_bytes())?;
        // The umask of a service allows others nothing.
        file.set_permissions(fs::Permissions::from_mode(MODE))
    })
}

/// A metric of each root. A name that ends in `_total` is the name of a counter, any other name that of a gauge.
struct Metric {
    name: &'static str,
    help: &'static str,
    /// Returns the samples: the value of the label `reason`, if the metric has it, and the value of the sample.
    samples: fn(&RootStatus) -> Samples,
}

type Samples = Vec<(Option<&'static str>, f64)>;

const fn metric(
    name: &'static str,
    help: &'static str,
    samples: fn(&RootStatus) -> Samples,
) -> Metric {
    Metric {
        name,
        help,
        samples,
    }
}

const ROOT_METRICS: [Metric; 14] = [
    metric(
        "orphand_root_state",
        "1 for the current state of the root, 0 for the others.",
        |root| {
            let sample = |one: RootState| (Some(one.as_str()), flag(one == state(root)));
            STATES.map(sample).into()
        },
    ),
    metric(
        "orphand_waiting_files",
        "Temps that are within their grace.",
        |root| one(root.pending.waiting as f64),
    ),
    metric(
        "orphand_orphan_files",
        "Temps that are older than their grace and still exist.",
        |root| one(root.pending.held as f64),
    ),
    metric(
        "orphand_orphan_bytes",
        "The sum of the lengths of the temps that are older than their grace and still exist.",
        |root| one(root.pending.held_bytes as f64),
    ),
    metric("orphand_removed_files_total", "Removed temps.", |root| {
        one(root.stats.summary.reaped as f64)
    }),
    metric(
        "orphand_reclaimed_bytes_total",
        "The sum of the lengths of the removed temps.",
        |root| one(root.stats.summary.freed.bytes as f64),
    ),
    metric(
        "orphand_reclaimed_disk_bytes_total",
        "The disk space that the removals freed, in bytes.",
        |root| one(root.stats.summary.freed.disk_bytes as f64),
    ),
    metric(
        "orphand_quarantined_files_total",
        "Temps that were moved to the quarantine.",
        |root| one(root.stats.summary.quarantined as f64),
    ),
    metric(
        "orphand_quarantined_bytes_total",
        "The sum of the lengths of the temps that were moved to the quarantine. Their space is not free.",
        |root| one(root.stats.summary.quarantined_size.bytes as f64),
    ),
    metric(
        "orphand_kept_total",
        "The number of kept temps, counted once for each temp and reason.",
        |root| by_reason(&root.stats.kept),
    ),
    metric(
        "orphand_unlink_errors_total",
        "Temps that could not be processed, and directories that could not be read.",
        |root| one(root.stats.summary.failed as f64),
    ),
    metric(
        "orphand_rescans_total",
        "The number of scans of the root, by cause.",
        |root| by_reason(&root.stats.rescans),
    ),
    metric(
        "orphand_scan_duration_seconds",
        "The duration of the last scan of the root.",
        |root| of_scan(root, |scan| scan.took.as_secs_f64()),
    ),
    metric(
        "orphand_last_scan_timestamp_seconds",
        "The end of the last scan of the root, in seconds since 1970.",
        |root| of_scan(root, |scan| seconds(scan.ended)),
    ),
];

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
    let mut add = |name: &str, labels: &str, help: &str, value: f64| {
        out += &header(name, help);
        out += &format!("{name}{labels} {value}\n");
    };
    add(
        "orphand_build_info",
        &format!("{{version=\"{}\"}}", escaped(env!("CARGO_PKG_VERSION"))),
        "The version of orphand; always 1.",
        1.0,
    );
    add(
        "orphand_start_time_seconds",
        "",
        "The time at which the watch began, in seconds since 1970.",
        seconds(since),
    );
    add(
        "orphand_config_ok",
        "",
        "0 while the configuration file has an error, otherwise 1.",
        flag(snapshot.config_error.is_none()),
    );
    add(
        "orphand_blind",
        "",
        "1 if orphand cannot determine of some temp whether it is in use, otherwise 0.",
        flag(snapshot.roots.iter().any(is_blind)),
    );
    for metric in ROOT_METRICS {
        let name = metric.name;
        let mut lines = String::new();
        for root in &snapshot.roots {
            for (reason, value) in (metric.samples)(root) {
                lines += &format!("{name}{} {value}\n", labels(root, reason));
            }
        }
        // A metric without a sample has no header.
        if !lines.is_empty() {
            out += &header(name, metric.help);
            out += &lines;
        }
    }
    out
}

fn header(name: &str, help: &str) -> String {
    let kind = match name.ends_with("_total") {
        true => "counter",
        false => "gauge",
    };
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn one(value: f64) -> Samples {
    vec![(None, value)]
}

fn by_reason(counts: &BTreeMap<&'static str, u64>) -> Samples {
    counts
        .iter()
        .map(|(reason, count)| (Some(*reason), *count as f64))
        .collect()
}

/// Returns the value of the last scan. A root that was not scanned yet has no sample.
fn of_scan(root: &RootStatus, value: fn(LastScan) -> f64) -> Samples {
    root.stats
        .last_scan
        .into_iter()
        .flat_map(|scan| one(value(scan)))
        .collect()
}

fn flag(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

fn seconds(at: Wall) -> f64 {
    at.sec as f64 + f64::from(at.nsec) / 1e9
}

fn labels(root: &RootStatus, reason: Option<&str>) -> String {
    let root = escaped(&root.root.path.to_string_lossy());
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
