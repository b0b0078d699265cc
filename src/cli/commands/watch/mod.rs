//! `orphand watch`: watches directories, on a terminal or as a service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use orphand::core::event::{Event, Summary};
use orphand::core::policy::{Action, Open, Policy, SoleCopy};
use orphand::core::sort::set_of;
use orphand::daemon::{Existing, Watcher};
use orphand::fs::dir::{RootError, RootId};
use orphand::fs::response;
use orphand::fs::root::{Root, absolute};
use orphand::fs::walk;
use orphand::store::folders::Folders;
use orphand::watch::file::FileWatcher;

use crate::cli::choices::ExistingArg;
use crate::cli::config::{Config, RuleSettings};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{ListOptions, OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::standard_streams::stdin_is_terminal;
use crate::cli::output::text;
use crate::cli::output::watch_status::WatchStatus;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::log;
use crate::cli::runtime::plan::{Intent, Plan, nothing_listed, plan};
use crate::cli::runtime::service_notify::ServiceNotifier;
use crate::cli::runtime::signals::Signals;
use crate::cli::runtime::status_server::Server;
use crate::cli::runtime::suspend;
use crate::cli::wording;
use follow::WatchLoop;

mod follow;

#[derive(Debug, clap::Args)]
#[command(mut_args(wording::act))]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) options: PolicyOptions,
    #[command(flatten)]
    pub(crate) list: ListOptions,
    /// Remove at once, remove later, or ignore temps that exist at the start [default: wait on a terminal, else take]
    #[arg(
        long,
        value_enum,
        env = "ORPHAND_EXISTING",
        help_heading = "What is done"
    )]
    pub(crate) existing: Option<ExistingArg>,
    /// Wait for a DIR that does not exist yet; if stdin is not a terminal, watch always waits
    #[arg(long, help_heading = "What is done")]
    pub(crate) wait: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

pub(crate) fn run(command: &Watch, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.options.rule, output)? {
        return Ok(Exit::Done);
    }
    let source = Source::new(command);
    // The first step, so that no signal ends the watch half-way.
    let signals = Signals::listen()?;
    let folders = Folders::from_env();
    let status = Arc::new(WatchStatus::new(source.is_background()));
    let mut notifier = ServiceNotifier::from_env();
    let (plan, server) = match source.read() {
        Ok(plan) => (plan, None),
        // A service manager would restart this process again and again. So the service keeps running, removes nothing,
        // and waits until the file is fixed.
        Err(failure) if source.is_background() && !stdin_is_terminal() => {
            let server = start_server(&folders, &status);
            let fixed = wait_for_file(&source, failure, &signals, &status, &mut notifier)?;
            let Some(plan) = fixed else {
                let mut report = EventPrinter::new(output).for_roots(&[], &command.list);
                report.event(&Event::Summary(Summary::default()))?;
                return Ok(Exit::Done);
            };
            (plan, server)
        }
        Err(failure) => return Err(failure),
    };
    if source.is_background() {
        log::configure(&plan.config.log, &folders);
    }
    let mut report = EventPrinter::new(output).for_roots(&plan.roots, &command.list);
    let existing = command
        .existing
        .map(Existing::from)
        .unwrap_or(match report.is_interactive() {
            true => Existing::Wait,
            false => Existing::Take,
        });
    if !source.is_background() && !command.wait && stdin_is_terminal() {
        check_existence(&plan.roots)?;
    }
    let prints = !output.quiet && !output.json && !command.list.print0;
    // The temps are counted before the start, which may remove some of them.
    let before = (prints && report.is_interactive()).then(|| existing_line(&plan.roots, existing));
    let watcher = Watcher::builder()
        .roots(plan.roots.clone())
        .quarantine(plan.config.quarantine)
        .existing(existing)
        .folders(folders.clone())
        .journal_cap(plan.config.journal.max_size)
        .verbose(output.verbose > 0)
        .start()
        .map_err(|error| Failure::from(&error))?;
    signals.stop(watcher.stopper());
    if report.is_interactive() {
        suspend::listen();
    }
    // These lines are printed after the start, which fails if another orphand process works there.
    let first = start_lines(&plan.roots, report.is_interactive()).into_iter();
    let first = first
        .chain(before.flatten())
        .chain(writers_line(&plan.roots));
    for line in first.filter(|_| prints) {
        // If the output cannot be written, the first event reports it.
        let _ = report.note(&line);
    }
    status.set_roots(&plan.roots);
    status.set_status_handle(watcher.status_handle());
    status.set_config(plan.config.path.clone(), None);
    // A dry run creates no files, not even a folder for its socket.
    let is_dry_run = !source.is_background() && plan.roots.iter().all(|r| r.policy.is_dry_run());
    let _server = match is_dry_run {
        true => None,
        false => server.or_else(|| start_server(&folders, &status)),
    };
    let follow = WatchLoop::new(&watcher, &mut report, &status, notifier);
    follow.run(&source, &plan.config, &folders)
}

