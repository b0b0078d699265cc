//! `install` and `uninstall`.

use std::fs;
use std::path::{Path, PathBuf};

use orphand::journal::Journal;
use orphand::reap::quarantine::Quarantine;
use orphand::root::absolute;
use orphand::state::Folders;
use rustix::process::geteuid;

use super::control::{self, UnitState};
use super::job::Scope;
use super::messages::Messages;
use super::paths::{ServiceManager, ServicePaths};
use super::{file, program, start, systemd};
use crate::cli::config_file::{Config, ConfigError};
use crate::cli::quarantines::Quarantines;
use crate::cli::shell::{self, Suggestion};
use crate::cli::text::{counted, escaped};
use crate::cli::{Exit, Failure};

/// Writes the service file and starts what it says. Twice does no more than once.
pub(super) fn install(
    place: &ServicePaths,
    config: Option<&Path>,
    folders: &Folders,
    voice: &Messages,
) -> Result<Exit, Failure> {
    let named = config.map(absolute);
    let config = load(place, named.as_deref())?;
    check_user(place, voice)?;
    check_alone(place)?;
    let job = place.job(program::current()?, named.clone());
    check_program(place, &job.program, voice)?;
    let text = place.render(&job).map_err(failed)?;
    let control = control::of(place);
    let found = control.state()?;
    let path = place.file();
    let before = super::installed_unit(place);
    let there = place
        .installed()
        .map_err(|error| unreadable(&path, &error))?;
    let same = there.as_deref() == Some(text.as_bytes());
    if same && is_up_to_date(&found) {
        let pid = found
            .pid
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        voice.line(&format!(
            "Already up to date{pid}: {}. Nothing was changed.",
            escaped(&path)
        ));
        voice.line(&config_line(place, &config, named.as_deref()));
        return Ok(Exit::Done);
    }
    voice.line(&config_line(place, &config, named.as_deref()));
    if !same {
        write_file(place, &path, &text)?;
    }
    let noun = capitalized(place.kind_name());
    let done = match before.filter(|before| before.program != job.program) {
        Some(before) => format!("written; before, it started {}", escaped(&before.program)),
        None if same => "unchanged".to_owned(),
        None => "written".to_owned(),
    };
    voice.line(&format!("{noun:<10} {}  {done}", escaped(&path)));
    let version = env!("CARGO_PKG_VERSION");
    voice.line(&format!(
        "Program    {}  ({version})",
        escaped(&job.program)
    ));
    if let (ServiceManager::Launchd, Some(log)) = (place.manager, place.log(folders)) {
        voice.line(&format!("Log        {}", escaped(&log)));
    }
    control.load(&found)?;
    start::wait_until_running(place, folders, control.as_ref(), found.pid, voice)?;
    voice.line("");
    voice.line(post_install_hint(place));
    for (what, verb) in [
        ("See it", "status"),
        ("Stop it", "stop"),
        ("Remove it", "uninstall"),
    ] {
        voice.line(&format!("{what:<10} {}", place.command(verb)));
    }
    Ok(Exit::Done)
}

