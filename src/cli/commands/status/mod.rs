//! `orphand status`: shows the running watchers, their roots, and the disk usage of these.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use orphand::core::observation::FileSize;
use orphand::fs::response::{responds, unresponsive};
use orphand::reap::quarantine::Quarantine;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::json::Object;
use orphand::sys::clock;
use serde_json::Value;

use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
use client::RunningWatch;

pub(crate) mod client;

#[derive(Debug, clap::Args)]
pub(crate) struct StatusOptions {
    /// Read this configuration file for the directories to show while no watcher runs
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
}

pub(crate) fn run(command: &StatusOptions, output: &OutputOptions) -> Result<Exit, Failure> {
    let folders = Folders::from_env();
    let running = client::running(&folders);
    let totals = JournalTotals::read(&Journal::new(folders.state.as_deref()));
    let exit = match running.is_empty() {
        true => Exit::Failed,
        false => Exit::Done,
    };
    let mut report = EventPrinter::new(output, Vec::new());
    // The watcher reports a wrong configuration file. Here the file only names roots.
    let config = Config::load(command.config.as_deref()).unwrap_or_default();
    let listed: Vec<PathBuf> = config.watch.into_iter().map(|rule| rule.path).collect();
    let watched = running.iter().flat_map(|one| array(&one.answer, "roots"));
    let mut roots: BTreeSet<PathBuf> = watched.map(|root| path(root, "root")).collect();
    // One call for all, so that the waiting times for file systems without an answer do not add up.
    let all = roots.iter().chain(&listed).chain(&totals.roots);
    let _ = unresponsive(all.map(PathBuf::as_path));
    if output.json {
        report.line(&json(&running, &totals, roots, &listed).to_string())?;
        return Ok(exit);
    }
    for one in &running {
        print_watcher(one, &mut report)?;
    }
    if running.is_empty() {
        report.line(&format!(
            "no watcher is running.   to watch in the background: {}   to watch here: orphand watch DIR",
            Suggestion::new("service install").configured()
        ))?;
        for root in &listed {
            report.line(&format!("  {}", text::escaped(root)))?;
            print_disk(root, &mut report)?;
        }
        roots.extend(listed.iter().cloned());
    }
    // Other roots with files in quarantine: sweeps, or watchers that have ended, have moved them.
    let others = listed.iter().chain(&totals.roots);
    for (root, is) in with_stored_files(others.filter(|root| !roots.contains(*root))) {
        report.line(&format!("  {}", text::escaped(root)))?;
        report.line(&is.line())?;
    }
    if let Some(since) = &totals.since {
        let freed = text::size(totals.freed.disk_bytes);
        let files = text::counted(totals.reaped, "temp", "temps");
        report.line(&format!(
            "removed {files}, freed {freed} since {}; details: orphand history",
            local_time(since, "%Y-%m-%d")
        ))?;
    }
    Ok(exit)
}

/// The totals of the journal.
#[derive(Debug, Default)]
struct JournalTotals {
    /// The time of the first removal in the journal.
    since: Option<String>,
    reaped: u64,
    freed: FileSize,
    /// The roots of all events.
    roots: BTreeSet<PathBuf>,
}

impl JournalTotals {
    fn read(journal: &Journal) -> JournalTotals {
        let mut totals = JournalTotals::default();
        let read = journal.outcomes(|line| {
            totals
                .roots
                .extend(crate::cli::runtime::quarantines::path_of(&line, "root"));
            if line.get("event").and_then(Value::as_str) != Some("reaped") {
                return;
            }
            let time = line.get("time").and_then(Value::as_str);
            totals.since = totals.since.take().or_else(|| time.map(str::to_owned));
            totals.reaped += 1;
            let number = |key: &str| line.get(key).and_then(Value::as_u64);
            let bytes = number("bytes").unwrap_or(0);
            // Older versions did not write this field.
            let disk_bytes = number("disk_bytes").unwrap_or(bytes);
            totals.freed = totals.freed.plus(FileSize { bytes, disk_bytes });
        });
        if let Err(error) = read {
            ::log::warn!("cannot read the journal: {error}");
        }
        totals
    }
}