/// The source of the rules: the arguments, and the configuration file, which may be read several times.
struct Source<'a> {
    command: &'a Watch,
    typed: RuleSettings,
    /// The path of the configuration file, which need not exist.
    path: Option<PathBuf>,
}

impl Source<'_> {
    fn new(command: &Watch) -> Source<'_> {
        let explicit = command.options.rule.config.as_deref();
        Source {
            command,
            typed: command.options.settings(),
            path: explicit.map(absolute).or_else(Config::default_path),
        }
    }

    /// Returns whether the watch covers the directories of the configuration file.
    fn is_background(&self) -> bool {
        self.command.dirs.is_empty()
    }

    /// Returns the rules for the start. It is an error if they list no directory.
    fn read(&self) -> Result<Plan, Failure> {
        let plan = self.reread()?;
        match plan.roots.is_empty() {
            true => Err(nothing_listed(&plan.config, "watch")),
            false => Ok(plan),
        }
    }

    /// Returns the rules for a reload. Unlike at the start, an empty list of directories is valid.
    fn reread(&self) -> Result<Plan, Failure> {
        let rule = &self.command.options.rule;
        if !self.is_background() {
            return plan(rule, self.typed.clone(), &self.command.dirs, Intent::Watch);
        }
        let config = Config::load(rule.config.as_deref())?;
        let roots = config.roots(&self.typed)?;
        Ok(Plan {
            config,
            roots,
            rules: BTreeMap::new(),
            broad: BTreeSet::new(),
        })
    }

    /// Watches the configuration file for changes. An optional file that does not exist is not watched, because its
    /// folder may change all the time.
    fn changes(&self, config: &Config) -> Option<FileWatcher> {
        let matters = self.is_background() || config.path.is_some();
        let path = self.path.as_deref().filter(|_| matters)?;
        Some(FileWatcher::new(path))
    }
}

/// Starts the server for `orphand status`. A failure is only logged.
fn start_server(folders: &Folders, status: &Arc<WatchStatus>) -> Option<Server> {
    let runtime = folders.runtime.as_deref()?;
    match Server::start(runtime, Arc::clone(status)) {
        Ok(server) => Some(server),
        Err(error) => {
            ::log::warn!("orphand status cannot show this watch: {error} (in {runtime:?})");
            None
        }
    }
}

/// Waits until the configuration file is correct and lists a directory. Returns `None` if a signal arrives first.
fn wait_for_file(
    source: &Source<'_>,
    failure: Failure,
    signals: &Signals,
    status: &WatchStatus,
    notifier: &mut ServiceNotifier,
) -> Result<Option<Plan>, Failure> {
    let Some(path) = source.path.clone() else {
        return Err(failure);
    };
    let mut said = String::new();
    let mut failure = failure;
    let mut changes = FileWatcher::new(&path);
    loop {
        if failure.text != said {
            // The file is valid, as `config check` reports too, but lists no directory.
            let lists_none = failure.exit == Exit::Usage && path.is_file();
            match lists_none {
                true => ::log::warn!(
                    "{}\nidle: nothing is watched until {path:?} lists a directory",
                    failure.text
                ),
                false => ::log::error!(
                    "{}\ndegraded: nothing is watched or removed until {path:?} is fixed",
                    failure.text
                ),
            }
            let word = if lists_none { "idle" } else { "degraded" };
            status.set_config(None, Some(failure.text.clone()));
            notifier.report_ready(&format!("{word}: {}", failure.text));
            said = failure.text;
        }
        // The file may have been fixed before the watch on it was set, so it is read once more at first, and then after
        // each change.
        failure = match source.read() {
            Ok(plan) => return Ok(Some(plan)),
            Err(failure) if failure.text != said => failure,
            Err(failure) => {
                let tick = match notifier.next_tick() {
                    Some(at) => crossbeam_channel::at(at),
                    None => crossbeam_channel::never(),
                };
                crossbeam_channel::select! {
                    recv(signals.arrived) -> _ => return Ok(None),
                    recv(changes.wake_rx()) -> _ => changes.rewatch(),
                    recv(tick) -> _ => notifier.ping_without_watcher(Instant::now()),
                }
                failure
            }
        };
    }
}

/// Refuses directories that do not exist. A mistyped path would otherwise be waited for without end.
fn check_existence(roots: &[Root]) -> Result<(), Failure> {
    let is_missing = |root: &&Root| {
        response::responds(&root.path) && matches!(RootId::of(&root.path), Err(RootError::Missing))
    };
    match roots.iter().find(is_missing) {
        None => Ok(()),
        Some(root) => Err(Failure::failed(format!(
            "{:?} does not exist; check the name, or add --wait to wait for it",
            root.path
        ))),
    }
}

/// The largest number of directories that a watch names at its start.
const NAMED: usize = 20;

/// Returns the first lines of a watch.
fn start_lines(roots: &[Root], is_live: bool) -> Vec<String> {
    let named = roots
        .iter()
        .take(NAMED)
        .map(|root| start_line(root, is_live));
    let more = roots.len().saturating_sub(NAMED) as u64;
    let rest = (more > 0).then(|| {
        let more = text::counted(more, "directory", "directories");
        format!("watching {more} more")
    });
    named.chain(rest).collect()
}

