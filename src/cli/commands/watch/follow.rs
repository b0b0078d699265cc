//! The main loop of `orphand watch`, after the start of the watcher: prints events and the status line, reloads the
//! configuration, notifies systemd, writes metrics, and logs leaks. It runs in one thread, which sleeps until an event
//! arrives or until the next of these tasks is due.

use std::time::{Duration, Instant};

use crossbeam_channel::{Select, TryRecvError};
use orphand::Watcher;
use orphand::core::event::{Event, RootState};
use orphand::core::sums::Sums;
use orphand::fs::dir::{Dir, RootError};
use orphand::store::folders::Folders;
use orphand::sys::{clock, free_memory};
use orphand::watch::file::FileWatcher;

use super::Source;
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups;
use crate::cli::output::text;
use crate::cli::output::watch_status::{WatchStatus, leak_lines, state};
use crate::cli::runtime::alert::{AlertThread, Alerts};
use crate::cli::runtime::log;
use crate::cli::runtime::metrics::Textfile;
use crate::cli::runtime::plan::config_missing;
use crate::cli::runtime::service_notify::ServiceNotifier;

/// The time without changes after which the configuration file is read. Editors write a file in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// The minimum interval between two updates of the status line on the terminal, and of that for systemd.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of events that are printed before the deadlines are checked again.
const MAX_EVENTS: usize = 256;

pub(super) struct WatchLoop<'a> {
    watcher: &'a Watcher,
    report: &'a mut EventPrinter,
    status: &'a WatchStatus,
    notifier: ServiceNotifier,
    metrics: Option<Textfile>,
    alerts: Option<Alerts>,
    /// The threads for alerts by older configurations, which may still run a command.
    old_alerts: Vec<AlertThread>,
    /// The configuration that is in force.
    config: Config,
    changes: Option<FileWatcher>,
    leaks_every: Duration,
    due: Deadlines,
    is_ready: bool,
    failed: bool,
    /// Some output could not be written, which was reported.
    output_failed: bool,
    ended: bool,
}

/// The time after which the work of the start has ended, for a watch that has little to do.
const START_TIME: Duration = Duration::from_secs(2);

/// The times at which tasks are due.
#[derive(Default)]
struct Deadlines {
    /// The status line on the terminal.
    terminal_status: Option<Instant>,
    /// The status line for systemd, after an event.
    systemd_status: Option<Instant>,
    /// The reload of the configuration file, after a change.
    reread: Option<Instant>,
    /// The log lines about leaks, after a temp was left behind.
    leaks: Option<Instant>,
    /// The release of the code that only the start needed.
    unmap_code: Option<Instant>,
}

