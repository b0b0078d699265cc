//! `orphand status`: shows the running watchers, their roots, and the disk usage of these.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use orphand::core::census::Tree;
use orphand::core::sort::set_of;
use orphand::fs::response::{responds, unresponsive};
use orphand::fs::tree::{self, MAX_ENTRIES};
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::json::{HistoryEvent, HistoryLine, TreeFields, WriteFields};
use orphand::sys::clock;
use orphand::sys::stop::Stop;
use serde::Serialize;

use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups::MAX_GROUPS;
use crate::cli::output::lookalikes::lookalike_lines;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::print;
use crate::cli::output::{moment, text};
use crate::cli::runtime::signals;
use crate::cli::runtime::status_answer::{HolderAnswer, RootAnswer};
use crate::cli::runtime::trees::tree_lines;
use client::RunningWatch;
use disk::{DiskFields, print_disk, with_stored_files};

pub(crate) mod client;
pub(crate) mod disk;

#[derive(Debug, clap::Args)]
pub(crate) struct StatusOptions {
    /// Read this configuration file for the directories to show while no watcher runs
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
    /// Show the status again each second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// The JSON document.
#[derive(Serialize)]
struct StatusDocument<'a> {
    running: bool,
    time: String,
    watchers: &'a [RunningWatch],
    disks: Vec<DiskFields<'a>>,
    #[serde(flatten)]
    totals: &'a JournalTotals,
}

/// The interval between two updates.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval of the checks for a signal.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

pub(crate) fn run(command: &StatusOptions, output: &OutputOptions) -> Result<Exit, Failure> {
    let mut report = EventPrinter::new(output);
    if !command.watch {
        let shown = show(command, output, &mut report, None)?;
        return match (shown.running.is_empty(), shown.config_error) {
            (false, _) => Ok(Exit::Done),
            (true, None) => Ok(Exit::Failed),
            (true, Some(error)) => Err(error),
        };
    }
    let stop = Stop::default();
    signals::end_sweep(stop.clone());
    let mut last: Option<(Instant, Vec<RunningWatch>)> = None;
    while !stop.is_stopped() && !report.is_closed() {
        let began = Instant::now();
        if report.is_interactive() {
            // The cursor goes to the corner, and what is below it is erased.
            print(b"\x1b[H\x1b[J")?;
        }
        let Shown {
            running,
            config_error,
        } = show(command, output, &mut report, last.as_ref())?;
        match config_error {
            Some(error) if running.is_empty() && output.json => error.report(),
            Some(error) if running.is_empty() => {
                report.line(&format!("!! {}", text::one_line(&error.text)))?;
            }
            _ => {}
        }
        if !report.is_interactive() && !output.json {
            report.line("")?;
        }
        last = Some((began, running));
        while !stop.is_stopped() && began.elapsed() < INTERVAL {
            std::thread::sleep(SIGNAL_CHECK);
        }
    }
    if stop.is_stopped() && report.is_interactive() {
        // The terminal shows Ctrl-C as "^C", and the cursor stays behind it.
        print(b"\n")?;
    }
    Ok(Exit::Done)
}

/// The result of a call of [`show`].
struct Shown {
    running: Vec<RunningWatch>,
    /// The error in the configuration file, because of which its directories were not shown. A running watcher reports
    /// the error itself.
    config_error: Option<Failure>,
}

