//! `orphand doctor`: checks the machine and the roots for problems, each reported with its fix.
//!
//! [`root_report`] gathers the facts of the roots, and `system` those that differ between operating systems. One pure
//! function per subject judges them. doctor changes no existing file. It only creates one file in each root, which it
//! removes at once ([`lease_probe`]).
//!
//! The states:
//!
//! - **error** (`trouble` in JSON): orphand does not work on a root, or would keep everything in it. Causes: a wrong
//!   configuration; a root that is missing, refused, not answering, unreadable or not writable; a file system on which
//!   nothing can be proven; a proof that fails when it is tried; leases that are disabled; a service file that starts
//!   nothing. Exit 3.
//! - **warning**: orphand works, but later (inotify limits: directories are scanned periodically instead), with less (no
//!   names of holders, no journal, no lock, no quarantine; on overlayfs a quarantine instead of a deletion), or with a
//!   risk that the proof cannot see (exported directories, trusted file systems, wrong clocks). A full disk is a warning
//!   too: deletions are needed then, and they still work.
//! - **ok**: measured values, and limits that cannot and need not be changed.

use std::path::PathBuf;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use orphand::fs::root::absolute;
use orphand::store::folders::Folders;
use orphand::sys::clock as time;

use super::exit::{Exit, Failure};
use super::options::OutputOptions;
use crate::cli::config::Config;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::text;
use check::{Check, CheckState, Report};
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

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
doctor changes no existing file. In each directory it creates an empty file, \
.orphand-doctor-<random>, and removes it at once, to test whether orphand can prove there that a file \
is unused. This changes the modification time of the directory.

Exit: 0 if orphand works, even with warnings · 3 if it does not work, or would keep everything

Examples:
  orphand doctor                 this machine, and the directories of the configuration file
  orphand doctor -q ~/.app       only the problems of this machine and of ~/.app
  orphand doctor --json | jq '.checks[] | select(.state != \"ok\")'")]
pub(crate) struct Doctor {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
    /// Directories to check; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

pub(super) fn run(command: &Doctor, output: &OutputOptions) -> Result<Exit, Failure> {
    let folders = Folders::from_env();
    let explicit = command.config.clone();
    let file = explicit.clone().or_else(Config::default_path);
    let read = root_report::within_limit(move || Config::load(explicit.as_deref()));
    let named = !command.dirs.is_empty();
    let mut checks = vec![match &read {
        Some(read) => settings::judge(read, file.as_deref(), named),
        None => root_report::no_answer("config", &file.unwrap_or_default()),
    }];
    let config = read.and_then(Result::ok).unwrap_or_default();
    let roots = checked_roots(command, &config)?;
    let dirs: Vec<PathBuf> = roots.iter().map(|root| root.path.clone()).collect();
    let roots_report = root_report::check_all(roots);
    checks.extend(system::machine_checks(roots_report.directories));
    checks.extend(machine_checks(&folders, &dirs));
    checks.extend(service_checks());
    let exit = match root_report::worst(&checks).max(root_report::worst(&roots_report.checks)) {
        CheckState::Error => Exit::Partial,
        CheckState::Ok | CheckState::Warning => Exit::Done,
    };
    print_report(output, checks, roots_report)?;
    Ok(exit)
}

/// Returns the given directories, or those of the configuration file if none were given. A directory that the file
/// lists has the policy of its rule.
fn checked_roots(command: &Doctor, config: &Config) -> Result<Vec<CheckedRoot>, Failure> {
    let paths: Vec<PathBuf> = match command.dirs.is_empty() {
        true => config.watch.iter().map(|rule| rule.path.clone()).collect(),
        false => command.dirs.iter().map(|dir| absolute(dir)).collect(),
    };
    let mut roots: Vec<CheckedRoot> = Vec::new();
    for path in paths {
        if roots.iter().any(|known| known.path == path) {
            continue;
        }
        let rule = config.watch.iter().find(|rule| rule.path == path);
        let settings = rule.map(|rule| rule.settings.clone()).unwrap_or_default();
        let settings = settings.over(&config.defaults);
        roots.push(CheckedRoot {
            path,
            policy: Arc::new(settings.policy()?),
            // `broad` counts only in a rule, because the defaults name no directory.
            broad: rule.is_some() && settings.broad.unwrap_or(false),
        });
    }
    Ok(roots)
}

/// Runs the checks of the machine that exist on every system.
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
        let held = runtime.as_deref().map(orphand::store::lock::lock_holders);
        // The locks have paths with symlinks resolved.
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

/// Checks the service files: one may no longer start this program, or two may start it.
fn service_checks() -> impl Iterator<Item = Check> {
    let check =
        |problem: super::service::Problem| Check::error("service", problem.what, problem.fix);
    super::service::problems().into_iter().map(check)
}

fn print_report(
    output: &OutputOptions,
    machine: Vec<Check>,
    roots_report: RootReport,
) -> std::io::Result<()> {
    let mut report = EventPrinter::new(output, Vec::new());
    let all = machine.into_iter().chain(roots_report.checks);
    let shown = all.filter(|check| !output.quiet || check.state != CheckState::Ok);
    if output.json {
        let checks = shown.collect();
        return report.json(&Report { checks });
    }
    let shown: Vec<Check> = shown.collect();
    let mut about = None;
    for check in &shown {
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
    if !output.quiet {
        report.line(&summary_line(&shown))?;
    }
    Ok(())
}

/// Returns the lines of a check: the finding, and below it the fix.
fn check_lines(check: &Check, paint: impl Fn(&str, Style) -> String) -> Vec<String> {
    let style = match check.state {
        CheckState::Ok => AnsiColor::Green,
        CheckState::Warning => AnsiColor::Yellow,
        CheckState::Error => AnsiColor::Red,
    };
    let mark = paint(&format!("{:<7}", check.state.label()), style.on_default());
    let mut what = check.what.lines();
    let first = what.next().unwrap_or_default();
    let mut lines = vec![format!("  {mark}  {:<17}  {first}", check.name)];
    lines.extend(what.map(|line| format!("{:30}{line}", "")));
    for (index, line) in check.fix.iter().flat_map(|fix| fix.lines()).enumerate() {
        let word = if index == 0 { "fix" } else { "" };
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
        0 => format!("no problems found{warnings}"),
        number => format!(
            "{} found{warnings}",
            text::counted(number, "problem", "problems")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_its_fix_below_it() {
        let bad = Check::warning(
            "inotify-queue",
            "64 events: few",
            "now: sudo x\nfor good: y",
        );
        let lines = check_lines(&bad, |mark, _| format!("<{mark}>"));
        let want = [
            "  <warning>  inotify-queue      64 events: few",
            "           fix                now: sudo x",
            "                              for good: y",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn the_last_line_counts_problems_and_warnings() {
        let fine = || Check::ok("a", "");
        let warned = || Check::warning("a", "", "");
        let bad = || Check::error("a", "", "");
        for (checks, want) in [
            (vec![fine()], "no problems found"),
            (vec![fine(), warned()], "no problems found; 1 warning"),
            (
                vec![bad(), warned(), warned()],
                "1 problem found; 2 warnings",
            ),
            (vec![bad(), bad()], "2 problems found"),
        ] {
            assert_eq!(summary_line(&checks), want);
        }
    }
}
