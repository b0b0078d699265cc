//! `orphand sweep`: removes the orphans in some directories in one pass, and ends.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use orphand::core::event::{Event, Subject, Summary};
use orphand::core::policy::{Action, Open, SoleCopy};
use orphand::core::retention::{ClockTrust, NeededSpace};
use orphand::engine::limits::{self, LimitContext};
use orphand::evidence::UseChecker;
use orphand::fs::dir::{RootError, RootId};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::store::folders::Folders;
use orphand::store::lock::{Locker, RootBusy, RootLock};
use orphand::sys::stop::Stop;

use super::scan::cannot_scan;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::{confirm, progress_bar, stdin_is_terminal};
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::engine::engine;
use crate::cli::runtime::plan::{Intent, listed, missing, no_answer, plan};
use crate::cli::runtime::signals;

#[derive(Debug, clap::Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) options: PolicyOptions,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

pub(crate) fn run(command: &Sweep, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.options.rule)? {
        return Ok(Exit::Done);
    }
    let stop = Stop::default();
    // The first step, so that no signal ends the sweep half-way.
    signals::end_sweep(stop.clone());
    let typed = command.options.settings();
    let plan = match command.dirs.is_empty() {
        true => listed(&command.options.rule, &typed, "sweep")?,
        false => plan(&command.options.rule, typed, &command.dirs, Intent::Act)?,
    };
    plan.report_rules(output);
    for root in &plan.roots {
        let responds = response::responds(&root.path);
        if responds && matches!(RootId::of(&root.path), Err(RootError::Missing)) {
            return Err(missing(&root.path));
        }
    }
    let dry_run = !plan.roots.is_empty() && plan.roots.iter().all(|root| root.policy.is_dry_run());
    let may_go_on = dry_run || command.yes || is_confirmed(command, &plan.roots, output, &stop)?;
    let to_sweep: &[Root] = match may_go_on {
        true => &plan.roots,
        false if stop.is_stopped() => &[],
        false => return Ok(Exit::Done),
    };
    let folders = Folders::from_env();
    let _locks = lock_all(command, to_sweep, &folders)?;
    let roots = plan.roots.iter().map(|root| root.path.clone());
    let mut report = EventPrinter::new(output, roots.collect()).for_one_pass();
    let engine = engine(&folders, output.verbose > 0)?;
    engine.journal.set_cap(plan.config.journal.max_size);
    engine.reaper.usage().set_limits(plan.config.quarantine);
    let use_checker = UseChecker::new();
    let mut summary = Summary::default();
    let (mut printed, mut left) = (Ok(()), 0);
    for root in to_sweep {
        if stop.is_stopped() {
            break;
        }
        let bar = progress_bar(output, "temps examined");
        let mut emit = |event: Event| {
            summary.count(&event);
            // A failure to write output does not end the sweep.
            let now = bar.suspend(|| report.event(&event));
            printed = std::mem::replace(&mut printed, Ok(())).and(now);
        };
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        if !response::responds(&root.path) {
            emit(unreadable_event(root, &no_answer(&root.path), None));
            continue;
        }
        let swept = orphand::engine::sweep::sweep(root, &engine, &stop, &mut emit, &progress);
        bar.finish_and_clear();
        match swept {
            // A directory that cannot be read does not end the sweep of the others.
            Err(RootError::Io(error)) if !RootError::is_missing_error(&error) => {
                let what = format!("cannot read this directory: {error}");
                emit(unreadable_event(root, &what, error.raw_os_error()));
                continue;
            }
            swept => left += swept.map_err(|error| cannot_scan(root, &error))?,
        }
        if !root.policy.is_dry_run() && !stop.is_stopped() {
            let context = LimitContext {
                usage: engine.reaper.usage(),
                journal: &engine.journal,
                use_checker: &use_checker,
                // A sweep has just started, so it does not know whether the clocks have jumped. It trusts no date.
                trust: ClockTrust::default(),
                wanted: NeededSpace::default(),
            };
            loop {
                let result = limits::enforce_limits(root, None, context);
                for event in result.events {
                    printed = printed.and(report.event(&event));
                }
                if !result.has_more || stop.is_stopped() {
                    break;
                }
            }
        }
    }
    printed = printed.and(report.event(&Event::Summary(summary)));
    if stop.is_stopped()
        && let Some((exit, signal)) = signals::first()
    {
        log::warn!("{}", stopped_by(signal, left));
        return Ok(exit);
    }
    printed?;
    if dry_run && !output.json && !output.quiet {
        report.line("Nothing was changed (dry run).")?;
    }
    Ok(match summary.failed > 0 || summary.cannot_tell {
        true => Exit::Partial,
        false => Exit::Done,
    })
}

