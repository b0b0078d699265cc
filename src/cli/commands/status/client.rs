//! Asks the running watchers for their status.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::store::folders::Folders;
use serde_json::Value;

use crate::cli::runtime::program::Program;
use crate::cli::runtime::status_server::{PREFIX, SUFFIX};

/// A running watcher, by its own answer.
#[derive(Clone, Debug)]
pub(crate) struct RunningWatch {
    /// The pid of its process.
    pub(crate) pid: u32,
    /// Its version, which may be older than that of this program.
    pub(crate) version: String,
    /// The program file has been replaced since the watcher started, as by an upgrade.
    pub(crate) is_outdated: bool,
    /// It watches the directories of the configuration file, not directories from the command line.
    pub(crate) is_background: bool,
    /// The problems that keep it from working, for people.
    pub(crate) problems: Vec<String>,
    /// The whole answer.
    pub(crate) answer: Value,
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
            Ok(answer) => Some(parse(answer)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // The watcher was killed and left its socket.
                let _ = fs::remove_file(socket);
                None
            }
            Err(error) => {
                log::warn!("{socket:?} does not answer: {error}");
                None
            }
        })
        .collect();
    found.sort_by_key(|one| (!one.is_background, one.pid));
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

fn query(socket: &Path) -> io::Result<Value> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut text = Vec::new();
    stream.take(LARGEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn parse(answer: Value) -> RunningWatch {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    let pid = answer.get("pid").and_then(Value::as_u64).unwrap_or(0);
    let program = Program {
        path: text("program").map(PathBuf::from),
        stamp: text("program_stamp"),
    };
    let trouble = answer.get("trouble").and_then(Value::as_array);
    let trouble = trouble.into_iter().flatten().filter_map(Value::as_str);
    RunningWatch {
        pid: u32::try_from(pid).unwrap_or(0),
        version: text("version").unwrap_or_default(),
        is_outdated: program.is_replaced(),
        is_background: answer.get("background").and_then(Value::as_bool) == Some(true),
        problems: trouble.map(str::to_owned).collect(),
        answer,
    }
}
