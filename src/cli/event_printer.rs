//! Where what happens is told: lines for people, JSON for programs.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anstyle::Style;
use orphand::clock;
use orphand::decide::judge::Reason;
use orphand::event::{Event, RescanCause, RootState};
use orphand::json;
use orphand::root::Root;

use super::args::{Color, OutputOptions};
use super::messages::Words;
use super::{is_read, log, service_notify};

/// Where everything that a person or a program is to read goes out.
pub(crate) struct EventPrinter {
    json: bool,
    quiet: bool,
    terminal: bool,
    /// systemd's journal keeps the lines: it dates them, and sorts them by what stands before.
    journal: bool,
    words: Words,
    /// The line at the bottom, if one stands there.
    status: Option<String>,
    /// The reader of stdout has closed it: nothing is written any more.
    closed: bool,
    /// Roots that are scanned by time, and whether that was told.
    polled: HashMap<PathBuf, bool>,
    /// How often a temp was kept because of a live process, by reason, directory and process.
    kept: HashMap<(Reason, PathBuf, u32), u64>,
    /// Each single temp that is kept is told.
    verbose: bool,
}

/// The most processes for which it is remembered that their temps are kept. Beyond that all are forgotten.
const MOST_KEPT: usize = 1024;

/// How often a line about a kept temp is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Whole,
    /// The last line of its kind.
    Last,
    Not,
}

impl EventPrinter {
    pub(crate) fn new(look: &OutputOptions, roots: Vec<PathBuf>) -> EventPrinter {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match look.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => forced || (terminal && !no_color && !dumb),
        };
        let journal = !look.json && service_notify::stdout_is_journal();
        EventPrinter {
            json: look.json,
            quiet: look.quiet,
            terminal,
            journal,
            words: Words {
                color: color && !look.json,
                dated: !journal,
                once: false,
                roots,
            },
            status: None,
            closed: false,
            polled: HashMap::new(),
            kept: HashMap::new(),
            verbose: look.verbose > 0,
        }
    }

    /// What is told of happens once, not for as long as a watch lasts.
    pub(crate) fn once(mut self) -> EventPrinter {
        self.words.once = true;
        self
    }

    /// People sit in front of it.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal && !self.json
    }

    /// From now on these are the roots.
    pub(crate) fn roots_are(&mut self, roots: &[Root]) {
        self.words.roots = roots.iter().map(|root| root.path.clone()).collect();
    }

    /// Tells of `event`. A reader that has closed the pipe is no error.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.json && self.is_told_already(event) {
            return Ok(());
        }
        let telling = self.telling(event);
        if log::path().is_some()
            && telling != Telling::Not
            && let Some(line) = self.words.plain().of(event)
        {
            log::also(&with_last(line, telling));
        }
        if self.json {
            return self.line(&json::event(event, clock::wall()).to_string());
        }
        if telling == Telling::Not {
            return Ok(());
        }
        let failed = matches!(event, Event::Failed { .. });
        let line = self.words.of(event);
        match line.map(|line| with_last(line, telling)) {
            Some(line) if !self.quiet || failed => match self.journal {
                true => self.line(&format!("{}{line}", priority(event))),
                false => self.line(&line),
            },
            _ => Ok(()),
        }
    }

    /// A live writer whose temps have changing names has one line in each directory, not one for each name.
    fn telling(&mut self, event: &Event) -> Telling {
        let Event::Kept {
            subject,
            reason: reason @ (Reason::InUse | Reason::Locked | Reason::WriterAlive),
            holders,
            details,
            ..
        } = event
        else {
            return Telling::Whole;
        };
        let holder = holders.first().map(|holder| holder.pid);
        let (Some(pid), Some(dir)) = (holder.or(details.writer_pid), subject.path.parent()) else {
            return Telling::Whole;
        };
        if self.verbose {
            return Telling::Whole;
        }
        if self.kept.len() >= MOST_KEPT {
            self.kept.clear();
        }
        let times = self.kept.entry((*reason, dir.to_owned(), pid)).or_default();
        *times += 1;
        match *times {
            ..SINGLY => Telling::Whole,
            SINGLY => Telling::Last,
            _ => Telling::Not,
        }
    }

    /// Whether `event` is one of the scans by time of a root that cannot be watched, and not the first since
    /// its state has changed.
    fn is_told_already(&mut self, event: &Event) -> bool {
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
                .is_some_and(|told| std::mem::replace(told, true)),
            _ => false,
        }
    }

    /// One line on stdout, at once; nothing where the reader has closed the pipe.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        if !self.closed {
            self.closed = !is_read(self.write(line))?;
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.status.take().is_some() {
            write!(out, "\r\x1b[K")?;
        }
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// One line that is no event, at once, also in the log.
    pub(crate) fn note(&mut self, line: &str) -> io::Result<()> {
        log::also(line);
        match self.journal {
            true => self.line(&format!("<6>{line}")),
            false => self.line(line),
        }
    }

    /// Sets the line at the bottom of a terminal; an empty one takes it away.
    pub(crate) fn status(&mut self, status: String) {
        if !self.is_live() || self.quiet || self.status.as_deref().unwrap_or("") == status {
            return;
        }
        let mut out = io::stdout().lock();
        let text = self.words.paint(&status, Style::new().dimmed());
        // A terminal that cannot be written to is found out by the next line.
        let _ = write!(out, "\r\x1b[K{text}");
        let _ = out.flush();
        self.status = (!status.is_empty()).then_some(status);
    }

    /// `text` in a colour, where there are colours.
    pub(crate) fn paint(&self, text: &str, style: Style) -> String {
        self.words.paint(text, style)
    }

    /// A path as short as it can be told apart.
    pub(crate) fn name(&self, path: &Path, root: &Path) -> String {
        self.words.name(path, root)
    }
}

