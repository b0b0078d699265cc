//! Metrics for Prometheus, as a file for node_exporter's textfile collector. There is no listener.
//!
//! Labels are roots and reasons out of closed lists, never a path below a root and never a pid: what
//! a leaking program makes up must not become a series.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orphand::decide::time::Wall;
use orphand::event::RootState;

use super::watch_status::{Snapshot, WatchStatus, is_blind, state};

/// The file, and when it is written next.
#[derive(Debug)]
pub(crate) struct Textfile {
    path: PathBuf,
    every: Duration,
    written: Instant,
    has_news: bool,
    /// That it cannot be written was said.
    said: bool,
}

/// The longest time that it is not written although nothing happens: its date tells that the watcher
/// lives.
const HEARTBEAT: Duration = Duration::from_secs(60);

impl Textfile {
    /// The file at `path`, written every `every` while something happens.
    pub(crate) fn new(path: &Path, every: Duration) -> Textfile {
        Textfile {
            path: path.to_owned(),
            every,
            written: Instant::now(),
            has_news: true,
            said: false,
        }
    }

    /// Something has happened.
    pub(crate) fn has_news(&mut self) {
        self.has_news = true;
    }

    /// When it is to be written.
    pub(crate) fn due(&self) -> Instant {
        match self.has_news {
            true => self.written + self.every,
            false => self.written + self.every.max(HEARTBEAT),
        }
    }

    /// Writes what `board` shows. A disk without room stops nothing.
    pub(crate) fn write(&mut self, board: &WatchStatus) {
        self.written = Instant::now();
        self.has_news = false;
        let text = render(&board.snapshot(), board.since);
        match replace(&self.path, &text) {
            Ok(()) => self.said = false,
            Err(error) if !self.said => {
                self.said = true;
                log::warn!("the metrics {:?} cannot be written: {error}", self.path);
            }
            Err(_) => {}
        }
    }
}

/// Puts `text` in the place of the file at `path`, whole or not at all. The name that it has before
/// is always the same: however often this is killed, it leaves one file, and the next one takes it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    // Another thing of that name, for example a FIFO or a symlink, is not opened.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(&new)?.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// A kind of metric, its help, and its samples: labels and value.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
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

/// The text format of Prometheus, version 0.0.4.
fn render(seen: &Snapshot, since: Wall) -> String {
    let mut out = String::new();
    for family in families(seen, since) {
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

fn families(seen: &Snapshot, since: Wall) -> Vec<Family> {
    let each = |value: &dyn Fn(&orphand::daemon::RootStatus) -> f64| {
        let sample = |one| (labels(one, None), value(one));
        seen.roots.iter().map(sample).collect::<Vec<_>>()
    };
    let by_reason = |counts: &dyn Fn(&orphand::daemon::RootStatus) -> Vec<(&'static str, f64)>| {
        let samples = |one| {
            let sample = move |(reason, value)| (labels(one, Some(reason)), value);
            counts(one).into_iter().map(sample)
        };
        seen.roots.iter().flat_map(samples).collect::<Vec<_>>()
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
    let scanned = |value: &dyn Fn(orphand::stats::LastScan) -> f64| {
        let sample = |one: &orphand::daemon::RootStatus| {
            let scan = one.stats.last_scan?;
            Some((labels(one, None), value(scan)))
        };
        seen.roots.iter().filter_map(sample).collect::<Vec<_>>()
    };
    vec![
        Family {
            name: "orphand_build_info",
            kind: "gauge",
            help: "Which orphand runs; always 1.",
            samples: vec![(
                format!("{{version=\"{}\"}}", escaped(env!("CARGO_PKG_VERSION"))),
                1.0,
            )],
        },
        gauge(
            "orphand_start_time_seconds",
            "When the watch began, in seconds since 1970.",
            plain(seconds(since)),
        ),
        gauge(
            "orphand_config_ok",
            "1 if the configuration file as it stands is in force, else 0.",
            plain(flag(seen.mistake.is_none())),
        ),
        gauge(
            "orphand_blind",
            "1 if it cannot be told of some temp whether it is used, else 0.",
            plain(flag(seen.roots.iter().any(is_blind))),
        ),
        gauge(
            "orphand_root_state",
            "1 for the state that the root is in, 0 for the others.",
            by_reason(&|one| {
                let now = state(one);
                let value = |state: &RootState| (state.as_str(), flag(*state == now));
                STATES.iter().map(value).collect()
            }),
        ),
        gauge(
            "orphand_waiting_files",
            "Temps within their grace.",
            each(&|one| one.pending.waiting as f64),
        ),
        gauge(
            "orphand_orphan_files",
            "Temps that nobody renamed within their grace and that are still there.",
            each(&|one| one.pending.held as f64),
        ),
        gauge(
            "orphand_orphan_bytes",
            "The bytes of those.",
            each(&|one| one.pending.held_bytes as f64),
        ),
        counter(
            "orphand_removed_files_total",
            "Temps removed.",
            each(&|one| one.stats.summary.reaped as f64),
        ),
        counter(
            "orphand_reclaimed_bytes_total",
            "Their bytes.",
            each(&|one| one.stats.summary.freed.bytes as f64),
        ),
        counter(
            "orphand_reclaimed_disk_bytes_total",
            "Bytes on the disk that removing them freed.",
            each(&|one| one.stats.summary.freed.disk_bytes as f64),
        ),
        counter(
            "orphand_quarantined_files_total",
            "Temps moved to the quarantine.",
            each(&|one| one.stats.summary.quarantined as f64),
        ),
        counter(
            "orphand_quarantined_bytes_total",
            "Their bytes, which are not free.",
            each(&|one| one.stats.summary.held_back.bytes as f64),
        ),
        counter(
            "orphand_kept_total",
            "How often a temp was kept: once per temp and reason.",
            by_reason(&|one| floats(&one.stats.kept)),
        ),
        counter(
            "orphand_unlink_errors_total",
            "Temps that could not be dealt with, and directories that could not be read.",
            each(&|one| one.stats.summary.failed as f64),
        ),
        counter(
            "orphand_rescans_total",
            "How often the root was scanned, by what gave the reason.",
            by_reason(&|one| floats(&one.stats.rescans)),
        ),
        gauge(
            "orphand_scan_duration_seconds",
            "How long the last scan of the root took.",
            scanned(&|scan| scan.took.as_secs_f64()),
        ),
        gauge(
            "orphand_last_scan_timestamp_seconds",
            "When that ended, in seconds since 1970.",
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

/// A label's value: backslash, quote and line end are all that needs it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is opened to be written may be one that is waited for, or another file.
    #[test]
    fn what_stands_at_the_name_before_is_not_opened() {
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
