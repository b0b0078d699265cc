//! Judges the place where the files of a root are: its space, quarantine, dates and names, and whether other machines
//! reach it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::reap::quarantine::{FOLDER, StoredSum};
use orphand::store::regular_file::read_regular;
use orphand::sys::mountinfo;

use super::check::Check;
use super::system::CLOCK_FIX;
use crate::cli::output::shell::{self, Suggestion, purge_command};
use crate::cli::output::text;

/// The space of a file system, by statvfs(3).
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskSpace {
    /// The size, in bytes.
    pub(super) total: u64,
    /// The free bytes, including those reserved for root.
    pub(super) free: u64,
    /// The free bytes for this user.
    pub(super) available: u64,
    /// The maximum number of files; 0 if there is no limit.
    pub(super) files: u64,
    /// The number of files that can still be created.
    pub(super) files_free: u64,
}

/// The usage, in percent, from which doctor warns.
const NEARLY_FULL: u64 = 95;

/// The largest accepted difference of two clocks. orphand takes a larger one for a clock jump.
const MAX_DIFFERENCE: Duration = Duration::from_secs(2);

/// A directory that other machines reach, and the file that lists it.
type SharedDir = (PathBuf, &'static str);

/// The most bytes that are read of such a file.
const LARGEST: u64 = 16_000_000;

/// Judges the free space and the free inodes.
pub(super) fn space(root: &Path, space: DiskSpace, quarantined_size: u64) -> [Check; 2] {
    let used = space.total.saturating_sub(space.free);
    let disk = percent(used, used.saturating_add(space.available));
    let inodes = percent(space.files.saturating_sub(space.files_free), space.files);
    let judge = |name, percent, what: String, consequence: &str| match percent {
        0..NEARLY_FULL => Check::ok(name, what),
        _ => Check::warning(
            name,
            format!("{what}: {consequence}"),
            space_fix(root, quarantined_size),
        ),
    };
    [
        judge(
            "disk",
            disk,
            format!("{disk} % full, {} left", text::size(space.available)),
            "orphand can still delete, but a temp that may be the only copy does not fit into a quarantine and is \
             kept, and the journal cannot be written",
        ),
        match space.files {
            0 => Check::ok("inodes", "the number of files has no limit here"),
            _ => judge(
                "inodes",
                inodes,
                format!(
                    "{inodes} % of the maximum number of files, {} left",
                    text::count(space.files_free)
                ),
                "soon no new file can be created although there is free space; programs report this as a full disk",
            ),
        },
    ]
}

fn space_fix(root: &Path, quarantined_size: u64) -> String {
    let suggest = |command| Suggestion::new(command).configured();
    let scan = format!("see what would be removed: {}", suggest("scan").arg(root));
    match quarantined_size {
        0 => scan,
        bytes => format!(
            "{scan}\n{} are in its quarantine. To list them: {}\nTo delete them: {}",
            text::size(bytes),
            suggest("quarantine list").arg(root),
            purge_command([root])
        ),
    }
}

/// Returns a percentage, rounded up as by df(1), so that 100 does not always mean that nothing is left.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)));
    u64::try_from(percent).unwrap_or(100).min(100)
}

/// Judges the quarantine. `contents` is `None` if no quarantine is possible.
pub(super) fn quarantine(root: &Path, contents: Option<StoredSum>) -> Check {
    match contents {
        Some(StoredSum { files: 0, .. }) => Check::ok("quarantine", "empty"),
        Some(StoredSum { files, size }) => {
            let files = text::counted(files, "file", "files");
            let bytes = text::size(size.disk_bytes);
            let list = Suggestion::new("quarantine list").configured().arg(root);
            Check::ok("quarantine", format!("{files}, {bytes}: {list}"))
        }
        None => {
            let folder = root.join(FOLDER);
            Check::warning(
                "quarantine",
                format!(
                    "{} is not a directory of yours with mode 0700: a temp that may be the only copy is kept \
                     (no-quarantine)",
                    text::escaped(&folder)
                ),
                format!(
                    "check its contents, then move it away: ls -la {}",
                    shell::word(&folder)
                ),
            )
        }
    }
}

