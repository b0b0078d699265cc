//! Formats events as text: one line for each event.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use orphand::core::event::{Disposed, Event, RescanCause, RootState, Subject, Summary};
use orphand::core::judge::Reason;
use orphand::core::observation::FileSize;
use orphand::core::sums::{SumKey, TempSum};

use super::groups;
use super::reasons::{kept_text, move_reason, removal_reason, restore_command, short_move_reason};
use super::shell::purge_command;
use super::text;
use super::wrap::{terminal_width, visible_width};

const DIMMED: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
/// Yellow cannot be read on a light background, and blue not on a dark one.
const KEPT: Style = AnsiColor::Magenta.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// The width of a line about a moved temp in a narrow terminal, unless the command that it shows is longer.
const COMPACT_WIDTH: usize = 80;

/// The smallest width of a name in such a line.
const MIN_NAME: usize = 12;

/// Formats events. The default is the format for a file: no colors, no time of day, and full paths.
#[derive(Debug, Default)]
pub(crate) struct EventFormatter {
    pub(crate) color: bool,
    /// True if a line begins with the time of day.
    pub(crate) has_time: bool,
    /// True if the command makes only one pass, so that nothing is tried again.
    pub(crate) is_one_pass: bool,
    /// True if the line about a moved temp is limited to the width of the terminal, or to [`COMPACT_WIDTH`].
    pub(crate) is_compact: bool,
    /// The roots. If there is only one, paths are relative to it.
    pub(crate) roots: Vec<PathBuf>,
}

/// The sizes that the summary shows besides those of [`Summary`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SummarySizes {
    /// The size of the temps that are counted as kept.
    kept: FileSize,
    /// The size of the temps that would be removed.
    would_reap: FileSize,
    /// The size of the temps that would be moved to the quarantine.
    would_move: FileSize,
    /// The number and the size of the copies that were deleted from the quarantine.
    purged: (u64, FileSize),
    /// The roots of the temps that were moved to the quarantine.
    moved_in: BTreeSet<PathBuf>,
    /// The number and the length of the temps that are still kept, if they are known.
    pub(super) still_kept: Option<(u64, u64)>,
}

impl SummarySizes {
    /// Counts the size of the temp that `event` is about.
    pub(super) fn count(&mut self, event: &Event) {
        let (sum, subject) = match event {
            Event::Reaped(disposed) if disposed.dry_run => {
                (&mut self.would_reap, &disposed.subject)
            }
            Event::Quarantined { disposed, .. } if disposed.dry_run => {
                (&mut self.would_move, &disposed.subject)
            }
            Event::Purged { subject, .. } => {
                self.purged.0 += 1;
                (&mut self.purged.1, subject)
            }
            Event::Quarantined { disposed, .. } => {
                let root = &disposed.subject.root;
                if !self.moved_in.contains(root) {
                    self.moved_in.insert(root.clone());
                }
                return;
            }
            Event::Kept {
                subject,
                reported_before: false,
                ..
            } => (&mut self.kept, subject),
            _ => return,
        };
        *sum = sum.plus(subject.size.unwrap_or_default());
    }
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

    /// Returns the word at the start of the line for `event`, with its style.
    pub(crate) fn row_start(&self, event: &Event) -> (&'static str, Style) {
        match event {
            Event::Tracked { .. } => ("tracked", DIMMED),
            Event::Settled { .. } => ("settled", DIMMED),
            Event::Kept { .. } => ("kept", KEPT),
            Event::Reaped(disposed) if disposed.dry_run => ("would remove", GREEN),
            Event::Reaped(_) => ("removed", GREEN),
            Event::Quarantined { disposed, .. } if disposed.dry_run => ("would move", CYAN),
            Event::Quarantined { .. } => ("moved", CYAN),
            Event::Restored { .. } => ("restored", CYAN),
            Event::Purged { .. } => ("purged", GREEN),
            Event::Failed { .. } => ("failed", RED),
            _ => ("", Style::new()),
        }
    }

