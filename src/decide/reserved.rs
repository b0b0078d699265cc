//! Reserved names: files that are no leftovers, although a rule's patterns fit their names.
//!
//! [`LIST`] is data. A new row is a line in it, and nothing else changes. In a pattern `*` stands for
//! any text, also for none, `<uuid>` for 8-4-4-4-12 hex digits, `<n>` for decimal digits and `<x>`
//! for one hex digit; the rest stands for itself, in upper or lower case.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::temp_name::strip_uuid;

/// The patterns of a rule that take a reserved name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBy {
    /// Only by a pattern that is the whole name, without any wildcard.
    WholeName,
    /// Also by a pattern whose literal end fits the row: `*.part`.
    Ending,
}

/// One row of [`LIST`].
#[derive(Debug, PartialEq, Eq)]
pub struct ReservedName {
    /// The names.
    pub pattern: &'static str,
    /// Kind of file, for people.
    pub kind: &'static str,
    /// The patterns that take it.
    pub taken_by: TakenBy,
}

const fn row(pattern: &'static str, kind: &'static str, taken_by: TakenBy) -> ReservedName {
    ReservedName {
        pattern,
        kind,
        taken_by,
    }
}

use TakenBy::{Ending, WholeName};

/// The reserved names.
#[rustfmt::skip] // one row a line
pub const LIST: &[ReservedName] = &[
    // Locks, databases and transfers of the system.
    row("*.lock",                  "a lock file",                              WholeName),
    row("*.pid",                   "a pid file",                               WholeName),
    row("*-journal",               "the rollback journal of a database",       WholeName),
    row("*-mj<x><x><x><x><x><x>9<x><x>", "the super-journal of a database",  WholeName),
    row("*-wal",                   "the write-ahead log of a database",        WholeName),
    row("*-shm",                   "the shared memory of a database",          WholeName),
    row("*.sqlite-*",              "a part of an SQLite database",             WholeName),
    row("*.ldb",                   "a table of LevelDB, or a lock of Access",  WholeName),
    row("pgsql_tmp*",              "a temporary table of PostgreSQL",          WholeName),
    row(".nfs*",                   "a removed file that an NFS client has open", WholeName),
    row(".fuse_hidden*",           "a removed file that a FUSE client has open", WholeName),
    row("*.swp",                   "a swap file of Vim",                       WholeName),
    row("*.crswap",                "a swap file of a browser's file access",   WholeName),
    row(".~lock.*#",               "a lock of LibreOffice",                    WholeName),
    row("~$*",                     "a lock of Microsoft Office",               WholeName),
    row("CFNetworkDownload_*.tmp", "a download of macOS",                      WholeName),
    // Backups.
    row("*~",                      "a backup",                                 Ending),
    row("*.bak",                   "a backup",                                 Ending),
    row("*.orig",                  "a backup",                                 Ending),
    row("*.backup-<uuid>",         "a backup",                                 Ending),
    row("*___jb_old___",           "a backup of a JetBrains IDE",              Ending),
    // Transfers that can be resumed.
    row("*.part",                  "a transfer that can be resumed",           Ending),
    row("*.partial",               "a transfer that can be resumed",           Ending),
    row("*.filepart",              "a transfer that can be resumed",           Ending),
    row("*.incomplete",            "a transfer that can be resumed",           Ending),
    row("*-partial",               "a transfer that can be resumed",           Ending),
    row("*-partial-<n>",           "a transfer that can be resumed",           Ending),
    row("*.crdownload",            "a download of Chrome",                     Ending),
    row("*.opdownload",            "a download of Opera",                      Ending),
    row("*.download",              "a download of Safari",                     Ending),
    row("*.aria2",                 "the state of a download by aria2",         Ending),
    row("*.ytdl",                  "the state of a download by yt-dlp",        Ending),
    row("*.!qB",                   "a download of qBittorrent",                Ending),
    row("*.bc!",                   "a download of BitComet",                   Ending),
    // Packages that wait for an answer.
    row("*.dpkg-new",              "a file of a package that is being installed", Ending),
    row("*.dpkg-dist",             "a configuration file that a package brought", Ending),
];

