//! Groups of similar temps: one line for each directory, name shape, verdict and reason.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use orphand::core::event::{Disposed, Event, Subject};
use orphand::core::judge::{Reason, Verdict};
use orphand::core::sort::map_of;
use orphand::core::sums::{Outcome, SumKey, Summand, Sums, TempSum};
use orphand::core::temp_name::Names;
use orphand::fs::root::Root;
use orphand::index::SplitPath;

use super::text;

/// The largest number of groups that are shown.
pub(crate) const MAX_GROUPS: usize = 20;

/// The largest number of programs that a line names.
const MAX_PROGRAMS: usize = 3;

/// Finds the group of a temp, by the names of its root's rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grouping {
    /// The roots by the bytes of their paths. Most often there is one, which a tree finds faster than a hash.
    roots: BTreeMap<OsString, (Arc<PathBuf>, Names)>,
}

/// The names for a root whose rule is unknown.
static ALL_NAMES: LazyLock<Names> = LazyLock::new(Names::default);

impl Grouping {
    /// Returns the grouping by the rules of `roots`.
    pub(crate) fn new<'r>(roots: impl IntoIterator<Item = &'r Root>) -> Grouping {
        let entry = |root: &Root| {
            let names = root.policy.names.clone();
            let path = Arc::new(root.path.clone());
            (path.as_os_str().to_owned(), (path, names))
        };
        Grouping {
            roots: map_of(roots.into_iter().map(entry)),
        }
    }

    /// Returns the path of a root, shared by its groups.
    pub(crate) fn root(&self, root: &Path) -> Arc<PathBuf> {
        let known = self.roots.get(root.as_os_str());
        known.map_or_else(|| Arc::new(root.to_owned()), |(root, _)| Arc::clone(root))
    }

    /// Returns the group of the temp at `path` in `root`.
    pub(crate) fn key(&self, root: &Path, path: &Path, outcome: Outcome) -> SumKey {
        let (root, names) = match self.roots.get(root.as_os_str()) {
            Some((root, names)) => (Arc::clone(root), names),
            None => (Arc::new(root.to_owned()), &*ALL_NAMES),
        };
        let path = SplitPath::new(path);
        SumKey {
            root,
            dir: path.dir().to_owned(),
            shape: names.display_form(path.name()),
            outcome,
        }
    }

    /// Returns the group and the summand of the temp that `event` is about, if it is about a temp that was processed.
    pub(crate) fn of_event<'e>(&self, event: &'e Event) -> Option<(SumKey, Summand<'e>)> {
        let (subject, outcome, summand) = match event {
            Event::Reaped(disposed) => (
                &disposed.subject,
                Outcome::Judged(Verdict::Reap),
                disposal(disposed),
            ),
            Event::Quarantined {
                disposed, reason, ..
            } => {
                let outcome = Outcome::Judged(Verdict::Quarantine(*reason));
                (&disposed.subject, outcome, disposal(disposed))
            }
            Event::Kept {
                subject,
                reason,
                holders,
                details,
                ..
            } => {
                let holder = holders.first().map(|holder| holder.name.as_str());
                let process = || details.process.as_ref()?.name.as_deref();
                let summand = Summand {
                    quiet: details.quiet,
                    program: holder.or_else(process),
                    ..sized(subject)
                };
                (subject, Outcome::Judged(Verdict::Keep(*reason)), summand)
            }
            Event::Failed { subject, .. } if subject.path != subject.root => {
                (subject, Outcome::Failed, sized(subject))
            }
            Event::Purged { subject, .. } => (subject, Outcome::Purged, sized(subject)),
            _ => return None,
        };
        Some((self.key(&subject.root, &subject.path, outcome), summand))
    }
}

fn sized(subject: &Subject) -> Summand<'_> {
    Summand {
        size: subject.size.unwrap_or_default(),
        ..Summand::default()
    }
}

fn disposal(disposed: &Disposed) -> Summand<'_> {
    Summand {
        quiet: disposed.quiet,
        target: disposed.target.as_deref(),
        program: disposed.writer.as_deref(),
        superseded: disposed.superseded,
        allowed: disposed.allowed.is_some(),
        ..sized(&disposed.subject)
    }
}

/// Returns the word for what was done with the temps of a group.
pub(crate) fn past_word(key: &SumKey) -> &'static str {
    match key.outcome {
        Outcome::Judged(Verdict::Reap) => "removed",
        Outcome::Judged(Verdict::Quarantine(_)) => "moved to quarantine",
        Outcome::Judged(Verdict::Keep(_)) => "kept",
        Outcome::Failed => "failed",
        Outcome::Purged => "deleted",
    }
}

/// Returns the path of a group: its directory and the form of its names.
pub(crate) fn path(key: &SumKey) -> PathBuf {
    key.dir.join(&key.shape)
}