/// Prints the status. `last` has the running watchers of an earlier call, and its time.
fn show(
    command: &StatusOptions,
    output: &OutputOptions,
    report: &mut EventPrinter,
    last: Option<&(Instant, Vec<RunningWatch>)>,
) -> Result<Shown, Failure> {
    let folders = Folders::from_env();
    let mut running = client::running(&folders);
    let totals = JournalTotals::read(&Journal::new(folders.state.as_deref()));
    let (config, config_error) = Config::load_or_default(command.config.as_deref());
    let listed: Vec<PathBuf> = config.watch.into_iter().map(|rule| rule.path).collect();
    let watched = running.iter().flat_map(|one| &one.answer.roots);
    let mut roots: BTreeSet<PathBuf> = set_of(watched.map(|root| path(root).to_owned()));
    // One call for all, so that the waiting times for file systems without an answer do not add up.
    let all = roots.iter().chain(&listed).chain(&totals.roots);
    let _ = unresponsive(all.map(PathBuf::as_path));
    let watched = running.iter_mut().flat_map(|one| &mut one.answer.roots);
    let trees: Vec<Tree> = watched.flat_map(measure_trees).collect();
    if output.json {
        roots.extend(listed);
        let others = with_stored_files(totals.roots.iter().filter(|root| !roots.contains(*root)));
        roots.extend(others.into_iter().map(|(root, _)| root.clone()));
        report.json(&StatusDocument {
            running: !running.is_empty(),
            time: orphand::store::json::time(clock::wall()),
            watchers: &running,
            disks: roots.iter().map(|root| DiskFields::of(root)).collect(),
            totals: &totals,
        })?;
    } else {
        print_status(&running, &totals, roots, &listed, report)?;
        let roots = running.iter().flat_map(|one| &one.answer.roots);
        let is_deep = roots.clone().any(|root| root.recursive);
        let lookalikes: Vec<_> = roots.flat_map(|root| root.lookalikes.clone()).collect();
        for line in tree_lines(&trees, is_deep)
            .into_iter()
            .chain(lookalike_lines(&lookalikes))
        {
            report.line(&line)?;
        }
        if let Some((at, last)) = last {
            print_rates(&running, last, at.elapsed(), report)?;
        }
    }
    Ok(Shown {
        running,
        config_error: config_error.map(Failure::from),
    })
}

/// Prints how many leaks and healthy writes there were a second since `last`.
fn print_rates(
    running: &[RunningWatch],
    last: &[RunningWatch],
    span: Duration,
    report: &mut EventPrinter,
) -> Result<(), Failure> {
    let of = |watches: &[RunningWatch]| {
        let roots = watches.iter().flat_map(|one| &one.answer.roots);
        roots.fold((0, 0), |(leaks, writes), root| {
            let count = root.writes.as_ref().map_or(0, |writes| writes.count);
            (leaks + root.reaped + root.quarantined, writes + count)
        })
    };
    let ((leaks, writes), (old_leaks, old_writes)) = (of(running), of(last));
    let rate = |new: u64, old: u64| {
        let rate = new.saturating_sub(old) as f64 / span.as_secs_f64().max(0.001);
        format!("{rate:.1}")
    };
    let parts = [
        format!("{} leaks a second", rate(leaks, old_leaks)),
        format!("{} healthy writes a second", rate(writes, old_writes)),
    ];
    report.line(&text::joined(&parts))?;
    Ok(())
}

/// Prints the status for people. `watched` has the roots of the running watchers, `listed` those of the configuration.
fn print_status(
    running: &[RunningWatch],
    totals: &JournalTotals,
    mut watched: BTreeSet<PathBuf>,
    listed: &[PathBuf],
    report: &mut EventPrinter,
) -> Result<(), Failure> {
    for one in running {
        print_watcher(one, report)?;
    }
    if running.is_empty() {
        report.line(&format!(
            "no watcher is running (a dry run of watch DIR is not listed).   to watch in the background: {}   to watch here: orphand watch DIR",
            Suggestion::new("service install").configured()
        ))?;
        for root in listed {
            report.line(&format!("  {}", text::escaped(root)))?;
            print_disk(root, report)?;
        }
        watched.extend(listed.iter().cloned());
    }
    // Other roots with files in quarantine: sweeps, or watchers that have ended, have moved them.
    let others = listed.iter().chain(&totals.roots);
    for (root, is) in with_stored_files(others.filter(|root| !watched.contains(*root))) {
        report.line(&format!("  {}", text::escaped(root)))?;
        report.line(&is.line(root))?;
    }
    if let Some(since) = &totals.since {
        let freed = text::size(totals.freed_disk_bytes);
        let files = text::counted(totals.reaped, "temp", "temps");
        report.line(&format!(
            "removed {files}, freed {freed} since {}; details: orphand history",
            moment::local(since, "%Y-%m-%d")
        ))?;
    }
    Ok(())
}

