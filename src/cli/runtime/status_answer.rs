//! The answer of a watcher to `orphand status`: one JSON object.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orphand::core::census::Tree;
use orphand::core::observation::{Holder, Kind};
use orphand::core::policy::Learn;
use orphand::core::sort::map_of;
use orphand::core::sums::{Outcome, SumKey, TempSum};
use orphand::core::write_times::WriteSummary;
use orphand::daemon::RootStatus;
use orphand::store::json::{self, LookalikeFields, TreeFields, WirePath, WriteFields, field};
use serde::{Deserialize, Serialize};

use crate::cli::output::groups::MAX_GROUPS;
use crate::cli::output::learned::LearnedFields;
use crate::cli::output::lookalikes::with_root;
use crate::cli::output::standard_streams::stdin_is_terminal;
use crate::cli::output::watch_status::{
    LEAK_SPAN, Snapshot, WatchStatus, leak_line, leak_lines, state,
};
use crate::cli::runtime::program::Program;

/// The answer. Fields that a watcher of another version does not write have their defaults.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct WatchAnswer {
    /// The pid of its process.
    pub(crate) pid: u32,
    /// Its version, which may be older than that of this program.
    pub(crate) version: String,
    #[serde(flatten)]
    pub(crate) program: Program,
    /// It watches the directories of the configuration file, not directories from the command line.
    #[serde(rename = "background")]
    pub(crate) is_background: bool,
    /// Its stdin is a terminal. `orphand status` takes this out of the answer, which is part of its JSON.
    #[serde(rename = "terminal", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_terminal: bool,
    pub(crate) since: String,
    /// Its state in one line.
    pub(crate) line: String,
    /// The problems that keep it from working, for people.
    #[serde(rename = "trouble")]
    pub(crate) problems: Vec<String>,
    #[serde(flatten, with = "field::config")]
    pub(crate) config: WirePath<'static>,
    pub(crate) config_error: Option<String>,
    pub(crate) roots: Vec<RootAnswer>,
    pub(crate) tracked: u64,
    pub(crate) last_event_ms: Option<u64>,
    pub(crate) reaped: u64,
    pub(crate) quarantined: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    /// The largest groups of leaks.
    pub(crate) leaks: Vec<LeakAnswer>,
    /// All leaks of the last hour, for people: one line for each of the largest groups.
    pub(crate) leak_lines: Vec<String>,
}

/// The state of a root.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RootAnswer {
    #[serde(flatten, with = "field::root")]
    pub(crate) root: WirePath<'static>,
    pub(crate) state: String,
    pub(crate) recursive: bool,
    pub(crate) dry_run: bool,
    pub(crate) directories: usize,
    pub(crate) waiting: u64,
    /// The numbers of kept temps, by reason.
    pub(crate) kept: BTreeMap<String, u64>,
    pub(crate) kept_bytes: u64,
    /// The running processes that hold temps, those with the most temps first.
    pub(crate) holders: Vec<HolderAnswer>,
    pub(crate) reaped: u64,
    pub(crate) quarantined: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) last_disposal: Option<String>,
    pub(crate) last_scan: Option<String>,
    pub(crate) last_scan_ms: Option<u64>,
    /// The use of learned shapes: `off`, `report` or `take`.
    pub(crate) learn: String,
    /// The shapes of temps that are known from healthy renames.
    pub(crate) learned: Vec<LearnedFields>,
    /// The number of directories in which nothing is learned, because they are scanned instead of watched.
    pub(crate) hot_directories: u64,
    /// Directories and special files whose names the rule matches. The watcher does not count the files in them.
    pub(crate) trees: Vec<TreeFields<'static>>,
    /// The files whose names look like temps although the rule does not match them.
    pub(crate) lookalikes: Vec<LookalikeFields<'static>>,
    /// The times of healthy writes. `None` if none was measured.
    pub(crate) writes: Option<WriteFields<'static>>,
    /// A warning, for people, if a healthy write took more than half of its grace.
    pub(crate) slow_write: Option<String>,
}

/// A process that holds temps.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct HolderAnswer {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// The number of its temps.
    pub(crate) temps: u64,
}

/// The largest number of holders in the answer for a root.
const MAX_HOLDERS: usize = 20;

/// The temps with similar names that were left in one directory in the last hour.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LeakAnswer {
    /// The program that wrote most of them, if it is known.
    pub(crate) program: Option<String>,
    /// The name of the target of its temps, if the program is not known.
    pub(crate) writer_of: Option<String>,
    #[serde(flatten, with = "field::dir")]
    pub(crate) dir: WirePath<'static>,
    /// The common form of their names.
    pub(crate) shape: String,
    /// The outcome for these temps.
    pub(crate) verdict: String,
    pub(crate) reason: Option<String>,
    pub(crate) temps: u64,
    pub(crate) bytes: u64,
    pub(crate) within_ms: u64,
    /// The same for people.
    pub(crate) line: String,
}

