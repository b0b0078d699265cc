//! Prints the messages of the commands that change a service.

use std::io::{self, Write};

use crate::cli::options::OutputOptions;

/// The printer of messages. With `--json`, messages go to stderr, because stdout is for the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    json: bool,
    quiet: bool,
}

impl Messages {
    pub(super) fn new(output: &OutputOptions) -> Messages {
        Messages {
            json: output.json,
            quiet: output.quiet,
        }
    }

    /// Prints a step that was done. A failure to print is ignored, because it does not undo the step.
    pub(super) fn line(&self, text: &str) {
        let _ = match (self.quiet, self.json) {
            (true, _) => Ok(()),
            (false, true) => writeln!(io::stderr(), "{text}"),
            (false, false) => writeln!(io::stdout(), "{text}"),
        };
    }

    /// Prints a warning.
    pub(super) fn warn(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "orphand: {text}");
        }
    }
}
