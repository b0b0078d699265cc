//! Reserved names: files that are not leftovers, although the patterns of a rule match their names.
//!
//! [`LIST`] contains them. A new name is one row, and needs no other change. In a pattern `*` matches any text, also an
//! empty one, `<uuid>` matches 8-4-4-4-12 hex digits, `<n>` decimal digits and `<x>` one hex digit. All other
//! characters are literal, in upper or lower case.

use std::ffi::OsString;
use std::fmt;

use super::companions::MAX_COMPANIONS;
use super::suffix::strip_uuid;

/// The patterns of a rule that include a reserved name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludedBy {
    /// Only a pattern that is the whole name, without any wildcard.
    WholeName,
    /// Also a pattern whose literal end matches the row: `*.part`.
    Ending,
}

/// One row of [`LIST`].
#[derive(Debug, PartialEq, Eq)]
pub struct ReservedName {
    /// The pattern of the names.
    pub pattern: &'static str,
    /// The kind of file, for messages to the user.
    pub kind: &'static str,
    /// The patterns of a rule that include these names.
    pub included_by: IncludedBy,
}

const fn row(pattern: &'static str, kind: &'static str, included_by: IncludedBy) -> ReservedName {
    ReservedName {
        pattern,
        kind,
        included_by,
    }
}

use IncludedBy::{Ending, WholeName};

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

/// The reason for which a name is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It matches a row of [`LIST`].
    Listed(&'static ReservedName),
    /// It matches this pattern, which ends in `*`, with nothing for that `*`.
    EmptyStar(String),
    /// It may be the target of this other name, which the rule matches.
    TargetOf(OsString),
    /// During this watch a temp was renamed to it, or it was found to be the target of another temp.
    WasTarget,
    /// It is a companion of this temp, and is only taken together with it.
    CompanionOf(OsString),
    /// It has this number of companions, which are too many.
    LargeSet(usize),
    /// The rule excludes this companion.
    ExcludedCompanion(OsString),
    /// The names of the set are too long to be renamed and put back.
    LongNames,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::Listed(ReservedName {
                pattern,
                kind,
                included_by,
            }) => {
                let by = match included_by {
                    IncludedBy::WholeName => {
                        "only a pattern that is the whole name includes it".into()
                    }
                    IncludedBy::Ending => {
                        format!("only a pattern with the same ending as {pattern} includes it")
                    }
                };
                write!(f, "{pattern} is reserved ({kind}): {by}")
            }
            Reserved::EmptyStar(glob) => write!(
                f,
                "it matches {glob:?} with nothing for the last *, so it is the file itself and not one of its temps"
            ),
            Reserved::TargetOf(temp) => {
                write!(f, "it is the target of {temp:?}, which is also a temp")
            }
            Reserved::WasTarget => f.write_str("it was the target of a temp during this watch"),
            Reserved::CompanionOf(temp) => write!(
                f,
                "it belongs to {temp:?} in the same directory, and is only taken together with it"
            ),
            Reserved::LargeSet(count) => write!(
                f,
                "it has {count} companions; at most {MAX_COMPANIONS} are taken together with a temp"
            ),
            Reserved::ExcludedCompanion(companion) => {
                write!(f, "its companion {companion:?} is excluded by the rule")
            }
            Reserved::LongNames => {
                f.write_str("the name of a companion is too long for the rename before a removal")
            }
        }
    }
}

/// Returns the rows of the list that match `name`.
pub fn rows(name: &[u8]) -> impl Iterator<Item = &'static ReservedName> {
    let mut rest = rows_by_outer_bytes(name);
    let possible = std::iter::from_fn(move || {
        let row = LIST.get(rest.trailing_zeros() as usize)?;
        rest &= rest - 1;
        Some(row)
    });
    possible.filter(|row| is_match(row.pattern.as_bytes(), name))
}

/// Rows of the list: bit `n` is that of row `n`.
type RowSet = u64;

/// Returns the rows that the first and the last byte of `name` allow. These exclude nearly all rows.
fn rows_by_outer_bytes(name: &[u8]) -> RowSet {
    let rows = |sets: &[RowSet; 256], byte: Option<&u8>| {
        // An empty name has no byte, and no pattern contains a NUL.
        let byte = byte.copied().unwrap_or_default();
        sets.get(usize::from(byte)).copied().unwrap_or_default()
    };
    rows(&BY_FIRST, name.first()) & rows(&BY_LAST, name.last())
}

/// For each byte, the rows of which the names may begin with it.
static BY_FIRST: [RowSet; 256] = sets_of_bytes(false);