/// Returns how long the temps of a group were unused, and why they get their verdict.
pub(crate) fn reason_text(key: &SumKey, sum: &TempSum) -> String {
    let ages = ages(sum);
    let programs = programs(sum);
    let by = |what: &str| match programs.is_empty() {
        true => what.to_owned(),
        false => format!("{what} in {programs}"),
    };
    match key.outcome {
        Outcome::Judged(Verdict::Reap) => {
            let why = superseded_text(sum) + &allowed_text(sum);
            of_programs(ages + &why, &programs)
        }
        Outcome::Judged(Verdict::Quarantine(None)) => of_programs(ages, &programs),
        Outcome::Judged(Verdict::Quarantine(Some(reason))) => match reason {
            Reason::SoleCopy => format!("maybe the only copy; {ages}"),
            reason => short_reason(reason).to_owned(),
        },
        Outcome::Judged(Verdict::Keep(reason)) => match reason {
            Reason::InUse | Reason::Locked => by(short_reason(reason)),
            Reason::Young => format!("too young: {ages}"),
            reason => short_reason(reason).to_owned(),
        },
        Outcome::Failed => "an error occurred".to_owned(),
        Outcome::Purged => String::new(),
    }
}

/// Returns what supersedes the temps of a group whose target does not count, after the ages of the temps.
fn superseded_text(sum: &TempSum) -> String {
    match sum.superseded {
        0 => String::new(),
        1 if sum.temps == 1 => "; later copies supersede it".to_owned(),
        all if all == sum.temps => "; later copies supersede them".to_owned(),
        some => format!("; later copies supersede {} of them", text::count(some)),
    }
}

/// Returns how many temps of a group are removed only because a setting allows it.
fn allowed_text(sum: &TempSum) -> String {
    let count = match sum.allowed {
        0 => return String::new(),
        all if all == sum.temps => String::new(),
        some => format!("{} of them ", text::count(some)),
    };
    let whose = if sum.temps == 1 { "its" } else { "their" };
    format!("; {count}in use or maybe the only copy, and the rule allows {whose} removal")
}

fn of_programs(ages: String, programs: &str) -> String {
    match programs.is_empty() {
        true => ages,
        false => format!("{ages}; written by {programs}"),
    }
}

/// Returns `unused for 5 min to 3 months`.
fn ages(sum: &TempSum) -> String {
    let (newest, oldest) = (text::span(sum.newest), text::span(sum.oldest));
    match newest == oldest {
        true => format!("unused for {oldest}"),
        false => format!("unused for {newest} to {oldest}"),
    }
}

/// Returns the programs with the most temps: `node, bash and 2 more`.
pub(crate) fn programs(sum: &TempSum) -> String {
    let programs = sum.programs();
    let shown = programs.iter().take(MAX_PROGRAMS);
    let mut names: Vec<String> = shown
        .map(|(name, _)| text::escaped(Path::new(name)))
        .collect();
    let more = programs.len().saturating_sub(MAX_PROGRAMS);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// Returns the reason for a verdict in a few words.
fn short_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Restored => "restored, and unchanged since",
        Reason::Young => "too young",
        Reason::Changed => "just changed",
        Reason::NotRegular => "not a regular file",
        Reason::OtherMount => "on another mount",
        Reason::Protected => "immutable, append-only, or not on this disk",
        Reason::HardLinked => "has a hard link",
        Reason::NetworkFs => "on a file system without proof",
        Reason::ForeignOwner => "belongs to another user",
        Reason::WriterAlive => "the pid in the name is or may be running",
        Reason::Closed => "closed (--closed settled)",
        Reason::Locked => "locked",
        Reason::InUse => "open",
        Reason::CannotTell => "cannot prove that no process uses it",
        Reason::SoleCopy => "maybe the only copy",
        Reason::NoQuarantine => "no quarantine can be created here",
        Reason::QuarantineFull => "the quarantine is full",
        Reason::Reserved => "reserved name, or has a companion",
    }
}

/// Returns the groups that are not shown, after the first `shown` ones.
pub(crate) fn hidden_groups(sums: &Sums, shown: usize) -> HiddenGroups {
    let others = sums.others();
    let mut hidden = HiddenGroups {
        groups: 0,
        temps: others.temps,
        bytes: others.size.bytes,
    };
    let sums = sums.largest_first();
    let rest = sums.get(shown..).unwrap_or_default();
    rest.iter().for_each(|(_, sum)| hidden.add(sum));
    hidden
}

/// The groups that are not shown.
#[derive(Default)]
pub(crate) struct HiddenGroups {
    /// The number of these groups, as far as it is known.
    groups: u64,
    temps: u64,
    bytes: u64,
}

