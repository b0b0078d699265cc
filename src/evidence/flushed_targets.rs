//! Writes targets to the disk before temps are removed because of them.
//!
//! A program may write its file anew without fsync(2). Until the kernel writes the data back, the temp is the only copy
//! on the disk: after a power failure the file may be empty, while the removal of the temp lasts.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use super::{FileId, FoundTarget, system};
use crate::core::observation::{Fingerprint, Observation};
use crate::core::time::Wall;
use crate::fs::dir::Dir;
use crate::sys::mutex::guard;

/// The age at which a change is on the disk by itself. Linux writes data back after 30 to 35 s (`dirty_expire_centisecs`
/// and `dirty_writeback_centisecs`), and later if the disk is slow. On laptops both may be set to 10 minutes.
const WRITTEN_BACK: Duration = Duration::from_secs(30 * 60);

/// The largest number of files that are remembered.
const MAX_FILES: usize = 10_000;

/// The number of targets for which it is faster to write the whole file system to the disk. On ext4 that took
/// 2 to 12 ms, and fsync(2) of a small new file 0.4 ms (measured on a virtual disk with a cache).
const MANY: usize = 16;

/// The targets that were written to the disk, so that each is written once.
#[derive(Debug, Default)]
pub struct FlushedTargets(Mutex<HashMap<FileId, Fingerprint>>);

impl FlushedTargets {
    /// Writes the open file `file` to the disk, unless its last change was long ago or it was written before. `seen` is
    /// its observation, and `now` the time.
    ///
    /// RACE: a change right after the observation may have the same dates. Worst case: after a power failure the file
    /// has the data that it had before that change.
    ///
    /// # Errors
    ///
    /// The data cannot be written (fsync(2)).
    pub(super) fn flush(&self, file: impl AsFd, seen: &Observation, now: Wall) -> io::Result<()> {
        if self.has_file(seen, now) {
            return Ok(());
        }
        rule!("target-is-on-the-disk", rustix::fs::fsync(file), without: Ok(()))?;
        self.extend([(FileId::from(&seen.fingerprint), seen.fingerprint)].into());
        Ok(())
    }

    /// Writes `targets` to the disk by writing all files of the file system of `dir`. Each has the name of a target in
    /// `dir`. Does nothing if they are few or the system cannot do that. A target that is not written here is written
    /// alone when its temp is judged.
    ///
    /// RACE: an earlier write error may have been reported by syncfs(2) to another program. The kernel does not report it
    /// again. Worst case: on a disk that fails, a target is not whole although it counts.
    pub fn flush_together<'t>(
        &self,
        dir: &Dir,
        targets: impl Iterator<Item = &'t Observation>,
        now: Wall,
    ) {
        let is_due = |seen: &&Observation| {
            let is_here = seen.fingerprint.dev == dir.id().dev;
            rule!("only-this-file-system-is-on-the-disk", is_here, without: true)
                && !self.has_file(seen, now)
        };
        let due: HashMap<FileId, Fingerprint> = targets
            .filter(is_due)
            .map(|seen| (FileId::from(&seen.fingerprint), seen.fingerprint))
            .collect();
        let file_system = &dir.properties().file_system;
        if due.len() >= MANY && system::flush_file_system(dir.fd(), file_system) {
            self.extend(due);
        }
    }

    /// Reports whether the target is on the disk if it counts. A file to which a symlink leads is not known here.
    #[must_use]
    pub fn has(&self, found: &FoundTarget, now: Wall) -> bool {
        !found.target.counts()
            || found
                .counting_file()
                .is_some_and(|seen| self.has_file(seen, now))
    }

    /// Reports whether the file is on the disk.
    ///
    /// RACE: the clock may have been set forward since the last change, so that the change seems to be long ago. Worst
    /// case: after a power failure the file does not have its last data.
    fn has_file(&self, seen: &Observation, now: Wall) -> bool {
        let fingerprint = seen.fingerprint;
        now.since(fingerprint.mtime.max(fingerprint.ctime)) >= WRITTEN_BACK
            || guard(&self.0).get(&FileId::from(&fingerprint)) == Some(&fingerprint)
    }

    fn extend(&self, flushed: HashMap<FileId, Fingerprint>) {
        let mut files = guard(&self.0);
        if files.len() + flushed.len() > MAX_FILES {
            files.clear();
        }
        files.extend(flushed);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::sys::clock;

    fn open(folder: &Path) -> Dir {
        let path = folder.canonicalize().unwrap();
        Dir::open_below(&path, None, Path::new("")).unwrap()
    }

    /// Writes new files to `dir`, and returns their observations.
    fn new_files(folder: &Path, dir: &Dir, count: usize) -> Vec<Observation> {
        let new = |n: usize| {
            fs::write(folder.join(n.to_string()), "whole").unwrap();
            dir.observe(n.to_string().as_ref()).unwrap().unwrap()
        };
        (0..count).map(new).collect()
    }

    #[test]
    fn many_files_of_one_file_system_are_written_together() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(other_folder) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("skipped: there is no /dev/shm");
        };
        let (dir, other) = (open(folder.path()), open(other_folder.path()));
        let check = |count: usize, is_other: bool, want: bool| {
            let targets = match is_other {
                true => new_files(other_folder.path(), &other, count),
                false => new_files(folder.path(), &dir, count),
            };
            let can = system::flush_file_system(dir.fd(), &dir.properties().file_system);
            let flushed = FlushedTargets::default();
            flushed.flush_together(&dir, targets.iter(), clock::wall());
            for seen in &targets {
                let what = format!("{count} files, on another file system: {is_other}");
                assert_eq!(flushed.has_file(seen, clock::wall()), want && can, "{what}");
            }
        };
        check(MANY, false, true);
        check(MANY - 1, false, false);
        check(MANY, true, false);
    }

    #[test]
    fn a_file_is_on_the_disk_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        let before = new_files(folder.path(), &dir, 1)[0];
        let flushed = FlushedTargets::default();
        let file = fs::File::open(folder.path().join("0")).unwrap();
        flushed.flush(&file, &before, clock::wall()).unwrap();
        assert!(flushed.has_file(&before, clock::wall()));
        fs::write(folder.path().join("0"), "changed").unwrap();
        let changed = dir.observe("0".as_ref()).unwrap().unwrap();
        assert!(!flushed.has_file(&changed, clock::wall()));
        let now = clock::wall();
        let later = Wall {
            sec: now.sec + WRITTEN_BACK.as_secs() as i64,
            ..now
        };
        assert!(flushed.has_file(&changed, later));
    }
}
