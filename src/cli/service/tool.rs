//! Programs of the system: launchctl, systemctl, journalctl. Each call has a time limit.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::waits;
use crate::cli::{text, variables};

/// A program of the system, by its absolute path: what stands first in PATH may be anybody's.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    path: PathBuf,
    name: &'static str,
}

/// How a call ended.
#[derive(Clone, Debug, Default)]
pub(super) struct ToolOutput {
    /// Its exit code; -1 if a signal ended it.
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why a call did not end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("{path:?} cannot be started: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("{call:?} has not answered for {}", text::span(*limit))]
    TimedOut { call: String, limit: Duration },
}

impl Tool {
    /// The program that the variable names, else the first of `paths` that exists.
    pub(super) fn find(name: &'static str, variable: &str, paths: &[&str]) -> Tool {
        let there = paths.iter().map(PathBuf::from).find(|path| path.exists());
        let usual = there.or_else(|| paths.first().map(PathBuf::from));
        let path = variables::set(variable).map(PathBuf::from);
        Tool {
            path: path.or(usual).unwrap_or_default(),
            name,
        }
    }

    /// How a person types this call.
    pub(super) fn command_line<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        let words = args.iter().map(|arg| arg.as_ref().to_string_lossy());
        let words = std::iter::once(self.name.into()).chain(words);
        words.collect::<Vec<_>>().join(" ")
    }

    /// Not yet started.
    pub(super) fn command(&self, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args);
        command
    }

    /// Whether it could not be started because it is not there.
    pub(super) fn is_missing(&self) -> bool {
        !self.path.exists()
    }

    /// Runs it to its end, but not longer than the limit. What it prints is in plain English.
    pub(super) fn call(&self, args: &[OsString]) -> Result<ToolOutput, ToolError> {
        let limit = waits::call_limit();
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
        log::debug!("{} answers {}", self.command_line(args), answer.code);
        Ok(answer)
    }
}

/// std waits for a child for ever or not at all, so it is asked, ever less often.
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
    // Where there can be no more threads nothing is read, as if nothing were printed.
    let _ = thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    all
}

/// What was printed. A child of the tool's that lives on may keep the pipe open; the tool has ended.
fn received_text(all: &Receiver<Vec<u8>>) -> String {
    let bytes = all.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