    /// Returns the line for `event`, if it has one. `sizes` are those of all events so far.
    pub(crate) fn format(&self, event: &Event, sizes: &SummarySizes) -> Option<String> {
        let start = self.row_start(event);
        let line = match event {
            Event::Ready { .. }
            | Event::Rescan {
                cause: RescanCause::Startup,
                ..
            } => return None,
            Event::Tracked { subject, due } => {
                let rest = format!("next look in {}", text::span(*due));
                self.row(start, subject, &rest)
            }
            Event::Settled { subject, how } => self.row(start, subject, how.as_str()),
            Event::Kept {
                subject,
                reason,
                holders,
                retry,
                details,
                ..
            } => {
                let rest = kept_text(subject, *reason, holders, *retry, details);
                self.row(start, subject, &rest)
            }
            Event::Reaped(disposed) => {
                self.row(start, &disposed.subject, &removal_reason(disposed))
            }
            Event::Quarantined {
                disposed,
                id,
                reason,
            } => match id {
                Some(id) if self.is_compact => self.moved_row(start, disposed, id, *reason),
                id => {
                    let rest = move_reason(disposed, id.as_deref(), *reason);
                    self.row(start, &disposed.subject, &rest)
                }
            },
            Event::Restored { subject, .. } => self.row(start, subject, ""),
            Event::Purged { subject, id } => {
                let rest = format!("deleted from the quarantine ({id})");
                self.row(start, subject, &rest)
            }
            Event::Failed { subject, error, .. } => {
                let again = match self.is_one_pass {
                    true => "the next sweep will try again",
                    false => "orphand will try again later",
                };
                self.row(start, subject, &format!("{error}; {again}"))
            }
            Event::Rescan { root, cause } => {
                let (root, why) = (text::escaped(root), rescan_reason(*cause));
                format!("{}scanning {root}: {why}", self.now())
            }
            Event::Root { root, state } => {
                let (root, what) = (text::escaped(root), state_text(*state));
                format!("{}{root} {what}", self.now())
            }
            Event::Summary(summary) => self.summary(summary, sizes),
            _ => return None,
        };
        Some(line.trim_end().to_owned())
    }

    /// Formats a line such as `10:42:10  removed  a.tmp      0 B    empty, unused for 10 s`.
    fn row(&self, start: (&str, Style), subject: &Subject, rest: &str) -> String {
        let name = self.name(&subject.path, &subject.root);
        let size = subject.size.map(|size| text::size(size.bytes));
        self.columns(start, &name, &size.unwrap_or_default(), rest)
    }

    /// Formats a line such as `10:42:31  moved    b.tmp  2 B  there is no "b": orphand restore 7f3a`, if the line with
    /// all details is too long. If this one is too long too, the reason is left out and the name is shortened. If that does
    /// not suffice, the line has all details.
    fn moved_row(
        &self,
        start: (&str, Style),
        disposed: &Disposed,
        id: &str,
        reason: Option<Reason>,
    ) -> String {
        let subject = &disposed.subject;
        let (word, style) = start;
        let now = self.now();
        let name = self.name(&subject.path, &subject.root);
        let size = subject.size.map(|size| text::size(size.bytes));
        let size = size.unwrap_or_default();
        let most = terminal_width(io::stdout()).unwrap_or(0).max(COMPACT_WIDTH);
        let full = self.row(start, subject, &move_reason(disposed, Some(id), reason));
        if visible_width(&full) <= most {
            return full;
        }
        let command = restore_command(id).to_string();
        let used = |rest: &str| {
            visible_width(&now) + 8 + 1 + 1 + visible_width(&size) + 2 + visible_width(rest)
        };
        let with_reason = format!("{}: {command}", short_move_reason(disposed, reason));
        let rest = match used(&with_reason) + visible_width(&name) <= most {
            true => with_reason,
            false => command,
        };
        let room = most.saturating_sub(used(&rest));
        if room < MIN_NAME.min(visible_width(&name)) {
            return full;
        }
        let name = text::shortened(&name, room);
        // The sizes of short lines are in the column of the other lines.
        let column = (room + 1 + visible_width(&size)).min(24 + 1 + 8);
        let gap = column
            .saturating_sub(visible_width(&name) + visible_width(&size))
            .max(1);
        let word = self.paint(&format!("{word:<8}"), style);
        format!("{now}{word} {name}{:gap$}{size}  {rest}", "")
    }

    /// Formats a line about the temps of a group: `removed  x.json.<uuid>.tmp  5.1 MB  512 more, unused for 5 min`.
    /// `shown` of the group have a line already.
    pub(crate) fn sum_row(
        &self,
        start: (&str, Style),
        key: &SumKey,
        sum: &TempSum,
        shown: usize,
    ) -> String {
        let name = self.name(&groups::path(key), &key.root);
        let count = match shown {
            0 => text::counted(sum.temps, "temp", "temps"),
            _ => format!("{} more", text::count(sum.temps)),
        };
        let reason = groups::reason_text(key, sum);
        let rest = match reason.is_empty() {
            true => count,
            false => format!("{count}, {reason}"),
        };
        self.columns(start, &name, &text::size(sum.size.bytes), &rest)
    }

