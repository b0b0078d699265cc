//! Asks the running watchers for their status.

use orphand::core::sort::sort_by;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::store::folders::Folders;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;

use crate::cli::runtime::status_answer::WatchAnswer;
use crate::cli::runtime::status_server::{PREFIX, SUFFIX};

/// A running watcher.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunningWatch {
    #[serde(flatten)]
    pub(crate) answer: WatchAnswer,
    /// The program file has been replaced since the watcher started, as by an upgrade.
    #[serde(rename = "outdated")]
    pub(crate) is_outdated: bool,
    /// Its stdin is a terminal, so it is in the foreground, whatever directories it watches.
    #[serde(skip)]
    pub(crate) has_terminal: bool,
}

/// The time limit for an answer. A watcher answers from memory, so one that takes longer hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The most bytes that are read of an answer, more than any answer has.
const LARGEST: u64 = 64_000_000;

/// Returns all watchers of this user that answer, the background watcher first.
pub(crate) fn running(folders: &Folders) -> Vec<RunningWatch> {
    let Some(runtime) = &folders.runtime else {
        return Vec::new();
    };
    let mut found: Vec<RunningWatch> = sockets(runtime)
        .iter()
        .filter_map(|socket| match query(socket) {
            Ok(watch) => Some(watch),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // The watcher was killed and left its socket, or it has just created the socket and does not listen
                // yet.
                if !is_running(socket) {
                    let _ = fs::remove_file(socket);
                }
                None
            }
            Err(error) => {
                log::warn!("{socket:?} does not answer: {error}");
                None
            }
        })
        .collect();
    let key = |one: &RunningWatch| (!one.answer.is_background, one.answer.pid);
    sort_by(&mut found, |a, b| key(a).cmp(&key(b)));
    found
}

fn sockets(runtime: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(runtime).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    };
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// Reports whether a process with the pid in the name of the socket is running.
fn is_running(socket: &Path) -> bool {
    let name = socket.file_name().and_then(|name| name.to_str());
    let pid = name.and_then(|name| {
        name.strip_prefix(PREFIX)?
            .strip_suffix(SUFFIX)?
            .parse()
            .ok()
    });
    let pid = pid.and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

fn query(socket: &Path) -> io::Result<RunningWatch> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut text = Vec::new();
    stream.take(LARGEST).read_to_end(&mut text)?;
    let mut answer: WatchAnswer = serde_json::from_slice(&text)?;
    Ok(RunningWatch {
        is_outdated: answer.program.is_replaced(),
        has_terminal: std::mem::take(&mut answer.has_terminal),
        answer,
    })
}