/// How many temps of one live process in one directory have a line of their own.
const SINGLY: u64 = 3;

fn with_last(line: String, telling: Telling) -> String {
    match telling {
        Telling::Last => {
            format!(
                "{line}.  More of this process here are kept without a line each (-v shows them)"
            )
        }
        _ => line,
    }
}

/// How much a line about `event` matters to the journal (sd-daemon(3)): `<5>` is a notice.
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
    use orphand::decide::observation::Holder;
    use orphand::event::{Details, Subject};

    /// One for people, without colors.
    fn plain() -> EventPrinter {
        let look = OutputOptions {
            json: false,
            color: Color::Never,
            quiet: false,
            verbose: 0,
        };
        EventPrinter::new(&look, Vec::new())
    }

    #[test]
    fn a_live_writer_with_changing_names_has_few_lines() {
        let mut report = plain();
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
        let mut told = |name: &str, pid| report.telling(&kept(name, pid));
        let first: Vec<Telling> = (0..5).map(|n| told(&format!("{n}.tmp"), 1)).collect();
        let (whole, not) = (Telling::Whole, Telling::Not);
        assert_eq!(first, [whole, whole, Telling::Last, not, not]);
        assert_eq!(told("a.tmp", 2), Telling::Whole, "another process");
        assert_eq!(told("below/a.tmp", 1), Telling::Whole, "another directory");
        report.verbose = true;
        assert_eq!(report.telling(&kept("b.tmp", 1)), Telling::Whole);
    }

    #[test]
    fn scans_by_time_are_told_once_and_again_when_the_state_changes() {
        let mut report = plain();
        let mut told = |event: Event| !report.is_told_already(&event);
        let scan = |root: &str| Event::Rescan {
            root: root.into(),
            cause: RescanCause::Periodic,
        };
        let state = |state| Event::Root {
            root: "/r".into(),
            state,
        };
        assert!(told(scan("/r")) && told(scan("/r")), "it is watched");
        assert!(told(state(RootState::Polling)));
        assert!(told(scan("/r")), "the first");
        assert!(
            !told(scan("/r")) && !told(scan("/r")),
            "nothing has changed"
        );
        assert!(told(scan("/other")));
        assert!(told(state(RootState::Watching)) && told(scan("/r")));
        assert!(told(state(RootState::Polling)) && told(scan("/r")) && !told(scan("/r")));
    }
}
