//! `orphand doctor`: what would keep it from working, each with its cure.
//!
//! Facts are gathered by a thin shell ([`visit`], and `system` for what differs between systems);
//! what they mean is decided by one pure function a subject. Nothing that is there is changed, and
//! nothing is made but one file in each root, which is gone again at once ([`trial`]).
//!
//! What is what:
//!
//! - **trouble**: orphand does not work on a root, or would keep everything in it. A wrong
//!   configuration, a root that is missing, refused, silent, unreadable or not writable, a file
//!   system on which nothing is proven, a proof that fails when it is tried, leases that are
//!   switched off, a service file that starts nothing. Exit 3.
//! - **warning**: it works, but later (inotify's limits: scanned by time instead), with less (no
//!   names of holders, no journal, no lock, no quarantine; on overlayfs a quarantine instead of a
//!   deletion), or with a risk that the proof cannot see (exported folders, trusted file systems,
//!   wrong clocks). A full disk is one too: that is when deletions are wanted, and they still work.
//! - **ok**: what was measured, and limits that nobody can do anything about and nobody need.

use std::path::PathBuf;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use orphand::clock as time;
use orphand::root::absolute;
use orphand::state::Folders;
use serde_json::{Value, json};

use super::args::OutputOptions;
use super::config_file::Config;
use super::event_printer::EventPrinter;
use super::{Exit, Failure, text};
use check::{Check, CheckState};
use root_report::{CheckedRoot, RootReport};

mod access;
mod check;
mod clock;
mod descriptors;
mod disk;
mod folders;
#[cfg(any(target_os = "linux", test))]
mod kernel;
mod lease_probe;
#[cfg(any(target_os = "linux", test))]
mod limits;
mod names;
mod orphands;
#[cfg(any(target_os = "macos", test))]
mod privacy;
mod proof_check;
mod root_report;
mod settings;
mod sharing;
mod tree;
#[cfg(any(target_os = "linux", test))]
mod visibility;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

/// What was typed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing that is there is changed. In each directory one empty file, .orphand-doctor-<random>, is made
and removed again at once, to try whether the proof that nobody holds a file works there; of that the
date of the directory remains.

Exit: 0 where orphand works, also with warnings · 3 where it does not, or would keep everything

Examples:
  orphand doctor                 this machine, and what the configuration file lists
  orphand doctor -q ~/.app       only what is wrong there
  orphand doctor --json | jq '.checks[] | select(.state != \"ok\")'")]
