//! The context of a subcommand: the service, its service manager, and the output.

use std::fmt::Display;
use std::io::{self, Write};

use super::control::Control;
use super::paths::ServicePaths;
use crate::cli::options::OutputOptions;

/// The context of a subcommand.
pub(super) struct ServiceContext<'a> {
    pub(super) service: &'a ServicePaths,
    pub(super) control: &'a dyn Control,
    pub(super) output: &'a OutputOptions,
}

impl ServiceContext<'_> {
    /// Prints a step that was done. With `--json` it goes to stderr, because stdout is for the document. A failure to
    /// print is ignored, because it does not undo the step.
    pub(super) fn line(&self, text: impl Display) {
        let _ = match (self.output.quiet, self.output.json) {
            (true, _) => Ok(()),
            (false, true) => writeln!(io::stderr(), "{text}"),
            (false, false) => writeln!(io::stdout(), "{text}"),
        };
    }

    /// Prints a warning.
    pub(super) fn warn(&self, text: impl Display) {
        if !self.output.quiet {
            let _ = writeln!(io::stderr(), "warning: {text}");
        }
    }
}
