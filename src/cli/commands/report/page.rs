//! The report as one page for a browser: no scripts, no other files.

use std::fmt::Write as _;
use std::path::Path;

use orphand::core::sums::{SumKey, TempSum};

use super::lines::{ends_text, headline, step_text};
use super::{Content, axis_time, local};
use crate::cli::output::{groups, text};

/// The number of groups with a color of their own in the timeline.
const COLORS: usize = 5;

/// The largest number of rows of a table.
const MAX_ROWS: usize = 200;

const STYLE: &str = include_str!("page.css");

pub(super) fn page(content: &Content) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>orphand report</title>\n",
    );
    let _ = writeln!(out, "<style>\n{STYLE}</style>");
    let _ = writeln!(
        out,
        "<h1>Temporary files that were left behind</h1>\n<p>{}</p>\n<p class=\"dim\">Made by orphand {} on {}.</p>",
        html(&headline(content)),
        env!("CARGO_PKG_VERSION"),
        local(content.now)
    );
    sums(content, &mut out);
    timeline(content, &mut out);
    groups_table(content, &mut out);
    programs_table(content, &mut out);
    disks_table(content, &mut out);
    out.push_str("</html>\n");
    out
}

/// Escapes text for HTML, in elements and in attributes with double quotes.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Returns a path for HTML. Characters that change the direction of text are escaped first.
fn path(path: &Path) -> String {
    html(&text::escaped(path))
}

fn sums(content: &Content, out: &mut String) {
    let data = &content.data;
    out.push_str("<div class=\"sums\">\n");
    for (sum, what) in [
        (&data.removed, "removed"),
        (&data.moved, "moved to quarantine"),
        (&data.restored, "restored"),
        (&data.purged, "deleted from quarantine"),
    ] {
        let _ = writeln!(
            out,
            "<div><strong>{}</strong>{what}<br><span class=\"dim\">{}</span></div>",
            text::count(sum.temps),
            text::size(sum.size.disk_bytes)
        );
    }
    out.push_str("</div>\n");
}

/// Writes the bars of the timeline. The groups with the most temps have colors.
fn timeline(content: &Content, out: &mut String) {
    let data = &content.data;
    let counts = data.temps_by_step();
    let most = counts.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let largest = data.groups.largest_first();
    let (colored, others) = largest.split_at(largest.len().min(COLORS));
    let step = step_text(data.timeline.step);
    let _ = writeln!(
        out,
        "<h2>When</h2>\n<figure>\n<div class=\"axis\"><span>{} in {step}</span></div>\n\
         <svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Temps by time\">",
        text::counted(most, "temp", "temps"),
        counts.len()
    );
    for index in 0..counts.len() {
        let mut top = 0;
        for (color, (key, _)) in colored.iter().enumerate() {
            top = bar(content, out, (index, top, most), color, key);
        }
        for (key, _) in others {
            top = bar(content, out, (index, top, most), COLORS, key);
        }
    }
    let _ = writeln!(
        out,
        "</svg>\n<div class=\"axis\"><span>{}</span><span>{}</span></div>\n<ul class=\"key\">",
        axis_time(content, data.timeline.start),
        axis_time(content, data.timeline.end)
    );
    for (color, (key, _)) in colored.iter().enumerate() {
        let word = groups::past_word(key);
        let name = path(&groups::path(key));
        let _ = writeln!(
            out,
            "<li><i class=\"s{color}\"></i>{word}: <code>{name}</code></li>"
        );
    }
    if !others.is_empty() {
        let others = text::counted(others.len() as u64, "other group", "other groups");
        let _ = writeln!(out, "<li><i class=\"s{COLORS}\"></i>{others}</li>");
    }
    out.push_str("</ul>\n</figure>\n");
}

/// Writes one bar, and returns the number of temps below its top. `place` is its step, the number of temps below it,
/// and the largest number of a step.
fn bar(
    content: &Content,
    out: &mut String,
    place: (usize, u64, u64),
    color: usize,
    key: &SumKey,
) -> u64 {
    let (step, below, most) = place;
    let steps = content.data.steps.get(key);
    let Some(sum) = steps.and_then(|steps| steps.get(&step)) else {
        return below;
    };
    let top = below + sum.temps;
    let height = |temps: u64| temps as f64 * 100.0 / most as f64;
    let _ = writeln!(
        out,
        "<rect class=\"s{color}\" x=\"{step}.1\" width=\".8\" y=\"{:.2}\" height=\"{:.2}\"><title>{}: {} {}</title></rect>",
        100.0 - height(top),
        height(sum.temps),
        axis_time(content, content.data.timeline.time_of(step)),
        text::counted(sum.temps, "temp", "temps"),
        path(&groups::path(key))
    );
    top
}