impl<'a> WatchLoop<'a> {
    pub(super) fn new(
        watcher: &'a Watcher,
        report: &'a mut EventPrinter,
        status: &'a WatchStatus,
        notifier: ServiceNotifier,
    ) -> WatchLoop<'a> {
        WatchLoop {
            watcher,
            report,
            status,
            notifier,
            metrics: None,
            alerts: None,
            old_alerts: Vec::new(),
            config: Config::default(),
            changes: None,
            leaks_every: Duration::MAX,
            due: Deadlines::default(),
            is_ready: false,
            failed: false,
            output_failed: false,
            ended: false,
        }
    }

    /// Runs the loop until the watcher has ended.
    pub(super) fn run(
        mut self,
        source: &Source<'_>,
        config: &Config,
        folders: &Folders,
    ) -> Result<Exit, Failure> {
        self.changes = source.changes(config);
        // The file may have changed since it was first read.
        self.due.reread = self.changes.as_ref().map(|_| Instant::now());
        self.apply_config(source, config);
        while !self.ended {
            self.wait();
            self.run_due(source, folders);
        }
        if self.due.leaks.is_some() {
            self.log_leaks();
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.write(self.status);
        }
        let alerts = self.alerts.take().map(Alerts::close);
        AlertThread::end(self.old_alerts.drain(..).chain(alerts).collect());
        if self.output_failed {
            return Ok(Exit::Failed);
        }
        let summary = self.watcher.summary();
        let failed = self.failed || summary.failed > 0 || summary.cannot_tell;
        let partly = failed || self.has_unreadable_root();
        Ok(if partly { Exit::Partial } else { Exit::Done })
    }

    /// Returns whether a root is not watched because it cannot be read. The state alone does not tell: another orphand
    /// process may work on the root.
    fn has_unreadable_root(&self) -> bool {
        let roots = self.watcher.status_handle().roots();
        let denied = roots
            .iter()
            .filter(|one| state(one) == RootState::Denied)
            .map(|one| Dir::open_root(&one.root.path, None));
        denied
            .filter_map(Result::err)
            .any(|error| matches!(error, RootError::Io(_)))
    }

    /// Puts `config` in force, and applies its settings other than the rules.
    fn apply_config(&mut self, source: &Source<'_>, config: &Config) {
        let old = std::mem::replace(&mut self.config, config.clone());
        self.leaks_every = config.log.leaks;
        self.watcher.set_journal_cap(config.journal.max_size);
        let textfile = config.metrics.textfile.as_deref();
        let textfile = textfile.filter(|_| source.is_background());
        if self.alerts.is_none() || self.config.alert != old.alert {
            let roots: Vec<_> = self.watcher.status_handle().roots().into_iter().collect();
            let roots: Vec<_> = roots.into_iter().map(|one| one.root.path).collect();
            self.old_alerts.retain(|thread| !thread.is_finished());
            self.old_alerts
                .extend(self.alerts.take().map(Alerts::close));
            self.alerts = Alerts::start(&config.alert, &roots);
        }
        self.metrics = textfile.map(|path| Textfile::new(path, config.metrics.every));
    }

    /// Sleeps until an event arrives or a task is due, and prints the events.
    fn wait(&mut self) {
        let live = self.report.is_interactive();
        // The status line is worth one wake-up per second only while temps are tracked.
        let changes = || self.watcher.tracked() > 0 || !self.status.last_minute().is_empty();
        if live && self.due.terminal_status.is_none() && changes() {
            self.due.terminal_status = Some(Instant::now() + STATUS_INTERVAL);
        }
        let deadline = [
            self.due.terminal_status,
            self.due.systemd_status,
            self.due.reread,
            self.due.leaks,
            self.due.unmap_code,
            self.report.due(),
            self.notifier.next_tick(),
            self.metrics.as_ref().map(Textfile::due),
            self.alerts.as_ref().and_then(Alerts::due),
        ];
        let mut select = Select::new();
        let happened = select.recv(self.watcher.events());
        if live {
            select.recv(self.watcher.activity());
        }
        if let Some(changes) = &self.changes {
            select.recv(changes.wake_rx());
        }
        let ready = match deadline.into_iter().flatten().min() {
            Some(at) => select.ready_deadline(at).ok(),
            None => Some(select.ready()),
        };
        if ready == Some(happened) {
            return self.print_events();
        }
        if self.watcher.activity().try_recv().is_ok() {
            self.due.terminal_status = Some(Instant::now());
        }
        if let Some(changes) = &mut self.changes
            && changes.wake_rx().try_recv().is_ok()
        {
            // The watch is set before the file is read, so that no later change is missed.
            changes.rewatch();
            self.due.reread = Some(Instant::now() + SETTLE_TIME);
        }
    }

    /// Prints the events that have arrived.
    fn print_events(&mut self) {
        for _ in 0..MAX_EVENTS {
            let event = match self.watcher.events().try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    break;
                }
            };
            if let Event::Summary(_) = event {
                self.report.status(String::new());
                let pending = self.watcher.pending();
                let kept = pending.held as u64;
                self.report.set_still_kept(kept, pending.held_bytes);
                self.notifier.report_stopping();
                self.ended = true;
            }
            self.failed |= matches!(event, Event::Failed { .. });
            let ready = matches!(event, Event::Ready { .. });
            self.status.note_holders(&event);
            let leak = self.status.note_leak(&event);
            let is_leak = leak.is_some();
            if let (Some((key, one)), Some(alerts)) = (leak, &mut self.alerts) {
                alerts.count(key, one);
            }
            let printed = self.report.event(&event);
            self.check_output(printed);
            if ready {
                self.is_ready = true;
                if let Some(metrics) = &mut self.metrics {
                    metrics.write(self.status);
                }
                self.notifier.report_ready(&self.status.snapshot().line());
                self.due.unmap_code = Instant::now().checked_add(START_TIME);
            }
            let now = Instant::now();
            if is_leak {
                let at = now.checked_add(self.leaks_every);
                self.due.leaks = self.due.leaks.or(at);
            }
            self.due.systemd_status.get_or_insert(now + STATUS_INTERVAL);
            if let Some(metrics) = &mut self.metrics {
                metrics.mark_changed();
            }
        }
        if self.report.is_interactive() {
            self.due.terminal_status.get_or_insert_with(Instant::now);
        }
    }

    /// Reports the first failure to write output, which does not end the watch.
    fn check_output(&mut self, printed: std::io::Result<()>) {
        if let Err(error) = printed
            && !std::mem::replace(&mut self.output_failed, true)
        {
            ::log::error!("{error}; the watch continues");
        }
    }

    /// Runs the tasks that are due.
    fn run_due(&mut self, source: &Source<'_>, folders: &Folders) {
        let now = Instant::now();
        let printed = self.report.print_ended(now);
        self.check_output(printed);
        let take = |due: &mut Option<Instant>| due.take_if(|at| *at <= now).is_some();
        if take(&mut self.due.terminal_status) && !self.ended {
            let width = self.report.status_width();
            let line = status_line(self.watcher, &self.status.last_minute(), width);
            self.report.status(line);
        } else if !self.ended {
            self.report.restore_status();
        }
        if take(&mut self.due.systemd_status) && self.is_ready && !self.ended {
            self.notifier.report_status(self.status.snapshot().line());
        }
        if take(&mut self.due.reread) && !self.ended {
            self.reload(source, folders);
        }
        if take(&mut self.due.leaks) {
            self.log_leaks();
        }
        if take(&mut self.due.unmap_code) {
            free_memory::unmap_code();
        }
        if let Some(alerts) = &mut self.alerts {
            alerts.check(now);
        }
        match self.is_ready {
            true => self.notifier.ping_watchdog(now, self.watcher),
            false => self.notifier.report_starting(now),
        }
        if let Some(metrics) = &mut self.metrics
            && metrics.due() <= now
        {
            metrics.write(self.status);
        }
    }

    /// Reads the configuration file again. If it is invalid, the old settings stay in force.
    fn reload(&mut self, source: &Source<'_>, folders: &Folders) {
        let read = source.reread().and_then(|plan| match &self.config.path {
            // Editors and package managers may remove a file before they create the new one. Without it, rules that
            // keep files would be missing.
            Some(path) if plan.config.path.is_none() => Err(config_missing(path)),
            _ => Ok(plan),
        });
        let error = match read {
            Ok(plan) => {
                if plan.config != self.config {
                    self.report.set_roots(&plan.roots);
                    self.status.set_roots(&plan.roots);
                    let roots = plan.roots.len();
                    self.watcher.reload(plan.roots, plan.config.quarantine);
                    ::log::info!("{}", in_force(&plan.config, roots));
                    if source.is_background() {
                        log::configure(&plan.config.log, folders);
                    }
                    self.apply_config(source, &plan.config);
                }
                self.status.set_config(plan.config.path, None);
                None
            }
            Err(failure) => Some(failure.text),
        };
        if let Some(error) = error {
            if self.status.snapshot().config_error.as_ref() != Some(&error) {
                ::log::error!("{error}\nthe old rules are still in force");
            }
            self.status.set_config(None, Some(error));
        }
        self.due.systemd_status.get_or_insert(Instant::now());
    }

    fn log_leaks(&mut self) {
        self.due.leaks = None;
        for line in leak_lines(&self.status.snapshot().leaks) {
            ::log::info!("{line}");
        }
    }
}