/// For each byte, the rows of which the names may end with it.
static BY_LAST: [RowSet; 256] = sets_of_bytes(true);

const fn sets_of_bytes(of_end: bool) -> [RowSet; 256] {
    assert!(LIST.len() < RowSet::BITS as usize);
    let mut sets = [0; 256];
    let mut at = 0;
    while at < LIST.len() {
        let pattern = LIST[at].pattern.as_bytes();
        let wanted = match of_end {
            true => pattern[pattern.len() - 1],
            false => pattern[0],
        };
        let mut byte = 0;
        while byte < sets.len() {
            let found = byte as u8;
            let is_possible = match wanted {
                // Any text, also an empty one.
                b'*' => true,
                // A uuid, a number or a hex digit.
                b'<' | b'>' => found.is_ascii_hexdigit(),
                wanted => found.eq_ignore_ascii_case(&wanted),
            };
            if is_possible {
                sets[byte] |= 1 << at;
            }
            byte += 1;
        }
        at += 1;
    }
    sets
}

impl ReservedName {
    /// Reports whether the row matches `ending`, the literal end of a pattern. The pattern was then written for such
    /// names.
    #[must_use]
    pub fn has_ending(&self, ending: &[u8]) -> bool {
        is_match(self.pattern.as_bytes(), ending)
    }
}

fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.first() {
        None => name.is_empty(),
        Some(b'*') => is_match_after_any(pattern.get(1..).unwrap_or_default(), name),
        Some(b'<') => is_match_with_part(pattern, name),
        Some(wanted) => name.split_first().is_some_and(|(found, name)| {
            wanted.eq_ignore_ascii_case(found)
                && is_match(pattern.get(1..).unwrap_or_default(), name)
        }),
    }
}

/// Reports whether an end of `name` matches the rest of a pattern after `*`.
fn is_match_after_any(rest: &[u8], name: &[u8]) -> bool {
    let is_literal = !rest.iter().any(|byte| matches!(byte, b'*' | b'<'));
    if is_literal {
        let at = name.len().checked_sub(rest.len());
        let end = at.and_then(|at| name.get(at..));
        return end.is_some_and(|end| {
            let first = end.first().zip(rest.first());
            first.is_none_or(|(end, rest)| end.eq_ignore_ascii_case(rest))
                && end.eq_ignore_ascii_case(rest)
        });
    }
    let is_end = |at: usize| name.get(at..).is_some_and(|end| is_match(rest, end));
    // If the next byte is punctuation, it has no case, and only its positions in the name are tried.
    let next = rest
        .first()
        .copied()
        .filter(|byte| byte.is_ascii_punctuation());
    match next.filter(|byte| !matches!(byte, b'*' | b'<')) {
        Some(next) => memchr::memchr_iter(next, name).any(is_end),
        None => (0..=name.len()).any(is_end),
    }
}

/// Does the same as [`is_match`] for a pattern that begins with `<`.
fn is_match_with_part(pattern: &[u8], name: &[u8]) -> bool {
    if let Some(rest) = pattern.strip_prefix(b"<uuid>") {
        let Some((uuid, end)) = name.split_at_checked(36) else {
            return false;
        };
        return strip_uuid(uuid).is_some_and(<[u8]>::is_empty) && is_match(rest, end);
    }
    if let Some(rest) = pattern.strip_prefix(b"<x>") {
        return match name.split_first() {
            Some((digit, end)) => {
                rule!("super-journal-is-reserved", digit.is_ascii_hexdigit()) && is_match(rest, end)
            }
            None => false,
        };
    }
    let Some(rest) = pattern.strip_prefix(b"<n>") else {
        return false;
    };
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = name.get(digits..).unwrap_or_default();
    digits > 0 && is_match(rest, end)
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

    #[test]
    fn every_row_matches_its_names_and_no_similar_ones() {
        for row in LIST {
            let name = row.pattern.replace('*', "x y");
            let name = filled(&name);
            for name in [name.clone(), name.to_ascii_uppercase()] {
                assert!(patterns(&name).contains(&row.pattern), "{name}");
            }
            let empty = row.pattern.replace('*', "");
            let empty = filled(&empty);
            assert!(patterns(&empty).contains(&row.pattern), "{empty}");
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

    /// sqlite3.c creates its name with `-mj%06X9%02X`.
    #[test]
    fn a_super_journal_of_sqlite_is_reserved() {
        assert_eq!(
            patterns("a.db-mj0123AB9CD"),
            ["*-mj<x><x><x><x><x><x>9<x><x>"]
        );
    }
}
