//! Proposals for the patterns of a rule.

use std::fmt;

use super::name_glob::NameGlob;
use super::names::Names;
use crate::core::reserved::{self, IncludedBy, ReservedName};

/// A pattern that is broader than needed, and a narrower one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarrowerGlob {
    /// The pattern, as given.
    pub glob: String,
    /// The file for whose temps it was written. The pattern matches it too.
    pub file: String,
    /// The narrower pattern.
    pub instead: String,
}

impl fmt::Display for NarrowerGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NarrowerGlob {
            glob,
            file,
            instead,
        } = self;
        write!(
            f,
            "the name pattern {glob:?} also matches {file:?}, which is kept as reserved; \
             if all its temps end in \".tmp\", {instead:?} is enough"
        )
    }
}

#[doc(hidden)]
impl Names {
    /// Returns the patterns that match only reserved names, each with the row of the list.
    #[must_use]
    pub fn ineffective_globs(&self) -> Vec<(&str, &'static ReservedName)> {
        let row = |glob: &&NameGlob| {
            let needs_whole_name = |row: &&ReservedName| row.included_by == IncludedBy::WholeName;
            let row_of = |ending: &String| {
                let mut rows = reserved::LIST.iter().filter(needs_whole_name);
                rows.find(|row| row.has_ending(ending.as_bytes()))
            };
            let rows: Option<Vec<&ReservedName>> = glob.endings.iter().map(row_of).collect();
            rows?
                .first()
                .copied()
                .filter(|_| glob.whole_names.is_empty())
        };
        let globs = self.globs.iter();
        globs
            .filter_map(|glob| Some((glob.text.as_str(), row(&glob)?)))
            .collect()
    }

    /// Returns the patterns that end in `*` and also match the file for whose temps they were written, each with a
    /// narrower pattern.
    #[must_use]
    pub fn narrower(&self) -> Vec<NarrowerGlob> {
        let narrower = |glob: &NameGlob| {
            let stem = glob.text.strip_suffix('*')?;
            let is_plain = |c: char| !r"*?[]{}\".contains(c);
            let is_file = stem.ends_with(char::is_alphanumeric)
                && !stem.ends_with(".tmp")
                && stem.chars().all(is_plain);
            is_file.then(|| NarrowerGlob {
                glob: glob.text.clone(),
                file: stem.to_owned(),
                instead: format!("{stem}.*.tmp"),
            })
        };
        self.globs.iter().filter_map(narrower).collect()
    }
}
