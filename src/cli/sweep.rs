//! `orphand sweep`: one pass over what is there.

use std::time::Duration;

use orphand::daemon;
use orphand::decide::retention::Trust;
use orphand::event::{Event, Subject, Summary};
use orphand::evidence::Asker;
use orphand::look::{RootError, RootId, answer};
use orphand::reap::quarantine::{self, Keeping};
use orphand::root::Root;
use orphand::state::Folders;

use super::args::{Look, Sweep};
use super::report::Report;
use super::scan::cannot_scan;
use super::{
    Exit, Failure, Intent, confirmed, list_writers, missing, no_answer, plan, progress_bar,
    stdin_is_terminal, text, tools,
};

pub(super) fn run(command: &Sweep, look: &Look) -> Result<Exit, Failure> {
    if list_writers(&command.rule) {
        return Ok(Exit::Done);
    }
    let typed = command
        .rule
        .settings(Some(&command.depth), Some(&command.deed));
    let plan = plan(&command.rule, typed, &command.dirs, Intent::Act)?;
    for root in &plan.roots {
        let answers = answer::answers(&root.path);
        if answers && matches!(RootId::of(&root.path), Err(RootError::Missing)) {
            return Err(missing(&root.path));
        }
    }
    let dry_run = plan.roots.iter().all(|root| root.policy.is_dry_run());
    if !dry_run && !command.yes && !may_go_on(&plan.roots, look)? {
        return Ok(Exit::Done);
    }
    let folders = Folders::from_env();
    let _locks = lock_all(&plan.roots, &folders)?;
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
        if !answer::answers(&root.path) {
            tell(unreadable(root, &no_answer(&root.path), None));
            continue;
        }
        let swept = orphand::sweep::sweep(root, &tools, &mut tell, &progress);
        bar.finish_and_clear();
        match swept {
            // A directory that cannot be read is no reason to leave the others as they are.
            Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
                let what = format!("cannot read this directory: {error}");
                tell(unreadable(root, &what, error.raw_os_error()));
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
fn unreadable(root: &Root, what: &str, errno: Option<i32>) -> Event {
    Event::Failed {
        subject: Subject {
            path: root.path.clone(),
            root: root.path.clone(),
            size: None,
        },
        error: what.to_owned(),
        errno,
    }
}

/// Asks, where somebody can answer. Where nobody can, it needs to have been said.
fn may_go_on(roots: &[Root], look: &Look) -> Result<bool, Failure> {
    if !stdin_is_terminal() || look.json {
        return Err(Failure::new(
            Exit::Usage,
            "sweep removes files, and nobody can be asked here: say --yes, or -n to see what would go",
        ));
    }
    let names: Vec<String> = roots.iter().map(|root| text::escaped(&root.path)).collect();
    let (mut temps, mut grace) = (0, Duration::MAX);
    for root in roots {
        if !answer::answers(&root.path) {
            continue;
        }
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
        "{} in {}: remove those that nobody has used for {}?",
        text::counted(temps, "temp", "temps"),
        names.join(", "),
        text::span(grace)
    )))
}

fn lock_all(
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
                     to hurry it: orphand sweep -n shows what waits",
                    root.path
                ),
            )
        })
    };
    roots.iter().map(lock).collect()
}
