//! Formats events as text: one line for each event.

use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use orphand::core::event::{Event, RescanCause, RootState, Subject, Summary};

use super::reasons::{kept_text, move_reason, removal_reason};
use super::shell::Suggestion;
use super::text;

const DIMMED: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// Formats events. The default is the format for a file: no colors, no time of day, and full paths.
#[derive(Debug, Default)]
pub(crate) struct EventFormatter {
    pub(crate) color: bool,
    /// True if a line begins with the time of day.
    pub(crate) has_time: bool,
    /// True if the command makes only one pass, so that nothing is tried again.
    pub(crate) is_one_pass: bool,
    /// The roots. If there is only one, paths are relative to it.
    pub(crate) roots: Vec<PathBuf>,
}

impl EventFormatter {
    /// Returns the same formatter for a file.
    pub(crate) fn for_file(&self) -> EventFormatter {
        EventFormatter {
            is_one_pass: self.is_one_pass,
            ..EventFormatter::default()
        }
    }

    pub(crate) fn paint(&self, text: &str, style: Style) -> String {
        match self.color {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }

    /// Returns the line for `event`, if it has one.
    pub(crate) fn format(&self, event: &Event) -> Option<String> {
        let line = match event {
            Event::Ready { .. }
            | Event::Rescan {
                cause: RescanCause::Startup,
                ..
            } => return None,
            Event::Tracked { subject, due } => {
                let rest = format!("next look in {}", text::span(*due));
                self.row("tracked", DIMMED, subject, &rest)
            }
            Event::Settled { subject, how } => self.row("settled", DIMMED, subject, how.as_str()),
            Event::Kept {
                subject,
                reason,
                holders,
                retry,
                details,
                ..
            } => {
                let rest = kept_text(&subject.path, *reason, holders, *retry, details);
                self.row("kept", YELLOW, subject, &rest)
            }
            Event::Reaped(disposed) => {
                let word = match disposed.dry_run {
                    true => "would remove",
                    false => "removed",
                };
                self.row(word, GREEN, &disposed.subject, &removal_reason(disposed))
            }
            Event::Quarantined {
                disposed,
                id,
                reason,
            } => {
                let word = match disposed.dry_run {
                    true => "would move",
                    false => "moved",
                };
                let rest = move_reason(disposed, id.as_deref(), *reason);
                self.row(word, CYAN, &disposed.subject, &rest)
            }
            Event::Restored { subject, .. } => self.row("restored", CYAN, subject, ""),
            Event::Purged { subject, id } => {
                let rest = format!("deleted from the quarantine ({id})");
                self.row("purged", GREEN, subject, &rest)
            }
            Event::Failed { subject, error, .. } => {
                let again = match self.is_one_pass {
                    true => "the next sweep will try again",
                    false => "orphand will try again later",
                };
                self.row("failed", RED, subject, &format!("{error}; {again}"))
            }
            Event::Rescan { root, cause } => {
                let (root, why) = (text::escaped(root), rescan_reason(*cause));
                format!("{}scanning {root}: {why}", self.now())
            }
            Event::Root { root, state } => {
                let (root, what) = (text::escaped(root), state_text(*state));
                format!("{}{root} {what}", self.now())
            }
            Event::Summary(summary) => self.summary(summary),
            _ => return None,
        };
        Some(line.trim_end().to_owned())
    }

    /// Formats a line such as `10:42:10  removed  a.tmp      0 B    empty, unused for 10 s`.
    fn row(&self, word: &str, style: Style, subject: &Subject, rest: &str) -> String {
        let width = if word.starts_with("would") { 12 } else { 8 };
        let word = self.paint(&format!("{word:<width$}"), style);
        let name = self.name(&subject.path, &subject.root);
        let bytes = subject
            .size
            .map(|size| text::size(size.bytes))
            .unwrap_or_default();
        format!("{}{word} {name:<24} {bytes:>8}  {rest}", self.now())
    }

    /// Returns the shortest unambiguous form of a path, escaped: relative to the root if there is only one root.
    pub(crate) fn name(&self, path: &Path, root: &Path) -> String {
        let below = match self.roots.as_slice() {
            // The relative path of the root itself would be empty.
            [_] => match path.strip_prefix(root) {
                Ok(below) if !below.as_os_str().is_empty() => below,
                _ => path,
            },
            _ => path,
        };
        text::escaped(below)
    }

    fn summary(&self, summary: &Summary) -> String {
        let mut parts = Vec::new();
        let (would_reap, would_move) = (summary.would_reap, summary.would_quarantine);
        let reaped = summary.reaped - would_reap;
        if reaped > 0 || would_reap + would_move == 0 {
            parts.push(format!(
                "{} removed ({} freed)",
                text::count(reaped),
                text::size(summary.freed.disk_bytes)
            ));
        }
        let moved = summary.quarantined - would_move;
        if moved > 0 {
            parts.push(format!(
                "{} moved to the quarantine ({}; to delete: {})",
                text::count(moved),
                text::size(summary.quarantined_size.disk_bytes),
                Suggestion::new("quarantine purge").configured()
            ));
        }
        if would_reap > 0 {
            parts.push(format!("{} would be removed", text::count(would_reap)));
        }
        if would_move > 0 {
            let would_move = text::count(would_move);
            parts.push(format!("{would_move} would be moved to the quarantine"));
        }
        parts.push(format!("{} kept", text::count(summary.kept)));
        if summary.failed > 0 {
            parts.push(format!("{} failed", text::count(summary.failed)));
        }
        parts.join(" · ")
    }

    fn now(&self) -> String {
        if !self.has_time {
            return String::new();
        }
        let zone = jiff::tz::TimeZone::system();
        let now = jiff::Timestamp::now().to_zoned(zone);
        now.strftime("%H:%M:%S  ").to_string()
    }
}

fn rescan_reason(cause: RescanCause) -> &'static str {
    match cause {
        RescanCause::Startup => "orphand has started",
        RescanCause::Overflow => "events may be missing",
        RescanCause::Periodic => "a periodic scan is due",
        RescanCause::RootReturned => "the directory is back",
        other => other.as_str(),
    }
}

