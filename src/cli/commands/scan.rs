//! `orphand scan`: lists the temps in a directory, with the verdict that each of them would get now.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use orphand::core::judge::{Reason, Verdict};
use orphand::core::temp_name::Names;
use orphand::engine;
use orphand::engine::{DirContext, Examined};
use orphand::evidence::UseChecker;
use orphand::evidence::siblings::Listings;
use orphand::fs::dir::{Dir, RootError};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::reap::quarantine;
use orphand::store::folders::Folders;
use orphand::store::json::{self, WirePath, field};
use serde::Serialize;

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::messages;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::progress_bar;
use crate::cli::output::temp_fields::TempFields;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::engine::engine;
use crate::cli::runtime::plan::{Intent, Plan, listed, missing, no_answer, plan};

#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) options: PolicyOptions,
    /// Exit with 10 if there are orphans
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

/// A temp, and the index of the root in which it was found.
struct Row {
    root: usize,
    examined: Examined,
}

/// The result of a scan of all roots.
#[derive(Default)]
struct ScanResult {
    rows: Vec<Row>,
    /// The directories that were not entered because they are other mounts or subvolumes.
    skipped: Vec<PathBuf>,
    /// The claims in each root.
    claims: Vec<(PathBuf, FoundClaims)>,
    /// The number of directories that could not be read.
    unread: u64,
    /// A temp could not be examined.
    failed: bool,
}

pub(crate) fn run(command: &Scan, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.options.rule)? {
        return Ok(Exit::Done);
    }
    // A scan changes nothing, so a dry run is ignored here: the verdicts are those of a real sweep.
    let typed = command.options.settings_without_dry_run();
    let plan = match command.dirs.is_empty() {
        true => listed(&command.options.rule, &typed, "scan")?,
        false => plan(&command.options.rule, typed, &command.dirs, Intent::Look)?,
    };
    plan.report_rules(output);
    let paths = plan.roots.iter().map(|root| root.path.clone()).collect();
    let mut report = EventPrinter::new(output, paths);
    let mut result = ScanResult::default();
    for (index, root) in plan.roots.iter().enumerate() {
        let claims = scan_root(index, root, output, &mut result)?;
        result.claims.push((root.path.clone(), claims));
    }
    let rows = &result.rows;
    let failed = result.failed || result.unread > 0;
    let failed = failed
        || rows
            .iter()
            .any(|row: &Row| row.examined.verdict == Verdict::Keep(Reason::CannotTell));
    let orphans = rows.iter().filter(|row| is_orphan(&row.examined)).count();
    if output.json {
        report.json(&ScanDocument::new(&plan, &result))?;
    } else {
        print_rows(&mut report, &plan, rows, output.quiet)?;
        if let Some(line) = claims_line(command, &result.claims) {
            report.line(&line)?;
        }
        report.line(&closing_line(command, &plan, &result))?;
    }
    if !output.quiet {
        for note in narrower_patterns(&plan.roots, rows) {
            anstream::eprintln!("note: {note}");
        }
    }
    Ok(match (failed, orphans) {
        (true, _) => Exit::Partial,
        (false, 1..) if command.exit_code => Exit::Found,
        _ => Exit::Done,
    })
}

