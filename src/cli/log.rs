//! The log: stderr, and a file of our own where nobody else keeps what stands there.
//!
//! launchd never rotates the file that it redirects stderr to, and a program that runs because the
//! disk is full must not fill it: the file of our own is capped, and a disk without room stops
//! nothing.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use orphand::capped::CappedFile;
use orphand::state::Folders;

use super::args::Look;
use super::config_file::{LogFile, LogSettings};
use super::{supervisor, variables};

/// The name of the file in its folder.
pub(crate) const FILE: &str = "orphand.log";

struct Both {
    stderr: env_logger::Logger,
    file: Mutex<Option<CappedFile>>,
    /// That the file cannot be written was said.
    said: AtomicBool,
    /// Somebody said on the command line or in `ORPHAND_LOG` how much is to be logged.
    chosen: bool,
}

static LOG: OnceLock<Both> = OnceLock::new();

/// Starts it: stderr, by what was typed.
pub(crate) fn start(look: &Look) {
    let typed = match (look.quiet, look.verbose) {
        (true, _) => Some(LevelFilter::Error),
        (false, 0) => None,
        (false, 1) => Some(LevelFilter::Info),
        (false, _) => Some(LevelFilter::Debug),
    };
    let variable = is_chosen();
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Trace)
        .filter_module("notify", LevelFilter::Warn)
        .format_target(false);
    if variable {
        builder.parse_env(env_logger::Env::new().filter("ORPHAND_LOG"));
    }
    if supervisor::is_journal(io::stderr()) {
        // It dates each line itself.
        builder.format(|to, record| {
            let priority = supervisor::priority(record.level());
            writeln!(to, "{priority}{}", record.args())
        });
    }
    let stderr = builder.build();
    let most = match variable {
        true => stderr.filter(),
        false => typed.unwrap_or(LevelFilter::Warn),
    };
    let both = LOG.get_or_init(|| Both {
        stderr,
        file: Mutex::new(None),
        said: AtomicBool::new(false),
        chosen: variable || typed.is_some(),
    });
    if log::set_logger(both).is_ok() {
        log::set_max_level(most);
    }
}

/// Whether `ORPHAND_LOG` says how much is logged. A word in it that is no level would mute everything.
fn is_chosen() -> bool {
    let Some(filter) = variables::set("ORPHAND_LOG") else {
        return false;
    };
    let filter = filter.to_string_lossy();
    let wrong = wrong_level(&filter);
    if let Some(word) = wrong {
        let _ = writeln!(
            io::stderr(),
            "ORPHAND_LOG has no effect: {word:?} is not a level; say off, error, warn, info, debug or trace, \
             or a module and a level, like notify=debug"
        );
    }
    wrong.is_none()
}

/// Returns the first word of a filter that is neither a level nor a module.
fn wrong_level(filter: &str) -> Option<&str> {
    let levels = filter.split('/').next().unwrap_or_default();
    let words = levels.split(',').map(str::trim);
    words.filter(|word| !word.is_empty()).find_map(|word| {
        let is_module = word.starts_with("orphand") || word.starts_with("notify");
        let level = match word.split_once('=') {
            Some((_, level)) => level.trim(),
            None if is_module => return None,
            None => word,
        };
        (!level.is_empty() && level.parse::<LevelFilter>().is_err()).then_some(level)
    })
}

/// From now on a background watcher logs as the configuration says.
pub(crate) fn settle(settings: &LogSettings, folders: &Folders) {
    let Some(both) = LOG.get() else {
        return;
    };
    if !both.chosen {
        log::set_max_level(settings.level);
    }
    let path = match &settings.file {
        LogFile::Off => None,
        LogFile::At(path) => Some(path.clone()),
        LogFile::Usual if is_kept_elsewhere() => None,
        LogFile::Usual => usual_path(folders),
    };
    let mut file = both.file.lock().unwrap_or_else(PoisonError::into_inner);
    *file = path.map(|path| CappedFile::new(path, settings.max_size));
}

/// Where it is unless the configuration says otherwise: where people look for such files.
pub(crate) fn usual_path(folders: &Folders) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        return Some(home.join("Library/Logs/orphand").join(FILE));
    }
    Some(folders.state.as_deref()?.join(FILE))
}

/// Where the file is, if there is one.
pub(crate) fn path() -> Option<PathBuf> {
    let file = LOG.get()?.file.lock();
    let file = file.unwrap_or_else(PoisonError::into_inner);
    file.as_ref().map(|file| file.path().to_owned())
}

/// Writes `line`, which stands on stdout, to the file as well, if there is one.
pub(crate) fn also(line: &str) {
    if let Some(both) = LOG.get() {
        both.append(line);
    }
}

/// A person reads stderr, or the journal keeps it.
fn is_kept_elsewhere() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal() || supervisor::is_journal(io::stderr())
}

impl Both {
    fn append(&self, line: &str) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_ref() else {
            return;
        };
        let now = orphand::json::time(orphand::clock::wall());
        match file.append(format!("{now}  {line}\n").as_bytes()) {
            Ok(()) => self.said.store(false, Ordering::Relaxed),
            Err(error) if self.said.swap(true, Ordering::Relaxed) => drop(error),
            Err(error) => {
                // Not through the log: it would come here again.
                let path = file.path();
                let _ = writeln!(io::stderr(), "the log {path:?} cannot be written: {error}");
            }
        }
    }
}

impl Log for Both {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.stderr.matches(record) {
            return;
        }
        self.stderr.log(record);
        let word = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "note",
            Level::Debug | Level::Trace => "debug",
        };
        self.append(&format!("{word}: {}", record.args()));
    }

    fn flush(&self) {
        self.stderr.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::wrong_level;

    #[test]
    fn a_filter_has_levels_and_modules() {
        for (filter, wrong) in [
            ("info", None),
            ("WARN", None),
            ("off", None),
            ("info,notify=debug", None),
            ("notify", None),
            ("orphand::daemon=trace", None),
            ("info/regex", None),
            ("bogus", Some("bogus")),
            ("info,bogus", Some("bogus")),
            ("notify=loud", Some("loud")),
        ] {
            assert_eq!(wrong_level(filter), wrong, "{filter}");
        }
    }
}
