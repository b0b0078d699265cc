//! The temps of one directory: finds them, judges them, and makes their part of the output.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use indicatif::ProgressBar;
use orphand::core::judge::Verdict;
use orphand::core::observation::Kind;
use orphand::core::sums::SumKey;
use orphand::engine::{DirContext, Engine, Examined, ScannedDir, judge_dir};
use orphand::evidence::siblings::{NameList, Siblings};
use orphand::fs::dir::Dir;
use orphand::fs::lookalikes::LookalikeCounter;
use orphand::fs::root::Root;
use orphand::fs::walk::{DirResult, ScanItem};
use orphand::reap::quarantine::Quarantine;
use orphand::sys::error;
use orphand::sys::mutex::guard;

use super::document::GroupFields;
use super::group::{GroupSize, GroupText, ScanGroup, groups_of, size_of_group};
use super::listing::Listing;
use super::narrower::Narrower;
use super::row::ListRow;
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
    pub(super) lookalikes: &'a LookalikeCounter<'a>,
    pub(super) bar: &'a ProgressBar,
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
            ScanItem::Other(dir, name) => {
                // The rule may match a file that it excludes.
                if context.root.policy.exclude.is_empty() {
                    self.names.last_is_unmatched();
                }
                context.lookalikes.see(dir, name);
            }
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
        let root = context.engine.shapes.root_in(context.root, dir);
        let dir_context = DirContext {
            root: &root,
            id: None,
            below: dir.below(),
        };
        let siblings = Siblings::of_list(&all_names, &root.policy.names);
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
                let mut text = Vec::new();
                let texts = groups_of(&root.policy.names, temps)
                    .into_iter()
                    .filter_map(|group| {
                        let fields =
                            GroupFields::of(&root.path, dir, &group, temps.get(group.first)?);
                        text.clear();
                        serde_json::to_writer(&mut text, &fields).ok()?;
                        Some(GroupText {
                            size: size_of_group(&group.sum),
                            text: text.as_slice().into(),
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
        let min_size = *guard(context.min_size);
        let root = context.scan.grouping.root(&context.root.path);
        for (index, group) in groups_of(&context.root.policy.names, temps)
            .into_iter()
            .enumerate()
        {
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
