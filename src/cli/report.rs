//! Where what happens is told: lines for people, JSON for programs.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anstyle::Style;
use orphand::clock;
use orphand::event::{Cause, Event, RootState};
use orphand::json;
use orphand::root::Root;

use super::args::{Color, Look};
use super::words::Words;
use super::{log, supervisor};

/// Where everything that a person or a program is to read goes out.
pub(crate) struct Report {
    json: bool,
    quiet: bool,
    terminal: bool,
    /// systemd's journal keeps the lines: it dates them, and sorts them by what stands before.
    journal: bool,
    words: Words,
    /// The line at the bottom, if one stands there.
    status: Option<String>,
    /// Roots that are scanned by time, and whether that was told.
    polled: HashMap<PathBuf, bool>,
}

impl Report {
    pub(crate) fn new(look: &Look, roots: Vec<PathBuf>) -> Report {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match look.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => forced || (terminal && !no_color && !dumb),
        };
        let journal = !look.json && supervisor::stdout_is_journal();
        Report {
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
            polled: HashMap::new(),
        }
    }

    /// What is told of happens once, not for as long as a watch lasts.
    pub(crate) fn once(mut self) -> Report {
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

    /// Tells of `event`. The answer says whether anybody can still read it.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.json && self.is_told_already(event) {
            return Ok(());
        }
        if log::path().is_some()
            && let Some(line) = self.words.plain().of(event)
        {
            log::also(&line);
        }
        if self.json {
            return self.line(&json::event(event, clock::wall()).to_string());
        }
        let failed = matches!(event, Event::Failed { .. });
        match self.words.of(event) {
            Some(line) if !self.quiet || failed => match self.journal {
                true => self.line(&format!("{}{line}", priority(event))),
                false => self.line(&line),
            },
            _ => Ok(()),
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
                cause: Cause::Periodic,
            } => self
                .polled
                .get_mut(root)
                .is_some_and(|told| std::mem::replace(told, true)),
            _ => false,
        }
    }

    /// One line on stdout, at once.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.status.take().is_some() {
            write!(out, "\r\x1b[K")?;
        }
        writeln!(out, "{line}")?;
        out.flush()
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

    #[test]
    fn scans_by_time_are_told_once_and_again_when_the_state_changes() {
        let look = Look {
            json: false,
            color: Color::Never,
            quiet: false,
            verbose: 0,
        };
        let mut report = Report::new(&look, Vec::new());
        let mut told = |event: Event| !report.is_told_already(&event);
        let scan = |root: &str| Event::Rescan {
            root: root.into(),
            cause: Cause::Periodic,
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
