//! The temps of one directory: finds them, judges them, and makes their part of the output.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;
use orphand::core::judge::Verdict;
use orphand::core::observation::Kind;
use orphand::core::sums::{Outcome, SumKey, Summand, TempSum};
use orphand::engine::{DirContext, Engine, Examined, ScannedDir, judge_dir};
use orphand::evidence::siblings::{NameList, Siblings};
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use orphand::fs::walk::{DirResult, ScanItem};
use orphand::reap::quarantine::Quarantine;
use orphand::sys::error;

use super::document::GroupFields;
use super::lines::verdict_text;
use super::narrower::Narrower;
use super::output::Listing;
use super::tally::Tally;
use crate::cli::output::groups::{Grouping, HiddenGroups, MAX_GROUPS};
use crate::cli::output::temp_fields::TempFields;
use crate::cli::runtime::plan::Plan;

/// The facts that the whole scan has in common.
#[derive(Clone, Copy)]
pub(super) struct ScanContext<'a> {
    pub(super) plan: &'a Plan,
    pub(super) listing: Listing,
    pub(super) grouping: &'a Grouping,
    /// For each root.
    pub(super) narrower: &'a [Narrower],
}

/// The facts that the directories of one root have in common.
pub(super) struct RootContext<'a> {
    pub(super) scan: ScanContext<'a>,
    pub(super) root: &'a Root,
    pub(super) narrower: &'a Narrower,
    pub(super) engine: &'a Engine,
    pub(super) has_quarantine: bool,
    /// The quarantine, if there is one already.
    pub(super) quarantine: Option<Quarantine>,
    /// A group that is not larger is not shown, because so many larger ones were found.
    pub(super) min_size: &'a Mutex<GroupSize>,
    pub(super) bar: &'a ProgressBar,
}

/// Temps of one directory with similar names and the same verdict.
pub(super) struct ScanGroup {
    pub(super) key: SumKey,
    pub(super) sum: TempSum,
    /// One of them.
    pub(super) first: ListRow,
}

impl ScanGroup {
    pub(super) fn size(&self) -> GroupSize {
        size_of_group(&self.sum)
    }
}

/// The bytes and the number of the temps of a group. A larger group is shown first.
pub(super) type GroupSize = (u64, u64);

fn size_of_group(sum: &TempSum) -> GroupSize {
    (sum.size.bytes, sum.temps)
}

/// A group among the temps of a directory.
pub(super) struct DirGroup {
    pub(super) shape: OsString,
    pub(super) outcome: Outcome,
    pub(super) sum: TempSum,
    /// The index of one of them.
    first: usize,
}

/// A group in the JSON document.
pub(super) struct GroupText {
    pub(super) size: GroupSize,
    /// The JSON object.
    pub(super) text: Box<str>,
}

/// A temp in the list for people.
pub(super) struct ListRow {
    pub(super) path: PathBuf,
    pub(super) verdict: Verdict,
    pub(super) bytes: u64,
    pub(super) text: String,
}

/// The part of the output about one directory.
#[derive(Default)]
pub(super) struct DirReport {
    /// All names in the directory. They are dropped once its temps are judged.
    names: NameList,
    temps: Vec<OsString>,
    pub(super) tally: Tally,
    /// The JSON objects of the temps, each after a comma; or the paths of the orphans.
    pub(super) text: Vec<u8>,
    pub(super) rows: Vec<ListRow>,
    /// The groups that may be among the largest.
    pub(super) groups: Vec<ScanGroup>,
    pub(super) hidden: HiddenGroups,
    pub(super) group_texts: Vec<GroupText>,
    pub(super) claims: Vec<(PathBuf, OsString)>,
    pub(super) trees: Vec<(PathBuf, Kind)>,
    pub(super) denied: Option<(PathBuf, io::Error)>,
    pub(super) not_entered: Option<PathBuf>,
    /// The temps that could not be examined.
    pub(super) failed: Vec<(PathBuf, io::Error)>,
}

impl DirResult for DirReport {
    fn bytes(&self) -> usize {
        let texts = self.group_texts.iter().map(|group| group.text.len());
        let rows = self.rows.iter().map(|row| row.text.len());
        self.text.len()
            + texts.chain(rows).sum::<usize>()
            + self.rows.len() * size_of::<ListRow>()
            + self.groups.len() * size_of::<ScanGroup>()
    }
}

impl DirReport {
    /// Takes an item of the walk. Judges the temps of the directory after the last item.
    pub(super) fn take(&mut self, context: &RootContext<'_>, item: ScanItem<'_>) {
        match item {
            ScanItem::Dir(_) => {}
            ScanItem::Name(name) => self.names.push(name),
            ScanItem::Temp(_, name) => self.temps.push(name.to_owned()),
            ScanItem::Tree(dir, name, kind) => self.trees.push((dir.below().join(name), kind)),
            ScanItem::Claim(dir, name) => {
                self.claims.push((dir.below().to_owned(), name.to_owned()));
            }
            ScanItem::Denied(path, error) => {
                self.denied = Some((path.to_owned(), error::copy(error)));
            }
            ScanItem::NotEntered(path) => self.not_entered = Some(path.to_owned()),
            ScanItem::Done(dir) => self.judge(context, dir),
        }
    }

