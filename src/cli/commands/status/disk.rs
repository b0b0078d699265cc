//! The usage of the disks that hold the roots, and the files in quarantine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;
use orphand::core::observation::FileSize;
use orphand::core::sort::set_of;
use orphand::fs::response::responds;
use orphand::reap::quarantine::StoredSum;
use orphand::store::json::{WirePath, field};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::purge_command;
use crate::cli::output::text;

/// The usage of the file system of a root, and the files in its quarantine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskUsage {
    total: u64,
    used: u64,
    /// The free bytes for this user, without those reserved for root.
    pub(crate) free: u64,
    /// `None` if the file system does not count inodes, like btrfs.
    inodes: Option<InodeUsage>,
    pub(crate) quarantined: u64,
    pub(crate) quarantined_size: FileSize,
}

/// The usage of the inodes of a file system. A file without one cannot be created.
#[derive(Clone, Copy, Debug)]
struct InodeUsage {
    total: u64,
    used: u64,
    /// The free inodes for this user.
    free: u64,
}

/// The time limit for the answer of a file system. One that hangs must not block the rest of the output.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

impl DiskUsage {
    pub(crate) fn of(root: &Path) -> Option<DiskUsage> {
        if !responds(root) {
            return None;
        }
        let (send, answer) = bounded(1);
        let root = root.to_owned();
        let thread = std::thread::Builder::new().name("orphand-disk".into());
        let _ = thread.spawn(move || send.send(DiskUsage::read(&root)));
        answer.recv_timeout(ANSWER_LIMIT).ok().flatten()
    }

    fn read(root: &Path) -> Option<DiskUsage> {
        let system = rustix::fs::statvfs(root).ok()?;
        let stored = StoredSum::in_root(root);
        Some(DiskUsage {
            total: system.f_blocks.saturating_mul(system.f_frsize),
            used: (system.f_blocks.saturating_sub(system.f_bfree)).saturating_mul(system.f_frsize),
            free: system.f_bavail.saturating_mul(system.f_frsize),
            inodes: (system.f_files > 0).then(|| InodeUsage {
                total: system.f_files,
                used: system.f_files.saturating_sub(system.f_ffree),
                free: system.f_favail,
            }),
            quarantined: stored.files,
            quarantined_size: stored.size,
        })
    }

    /// Returns the line about the disk of `root`, and the command that empties its quarantine.
    pub(crate) fn line(&self, root: &Path) -> String {
        let mut disk = format!(
            "disk {} % full, {} free",
            self.percent(),
            text::size(self.free)
        );
        if let Some(inodes) = self.inodes {
            disk.push_str(&format!(", inodes {} % used", inodes.percent()));
        }
        let mut parts = vec![disk];
        if self.quarantined > 0 {
            parts.push(format!(
                "{} in quarantine ({}); to delete: {}",
                text::counted(self.quarantined, "file", "files"),
                text::size(self.quarantined_size.disk_bytes),
                purge_command([root])
            ));
        }
        format!("      {}", text::joined(&parts))
    }

    /// Returns the usage in percent like df(1): of the space for this user, and rounded up.
    pub(crate) fn percent(&self) -> u64 {
        percent(self.used, self.free)
    }
}

impl InodeUsage {
    fn percent(self) -> u64 {
        percent(self.used, self.free)
    }
}

/// Returns the part of `used` in percent, rounded up.
fn percent(used: u64, free: u64) -> u64 {
    let used = u128::from(used);
    let all = used + u128::from(free);
    let percent = (used * 100).div_ceil(all.max(1));
    u64::try_from(percent).unwrap_or(100)
}

/// The fields of a root in the document. All but the path are null if its file system does not answer.
#[derive(Serialize)]
pub(crate) struct DiskFields<'a> {
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    bytes: Option<u64>,
    free: Option<u64>,
    percent: Option<u64>,
    inodes: Option<u64>,
    inodes_free: Option<u64>,
    inodes_percent: Option<u64>,
    quarantined: Option<u64>,
    quarantined_bytes: Option<u64>,
    quarantined_disk_bytes: Option<u64>,
}

impl DiskFields<'_> {
    pub(crate) fn of(root: &Path) -> DiskFields<'_> {
        DiskFields::new(root, DiskUsage::of(root))
    }

    pub(crate) fn new(root: &Path, disk: Option<DiskUsage>) -> DiskFields<'_> {
        let inodes = disk.and_then(|disk| disk.inodes);
        DiskFields {
            root: Some(root.into()),
            bytes: disk.map(|disk| disk.total),
            free: disk.map(|disk| disk.free),
            percent: disk.map(|disk| disk.percent()),
            inodes: inodes.map(|inodes| inodes.total),
            inodes_free: inodes.map(|inodes| inodes.free),
            inodes_percent: inodes.map(InodeUsage::percent),
            quarantined: disk.map(|disk| disk.quarantined),
            quarantined_bytes: disk.map(|disk| disk.quarantined_size.bytes),
            quarantined_disk_bytes: disk.map(|disk| disk.quarantined_size.disk_bytes),
        }
    }
}

pub(super) fn print_disk(root: &Path, report: &mut EventPrinter) -> Result<(), Failure> {
    match DiskUsage::of(root) {
        Some(disk) => report.line(&disk.line(root))?,
        None => report.line(match responds(root) {
            true => "      the directory does not exist, or is not readable for you",
            false => "      its file system does not answer; to find the cause: orphand doctor",
        })?,
    }
    Ok(())
}

/// Returns those of `roots` that have files in quarantine.
pub(super) fn with_stored_files<'r>(
    roots: impl Iterator<Item = &'r PathBuf>,
) -> Vec<(&'r PathBuf, DiskUsage)> {
    let roots: BTreeSet<&PathBuf> = set_of(roots);
    let disk = |root: &'r PathBuf| Some((root, DiskUsage::of(root)?));
    let holds = |(_, disk): &(_, DiskUsage)| disk.quarantined > 0;
    roots.into_iter().filter_map(disk).filter(holds).collect()
}
