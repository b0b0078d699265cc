//! The files whose names look like temps although the rule does not match them, for people.

use std::path::Path;

use orphand::core::census::Lookalike;
use orphand::core::sort::sort_by;
use orphand::fs::root::Root;
use orphand::store::json::LookalikeFields;

use super::{shell, text};

/// The number of groups that have a line.
const MAX_LINES: usize = 5;

/// Returns the groups of `root` with whole paths.
pub(crate) fn with_root(
    root: &Root,
    groups: Vec<Lookalike>,
) -> impl Iterator<Item = Lookalike> + use<> {
    let root = root.path.clone();
    let whole = move |group: Lookalike| Lookalike {
        dir: match group.dir.as_os_str().is_empty() {
            true => root.clone(),
            false => root.join(&group.dir),
        },
        ..group
    };
    groups.into_iter().map(whole)
}

/// Returns the lines about these groups: the largest first, each with the option that would match its names. Returns no
/// line if there are none.
pub(crate) fn lookalike_lines(groups: &[LookalikeFields<'_>]) -> Vec<String> {
    let files: u64 = groups.iter().map(|group| group.files).sum();
    let what = match files {
        0 => return Vec::new(),
        1 => "1 file has a name like a temp that the rule does not match:".to_owned(),
        _ => format!(
            "{} files have names like temps that the rule does not match:",
            text::count(files)
        ),
    };
    let mut largest: Vec<&LookalikeFields<'_>> = groups.iter().collect();
    let size = |group: &LookalikeFields<'_>| (group.disk_bytes, group.files);
    sort_by(&mut largest, |a, b| size(b).cmp(&size(a)));
    let lines = largest.iter().take(MAX_LINES).map(|group| line(group));
    let mut lines: Vec<String> = std::iter::once(what).chain(lines).collect();
    if let Some(more) = groups.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        let more = text::counted(more as u64, "more kind", "more kinds");
        lines.push(format!("  and {more}"));
    }
    lines
}

fn line(group: &LookalikeFields<'_>) -> String {
    let least = if group.complete { "" } else { "at least " };
    let (kind, option) = match (&group.writer, &group.name) {
        (Some(writer), _) => (
            format!("of the writer {writer}"),
            format!("--writer {}", shell::word(&**writer)),
        ),
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            let option = format!(
                "--name {}, which replaces the patterns of the rule",
                shell::word(name)
            );
            (text::escaped(Path::new(name)), option)
        }
    };
    let dir = group.dir.as_deref().unwrap_or(Path::new(""));
    format!(
        "  {}, {least}{}   {kind}, as in {}/   to match them: {option}",
        text::counted(group.files, "file", "files"),
        text::size(group.disk_bytes),
        text::escaped(dir).trim_end_matches('/'),
    )
}
