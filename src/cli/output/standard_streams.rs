//! The standard streams of a command: output, questions and progress bars.

use std::io::{self, IsTerminal, Write as _};

use rustix::fs::FileType;

use super::wrap::{terminal_width, wrapped};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;

impl Failure {
    /// Prints the message on stderr.
    pub(crate) fn report(&self) {
        // An error in a file begins with the file's name, so that editors can jump to the position.
        let prefix = match self.exit {
            Exit::Config => "",
            _ => "error: ",
        };
        // If stderr cannot be written, there is no other place for the message.
        let text = format!("{prefix}{}", self.text);
        let text = wrapped(&text, terminal_width(io::stderr()));
        let _ = writeln!(anstream::stderr(), "{text}");
    }
}

/// Asks a yes-or-no question on the terminal, and repeats it while the answer is neither. No answer counts as no.
/// A no prints "nothing was removed".
pub(crate) fn confirm(question: &str) -> bool {
    let mut lines = io::stdin().lines();
    let question = format!("{question} [y/N] ");
    let question = wrapped(&question, terminal_width(io::stderr()));
    let _ = write!(io::stderr(), "{} ", question.trim_end());
    loop {
        let answer = lines.next().and_then(Result::ok);
        let is_end = answer.is_none();
        match answer.unwrap_or_default().trim().to_lowercase().as_str() {
            "y" | "yes" => return true,
            "" | "n" | "no" => {
                // Ctrl-D does not end the line.
                let end = if is_end { "\n" } else { "" };
                let _ = writeln!(io::stderr(), "{end}nothing was removed");
                return false;
            }
            _ => _ = write!(io::stderr(), "answer y or n: {} ", question.trim_end()),
        }
    }
}

/// Returns why a command cannot ask a question, as a part of a sentence. Returns `None` if it can.
pub(crate) fn why_it_cannot_ask(output: &OutputOptions) -> Option<&'static str> {
    match (stdin_is_terminal(), output.json) {
        (true, false) => None,
        (true, true) => Some("does not ask with --json"),
        (false, _) => Some("cannot ask without a terminal"),
    }
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes `text` to stdout. It is not an error if the reader has closed the pipe (`| head`).
pub(crate) fn print(text: &[u8]) -> io::Result<Exit> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text).and_then(|()| out.flush());
    has_reader(written).map(|_| Exit::Done)
}

/// Returns the fix for an error of a write, if the user has named `what`: a folder, or a file in a folder.
pub(crate) fn write_fix(error: &io::Error, what: &str) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space, or name {what} on another disk")
        }
        _ => format!("name {what} that you may write to"),
    }
}

/// Returns whether the output still has a reader, by the result of a write. It is not an error if the reader has
/// closed the pipe: the output ends, and nothing else changes.
pub(crate) fn has_reader(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let what = format!("cannot write the output: {error}");
            Err(io::Error::new(error.kind(), what))
        }
    }
}

/// Reports whether stdout is a pipe. Its reader may write to the same terminal as stderr at any time.
fn stdout_is_pipe() -> bool {
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Returns a progress bar on stderr for an operation that also writes to stdout. It is hidden if stdout is a pipe, because
/// the reader of the pipe would write behind the bar.
pub(crate) fn progress_bar_beside_output(
    output: &OutputOptions,
    what: &'static str,
) -> indicatif::ProgressBar {
    match stdout_is_pipe() {
        true => indicatif::ProgressBar::hidden(),
        false => progress_bar(output, what),
    }
}

/// Returns a progress bar on stderr for a long operation. It is hidden if stderr is not a terminal.
pub(crate) fn progress_bar(output: &OutputOptions, what: &'static str) -> indicatif::ProgressBar {
    if output.quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{spinner} {msg} {human_pos}/{human_len}");
    let bar = indicatif::ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
