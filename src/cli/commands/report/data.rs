//! The sums of the leaks in the journal, by group, process and time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use orphand::core::judge::Verdict;
use orphand::core::observation::FileSize;
use orphand::core::sort::sort_by;
use orphand::core::sums::{Outcome, SumKey, Summand, Sums, TempSum};
use orphand::store::json::{HistoryEvent, HistoryLine, ProcessFields};

use crate::cli::output::groups::Grouping;

/// The largest number of steps of the timeline.
const MAX_STEPS: i64 = 56;

/// The possible lengths of a step, in seconds.
const STEPS: [i64; 13] = [
    1,
    10,
    60,
    5 * 60,
    15 * 60,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    24 * 3600,
    7 * 24 * 3600,
    30 * 24 * 3600,
    365 * 24 * 3600,
];

/// The sums of a time.
#[derive(Default)]
pub(super) struct ReportData {
    /// The temps that were removed or moved, by group. The age of a temp is the time since that.
    pub(super) groups: Sums,
    /// The leaks of each group by the step of the timeline.
    pub(super) steps: BTreeMap<SumKey, BTreeMap<usize, TempSum>>,
    pub(super) removed: TempSum,
    pub(super) moved: TempSum,
    pub(super) restored: TempSum,
    /// The files that were deleted from the quarantine.
    pub(super) purged: TempSum,
    pub(super) processes: BTreeMap<ProgramKey, ProgramSum>,
    pub(super) roots: BTreeSet<PathBuf>,
    pub(super) timeline: Timeline,
}

/// A program that left temps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProgramKey {
    pub(super) name: Option<String>,
    pub(super) exe: Option<PathBuf>,
    pub(super) unit: Option<String>,
}

/// The sum of the temps of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct ProgramSum {
    pub(super) temps: TempSum,
    /// The ways in which its processes ended, each with the number of its temps.
    pub(super) ends: BTreeMap<String, u64>,
}

/// The steps of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeline {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// The length of a step, in seconds.
    pub(super) step: i64,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::new(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)
    }
}

impl Timeline {
    /// Divides the time from `start` to `end` into steps of a common length.
    pub(super) fn new(start: Timestamp, end: Timestamp) -> Timeline {
        let seconds = (end.as_second() - start.as_second()).max(1);
        let fits = |step: &&i64| seconds <= **step * MAX_STEPS;
        let step = STEPS.iter().find(fits).copied();
        Timeline {
            start,
            end,
            step: step.unwrap_or(seconds / MAX_STEPS + 1),
        }
    }

    /// Returns the number of steps.
    pub(super) fn steps(&self) -> usize {
        let seconds = (self.end.as_second() - self.start.as_second()).max(0);
        usize::try_from(seconds / self.step + 1).unwrap_or(1)
    }

    /// Returns the step of a time.
    pub(super) fn step_of(&self, at: Timestamp) -> usize {
        let seconds = (at.as_second() - self.start.as_second()).max(0);
        let step = usize::try_from(seconds / self.step).unwrap_or(0);
        step.min(self.steps() - 1)
    }

    /// Returns the beginning of a step.
    pub(super) fn time_of(&self, step: usize) -> Timestamp {
        let step = i64::try_from(step).unwrap_or(0);
        let second = self.start.as_second().saturating_add(step * self.step);
        Timestamp::from_second(second).unwrap_or(self.end)
    }
}

impl ReportData {
    /// Sums up `lines`, which are sorted by time.
    pub(super) fn new(
        lines: &[HistoryLine],
        since: Option<Timestamp>,
        now: Timestamp,
        grouping: &Grouping,
    ) -> ReportData {
        let times = lines.iter().filter_map(|line| line.time.parse().ok());
        let first: Option<Timestamp> = times.min();
        let start = match (first, since) {
            (Some(first), Some(since)) => first.max(since),
            (first, since) => first.or(since).unwrap_or(now),
        };
        let mut data = ReportData {
            timeline: Timeline::new(start.min(now), now),
            ..ReportData::default()
        };
        for line in lines {
            data.add(line, now, grouping);
        }
        data
    }

