//! `orphand sweep`: removes the orphans in some directories in one pass, and ends.

use std::io;
use std::path::PathBuf;

use orphand::core::census::Lookalike;
use orphand::core::event::{Event, Subject, Summary};
use orphand::core::observation::Kind;
use orphand::engine::Engine;
use orphand::engine::limits::{self, LimitContext};
use orphand::engine::sweep::sweep;
use orphand::evidence::UseChecker;
use orphand::fs::dir::{RootError, unreadable_message};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::store::folders::Folders;
use orphand::store::json::LookalikeFields;
use orphand::store::lock::{Locker, RootBusy, RootLock};
use orphand::sys::stop::Stop;

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{ListOptions, OutputOptions, PolicyOptions};
use crate::cli::output::census::Census;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::learned;
use crate::cli::output::lookalikes::{lookalike_lines, with_root};
use crate::cli::output::standard_streams::progress_bar_beside_output;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::engine::{engine, known_shapes};
use crate::cli::runtime::plan::{
    Intent, cannot_scan, given_or_listed, is_missing, missing, no_answer,
};
use crate::cli::runtime::signals;
use crate::cli::runtime::trees::{count_stored, measure, subfolders_line, tree_lines};
use crate::cli::wording;
use confirmation::{is_confirmed, same_command};

mod confirmation;

#[derive(Debug, clap::Args)]
#[command(mut_args(wording::act))]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) options: PolicyOptions,
    #[command(flatten)]
    pub(crate) list: ListOptions,
    /// Do not ask for confirmation
    #[arg(long, help_heading = "What is done")]
    pub(crate) yes: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

pub(crate) fn run(command: &Sweep, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.options.rule, output)? {
        return Ok(Exit::Done);
    }
    let stop = Stop::default();
    // The first step, so that no signal ends the sweep half-way.
    signals::end_sweep(stop.clone());
    let typed = command.options.settings();
    let plan = given_or_listed(&command.options.rule, typed, &command.dirs, Intent::Act)?;
    plan.report_rules(output);
    if let Some(root) = plan.roots.iter().find(|root| is_missing(root)) {
        return Err(missing(&root.path));
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
    let engine = engine(&folders, output.verbose > 0);
    engine.journal.set_cap(plan.config.journal.max_size);
    engine.reaper.usage().set_limits(plan.config.quarantine);
    let mut sweep = SweepRun {
        output,
        options: &command.options,
        report: EventPrinter::new(output)
            .for_roots(&plan.roots, &command.list)
            .for_one_pass(),
        engine,
        use_checker: UseChecker::new(),
        stop,
        summary: Summary::default(),
        census: Census::default(),
        left: 0,
        trees: Vec::new(),
        lookalikes: Vec::new(),
        printed: Ok(()),
        print0: command.list.print0,
    };
    for root in to_sweep {
        if sweep.stop.is_stopped() {
            break;
        }
        sweep.sweep(root)?;
    }
    sweep.end(dry_run)
}

/// A sweep over several roots.
struct SweepRun<'a> {
    output: &'a OutputOptions,
    options: &'a PolicyOptions,
    report: EventPrinter,
    engine: Engine,
    use_checker: UseChecker,
    stop: Stop,
    summary: Summary,
    census: Census,
    /// The number of temps that were not examined because of a signal.
    left: usize,
    /// The directories and special files in each root whose names its rule matches.
    trees: Vec<(Root, Vec<(PathBuf, Kind)>)>,
    /// The files whose names look like temps although the rule does not match them.
    lookalikes: Vec<Lookalike>,
    /// The first error of the output, which does not end the sweep.
    printed: io::Result<()>,
    /// Only paths are printed.
    print0: bool,
}