/// The totals of the journal.
#[derive(Debug, Default, Serialize)]
struct JournalTotals {
    /// The time of the first removal in the journal.
    #[serde(rename = "freed_since")]
    since: Option<String>,
    #[serde(rename = "freed_temps")]
    reaped: u64,
    freed_bytes: u64,
    freed_disk_bytes: u64,
    /// The roots of all events.
    #[serde(skip)]
    roots: BTreeSet<PathBuf>,
}

impl JournalTotals {
    fn read(journal: &Journal) -> JournalTotals {
        let mut totals = JournalTotals::default();
        let read = journal.outcomes(|line: HistoryLine| {
            totals.roots.extend(line.file.root.map(Cow::into_owned));
            if line.event != HistoryEvent::Reaped {
                return;
            }
            totals.since.get_or_insert(line.time);
            totals.reaped += 1;
            let bytes = line.file.bytes.unwrap_or(0);
            let disk_bytes = line.file.disk_bytes.unwrap_or(bytes);
            totals.freed_bytes = totals.freed_bytes.saturating_add(bytes);
            totals.freed_disk_bytes = totals.freed_disk_bytes.saturating_add(disk_bytes);
        });
        if let Err(error) = read {
            ::log::warn!("cannot read the journal: {error}");
        }
        totals
    }
}

fn print_watcher(one: &RunningWatch, report: &mut EventPrinter) -> Result<(), Failure> {
    let answer = &one.answer;
    let version = text::escaped(Path::new(&answer.version));
    let (how, fix) = match answer.is_background && !one.has_terminal {
        true => ("in the background", "orphand service restart"),
        false => ("in the foreground", "stop it and start it again"),
    };
    report.line(&format!(
        "orphand {version} is watching {how}   pid {}   since {}",
        answer.pid,
        moment::local(&answer.since, "%a %Y-%m-%d %H:%M")
    ))?;
    for root in &answer.roots {
        print_root(root, report)?;
    }
    for problem in &answer.problems {
        report.line(&format!("  !! {}", text::one_line(problem)))?;
    }
    if one.is_outdated || answer.version != env!("CARGO_PKG_VERSION") {
        report.line(&format!(
            "  !! it runs {version}, but another build has been installed since.   fix: {fix}"
        ))?;
    }
    // Watchers of older versions send no `leak_lines`.
    let leaks = answer.leaks.iter().map(|leak| &leak.line);
    let older = leaks.take(if answer.leak_lines.is_empty() {
        MAX_GROUPS
    } else {
        0
    });
    for line in answer.leak_lines.iter().chain(older) {
        report.line(&format!("  {}", text::one_line(line)))?;
    }
    let last = match answer.last_event_ms.map(Duration::from_millis) {
        Some(ago) => format!("last temp created {} ago", text::span(ago)),
        None => "no temp created since the start".to_owned(),
    };
    let tracked = text::counted(answer.tracked, "temp", "temps");
    report.line(&format!("  {tracked} tracked; {last}"))?;
    Ok(())
}

