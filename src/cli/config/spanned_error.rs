//! An error with its position in the file, and proposals for misspelled words.

use std::fmt;
use std::path::Path;

use super::ConfigError;

/// A line and a column, both from 1. The column counts characters.
pub(crate) type Position = (usize, usize);

/// An error and its byte offset in the text.
#[derive(Debug)]
pub(super) struct SpannedError {
    at: usize,
    message: String,
}

impl SpannedError {
    pub(super) fn new(at: usize, message: impl fmt::Display) -> SpannedError {
        let message = message.to_string();
        SpannedError { at, message }
    }

    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            position: Some(LineIndex::new(text).position_at(self.at)),
            message: self.message,
        }
    }
}

/// The line starts of a text. They are searched for only once, because a long file has many keys.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    /// The byte offset of the start of each line.
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

    /// Returns the line and the column of the byte offset `at`.
    pub(super) fn position_at(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        // An offset within a character does not occur, but must not cause a panic.
        let at = at.min(self.text.len());
        let before = (start..=at).rev().find_map(|at| self.text.get(start..at));
        (line, before.unwrap_or("").chars().count() + 1)
    }
}

/// Returns the question whether the one of `known` that is similar to `word` was meant, or one of all if none is
/// similar. `known` are written as in the file; quotes and brackets around them are not compared.
pub(super) fn did_you_mean(word: &str, known: impl Iterator<Item = String>) -> String {
    let compared = |known: String| {
        let name = known.trim_matches(['"', '[', ']']);
        (strsim::levenshtein(word, name), name.len(), known)
    };
    let known: Vec<_> = known.map(compared).collect();
    if let Some((edits, len, name)) = known.iter().min()
        && edits * 2 <= *len
    {
        return format!("did you mean {name}?");
    }
    let known = known.into_iter().map(|(_, _, name)| name).collect();
    format!("did you mean {}?", alternatives(known))
}

/// Returns the question whether the one of `choices` with a typing error was meant, or otherwise all of them. A word
/// that is only similar is not proposed, because it may have the opposite meaning.
pub(super) fn choice_hint(word: &str, choices: Vec<String>) -> String {
    let is_meant = |choice: &&String| {
        let name = choice.trim_matches('"');
        strsim::levenshtein(word, name) * 3 <= name.len()
    };
    match choices.iter().find(is_meant) {
        Some(choice) => format!("did you mean {choice}?"),
        None => format!("use {}", alternatives(choices)),
    }
}

/// Returns the words with commas and an "or" between them.
fn alternatives(mut words: Vec<String>) -> String {
    let last = words.pop().unwrap_or_default();
    match words.is_empty() {
        true => last,
        false => format!("{} or {last}", words.join(", ")),
    }
}
