//! Prints events on stdout: lines for people, JSON for programs. Lines are also appended to the log file.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anstyle::Style;
use orphand::core::event::{Event, RescanCause, RootState};
use orphand::core::judge::Reason;
use orphand::core::sums::Sums;
use orphand::fs::root::Root;
use orphand::store::json;
use orphand::sys::clock;
use serde::Serialize;

use super::bursts::{Bursts, WindowEnd};
use super::groups::{self, Grouping, MAX_GROUPS};
use super::messages::{EventFormatter, SummarySizes};
use super::standard_streams::has_reader;
use super::wrap::{terminal_width, wrapped};
use crate::cli::options::{Color, ListOptions, OutputOptions};
use crate::cli::runtime::suspend::{self, ERASE_LINE};
use crate::cli::runtime::{log, service_notify, signals};

/// Prints the output of a command on stdout.
pub(crate) struct EventPrinter {
    json: bool,
    quiet: bool,
    is_terminal: bool,
    /// True if stdout is systemd's journal, which adds the time, and takes the priority from the start of each line.
    is_journal: bool,
    formatter: EventFormatter,
    /// The status line at the bottom of the terminal, if one is shown.
    status: Option<String>,
    /// The status line that a line about an event has replaced, until it is drawn again.
    replaced_status: Option<String>,
    /// True if the reader has closed stdout. Nothing more is written then.
    is_closed: bool,
    /// The roots that are scanned periodically, each with true if such a scan was printed.
    polled: HashMap<PathBuf, bool>,
    /// The number of temps that were kept because of a running process, by reason, directory and pid.
    kept: HashMap<(Reason, PathBuf, u32), u64>,
    /// True if each temp has a line.
    verbose: bool,
    /// True if only the paths of removed temps are printed, each followed by a zero byte.
    print0: bool,
    grouping: Grouping,
    bursts: Bursts<EventLine>,
    sizes: SummarySizes,
}

/// The line of an event.
#[derive(Debug)]
struct EventLine {
    event: LineKind,
    /// The line for stdout. `None` if JSON is printed instead.
    text: Option<String>,
    /// The line for the log file, if there is one.
    file: Option<String>,
}

/// The kind of a line, as far as its output depends on it.
#[derive(Clone, Copy, Debug)]
struct LineKind {
    /// The word at its start, with its style.
    row: (&'static str, Style),
    /// The priority for systemd's journal.
    priority: &'static str,
    is_failure: bool,
}

/// The largest number of entries in `EventPrinter::kept`. When it is reached, all are dropped.
const MAX_KEPT: usize = 1024;

/// The decision to print or skip the line of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineChoice {
    Print,
    /// Print it, and add that no more of its kind follow.
    PrintAsLast,
    Skip,
}

