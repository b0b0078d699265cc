//! Copies of one file: which of them are superseded by newer ones.

use std::ffi::OsString;
use std::path::PathBuf;

use super::entry::Entry;
use crate::core::sort::sort_by;
use crate::core::time::Wall;

/// The reason for which a stored file is no longer needed as a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupersededBy {
    /// Its target counts.
    Target,
    /// The copies with these ids are newer, and they are kept.
    Copies(Vec<OsString>),
}

/// The largest number of kept copies with which each copy is compared. If there are more of them, each larger than the
/// next, a copy that could be dropped may be kept.
const MAX_COMPARED: usize = 1_000;

/// Returns the copies for which `enough` other copies are newer and no smaller, the newest first. Each has the ids of
/// `enough` such copies, which are kept because they have fewer than `enough` better ones themselves.
pub(super) fn superseded(mut copies: Vec<&Entry>, enough: usize) -> Vec<(&Entry, SupersededBy)> {
    let has_births = copies.iter().all(|entry| entry.born.is_some());
    match has_births {
        true => sort_by(&mut copies, |a, b| by_birth(b).cmp(&by_birth(a))),
        false => sort_by(&mut copies, |a, b| {
            (b.written, b.moved).cmp(&(a.written, a.moved))
        }),
    }
    let is_newer = |copy: &Entry, entry: &Entry| match has_births {
        true => {
            by_birth(copy) > by_birth(entry)
                && rule!("written-earlier-is-older", copy.written >= entry.written, without: true)
        }
        false => {
            copy.written > entry.written
                && rule!("moved-earlier-is-older", copy.moved > entry.moved, without: true)
        }
    };
    let mut superseded = Vec::new();
    // The copies that are kept. If a copy has `enough` better ones, at least `enough` of them are kept, because a copy
    // that is better than a better one is better too.
    let mut kept: Vec<&Entry> = Vec::new();
    for entry in copies {
        let is_better = |copy: &&&Entry| {
            let is_as_large = copy.bytes >= entry.bytes;
            // Reserved space counts as allocated, but not as data.
            let has_as_much_data = entry.group.is_none() || copy.data >= entry.data;
            let is_as_full = copy.allocated >= entry.allocated && has_as_much_data;
            // Another directory may have had the same path before.
            let is_from_same = copy.origin == entry.origin;
            is_newer(copy, entry)
                && rule!("copies-of-one-directory", is_from_same, without: true)
                && rule!("smaller-is-no-better", is_as_large, without: true)
                && rule!("less-written-is-no-better", is_as_full, without: true)
        };
        let better = kept
            .iter()
            .take(MAX_COMPARED)
            .filter(is_better)
            .take(enough);
        let better: Vec<OsString> = better.map(|copy| copy.id.clone()).collect();
        match better.len() == enough {
            true => superseded.push((entry, SupersededBy::Copies(better))),
            false => kept.push(entry),
        }
    }
    superseded
}

/// Returns the key that orders copies with known birth times. The newest copy has the largest key.
fn by_birth(entry: &Entry) -> (Option<Wall>, Wall, &PathBuf, &OsString) {
    (entry.born, entry.written, &entry.below, &entry.id)
}