/// Examines every temp of one root, and returns the claims that a killed orphand left there.
fn scan_root(
    index: usize,
    root: &Root,
    output: &OutputOptions,
    result: &mut ScanResult,
) -> Result<FoundClaims, Failure> {
    if !response::responds(&root.path) {
        log::error!("{}", no_answer(&root.path));
        result.unread += 1;
        return Ok(FoundClaims::default());
    }
    let mut engine = engine(&Folders::from_env(), false)?;
    engine.listings = Listings::for_one_command();
    let bar = progress_bar(output, "temps examined");
    let denials = AtomicU64::new(0);
    let mut denied = |path: &std::path::Path, error: &std::io::Error| {
        denials.fetch_add(1, Ordering::Relaxed);
        log::error!("cannot read {path:?}: {error}");
    };
    let progress = |count| bar.set_length(count as u64);
    let found = orphand::fs::walk::find(root, &mut denied, &progress, &|| false);
    let found = match found {
        // A root that cannot be read does not end the scan of the other roots.
        Err(RootError::Io(error)) if !RootError::is_missing_error(&error) => {
            log::error!("cannot read {:?}: {error}", root.path);
            result.unread += 1;
            return Ok(FoundClaims::default());
        }
        found => found.map_err(|error| cannot_scan(root, &error))?,
    };
    if let Some(what) = orphand::fs::walk::not_entered_message(root, &found.not_entered) {
        log::warn!("{what}");
    }
    result.skipped.extend(found.not_entered);
    let use_checker = UseChecker::new();
    let has_quarantine = Dir::open_root(&root.path, None).is_ok_and(|dir| {
        root.report_coarse_dates(dir.properties().dates);
        quarantine::is_possible(&dir)
    });
    for (below, names) in found.temps {
        let dir_context = DirContext {
            root,
            id: None,
            below: &below,
        };
        let dir = match Dir::open_below(&root.path, None, &below) {
            Ok(dir) => dir,
            Err(error) => {
                log::error!("cannot open {:?}: {error}", root.path.join(&below));
                result.unread += 1;
                continue;
            }
        };
        for name in names {
            bar.inc(1);
            match engine::judge_now(
                &engine,
                dir_context,
                &dir,
                &use_checker,
                &name,
                has_quarantine,
            ) {
                Ok(Some(examined)) => result.rows.push(Row {
                    root: index,
                    examined,
                }),
                Ok(None) => {}
                Err(error) => {
                    log::error!("cannot examine {:?}: {error}", dir.path().join(&name));
                    result.failed = true;
                }
            }
        }
    }
    bar.finish_and_clear();
    let claims = FoundClaims::still_present(root, &found.claims);
    result.unread += denials.into_inner();
    Ok(claims)
}

/// The temps that still have the name of a claim, because the orphand that was removing them was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FoundClaims {
    #[serde(rename = "count")]
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// The minimum age of a claim that is counted. A claim of a running orphand lasts a few milliseconds.
const CLAIM_IN_PROGRESS: Duration = Duration::from_millis(250);

impl FoundClaims {
    /// Counts the claims in `found` that still exist after a pause. `found` has the folders below the root, and the
    /// names in them.
    pub(crate) fn still_present(root: &Root, found: &[(PathBuf, OsString)]) -> FoundClaims {
        if !found.is_empty() {
            std::thread::sleep(CLAIM_IN_PROGRESS);
        }
        let mut claims = FoundClaims::default();
        for (below, name) in found {
            let dir = Dir::open_below(&root.path, None, below);
            if let Some(seen) = dir.ok().and_then(|dir| dir.observe(name).ok()?) {
                claims.files += 1;
                claims.bytes = seen.fingerprint.size.saturating_add(claims.bytes);
            }
        }
        claims
    }

    /// Returns the count of claims, for people.
    pub(crate) fn describe(self) -> String {
        let (files, size) = (
            text::counted(self.files, "temp", "temps"),
            text::size(self.bytes),
        );
        let (have, they_were) = match self.files {
            1 => ("has", "it was"),
            _ => ("have", "they were"),
        };
        format!(
            "{files} ({size}) still {have} the name .orphand-… of an unfinished removal: {they_were} being removed when \
             orphand was killed"
        )
    }
}

/// Returns the command that gives the claims in a root their original names. `root` has the configured rule.
pub(crate) fn put_back_command(root: &Root) -> String {
    Suggestion::new("sweep")
        .flag("-r", root.policy.recursive)
        .configured()
        .arg(&root.path)
        .to_string()
}

fn total_claims(claims: &[(PathBuf, FoundClaims)]) -> FoundClaims {
    claims
        .iter()
        .fold(FoundClaims::default(), |sum, (_, more)| FoundClaims {
            files: sum.files + more.files,
            bytes: sum.bytes.saturating_add(more.bytes),
        })
}

/// Returns the line about the claims, if there are any.
fn claims_line(command: &Scan, claims: &[(PathBuf, FoundClaims)]) -> Option<String> {
    let with = claims.iter().filter(|(_, claims)| claims.files > 0);
    let roots: Vec<PathBuf> = with.map(|(root, _)| root.clone()).collect();
    (!roots.is_empty()).then(|| {
        let sweep = command.options.sweep_command(&roots, false);
        let claims = total_claims(claims).describe();
        format!("{claims}.   to restore the names: {sweep}")
    })
}

