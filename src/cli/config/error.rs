//! The errors of the configuration: of the file, with their positions, and of settings that are not a valid rule.

use std::fmt;
use std::path::PathBuf;

use orphand::core::exclude::ExcludeError;
use orphand::core::policy::PolicyError;
use orphand::core::temp_name::NameError;

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::text;

/// A line and a column, both from 1. The column counts characters.
pub(crate) type Position = (usize, usize);

/// An error in settings that are not a valid rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Names(#[from] NameError),
    #[error(transparent)]
    Exclude(#[from] ExcludeError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The first error in the file, or the reason why the file cannot be read.
#[derive(Debug)]
pub(crate) struct ConfigError {
    pub(crate) path: PathBuf,
    /// `None` if the error concerns the whole file.
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

/// The reason why the rules of the file cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The options of the command line and the settings of the file together are not a valid rule.
    #[error(transparent)]
    Typed(#[from] SettingsError),
    #[error(transparent)]
    File(#[from] ConfigError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", text::escaped(&self.path))?;
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(Exit::Config, error)
    }
}

impl From<RootsError> for Failure {
    fn from(error: RootsError) -> Failure {
        match error {
            RootsError::Typed(error) => error.into(),
            RootsError::File(error) => error.into(),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::new(Exit::Usage, error)
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
