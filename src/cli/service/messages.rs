//! What is said while a service is changed.

use std::io::{self, Write};

use crate::cli::args::OutputOptions;

/// To whom: words go to stderr where stdout is for JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    json: bool,
    quiet: bool,
}

impl Messages {
    pub(super) fn new(look: &OutputOptions) -> Messages {
        Messages {
            json: look.json,
            quiet: look.quiet,
        }
    }

    /// Says what was done. That nobody reads it undoes nothing.
    pub(super) fn line(&self, text: &str) {
        let _ = match (self.quiet, self.json) {
            (true, _) => Ok(()),
            (false, true) => writeln!(io::stderr(), "{text}"),
            (false, false) => writeln!(io::stdout(), "{text}"),
        };
    }

    /// Says what somebody should know.
    pub(super) fn warn(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "orphand: {text}");
        }
    }
}
