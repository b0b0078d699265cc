//! Groups of similar temps in one directory.

use std::collections::BTreeMap;
use std::ffi::OsString;

use orphand::core::judge::Verdict;
use orphand::core::sort::sort_by;
use orphand::core::sums::{Outcome, SumKey, Summand, TempSum};
use orphand::core::temp_name::Names;
use orphand::engine::Examined;

use super::row::ListRow;

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

pub(super) fn size_of_group(sum: &TempSum) -> GroupSize {
    (sum.size.bytes, sum.temps)
}

/// A group among the temps of a directory.
pub(super) struct DirGroup {
    pub(super) shape: OsString,
    pub(super) outcome: Outcome,
    pub(super) sum: TempSum,
    /// The index of one of them.
    pub(super) first: usize,
}

/// A group in the JSON document.
pub(super) struct GroupText {
    pub(super) size: GroupSize,
    /// The JSON object.
    pub(super) text: Box<[u8]>,
}

/// Returns the groups of the temps of a directory, the one with the most bytes first.
pub(super) fn groups_of(names: &Names, temps: &[Examined]) -> Vec<DirGroup> {
    let mut groups: Vec<DirGroup> = Vec::new();
    let mut known: BTreeMap<(OsString, Outcome), usize> = BTreeMap::new();
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
                target: examined.target.as_deref(),
                program: examined.details.writer.as_deref(),
                superseded: examined.verdict == Verdict::Reap && examined.evidence.superseded,
                allowed: examined.allowed.is_some(),
            });
        }
    }
    for ((shape, _), at) in known {
        if let Some(group) = groups.get_mut(at) {
            group.shape = shape;
        }
    }
    sort_by(&mut groups, |a, b| {
        let order = size_of_group(&b.sum).cmp(&size_of_group(&a.sum));
        order.then_with(|| (&a.shape, a.outcome).cmp(&(&b.shape, b.outcome)))
    });
    groups
}