impl HiddenGroups {
    pub(crate) fn add(&mut self, sum: &TempSum) {
        self.groups += 1;
        self.temps += sum.temps;
        self.bytes = self.bytes.saturating_add(sum.size.bytes);
    }

    pub(crate) fn merge(&mut self, other: &HiddenGroups) {
        self.groups += other.groups;
        self.temps += other.temps;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Returns the line about them, if there are any, for a command that can list each temp.
    pub(crate) fn line_with_option(&self) -> Option<String> {
        Some(format!("{}; to list each temp: --list", self.line()?))
    }

    /// Returns the line about them, if there are any: `and 12 more groups (34 temps, 1.2 MB)`.
    pub(crate) fn line(&self) -> Option<String> {
        let groups = match (self.groups, self.temps) {
            (_, 0) => return None,
            (0, _) => "other groups".to_owned(),
            (groups, _) => text::counted(groups, "more group", "more groups"),
        };
        Some(format!(
            "and {groups} ({}, {})",
            text::counted(self.temps, "temp", "temps"),
            text::size(self.bytes)
        ))
    }
}

/// The number of groups in a status line.
const STATUS_GROUPS: usize = 2;

/// The smallest width of the name of a group in a status line.
const MIN_NAME: usize = 12;

/// Returns a status line of at most `width` characters: `parts`, and the largest groups of the last minute. If there is
/// not enough room, the last parts are left out, or the name of a group is shortened.
pub(crate) fn status_line(parts: &[String], last_minute: &Sums, width: usize) -> String {
    let length = |text: &str| text.chars().count();
    let largest = last_minute.largest_first();
    let shape = |key: &SumKey| text::escaped(Path::new(&key.shape));
    let group = |name: &str, sum: &TempSum| {
        format!(
            "{} {name} ({})",
            text::count(sum.temps),
            text::size(sum.size.bytes)
        )
    };
    let with_groups = |groups: &[String]| {
        let groups = format!("last minute: {}", groups.join(", "));
        text::joined(&[parts, &[groups]].concat())
    };
    let shown = largest.iter().take(STATUS_GROUPS);
    let texts: Vec<String> = shown.map(|(key, sum)| group(&shape(key), sum)).collect();
    let mut lines: Vec<String> = (1..=texts.len())
        .rev()
        .filter_map(|number| Some(with_groups(texts.get(..number)?)))
        .collect();
    if let Some((key, sum)) = largest.first() {
        let room = width.saturating_sub(length(&with_groups(&[group("", sum)])));
        if room >= MIN_NAME {
            let name = text::shortened(&shape(key), room);
            lines.push(with_groups(&[group(&name, sum)]));
        }
    }
    let without_groups = (0..=parts.len())
        .rev()
        .filter_map(|number| parts.get(..number));
    lines.extend(without_groups.map(text::joined));
    let fitting = lines.into_iter().find(|line| length(line) <= width);
    fitting.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use orphand::core::observation::FileSize;

    use super::*;

    #[test]
    fn a_status_line_leaves_out_whole_parts() {
        let mut sums = Sums::default();
        for (shape, temps, bytes) in [("burst.json.<uuid>.tmp", 1_939, 4_000), ("a.tmp", 1, 5)] {
            let key = SumKey {
                root: Arc::new("/r".into()),
                dir: "/r".into(),
                shape: shape.into(),
                outcome: Outcome::Judged(Verdict::Reap),
            };
            let size = FileSize {
                bytes,
                disk_bytes: bytes,
            };
            let one = Summand {
                size,
                ..Summand::default()
            };
            (0..temps).for_each(|_| sums.add(key.clone(), one));
        }
        let parts = ["2 waiting, next in 7 s", "moved 8.0 MB"].map(str::to_owned);
        let none = Sums::default();
        let burst = "2 waiting, next in 7 s · moved 8.0 MB · last minute: 1,939";
        for (sums, width, want) in [
            (
                &sums,
                200,
                format!("{burst} burst.json.<uuid>.tmp (7.8 MB), 1 a.tmp (5 B)"),
            ),
            (
                &sums,
                104,
                format!("{burst} burst.json.<uuid>.tmp (7.8 MB), 1 a.tmp (5 B)"),
            ),
            (
                &sums,
                103,
                format!("{burst} burst.json.<uuid>.tmp (7.8 MB)"),
            ),
            (&sums, 80, format!("{burst} burst.js…tmp (7.8 MB)")),
            (
                &sums,
                79,
                "2 waiting, next in 7 s · moved 8.0 MB".to_owned(),
            ),
            (
                &none,
                79,
                "2 waiting, next in 7 s · moved 8.0 MB".to_owned(),
            ),
            (&none, 36, "2 waiting, next in 7 s".to_owned()),
            (&none, 21, String::new()),
        ] {
            let line = status_line(&parts, sums, width);
            assert_eq!(line, want, "{width}");
        }
    }
}