/// Judges the clock that dates the files. `difference` is the difference between the date of a new file and the clock
/// of this machine.
pub(super) fn dates(difference: Duration) -> Check {
    if difference <= MAX_DIFFERENCE {
        return Check::ok("dates", "files get the dates of this machine's clock");
    }
    Check::warning(
        "dates",
        format!(
            "the date of a new file is {} off this machine's clock, so the age of a file is not known when orphand \
             starts: the file waits a whole grace, or counts as older by that difference",
            text::span(difference)
        ),
        format!("set the clocks of both machines: {CLOCK_FIX}"),
    )
}

/// Judges `folds`: whether the directory ignores case, or `None` if that is unknown.
pub(super) fn names(folds: Option<bool>) -> Option<Check> {
    let what = match folds? {
        false => "names are case-sensitive, as in rules",
        true => {
            "this directory ignores upper and lower case in names, but rules do not: *.tmp does not match X.TMP (if a \
             program writes such names: --name '*.TMP'). Targets are found with the directory's own rule"
        }
    };
    Some(Check::ok("names", what))
}

/// Returns the directories that this machine shares, by the files that can be read.
pub(super) fn shared_dirs() -> Vec<SharedDir> {
    type Parser = fn(&str) -> Vec<PathBuf>;
    let tables: [(&'static str, Parser); 4] = [
        ("/proc/fs/nfs/exports", nfs_exports),
        ("/etc/exports", nfs_exports),
        ("/etc/samba/smb.conf", samba_shares),
        ("/usr/local/etc/smb.conf", samba_shares),
    ];
    let read = |(table, parse): (&'static str, Parser)| {
        let bytes = read_regular(Path::new(table), LARGEST).unwrap_or_default();
        let dirs = parse(&String::from_utf8(bytes).unwrap_or_default());
        dirs.into_iter().map(move |dir| (dir, table))
    };
    tables.into_iter().flat_map(read).collect()
}

/// Returns the directories of exports(5): the first word of each line, with spaces as `\040` or in quotes.
fn nfs_exports(text: &str) -> Vec<PathBuf> {
    let text = text.replace("\\\n", " ");
    let first = |line: &str| {
        let line = line.trim_start();
        let path = match line.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => line.split_ascii_whitespace().next()?,
        };
        let is_path = path.starts_with('/');
        is_path.then(|| OsString::from_vec(mountinfo::unescape(path.as_bytes())).into())
    };
    text.lines().filter_map(first).collect()
}

/// Returns the directories of smb.conf(5), except those that depend on the client.
fn samba_shares(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        let value = value.trim().trim_matches('"');
        let is_path = matches!(key.as_str(), "path" | "directory");
        (is_path && value.starts_with('/') && !value.contains('%')).then(|| value.into())
    };
    text.lines().filter_map(path).collect()
}