    fn judge(&mut self, context: &RootContext<'_>, dir: &Dir) {
        let all_names = std::mem::take(&mut self.names);
        let mut temps = std::mem::take(&mut self.temps);
        if temps.is_empty() {
            return;
        }
        temps.sort_unstable();
        context.bar.inc_length(temps.len() as u64);
        let dir_context = DirContext {
            root: context.root,
            id: None,
            below: dir.below(),
        };
        let siblings = Siblings::of_names(all_names.iter(), &context.root.policy.names);
        drop(all_names);
        let scanned = ScannedDir::new(
            context.engine,
            dir,
            dir_context,
            siblings,
            context.has_quarantine,
        );
        let judged = judge_dir(
            context.engine,
            &scanned,
            &temps,
            context.quarantine.as_ref(),
        );
        let failed = judged.failed.into_iter();
        self.failed = failed
            .map(|(name, error)| (dir.path().join(name), error))
            .collect();
        self.report(context, dir.path(), &judged.temps);
        context.bar.inc(temps.len() as u64);
    }

    fn report(&mut self, context: &RootContext<'_>, dir: &Path, temps: &[Examined]) {
        let (scan, root) = (context.scan, context.root);
        let only_reports = root.policy.is_dry_run();
        for examined in temps {
            self.tally.add(examined, only_reports);
            context.narrower.add(examined);
            match scan.listing {
                Listing::Json => {
                    let rule = scan.plan.rule(root);
                    let fields = TempFields::new(examined, Some(examined.verdict), rule);
                    self.text.push(b',');
                    // Writing to memory does not fail, and no map of the fields has keys that are not text.
                    let _ = serde_json::to_writer(&mut self.text, &fields);
                }
                Listing::Paths if examined.verdict == Verdict::Reap => {
                    let path = examined.path.as_os_str().as_encoded_bytes();
                    self.text.extend_from_slice(path);
                    self.text.push(0);
                }
                Listing::Temps => self.rows.push(ListRow::of(examined)),
                Listing::Paths | Listing::Groups | Listing::Nothing => {}
            }
        }
        match scan.listing {
            Listing::Json => {
                let texts = groups_of(context, temps).into_iter().filter_map(|group| {
                    let fields = GroupFields::of(&root.path, dir, &group, temps.get(group.first)?);
                    Some(GroupText {
                        size: size_of_group(&group.sum),
                        text: serde_json::to_string(&fields).ok()?.into(),
                    })
                });
                self.group_texts = texts.collect();
            }
            Listing::Groups => self.add_groups(context, dir, temps),
            Listing::Paths | Listing::Temps | Listing::Nothing => {}
        }
    }

    /// Adds the largest groups, and only counts the others. All groups that were found in directories before this one
    /// come before a group of the same size here.
    fn add_groups(&mut self, context: &RootContext<'_>, dir: &Path, temps: &[Examined]) {
        let min_size = *context
            .min_size
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let root = context.scan.grouping.root(&context.root.path);
        for (index, group) in groups_of(context, temps).into_iter().enumerate() {
            let is_shown = index < MAX_GROUPS && size_of_group(&group.sum) > min_size;
            match temps.get(group.first).filter(|_| is_shown) {
                None => self.hidden.add(&group.sum),
                Some(first) => self.groups.push(ScanGroup {
                    key: SumKey {
                        root: Arc::clone(&root),
                        dir: dir.to_owned(),
                        shape: group.shape,
                        outcome: group.outcome,
                    },
                    sum: group.sum,
                    first: ListRow::of(first),
                }),
            }
        }
    }
}

impl ListRow {
    fn of(examined: &Examined) -> ListRow {
        ListRow {
            path: examined.path.clone(),
            verdict: examined.verdict,
            bytes: examined.evidence.observation.fingerprint.size,
            text: verdict_text(examined),
        }
    }
}

/// Returns the groups of the temps of a directory, the one with the most bytes first.
fn groups_of(context: &RootContext<'_>, temps: &[Examined]) -> Vec<DirGroup> {
    let names = &context.root.policy.names;
    let mut groups: Vec<DirGroup> = Vec::new();
    let mut known: HashMap<(OsString, Outcome), usize> = HashMap::new();
    for (index, examined) in temps.iter().enumerate() {
        let outcome = Outcome::Judged(examined.verdict);
        let shape = names.display_form(&examined.temp_info.name);
        let at = *known.entry((shape, outcome)).or_insert(groups.len());
        if at == groups.len() {
            groups.push(DirGroup {
                shape: OsString::new(),
                outcome,
                sum: TempSum::default(),
                first: index,
            });
        }
        if let Some(group) = groups.get_mut(at) {
            group.sum.add(Summand {
                size: examined.evidence.observation.size(),
                quiet: examined.temp_info.quiet,
                target: examined.target.clone(),
                program: examined.details.writer.clone(),
            });
        }
    }
    for ((shape, _), at) in known {
        if let Some(group) = groups.get_mut(at) {
            group.shape = shape;
        }
    }
    groups.sort_unstable_by(|a, b| {
        let order = size_of_group(&b.sum).cmp(&size_of_group(&a.sum));
        order.then_with(|| (&a.shape, a.outcome).cmp(&(&b.shape, b.outcome)))
    });
    groups
}
