//! The report for a terminal.

use std::path::Path;

use super::data::{ProgramKey, ProgramSum};
use super::{Content, axis_time, local};
use crate::cli::output::groups::{self, MAX_GROUPS};
use crate::cli::output::text;

pub(super) fn lines(content: &Content) -> Vec<String> {
    let data = &content.data;
    let (temps, _) = data.leaks();
    if temps == 0 {
        let since = local(content.since);
        return vec![format!("no temps were removed or moved since {since}")];
    }
    let mut lines = vec![headline(content), chart(&data.temps_by_step())];
    lines.push(format!(
        "{}  to  {}, {} a column",
        axis_time(content, data.timeline.start),
        axis_time(content, data.timeline.end),
        step_text(data.timeline.step)
    ));
    lines.push(String::new());
    for (key, sum) in data.groups.largest_first().iter().take(MAX_GROUPS) {
        let programs = groups::programs(sum);
        let by = match programs.is_empty() {
            true => String::new(),
            false => format!("  by {programs}"),
        };
        lines.push(format!(
            "{:<20} {:>7}  {:>8}  {}{by}",
            groups::past_word(key),
            text::count(sum.temps),
            text::size(sum.size.bytes),
            text::escaped(&groups::path(key)),
        ));
    }
    lines.extend(groups::hidden_groups(&data.groups, MAX_GROUPS).line());
    let programs = data.programs();
    if !programs.is_empty() {
        lines.push(String::new());
        lines.extend(
            programs
                .iter()
                .take(MAX_GROUPS)
                .map(|(key, sum)| program_line(key, sum)),
        );
    }
    lines.push(String::new());
    for (root, disk) in &content.disks {
        lines.push(text::escaped(root));
        if let Some(disk) = disk {
            lines.push(disk.line(root));
        }
    }
    lines
}

/// Returns the sums: `8,662 temps (51.2 GB) were left since 2026-11-22 10:42: 8,659 removed, 3 moved to quarantine`.
pub(super) fn headline(content: &Content) -> String {
    let data = &content.data;
    let (temps, size) = data.leaks();
    let mut parts = vec![format!("{} removed", text::count(data.removed.temps))];
    let more = [
        (data.moved.temps, "moved to quarantine"),
        (data.restored.temps, "restored"),
        (data.purged.temps, "deleted from quarantine"),
    ];
    for (number, what) in more.iter().filter(|(number, _)| *number > 0) {
        parts.push(format!("{} {what}", text::count(*number)));
    }
    format!(
        "{} ({}) since {}: {}; {} freed",
        text::counted(temps, "temp", "temps"),
        text::size(size.bytes),
        local(content.since),
        parts.join(", "),
        text::size(data.removed.size.disk_bytes)
    )
}

/// Returns the counts as a row of columns.
fn chart(counts: &[u64]) -> String {
    let columns: &[char] = match text::is_unicode() {
        true => &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        false => &[' ', '.', ':', '-', '=', '+', '*', '#', '@'],
    };
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let column = |count: &u64| {
        let height = count.saturating_mul(8).div_ceil(most);
        let height = usize::try_from(height).unwrap_or(0);
        columns.get(height).copied().unwrap_or(' ')
    };
    counts
        .iter()
        .map(column)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Returns the length of a step, in words.
pub(super) fn step_text(seconds: i64) -> String {
    text::span(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap_or(0),
    ))
}

fn program_line(key: &ProgramKey, sum: &ProgramSum) -> String {
    let mut parts = vec![text::escaped(Path::new(
        key.name.as_deref().unwrap_or("unknown"),
    ))];
    parts.extend(key.exe.as_deref().map(text::escaped));
    parts.extend(
        key.unit
            .as_deref()
            .map(|unit| text::escaped(Path::new(unit))),
    );
    format!(
        "{:<20} {:>7}  {:>8}  {}  {}",
        "left by",
        text::count(sum.temps.temps),
        text::size(sum.temps.size.bytes),
        parts.join(", "),
        ends_text(sum)
    )
    .trim_end()
    .to_owned()
}

/// Returns how the processes of a program ended: `killed by signal 9 (12)`.
pub(super) fn ends_text(sum: &ProgramSum) -> String {
    let known = sum.ends.iter().filter(|(end, _)| *end != "unknown");
    let parts = known.map(|(end, temps)| format!("{end} ({})", text::count(*temps)));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_each_count() {
        assert_eq!(
            chart(&[0, 1, 400, 800, 0]).replace('▁', "."),
            " .▄█".replace('▁', ".")
        );
        assert_eq!(chart(&[]), "");
    }
}
