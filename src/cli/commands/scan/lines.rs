//! The output of `scan` for people: a line for each group or temp, and the command that removes the orphans.

use std::io;
use std::path::PathBuf;

use anstyle::AnsiColor;
use orphand::core::judge::Verdict;
use orphand::fs::root::Root;

use super::Scan;
use super::group::ScanGroup;
use super::result::ScanResult;
use super::row::ListRow;
use super::tally::{OrphanCounts, Tally};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups::{self, HiddenGroups};
use crate::cli::output::lookalikes::lookalike_lines;
use crate::cli::output::text;
use crate::cli::runtime::plan::Plan;
use crate::cli::runtime::trees::{subfolders_line, tree_lines};

/// The largest width of the column of names.
const NAME_WIDTH: usize = 60;

/// Prints one line for each temp of a directory. `width` is the width of the column of names so far. Returns the new
/// width: the lines are printed before all names are known.
pub(super) fn print_rows(
    report: &mut EventPrinter,
    root: &Root,
    rows: &[ListRow],
    width: usize,
) -> io::Result<usize> {
    let name = |row: &ListRow| report.name(&row.path, &root.path);
    let names: Vec<String> = rows.iter().map(name).collect();
    let width = column_width(&names).max(width);
    for (row, name) in rows.iter().zip(&names) {
        let word = verdict_word(report, row.verdict);
        let bytes = text::size(row.bytes);
        let line = format!("{word}  {name:<width$}  {bytes:>8}  {}", row.text);
        report.line(line.trim_end())?;
    }
    Ok(width)
}

/// Prints one line for each of the largest groups.
pub(super) fn print_groups(
    report: &mut EventPrinter,
    shown: &[ScanGroup],
    hidden: &HiddenGroups,
) -> io::Result<()> {
    let names: Vec<String> = shown
        .iter()
        .map(|group| match group.sum.temps {
            1 => report.name(&group.first.path, &group.key.root),
            _ => report.name(&groups::path(&group.key), &group.key.root),
        })
        .collect();
    let width = column_width(&names);
    let counts: Vec<String> = shown
        .iter()
        .map(|group| text::count(group.sum.temps))
        .collect();
    let count_width = counts.iter().map(String::len).max().unwrap_or(0);
    for ((group, name), count) in shown.iter().zip(&names).zip(&counts) {
        let word = verdict_word(report, group.first.verdict);
        let bytes = text::size(group.sum.size.bytes);
        let rest = match group.sum.temps {
            1 => group.first.text.clone(),
            _ => groups::reason_text(&group.key, &group.sum),
        };
        let line = format!("{word}  {count:>count_width$}  {bytes:>8}  {name:<width$}  {rest}");
        report.line(line.trim_end())?;
    }
    if let Some(line) = hidden.line_with_option() {
        report.line(&line)?;
    }
    Ok(())
}

/// Prints the findings beside temps.
pub(super) fn print_findings(report: &mut EventPrinter, result: &ScanResult<'_>) -> io::Result<()> {
    let groups: Vec<_> = result.lookalikes.iter().map(Into::into).collect();
    let is_deep = (result.claims.iter()).any(|(root, _)| root.policy.recursive);
    for line in (tree_lines(&result.trees, is_deep).into_iter()).chain(lookalike_lines(&groups)) {
        report.line(&line)?;
    }
    for learned in &result.learned {
        report.line(&learned.line())?;
    }
    Ok(())
}

/// Prints the last lines. Most of them are printed even if the output is quiet.
pub(super) fn print_end(
    command: &Scan,
    plan: &Plan,
    report: &mut EventPrinter,
    result: &ScanResult<'_>,
) -> io::Result<()> {
    if let Some(line) = claims_line(command, result) {
        report.line(&line)?;
    }
    let census = result.tally.census.line(&result.stored_in);
    if let Some(census) = census.filter(|_| !report.is_quiet()) {
        report.line(&census)?;
    }
    if result.tally.total.orphans == 0
        && !report.is_quiet()
        && let Some(line) = subfolders_line(&command.options, "scan", &plan.roots)
    {
        report.line(&line)?;
    }
    report.line(&closing_line(command, plan, result))
}

/// Returns the width of the column of names.
fn column_width(names: &[String]) -> usize {
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

/// Returns the line about the claims, if there are any.
fn claims_line(command: &Scan, result: &ScanResult<'_>) -> Option<String> {
    let with = result.claims.iter().filter(|(_, claims)| claims.files > 0);
    let roots: Vec<PathBuf> = with.map(|(root, _)| root.path.clone()).collect();
    (!roots.is_empty()).then(|| {
        let sweep = command.options.sweep_command(&roots, false);
        let claims = result.total_claims().describe();
        format!("{claims}.   to restore the names: {sweep}")
    })
}

/// Returns the last line: the total, and the command that removes the orphans.
fn closing_line(command: &Scan, plan: &Plan, result: &ScanResult<'_>) -> String {
    let total = &result.tally.total;
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
    let sum = format!(
        "{more}{}, {}, the oldest {}.",
        text::counted(total.orphans, "orphan", "orphans"),
        text::size(total.orphan_disk_bytes),
        text::span(result.tally.oldest)
    );
    let refused = plan
        .roots
        .iter()
        .find_map(|root| plan.refusal_to_change(root));
    match refused {
        Some(refused) => format!("{sum}   sweep would remove nothing there: {refused}"),
        None => format!("{sum}   {}", advice(command, &result.tally)),
    }
}

/// Returns the command that removes the orphans, and its effect.
fn advice(command: &Scan, tally: &Tally) -> String {
    let reported = tally.reported.all();
    // If the rules only report every orphan, the suggested command overrides that.
    let all = tally.swept.all() == 0;
    let swept = match all {
        true => tally.reported,
        false => tally.swept,
    };
    let what = match swept {
        OrphanCounts { moved: 0, .. } => "remove them".to_owned(),
        OrphanCounts { removed: 0, .. } => "move them to the quarantine".to_owned(),
        OrphanCounts { removed, moved } => format!(
            "remove {} and move {} to the quarantine",
            text::count(removed),
            text::count(moved)
        ),
    };
    let but = match reported {
        reported if reported > 0 && !all => {
            format!(
                " ({} are only reported, by action = \"report\")",
                text::count(reported)
            )
        }
        _ => String::new(),
    };
    let sweep = command.options.sweep_command(&command.dirs, all);
    format!("{what}{but}: {sweep}")
}
