//! The log: writes to stderr, and to a capped file of its own if nothing else keeps what is written to stderr.
//!
//! launchd never rotates the file that it redirects stderr to, and a program that runs because the disk is full must
//! not fill it. So the size of the file is limited. A full disk stops nothing.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use orphand::store::capped_file::CappedFile;
use orphand::store::folders::Folders;
use orphand::sys::mutex::guard;

use super::{service_notify, suspend};
use crate::cli::config::{LogFile, LogSettings};
use crate::cli::options::OutputOptions;
use crate::cli::output::wrap::{terminal_width, wrapped};
use crate::cli::variables;

/// The name of the file in its folder.
pub(crate) const FILE: &str = "orphand.log";

struct Logger {
    stderr: env_logger::Logger,
    file: Mutex<Option<CappedFile>>,
    /// True if it was reported that the file cannot be written.
    reported: AtomicBool,
    /// True if the command line or `ORPHAND_LOG` sets the level.
    is_level_set: bool,
    repeats: Mutex<RepeatLimiter>,
}

/// Limits how often messages about single temps are written to stderr, by the source line that they come from. On a
/// full disk there may be a message for each temp.
#[derive(Default)]
struct RepeatLimiter(HashMap<(String, u32), RepeatCount>);

struct RepeatCount {
    since: Instant,
    count: u32,
}

/// The treatment of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RepeatAction {
    Write,
    /// Write it, and add that no more of its kind follow.
    WriteAsLast,
    Skip,
}

/// The largest number of messages of one kind that are written within `WINDOW`.
const MAX_REPEATS: u32 = 8;
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// The modules whose messages concern single temps.
const TEMP_MODULES: [&str; 6] = [
    "orphand::reap",
    "orphand::engine::pass",
    "orphand::engine::recover",
    "orphand::engine::limits",
    "orphand::store::journal",
    "orphand::evidence",
];

impl RepeatLimiter {
    fn count(&mut self, location: (String, u32), now: Instant) -> RepeatAction {
        let new = || RepeatCount {
            since: now,
            count: 0,
        };
        let entry = self.0.entry(location).or_insert_with(new);
        if now.saturating_duration_since(entry.since) >= WINDOW {
            *entry = new();
        }
        entry.count = entry.count.saturating_add(1);
        match entry.count.cmp(&MAX_REPEATS) {
            std::cmp::Ordering::Less => RepeatAction::Write,
            std::cmp::Ordering::Equal => RepeatAction::WriteAsLast,
            std::cmp::Ordering::Greater => RepeatAction::Skip,
        }
    }
}

static LOG: OnceLock<Logger> = OnceLock::new();

/// Starts logging to stderr, with the level of `ORPHAND_LOG` or of the command line.
pub(crate) fn init(output: &OutputOptions) {
    let typed = match (output.quiet, output.verbose) {
        (true, _) => Some(LevelFilter::Error),
        (false, 0) => None,
        (false, 1) => Some(LevelFilter::Info),
        (false, _) => Some(LevelFilter::Debug),
    };
    let has_variable = is_level_in_variable();
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Trace)
        .filter_module("notify", LevelFilter::Warn)
        .format_target(false);
    if has_variable {
        builder.parse_env(env_logger::Env::new().filter("ORPHAND_LOG"));
    }
    let is_detailed = output.verbose > 1 || has_variable;
    if io::stderr().is_terminal() && !is_detailed {
        builder.format(|to, record| {
            suspend::make_room_for_message();
            let style = to.default_level_style(record.level());
            let level = level_word(record.level());
            let line = format!("{style}{level}{style:#}: {}", record.args());
            writeln!(to, "{}", wrapped(&line, terminal_width(io::stderr())))
        });
    }
    if service_notify::is_journal(io::stderr()) {
        // The journal adds the time to each line.
        builder.format(|to, record| {
            let priority = service_notify::priority(record.level());
            writeln!(to, "{priority}{}", record.args())
        });
    }
    let stderr = builder.build();
    let max_level = match has_variable {
        true => stderr.filter(),
        false => typed.unwrap_or(LevelFilter::Warn),
    };
    let logger = LOG.get_or_init(|| Logger {
        stderr,
        file: Mutex::new(None),
        reported: AtomicBool::new(false),
        is_level_set: has_variable || typed.is_some(),
        repeats: Mutex::default(),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(max_level);
    }
}

/// Returns the word at the start of a message on a terminal, which is that of an error that ends a command.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "note",
        Level::Debug | Level::Trace => "debug",
    }
}

