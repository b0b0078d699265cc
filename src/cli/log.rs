//! The log: stderr, and a file of our own where nobody else keeps what stands there.
//!
//! launchd never rotates the file that it redirects stderr to, and a program that runs because the
//! disk is full must not fill it: the file of our own is capped, and a disk without room stops
//! nothing.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use orphand::capped::CappedFile;
use orphand::state::Folders;

use super::args::OutputOptions;
use super::config_file::{LogFile, LogSettings};
use super::{service_notify, variables};

/// The name of the file in its folder.
pub(crate) const FILE: &str = "orphand.log";

struct Logger {
    stderr: env_logger::Logger,
    file: Mutex<Option<CappedFile>>,
    /// That the file cannot be written was said.
    reported: AtomicBool,
    /// Somebody said on the command line or in `ORPHAND_LOG` how much is to be logged.
    is_level_set: bool,
    repeats: Mutex<RepeatLimiter>,
}

/// Messages about single temps that were written to stderr, by the place in the source that they come from. On a
/// full disk there may be one for each temp.
#[derive(Default)]
struct RepeatLimiter(HashMap<(String, u32), RepeatCount>);

struct RepeatCount {
    since: Instant,
    count: u32,
}

/// The decision about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RepeatAction {
    Write,
    /// It is written, and so is that those which follow are not.
    WriteAsLast,
    Skip,
}

/// The largest number of messages of one kind that are written in `WINDOW`.
const MAX_REPEATS: u32 = 8;
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// The modules whose messages are about single temps.
const TEMP_MODULES: [&str; 4] = [
    "orphand::reap",
    "orphand::pass",
    "orphand::journal",
    "orphand::evidence",
];

impl RepeatLimiter {
    fn count(&mut self, place: (String, u32), now: Instant) -> RepeatAction {
        let new = || RepeatCount {
            since: now,
            count: 0,
        };
        let seen = self.0.entry(place).or_insert_with(new);
        if now.saturating_duration_since(seen.since) >= WINDOW {
            *seen = new();
        }
        seen.count = seen.count.saturating_add(1);
        match seen.count.cmp(&MAX_REPEATS) {
            std::cmp::Ordering::Less => RepeatAction::Write,
            std::cmp::Ordering::Equal => RepeatAction::WriteAsLast,
            std::cmp::Ordering::Greater => RepeatAction::Skip,
        }
    }
}

static LOG: OnceLock<Logger> = OnceLock::new();

/// Starts it: stderr, by what was typed.
pub(crate) fn init(look: &OutputOptions) {
    let typed = match (look.quiet, look.verbose) {
        (true, _) => Some(LevelFilter::Error),
        (false, 0) => None,
        (false, 1) => Some(LevelFilter::Info),
        (false, _) => Some(LevelFilter::Debug),
    };
    let variable = is_level_in_variable();
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Trace)
        .filter_module("notify", LevelFilter::Warn)
        .format_target(false);
    if variable {
        builder.parse_env(env_logger::Env::new().filter("ORPHAND_LOG"));
    }
    if service_notify::is_journal(io::stderr()) {
        // It dates each line itself.
        builder.format(|to, record| {
            let priority = service_notify::priority(record.level());
            writeln!(to, "{priority}{}", record.args())
        });
    }
    let stderr = builder.build();
    let most = match variable {
        true => stderr.filter(),
        false => typed.unwrap_or(LevelFilter::Warn),
    };
    let both = LOG.get_or_init(|| Logger {
        stderr,
        file: Mutex::new(None),
        reported: AtomicBool::new(false),
        is_level_set: variable || typed.is_some(),
        repeats: Mutex::default(),
    });
    if log::set_logger(both).is_ok() {
        log::set_max_level(most);
    }
}

/// Whether `ORPHAND_LOG` says how much is logged. A word in it that is no level would mute everything.
fn is_level_in_variable() -> bool {
    let Some(filter) = variables::value_of("ORPHAND_LOG") else {
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
pub(crate) fn configure(settings: &LogSettings, folders: &Folders) {
    let Some(both) = LOG.get() else {
        return;
    };
    if !both.is_level_set {
        log::set_max_level(settings.level);
    }
    let path = match &settings.file {
        LogFile::Off => None,
        LogFile::At(path) => Some(path.clone()),
        LogFile::Default if is_stderr_kept() => None,
        LogFile::Default => default_path(folders),
    };
    let mut file = both.file.lock().unwrap_or_else(PoisonError::into_inner);
    *file = path.map(|path| CappedFile::new(path, settings.max_size));
}

/// Where it is unless the configuration says otherwise: where people look for such files.
pub(crate) fn default_path(folders: &Folders) -> Option<PathBuf> {
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
pub(crate) fn append(line: &str) {
    if let Some(both) = LOG.get() {
        both.append(line);
    }
}

/// A person reads stderr, or the journal keeps it.
fn is_stderr_kept() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal() || service_notify::is_journal(io::stderr())
}

impl Logger {
    fn repeat_action(&self, record: &Record<'_>) -> RepeatAction {
        let is_of_temps = |module: &&str| record.target().starts_with(*module);
        if record.level() > Level::Warn || !TEMP_MODULES.iter().any(is_of_temps) {
            return RepeatAction::Write;
        }
        let place = (
            record.file().unwrap_or_default().to_owned(),
            record.line().unwrap_or_default(),
        );
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        repeats.count(place, Instant::now())
    }

    fn append(&self, line: &str) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_ref() else {
            return;
        };
        let now = orphand::json::time(orphand::clock::wall());
        match file.append(format!("{now}  {line}\n").as_bytes()) {
            Ok(()) => self.reported.store(false, Ordering::Relaxed),
            Err(error) if self.reported.swap(true, Ordering::Relaxed) => drop(error),
            Err(error) => {
                // Not through the log: it would come here again.
                let path = file.path();
                let _ = writeln!(io::stderr(), "the log {path:?} cannot be written: {error}");
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
            let more = format_args!("more messages of this kind are not shown for an hour");
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

    /// However many temps there are, and however many kinds of messages about each.
    #[test]
    fn messages_about_single_temps_are_not_repeated_without_end() {
        let began = Instant::now();
        let mut repeats = RepeatLimiter::default();
        let place = |line| ("src/reap/mod.rs".to_owned(), line);
        for line in [1, 2] {
            let told = (0..1_000).map(|_| repeats.count(place(line), began));
            let told: Vec<RepeatAction> = told.collect();
            let written = told.iter().filter(|told| **told != RepeatAction::Skip);
            assert_eq!(written.count(), MAX_REPEATS as usize);
            assert_eq!(told[MAX_REPEATS as usize - 1], RepeatAction::WriteAsLast);
        }
        let later = began + WINDOW;
        assert_eq!(repeats.count(place(1), later), RepeatAction::Write);
        assert_eq!(repeats.count(place(3), began), RepeatAction::Write);
    }
}
