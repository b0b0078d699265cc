//! Two rules for one temp: which of them would decide is nobody's guess, so the file refuses it.

use std::path::{Path, PathBuf};

use orphand::root::Root;

use super::WatchRule;
use crate::cli::text::quoted;

/// How the directories of two rules lie to each other, where a temp would have both.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlap {
    /// They are the same.
    Same,
    /// The first rule covers the second's directory, which lies this way below its own.
    InFirst(PathBuf),
    /// The other way round.
    InSecond(PathBuf),
}

impl Overlap {
    /// Whether a temp could have both rules. A directory that is excluded has one.
    pub(super) fn of(first: &Root, second: &Root) -> Option<Overlap> {
        let covers = |one: &Root, other: &Root| one.below(&other.path).map(Path::to_owned);
        match (covers(first, second), covers(second, first)) {
            (Some(way), _) if way.as_os_str().is_empty() => Some(Overlap::Same),
            (Some(way), _) => Some(Overlap::InFirst(way)),
            (None, Some(way)) => Some(Overlap::InSecond(way)),
            (None, None) => None,
        }
    }

    /// What is said at the path of the second rule.
    pub(super) fn say(&self, first: &WatchRule, second: &WatchRule) -> String {
        let (one, two, (line, _)) = (&first.path, &second.path, first.place);
        match self {
            Overlap::Same if one == two => {
                format!("{two:?} has a rule already, in line {line}; make one of the two")
            }
            Overlap::Same => format!(
                "{two:?} leads to the same directory as {one:?}, which has a rule already, \
                 in line {line}; make one of the two"
            ),
            Overlap::InFirst(way) => format!(
                "{two:?} lies in {one:?}, whose rule in line {line} is recursive: \
                 a temp would have two rules; {}make one of the two",
                exclude(way, "in that one")
            ),
            Overlap::InSecond(way) => format!(
                "{two:?} is recursive and holds {one:?}, which has a rule in line {line}: \
                 a temp would have two rules; {}make one of the two",
                exclude(way, "in this one")
            ),
        }
    }
}

/// What to say in the rule of the folder above, as the file has it. No text excludes a name that is
/// not UTF-8 and nothing else.
fn exclude(way: &Path, here: &str) -> String {
    let exclude = |way| format!("say exclude = [{}] {here}, or ", quoted(&glob(way)));
    way.to_str().map(exclude).unwrap_or_default()
}

/// What excludes this folder and no other.
fn glob(way: &str) -> String {
    // `globset::escape` leaves a backslash as it is, and in a glob that takes the next character.
    let glob = globset::escape(way).replace('\\', r"\\");
    // Without a "/" it would be any part.
    match glob.contains('/') {
        true => glob,
        false => format!("{glob}/**"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn what_no_text_can_name_is_not_proposed() {
        let way = |bytes| exclude(Path::new(OsStr::from_bytes(bytes)), "here");
        assert_eq!(way(b"a\xff"), "");
        assert_eq!(way(b"a"), "say exclude = [\"a/**\"] here, or ");
    }
}