impl EventPrinter {
    pub(crate) fn new(output: &OutputOptions) -> EventPrinter {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match output.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => forced || (terminal && !no_color && !dumb),
        };
        let journal = !output.json && service_notify::stdout_is_journal();
        EventPrinter {
            json: output.json,
            quiet: output.quiet,
            is_terminal: terminal,
            is_journal: journal,
            formatter: EventFormatter {
                color: color && !output.json,
                has_time: !journal,
                is_one_pass: false,
                is_compact: terminal && output.verbose == 0,
                roots: Vec::new(),
            },
            status: None,
            replaced_status: None,
            is_closed: false,
            polled: HashMap::new(),
            kept: HashMap::new(),
            verbose: output.verbose > 0,
            print0: false,
            grouping: Grouping::default(),
            bursts: Bursts::default(),
            sizes: SummarySizes::default(),
        }
    }

    /// Returns the printer for the events of `roots`, with the options for lists.
    pub(crate) fn for_roots(mut self, roots: &[Root], options: &ListOptions) -> EventPrinter {
        self.set_roots(roots);
        self.verbose |= options.list;
        self.formatter.is_compact &= !options.list;
        self.print0 = options.print0;
        self
    }

    /// Returns the printer for a command that makes only one pass.
    pub(crate) fn for_one_pass(mut self) -> EventPrinter {
        self.formatter.is_one_pass = true;
        self
    }

    /// Reports whether the output goes to a terminal, as text.
    pub(crate) fn is_interactive(&self) -> bool {
        self.is_terminal && !self.json
    }

    /// Sets the roots, also after a reload.
    pub(crate) fn set_roots(&mut self, roots: &[Root]) {
        self.formatter.roots = roots.iter().map(|root| root.path.clone()).collect();
        self.grouping = Grouping::new(roots);
    }

    /// Prints `event`, or counts it for a line about many. It is not an error if the reader has closed the pipe.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        if self.print0 {
            return self.path_of_removed(event);
        }
        if !self.json && self.is_repeated_scan(event) {
            return Ok(());
        }
        let choice = self.line_choice(event);
        let printed = match self.json {
            true => self.json_event(event),
            false => Ok(()),
        };
        printed.and(self.text_of(event, choice))
    }

    /// Prints the text of `event`, on stdout unless that is for JSON, and in the log file if there is one.
    fn text_of(&mut self, event: &Event, choice: LineChoice) -> io::Result<()> {
        let has_file = log::path().is_some();
        if self.json && !has_file {
            return Ok(());
        }
        let now = Instant::now();
        let mut printed = self.print_ended(now);
        self.sizes.count(event);
        if let Event::Summary(_) = event {
            printed = printed.and(self.print_rest());
        }
        if choice == LineChoice::Skip {
            return printed;
        }
        let group = match self.verbose {
            true => None,
            false => self.grouping.of_event(event),
        };
        if group.is_some() && self.bursts.is_full() {
            printed = printed.and(self.print_rest());
        }
        let text = |formatter: &EventFormatter| {
            let line = formatter.format(event, &self.sizes)?;
            Some(with_last_note(line, choice))
        };
        let line = || EventLine {
            event: LineKind {
                row: self.formatter.row_start(event),
                priority: priority(event),
                is_failure: matches!(event, Event::Failed { .. }),
            },
            text: if self.json {
                None
            } else {
                text(&self.formatter)
            },
            file: has_file.then(|| text(&self.formatter.for_file())).flatten(),
        };
        let line = match group {
            None => Some(line()),
            // Each event of a group has a line. Most lines of a burst are not printed, and so not formatted.
            Some((key, one)) => self.bursts.add(now, key, one, line),
        };
        match line {
            Some(line) if line.text.is_some() || line.file.is_some() => {
                printed.and(self.event_line(&line))
            }
            _ => printed,
        }
    }

    /// Returns the time at which [`EventPrinter::print_ended`] will print lines, if events have no line yet.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.bursts.due()
    }

    /// Prints the lines about groups of events that are complete at `now`.
    pub(crate) fn print_ended(&mut self, now: Instant) -> io::Result<()> {
        let ends = self.bursts.ended(now);
        self.window_ends(ends)
    }

    /// Prints the lines about all events that have no line yet.
    fn print_rest(&mut self) -> io::Result<()> {
        let ends = self.bursts.end_all();
        self.window_ends(ends)
    }

    fn window_ends(&mut self, ends: Vec<WindowEnd<EventLine>>) -> io::Result<()> {
        let mut printed = Ok(());
        let mut rest = Sums::default();
        let mut failed = false;
        for (index, end) in ends.into_iter().enumerate() {
            let lines = match index {
                MAX_GROUPS.. => {
                    failed |= end.lines.iter().any(|line| line.event.is_failure);
                    rest.add_sum(end.key, end.sum);
                    continue;
                }
                _ if end.has_single_lines() => end.lines,
                _ => self.sum_line(&end).into_iter().collect(),
            };
            for line in lines {
                printed = printed.and(self.event_line(&line));
            }
        }
        let Some(text) = groups::hidden_groups(&rest, 0).line_with_option() else {
            return printed;
        };
        let line = EventLine {
            event: LineKind {
                row: ("", Style::new()),
                priority: "<6>",
                is_failure: failed,
            },
            file: log::path().map(|_| text.clone()),
            text: (!self.json).then_some(text),
        };
        printed.and(self.event_line(&line))
    }

    /// Returns the line about the sum of a window.
    fn sum_line(&self, end: &WindowEnd<EventLine>) -> Option<EventLine> {
        let first = end.lines.first()?;
        let text = |formatter: &EventFormatter| {
            formatter.sum_row(first.event.row, &end.key, &end.sum, end.shown)
        };
        Some(EventLine {
            event: first.event,
            text: first.text.as_ref().map(|_| text(&self.formatter)),
            file: first
                .file
                .as_ref()
                .map(|_| text(&self.formatter.for_file())),
        })
    }

    fn event_line(&mut self, line: &EventLine) -> io::Result<()> {
        if let Some(file) = &line.file {
            log::append(file);
        }
        match &line.text {
            Some(text) if !self.quiet || line.event.is_failure => match self.is_journal {
                true => self.line(&format!("{}{text}", line.event.priority)),
                false => self.line(text),
            },
            _ => Ok(()),
        }
    }

    /// Reports whether only errors and results are printed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Reports whether the reader has closed stdout.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Prints the path of a removed temp and a zero byte.
    fn path_of_removed(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Reaped(disposed) => {
                let path = disposed.subject.path.as_os_str().as_bytes();
                self.bytes(&[path, b"\0"].concat())
            }
            _ => Ok(()),
        }
    }

    /// Prints bytes as they are. Does nothing if the reader has closed the pipe.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_closed {
            let mut out = io::stdout().lock();
            let written = out.write_all(bytes).and_then(|()| out.flush());
            self.is_closed = !has_reader(written)?;
        }
        Ok(())
    }

    /// Sets the temps that are still kept at the end of a watch. Without this, the summary counts the events.
    pub(crate) fn set_still_kept(&mut self, temps: u64, bytes: u64) {
        self.sizes.still_kept = Some((temps, bytes));
    }

    /// Returns the groups by the rules of the roots.
    pub(crate) fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// Returns whether `event` has a line. A running writer whose temps have changing names has few lines in each
    /// directory, not one for each name.
    fn line_choice(&mut self, event: &Event) -> LineChoice {
        let Event::Kept {
            subject,
            reason: reason @ (Reason::InUse | Reason::Locked | Reason::WriterAlive),
            holders,
            details,
            ..
        } = event
        else {
            return LineChoice::Print;
        };
        let holder = holders.first().map(|holder| holder.pid);
        let (Some(pid), Some(dir)) = (holder.or(details.writer_pid), subject.path.parent()) else {
            return LineChoice::Print;
        };
        if self.verbose {
            return LineChoice::Print;
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        let times = self.kept.entry((*reason, dir.to_owned(), pid)).or_default();
        *times += 1;
        match *times {
            ..LINES_PER_PROCESS => LineChoice::Print,
            LINES_PER_PROCESS => LineChoice::PrintAsLast,
            _ => LineChoice::Skip,
        }
    }

    /// Reports whether `event` is a periodic scan of a root that cannot be watched, and not the first one since the
    /// state of the root changed.
    fn is_repeated_scan(&mut self, event: &Event) -> bool {
        match event {
            Event::Root { root, state } => {
                match state {
                    RootState::Polling => _ = self.polled.insert(root.clone(), false),
                    _ => _ = self.polled.remove(root),
                }
                false
            }
            Event::Rescan {
                root,
                cause: RescanCause::Periodic,
            } => self
                .polled
                .get_mut(root)
                .is_some_and(|printed| std::mem::replace(printed, true)),
            _ => false,
        }
    }

    /// Prints a JSON object on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(object)?)
    }

    /// Prints an event as JSON. Thousands of them may follow each other.
    fn json_event(&mut self, event: &Event) -> io::Result<()> {
        let mut line = Vec::with_capacity(1024);
        json::append(&mut line, &json::event(event, clock::wall()));
        line.push(b'\n');
        self.written_line(&line)
    }

    /// Prints a line on stdout and flushes it. Does nothing if the reader has closed the pipe.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        let width = match self.is_interactive() {
            true => terminal_width(io::stdout()),
            false => None,
        };
        let line = wrapped(line, width);
        self.written_line(&[line.as_bytes(), b"\n"].concat())
    }

    /// Does the same with a line that ends with a newline.
    fn written_line(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_closed {
            self.is_closed = !has_reader(self.write(line))?;
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        // The terminal shows Ctrl-C as "^C", where the cursor is.
        let has_ctrl_c = self.is_interactive() && signals::first().is_some();
        if self.status.is_some() || has_ctrl_c {
            write!(out, "{ERASE_LINE}")?;
            suspend::set_shown(false);
            self.replaced_status = self.status.take().filter(|_| !has_ctrl_c);
        }
        out.write_all(line)?;
        out.flush()
    }

    /// Prints a line that is not an event, flushes it, and appends it to the log.
    pub(crate) fn note(&mut self, line: &str) -> io::Result<()> {
        log::append(line);
        match self.is_journal {
            true => self.line(&format!("<6>{line}")),
            false => self.line(line),
        }
    }

    /// Returns the largest number of characters in the status line.
    pub(crate) fn status_width(&self) -> usize {
        // A line that is as wide as the terminal would move the cursor, and the next one could not replace it.
        terminal_width(io::stdout()).map_or(usize::MAX, |width| width.saturating_sub(1))
    }

    /// Draws the status line below the lines that have replaced it.
    pub(crate) fn restore_status(&mut self) {
        if let Some(status) = self.replaced_status.take() {
            self.status(status);
        }
    }

    /// Sets the status line at the bottom of a terminal, which must not be longer than
    /// [`EventPrinter::status_width`]. An empty text removes it.
    pub(crate) fn status(&mut self, status: String) {
        self.replaced_status = None;
        if suspend::take_removed() {
            self.status = None;
        }
        if !self.is_interactive() || self.quiet || self.status.as_deref().unwrap_or("") == status {
            return;
        }
        let mut out = io::stdout().lock();
        let text = self.formatter.paint(&status, Style::new().dimmed());
        // If the terminal cannot be written to, printing the next event reports it.
        suspend::set_shown(true);
        let _ = write!(out, "{ERASE_LINE}{text}");
        let _ = out.flush();
        suspend::set_shown(!status.is_empty());
        self.status = (!status.is_empty()).then_some(status);
    }

    /// Returns `text` with a style, if colors are enabled.
    pub(crate) fn paint(&self, text: &str, style: Style) -> String {
        self.formatter.paint(text, style)
    }

    /// Returns the shortest unambiguous form of a path, escaped.
    pub(crate) fn name(&self, path: &Path, root: &Path) -> String {
        self.formatter.name(path, root)
    }
}