    fn add(&mut self, line: &HistoryLine, now: Timestamp, grouping: &Grouping) {
        let path = line.file.path.as_deref().unwrap_or(Path::new(""));
        let root = line.file.root.as_deref().unwrap_or(Path::new(""));
        self.roots.insert(root.to_owned());
        let at = line.time.parse::<Timestamp>().unwrap_or(now);
        let disposal = line.disposal.as_ref();
        let process = disposal.and_then(|disposal| disposal.process.as_ref());
        let name = process.and_then(|process| process.name.as_deref());
        let bytes = line.file.bytes.unwrap_or(0);
        let temp = Summand {
            size: FileSize {
                bytes,
                disk_bytes: line.file.disk_bytes.unwrap_or(bytes),
            },
            quiet: Duration::try_from(now.duration_since(at)).unwrap_or_default(),
            target: disposal.and_then(|disposal| disposal.target.as_deref()),
            program: name,
            superseded: false,
            allowed: false,
        };
        let (sum, verdict) = match line.event {
            HistoryEvent::Reaped => (&mut self.removed, Verdict::Reap),
            HistoryEvent::Quarantined => (&mut self.moved, Verdict::Quarantine(None)),
            HistoryEvent::Restored => return self.restored.add(temp),
            HistoryEvent::Purged => return self.purged.add(temp),
        };
        sum.add(temp);
        let key = grouping.key(root, path, Outcome::Judged(verdict));
        let step = self.timeline.step_of(at);
        let steps = self.steps.entry(key.clone()).or_default();
        steps.entry(step).or_default().add(temp);
        if let Some(process) = process.filter(|process| process.name.is_some()) {
            let program = self.processes.entry(program(process)).or_default();
            program.temps.add(temp);
            let end = end_of(process).unwrap_or_else(|| "unknown".to_owned());
            *program.ends.entry(end).or_default() += 1;
        }
        self.groups.add(key, temp);
    }

    /// Returns the number of temps that were left behind, and their size.
    pub(super) fn leaks(&self) -> (u64, FileSize) {
        let size = self.removed.size.plus(self.moved.size);
        (self.removed.temps + self.moved.temps, size)
    }

    /// Returns the programs, the one with the most bytes first.
    pub(super) fn programs(&self) -> Vec<(&ProgramKey, &ProgramSum)> {
        let mut programs: Vec<_> = self.processes.iter().collect();
        let size = |sum: &ProgramSum| (sum.temps.size.bytes, sum.temps.temps);
        sort_by(&mut programs, |(_, a), (_, b)| size(b).cmp(&size(a)));
        programs
    }

    /// Returns the number of temps in each step.
    pub(super) fn temps_by_step(&self) -> Vec<u64> {
        let mut counts = vec![0; self.timeline.steps()];
        for (step, sum) in self.steps.values().flatten() {
            if let Some(count) = counts.get_mut(*step) {
                *count += sum.temps;
            }
        }
        counts
    }
}

fn program(process: &ProcessFields<'_>) -> ProgramKey {
    ProgramKey {
        name: process.name.as_deref().map(str::to_owned),
        exe: process.exe.as_deref().map(Path::to_owned),
        unit: process.unit.as_deref().map(str::to_owned),
    }
}

/// Returns how a process ended, in words.
fn end_of(process: &ProcessFields<'_>) -> Option<String> {
    let ended = process.ended.as_ref()?;
    match (ended.signal, ended.code) {
        (Some(signal), _) => Some(format!("killed by signal {signal}")),
        (None, Some(code)) => Some(format!("exited with code {code}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_limited_number_of_steps() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (seconds, step) in [
            (0, 1),
            (30, 1),
            (3600, 5 * 60),
            (24 * 3600, 3600),
            (7 * 24 * 3600, 3 * 3600),
            (30 * 24 * 3600, 24 * 3600),
            (10 * 365 * 24 * 3600, 365 * 24 * 3600),
        ] {
            let timeline = Timeline::new(at(1_000), at(1_000 + seconds));
            assert_eq!(timeline.step, step, "{seconds} s");
            assert!(timeline.steps() <= 57, "{seconds} s");
            assert_eq!(timeline.step_of(at(0)), 0, "too early");
            let last = timeline.steps() - 1;
            assert_eq!(timeline.step_of(at(1_000 + seconds)), last);
            assert_eq!(timeline.step_of(at(i64::from(u32::MAX))), last, "too late");
            assert!(timeline.time_of(last) <= at(1_000 + seconds));
        }
    }
}