/// The usage of the file system of a root, and the files in its quarantine.
#[derive(Clone, Copy, Debug)]
struct DiskUsage {
    total: u64,
    used: u64,
    /// The free bytes for this user, without those reserved for root.
    free: u64,
    quarantined: u64,
    quarantined_size: FileSize,
}

/// The time limit for the answer of a file system. One that hangs must not block the rest of the output.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

impl DiskUsage {
    fn of(root: &Path) -> Option<DiskUsage> {
        if !responds(root) {
            return None;
        }
        let (send, answer) = bounded(1);
        let root = root.to_owned();
        let thread = std::thread::Builder::new().name("orphand-disk".into());
        let _ = thread.spawn(move || send.send(DiskUsage::read(&root)));
        answer.recv_timeout(ANSWER_LIMIT).ok().flatten()
    }

    fn read(root: &Path) -> Option<DiskUsage> {
        let system = rustix::fs::statvfs(root).ok()?;
        let quarantine = Quarantine::open_existing(root, None).ok().flatten();
        let stored = quarantine
            .and_then(|quarantine| quarantine.stored().ok())
            .unwrap_or_default();
        let sizes = stored.iter().map(|one| one.seen.size());
        Some(DiskUsage {
            total: system.f_blocks.saturating_mul(system.f_frsize),
            used: (system.f_blocks.saturating_sub(system.f_bfree)).saturating_mul(system.f_frsize),
            free: system.f_bavail.saturating_mul(system.f_frsize),
            quarantined: stored.len() as u64,
            quarantined_size: sizes.fold(FileSize::default(), FileSize::plus),
        })
    }

    fn line(&self) -> String {
        let mut line = format!(
            "      disk {} % full, {} free",
            self.percent(),
            text::size(self.free)
        );
        if self.quarantined > 0 {
            line.push_str(&format!(
                " · {} in quarantine ({}); to delete: {}",
                text::counted(self.quarantined, "file", "files"),
                text::size(self.quarantined_size.disk_bytes),
                Suggestion::new("quarantine purge").configured()
            ));
        }
        line
    }

    /// Returns the usage in percent like df(1): of the space for this user, and rounded up.
    fn percent(&self) -> u64 {
        let used = u128::from(self.used);
        let all = used + u128::from(self.free);
        let percent = (used * 100).div_ceil(all.max(1));
        u64::try_from(percent).unwrap_or(100)
    }
}

fn print_watcher(one: &RunningWatch, report: &mut EventPrinter) -> Result<(), Failure> {
    let text = |key: &str| one.answer.get(key).and_then(Value::as_str).unwrap_or("");
    let number = |key: &str| one.answer.get(key).and_then(Value::as_u64);
    let how = match one.is_background {
        true => "in the background",
        false => "in the foreground",
    };
    report.line(&format!(
        "orphand {} is watching {how}   pid {}   since {}",
        text::escaped(Path::new(&one.version)),
        one.pid,
        local_time(text("since"), "%a %Y-%m-%d %H:%M")
    ))?;
    for root in array(&one.answer, "roots") {
        self::print_root(root, report)?;
    }
    for problem in &one.problems {
        report.line(&format!("  !! {}", text::one_line(problem)))?;
    }
    if one.is_outdated || one.version != env!("CARGO_PKG_VERSION") {
        let fix = match one.is_background {
            true => "orphand service restart",
            false => "stop it and start it again",
        };
        report.line(&format!(
            "  !! it runs {}, but another build has been installed since.   fix: {fix}",
            text::escaped(Path::new(&one.version))
        ))?;
    }
    for leak in array(&one.answer, "leaks") {
        let line = leak.get("line").and_then(Value::as_str).unwrap_or("");
        report.line(&format!("  {line}"))?;
    }
    let last = match number("last_event_ms") {
        Some(ms) => format!(
            "last temp created {} ago",
            text::span(Duration::from_millis(ms))
        ),
        None => "no temp created since the start".to_owned(),
    };
    report.line(&format!(
        "  {} tracked; {last}",
        text::counted(number("tracked").unwrap_or(0), "temp", "temps")
    ))?;
    Ok(())
}