/// The number of temps of one running process in one directory that have a line.
const LINES_PER_PROCESS: u64 = 3;

fn with_last_note(line: String, choice: LineChoice) -> String {
    match choice {
        LineChoice::PrintAsLast => {
            format!(
                "{line}.  Further temps of this process in this directory are not shown (-v shows them)"
            )
        }
        _ => line,
    }
}

/// Returns the priority of a line about `event` for the journal (sd-daemon(3)): `<5>` is a notice.
fn priority(event: &Event) -> &'static str {
    match event {
        Event::Reaped(_) | Event::Quarantined { .. } | Event::Purged { .. } => "<5>",
        Event::Failed { .. } => "<3>",
        Event::Root { .. } => "<4>",
        Event::Kept { .. } | Event::Tracked { .. } | Event::Settled { .. } => "<7>",
        _ => "<6>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::core::event::{Details, Subject};
    use orphand::core::observation::Holder;

    /// Returns a printer for text without colors.
    fn plain() -> EventPrinter {
        let output = OutputOptions {
            json: false,
            color: Color::Never,
            quiet: false,
            verbose: 0,
        };
        EventPrinter::new(&output)
    }

    #[test]
    fn a_running_writer_with_changing_names_has_few_lines() {
        let mut printer = plain();
        let kept = |name: &str, pid: u32| Event::Kept {
            subject: Subject {
                path: format!("/r/{name}").into(),
                root: "/r".into(),
                size: None,
            },
            reason: Reason::InUse,
            holders: vec![Holder {
                pid,
                name: "bash".to_owned(),
            }],
            retry: None,
            reported_before: false,
            details: Details::default(),
        };
        let mut printed = |name: &str, pid| printer.line_choice(&kept(name, pid));
        let first: Vec<LineChoice> = (0..5).map(|n| printed(&format!("{n}.tmp"), 1)).collect();
        let (print, skip) = (LineChoice::Print, LineChoice::Skip);
        assert_eq!(first, [print, print, LineChoice::PrintAsLast, skip, skip]);
        assert_eq!(printed("a.tmp", 2), LineChoice::Print, "another process");
        assert_eq!(
            printed("below/a.tmp", 1),
            LineChoice::Print,
            "another directory"
        );
        printer.verbose = true;
        assert_eq!(printer.line_choice(&kept("b.tmp", 1)), LineChoice::Print);
    }

    #[test]
    fn periodic_scans_are_printed_once_after_each_change_of_state() {
        let mut printer = plain();
        let mut printed = |event: Event| !printer.is_repeated_scan(&event);
        let scan = |root: &str| Event::Rescan {
            root: root.into(),
            cause: RescanCause::Periodic,
        };
        let state = |state| Event::Root {
            root: "/r".into(),
            state,
        };
        assert!(printed(scan("/r")) && printed(scan("/r")), "it is watched");
        assert!(printed(state(RootState::Polling)));
        assert!(printed(scan("/r")), "the first");
        assert!(
            !printed(scan("/r")) && !printed(scan("/r")),
            "nothing has changed"
        );
        assert!(printed(scan("/other")));
        assert!(printed(state(RootState::Watching)) && printed(scan("/r")));
        assert!(printed(state(RootState::Polling)) && printed(scan("/r")) && !printed(scan("/r")));
    }
}
