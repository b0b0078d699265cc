//! The findings of a scan or sweep beside temps: directories and special files whose names match the rule, which are
//! listed and never removed themselves, and the files in the quarantine.

use std::path::PathBuf;

use orphand::core::census::{Tree, TreeContent};
use orphand::core::observation::Kind;
use orphand::core::sort::sort_by;
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::fs::tree::{self, MAX_ENTRIES};
use orphand::fs::walk;
use orphand::reap::quarantine::StoredSum;
use orphand::sys::clock;

use crate::cli::options::PolicyOptions;
use crate::cli::output::census::Census;
use crate::cli::output::text;

/// Counts the files in the trees of each root.
pub(crate) fn measure(found: impl IntoIterator<Item = (Root, Vec<(PathBuf, Kind)>)>) -> Vec<Tree> {
    let of_root =
        |(root, trees): (Root, _)| tree::measure(&root.path, trees, MAX_ENTRIES, clock::wall());
    found.into_iter().flat_map(of_root).collect()
}

/// Adds the files in the quarantines of `roots` to the census. Returns the roots that have such files.
pub(crate) fn count_stored<'r>(
    roots: impl IntoIterator<Item = &'r Root>,
    census: &mut Census,
) -> Vec<PathBuf> {
    let mut with_files = Vec::new();
    for root in roots {
        let StoredSum { files, size } = StoredSum::in_root(&root.path);
        census.add_quarantine(files, size);
        if files > 0 {
            with_files.push(root.path.clone());
        }
    }
    with_files
}

/// Returns the line about subfolders of `roots` that were not examined, if there are any. `command` is the command that
/// has not examined them.
pub(crate) fn subfolders_line<'r>(
    options: &PolicyOptions,
    command: &str,
    roots: impl IntoIterator<Item = &'r Root>,
) -> Option<String> {
    let is_partly_read =
        |root: &&Root| response::responds(&root.path) && walk::has_unread_folders(root);
    let roots = roots.into_iter().filter(is_partly_read);
    let dirs: Vec<PathBuf> = roots.map(|root| root.path.clone()).collect();
    let command = options.recursive_command(command, &dirs);
    let command = command.filter(|_| !dirs.is_empty())?;
    Some(format!(
        "subfolders were not examined; to include them: {command}"
    ))
}

/// The number of trees that have a line.
const MAX_LINES: usize = 10;

/// Returns the lines about trees, for people: the largest first. Returns no line if there are no trees. `is_deep` tells
/// whether temps in such directories may be removed, because a rule includes subfolders.
pub(crate) fn tree_lines(trees: &[Tree], is_deep: bool) -> Vec<String> {
    if trees.is_empty() {
        return Vec::new();
    }
    let dirs = trees.iter().filter(|tree| tree.kind == Kind::Dir).count() as u64;
    let special = trees.len() as u64 - dirs;
    let counts = [
        (dirs, "directory", "directories"),
        (special, "special file", "special files"),
    ];
    let counts = counts.iter().filter(|(count, ..)| *count > 0);
    let what: Vec<String> = counts
        .map(|(count, one, many)| text::counted(*count, one, many))
        .collect();
    let (have, them) = match trees.len() {
        1 => ("has such a name too", "it"),
        _ => ("have such names too", "them"),
    };
    let never = match is_deep && dirs > 0 {
        true => format!("orphand never removes {them}, only temps in a directory"),
        false => format!("orphand never touches {them}"),
    };
    let mut lines = vec![format!("{} {have}; {never}:", what.join(" and "))];
    let mut largest: Vec<&Tree> = trees.iter().collect();
    let size = |tree: &Tree| tree.content.map_or(0, |content| content.size.disk_bytes);
    sort_by(&mut largest, |one, other| size(other).cmp(&size(one)));
    lines.extend(largest.iter().take(MAX_LINES).map(|tree| tree_line(tree)));
    if let Some(more) = trees.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        lines.push(format!("  and {} more", text::count(more as u64)));
    }
    lines
}

fn tree_line(tree: &Tree) -> String {
    let path = text::escaped(&tree.path);
    match (tree.kind, tree.content) {
        (Kind::Dir, None) => format!("  {path}/   cannot be read"),
        (Kind::Dir, Some(content)) => format!("  {path}/   {}", content_text(&content)),
        (Kind::Symlink, _) => format!("  {path}   a symlink"),
        _ => format!("  {path}   a FIFO, a socket or a device"),
    }
}

fn content_text(content: &TreeContent) -> String {
    let least = if content.is_complete { "" } else { "at least " };
    format!(
        "{least}{}, {}, last changed {} ago",
        text::counted(content.files, "file", "files"),
        text::size(content.size.disk_bytes),
        text::span(content.newest)
    )
}