pub(crate) fn cannot_scan(root: &Root, error: &RootError) -> Failure {
    match error {
        RootError::Missing => missing(&root.path),
        error => Failure::new(
            Exit::Failed,
            format!(
                "cannot read {:?}: {error}; check its permissions",
                root.path
            ),
        ),
    }
}

pub(crate) fn is_orphan(examined: &Examined) -> bool {
    !matches!(examined.verdict, Verdict::Keep(_))
}

/// The JSON document.
#[derive(Serialize)]
struct ScanDocument<'a> {
    roots: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roots_b64: Option<Vec<String>>,
    temps: Vec<TempFields<'a>>,
    skipped: Vec<SkippedFields<'a>>,
    total: Total,
    claims: FoundClaims,
}

/// A directory that was not entered.
#[derive(Serialize)]
struct SkippedFields<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
    why: &'static str,
}

impl ScanDocument<'_> {
    fn new<'a>(plan: &'a Plan, result: &'a ScanResult) -> ScanDocument<'a> {
        let roots: Vec<&Path> = plan.roots.iter().map(|root| root.path.as_path()).collect();
        let temp = |row: &'a Row| {
            let rule = plan.roots.get(row.root).and_then(|root| plan.rule(root));
            TempFields::new(&row.examined, Some(row.examined.verdict), rule)
        };
        let skipped = |path: &'a PathBuf| SkippedFields {
            path: Some(path.into()),
            why: "other-mount",
        };
        ScanDocument {
            roots: roots.iter().map(|root| root.to_string_lossy()).collect(),
            roots_b64: json::paths_b64(&roots),
            temps: result.rows.iter().map(temp).collect(),
            skipped: result.skipped.iter().map(skipped).collect(),
            total: Total::of(&result.rows),
            claims: total_claims(&result.claims),
        }
    }
}

/// The sums of a scan.
#[derive(Default, Serialize)]
struct Total {
    temps: u64,
    bytes: u64,
    disk_bytes: u64,
    orphans: u64,
    orphan_bytes: u64,
    orphan_disk_bytes: u64,
}

impl Total {
    fn of(rows: &[Row]) -> Total {
        let mut total = Total::default();
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        for row in rows {
            let size = row.examined.evidence.observation.size();
            total.temps += 1;
            add(&mut total.bytes, size.bytes);
            add(&mut total.disk_bytes, size.disk_bytes);
            if is_orphan(&row.examined) {
                total.orphans += 1;
                add(&mut total.orphan_bytes, size.bytes);
                add(&mut total.orphan_disk_bytes, size.disk_bytes);
            }
        }
        total
    }
}

fn print_rows(
    report: &mut EventPrinter,
    plan: &Plan,
    rows: &[Row],
    quiet: bool,
) -> Result<(), Failure> {
    let name = |row: &Row| {
        let root = plan.roots.get(row.root).map(|root| root.path.as_path());
        report.name(&row.examined.path, root.unwrap_or(&row.examined.path))
    };
    let names: Vec<String> = rows.iter().map(name).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(60);
    for (row, name) in rows.iter().zip(&names) {
        if quiet {
            break;
        }
        let (word, style) = match row.examined.verdict {
            Verdict::Reap => ("orphan", AnsiColor::Green.on_default()),
            Verdict::Quarantine(_) => ("move", AnsiColor::Cyan.on_default()),
            Verdict::Keep(_) => ("keep", Style::new().dimmed()),
        };
        let word = report.paint(&format!("{word:<6}"), style);
        let bytes = text::size(row.examined.evidence.observation.fingerprint.size);
        let line = format!(
            "{word}  {name:<width$}  {bytes:>8}  {}",
            verdict_text(&row.examined)
        );
        report.line(line.trim_end())?;
    }
    Ok(())
}