/// Suffixes of companions: each follows the whole name of the temp.
pub const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The cause for which a name is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It fits a row of [`LIST`].
    Listed(&'static ReservedName),
    /// It fits this pattern, which ends in `*`, with nothing for that `*`.
    EmptyStar(String),
    /// Another name that the rule takes may be meant for it: this one.
    TargetOf(OsString),
    /// This watch saw a temp renamed onto it, or saw it to be the target of another temp.
    WasTarget,
    /// This companion lies beside it.
    HasCompanion(OsString),
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::Listed(ReservedName {
                pattern,
                kind,
                taken_by,
            }) => {
                let by = match taken_by {
                    TakenBy::WholeName => "only a pattern that is its whole name takes it".into(),
                    TakenBy::Ending => format!("only a pattern that ends like {pattern} takes it"),
                };
                write!(f, "{pattern} is reserved ({kind}): {by}")
            }
            Reserved::EmptyStar(glob) => write!(
                f,
                "it fits {glob:?} with nothing for the last *, so it is the file itself and no temp of it"
            ),
            Reserved::TargetOf(temp) => {
                write!(f, "it is the target of {temp:?}, which the rule takes")
            }
            Reserved::WasTarget => f.write_str("it was the target of a temp before"),
            Reserved::HasCompanion(companion) => write!(
                f,
                "{companion:?} lies beside it, and may be needed together with it"
            ),
        }
    }
}

/// Returns the rows of the list that `name` fits.
pub fn rows(name: &[u8]) -> impl Iterator<Item = &'static ReservedName> {
    LIST.iter().filter(move |row| {
        let pattern = row.pattern.as_bytes();
        may_fit(pattern, name) && fits(pattern, name)
    })
}

/// Returns false if the first or the last byte of `name` shows that it does not fit: nearly all names end here.
fn may_fit(pattern: &[u8], name: &[u8]) -> bool {
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return true;
    };
    let begins = match pattern.first() {
        Some(b'*' | b'<') | None => true,
        Some(wanted) => wanted.eq_ignore_ascii_case(first),
    };
    begins
        && match pattern.last() {
            Some(b'*') | None => true,
            // A uuid or a number.
            Some(b'>') => last.is_ascii_hexdigit(),
            Some(wanted) => wanted.eq_ignore_ascii_case(last),
        }
}

impl ReservedName {
    /// Returns true if `ending`, the literal end of a pattern, fits the row: the pattern then means such names.
    #[must_use]
    pub fn has_ending(&self, ending: &[u8]) -> bool {
        fits(self.pattern.as_bytes(), ending)
    }
}

/// Returns the temp whose companion `name` would be.
#[must_use]
pub fn companion_of(name: &OsStr) -> Option<&OsStr> {
    // The last letters of the three.
    if !matches!(name.as_bytes().last(), Some(b'l' | b'm')) {
        return None;
    }
    let temp = |ending: &&str| name.as_bytes().strip_suffix(ending.as_bytes());
    let temp = COMPANIONS.iter().find_map(temp)?;
    (!temp.is_empty()).then(|| OsStr::from_bytes(temp))
}

