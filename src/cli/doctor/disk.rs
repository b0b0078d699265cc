//! How full the disk of a root is, and what orphand itself holds back there.

use std::path::Path;

use super::super::shell::{self, Suggestion};
use super::super::text;
use super::check::Check;

/// A file system's room, as statvfs(3) tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskSpace {
    /// Bytes.
    pub(super) total: u64,
    /// Bytes, those that only root may fill too.
    pub(super) free: u64,
    /// Bytes that we may fill.
    pub(super) available: u64,
    /// Files that there may be; 0 where that has no limit.
    pub(super) files: u64,
    /// How many more there may be.
    pub(super) files_free: u64,
}

/// From how full on, in percent, it is said.
const NEARLY_FULL: u64 = 95;

pub(super) fn judge(root: &Path, room: DiskSpace, held_back: u64) -> [Check; 2] {
    let used = room.total.saturating_sub(room.free);
    let percent = percent(used, used.saturating_add(room.available));
    let left = text::size(room.available);
    let space = match percent {
        0..NEARLY_FULL => Check::ok("disk", format!("{percent} % full, {left} left")),
        _ => Check::warning(
            "disk",
            format!(
                "{percent} % full, {left} left: orphand can still delete, but what may be an only \
                 copy finds no room in a quarantine and stays, and no journal is kept"
            ),
            fix(root, held_back),
        ),
    };
    let names = percent_of_inodes(room);
    let left = text::count(room.files_free);
    let names = match names {
        None => Check::ok("inodes", "the number of files has no limit here"),
        Some(percent @ 0..NEARLY_FULL) => Check::ok(
            "inodes",
            format!("{percent} % of all files that there may be, {left} left"),
        ),
        Some(percent) => Check::warning(
            "inodes",
            format!(
                "{percent} % of all files that there may be, {left} left: there is room for bytes, \
                 but soon for no new file, which programs report as a full disk"
            ),
            fix(root, held_back),
        ),
    };
    [space, names]
}

fn fix(root: &Path, held_back: u64) -> String {
    let suggest = |command| Suggestion::new(command).configured();
    let sweep = format!("see what would go: {}", suggest("scan").arg(root));
    match held_back {
        0 => sweep,
        bytes => format!(
            "{sweep}\n{} lie in its quarantine; look, then delete for good: \
             {}; {}",
            text::size(bytes),
            suggest("quarantine list").arg(root),
            suggest("quarantine purge")
        ),
    }
}

fn percent_of_inodes(room: DiskSpace) -> Option<u64> {
    let used = room.files.saturating_sub(room.files_free);
    (room.files > 0).then(|| percent(used, room.files))
}

/// Rounded up, as df(1) does: 100 only means that nothing is left where nothing is.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)));
    u64::try_from(percent).unwrap_or(100).min(100)
}

/// What lies in the quarantine; `None` where there can be none.
pub(super) fn quarantine(root: &Path, held_back: Option<(u64, u64)>) -> Check {
    let folder = root.join(orphand::reap::quarantine::FOLDER);
    match held_back {
        Some((0, _)) => Check::ok("quarantine", "nothing lies in it"),
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
                "{} is not a folder of yours that is closed to everybody else: what may be an only \
                 copy stays where it is (no-quarantine)",
                text::escaped(&folder)
            ),
            format!(
                "look at it, then move it away: ls -la {}",
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
    fn how_full_it_is() {
        let root = Path::new("/srv/a b");
        // total, free, available, files, files left; disk; inodes
        for (room, disk, inodes) in [
            ([1000, 500, 500, 100, 50], "50 % full, 500 B", "50 %"),
            ([1000, 60, 60, 100, 6], "94 % full", "94 %"),
            ([1000, 50, 50, 100, 5], "!95 % full", "!95 %"),
            ([1000, 49, 49, 100, 0], "!96 % full", "!100 %"),
            // Root keeps 5 % for itself: for us it is full.
            ([1000, 50, 0, 0, 0], "!100 % full, 0 B", "no limit"),
            ([1 << 40, 1, 1, 0, 0], "!100 % full, 1 B", "no limit"),
            ([0, 0, 0, 0, 0], "0 % full", "no limit"),
        ] {
            let [total, free, available, files, files_free] = room;
            let room = DiskSpace {
                total,
                free,
                available,
                files,
                files_free,
            };
            let checks = judge(root, room, 2_000);
            for (check, want) in checks.iter().zip([disk, inodes]) {
                let (state, want) = match want.strip_prefix('!') {
                    Some(want) => (CheckState::Warning, want),
                    None => (CheckState::Ok, want),
                };
                assert_eq!(check.state, state, "{room:?}: {check:?}");
                assert!(check.what.contains(want), "{room:?}: {check:?}");
                if let Some(fix) = &check.fix {
                    assert!(fix.contains("orphand scan '/srv/a b'"), "{fix}");
                    assert!(fix.contains("2.0 kB lie in its quarantine"), "{fix}");
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
    fn what_is_held_back() {
        for (held_back, state, words) in [
            (Some((0, 0)), CheckState::Ok, "nothing"),
            (Some((3, 2_000_000)), CheckState::Ok, "3 files, 2.0 MB"),
            (None, CheckState::Warning, "no-quarantine"),
        ] {
            let check = quarantine(Path::new("/r"), held_back);
            assert_eq!(check.state, state);
            assert!(check.what.contains(words), "{check:?}");
        }
    }
}
