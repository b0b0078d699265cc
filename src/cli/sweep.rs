//! `orphand sweep`: one pass over what is there.

use std::time::Duration;

use orphand::daemon;
use orphand::decide::policy::{Action, Open, SoleCopy};
use orphand::decide::retention::Trust;
use orphand::event::{Event, Subject, Summary};
use orphand::evidence::Asker;
use orphand::look::{RootError, RootId};
use orphand::reap::quarantine::{self, Keeping};
use orphand::root::Root;
use orphand::state::Folders;

use super::args::{self, Look, Sweep};
use super::report::Report;
use super::scan::cannot_scan;
use super::shell::Suggestion;
use super::{
    Exit, Failure, Intent, confirmed, list_writers, listed, missing, plan, progress_bar,
    stdin_is_terminal, text, tools,
};

pub(super) fn run(command: &Sweep, look: &Look) -> Result<Exit, Failure> {
    if list_writers(&command.rule) {
        return Ok(Exit::Done);
    }
    let typed = command
        .rule
        .settings(Some(&command.depth), Some(&command.deed));
    let plan = match command.dirs.is_empty() {
        true => listed(&command.rule, &typed, "sweep")?,
        false => plan(&command.rule, typed, &command.dirs, Intent::Act)?,
    };
    plan.name_rules(look);
    for root in &plan.roots {
        if let Err(RootError::Missing) = RootId::of(&root.path) {
            return Err(missing(&root.path));
        }
    }
    let dry_run = !plan.roots.is_empty() && plan.roots.iter().all(|root| root.policy.is_dry_run());
    if !dry_run && !command.yes && !may_go_on(command, &plan.roots, look)? {
        return Ok(Exit::Done);
    }
    let folders = Folders::from_env();
    let _locks = lock_all(command, &plan.roots, &folders)?;
    let roots = plan.roots.iter().map(|root| root.path.clone());
    let mut report = Report::new(look, roots.collect()).once();
    let tools = tools(&folders, look.verbose > 0)?;
    let asker = Asker::new();
    let mut summary = Summary::default();
    let mut told = Ok(());
    for root in &plan.roots {
        let bar = progress_bar(look, "temps looked at");
        let mut tell = |event: Event| {
            summary.count(&event);
            if told.is_ok() {
                told = bar.suspend(|| report.event(&event));
            }
            told.is_ok()
        };
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let swept = orphand::sweep::sweep(root, &tools, &mut tell, &progress);
        bar.finish_and_clear();
        match swept {
            // A directory that cannot be read is no reason to leave the others as they are.
            Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
                tell(unreadable(root, &error));
                continue;
            }
            swept => swept.map_err(|error| cannot_scan(root, &error))?,
        }
        if !root.policy.is_dry_run() {
            let keeping = Keeping {
                limits: plan.config.quarantine,
                journal: &tools.journal,
                asker: &asker,
                // A sweep has just begun: it drops for want of room, not for age.
                trust: Trust {
                    running: Duration::ZERO,
                    since_parted: None,
                },
            };
            for event in quarantine::tend(root, None, keeping) {
                report.event(&event)?;
            }
        }
    }
    told?;
    report.event(&Event::Summary(summary))?;
    if dry_run && !look.json && !look.quiet {
        report.line("Nothing was changed (dry run).")?;
    }
    Ok(match summary.failed > 0 || summary.cannot_tell {
        true => Exit::Partly,
        false => Exit::Done,
    })
}

/// What is said of a root that is there and may not be opened.
fn unreadable(root: &Root, error: &std::io::Error) -> Event {
    Event::Failed {
        subject: Subject {
            path: root.path.clone(),
            root: root.path.clone(),
            size: None,
        },
        error: format!("cannot read this directory: {error}"),
        errno: error.raw_os_error(),
    }
}

/// The same command, with this option too.
fn again(command: &Sweep, option: &str) -> Suggestion {
    let Sweep {
        rule, depth, deed, ..
    } = command;
    args::sweep(rule, depth, deed, &command.dirs, false).flag(option, true)
}

/// Asks, where somebody can answer. Where nobody can, it needs to have been said.
fn may_go_on(command: &Sweep, roots: &[Root], look: &Look) -> Result<bool, Failure> {
    if !stdin_is_terminal() || look.json {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "sweep removes files, and no person can be asked here: say --yes, or -n to see what would \
                 be done\n\
                 do it:   {}\n\
                 see it:  {}",
                again(command, "--yes"),
                again(command, "-n")
            ),
        ));
    }
    let names: Vec<String> = roots.iter().map(|root| text::escaped(&root.path)).collect();
    let (mut temps, mut grace) = (0, Duration::MAX);
    let moves = |root: &Root| {
        let policy = &root.policy;
        policy.action == Action::Quarantine
            || policy.sole_copy == SoleCopy::Quarantine
            || policy.open == Open::Quarantine
    };
    let deletes = |root: &Root| root.policy.action == Action::Delete;
    let what = match (roots.iter().any(deletes), roots.iter().any(moves)) {
        (true, false) => "remove those",
        (true, true) => "remove, or move to quarantine, those",
        (false, _) => "move to quarantine those",
    };
    for root in roots {
        let found = orphand::scan::temps(root, &mut |_, _| {}, &|_| {});
        let found = found.map_err(|error| cannot_scan(root, &error))?;
        temps += found
            .iter()
            .map(|(_, names)| names.len() as u64)
            .sum::<u64>();
        grace = grace.min(root.policy.grace.shortest());
    }
    if temps == 0 {
        return Ok(true);
    }
    Ok(confirmed(&format!(
        "{} in {}: {what} that no process has used for {}?",
        text::counted(temps, "temp", "temps"),
        names.join(", "),
        text::span(grace)
    )))
}

fn lock_all(
    command: &Sweep,
    roots: &[Root],
    folders: &Folders,
) -> Result<Vec<Option<orphand::state::RootLock>>, Failure> {
    let lock = |root: &Root| {
        daemon::lock(root, folders.runtime.as_deref()).map_err(|pid| {
            let who = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            Failure::new(
                Exit::Busy,
                format!(
                    "another orphand{who} works on {:?}. the watcher does this by itself; \
                     to hurry it: orphand sweep -n shows what waits\n\
                     see it:  {}",
                    root.path,
                    again(command, "-n")
                ),
            )
        })
    };
    roots.iter().map(lock).collect()
}
