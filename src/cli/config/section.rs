//! The sections of the file and their keys.

use std::collections::BTreeMap;

/// The line number of each key of a section.
pub(crate) type Lines = BTreeMap<&'static str, usize>;

/// A section of the file.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) keys: &'static [&'static str],
}

impl Section {
    /// Reports whether `key` is the name of this section: its title without brackets.
    pub(super) fn has_name(&self, key: &str) -> bool {
        self.title.trim_matches(['[', ']']) == key
    }
}

#[rustfmt::skip]
pub(super) const WATCH: Section = Section {
    title: "[[watch]]",
    keys: &[
        "path",
        "names", "writers", "exclude", "recursive", "grace", "fixed_name_grace", "closed", "open",
        "sole_copy", "action", "hot", "network", "broad", "broad_names",
    ],
};

pub(super) const DEFAULTS: Section = Section {
    title: "[defaults]",
    // All keys except `path`.
    keys: WATCH.keys.split_at(1).1,
};

pub(super) const QUARANTINE: Section = Section {
    title: "[quarantine]",
    keys: &["keep", "percent", "min_free"],
};

pub(super) const JOURNAL: Section = Section {
    title: "[journal]",
    keys: &["max_size"],
};

pub(super) const LOG: Section = Section {
    title: "[log]",
    keys: &["file", "max_size", "level", "leaks"],
};

pub(super) const METRICS: Section = Section {
    title: "[metrics]",
    keys: &["textfile", "every"],
};

/// All sections. `[defaults]` is first: if a key is valid in two sections, messages propose this one.
pub(crate) const SECTIONS: [Section; 6] = [DEFAULTS, WATCH, QUARANTINE, JOURNAL, LOG, METRICS];
