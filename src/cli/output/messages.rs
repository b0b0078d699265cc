//! Formats events as text: one line for each event.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use orphand::core::event::{Details, Disposed, Event, RescanCause, RootState, Subject, Summary};
use orphand::core::judge::Reason;
use orphand::core::own_names;

use super::shell::Suggestion;
use super::text;

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
                self.row("tracked", Style::new().dimmed(), subject, &rest)
            }
            Event::Settled { subject, how } => {
                self.row("settled", Style::new().dimmed(), subject, how.as_str())
            }
            Event::Kept {
                subject,
                reason,
                holders,
                retry,
                reported_before: _,
                details,
            } => {
                let by: Vec<String> = holders
                    .iter()
                    .take(3)
                    .map(|h| format!("{}[{}]", text::escaped(Path::new(&h.name)), h.pid))
                    .collect();
                let by = by.join(", ");
                let rest = match own_names::is_claim(&subject.path) {
                    // Another orphand process may be working on this claim, and no option applies to it, so there is no
                    // hint.
                    true => keep_reason(*reason, &by, details) + &next_look(*reason, *retry),
                    false => kept_line(&subject.path, *reason, &by, *retry, details),
                };
                self.row("kept", AnsiColor::Yellow.on_default(), subject, &rest)
            }
            Event::Reaped(disposed) => {
                let word = if disposed.dry_run {
                    "would remove"
                } else {
                    "removed"
                };
                let style = AnsiColor::Green.on_default();
                self.row(word, style, &disposed.subject, &removal_reason(disposed))
            }
            Event::Quarantined {
                disposed,
                id,
                reason,
            } => {
                let word = if disposed.dry_run {
                    "would move"
                } else {
                    "moved"
                };
                let rest = move_reason(disposed, id.as_deref(), *reason);
                self.row(word, AnsiColor::Cyan.on_default(), &disposed.subject, &rest)
            }
            Event::Restored { subject, .. } => {
                self.row("restored", AnsiColor::Cyan.on_default(), subject, "")
            }
            Event::Purged { subject, id } => {
                let rest = format!("deleted from the quarantine ({id})");
                self.row("purged", AnsiColor::Green.on_default(), subject, &rest)
            }
            Event::Failed { subject, error, .. } => {
                let again = match self.is_one_pass {
                    true => "the next sweep will try again",
                    false => "orphand will try again later",
                };
                let rest = format!("{error}; {again}");
                self.row("failed", AnsiColor::Red.on_default(), subject, &rest)
            }
            Event::Rescan { root, cause } => {
                let why = match cause {
                    RescanCause::Startup => "orphand has started",
                    RescanCause::Overflow => "events may be missing",
                    RescanCause::Periodic => "a periodic scan is due",
                    RescanCause::RootReturned => "the directory is back",
                    other => other.as_str(),
                };
                format!("{}scanning {}: {why}", self.now(), text::escaped(root))
            }
            Event::Root { root, state } => {
                let what = match state {
                    RootState::Watching => "is watched",
                    RootState::Gone => "does not exist; orphand waits for it",
                    RootState::Polling => "cannot be watched; it is scanned periodically instead",
                    RootState::Denied => "cannot be opened, or another orphand process works on it",
                    RootState::NoAnswer => {
                        "is not watched: its file system does not answer; orphand watches it again when it answers"
                    }
                    RootState::Blind => "is watched, but changes in it cannot be noticed",
                    _ => "has changed its state",
                };
                format!("{}{} {what}", self.now(), text::escaped(root))
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

/// Returns the reason why a temp was removed.
fn removal_reason(disposed: &Disposed) -> String {
    let quiet = text::span(disposed.quiet);
    match disposed.subject.size.map(|size| size.bytes) {
        Some(0) => format!("empty, unused for {quiet}"),
        _ => format!("unused for {quiet}"),
    }
}

/// Returns the reason why a temp was moved to the quarantine, and the commands that restore or delete it.
fn move_reason(disposed: &Disposed, id: Option<&str>, reason: Option<Reason>) -> String {
    let is_empty = disposed.subject.size.is_some_and(|size| size.bytes == 0);
    let mut line = match (reason, &disposed.target) {
        (Some(Reason::SoleCopy), Some(target)) => {
            let target = text::escaped(Path::new(target.file_name().unwrap_or_default()));
            let what = match disposed.target_state.fault() {
                None | Some("is missing") => format!("there is no \"{target}\""),
                Some(fault) => format!("\"{target}\" {fault}"),
            };
            format!("{}.", sole_copy_reason(&what, is_empty))
        }
        (Some(Reason::SoleCopy), None) => {
            format!("{}.", sole_copy_reason("its target is unknown", is_empty))
        }
        (Some(Reason::InUse), _) => "a process has it open.".to_owned(),
        (Some(_), _) => "it could not be proven that no process uses it.".to_owned(),
        (None, _) => format!("unused for {}.", text::span(disposed.quiet)),
    };
    if let Some(id) = id {
        line.push_str(&format!(
            "  back: {}   for good: {}",
            Suggestion::new("restore").configured().arg(id),
            Suggestion::new("quarantine purge").configured().arg(id)
        ));
    }
    line
}

/// Returns the reason why a temp is not removed, from `fault`, the fault of its target.
fn sole_copy_reason(fault: &str, is_empty: bool) -> String {
    match is_empty {
        true => format!("it is empty and may be a flag: {fault}"),
        false => format!("{fault}: it may be the only copy"),
    }
}

/// Returns when a kept temp is looked at again. The interval stays the same only while no event can report the end of
/// the reason; otherwise it doubles.
fn next_look(reason: Reason, retry: Option<Duration>) -> String {
    let again = retry.map(|retry| match reason.ends_without_event() {
        true => format!("; looked at every {}", text::span(retry)),
        false => format!("; next look in {}", text::span(retry)),
    });
    again.unwrap_or_default()
}

/// Returns the reason why a temp is kept.
fn keep_reason(reason: Reason, by: &str, details: &Details) -> String {
    match reason {
        Reason::Restored => "it was restored and has not changed since".to_owned(),
        Reason::Young => format!(
            "used {} ago; its grace is {}",
            text::span(details.quiet),
            text::span(details.grace)
        ),
        Reason::Changed => "it has just changed".to_owned(),
        Reason::NotRegular => "not a regular file".to_owned(),
        Reason::OtherMount => "on another mount than its directory".to_owned(),
        Reason::Protected if details.is_dataless => {
            "its data is in the cloud, not on this disk".to_owned()
        }
        Reason::Protected => "protected: immutable or append-only".to_owned(),
        Reason::HardLinked => "it has another name (a hard link)".to_owned(),
        Reason::NetworkFs => format!(
            "on this file system ({}) nothing can prove that it is unused",
            text::escaped(Path::new(&details.file_system))
        ),
        Reason::ForeignOwner => "it belongs to another user".to_owned(),
        Reason::WriterAlive => match (details.writer_pid, &details.writer) {
            (Some(pid), Some(program)) => {
                let program = text::escaped(Path::new(program));
                format!("pid {pid} from its name is running ({program})")
            }
            (Some(pid), None) => format!("pid {pid} from its name is or may be running"),
            (None, _) => "the process whose pid is in its name may be running".to_owned(),
        },
        Reason::Closed => "closed, and --closed settled leaves such temps alone".to_owned(),
        Reason::Locked if by.is_empty() => "locked".to_owned(),
        Reason::Locked => format!("locked by {by}"),
        Reason::InUse if by.is_empty() => "open".to_owned(),
        Reason::InUse => format!("open in {by}"),
        Reason::CannotTell => "cannot prove that no process uses it".to_owned(),
        Reason::SoleCopy => "it may be the only copy".to_owned(),
        Reason::NoQuarantine => {
            "it is to be moved to the quarantine, but none can be created here".to_owned()
        }
        Reason::QuarantineFull => {
            format!(
                "it is to be moved to the quarantine, which is full; to empty it: {}",
                Suggestion::new("quarantine purge").configured()
            )
        }
        Reason::Reserved => {
            "its name is reserved (a lock, a database, a transfer, a backup, the target of another \
             temp), or it has a companion file"
                .to_owned()
        }
    }
}

/// Returns the reason why a temp is kept, the interval at which it is checked, and the option that would change this.
pub(crate) fn kept_line(
    path: &Path,
    reason: Reason,
    by: &str,
    retry: Option<Duration>,
    details: &Details,
) -> String {
    let hint = match reason {
        Reason::NetworkFs => format!(
            ".  to trust it: {} in the configuration file",
            trust_key(&details.file_system)
        ),
        Reason::SoleCopy => ".  to move such temps: --sole-copy quarantine".to_owned(),
        Reason::Reserved => format!(
            ".  to see the reason: {}",
            Suggestion::new("explain").configured().arg(path)
        ),
        _ => String::new(),
    };
    keep_reason(reason, by, details) + &next_look(reason, retry) + &hint
}

/// Returns the line of the configuration file that trusts a file system.
fn trust_key(file_system: &str) -> String {
    format!("network = [{}]", text::quoted(file_system))
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
        let none = Summary::default();
        let seven = FileSize {
            bytes: 9,
            disk_bytes: 7,
        };
        #[rustfmt::skip]
        let rows = [
            (none, "0 removed (0 B freed) · 0 kept"),
            (Summary { reaped: 2, freed: seven, kept: 1, ..none }, "2 removed (7 B freed) · 1 kept"),
            (Summary { reaped: 2, would_reap: 2, kept: 1, ..none }, "2 would be removed · 1 kept"),
            (Summary { quarantined: 1, would_quarantine: 1, ..none }, "1 would be moved to the quarantine · 0 kept"),
            (Summary { reaped: 3, would_reap: 2, freed: seven, ..none },
                "1 removed (7 B freed) · 2 would be removed · 0 kept"),
            (Summary { quarantined: 1, quarantined_size: seven, failed: 1, ..none },
                "0 removed (0 B freed) · 1 moved to the quarantine (7 B; to delete: orphand quarantine purge) · 0 kept · 1 failed"),
        ];
        for (summary, want) in rows {
            assert_eq!(EventFormatter::default().summary(&summary), want);
        }
    }

    #[test]
    fn every_reason_has_a_text() {
        for reason in Reason::ALL {
            assert!(
                !kept_line(Path::new("/r/a.tmp"), reason, "", None, &Details::default()).is_empty(),
                "{reason}"
            );
        }
        let details = Details {
            file_system: "nfs".to_owned(),
            writer_pid: Some(24_917),
            writer: Some("bash".to_owned()),
            is_dataless: false,
            quiet: Duration::from_secs(3),
            grace: Duration::from_secs(300),
        };
        let dataless = Details {
            is_dataless: true,
            ..details.clone()
        };
        let soon = Some(Duration::from_secs(10));
        #[rustfmt::skip]
        let rows = [
            (Reason::InUse, soon, &details, "open in bash[4711]; looked at every 10 s"),
            (Reason::Young, None, &details, "used 3 s ago; its grace is 5 min"),
            (Reason::WriterAlive, None, &details, "pid 24917 from its name is running (bash)"),
            (Reason::Protected, None, &details, "protected: immutable or append-only"),
            (Reason::Protected, None, &dataless, "its data is in the cloud, not on this disk"),
            (Reason::NetworkFs, None, &details,
                "on this file system (nfs) nothing can prove that it is unused.  to trust it: network = [\"nfs\"] in \
                 the configuration file"),
        ];
        for (reason, retry, details, want) in rows {
            assert_eq!(
                kept_line(Path::new("/r/a.tmp"), reason, "bash[4711]", retry, details),
                want
            );
        }
    }
}
