//! The end of a command: its exit code, and the error that ends it.

use std::fmt;
use std::io;

use orphand::daemon::StartError;

/// The exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command succeeded, even if temps were kept.
    Done = 0,
    /// The command failed.
    Failed = 1,
    /// The usage is wrong, or a directory is refused.
    Usage = 2,
    /// Something could not be read, removed or determined.
    Partial = 3,
    /// The service is not installed.
    NotInstalled = 4,
    /// The service is running, but a problem keeps it from doing its work.
    Degraded = 5,
    /// Orphans were found, and `--exit-code` was given.
    Found = 10,
    /// Another orphand process works on the directory.
    Busy = 75,
    /// The configuration file is invalid.
    Config = 78,
    /// SIGHUP ended the command in order.
    HungUp = 129,
    /// SIGINT ended the command in order, or a second signal ended it at once.
    Interrupted = 130,
    /// SIGTERM ended the command in order.
    Terminated = 143,
}

impl Exit {
    /// The service is installed but not running: the same exit code as systemctl's.
    pub(crate) const STOPPED: Exit = Exit::Partial;
}

/// An error that ends a command: its exit code, and the message for stderr, which names the thing, the cause and
/// the fix.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl fmt::Display) -> Failure {
        Failure {
            exit,
            text: text.to_string(),
        }
    }

    /// Returns the error of a command that failed for a reason without an exit code of its own.
    pub(crate) fn failed(text: impl fmt::Display) -> Failure {
        Failure::new(Exit::Failed, text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::failed(error)
    }
}

impl From<&StartError> for Failure {
    fn from(error: &StartError) -> Failure {
        match error {
            StartError::Busy(busy) if busy.other.is_ours => Failure::new(Exit::Busy, error),
            StartError::Busy(_) => Failure::new(
                Exit::Busy,
                format!("{error}; stop it first, or watch another directory"),
            ),
            StartError::Refused(_) | StartError::NoRoot => Failure::new(Exit::Usage, error),
            _ => Failure::failed(error),
        }
    }
}
