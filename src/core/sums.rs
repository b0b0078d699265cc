//! Sums up temps by directory, shape of the name, verdict and reason.
//!
//! `scan`, `sweep`, `watch`, `status` and `report` show these sums: one line for thousands of leaks of one writer.

use crate::core::sort::sort_by;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::judge::Verdict;
use super::observation::FileSize;
use super::time::Mono;

/// The properties that all temps of one sum have in common.
///
/// Two keys are compared byte by byte. A [`Path`](std::path::Path) is compared component by component, which took most of
/// the instructions of counting a temp.
#[derive(Clone, Debug)]
pub struct SumKey {
    /// The path of the root.
    pub root: Arc<PathBuf>,
    /// The directory.
    pub dir: PathBuf,
    /// The common form of the names.
    pub shape: OsString,
    /// The outcome for the temps, or the expected one.
    pub outcome: Outcome,
}

impl SumKey {
    /// Returns the root, the directory, the shape, and the outcome.
    fn parts(&self) -> ([&[u8]; 3], Outcome) {
        let texts = [self.root.as_os_str(), self.dir.as_os_str(), &self.shape];
        (texts.map(OsStr::as_encoded_bytes), self.outcome)
    }
}

impl PartialEq for SumKey {
    fn eq(&self, other: &SumKey) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for SumKey {}

impl Hash for SumKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The directory begins with the root, and most groups differ in one of these.
        let texts = [self.dir.as_os_str(), &self.shape];
        texts.map(OsStr::as_encoded_bytes).hash(state);
    }
}

impl PartialOrd for SumKey {
    fn partial_cmp(&self, other: &SumKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SumKey {
    fn cmp(&self, other: &SumKey) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

/// The outcome for a temp, or the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It got this verdict, and the verdict was carried out.
    Judged(Verdict),
    /// An action failed.
    Failed,
    /// A copy in the quarantine was removed.
    Purged,
}

/// One temp, as it is added to a sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summand<'a> {
    /// Its size.
    pub size: FileSize,
    /// The time for which no process had used it.
    pub quiet: Duration,
    /// The path of its target, if known.
    pub target: Option<&'a Path>,
    /// The name of the program that wrote or holds it, if known.
    pub program: Option<&'a str>,
    /// It is removed although its target does not count, because later copies supersede it.
    pub superseded: bool,
    /// It is removed only because a setting of its rule allows it.
    pub allowed: bool,
}

/// The path of the target that all temps of a sum have in common, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CommonTarget {
    /// No temp was added yet.
    #[default]
    Empty,
    /// All temps have this target; `None` if it is not known for any of them.
    All(Option<OsString>),
    /// There are different targets.
    Mixed,
}

impl CommonTarget {
    fn add(&mut self, target: Option<&OsStr>) {
        match self {
            CommonTarget::Empty => *self = CommonTarget::All(target.map(OsStr::to_owned)),
            CommonTarget::All(all) if all.as_deref() != target => *self = CommonTarget::Mixed,
            CommonTarget::All(_) | CommonTarget::Mixed => {}
        }
    }

    fn merge(&mut self, other: &CommonTarget) {
        match other {
            CommonTarget::Empty => {}
            CommonTarget::All(target) => self.add(target.as_deref()),
            CommonTarget::Mixed => *self = CommonTarget::Mixed,
        }
    }
}

/// The largest number of programs that one sum counts separately.
const MAX_PROGRAMS: usize = 16;

/// The sum of some temps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TempSum {
    /// The number of temps.
    pub temps: u64,
    /// Their size.
    pub size: FileSize,
    /// The longest time for which one of them was unused.
    pub oldest: Duration,
    /// The shortest such time.
    pub newest: Duration,
    /// The path of their target, if known.
    pub target: CommonTarget,
    /// The programs that wrote or hold them, each with the number of its temps, as far as they are known.
    pub programs: BTreeMap<String, u64>,
    /// The number of temps that later copies supersede.
    pub superseded: u64,
    /// The number of temps that are removed only because a setting of their rule allows it.
    pub allowed: u64,
}