/// Returns the message about a sweep that a signal ended.
fn stopped_by(signal: &str, left: usize) -> String {
    match left {
        0 => format!("stopped by {signal} before all temps were examined"),
        left => format!(
            "stopped by {signal}; {} not examined and left unchanged",
            text::counted(left as u64, "temp", "temps")
        ),
    }
}

/// Returns the event for a root that exists but cannot be read.
fn unreadable_event(root: &Root, what: &str, errno: Option<i32>) -> Event {
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

/// Returns the same command with one more option.
fn same_command(command: &Sweep, option: &str) -> Suggestion {
    let sweep = command.options.sweep_command(&command.dirs, false);
    sweep.flag(option, true)
}

/// Asks on the terminal whether to continue. Without a terminal, `--yes` is needed. A signal counts as no.
fn is_confirmed(
    command: &Sweep,
    roots: &[Root],
    output: &OutputOptions,
    stop: &Stop,
) -> Result<bool, Failure> {
    if !stdin_is_terminal() || output.json {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "sweep removes files and cannot ask without a terminal; add --yes, or -n for a preview\n\
                 to remove:   {}\n\
                 to preview:  {}",
                same_command(command, "--yes"),
                same_command(command, "-n")
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
        (true, true) => "remove, or move to the quarantine, those",
        (false, _) => "move to the quarantine those",
    };
    for root in roots {
        if !response::responds(&root.path) {
            continue;
        }
        let is_stopped = || stop.is_stopped();
        let found = orphand::fs::walk::find(root, &mut |_, _| {}, &|_| {}, &is_stopped);
        let found = found.map_err(|error| cannot_scan(root, &error))?;
        temps += found
            .temps
            .iter()
            .map(|(_, names)| names.len() as u64)
            .sum::<u64>();
        grace = grace.min(root.policy.grace.shortest());
    }
    if stop.is_stopped() {
        return Ok(false);
    }
    if temps == 0 {
        return Ok(true);
    }
    let question = format!(
        "{} in {}: {what} that no process has used for {}?",
        text::counted(temps, "temp", "temps"),
        names.join(", "),
        text::span(grace)
    );
    Ok(ask(question, stop))
}

/// The interval of the checks for a signal while the sweep waits for an answer.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Asks `question` and returns whether the answer is yes. A thread reads the answer, because a signal does not
/// interrupt a read from the terminal. The end of the process ends that thread.
fn ask(question: String, stop: &Stop) -> bool {
    let (send, answer) = bounded(1);
    let thread = std::thread::Builder::new().name("orphand-question".into());
    let asks = question.clone();
    if thread.spawn(move || send.send(confirm(&asks))).is_err() {
        return confirm(&question);
    }
    loop {
        match answer.recv_timeout(SIGNAL_CHECK) {
            Ok(yes) => return yes && !stop.is_stopped(),
            Err(RecvTimeoutError::Timeout) if !stop.is_stopped() => {}
            Err(_) => return false,
        }
    }
}

fn lock_all(
    command: &Sweep,
    roots: &[Root],
    folders: &Folders,
) -> Result<Vec<Option<RootLock>>, Failure> {
    let mut locker = Locker::new(folders.runtime.as_deref());
    let locks: Result<_, _> = roots.iter().map(|root| locker.lock(root)).collect();
    locks.map_err(|busy: RootBusy| {
        let message = format!(
            "{busy}. the watcher does this by itself; to hurry it: orphand sweep -n shows what waits\n\
             to preview:  {}",
            same_command(command, "-n")
        );
        Failure::new(Exit::Busy, message)
    })
}