fn print_root(root: &Value, report: &mut EventPrinter) -> Result<(), Failure> {
    let number = |key: &str| root.get(key).and_then(Value::as_u64).unwrap_or(0);
    let word = |key: &str| root.get(key).and_then(Value::as_str).unwrap_or("");
    let path = path(root, "root");
    report.line(&format!("  {}   {}", text::escaped(&path), word("state")))?;
    let mut parts = vec![format!("{} waiting", text::count(number("waiting")))];
    let kept = root.get("kept").and_then(Value::as_object);
    for (reason, count) in kept.into_iter().flatten() {
        let count = count.as_u64().unwrap_or(0);
        parts.push(format!("{} kept as {reason}", text::count(count)));
    }
    parts.push(format!(
        "{} removed, {} freed",
        text::counted(number("reaped"), "temp", "temps"),
        text::size(number("disk_bytes"))
    ));
    if number("failed") > 0 {
        parts.push(format!("{} failed", text::count(number("failed"))));
    }
    if let Ok(scanned) = word("last_scan").parse::<Timestamp>() {
        let ago = Timestamp::now().duration_since(scanned).unsigned_abs();
        parts.push(format!("scanned {} ago", text::span(ago)));
    }
    report.line(&format!("      {}", parts.join(" · ")))?;
    print_disk(&path, report)
}

fn print_disk(root: &Path, report: &mut EventPrinter) -> Result<(), Failure> {
    match DiskUsage::of(root) {
        Some(disk) => report.line(&disk.line())?,
        None => report.line(match responds(root) {
            true => "      the directory does not exist, or its disk does not answer",
            false => "      its file system does not answer; to find the cause: orphand doctor",
        })?,
    }
    Ok(())
}

/// Returns those of `roots` that have files in quarantine.
fn with_stored_files<'r>(
    roots: impl Iterator<Item = &'r PathBuf>,
) -> Vec<(&'r PathBuf, DiskUsage)> {
    let roots: BTreeSet<&PathBuf> = roots.collect();
    let disk = |root: &'r PathBuf| Some((root, DiskUsage::of(root)?));
    let holds = |(_, disk): &(_, DiskUsage)| disk.quarantined > 0;
    roots.into_iter().filter_map(disk).filter(holds).collect()
}

fn json(
    running: &[RunningWatch],
    totals: &JournalTotals,
    mut roots: BTreeSet<PathBuf>,
    listed: &[PathBuf],
) -> Value {
    let watchers: Vec<Value> = running
        .iter()
        .map(|one| {
            let mut answer = one.answer.clone();
            if let Some(answer) = answer.as_object_mut() {
                answer.insert("outdated".into(), one.is_outdated.into());
            }
            answer
        })
        .collect();
    roots.extend(listed.iter().cloned());
    let others = with_stored_files(totals.roots.iter().filter(|root| !roots.contains(*root)));
    let others: Vec<PathBuf> = others.into_iter().map(|(root, _)| root.clone()).collect();
    roots.extend(others);
    let disks: Vec<Value> = roots
        .iter()
        .map(|root| {
            let disk = DiskUsage::of(root);
            Object::default()
                .with_path("root", Some(root))
                .with("bytes", disk.map(|disk| disk.total))
                .with("free", disk.map(|disk| disk.free))
                .with("percent", disk.map(|disk| disk.percent()))
                .with("quarantined", disk.map(|disk| disk.quarantined))
                .with(
                    "quarantined_bytes",
                    disk.map(|disk| disk.quarantined_size.bytes),
                )
                .with(
                    "quarantined_disk_bytes",
                    disk.map(|disk| disk.quarantined_size.disk_bytes),
                )
                .into_value()
        })
        .collect();
    Object::default()
        .with("running", !running.is_empty())
        .with("time", orphand::store::json::time(clock::wall()))
        .with("watchers", watchers)
        .with("disks", disks)
        .with("freed_since", totals.since.as_deref())
        .with("freed_temps", totals.reaped)
        .with("freed_bytes", totals.freed.bytes)
        .with("freed_disk_bytes", totals.freed.disk_bytes)
        .into_value()
}

fn array<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Returns the path in a field of an answer, with its exact bytes even if it is not UTF-8.
fn path(object: &Value, key: &str) -> PathBuf {
    crate::cli::runtime::quarantines::path_of(object, key).unwrap_or_default()
}

/// Formats a time of the JSON document in the time zone of this machine.
fn local_time(time: &str, format: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime(format).to_string(),
        Err(_) => time.to_owned(),
    }
}