impl TempSum {
    /// Adds one temp.
    pub fn add(&mut self, one: Summand<'_>) {
        self.newest = match self.temps {
            0 => one.quiet,
            _ => self.newest.min(one.quiet),
        };
        self.oldest = self.oldest.max(one.quiet);
        self.temps += 1;
        self.superseded += u64::from(one.superseded);
        self.allowed += u64::from(one.allowed);
        self.size = self.size.plus(one.size);
        self.target.add(one.target.map(Path::as_os_str));
        if let Some(program) = one.program {
            self.add_program(program, 1);
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: TempSum) {
        self.newest = match (self.temps, other.temps) {
            (0, _) => other.newest,
            (_, 0) => self.newest,
            _ => self.newest.min(other.newest),
        };
        self.oldest = self.oldest.max(other.oldest);
        self.temps += other.temps;
        self.superseded += other.superseded;
        self.allowed += other.allowed;
        self.size = self.size.plus(other.size);
        self.target.merge(&other.target);
        for (program, temps) in other.programs {
            self.add_program(&program, temps);
        }
    }

    fn add_program(&mut self, program: &str, temps: u64) {
        if let Some(known) = self.programs.get_mut(program) {
            *known += temps;
        } else if self.programs.len() < MAX_PROGRAMS {
            self.programs.insert(program.to_owned(), temps);
        }
    }

    /// Returns the target, if it is known and the same for all temps.
    #[must_use]
    pub fn target(&self) -> Option<&Path> {
        match &self.target {
            CommonTarget::All(target) => target.as_ref().map(Path::new),
            CommonTarget::Empty | CommonTarget::Mixed => None,
        }
    }

    /// Returns the programs, the one with the most temps first.
    #[must_use]
    pub fn programs(&self) -> Vec<(&str, u64)> {
        let mut programs: Vec<_> = self
            .programs
            .iter()
            .map(|(p, n)| (p.as_str(), *n))
            .collect();
        sort_by(&mut programs, |(_, a), (_, b)| b.cmp(a));
        programs
    }
}

/// Sums by their keys.
#[derive(Clone, Debug)]
pub struct Sums {
    sums: HashMap<SumKey, TempSum>,
    /// The largest number of separate sums.
    limit: usize,
    /// The sum of the temps for which there is no separate sum.
    others: TempSum,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums::with_limit(usize::MAX)
    }
}

impl Sums {
    /// Returns no sums, which become at most `limit` separate sums. All further temps have one common sum.
    #[must_use]
    pub fn with_limit(limit: usize) -> Sums {
        Sums {
            sums: HashMap::new(),
            limit,
            others: TempSum::default(),
        }
    }

    /// Adds one temp.
    pub fn add(&mut self, key: SumKey, one: Summand<'_>) {
        self.sum(key).add(one);
    }

    /// Adds the sum of some temps.
    pub fn add_sum(&mut self, key: SumKey, sum: TempSum) {
        self.sum(key).merge(sum);
    }

    /// Adds all sums of `other`.
    pub fn merge(&mut self, other: &Sums) {
        for (key, sum) in &other.sums {
            self.add_sum(key.clone(), sum.clone());
        }
        self.others.merge(other.others.clone());
    }

    fn sum(&mut self, key: SumKey) -> &mut TempSum {
        match self.sums.len() < self.limit || self.sums.contains_key(&key) {
            true => self.sums.entry(key).or_default(),
            false => &mut self.others,
        }
    }

    /// Returns all separate sums, the one with the most bytes first.
    #[must_use]
    pub fn largest_first(&self) -> Vec<(&SumKey, &TempSum)> {
        let mut sums: Vec<_> = self.sums.iter().collect();
        sort_by(&mut sums, |(a, x), (b, y)| {
            let order = (y.size.bytes, y.temps).cmp(&(x.size.bytes, x.temps));
            order.then_with(|| a.cmp(b))
        });
        sums
    }

    /// Returns the sum of the temps that have no separate sum.
    #[must_use]
    pub fn others(&self) -> &TempSum {
        &self.others
    }

    /// Reports whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.others.temps == 0
    }
}

/// Sums of the recent past. Time is divided into steps, so a storm of leaks needs no more memory than a few leaks.
#[derive(Clone, Debug)]
pub struct RecentSums {
    /// The sums of each step, with its start. The oldest is first.
    steps: VecDeque<(Mono, Sums)>,
    step: Duration,
    span: Duration,
}

/// The largest number of separate sums in one step.
const MAX_SUMS: usize = 256;

impl RecentSums {
    /// Returns no sums. They will cover the last `span`, in steps of `step`.
    #[must_use]
    pub fn new(span: Duration, step: Duration) -> RecentSums {
        RecentSums {
            steps: VecDeque::new(),
            step,
            span,
        }
    }

    /// Adds at `now` one temp.
    pub fn add(&mut self, now: Mono, key: SumKey, one: Summand<'_>) {
        while let Some((began, _)) = self.steps.front()
            && now.since(*began) >= self.span
        {
            self.steps.pop_front();
        }
        let is_current = |(began, _): &(Mono, _)| now.since(*began) < self.step;
        if !self.steps.back().is_some_and(is_current) {
            self.steps.push_back((now, Sums::with_limit(MAX_SUMS)));
        }
        if let Some((_, sums)) = self.steps.back_mut() {
            sums.add(key, one);
        }
    }

