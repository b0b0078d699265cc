//! The census at the end of a scan or sweep: how many temps there are of each kind.

use std::path::PathBuf;
use std::time::Duration;

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::FileSize;
use serde::Serialize;

use super::shell::purge_command;
use super::text;

/// The numbers of temps by their verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Census {
    /// Temps that are or would be removed.
    pub(crate) to_remove: u64,
    /// Temps that are or would be moved to the quarantine.
    pub(crate) to_move: u64,
    /// Temps that are younger than their grace.
    pub(crate) young: u64,
    /// The time until the first of these has had its grace, if no process uses it, in milliseconds.
    pub(crate) next_ms: Option<u64>,
    /// Temps that a process has open, mapped or locked.
    pub(crate) held: u64,
    /// Temps that are kept for another reason.
    pub(crate) kept: u64,
    /// Files in the quarantines of the roots.
    pub(crate) quarantined: u64,
    pub(crate) quarantined_bytes: u64,
    pub(crate) quarantined_disk_bytes: u64,
}

impl Census {
    /// Counts a temp with this verdict, which has been quiet for `quiet`.
    pub(crate) fn add(&mut self, verdict: Verdict, quiet: Duration, grace: Duration) {
        match verdict {
            Verdict::Reap => self.to_remove += 1,
            Verdict::Quarantine(_) => self.to_move += 1,
            Verdict::Keep(Reason::Young) => {
                self.young += 1;
                let left = grace.saturating_sub(quiet).as_millis();
                let left = u64::try_from(left).unwrap_or(u64::MAX);
                self.next_ms = Some(self.next_ms.map_or(left, |next| next.min(left)));
            }
            Verdict::Keep(Reason::InUse | Reason::Locked) => self.held += 1,
            Verdict::Keep(_) => self.kept += 1,
        }
    }

    /// Adds the numbers of another census.
    pub(crate) fn merge(&mut self, other: Census) {
        self.to_remove += other.to_remove;
        self.to_move += other.to_move;
        self.young += other.young;
        self.next_ms = match (self.next_ms, other.next_ms) {
            (Some(next), Some(other)) => Some(next.min(other)),
            (next, other) => next.or(other),
        };
        self.held += other.held;
        self.kept += other.kept;
        self.add_quarantine(
            other.quarantined,
            FileSize {
                bytes: other.quarantined_bytes,
                disk_bytes: other.quarantined_disk_bytes,
            },
        );
    }

    /// Counts the temp of an event, if the event is the first one about it.
    pub(crate) fn count(&mut self, event: &Event) {
        match event {
            Event::Reaped(_) => self.to_remove += 1,
            Event::Quarantined { .. } => self.to_move += 1,
            Event::Kept {
                reason,
                reported_before: false,
                details,
                ..
            } => self.add(Verdict::Keep(*reason), details.quiet, details.grace),
            _ => {}
        }
    }

    /// Adds the files in a quarantine.
    pub(crate) fn add_quarantine(&mut self, files: u64, size: FileSize) {
        self.quarantined += files;
        self.quarantined_bytes = self.quarantined_bytes.saturating_add(size.bytes);
        self.quarantined_disk_bytes = self.quarantined_disk_bytes.saturating_add(size.disk_bytes);
    }