fn in_force(config: &Config, roots: usize) -> String {
    let file = config.path.as_deref().map(text::escaped);
    let roots = text::counted(roots as u64, "directory", "directories");
    format!(
        "{} was read again: {roots} to watch",
        file.unwrap_or_default()
    )
}

/// Returns the status line, of at most `width` characters: `2 waiting, next in 7 s · 1 held · freed 5 B · last minute: 20
/// x.json.<uuid>.tmp (5 MB)`.
fn status_line(watcher: &Watcher, last_minute: &Sums, width: usize) -> String {
    let waiting = watcher.pending();
    let summary = watcher.summary();
    let mut parts = Vec::new();
    if waiting.waiting > 0 {
        let next = waiting.next.map(|next| next.since(clock::mono()).as_secs());
        let next = next.map(|s| format!(", next in {}", text::span(Duration::from_secs(s.max(1)))));
        let next = next.unwrap_or_default();
        parts.push(format!(
            "{} waiting{next}",
            text::count(waiting.waiting as u64)
        ));
    }
    if waiting.held > 0 {
        parts.push(format!("{} held", text::count(waiting.held as u64)));
    }
    if summary.reaped > summary.would_reap {
        parts.push(format!("freed {}", text::size(summary.freed.disk_bytes)));
    }
    if summary.quarantined_size.disk_bytes > 0 {
        // The quarantine may also hold files of earlier runs.
        let moved = summary.quarantined_size.disk_bytes;
        parts.push(format!("moved {}", text::size(moved)));
    }
    groups::status_line(&parts, last_minute, width)
}
