//! The output of `scan` for people: a line for each group or temp, and the command that removes the orphans.

use std::path::PathBuf;
use std::time::Duration;

use anstyle::AnsiColor;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::sums::Sums;
use orphand::core::temp_name::Names;
use orphand::engine::Examined;
use orphand::fs::root::Root;

use super::Scan;
use super::document::Totals;
use super::search::{Row, ScanGroup, ScanResult, is_orphan};
use crate::cli::exit::Failure;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups::{self, MAX_GROUPS};
use crate::cli::output::reasons::verdict_reason;
use crate::cli::output::text;
use crate::cli::runtime::plan::Plan;

/// The largest width of the column of names.
const NAME_WIDTH: usize = 60;

/// Prints one line for each temp.
pub(super) fn print_rows(report: &mut EventPrinter, rows: &[Row<'_>]) -> Result<(), Failure> {
    let name = |row: &Row<'_>| report.name(&row.examined.path, &row.root.path);
    let names: Vec<String> = rows.iter().map(name).collect();
    let width = width(&names);
    for (row, name) in rows.iter().zip(&names) {
        let word = verdict_word(report, row.examined.verdict);
        let bytes = text::size(row.examined.evidence.observation.fingerprint.size);
        let rest = verdict_text(&row.examined);
        let line = format!("{word}  {name:<width$}  {bytes:>8}  {rest}");
        report.line(line.trim_end())?;
    }
    Ok(())
}

/// Prints one line for each of the largest groups.
pub(super) fn print_groups(
    report: &mut EventPrinter,
    groups: &[ScanGroup<'_>],
    sums: &Sums,
) -> Result<(), Failure> {
    let shown = groups.get(..MAX_GROUPS).unwrap_or(groups);
    let names: Vec<String> = shown
        .iter()
        .map(|group| match group.sum.temps {
            1 => report.name(&group.first.examined.path, &group.key.root),
            _ => report.name(&groups::path(group.key), &group.key.root),
        })
        .collect();
    let width = width(&names);
    let counts: Vec<String> = shown
        .iter()
        .map(|group| text::count(group.sum.temps))
        .collect();
    let count_width = counts.iter().map(String::len).max().unwrap_or(0);
    for ((group, name), count) in shown.iter().zip(&names).zip(&counts) {
        let word = verdict_word(report, group.first.examined.verdict);
        let bytes = text::size(group.sum.size.bytes);
        let rest = match group.sum.temps {
            1 => verdict_text(&group.first.examined),
            _ => groups::reason_text(group.key, group.sum),
        };
        let line = format!("{word}  {count:>count_width$}  {bytes:>8}  {name:<width$}  {rest}");
        report.line(line.trim_end())?;
    }
    if let Some(line) = groups::more_line(sums, shown.len()) {
        report.line(&line)?;
    }
    Ok(())
}

/// Prints the paths of the orphans that a sweep would remove.
pub(super) fn print_paths(report: &mut EventPrinter, rows: &[Row<'_>]) -> Result<(), Failure> {
    let is_removed = |row: &&Row<'_>| row.examined.verdict == Verdict::Reap;
    for row in rows.iter().filter(is_removed) {
        report.path0(&row.examined.path)?;
    }
    Ok(())
}

/// Returns the width of the column of names.
fn width(names: &[String]) -> usize {
    let widths = names.iter().map(|name| name.chars().count());
    widths.max().unwrap_or(0).min(NAME_WIDTH)
}

fn verdict_word(report: &EventPrinter, verdict: Verdict) -> String {
    let (word, style) = match verdict {
        Verdict::Reap => ("remove", AnsiColor::Green.on_default()),
        Verdict::Quarantine(_) => ("move", AnsiColor::Cyan.on_default()),
        Verdict::Keep(_) => ("keep", AnsiColor::Magenta.on_default()),
    };
    report.paint(&format!("{word:<6}"), style)
}

fn verdict_text(examined: &Examined) -> String {
    let quiet = text::span(examined.temp_info.quiet);
    let kept = |reason| verdict_reason(examined, reason);
    match examined.verdict {
        Verdict::Reap => format!("unused for {quiet}"),
        Verdict::Keep(Reason::Reserved) => {
            let reserved = examined.evidence.reserved.as_ref();
            reserved.map_or_else(|| kept(Reason::Reserved), ToString::to_string)
        }
        Verdict::Keep(reason) => kept(reason),
        Verdict::Quarantine(Some(Reason::SoleCopy)) => {
            match examined.evidence.observation.fingerprint.size {
                0 => format!("unused for {quiet}; it is empty and may be a flag"),
                _ => format!("unused for {quiet}; it may be the only copy"),
            }
        }
        Verdict::Quarantine(_) => format!("unused for {quiet}; it would be moved"),
    }
}

/// Returns the line about the claims, if there are any.
pub(super) fn claims_line(command: &Scan, result: &ScanResult<'_>) -> Option<String> {
    let with = result.claims.iter().filter(|(_, claims)| claims.files > 0);
    let roots: Vec<PathBuf> = with.map(|(root, _)| root.path.clone()).collect();
    (!roots.is_empty()).then(|| {
        let sweep = command.options.sweep_command(&roots, false);
        let claims = result.total_claims().describe();
        format!("{claims}.   to restore the names: {sweep}")
    })
}

/// Returns the last line: the total, and the command that removes the orphans.
pub(super) fn closing_line(command: &Scan, plan: &Plan, result: &ScanResult<'_>) -> String {
    let total = Totals::of(&result.rows);
    let unread = text::counted(result.unread, "directory", "directories");
    if total.orphans == 0 {
        let temps = text::counted(total.temps, "temp", "temps");
        return match result.unread {
            0 => format!("no orphans ({temps})"),
            _ => format!("no orphans found ({temps}), but {unread} could not be read"),
        };
    }
    let more = match result.unread {
        0 => String::new(),
        _ => format!("{unread} could not be read, and may hold more orphans\n"),
    };
    let found: Vec<&Row<'_>> = (result.rows.iter())
        .filter(|row| is_orphan(&row.examined))
        .collect();
    let oldest = found.iter().map(|row| row.examined.temp_info.quiet).max();
    let sum = format!(
        "{more}{}, {}, the oldest {}.",
        text::counted(total.orphans, "orphan", "orphans"),
        text::size(total.orphan_disk_bytes),
        text::span(oldest.unwrap_or(Duration::ZERO))
    );
    let refused = plan
        .roots
        .iter()
        .find_map(|root| plan.refusal_to_change(root));
    match refused {
        Some(refused) => format!("{sum}   sweep would remove nothing there: {refused}"),
        None => format!("{sum}   {}", advice(command, &found)),
    }
}

/// Returns the command that removes the orphans in `found`, and its effect.
fn advice(command: &Scan, found: &[&Row<'_>]) -> String {
    let only_reports = |row: &Row<'_>| row.root.policy.is_dry_run();
    let reported = found.iter().filter(|row| only_reports(row)).count();
    // If the rules only report every orphan, the suggested command overrides that.
    let all = reported == found.len();
    let is_moved = |row: &&Row<'_>| matches!(row.examined.verdict, Verdict::Quarantine(_));
    let swept = found.iter().copied();
    let swept = swept.filter(|row| all || !only_reports(row));
    let (moved, removed): (Vec<&Row<'_>>, Vec<&Row<'_>>) = swept.partition(is_moved);
    let count = |number: usize| text::count(number as u64);
    let what = match (removed.len(), moved.len()) {
        (_, 0) => "remove them".to_owned(),
        (0, _) => "move them to the quarantine".to_owned(),
        (removed, moved) => format!(
            "remove {} and move {} to the quarantine",
            count(removed),
            count(moved)
        ),
    };
    let but = match reported {
        reported if reported > 0 && !all => {
            format!(
                " ({} are only reported, by action = \"report\")",
                count(reported)
            )
        }
        _ => String::new(),
    };
    let sweep = command.options.sweep_command(&command.dirs, all);
    format!("{what}{but}: {sweep}")
}

/// Returns notes on patterns that match reserved names. Each note names a narrower pattern that still matches all the
/// other temps found here.
pub(super) fn narrower_patterns(roots: &[Root], rows: &[Row<'_>]) -> Vec<String> {
    let names = |glob: &str| Names::allowing_broad(&[glob], &[] as &[&str]);
    let mut notes = Vec::new();
    for root in roots {
        for one in root.policy.names.narrower() {
            let (Ok(glob), Ok(instead)) = (names(&one.glob), names(&one.instead)) else {
                continue;
            };
            let bytes = |row: &Row<'_>| row.examined.temp_info.name.as_encoded_bytes().to_vec();
            let fits = |row: &&Row<'_>| row.root.path == root.path && glob.matches(&bytes(row));
            let (reserved, temps): (Vec<&Row<'_>>, Vec<&Row<'_>>) = rows
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