impl SweepRun<'_> {
    fn sweep(&mut self, root: &Root) -> Result<(), Failure> {
        let bar = progress_bar_beside_output(self.output, "temps examined");
        let mut emit = |event: Event| {
            self.summary.count(&event);
            self.census.count(&event);
            let now = bar.suspend(|| self.report.event(&event));
            self.printed = std::mem::replace(&mut self.printed, Ok(())).and(now);
        };
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        if !response::responds(&root.path) {
            emit(unreadable_event(root, no_answer(&root.path), None));
            return Ok(());
        }
        let swept = sweep(root, &self.engine, &self.stop, &mut emit, &progress);
        bar.finish_and_clear();
        match swept {
            // A directory that cannot be read does not end the sweep of the others.
            Err(RootError::Io(error)) if !RootError::is_missing_error(&error) => {
                let what = unreadable_message(&error);
                emit(unreadable_event(root, what, error.raw_os_error()));
                return Ok(());
            }
            swept => {
                let swept = swept.map_err(|error| cannot_scan(root, &error))?;
                self.left += swept.left;
                self.trees.push((root.clone(), swept.trees));
                self.lookalikes.extend(with_root(root, swept.lookalikes));
            }
        }
        if !root.policy.is_dry_run() {
            self.enforce_limits(root);
        }
        Ok(())
    }

    /// Applies the limits of the quarantine of `root`.
    fn enforce_limits(&mut self, root: &Root) {
        while !self.stop.is_stopped() {
            // A sweep has just started, so it does not know whether the clocks have jumped. It trusts no date.
            let context = LimitContext::new(&self.engine, &self.use_checker);
            let result = limits::enforce_limits(root, None, context);
            for event in result.events {
                let now = self.report.event(&event);
                self.printed = std::mem::replace(&mut self.printed, Ok(())).and(now);
            }
            if !result.has_more {
                break;
            }
        }
    }

    /// Counts what lies beside the temps, and prints it. A sweep that a signal has stopped counts nothing.
    fn print_census(&mut self) {
        if self.stop.is_stopped() {
            return;
        }
        let found = std::mem::take(&mut self.trees);
        let roots: Vec<Root> = found.iter().map(|(root, _)| root.clone()).collect();
        let trees = measure(found);
        let mut lines = Vec::new();
        if !self.output.json && !self.output.quiet && !self.print0 {
            let with_files = count_stored(&roots, &mut self.census);
            let is_deep = roots.iter().any(|root| root.policy.recursive);
            lines = tree_lines(&trees, is_deep);
            let groups: Vec<_> = self.lookalikes.iter().map(LookalikeFields::from).collect();
            lines.extend(lookalike_lines(&groups));
            let known = known_shapes(&Folders::from_env());
            let learned = roots
                .iter()
                .flat_map(|root| learned::find_files(root, known));
            let unmatched = learned.filter(|files| !files.learned.matched);
            lines.extend(unmatched.map(|files| files.line()));
            lines.extend(self.census.rest(&with_files));
            if self.summary.reaped + self.summary.quarantined == 0 {
                lines.extend(subfolders_line(self.options, "sweep", &roots));
            }
        }
        for line in lines {
            let now = self.report.note(&line);
            self.printed = std::mem::replace(&mut self.printed, Ok(())).and(now);
        }
        self.summary.trees = Some(trees);
        self.summary.lookalikes = Some(std::mem::take(&mut self.lookalikes));
    }

    /// Prints the summary, and returns the exit code.
    fn end(mut self, dry_run: bool) -> Result<Exit, Failure> {
        self.print_census();
        let summary = self.report.event(&Event::Summary(self.summary.clone()));
        if self.stop.is_stopped()
            && let Some((exit, signal)) = signals::first()
        {
            log::warn!("{}", stopped_by(signal, self.left));
            return Ok(exit);
        }
        self.printed.and(summary)?;
        if dry_run && !self.output.json && !self.output.quiet && !self.print0 {
            self.report.line("Nothing was changed (dry run).")?;
        }
        Ok(match self.summary.failed > 0 || self.summary.cannot_tell {
            true => Exit::Partial,
            false => Exit::Done,
        })
    }
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
fn unreadable_event(root: &Root, error: String, errno: Option<i32>) -> Event {
    Event::Failed {
        subject: Subject {
            path: root.path.clone(),
            root: root.path.clone(),
            size: None,
        },
        error,
        errno,
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
        if busy.other.is_ours {
            return Failure::new(Exit::Busy, busy.to_string());
        }
        let message = format!(
            "{busy}\n\
             help: the watcher does this by itself; to hurry it: orphand sweep -n shows what waits\n\
             \x20     {}",
            same_command(command, "-n")
        );
        Failure::new(Exit::Busy, message)
    })
}