    /// Returns the census of a scan in one line. `stored_in` are the roots with files in quarantine. Returns `None` if
    /// the sums of the scan say all: every temp is an orphan, and nothing is in quarantine.
    pub(crate) fn line(&self, stored_in: &[PathBuf]) -> Option<String> {
        let temps = self.to_remove + self.to_move + self.young + self.held + self.kept;
        let mut parts = Vec::new();
        if self.young + self.held + self.kept > 0 {
            let number = |number, what: &str| {
                (number > 0).then(|| format!("{} {what}", text::count(number)))
            };
            let young = self.young_text();
            let all = [
                number(self.to_remove, "to be removed"),
                number(self.to_move, "to be moved to the quarantine"),
                young.and_then(|what| number(self.young, &what)),
                number(self.held, "in use"),
                number(self.kept, "kept for other reasons"),
            ];
            let all: Vec<String> = all.into_iter().flatten().collect();
            parts.push(format!(
                "looked at {}: {}",
                text::counted(temps, "temp", "temps"),
                all.join(", ")
            ));
        }
        parts.extend(self.quarantine_text(stored_in));
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    /// Returns the part of the census of a sweep that its sums do not have. `stored_in` are the roots with files in
    /// quarantine. Returns `None` if there is nothing to add.
    pub(crate) fn rest(&self, stored_in: &[PathBuf]) -> Option<String> {
        let all = self.young + self.held + self.kept;
        let part = |number, what: String| match (number, all) {
            (_, 1) => format!("is {what}"),
            (1, _) => format!("1 is {what}"),
            (number, _) => format!("{} are {what}", text::count(number)),
        };
        let young = self.young_text().map(|what| part(self.young, what));
        let held = (self.held > 0).then(|| part(self.held, "in use".to_owned()));
        let parts: Vec<String> = [young, held].into_iter().flatten().collect();
        let kept = (!parts.is_empty()).then(|| match (all, parts.join(" and ")) {
            (1, what) => format!("the kept temp {what}"),
            (all, what) => format!("of the {} kept temps, {what}", text::count(all)),
        });
        let parts: Vec<String> = [kept, self.quarantine_text(stored_in)]
            .into_iter()
            .flatten()
            .collect();
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    fn young_text(&self) -> Option<String> {
        let next = text::span(Duration::from_millis(self.next_ms?));
        Some(format!("too young (the next is due in {next})"))
    }

    fn quarantine_text(&self, stored_in: &[PathBuf]) -> Option<String> {
        (self.quarantined > 0).then(|| {
            format!(
                "{} in quarantine ({}); to delete: {}",
                text::counted(self.quarantined, "file", "files"),
                text::sizes(FileSize {
                    bytes: self.quarantined_bytes,
                    disk_bytes: self.quarantined_disk_bytes,
                }),
                purge_command(stored_in)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn each_temp_is_counted_once() {
        let mut census = Census::default();
        assert_eq!((census.line(&[]), census.rest(&[])), (None, None));
        census.add(Verdict::Reap, S * 9, S);
        census.add(Verdict::Quarantine(None), S * 9, S);
        assert_eq!(
            (census.line(&[]), census.rest(&[])),
            (None, None),
            "the sums say it"
        );
        census.add(Verdict::Keep(Reason::Young), S * 10, S * 300);
        census.add(Verdict::Keep(Reason::Young), S * 280, S * 300);
        census.add(Verdict::Keep(Reason::Young), S, S * 300);
        census.add(Verdict::Keep(Reason::InUse), S * 9, S);
        census.add(Verdict::Keep(Reason::Locked), S * 9, S);
        census.add(Verdict::Keep(Reason::Reserved), S * 9, S);
        census.add_quarantine(
            2,
            FileSize {
                bytes: 10,
                disk_bytes: 8_192,
            },
        );
        let line = census.line(&["/srv/my app".into(), "/b".into()]).unwrap();
        assert!(
            line.starts_with(
                "looked at 8 temps: 1 to be removed, 1 to be moved to the quarantine, 3 too young (the next is due in \
                 20 s), 2 in use, 1 kept for other reasons · 2 files in quarantine (10 B, 8.2 kB on the disk); to delete: orphand \
                 quarantine purge"
            ),
            "{line}"
        );
        assert!(line.ends_with(" '/srv/my app' /b"), "{line}");
        let rest = census.rest(&[]).unwrap();
        let kept = "of the 6 kept temps, 3 are too young (the next is due in 20 s) and 2 are in use · 2 files in quarantine";
        assert!(rest.starts_with(kept), "{rest}");
        let mut census = Census::default();
        census.add(Verdict::Keep(Reason::InUse), S * 9, S);
        let rest = census.rest(&[]);
        assert_eq!(rest.as_deref(), Some("the kept temp is in use"));
    }
}