pub(crate) struct Doctor {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

pub(super) fn run(command: &Doctor, look: &OutputOptions) -> Result<Exit, Failure> {
    let folders = Folders::from_env();
    let explicit = command.config.clone();
    let file = explicit.clone().or_else(Config::usual_path);
    let read = root_report::within_limit(move || Config::load(explicit.as_deref()));
    let named = !command.dirs.is_empty();
    let mut checks = vec![match &read {
        Some(read) => settings::judge(read, file.as_deref(), named),
        None => root_report::no_answer("config", &file.unwrap_or_default()),
    }];
    let config = read.and_then(Result::ok).unwrap_or_default();
    let wards = checked_roots(command, &config)?;
    let dirs: Vec<PathBuf> = wards.iter().map(|ward| ward.path.clone()).collect();
    let visited = root_report::check_all(wards);
    checks.extend(system::machine_checks(visited.directories));
    checks.extend(machine_checks(&folders, &dirs));
    checks.extend(service_checks(&folders));
    let exit = match root_report::worst(&checks).max(root_report::worst(&visited.checks)) {
        CheckState::Error => Exit::Partly,
        CheckState::Ok | CheckState::Warning => Exit::Done,
    };
    print_report(look, checks, visited)?;
    Ok(exit)
}

/// The directories that were given, else those of the file. One that the file lists has its rule.
fn checked_roots(command: &Doctor, config: &Config) -> Result<Vec<CheckedRoot>, Failure> {
    let paths: Vec<PathBuf> = match command.dirs.is_empty() {
        true => config.watch.iter().map(|rule| rule.path.clone()).collect(),
        false => command.dirs.iter().map(|dir| absolute(dir)).collect(),
    };
    let mut wards: Vec<CheckedRoot> = Vec::new();
    for path in paths {
        if wards.iter().any(|known| known.path == path) {
            continue;
        }
        let rule = config.watch.iter().find(|rule| rule.path == path);
        let settings = rule.map(|rule| rule.settings.clone()).unwrap_or_default();
        let settings = settings.over(&config.defaults);
        wards.push(CheckedRoot {
            path,
            policy: Arc::new(settings.policy()?),
            // A default is meant for no directory in particular.
            broad: rule.is_some() && settings.broad.unwrap_or(false),
        });
    }
    Ok(wards)
}

/// What is asked on every system.
fn machine_checks(folders: &Folders, dirs: &[PathBuf]) -> Vec<Check> {
    let now = time::now();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let mut checks = vec![
        clock::judge(now.wall, now.mono.since_boot()),
        descriptors::judge(files.current),
    ];
    let (runtime, dirs) = (folders.runtime.clone(), dirs.to_owned());
    let pids = system::watcher_pids();
    let orphands = root_report::within_limit(move || {
        let held = runtime.as_deref().map(orphand::state::held);
        // Locks have paths without symlinks.
        let real = |dir: PathBuf| std::fs::canonicalize(&dir).unwrap_or(dir);
        let dirs: Vec<PathBuf> = dirs.into_iter().map(real).collect();
        let watchers = orphands::running(&pids, &held.unwrap_or_default());
        orphands::judge(&watchers, &dirs)
    });
    checks.extend(orphands);
    let own = folders.clone();
    match root_report::within_limit(move || folders::checks(&own)) {
        Some(found) => checks.extend(found),
        None => checks.push(root_report::no_answer(
            "state",
            &folders.state.clone().unwrap_or_default(),
        )),
    }
    checks
}

/// Service files that no longer start this program, or start it twice.
fn service_checks(folders: &Folders) -> Vec<Check> {
    let problems = super::service::problems(folders).into_iter();
    let check =
        |problem: super::service::Problem| Check::error("service", problem.what, problem.fix);
    problems.map(check).collect()
}

fn print_report(look: &OutputOptions, machine: Vec<Check>, visited: RootReport) -> std::io::Result<()> {
    let mut report = EventPrinter::new(look, Vec::new());
    let all = machine.into_iter().chain(visited.checks);
    let told = all.filter(|check| !look.quiet || check.state != CheckState::Ok);
    if look.json {
        let checks: Vec<Value> = told.map(Check::into_json).collect();
        return report.line(&json!({ "checks": checks }).to_string());
    }
    let told: Vec<Check> = told.collect();
    let mut about = None;
    for check in &told {
        if check.root != about {
            about.clone_from(&check.root);
            if let Some(root) = &about {
                let root = text::escaped(root);
                report.line(&report.paint(&root, Style::new().bold()))?;
            }
        }
        for line in check_lines(check, |mark, style| report.paint(mark, style)) {
            report.line(&line)?;
        }
    }
    if !look.quiet {
        report.line(&summary_line(&told))?;
    }
    Ok(())
}

/// One line, and those of the cure below it.
fn check_lines(check: &Check, paint: impl Fn(&str, Style) -> String) -> Vec<String> {
    let style = match check.state {
        CheckState::Ok => AnsiColor::Green,
        CheckState::Warning => AnsiColor::Yellow,
        CheckState::Error => AnsiColor::Red,
    };
    let mark = paint(&format!("{:<7}", check.state.as_str()), style.on_default());
    let mut what = check.what.lines();
    let first = what.next().unwrap_or_default();
    let mut lines = vec![format!("  {mark}  {:<17}  {first}", check.name)];
    lines.extend(what.map(|line| format!("{:30}{line}", "")));
    for (index, line) in check.fix.iter().flat_map(|fix| fix.lines()).enumerate() {
        let word = if index == 0 { "cure" } else { "" };
        lines.push(format!("{:11}{word:<17}  {line}", ""));
    }
    lines
}

fn summary_line(checks: &[Check]) -> String {
    let of = |state| checks.iter().filter(|check| check.state == state).count() as u64;
    let warnings = match of(CheckState::Warning) {
        0 => String::new(),
        number => format!("; {}", text::counted(number, "warning", "warnings")),
    };
    match of(CheckState::Error) {
        0 => format!("nothing is in orphand's way{warnings}"),
        1 => format!("one thing is in orphand's way{warnings}"),
        number => format!(
            "{} things are in orphand's way{warnings}",
            text::count(number)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let bad = Check::warning(
            "inotify-queue",
            "64 events: few",
            "now: sudo x\nfor good: y",
        );
        let said = check_lines(&bad, |mark, _| format!("<{mark}>"));
        let want = [
            "  <warning>  inotify-queue      64 events: few",
            "           cure               now: sudo x",
            "                              for good: y",
        ];
        assert_eq!(said, want);
    }

    #[test]
    fn the_last_line() {
        let fine = || Check::ok("a", "");
        let warned = || Check::warning("a", "", "");
        let bad = || Check::error("a", "", "");
        for (checks, want) in [
            (vec![fine()], "nothing is in orphand's way"),
            (
                vec![fine(), warned()],
                "nothing is in orphand's way; 1 warning",
            ),
            (
                vec![bad(), warned(), warned()],
                "one thing is in orphand's way; 2 warnings",
            ),
            (vec![bad(), bad()], "2 things are in orphand's way"),
        ] {
            assert_eq!(summary_line(&checks), want);
        }
    }
}