fn write_file(place: &ServicePaths, path: &Path, text: &str) -> Result<(), Failure> {
    check_own(place, path)?;
    let crashes = place.crash_log();
    if let (ServiceManager::Launchd, Some(folder)) = (place.manager, crashes.parent()) {
        // Without it launchd starts nothing, and says 78.
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    file::write(path, text).map_err(|error| unwritable(path, &error))
}

fn is_up_to_date(state: &UnitState) -> bool {
    state.loaded && !state.is_stale && state.enabled != Some(false) && state.running != Some(false)
}

/// What the service will read: the named file, which must be there, or the usual one of its place.
fn load(place: &ServicePaths, named: Option<&Path>) -> Result<Config, ConfigError> {
    match (named, place.scope) {
        (None, Scope::System) => match place.usual_config() {
            Some(usual) if usual.exists() => Config::load(Some(&usual)),
            _ => Ok(Config::default()),
        },
        (named, _) => Config::load(named),
    }
}

fn config_line(place: &ServicePaths, config: &Config, named: Option<&Path>) -> String {
    let usual = place.usual_config().unwrap_or_default();
    let path = config.path.as_deref().or(named).unwrap_or(&usual);
    let what = match (&config.path, config.watch.len() as u64) {
        (None, _) => {
            let init = Suggestion::new("config init");
            let init = match place.scope {
                Scope::User => init.configured().to_string(),
                Scope::System => format!("ORPHAND_CONFIG={} {init}", shell::word(path)),
            };
            format!("is not there, so it watches nothing yet.   make it:   {init}")
        }
        (Some(_), 0) => "lists no directory, so it watches nothing until one is added".to_owned(),
        (Some(_), rules) => format!("({})", counted(rules, "directory", "directories")),
    };
    format!("Config     {}  {what}", escaped(path))
}

/// Refuses what would end in a file that is not this user's.
fn check_user(place: &ServicePaths, voice: &Messages) -> Result<(), Failure> {
    let is_root = geteuid().is_root();
    match place.scope {
        Scope::System if !is_root => Err(Failure::new(
            Exit::Failed,
            format!(
                "a service of the whole machine is root's to install:   sudo {}\n  \
                 for this user alone:   orphand service install",
                place.command("install")
            ),
        )),
        Scope::User if !place.is_home_ours() => Err(Failure::new(
            Exit::Failed,
            format!(
                "{:?} belongs to another user, and so would the service\n  \
                 for that user:   orphand service install   (without sudo)\n  \
                 for the whole machine:   sudo orphand service install --system",
                place.home()
            ),
        )),
        Scope::User if is_root => {
            voice.warn(
                "this is root's own service, and runs while root is logged in. One that runs from \
                 boot on, for files of all users:   orphand service install --system",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses to be the second.
fn check_alone(place: &ServicePaths) -> Result<(), Failure> {
    let Some(theirs) = place.homebrew_file() else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Busy,
        format!(
            "Homebrew has a service for orphand already: {theirs:?}. Two watchers on the same \
             directories are not allowed\n  \
             use that one:   brew services restart orphand\n  \
             or this one:    brew services stop orphand && {}",
            place.command("install")
        ),
    ))
}

/// Refuses a program that the supervisor would not start, and warns of one that will be gone.
fn check_program(place: &ServicePaths, program: &Path, voice: &Messages) -> Result<(), Failure> {
    let refused = place.manager == ServiceManager::Systemd
        && program
            .to_str()
            .is_some_and(|program| !systemd::is_startable(program));
    if refused {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "systemd starts no program with a quote or a backslash in its path: {program:?}; \
                 move it, then install again"
            ),
        ));
    }
    if let Some(doubt) = program::temporary_place(program) {
        voice.warn(&format!(
            "{program:?} lies in {doubt}; the service ends with it. Put orphand where it stays \
             (cargo install does), and install from there"
        ));
    }
    Ok(())
}

/// Refuses to replace a link: who keeps service files elsewhere wants to change them there.
fn check_own(place: &ServicePaths, path: &Path) -> Result<(), Failure> {
    let Ok(leads_to) = fs::read_link(path) else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Failed,
        format!(
            "{path:?} is a link to {leads_to:?}, and does not say what would be installed now\n  \
             change it there:   {} > {}\n  \
             or give it up:     rm {}",
            place.command("print"),
            shell::word(&leads_to),
            shell::word(path)
        ),
    ))
}

fn post_install_hint(place: &ServicePaths) -> &'static str {
    match (place.manager, place.scope) {
        (ServiceManager::Launchd, _) => "macOS will show \"Background Items Added\"; that is this.",
        (ServiceManager::Systemd, Scope::User) => {
            "It runs while you are logged in. On a server, to run it always:   loginctl enable-linger"
        }
        (ServiceManager::Systemd, Scope::System) => "It starts by itself at every boot.",
    }
}

