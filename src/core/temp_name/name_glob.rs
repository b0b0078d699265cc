//! One compiled glob of a rule.

use super::error::NameError;
use crate::core::glob::{self, Alternative, Glob, GlobError};

/// The pattern of a rule that sets none.
pub(super) const DEFAULT: &str = "*.tmp";

#[derive(Clone, Debug)]
pub(super) struct NameGlob {
    pub(super) text: String,
    pub(super) compiled: Glob,
    /// It matches any temp, so it does not include ignored names.
    pub(super) is_generic: bool,
    /// The alternatives that are whole names, without any wildcard.
    pub(super) whole_names: Vec<String>,
    /// The literal text at the end of each alternative.
    pub(super) endings: Vec<String>,
    /// The alternatives that end in `*`, without that `*`.
    pub(super) without_star: Glob,
    /// At least one alternative ends in `*`.
    pub(super) has_open_end: bool,
    /// At least one alternative has no literal character that counts.
    pub(super) is_broad: bool,
}

impl NameGlob {
    pub(super) fn new(glob: &str) -> Result<NameGlob, NameError> {
        if glob.is_empty() {
            return Err(NameError::EmptyGlob);
        }
        if let Some((_, last)) = glob.rsplit_once('/') {
            let usable = NameGlob::new(last).is_ok_and(|last| !last.is_broad);
            let instead = if usable { last } else { DEFAULT }.to_owned();
            return Err(NameError::PathGlob {
                glob: glob.to_owned(),
                instead,
            });
        }
        let bad = |error: GlobError| NameError::BadGlob {
            glob: glob.to_owned(),
            why: error.to_string(),
        };
        let all = glob::alternatives(glob).map_err(bad)?;
        let compiled: Glob = all.iter().collect();
        // No file has these names, because they contain a zero byte. A glob that matches one was not written for a
        // specific name.
        let is_generic = ["any\0thing.tmp", ".any\0thing.any\0thing.tmp"]
            .iter()
            .any(|name| compiled.matches(name.as_bytes()));
        let starless = all.iter().filter_map(Alternative::without_star);
        Ok(NameGlob {
            text: glob.to_owned(),
            compiled,
            is_generic,
            whole_names: all.iter().filter_map(Alternative::whole_name).collect(),
            endings: all.iter().map(Alternative::ending).collect(),
            without_star: starless.collect(),
            has_open_end: all.iter().any(Alternative::has_open_end),
            is_broad: !all.iter().all(Alternative::has_literal),
        })
    }

    /// Reports whether an alternative is this name, without any wildcard.
    pub(super) fn is_whole(&self, name: &[u8]) -> bool {
        self.whole_names
            .iter()
            .any(|whole| whole.as_bytes() == name)
    }
}