/// Returns the answer for the state in `status`.
pub(crate) fn answer(status: &WatchStatus) -> WatchAnswer {
    let seen = status.snapshot();
    WatchAnswer {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program: status.program.clone(),
        is_background: status.is_background,
        has_terminal: stdin_is_terminal(),
        since: json::time(status.since),
        line: seen.line(),
        problems: seen.problems(),
        roots: seen.roots.iter().map(|one| root(one, &seen)).collect(),
        tracked: seen.tracked as u64,
        last_event_ms: seen.last_created_ms,
        reaped: seen.summary.reaped,
        quarantined: seen.summary.quarantined,
        failed: seen.summary.failed,
        bytes: seen.summary.freed.bytes,
        disk_bytes: seen.summary.freed.disk_bytes,
        leaks: (seen.leaks.largest_first().iter().take(MAX_GROUPS))
            .map(|(key, sum)| leak(key, sum))
            .collect(),
        leak_lines: leak_lines(&seen.leaks),
        config: seen.config.map(Into::into),
        config_error: seen.config_error,
    }
}

fn root(one: &RootStatus, seen: &Snapshot) -> RootAnswer {
    let holders = seen.holders.get(&one.root.path).into_iter().flatten();
    let holder = |(holder, temps): &(Holder, u64)| HolderAnswer {
        pid: holder.pid,
        name: holder.name.clone(),
        temps: *temps,
    };
    let of_root = seen
        .learned
        .iter()
        .filter(|known| one.root.below(&known.dir).is_some())
        .filter(|_| one.root.policy.learn != Learn::Off);
    let (stats, pending) = (&one.stats, &one.pending);
    let kept = |(reason, count): (&&'static str, &usize)| ((*reason).to_owned(), *count as u64);
    RootAnswer {
        root: Some(one.root.path.clone().into()),
        state: state(one).as_str().to_owned(),
        recursive: one.root.policy.recursive,
        dry_run: one.root.policy.is_dry_run(),
        directories: stats.directories,
        waiting: pending.waiting as u64,
        kept: map_of(pending.reasons.iter().map(kept)),
        kept_bytes: pending.held_bytes,
        holders: holders.take(MAX_HOLDERS).map(holder).collect(),
        reaped: stats.summary.reaped,
        quarantined: stats.summary.quarantined,
        failed: stats.summary.failed,
        bytes: stats.summary.freed.bytes,
        disk_bytes: stats.summary.freed.disk_bytes,
        last_disposal: stats.last_disposal.map(json::time),
        last_scan: stats.last_scan.map(|scan| json::time(scan.ended)),
        last_scan_ms: stats.last_scan.map(|scan| json::ms(scan.took)),
        learn: learn_word(one.root.policy.learn).to_owned(),
        learned: of_root
            .map(|known| LearnedFields::new(&one.root.policy, known))
            .collect(),
        hot_directories: stats.hot_directories as u64,
        trees: trees(&one.root.path, &stats.trees),
        lookalikes: with_root(&one.root, stats.lookalikes.clone())
            .map(|group| LookalikeFields::from(&group).into_owned())
            .collect(),
        writes: one.writes.as_ref().map(writes),
        slow_write: one.slow_write.as_ref().map(|slow| slow.message()),
    }
}

/// Returns the word for the use of learned shapes.
fn learn_word(learn: Learn) -> &'static str {
    match learn {
        Learn::Off => "off",
        Learn::Report => "report",
        Learn::Take => "take",
    }
}

/// Returns the fields of trees whose files were not counted.
fn trees(root: &Path, trees: &[(PathBuf, Kind)]) -> Vec<TreeFields<'static>> {
    let tree = |(below, kind): &(PathBuf, Kind)| {
        let tree = Tree {
            path: root.join(below),
            kind: *kind,
            content: None,
        };
        TreeFields::from(&tree).into_owned()
    };
    trees.iter().map(tree).collect()
}

fn writes(writes: &WriteSummary) -> WriteFields<'static> {
    let fields = WriteFields::from(writes);
    WriteFields {
        max_name: fields.max_name.map(|name| name.into_owned().into()),
        ..fields
    }
}

fn leak(key: &SumKey, sum: &TempSum) -> LeakAnswer {
    let program = sum.programs().first().map(|(name, _)| (*name).to_owned());
    let target = sum.target().and_then(|target| target.file_name());
    let writer_of = target.filter(|_| program.is_none());
    let verdict = match key.outcome {
        Outcome::Judged(verdict) => Some(verdict),
        Outcome::Failed | Outcome::Purged => None,
    };
    LeakAnswer {
        writer_of: writer_of.map(|target| target.to_string_lossy().into_owned()),
        program,
        dir: Some(key.dir.clone().into()),
        shape: key.shape.to_string_lossy().into_owned(),
        verdict: verdict
            .map(|verdict| verdict.as_str().to_owned())
            .unwrap_or_default(),
        reason: verdict.and_then(|verdict| Some(verdict.reason()?.as_str().to_owned())),
        temps: sum.temps,
        bytes: sum.size.bytes,
        within_ms: json::ms(LEAK_SPAN),
        line: leak_line(key, sum),
    }
}