/// Ends the service and removes its file, and says what stays.
pub(super) fn uninstall(
    place: &ServicePaths,
    folders: &Folders,
    voice: &Messages,
) -> Result<Exit, Failure> {
    check_user_to_remove(place)?;
    let path = place.file();
    let is_there = path.symlink_metadata().is_ok();
    let started = super::installed_unit(place);
    let control = control::of(place);
    let found = control.state();
    // launchd keeps a job whose file somebody has removed.
    let is_left_over = matches!(&found, Ok(found) if found.domain.is_some());
    if !is_there && !is_left_over {
        voice.line(&format!(
            "Not installed: there is no {}. Nothing was changed.",
            escaped(&path)
        ));
        return Ok(Exit::Done);
    }
    control.disable(&found?)?;
    if is_there {
        fs::remove_file(&path).map_err(|error| unwritable(&path, &error))?;
        control.file_removed()?;
    }
    voice.line(&format!("Removed    {}", escaped(&path)));
    let config = started.and_then(|started| started.config);
    let left = remaining(place, config, folders);
    if !left.is_empty() {
        voice.line("\nStill there, and how to remove it:");
    }
    for (what, command) in left {
        voice.line(&format!("{what:<10} {command}"));
    }
    Ok(Exit::Done)
}

fn check_user_to_remove(place: &ServicePaths) -> Result<(), Failure> {
    match place.scope == Scope::System && !geteuid().is_root() {
        true => Err(Failure::new(
            Exit::Failed,
            format!(
                "a service of the whole machine is root's to remove:   sudo {}",
                place.command("uninstall")
            ),
        )),
        false => Ok(()),
    }
}

/// What the service leaves behind, each with the command that removes it.
fn remaining(
    place: &ServicePaths,
    config: Option<PathBuf>,
    ours: &Folders,
) -> Vec<(&'static str, String)> {
    let folders = place.folders(ours);
    let path = config.or_else(|| place.usual_config());
    let mut left = Vec::new();
    // A wrong file names no roots; those of the journal are found all the same.
    let config = path
        .as_deref()
        .and_then(|path| Config::load(Some(path)).ok());
    let journal = Journal::new(folders.state.as_deref());
    let quarantines = Quarantines::known(&config.unwrap_or_default(), &journal, None);
    let held: usize = quarantines.roots().map(|root| stored_files(root)).sum();
    if held > 0 {
        let files = counted(held as u64, "file", "files");
        left.push((
            "Quarantine",
            format!("orphand quarantine purge   ({files})"),
        ));
    }
    if let Some(path) = path.filter(|path| path.exists()) {
        left.push(("Config", format!("rm {}", shell::word(&path))));
    }
    let state = folders.state.filter(|state| state.exists());
    if let Some(state) = &state {
        left.push(("Journal", format!("rm -r {}", shell::word(state))));
    }
    let logs = [place.log(ours), Some(place.crash_log())]
        .into_iter()
        .flatten();
    let mut logs: Vec<PathBuf> = logs
        .filter_map(|log| log.parent().map(Path::to_owned))
        .collect();
    logs.dedup();
    for logs in logs
        .into_iter()
        .filter(|logs| logs.exists() && Some(logs) != state.as_ref())
    {
        left.push(("Log", format!("rm -r {}", shell::word(&logs))));
    }
    left
}

fn stored_files(root: &Path) -> usize {
    let Ok(Some(room)) = Quarantine::open_existing(root, None) else {
        return 0;
    };
    room.stored().map_or(0, |stored| stored.len())
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!(
        "{path:?} cannot be read: {error}; check its permissions"
    ))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!(
        "{path:?} cannot be changed: {error}; check the permissions of its folder"
    ))
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
