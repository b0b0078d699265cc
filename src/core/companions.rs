//! Companions: files that belong to a temp and share its fate, such as the write-ahead log of a database.
//!
//! A temp and its companions form a *set*, of which the temp is the *main file*. `<t>-wal`, `<t>-shm` and `<t>-journal`
//! are companions of any temp `<t>`. The row of a writer may list more for its temps. The name of a companion always
//! begins with the whole name of its temp.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The suffixes of the companions that any temp may have. Each is appended to the whole name of the temp.
pub const SUFFIXES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The largest number of companions of a set. All files of a set are open at the same time.
pub const MAX_COMPANIONS: usize = 64;

/// Returns the name of the temp whose companion `name` is, if it is one that any temp may have.
#[must_use]
pub fn temp_of(name: &OsStr) -> Option<&OsStr> {
    // The three suffixes end in "l" or "m".
    if !matches!(name.as_bytes().last(), Some(b'l' | b'm')) {
        return None;
    }
    let temp = |ending: &&str| name.as_bytes().strip_suffix(ending.as_bytes());
    let temp = SUFFIXES.iter().find_map(temp)?;
    (!temp.is_empty()).then(|| OsStr::from_bytes(temp))
}

/// Returns the names that the companions of `temp` have that any temp may have.
pub fn of(temp: &OsStr) -> impl Iterator<Item = OsString> {
    SUFFIXES.iter().map(move |ending| {
        let mut name = temp.to_owned();
        name.push(ending);
        name
    })
}

/// Reports whether `name` can be a companion of `main`, by any row.
#[must_use]
pub fn may_belong(main: &OsStr, name: &OsStr) -> bool {
    let (main, name) = (main.as_bytes(), name.as_bytes());
    !main.is_empty() && main.len() < name.len() && name.starts_with(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the early return of [`temp_of`] is right for all suffixes.
    #[test]
    fn the_name_of_a_companion_contains_its_temp() {
        for (name, temp) in [
            ("a.tmp-wal", Some("a.tmp")),
            ("a.tmp-shm", Some("a.tmp")),
            ("a.tmp-journal", Some("a.tmp")),
            ("a.tmp-wal-shm", Some("a.tmp-wal")),
            ("a.tmp-wal2", None),
            ("a.tmp.wal", None),
            ("-wal", None),
            ("a.tmp", None),
        ] {
            assert_eq!(temp_of(name.as_ref()), temp.map(OsStr::new), "{name}");
        }
        let all: Vec<OsString> = of("a.tmp".as_ref()).collect();
        assert_eq!(all, ["a.tmp-wal", "a.tmp-shm", "a.tmp-journal"]);
        for name in &all {
            assert_eq!(temp_of(name), Some(OsStr::new("a.tmp")));
            assert!(may_belong("a.tmp".as_ref(), name));
        }
        assert!(!may_belong("a.tmp".as_ref(), "a.tmp".as_ref()));
        assert!(!may_belong("b.tmp".as_ref(), "a.tmp-wal".as_ref()));
        assert!(!may_belong("".as_ref(), "-wal".as_ref()));
    }
}