/// Judges whether other machines reach `root`, in whose path all symlinks are resolved.
pub(super) fn sharing(root: &Path, shared: &[SharedDir]) -> Check {
    let reaches = |path: &Path| root.starts_with(path) || path.starts_with(root);
    let Some((path, table)) = shared.iter().find(|(path, _)| reaches(path)) else {
        return Check::ok("sharing", "not known to be shared with other machines");
    };
    Check::warning(
        "sharing",
        format!(
            "{} is shared with other machines ({table}): the proof does not see a program on another machine that \
             has a file open without this kernel's knowledge",
            text::escaped(path)
        ),
        "let no other machine write temps there; or, to lose nothing: action = \"quarantine\" in the rule",
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn from_95_percent_on_is_a_warning() {
        let root = Path::new("/srv/a b");
        // total, free, available, files, files left; disk; inodes
        for (space, disk, inodes) in [
            ([1000, 500, 500, 100, 50], "50 % full, 500 B", "50 %"),
            ([1000, 60, 60, 100, 6], "94 % full", "94 %"),
            ([1000, 50, 50, 100, 5], "!95 % full", "!95 %"),
            ([1000, 49, 49, 100, 0], "!96 % full", "!100 %"),
            // 5 % are reserved for root, so the disk is full for this user.
            ([1000, 50, 0, 0, 0], "!100 % full, 0 B", "no limit"),
            ([1 << 40, 1, 1, 0, 0], "!100 % full, 1 B", "no limit"),
            ([0, 0, 0, 0, 0], "0 % full", "no limit"),
        ] {
            let [total, free, available, files, files_free] = space;
            let space = DiskSpace {
                total,
                free,
                available,
                files,
                files_free,
            };
            let checks = super::space(root, space, 2_000);
            for (check, want) in checks.iter().zip([disk, inodes]) {
                let (state, want) = match want.strip_prefix('!') {
                    Some(want) => (CheckState::Warning, want),
                    None => (CheckState::Ok, want),
                };
                assert_eq!(check.state, state, "{space:?}: {check:?}");
                assert!(check.what.contains(want), "{space:?}: {check:?}");
                if let Some(fix) = &check.fix {
                    assert!(fix.contains("orphand scan '/srv/a b'"), "{fix}");
                    assert!(fix.contains("2.0 kB are in its quarantine"), "{fix}");
                }
            }
        }
        let empty = super::space(
            root,
            DiskSpace {
                total: 1,
                free: 0,
                available: 0,
                files: 0,
                files_free: 0,
            },
            0,
        );
        let fix = empty[0].fix.as_deref().unwrap();
        assert!(!fix.contains("purge"), "{fix}");
    }

    #[test]
    fn a_quarantine_that_is_impossible_is_a_warning() {
        for (contents, state, words) in [
            (Some((0, 0)), CheckState::Ok, "empty"),
            (Some((3, 2_000_000)), CheckState::Ok, "3 files, 2.0 MB"),
            (None, CheckState::Warning, "no-quarantine"),
        ] {
            let contents = contents.map(|(files, disk_bytes)| StoredSum {
                files,
                size: orphand::core::observation::FileSize {
                    disk_bytes,
                    ..Default::default()
                },
            });
            let check = quarantine(Path::new("/r"), contents);
            assert_eq!(check.state, state);
            assert!(check.what.contains(words), "{check:?}");
        }
    }

    #[test]
    fn dates_that_are_off_are_a_warning() {
        for (ms, state) in [
            (0, CheckState::Ok),
            (2_000, CheckState::Ok),
            (2_001, CheckState::Warning),
        ] {
            let check = dates(Duration::from_millis(ms));
            assert_eq!(check.state, state, "{ms}");
        }
        let off = dates(Duration::from_secs(90));
        assert!(off.what.contains("1 min 30 s off"), "{off:?}");
    }
    use orphand::core::temp_name::Names;

    #[test]
    fn rules_distinguish_case_as_the_check_states() {
        let default = Names::default();
        assert!(default.matches(b"x.tmp") && !default.matches(b"X.TMP"));
        let named = Names::new(&["*.TMP"], &[] as &[&str]).unwrap();
        assert!(named.matches(b"X.TMP") && !named.matches(b"x.tmp"));
        assert_eq!(names(None), None);
        assert!(names(Some(true)).is_some_and(|check| check.what.contains("X.TMP")));
        assert!(names(Some(false)).is_some_and(|check| !check.what.contains("X.TMP")));
    }

    #[test]
    fn shared_directories_are_read_from_the_tables() {
        let exports = "# Version 1.1\n# Path Client(Flags)\n/srv\t*(rw)\n\n\
                       /a\\040b host(ro)\n\"/c d\" *\n/long \\\n  host1 \\\n  host2\nodd\n";
        let want = ["/srv", "/a b", "/c d", "/long"].map(PathBuf::from);
        assert_eq!(nfs_exports(exports), want);
        let samba = "[global]\n workgroup = X\n[a]\n  path = /srv/a\n[b]\nPath=\"/b c\"\n\
                     [homes]\n path = /home/%U\n; path = /no\n# path = /no\n";
        assert_eq!(samba_shares(samba), ["/srv/a", "/b c"].map(PathBuf::from));
    }

    #[test]
    fn a_root_that_overlaps_a_shared_directory_is_a_warning() {
        let shared = [(PathBuf::from("/srv/data"), "/etc/exports")];
        for (root, state) in [
            ("/srv/data", CheckState::Warning),
            ("/srv/data/app", CheckState::Warning),
            // A part of it is shared.
            ("/srv", CheckState::Warning),
            ("/srv/database", CheckState::Ok),
            ("/other", CheckState::Ok),
        ] {
            let check = sharing(Path::new(root), &shared);
            assert_eq!(check.state, state, "{root}");
        }
        assert!(
            sharing(Path::new("/srv"), &shared)
                .what
                .contains("/etc/exports")
        );
    }
}