    fn columns(&self, start: (&str, Style), name: &str, size: &str, rest: &str) -> String {
        let (word, style) = start;
        let width = if word.starts_with("would") { 12 } else { 8 };
        let word = self.paint(&format!("{word:<width$}"), style);
        let line = format!("{}{word} {name:<24} {size:>8}  {rest}", self.now());
        line.trim_end().to_owned()
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

    fn summary(&self, summary: &Summary, sizes: &SummarySizes) -> String {
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
                text::sizes(summary.quarantined_size),
                purge_command(&sizes.moved_in)
            ));
        }
        let count = |number, size: FileSize, what: &str| {
            format!("{} {what} ({})", text::count(number), text::sizes(size))
        };
        // The limits of the quarantine also delete copies that were moved before.
        if let (purged @ 1.., size) = sizes.purged {
            parts.push(count(purged, size, "deleted from the quarantine"));
        }
        if would_reap > 0 {
            parts.push(count(would_reap, sizes.would_reap, "would be removed"));
        }
        if would_move > 0 {
            let what = "would be moved to the quarantine";
            parts.push(count(would_move, sizes.would_move, what));
        }
        parts.push(match (sizes.still_kept, summary.kept) {
            (Some((0, _)), _) | (None, 0) => "0 kept".to_owned(),
            (Some((kept, bytes)), _) => {
                format!("{} kept ({})", text::count(kept), text::size(bytes))
            }
            (None, kept) => count(kept, sizes.kept, "kept"),
        });
        if summary.failed > 0 {
            parts.push(format!("{} failed", text::count(summary.failed)));
        }
        text::joined(&parts)
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
                    .format(&event, &SummarySizes::default())
                    .is_some_and(|line| line.contains(want))
            );
            assert!(
                file.format(&event, &SummarySizes::default())
                    .is_some_and(|line| line.contains(want))
            );
        }
    }

    #[test]
    fn the_summary_of_a_dry_run_says_would() {
        let none = Summary::default;
        let seven = FileSize {
            bytes: 9,
            disk_bytes: 7,
        };
        let sizes = SummarySizes {
            kept: seven,
            would_reap: seven,
            would_move: seven,
            purged: (0, FileSize::default()),
            moved_in: BTreeSet::from(["/r".into()]),
            still_kept: None,
        };
        #[rustfmt::skip]
        let rows = [
            (none(), "0 removed (0 B freed) · 0 kept"),
            (Summary { reaped: 2, freed: seven, kept: 1, ..none() }, "2 removed (7 B freed) · 1 kept (9 B, 7 B on the disk)"),
            (Summary { reaped: 2, would_reap: 2, kept: 1, ..none() }, "2 would be removed (9 B, 7 B on the disk) · 1 kept (9 B, 7 B on the disk)"),
            (Summary { quarantined: 1, would_quarantine: 1, ..none() }, "1 would be moved to the quarantine (9 B, 7 B on the disk) · 0 kept"),
            (Summary { reaped: 3, would_reap: 2, freed: seven, ..none() },
                "1 removed (7 B freed) · 2 would be removed (9 B, 7 B on the disk) · 0 kept"),
            (Summary { quarantined: 1, quarantined_size: seven, failed: 1, ..none() },
                "0 removed (0 B freed) · 1 moved to the quarantine (9 B, 7 B on the disk; to delete: orphand quarantine purge /r) · 0 kept · 1 failed"),
        ];
        for (summary, want) in rows {
            assert_eq!(EventFormatter::default().summary(&summary, &sizes), want);
        }
        let mut sizes = SummarySizes::default();
        for id in ["a", "b"] {
            let subject = Subject {
                path: "/r/a.tmp".into(),
                root: "/r".into(),
                size: Some(seven),
            };
            let id = id.to_owned();
            sizes.count(&Event::Purged { subject, id });
        }
        assert_eq!(
            EventFormatter::default().summary(&none(), &sizes),
            "0 removed (0 B freed) · 2 deleted from the quarantine (18 B, 14 B on the disk) · 0 kept"
        );
    }
}
