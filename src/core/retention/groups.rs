//! The groups of a quarantine: copies that better ones supersede, and copies that are needed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;

use super::copies::SupersededBy;
use super::entry::Entry;
use crate::core::group::{self, Fate, GroupCopy, Place};

/// The decisions about all copies that belong to groups.
pub(super) struct Groups<'a> {
    /// The copies that better ones supersede.
    pub(super) superseded: Vec<(&'a Entry, SupersededBy)>,
    /// The ids of the copies that stay, even if space is lacking.
    pub(super) needed: HashSet<&'a OsString>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Groups<'a> {
        let mut members: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            if let Some(group) = &entry.group {
                let origin = rule!("group-has-one-directory", &entry.origin, without: &None);
                let key = (group, entry.uid, origin);
                members.entry(key).or_default().push(entry);
            }
        }
        let (mut superseded, mut needed) = (Vec::new(), HashSet::new());
        for members in members.into_values() {
            let copies: Vec<GroupCopy> = members.iter().map(|entry| group_copy(entry)).collect();
            for (entry, fate) in members.iter().zip(group::decide(&copies)) {
                match fate {
                    Fate::Superseded(better) => {
                        let ids = better.iter().map(|&at| members[at].id.clone());
                        superseded.push((*entry, SupersededBy::Copies(ids.collect())));
                    }
                    Fate::Needed => _ = needed.insert(&entry.id),
                    Fate::Spare => {}
                }
            }
        }
        Groups { superseded, needed }
    }
}

/// Returns the copy for the decision. The caller proves that a copy is unused before another one is dropped for it.
fn group_copy(entry: &Entry) -> GroupCopy {
    GroupCopy {
        name: entry.below.file_name().unwrap_or_default().to_owned(),
        born: entry.born,
        written: entry.written,
        bytes: entry.bytes,
        data: entry.data,
        place: Place::Quarantine,
        is_reliable: entry.is_reliable,
    }
}
