//! What is wrong in the file: where it stands, and what was probably meant.

use std::fmt;
use std::path::Path;

use super::ConfigError;

/// Line and column, from 1; the column in characters.
pub(crate) type Place = (usize, usize);

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
pub(super) struct Mistake {
    at: usize,
    what: String,
}

impl Mistake {
    pub(super) fn new(at: usize, what: impl fmt::Display) -> Mistake {
        let what = what.to_string();
        Mistake { at, what }
    }

    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            place: Some(place(text, self.at)),
            what: self.what,
        }
    }
}

/// Where the byte `at` of the text stands.
pub(super) fn place(text: &str, at: usize) -> Place {
    // A place within a character is none of ours, but nothing to panic about either.
    let at = at.min(text.len());
    let before = (0..=at).rev().find_map(|at| text.get(..at)).unwrap_or("");
    let lines = before.bytes().filter(|byte| *byte == b'\n').count();
    let line = before.rsplit('\n').next().unwrap_or("");
    (lines + 1, line.chars().count() + 1)
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
