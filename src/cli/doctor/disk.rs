//! Judges the free space and the free inodes of a root, and its quarantine.

use std::path::Path;

use super::check::Check;
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
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

pub(super) fn judge(root: &Path, space: DiskSpace, quarantined_size: u64) -> [Check; 2] {
    let used = space.total.saturating_sub(space.free);
    let percent = percent(used, used.saturating_add(space.available));
    let left = text::size(space.available);
    let bytes = match percent {
        0..NEARLY_FULL => Check::ok("disk", format!("{percent} % full, {left} left")),
        _ => Check::warning(
            "disk",
            format!(
                "{percent} % full, {left} left: orphand can still delete, but a temp that may be the only copy does \
                 not fit into a quarantine and is kept, and the journal cannot be written"
            ),
            fix(root, quarantined_size),
        ),
    };
    let names = percent_of_inodes(space);
    let left = text::count(space.files_free);
    let names = match names {
        None => Check::ok("inodes", "the number of files has no limit here"),
        Some(percent @ 0..NEARLY_FULL) => Check::ok(
            "inodes",
            format!("{percent} % of the maximum number of files, {left} left"),
        ),
        Some(percent) => Check::warning(
            "inodes",
            format!(
                "{percent} % of the maximum number of files, {left} left: soon no new file can be created although \
                 there is free space; programs report this as a full disk"
            ),
            fix(root, quarantined_size),
        ),
    };
    [bytes, names]
}

fn fix(root: &Path, quarantined_size: u64) -> String {
    let suggest = |command| Suggestion::new(command).configured();
    let scan = format!("see what would be removed: {}", suggest("scan").arg(root));
    match quarantined_size {
        0 => scan,
        bytes => format!(
            "{scan}\n{} are in its quarantine. To list them: {}\nTo delete them: {}",
            text::size(bytes),
            suggest("quarantine list").arg(root),
            suggest("quarantine purge")
        ),
    }
}

fn percent_of_inodes(space: DiskSpace) -> Option<u64> {
    let used = space.files.saturating_sub(space.files_free);
    (space.files > 0).then(|| percent(used, space.files))
}

/// Returns a percentage, rounded up as by df(1), so that 100 does not always mean that nothing is left.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)));
    u64::try_from(percent).unwrap_or(100).min(100)
}

/// Judges the quarantine. `contents` has the number of its files and their bytes on the disk, or is `None` if no
/// quarantine is possible.
pub(super) fn quarantine(root: &Path, contents: Option<(u64, u64)>) -> Check {
    let folder = root.join(orphand::reap::quarantine::FOLDER);
    match contents {
        Some((0, _)) => Check::ok("quarantine", "empty"),
        Some((files, bytes)) => Check::ok(
            "quarantine",
            format!(
                "{}, {}: {}",
                text::counted(files, "file", "files"),
                text::size(bytes),
                Suggestion::new("quarantine list").configured().arg(root)
            ),
        ),
        None => Check::warning(
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
        ),
    }
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
            let checks = judge(root, space, 2_000);
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
        let empty = judge(
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
            let check = quarantine(Path::new("/r"), contents);
            assert_eq!(check.state, state);
            assert!(check.what.contains(words), "{check:?}");
        }
    }
}