/// Writes a table. Each row has as many cells as there are columns; the content of cells is HTML. A column whose name
/// begins with `#` has numbers.
fn table(out: &mut String, title: &str, columns: &[&str], rows: &[Vec<String>]) {
    let class = |column: &str| {
        if column.starts_with('#') {
            " class=\"n\""
        } else {
            ""
        }
    };
    let _ = writeln!(out, "<h2>{title}</h2>\n<table>\n<thead><tr>");
    for column in columns {
        let _ = writeln!(
            out,
            "<th{}>{}</th>",
            class(column),
            column.trim_start_matches('#')
        );
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows.iter().take(MAX_ROWS) {
        out.push_str("<tr>");
        for (column, cell) in columns.iter().zip(row) {
            let label = column.trim_start_matches('#');
            let _ = write!(
                out,
                "<td{} data-label=\"{label}\">{cell}</td>",
                class(column)
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n");
    if rows.len() > MAX_ROWS {
        let more = text::count((rows.len() - MAX_ROWS) as u64);
        let _ = writeln!(out, "<p class=\"dim\">and {more} more</p>");
    }
}

fn groups_table(content: &Content, out: &mut String) {
    let largest = content.data.groups.largest_first();
    if largest.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = largest
        .iter()
        .map(|(key, sum)| group_row(content, key, sum))
        .collect();
    let columns = [
        "What", "#Temps", "#Size", "Names", "First", "Last", "Left by",
    ];
    table(out, "Groups", &columns, &rows);
}

fn group_row(content: &Content, key: &SumKey, sum: &TempSum) -> Vec<String> {
    let ago = |age| local(content.now.checked_sub(age).unwrap_or(content.now));
    vec![
        groups::past_word(key).to_owned(),
        text::count(sum.temps),
        text::size(sum.size.bytes),
        format!("<code>{}</code>", path(&groups::path(key))),
        ago(sum.oldest),
        ago(sum.newest),
        html(&groups::programs(sum)),
    ]
}

fn programs_table(content: &Content, out: &mut String) {
    let programs = content.data.programs();
    if programs.is_empty() {
        return;
    }
    let name = |name: Option<&str>| path(Path::new(name.unwrap_or_default()));
    let rows: Vec<Vec<String>> = programs
        .iter()
        .map(|(key, sum)| {
            vec![
                name(key.name.as_deref()),
                text::count(sum.temps.temps),
                text::size(sum.temps.size.bytes),
                key.exe.as_deref().map(path).unwrap_or_default(),
                name(key.unit.as_deref()),
                html(&ends_text(sum)),
            ]
        })
        .collect();
    let columns = [
        "Program",
        "#Temps",
        "#Size",
        "File",
        "Control group",
        "How it ended",
    ];
    table(out, "Processes that wrote or held them", &columns, &rows);
}

fn disks_table(content: &Content, out: &mut String) {
    if content.disks.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = content
        .disks
        .iter()
        .map(|(root, disk)| {
            let mut row = vec![format!("<code>{}</code>", path(root))];
            match disk {
                Some(disk) => row.extend([
                    format!("{} %", disk.percent()),
                    text::size(disk.free),
                    text::count(disk.quarantined),
                    text::size(disk.quarantined_size.disk_bytes),
                ]),
                None => {
                    row.push("unknown".to_owned());
                    row.resize(5, String::new());
                }
            }
            row
        })
        .collect();
    let columns = [
        "Directory",
        "#Disk full",
        "#Free",
        "#In quarantine",
        "#Its size",
    ];
    table(out, "Disks", &columns, &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_for_html() {
        let want = "&lt;script&gt;alert(&#39;&amp;&quot;)&lt;/script&gt;";
        assert_eq!(html("<script>alert('&\")</script>"), want);
        assert_eq!(path(Path::new("a\u{202e}<b>\n")), r"a\u{202e}&lt;b&gt;\n");
    }
}