/// Returns the line about `root` at the start of a watch.
fn start_line(root: &Root, is_live: bool) -> String {
    let policy = &root.policy;
    let (deep, path) = (depth(policy), text::escaped(&root.path));
    let files = format!("{} files unused for {}", policy.names, grace(policy));
    let does = match policy.action {
        _ if policy.is_dry_run() => format!("only reports {files}"),
        Action::Quarantine => format!("moves {files} to the quarantine"),
        Action::Delete | Action::Report => format!("removes {files}"),
    };
    let end = if is_live { ". Ctrl-C to stop" } else { "" };
    let excluded = exclusions(policy);
    format!(
        "watching {path} ({deep}{excluded}): {does}{}{end}",
        permissions(policy)
    )
}

/// Returns the excluded paths of a rule, for people.
pub(crate) fn exclusions(policy: &Policy) -> String {
    match policy.exclude.is_empty() {
        true => String::new(),
        false => format!(", excluding {}", policy.exclude),
    }
}

/// Returns what a rule allows beyond the default, for people.
pub(crate) fn permissions(policy: &Policy) -> String {
    let open = match policy.open {
        Open::Keep => None,
        Open::Quarantine => Some("also moves files in use (open = \"quarantine\")"),
        Open::Reap => Some("also removes files in use (open = \"reap\")"),
    };
    let sole = match policy.sole_copy {
        SoleCopy::Reap => Some("also removes only copies (sole_copy = \"reap\")"),
        SoleCopy::Quarantine | SoleCopy::Keep => None,
    };
    let parts = [open, sole].into_iter().flatten();
    parts.map(|part| format!("; {part}")).collect()
}

/// Returns the line about the writers that are on by default, if there are any.
fn writers_line(roots: &[Root]) -> Option<String> {
    let of_root = |root: &Root| -> BTreeSet<&str> { set_of(root.policy.names.default_writers()) };
    let having = roots
        .iter()
        .filter(|root| !of_root(root).is_empty())
        .count();
    let names: BTreeSet<&str> = set_of(roots.iter().flat_map(of_root));
    let place = match having {
        0 => return None,
        some if some < roots.len() => format!(" in {some} of {} directories", roots.len()),
        _ => String::new(),
    };
    let names: Vec<&str> = names.into_iter().collect();
    let names = names.join(", ");
    Some(format!(
        "writers that are on by default{place}: {names}; to list all: orphand watch --writer list"
    ))
}

/// Returns how deep a rule reaches, for people.
fn depth(policy: &Policy) -> &'static str {
    match policy.recursive {
        true => "with subfolders",
        false => "without subfolders",
    }
}

/// Returns the line about the temps from before the start, for a terminal.
fn existing_line(roots: &[Root], existing: Existing) -> Option<String> {
    let (mut temps, mut bytes) = (0, 0);
    for root in roots {
        let (more, size) = count_existing(root);
        temps += more;
        bytes = size.saturating_add(bytes);
    }
    let (they_are, them, they_change) = match temps {
        0 => return None,
        1 => ("it is", "it", "it changes"),
        _ => ("they are", "them", "they change"),
    };
    let what = match (existing, roots) {
        (Existing::Take, _) => {
            format!("{they_are} processed once proven unused")
        }
        (Existing::Wait, [root]) => {
            let grace = grace(&root.policy);
            format!("{they_are} processed in {grace} unless a process uses {them}")
        }
        (Existing::Wait, _) => {
            format!("{they_are} processed after the grace unless a process uses {them}")
        }
        (Existing::Leave, _) => format!("{they_are} ignored until {they_change}"),
    };
    let size = text::size(bytes);
    let temps = text::counted(temps, "temp", "temps");
    Some(format!("{temps} ({size}) existed before the start; {what}"))
}

/// Returns the grace of a rule, for people.
pub(crate) fn grace(policy: &Policy) -> String {
    let (random, fixed) = (policy.grace.random, policy.grace.fixed);
    match random == fixed {
        true => text::span(random),
        false => format!(
            "{} ({} for names without a random part)",
            text::span(random),
            text::span(fixed)
        ),
    }
}

/// Returns the number of temps that already exist, and their size.
fn count_existing(root: &Root) -> (u64, u64) {
    let (mut temps, mut bytes) = (0, 0);
    if !response::responds(&root.path) {
        return (temps, bytes);
    }
    let found = walk::find_temps(root, &mut |_, _| {}, &|_| {}).unwrap_or_default();
    for (below, names) in found {
        let Ok(dir) = orphand::fs::dir::Dir::open_below(&root.path, None, &below) else {
            continue;
        };
        for name in names {
            if let Ok(Some(seen)) = dir.observe(&name) {
                temps += 1;
                bytes = seen.fingerprint.size.saturating_add(bytes);
            }
        }
    }
    (temps, bytes)
}
