//! What is wrong in the file: where it stands, and what was probably meant.

use std::fmt;
use std::path::Path;

use super::ConfigError;

/// Line and column, from 1; the column in characters.
pub(crate) type Position = (usize, usize);

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
pub(super) struct SpannedError {
    at: usize,
    what: String,
}

impl SpannedError {
    pub(super) fn new(at: usize, what: impl fmt::Display) -> SpannedError {
        let what = what.to_string();
        SpannedError { at, what }
    }

    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            position: Some(LineIndex::new(text).position_at(self.at)),
            message: self.what,
        }
    }
}

/// The lines of a text, found once: a long file has many keys.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    /// At which byte each line begins.
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn new(text: &'t str) -> LineIndex<'t> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        LineIndex {
            text,
            starts: starts.collect(),
        }
    }

    /// Returns line and column of the byte `at`.
    pub(super) fn position_at(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        // A place within a character is none of ours, but nothing to panic about either.
        let at = at.min(self.text.len());
        let before = (start..=at).rev().find_map(|at| self.text.get(start..at));
        (line, before.unwrap_or("").chars().count() + 1)
    }
}

/// Asks for the one of `known` that is like `word`, or, if none is, for any. They are as written in
/// the file; what encloses them there is not compared.
pub(super) fn did_you_mean(word: &str, known: impl Iterator<Item = String>) -> String {
    let compared = |known: String| {
        let name = known.trim_matches(['"', '[', ']']);
        (strsim::levenshtein(word, name), name.len(), known)
    };
    let mut known: Vec<_> = known.map(compared).collect();
    if let Some((edits, len, name)) = known.iter().min()
        && edits * 2 <= *len
    {
        return format!("did you mean {name}?");
    }
    let last = known.pop().map(|(_, _, name)| name).unwrap_or_default();
    let others: Vec<_> = known.into_iter().map(|(_, _, name)| name).collect();
    format!("did you mean {} or {last}?", others.join(", "))
}
