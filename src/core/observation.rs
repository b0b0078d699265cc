//! The result of one look at a file: its fingerprint and other properties.

use serde::Serialize;

use super::time::Wall;

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file. Only a regular file can be a temp.
    File,
    /// A directory.
    Dir,
    /// A symbolic link. It is never a temp.
    Symlink,
    /// A FIFO, a socket or a device. It is never opened.
    Other,
}

/// The properties by which two states of a file are compared.
///
/// Two different fingerprints mean that a process touched the file. Two equal ones alone prove nothing: a file that is
/// written through a mapping can keep all its dates for seconds (measured on ext4, xfs, btrfs, tmpfs and overlayfs). So
/// a look also checks whether a process uses the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type of the file.
    pub kind: Kind,
    /// `st_size`, bytes.
    pub size: u64,
    /// Last change of the content (`st_mtime`).
    pub mtime: Wall,
    /// Last change of content, name or metadata (`st_ctime`).
    pub ctime: Wall,
    /// Birth time, if the file system stores it. Always `None` on macOS, where setting an earlier `mtime` also changes
    /// the birth time.
    pub btime: Option<Wall>,
    /// Number of hard links.
    pub links: u64,
    /// Uid of the owner.
    pub uid: u32,
}

impl Fingerprint {
    /// Returns the newest of the file's dates. `mtime` alone does not suffice, because rsync and tar set it back.
    #[must_use]
    pub fn newest(&self) -> Wall {
        let newest = self.mtime.max(self.ctime);
        let newest = self.btime.map_or(newest, |b| newest.max(b));
        rule!("newest-of-all-dates", newest, without: self.mtime)
    }

    /// Reports whether no date is in the future, and the file was neither born nor written after its last change. If
    /// not, a clock was ahead at that time and was set back later, or a date was set.
    #[must_use]
    pub fn has_past_dates(&self, now: Wall) -> bool {
        let is_past = |date: Wall| date <= self.ctime;
        self.ctime <= now && is_past(self.mtime) && self.btime.is_none_or(is_past)
    }

    /// Reports whether `self`, observed after a rename, can be the file that was observed as `judged` before it.
    ///
    /// A rename sets `ctime` (measured on ext4, xfs, btrfs, tmpfs and overlayfs), and a copy-up on overlayfs sets the
    /// birth time. All other fields must be equal.
    #[must_use]
    pub fn is_same_after_rename(&self, judged: &Fingerprint) -> bool {
        let renamed = Fingerprint {
            ctime: judged.ctime,
            btime: judged.btime,
            ..*self
        };
        renamed == *judged
    }
}

/// Everything that one look at a name finds out, apart from the use state.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Fingerprint of the file.
    pub fingerprint: Fingerprint,
    /// Permission bits and file type (`st_mode`).
    pub mode: u32,
    /// Id of the mount that contains the file, if the system has mount ids (Linux since 5.8).
    pub mount: Option<u64>,
    /// True if it is the root of a mount or of a subvolume.
    pub mount_root: bool,
    /// True if it is immutable or append-only: its owner wants to keep it.
    pub protected: bool,
    /// True if its data is not on this disk (macOS `SF_DATALESS`): opening it would download the data.
    pub dataless: bool,
    /// Space on the disk (`512 * st_blocks`), in bytes. It is less than the size if the file has holes.
    pub allocated: u64,
}

/// Two observations are equal if nothing has touched the file between them. `allocated` is not compared: delayed
/// allocation and compression change it when the kernel writes the data back, without any access to the file.
impl PartialEq for Observation {
    fn eq(&self, other: &Observation) -> bool {
        let Observation {
            fingerprint,
            mode,
            mount,
            mount_root,
            protected,
            dataless,
            allocated: _,
        } = *self;
        fingerprint == other.fingerprint
            && mode == other.mode
            && mount == other.mount
            && mount_root == other.mount_root
            && protected == other.protected
            && dataless == other.dataless
    }
}

impl Eq for Observation {}

/// Write permission for the group and for others.
pub(crate) const OTHERS_WRITE: u32 = 0o022;

impl Observation {
    /// Returns whether users other than the owner may write, by the permission bits.
    #[must_use]
    pub fn others_may_write(&self) -> bool {
        self.mode & OTHERS_WRITE != 0
    }

    /// Returns the size of the file.
    #[must_use]
    pub fn size(&self) -> FileSize {
        FileSize {
            bytes: self.fingerprint.size,
            disk_bytes: self.allocated,
        }
    }
}

/// The size of a file, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSize {
    /// Length (`st_size`), in bytes.
    pub bytes: u64,
    /// Space on the disk (`512 * st_blocks`), in bytes. A removal frees this much.
    pub disk_bytes: u64,
}

impl FileSize {
    /// Returns the sum of both sizes, each at most `u64::MAX`.
    #[must_use]
    pub fn plus(self, other: FileSize) -> FileSize {
        FileSize {
            bytes: self.bytes.saturating_add(other.bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }
}

/// A process that has a file open or mapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Holder {
    /// Its pid in the pid namespace of this process.
    pub pid: u32,
    /// Its command name as the kernel stores it (at most 15 bytes on Linux).
    pub name: String,
}

/// The kernel's answer to the question whether a process uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UseState {
    /// It is proven that no process on this kernel has it open or mapped.
    Unused,
    /// A process has it open or mapped.
    InUse,
    /// A process has it open and holds a BSD or POSIX lock on it.
    Locked,
    /// No process was found that uses it, but it cannot be proven that there is none.
    Unknown,
}

impl UseState {
    /// Reports whether a process was *found* that uses the file.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, UseState::InUse | UseState::Locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is the only comparison of a claim with the judged file. All fields must be equal, except for the two dates
    /// that a rename may change.
    #[test]
    fn only_ctime_and_birth_may_differ_after_a_rename() {
        let later = Wall { sec: 9, nsec: 0 };
        let judged = Fingerprint {
            dev: 1,
            ino: 7,
            kind: Kind::File,
            size: 10,
            mtime: Wall::default(),
            ctime: Wall::default(),
            btime: Some(Wall::default()),
            links: 1,
            uid: 1000,
        };
        #[rustfmt::skip]
        let rows: [(&str, Fingerprint, bool); 11] = [
            ("nothing", judged, true),
            ("ctime", Fingerprint { ctime: later, ..judged }, true),
            ("birth", Fingerprint { btime: Some(later), ..judged }, true),
            ("birth, no longer known", Fingerprint { btime: None, ..judged }, true),
            ("device", Fingerprint { dev: 2, ..judged }, false),
            ("inode", Fingerprint { ino: 8, ..judged }, false),
            ("kind", Fingerprint { kind: Kind::Other, ..judged }, false),
            ("size", Fingerprint { size: 11, ..judged }, false),
            ("mtime", Fingerprint { mtime: later, ..judged }, false),
            ("links", Fingerprint { links: 2, ..judged }, false),
            ("owner", Fingerprint { uid: 0, ..judged }, false),
        ];
        for (changed, now, want) in rows {
            assert_eq!(now.is_same_after_rename(&judged), want, "{changed}");
        }
    }
}
