//! One compiled row of the catalog, or of a user's `[[writer]]`, and the check of its values.

use std::fmt;
use std::sync::Arc;

use super::companion::Companion;
use super::grammar::Grammar;
use super::row::WriterGrammar;

/// An error in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterError {
    /// The key with the wrong value. `None` if a key is missing.
    pub key: Option<&'static str>,
    /// The index in the list of the key.
    pub index: usize,
    /// The error, with the value and the fix.
    pub message: String,
}

impl fmt::Display for WriterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WriterError {}

/// A row with its compiled patterns.
#[derive(Clone, Debug)]
pub struct Writer {
    row: Arc<WriterGrammar>,
    pub(super) grammars: Vec<Grammar>,
    companions: Vec<Companion>,
}

impl Writer {
    /// Checks a row and compiles its patterns.
    pub fn new(row: WriterGrammar) -> Result<Writer, WriterError> {
        if row.name.is_empty() {
            return Err(missing("this writer has no name; add name = \"NAME\""));
        }
        check_name(&row.name)?;
        if row.patterns.is_empty() {
            let what = format!(
                "the writer {:?} has no patterns; add patterns = [\"<t>.<uuid>.tmp\"]",
                row.name
            );
            return Err(missing(&what));
        }
        for (index, target) in row.targets.iter().enumerate() {
            if matches!(target.as_str(), "" | "." | "..") || target.contains(['/', '\0']) {
                let what = format!(
                    "the target {target:?} is not the name of a file; write the last part of its path"
                );
                return Err(wrong("targets", index, what));
            }
        }
        if let Some(path) = &row.unless_open
            && (path.is_empty()
                || path.starts_with(['~', '$'])
                || path.ends_with('/')
                || path.contains('\0'))
        {
            let what = format!("unless_open is {path:?}, which is not the path of a file");
            return Err(wrong("unless_open", 0, what));
        }
        if let Some(dir) = &row.discard_in
            && (matches!(dir.as_str(), "" | "." | "..") || dir.contains(['/', '\0']))
        {
            let what = format!(
                "discard_in is {dir:?}, which is not the name of a directory; write the last part of its path"
            );
            return Err(wrong("discard_in", 0, what));
        }
        let row = Arc::new(row);
        let mut grammars = Vec::new();
        for (index, text) in row.patterns.iter().enumerate() {
            let compiled = Grammar::new(text, Some(Arc::clone(&row)));
            grammars.push(
                compiled.map_err(|why| {
                    wrong("patterns", index, format!("the pattern {text:?} {why}"))
                })?,
            );
        }
        let mut companions = Vec::new();
        for (index, text) in row.companions.iter().enumerate() {
            companions.push(Companion::new(text).map_err(|why| {
                wrong("companions", index, format!("the companion {text:?} {why}"))
            })?);
        }
        Ok(Writer {
            row,
            grammars,
            companions,
        })
    }

    /// Returns the row.
    #[must_use]
    pub fn row(&self) -> &Arc<WriterGrammar> {
        &self.row
    }

    /// Returns the names of the files that belong to a temp, in addition to those that belong to every temp.
    #[must_use]
    pub fn companions(&self) -> &[Companion] {
        &self.companions
    }

    /// Reports whether one of the patterns matches `name`.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.grammars
            .iter()
            .any(|grammar| grammar.split(name).is_some())
    }

    /// Reports whether the writer may have written a temp with this name: the lengths and characters of one of its
    /// patterns fit, even if a random part looks like a word.
    #[must_use]
    pub fn may_have_written(&self, name: &[u8]) -> bool {
        self.grammars.iter().any(|grammar| grammar.fits(name))
    }
}

fn missing(message: &str) -> WriterError {
    WriterError {
        key: None,
        index: 0,
        message: message.to_owned(),
    }
}

fn wrong(key: &'static str, index: usize, message: String) -> WriterError {
    WriterError {
        key: Some(key),
        index,
        message,
    }
}

fn check_name(name: &str) -> Result<(), WriterError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name == "list" {
        let what =
            "the name \"list\" shows the writers on the command line; give the writer another name";
        return Err(wrong("name", 0, what.into()));
    }
    match name.chars().all(is_allowed) {
        true => Ok(()),
        false => Err(wrong(
            "name",
            0,
            format!("the name {name:?} may have only small letters, digits and \"-\""),
        )),
    }
}
