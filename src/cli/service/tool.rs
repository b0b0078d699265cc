//! Calls programs of the system: launchctl, systemctl, journalctl. Each call has a time limit.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::timeouts;
use crate::cli::output::text;
use crate::cli::variables;

/// A program of the system, by its absolute path, because the first match in PATH may be another program.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    path: PathBuf,
    name: &'static str,
}

/// The result of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct ToolOutput {
    /// The exit code; -1 if a signal ended the program.
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// The error of a call that has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("cannot start {path:?}: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("{call:?} has not ended within {}", text::span(*limit))]
    TimedOut { call: String, limit: Duration },
}

impl Tool {
    /// Returns the program that the environment variable names, or the first of `paths` that exists.
    pub(super) fn find(name: &'static str, variable: &str, paths: &[&str]) -> Tool {
        let existing = paths.iter().map(PathBuf::from).find(|path| path.exists());
        let default = existing.or_else(|| paths.first().map(PathBuf::from));
        let path = variables::value_of(variable).map(PathBuf::from);
        Tool {
            path: path.or(default).unwrap_or_default(),
            name,
        }
    }

    /// Returns the call as a command line, for people.
    pub(super) fn command_line<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        let words = args.iter().map(|arg| arg.as_ref().to_string_lossy());
        let words = std::iter::once(self.name.into()).chain(words);
        words.collect::<Vec<_>>().join(" ")
    }

    /// Returns the command, not yet started.
    pub(super) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args);
        command
    }

    /// Runs the program, with a time limit. Its messages are in English (`LC_ALL=C`).
    pub(super) fn call<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<ToolOutput, ToolError> {
        let limit = timeouts::call_limit();
        let mut command = self.command(args);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| ToolError::Start {
            path: self.path.clone(),
            error,
        })?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let Some(status) = wait(&mut child, limit) else {
            let _ = child.kill();
            let _ = child.wait();
            let call = self.command_line(args);
            return Err(ToolError::TimedOut { call, limit });
        };
        let answer = ToolOutput {
            code: status.code().unwrap_or(-1),
            stdout: received_text(&stdout),
            stderr: received_text(&stderr),
        };
        log::debug!("{} exits with {}", self.command_line(args), answer.code);
        Ok(answer)
    }
}

/// Waits for a child with a time limit. std has no such wait, so the child is polled at growing intervals.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let left = end.checked_duration_since(Instant::now())?;
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, all) = channel();
    // If no thread can be started, the output counts as empty.
    let _ = thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    all
}

/// Returns the output. The wait is limited, because a child of the program may keep the pipe open after its end.
fn received_text(all: &Receiver<Vec<u8>>) -> String {
    let bytes = all.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