    /// Returns the sums of the span before `now`.
    #[must_use]
    pub fn before(&self, now: Mono) -> Sums {
        let mut all = Sums::default();
        let is_recent = |(began, _): &&(Mono, _)| now.since(*began) < self.span;
        for (_, sums) in self.steps.iter().filter(is_recent) {
            all.merge(sums);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::judge::Reason;

    fn key(shape: &str) -> SumKey {
        SumKey {
            root: Arc::new("/r".into()),
            dir: "/r/d".into(),
            shape: shape.into(),
            outcome: Outcome::Judged(Verdict::Reap),
        }
    }

    fn temp(bytes: u64, quiet: u64) -> Summand<'static> {
        Summand {
            size: FileSize {
                bytes,
                disk_bytes: 4096,
            },
            quiet: Duration::from_secs(quiet),
            ..Summand::default()
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    #[test]
    fn the_largest_sum_is_first() {
        let mut sums = Sums::default();
        for (shape, bytes, quiet) in [("a", 10, 3), ("b", 25, 1), ("a", 10, 9), ("c", 20, 1)] {
            sums.add(key(shape), temp(bytes, quiet));
        }
        let kept = SumKey {
            outcome: Outcome::Judged(Verdict::Keep(Reason::InUse)),
            ..key("a")
        };
        sums.add(kept.clone(), temp(1, 1));
        let found: Vec<_> = (sums.largest_first().iter())
            .map(|(key, sum)| (key.shape.to_str().unwrap(), sum.temps, sum.size.bytes))
            .collect();
        assert_eq!(
            found,
            [("b", 1, 25), ("a", 2, 20), ("c", 1, 20), ("a", 1, 1)]
        );
        let sums = sums.largest_first();
        let (_, a) = sums[1];
        assert_eq!(
            (a.oldest, a.newest),
            (Duration::from_secs(9), Duration::from_secs(3))
        );
        assert_eq!(a.size.disk_bytes, 8192);
        assert_eq!(*sums[3].0, kept, "each verdict has a sum of its own");
    }

    #[test]
    fn a_target_is_known_only_if_all_temps_have_it() {
        let one = |target: Option<&'static str>| Summand {
            target: target.map(Path::new),
            ..Summand::default()
        };
        for (targets, want) in [
            (&[Some("/a"), Some("/a")][..], Some("/a")),
            (&[Some("/a"), Some("/b"), Some("/a")], None),
            (&[Some("/a"), None], None),
            (&[None, None], None),
            (&[], None),
        ] {
            let mut sum = TempSum::default();
            targets.iter().for_each(|target| sum.add(one(*target)));
            assert_eq!(sum.target(), want.map(Path::new), "{targets:?}");
            let mut merged = TempSum::default();
            merged.merge(sum.clone());
            assert_eq!(merged, sum);
        }
    }

    #[test]
    fn the_programs_of_a_sum_are_counted() {
        let mut sum = TempSum::default();
        for program in ["node", "bash", "node"] {
            sum.add(Summand {
                program: Some(program),
                ..Summand::default()
            });
        }
        sum.add(Summand::default());
        assert_eq!(sum.programs(), [("node", 2), ("bash", 1)]);
        for n in 0..2 * MAX_PROGRAMS {
            sum.add(Summand {
                program: Some(&n.to_string()),
                ..Summand::default()
            });
        }
        assert_eq!(sum.programs.len(), MAX_PROGRAMS);
    }

    #[test]
    fn the_last_hour_is_summed_up() {
        let minute = Duration::from_secs(60);
        let mut recent = RecentSums::new(60 * minute, minute);
        for second in [0, 1, 59, 60, 1800] {
            recent.add(at(second), key("a"), temp(10, 0));
        }
        recent.add(at(1800), key("b"), temp(1000, 0));
        for (now, shape, want) in [
            (1800, "a", Some((5, 50))),
            (1800, "b", Some((1, 1000))),
            (3599, "a", Some((5, 50))),
            // Now the first minute is more than an hour ago.
            (3600, "a", Some((2, 20))),
            (3660, "a", Some((1, 10))),
            (5400, "a", None),
            (5400, "b", None),
        ] {
            let sums = recent.before(at(now));
            let found = sums.sums.get(&key(shape));
            let found = found.map(|sum| (sum.temps, sum.size.bytes));
            assert_eq!(found, want, "{shape} at {now} s");
        }
    }

    #[test]
    fn the_number_of_sums_is_limited() {
        let minute = Duration::from_secs(60);
        let mut recent = RecentSums::new(60 * minute, minute);
        for n in 0..10 * MAX_SUMS {
            recent.add(at(0), key(&n.to_string()), temp(1, 0));
        }
        let sums = recent.before(at(0));
        assert_eq!(sums.largest_first().len(), MAX_SUMS);
        let separate: u64 = sums.sums.values().map(|sum| sum.temps).sum();
        assert_eq!(
            separate + sums.others().temps,
            10 * MAX_SUMS as u64,
            "none is lost"
        );
        for hour in 0..100 {
            recent.add(at(hour * 3600), key("a"), temp(1, 0));
        }
        assert_eq!(recent.steps.len(), 1);
    }
}
