//! What looking says: a fingerprint, or nothing there.

use super::time::Wall;

/// What kind of thing a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file: the only kind that is ever a temp.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; it is never followed.
    Symlink,
    /// FIFO, socket, device: never opened.
    Other,
}

/// What tells one state of a file from another.
///
/// Two different fingerprints mean that somebody touched the file. Two equal ones alone prove
/// nothing: a file that is written through a mapping can keep all its times for seconds
/// (measured on ext4, xfs, btrfs, tmpfs and overlayfs), which is why a look also asks for holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// `st_size`, bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Wall,
    /// Last change of content, name or metadata.
    pub ctime: Wall,
    /// Birth, where the file system keeps it. Left out of the fingerprint on macOS, where setting
    /// `mtime` before it moves it.
    pub btime: Option<Wall>,
    /// Hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
}

impl Fingerprint {
    /// The newest of the file's own times. Never `mtime` alone: rsync and tar set it back.
    #[must_use]
    pub fn newest(&self) -> Wall {
        let newest = self.mtime.max(self.ctime);
        let newest = self.btime.map_or(newest, |b| newest.max(b));
        rule!("newest-of-all-dates", newest, without: self.mtime)
    }

    /// Whether `self`, seen after a rename, can be the file that was judged as `judged`.
    ///
    /// A rename sets `ctime` (measured on ext4, xfs, btrfs, tmpfs and overlayfs), and a copy-up on
    /// overlayfs sets the birth time; the rest must be equal.
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

/// Everything that one look at a name says.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// The state of the file.
    pub fingerprint: Fingerprint,
    /// Permission bits and type (`st_mode`).
    pub mode: u32,
    /// The mount it lies on, where the system numbers mounts (Linux since 5.8).
    pub mount: Option<u64>,
    /// The root of a mount or of a subvolume: something else begins here.
    pub mount_root: bool,
    /// Immutable or append-only: the owner said that it is to stay.
    pub protected: bool,
    /// Its bytes are elsewhere (macOS `SF_DATALESS`): opening it would fetch them.
    pub dataless: bool,
    /// Bytes that the file takes on the disk (`512 * st_blocks`): less than its size where it has holes.
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

impl Observation {
    /// The size of the file.
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
    /// Space on the disk (`512 * st_blocks`), in bytes: what a removal gives back.
    pub disk_bytes: u64,
}

impl FileSize {
    /// The sum of both, at most `u64::MAX` each.
    #[must_use]
    pub fn plus(self, other: FileSize) -> FileSize {
        FileSize {
            bytes: self.bytes.saturating_add(other.bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }
}

/// A process that holds a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Its pid as this process sees it.
    pub pid: u32,
    /// Its command name, as the kernel keeps it (at most 15 bytes on Linux).
    pub name: String,
}

/// What the kernel answers when it is asked who holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UseState {
    /// Proven: no process on this kernel has it open or mapped.
    Unused,
    /// Somebody has it open or mapped.
    InUse,
    /// Somebody holds it, and a BSD or POSIX lock on it.
    Locked,
    /// Nobody could be seen, and the absence cannot be proven here.
    Unknown,
}

impl UseState {
    /// Whether somebody was *seen* holding it.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, UseState::InUse | UseState::Locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claim is compared with what was judged by this alone: all but the two dates that a
    /// rename may change must be equal.
    #[test]
    fn what_a_rename_changes_and_what_makes_it_another_file() {
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
            ("birth, not known any more", Fingerprint { btime: None, ..judged }, true),
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