/// Reports whether `ORPHAND_LOG` sets the level. A word that is not a level is reported, and the variable is ignored:
/// with such a word env_logger would log nothing.
fn is_level_in_variable() -> bool {
    let Some(filter) = variables::value_of("ORPHAND_LOG") else {
        return false;
    };
    let filter = filter.to_string_lossy();
    let wrong = wrong_level(&filter);
    if let Some(word) = wrong {
        let _ = writeln!(
            io::stderr(),
            "warning: ORPHAND_LOG has no effect: {word:?} is not a level; write off, error, warn, info, debug or trace, \
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

/// Applies the settings of the configuration to the log of a background watcher.
pub(crate) fn configure(settings: &LogSettings, folders: &Folders) {
    let Some(logger) = LOG.get() else {
        return;
    };
    if !logger.is_level_set {
        log::set_max_level(settings.level.into());
    }
    let path = match &settings.file {
        LogFile::Off => None,
        LogFile::At(path) => Some(path.clone()),
        LogFile::Default if is_stderr_kept() => None,
        LogFile::Default => default_path(folders),
    };
    let mut file = guard(&logger.file);
    *file = path.map(|path| CappedFile::new(path, settings.max_size));
}

/// Returns the path of the log file if the configuration sets none: the system's folder for logs.
pub(crate) fn default_path(folders: &Folders) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        return Some(home.join("Library/Logs/orphand").join(FILE));
    }
    Some(folders.state.as_deref()?.join(FILE))
}

/// Returns the path of the log file, if there is one.
pub(crate) fn path() -> Option<PathBuf> {
    let file = LOG.get()?.file.lock();
    let file = file.unwrap_or_else(PoisonError::into_inner);
    file.as_ref().map(|file| file.path().to_owned())
}

/// Appends `line`, which is also printed on stdout, to the log file, if there is one.
pub(crate) fn append(line: &str) {
    if let Some(logger) = LOG.get() {
        logger.append(line);
    }
}

/// Reports whether stderr is a terminal or systemd's journal, so that no file is needed.
fn is_stderr_kept() -> bool {
    io::stderr().is_terminal() || service_notify::is_journal(io::stderr())
}

impl Logger {
    fn repeat_action(&self, record: &Record<'_>) -> RepeatAction {
        let is_of_temps = |module: &&str| record.target().starts_with(*module);
        if record.level() > Level::Warn || !TEMP_MODULES.iter().any(is_of_temps) {
            return RepeatAction::Write;
        }
        let location = (
            record.file().unwrap_or_default().to_owned(),
            record.line().unwrap_or_default(),
        );
        let mut repeats = guard(&self.repeats);
        repeats.count(location, Instant::now())
    }

    fn append(&self, line: &str) {
        let file = guard(&self.file);
        let Some(file) = file.as_ref() else {
            return;
        };
        let now = orphand::store::json::time(orphand::sys::clock::wall());
        match file.append(format!("{now}  {line}\n").as_bytes()) {
            Ok(()) => self.reported.store(false, Ordering::Relaxed),
            Err(error) if self.reported.swap(true, Ordering::Relaxed) => drop(error),
            Err(error) => {
                // Not through the log, which would call this function again.
                let path = file.path();
                let _ = writeln!(io::stderr(), "cannot write the log {path:?}: {error}");
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.stderr.matches(record) {
            return;
        }
        let repeat = self.repeat_action(record);
        if repeat != RepeatAction::Skip {
            self.stderr.log(record);
        }
        if repeat == RepeatAction::WriteAsLast {
            let more = format_args!("further messages of this kind are not shown for an hour");
            let builder = &mut Record::builder();
            self.stderr
                .log(&builder.level(record.level()).args(more).build());
        }
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
    use super::*;

    #[test]
    fn words_that_are_not_levels_are_found() {
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

    /// Each kind of message has its own limit.
    #[test]
    fn messages_about_single_temps_are_limited() {
        let began = Instant::now();
        let mut repeats = RepeatLimiter::default();
        let location = |line| ("src/reap/mod.rs".to_owned(), line);
        for line in [1, 2] {
            let actions = (0..1_000).map(|_| repeats.count(location(line), began));
            let actions: Vec<RepeatAction> = actions.collect();
            let written = actions
                .iter()
                .filter(|action| **action != RepeatAction::Skip);
            assert_eq!(written.count(), MAX_REPEATS as usize);
            assert_eq!(actions[MAX_REPEATS as usize - 1], RepeatAction::WriteAsLast);
        }
        let later = began + WINDOW;
        assert_eq!(repeats.count(location(1), later), RepeatAction::Write);
        assert_eq!(repeats.count(location(3), began), RepeatAction::Write);
    }
}