fn print_root(root: &RootAnswer, report: &mut EventPrinter) -> Result<(), Failure> {
    let path = path(root);
    report.line(&format!("  {}   {}", text::escaped(path), root.state))?;
    let mut parts = vec![format!("{} waiting", text::count(root.waiting))];
    for (reason, count) in &root.kept {
        parts.push(format!("{} kept as {reason}", text::count(*count)));
    }
    let reaped = text::counted(root.reaped, "temp", "temps");
    match root.dry_run {
        true => {
            parts.push(format!("{reaped} would be removed"));
            if root.quarantined > 0 {
                let moved = text::count(root.quarantined);
                parts.push(format!("{moved} would be moved to the quarantine"));
            }
        }
        false => parts.push(format!(
            "{reaped} removed, {} freed",
            text::size(root.disk_bytes)
        )),
    }
    if root.failed > 0 {
        parts.push(format!("{} failed", text::count(root.failed)));
    }
    let scanned = root
        .last_scan
        .as_ref()
        .map(|time| time.parse::<Timestamp>());
    if let Some(Ok(scanned)) = scanned {
        let ago = Timestamp::now().duration_since(scanned).unsigned_abs();
        parts.push(format!("scanned {} ago", text::span(ago)));
    }
    report.line(&format!("      {}", text::joined(&parts)))?;
    if let Some(line) = holders_line(&root.holders) {
        report.line(&format!("      {line}"))?;
    }
    if let Some(writes) = &root.writes {
        report.line(&format!("      {}", writes_line(writes)))?;
    }
    if root.learn == "off" {
        report.line("      nothing is learned: learn = \"off\"")?;
    }
    for learned in &root.learned {
        report.line(&format!("      {}", learned.line()))?;
    }
    if root.hot_directories > 0 {
        let hot = text::counted(root.hot_directories, "directory", "directories");
        report.line(&format!("      {hot} with too many temps a second: scanned instead of watched; nothing is learned there"))?;
    }
    if let Some(warning) = &root.slow_write {
        report.line(&format!("      !! {}", text::one_line(warning)))?;
    }
    print_disk(path, report)
}

/// The largest number of holders that a line names.
const MAX_HOLDERS: usize = 5;

/// Returns the line about the processes that hold temps: `held by node[4711] (3 temps), tail[99] (1 temp)`.
fn holders_line(holders: &[HolderAnswer]) -> Option<String> {
    let named = holders.iter().take(MAX_HOLDERS).map(|one| {
        let name = text::escaped(Path::new(&one.name));
        let temps = text::counted(one.temps, "temp", "temps");
        format!("{name}[{}] ({temps})", one.pid)
    });
    let more = holders.len().saturating_sub(MAX_HOLDERS) as u64;
    let more = (more > 0).then(|| format!("and {} more", text::count(more)));
    let parts: Vec<String> = named.chain(more).collect();
    (!parts.is_empty()).then(|| format!("held by {}", parts.join(", ")))
}

/// Returns the line about healthy writes: `1,204 healthy writes · half within 1.2 ms · 99 % within 8 ms · ...`.
fn writes_line(writes: &WriteFields<'_>) -> String {
    let span = |us| text::short_span(Duration::from_micros(us));
    let name = writes.max_name.as_deref().unwrap_or(Path::new(""));
    format!(
        "{} · half within {} · 99 % within {} · the longest {} ({})",
        text::counted(writes.count, "healthy write", "healthy writes"),
        span(writes.p50_us),
        span(writes.p99_us),
        span(writes.max_us),
        text::escaped(name)
    )
}

/// Counts the files in the trees of a root. Returns the trees.
fn measure_trees(root: &mut RootAnswer) -> Vec<Tree> {
    let root_path = path(root).to_owned();
    if root.trees.is_empty() || !responds(&root_path) {
        return Vec::new();
    }
    let below = |tree: &TreeFields<'_>| {
        let below = tree.path.as_deref()?.strip_prefix(&root_path).ok()?;
        Some((below.to_owned(), tree.file_kind()))
    };
    let known = root.trees.iter().filter_map(below).collect();
    let trees = tree::measure(&root_path, known, MAX_ENTRIES, clock::wall());
    root.trees = trees
        .iter()
        .map(|tree| TreeFields::from(tree).into_owned())
        .collect();
    trees
}

/// Returns the path of a root. An answer always has one.
fn path(root: &RootAnswer) -> &Path {
    root.root.as_deref().unwrap_or(Path::new(""))
}
