//! The keys of one row of the catalog, or of a user's `[[writer]]`.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// The treatment of a temp whose target does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uncommitted {
    /// The temp may be the only copy of its data, so the best copies of a group are kept.
    #[default]
    KeepBest,
    /// The writer never removes or truncates its target before it has replaced it. A temp whose target is missing, or
    /// is not in the name, is not needed.
    Discard,
}

/// A program with known names of temps. A rule turns it on by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterGrammar {
    /// The name by which a rule turns it on.
    pub name: String,
    /// The names of its temps, as patterns: `<t>` is the name of the target, `<pid>` a process id, and `<hex:12>` a
    /// part of 12 hex digits. docs/writers.md describes the notation.
    pub patterns: Vec<String>,
    /// The only names of its targets. Empty if it writes files of any name.
    pub targets: Vec<String>,
    /// The names of files that belong to a temp, as patterns that begin with `<temp>`. `<temp>-wal`, `<temp>-shm` and
    /// `<temp>-journal` belong to every temp and are not listed.
    pub companions: Vec<String>,
    /// The treatment of a temp whose target does not count.
    pub uncommitted: Uncommitted,
    /// The name of the writer's own directory. If the random part of a temp's name may be a word, `uncommitted = "discard"`
    /// holds only in directories with this name and below.
    pub discard_in: Option<String>,
    /// A file without which no temp is taken while a process has it open: absolute, or relative to the temp's
    /// directory.
    pub unless_open: Option<String>,
    /// A rule has it on unless the rule sets other names than `*.tmp`, or an empty list of writers.
    pub default: bool,
    /// Several targets have temps of the same name, so the name alone does not identify one.
    pub shared_name: bool,
    /// The writer may pause for long between the last write and the rename. Its temps have the grace of fixed names.
    pub slow: bool,
    /// The length in bytes from which the writer may truncate the target in the name of a temp. No target is read from
    /// such a long name.
    #[serde(deserialize_with = "length")]
    pub truncates_at: Option<u16>,
    /// The source of this information: project, file, version or issue, URL.
    pub source: String,
}

impl WriterGrammar {
    /// Reports whether the writer may have truncated the target in a name of this length, in bytes.
    #[must_use]
    pub fn may_truncate(&self, length: usize) -> bool {
        self.truncates_at
            .is_some_and(|least| length >= usize::from(least))
    }
}

/// Reads a length in bytes.
fn length<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u16>, D::Error> {
    struct Length;
    impl Visitor<'_> for Length {
        type Value = u16;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes from 1 to 255")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u16, E> {
            let length = u16::try_from(number).ok();
            let wrong = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
            length
                .filter(|length| (1..=255).contains(length))
                .ok_or_else(wrong)
        }
    }
    input.deserialize_any(Length).map(Some)
}