fn state_text(state: RootState) -> &'static str {
    match state {
        RootState::Watching => "is watched",
        RootState::Gone => "does not exist; orphand waits for it",
        RootState::Polling => "cannot be watched; it is scanned periodically instead",
        RootState::Denied => "cannot be opened, or another orphand process works on it",
        RootState::NoAnswer => {
            "is not watched: its file system does not answer; orphand watches it again when it answers"
        }
        RootState::Blind => "is watched, but changes in it cannot be noticed",
        _ => "has changed its state",
    }
}

#[cfg(test)]
mod tests {
    use orphand::core::observation::FileSize;

    use super::*;

    #[test]
    fn only_a_watch_promises_to_try_again() {
        let event = Event::Failed {
            subject: Subject {
                path: "/r/a.tmp".into(),
                root: "/r".into(),
                size: None,
            },
            error: "cannot unlink: EIO".into(),
            errno: None,
        };
        for (is_one_pass, want) in [
            (true, "the next sweep will try again"),
            (false, "orphand will try again later"),
        ] {
            let formatter = EventFormatter {
                is_one_pass,
                ..EventFormatter::default()
            };
            let file = formatter.for_file();
            assert!(
                formatter
                    .format(&event)
                    .is_some_and(|line| line.contains(want))
            );
            assert!(file.format(&event).is_some_and(|line| line.contains(want)));
        }
    }

    #[test]
    fn the_summary_of_a_dry_run_says_would() {
        let none = Summary::default;
        let seven = FileSize {
            bytes: 9,
            disk_bytes: 7,
        };
        #[rustfmt::skip]
        let rows = [
            (none(), "0 removed (0 B freed) · 0 kept"),
            (Summary { reaped: 2, freed: seven, kept: 1, ..none() }, "2 removed (7 B freed) · 1 kept"),
            (Summary { reaped: 2, would_reap: 2, kept: 1, ..none() }, "2 would be removed · 1 kept"),
            (Summary { quarantined: 1, would_quarantine: 1, ..none() }, "1 would be moved to the quarantine · 0 kept"),
            (Summary { reaped: 3, would_reap: 2, freed: seven, ..none() },
                "1 removed (7 B freed) · 2 would be removed · 0 kept"),
            (Summary { quarantined: 1, quarantined_size: seven, failed: 1, ..none() },
                "0 removed (0 B freed) · 1 moved to the quarantine (7 B; to delete: orphand quarantine purge) · 0 kept · 1 failed"),
        ];
        for (summary, want) in rows {
            assert_eq!(EventFormatter::default().summary(&summary), want);
        }
    }
}