/// Returns the last line: the total, and the command that removes the orphans.
fn closing_line(command: &Scan, plan: &Plan, result: &ScanResult) -> String {
    let rows = &result.rows;
    let total = Total::of(rows);
    let orphans = total.orphans;
    let unread = text::counted(result.unread, "directory", "directories");
    if orphans == 0 {
        let temps = text::counted(total.temps, "temp", "temps");
        return match result.unread {
            0 => format!("no orphans ({temps})"),
            _ => format!("no orphans found ({temps}), but {unread} could not be read"),
        };
    }
    let found = || rows.iter().filter(|row| is_orphan(&row.examined));
    let oldest = found().map(|row| row.examined.temp_info.quiet).max();
    let more = match result.unread {
        0 => String::new(),
        _ => format!("{unread} could not be read, and may hold more orphans\n"),
    };
    let sum = format!(
        "{more}{}, {}, the oldest {}.",
        text::counted(orphans, "orphan", "orphans"),
        text::size(total.orphan_disk_bytes),
        text::span(oldest.unwrap_or(Duration::ZERO))
    );
    if let Some(refused) = plan
        .roots
        .iter()
        .find_map(|root| plan.refusal_to_change(root))
    {
        return format!("{sum}   sweep would remove nothing there: {refused}");
    }
    let only_reports = |row: &Row| {
        let root = plan.roots.get(row.root);
        root.is_some_and(|root| root.policy.is_dry_run())
    };
    let reported = found().filter(|row| only_reports(row)).count() as u64;
    // If the rules only report every orphan, the suggested command overrides that.
    let all = reported == orphans;
    let (mut removed, mut moved) = (0, 0);
    for row in found().filter(|row| all || !only_reports(row)) {
        match row.examined.verdict {
            Verdict::Quarantine(_) => moved += 1,
            _ => removed += 1,
        }
    }
    let what = match (removed, moved) {
        (_, 0) => "remove them".to_owned(),
        (0, _) => "move them to the quarantine".to_owned(),
        (removed, moved) => format!(
            "remove {} and move {} to the quarantine",
            text::count(removed),
            text::count(moved)
        ),
    };
    let but = match reported {
        reported if reported > 0 && !all => format!(
            " ({} are only reported, by action = \"report\")",
            text::count(reported)
        ),
        _ => String::new(),
    };
    let sweep = command.options.sweep_command(&command.dirs, all);
    format!("{sum}   {what}{but}: {sweep}")
}

/// Returns notes on patterns that match reserved names. Each note names a narrower pattern that still matches all the
/// other temps found here.
fn narrower_patterns(roots: &[Root], rows: &[Row]) -> Vec<String> {
    let names = |glob: &str| Names::allowing_broad(&[glob], &[] as &[&str]);
    let mut notes = Vec::new();
    for (index, root) in roots.iter().enumerate() {
        for one in root.policy.names.narrower() {
            let (Ok(glob), Ok(instead)) = (names(&one.glob), names(&one.instead)) else {
                continue;
            };
            let bytes = |row: &Row| row.examined.temp_info.name.as_encoded_bytes().to_vec();
            let fits = |row: &&Row| row.root == index && glob.matches(&bytes(row));
            let (reserved, temps): (Vec<&Row>, Vec<&Row>) = rows
                .iter()
                .filter(fits)
                .partition(|row| row.examined.evidence.reserved.is_some());
            let is_enough = temps.iter().all(|row| instead.matches(&bytes(row)));
            let note = one.to_string();
            if !reserved.is_empty() && is_enough && !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

fn verdict_text(examined: &Examined) -> String {
    let quiet = text::span(examined.temp_info.quiet);
    match examined.verdict {
        Verdict::Reap => format!("unused for {quiet}"),
        Verdict::Keep(Reason::Reserved) => match &examined.evidence.reserved {
            Some(reserved) => reserved.to_string(),
            None => messages::kept_line(
                &examined.path,
                Reason::Reserved,
                "",
                None,
                &examined.details,
            ),
        },
        Verdict::Keep(reason) => {
            messages::kept_line(&examined.path, reason, "", None, &examined.details)
        }
        Verdict::Quarantine(Some(Reason::SoleCopy)) => {
            match examined.evidence.observation.fingerprint.size {
                0 => format!("unused for {quiet}; it is empty and may be a flag"),
                _ => format!("unused for {quiet}; it may be the only copy"),
            }
        }
        Verdict::Quarantine(_) => format!("unused for {quiet}; it would be moved"),
    }
}