/// Returns the names that companions of `temp` would have.
pub fn companions(temp: &OsStr) -> impl Iterator<Item = OsString> {
    COMPANIONS.iter().map(move |ending| {
        let mut name = temp.to_owned();
        name.push(ending);
        name
    })
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    if let Some(rest) = pattern.strip_prefix(b"*") {
        let is_literal = !rest.iter().any(|byte| matches!(byte, b'*' | b'<'));
        if is_literal {
            let at = name.len().checked_sub(rest.len());
            let end = at.and_then(|at| name.get(at..));
            return end.is_some_and(|end| end.eq_ignore_ascii_case(rest));
        }
        // Where the next byte has no case, only its places count.
        let next = rest
            .first()
            .copied()
            .filter(|byte| byte.is_ascii_punctuation());
        let next = next.filter(|byte| !matches!(byte, b'*' | b'<'));
        let is_place = |at: &usize| next.is_none() || name.get(*at).copied() == next;
        let rests = (0..=name.len()).filter(is_place);
        let rests = rests.filter_map(|at| name.get(at..));
        return rests.into_iter().any(|end| fits(rest, end));
    }
    if let Some(rest) = pattern.strip_prefix(b"<uuid>") {
        let Some((uuid, end)) = name.split_at_checked(36) else {
            return false;
        };
        return strip_uuid(uuid).is_some_and(<[u8]>::is_empty) && fits(rest, end);
    }
    if let Some(rest) = pattern.strip_prefix(b"<x>") {
        return match name.split_first() {
            Some((digit, end)) => {
                rule!("super-journal-is-reserved", digit.is_ascii_hexdigit()) && fits(rest, end)
            }
            None => false,
        };
    }
    if let Some(rest) = pattern.strip_prefix(b"<n>") {
        let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = name.get(digits..).unwrap_or_default();
        return digits > 0 && fits(rest, end);
    }
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((wanted, pattern)), Some((found, name))) => {
            wanted.eq_ignore_ascii_case(found) && fits(pattern, name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b";

    fn filled(pattern: &str) -> String {
        let name = pattern.replace("<uuid>", UUID).replace("<n>", "12");
        name.replace("<x>", "c")
    }

    fn patterns(name: &str) -> Vec<&'static str> {
        rows(name.as_bytes()).map(|row| row.pattern).collect()
    }

    /// The short cut of [`companion_of`] holds for all of them.
    #[test]
    fn every_companion_is_one() {
        for companion in companions(OsStr::new("x.tmp")) {
            assert_eq!(companion_of(&companion), Some(OsStr::new("x.tmp")));
        }
        assert_eq!(companion_of(OsStr::new("-wal")), None);
    }

    #[test]
    fn every_row_fits_what_it_is_for_and_nothing_like_it() {
        for row in LIST {
            let name = row.pattern.replace('*', "x y");
            let name = filled(&name);
            for name in [name.clone(), name.to_ascii_uppercase()] {
                assert!(patterns(&name).contains(&row.pattern), "{name}");
            }
            let nothing = row.pattern.replace('*', "");
            let nothing = filled(&nothing);
            assert!(patterns(&nothing).contains(&row.pattern), "{nothing}");
            let open_end = row.pattern.ends_with('*');
            assert_eq!(
                patterns(&format!("{name}.x")).contains(&row.pattern),
                open_end
            );
        }
        for name in [
            "a.tmp",
            "lock",
            "a.locked",
            "journal",
            "a.sqlite",
            "pgsql",
            "a.backup-",
            "a.backup-1b4e28ba-2fa1-4d3b",
            "a-partial-",
            "a-partial-x",
            "x~$a",
            "a.db-mj12345690",
            "a.db-mj1234567890",
            "a.db-mj123456x90",
            "sessions.json.1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b.tmp",
            "",
        ] {
            assert_eq!(patterns(name), [""; 0], "{name}");
        }
    }

    /// sqlite3.c names it by `-mj%06X9%02X`.
    #[test]
    fn a_super_journal_of_sqlite() {
        assert_eq!(
            patterns("a.db-mj0123AB9CD"),
            ["*-mj<x><x><x><x><x><x>9<x><x>"]
        );
    }

    #[test]
    fn a_companion_names_its_temp() {
        for (name, temp) in [
            ("a.tmp-wal", Some("a.tmp")),
            ("a.tmp-shm", Some("a.tmp")),
            ("a.tmp-journal", Some("a.tmp")),
            ("-wal", None),
            ("a.tmp", None),
        ] {
            assert_eq!(companion_of(name.as_ref()), temp.map(OsStr::new), "{name}");
        }
        let all: Vec<OsString> = companions("a.tmp".as_ref()).collect();
        assert_eq!(all, ["a.tmp-wal", "a.tmp-shm", "a.tmp-journal"]);
        for name in &all {
            assert_eq!(companion_of(name), Some(OsStr::new("a.tmp")));
        }
    }
}
