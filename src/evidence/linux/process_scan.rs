//! Scans all processes for descriptors and mappings of files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::proc::{
    comm, device_number, has_ended, numeric_names, sees_every_process, shows_our_processes,
};
use crate::core::judge::LeaseCoverage;
use crate::core::observation::Holder;
use crate::evidence::{FileId, ProcessScan};

/// Scans all processes for those that have one of `wanted` open or mapped.
///
/// With [`LeaseCoverage::OpensOnly`] (overlayfs) a mapping may have the device number of a lower layer. A file whose
/// inode number alone matches is uncertain then. Its process is not reported as a holder, because other files have the
/// same number.
#[must_use]
pub fn scan_processes(wanted: &[FileId], coverage: LeaseCoverage) -> ProcessScan {
    let mut scan = ScanProgress {
        wanted: by_number(wanted),
        any_device: coverage == LeaseCoverage::OpensOnly,
        holders: HashMap::new(),
        uncertain: HashSet::new(),
        complete: rule!("scan-must-see-all-processes", sees_every_process(), without: true),
    };
    let mut scanned = HashSet::new();
    // A process that was forked behind the reading position is found by listing again. If processes fork faster than
    // this, the scan is incomplete.
    for round in 0..4 {
        let Ok(mut pids) = numeric_names(Path::new("/proc")) else {
            scan.complete = rule!("failed-listing-proves-nothing", false, without: scan.complete);
            break;
        };
        // The list has at least this process.
        scan.complete &= !pids.is_empty();
        pids.retain(|pid| scanned.insert(*pid));
        if pids.is_empty() {
            break;
        }
        if round == 3 {
            scan.complete = false;
        }
        for pid in pids {
            scan.scan_process(pid);
        }
    }
    if rule!("foreign-proc-names-no-holder", !shows_our_processes()) {
        // The pids in this `/proc` are those of another namespace.
        let held = scan.holders.drain().map(|(file, _)| file);
        scan.uncertain.extend(held);
    }
    ProcessScan {
        holders: scan.holders,
        uncertain: scan.uncertain,
        complete: scan.complete,
    }
}

fn by_number(wanted: &[FileId]) -> HashMap<u64, Vec<FileId>> {
    let mut numbers: HashMap<u64, Vec<FileId>> = HashMap::new();
    for file in wanted {
        numbers.entry(file.ino).or_default().push(*file);
    }
    numbers
}

/// A process scan that is in progress.
struct ScanProgress {
    /// The requested files, by inode number. Files on several devices may have the same number.
    wanted: HashMap<u64, Vec<FileId>>,
    /// A file with a requested inode number on another device is uncertain.
    any_device: bool,
    holders: HashMap<FileId, Vec<Holder>>,
    uncertain: HashSet<FileId>,
    complete: bool,
}

/// The requested files that one process uses.
#[derive(Default)]
struct HeldFiles {
    /// The requested files that the process certainly uses.
    certain: HashSet<FileId>,
    /// The requested files with the same inode number as a used file on another device.
    doubtful: HashSet<FileId>,
}

impl ScanProgress {
    fn scan_process(&mut self, pid: u32) {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let mut held = HeldFiles::default();
        let (mut examined, has_memory) = self.examine(pid, &at, &mut held);
        if rule!("scan-examines-other-threads", !has_memory) {
            // This is a kernel thread, or a process whose main thread has ended. The other threads may still be
            // running, and only they show the files of the process.
            let threads = numeric_names(&at.join("task"));
            examined &= threads.as_ref().err().is_none_or(has_ended);
            for thread in threads.unwrap_or_default() {
                let thread = at.join("task").join(thread.to_string());
                examined &= self.examine(pid, &thread, &mut held).0;
            }
        }
        self.complete &= examined;
        self.uncertain.extend(held.doubtful);
        if held.certain.is_empty() {
            return;
        }
        let name = comm(&at);
        for file in held.certain {
            let holder = Holder {
                pid,
                name: name.clone(),
            };
            self.holders.entry(file).or_default().push(holder);
        }
    }

    /// Adds the files that the process or thread at `at` uses to `held`. Returns whether it could be examined
    /// completely, and whether it has any memory.
    fn examine(&self, pid: u32, at: &Path, held: &mut HeldFiles) -> (bool, bool) {
        // The descriptors of this process are the ones that this check itself uses. Its mappings are not.
        let fds = match pid == std::process::id() {
            true => Ok(()),
            false => self.scan_descriptors(at, held),
        };
        let maps = match pid == std::process::id() {
            true => {
                rule!("scan-sees-our-mappings", self.scan_mappings(at, held), without: Ok(true))
            }
            false => self.scan_mappings(at, held),
        };
        let has_memory = *maps.as_ref().unwrap_or(&false);
        let is_examined = |result: io::Result<()>| match result {
            Ok(()) => true,
            Err(error) => has_ended(&error),
        };
        (is_examined(fds) && is_examined(maps.map(drop)), has_memory)
    }

    /// Records that the process uses the file with these numbers.
    fn record_use(&self, dev: u64, ino: u64, held: &mut HeldFiles) {
        for file in self.wanted.get(&ino).into_iter().flatten() {
            if file.dev == dev {
                held.certain.insert(*file);
            } else if rule!("file-number-alone-keeps", self.any_device) {
                held.doubtful.insert(*file);
            }
        }
    }

    fn scan_descriptors(&self, process: &Path, held: &mut HeldFiles) -> io::Result<()> {
        for entry in fs::read_dir(process.join("fd"))? {
            match fs::metadata(entry?.path()) {
                Ok(meta) => rule!(
                    "descriptors-make-holders",
                    self.record_use(meta.dev(), meta.ino(), held),
                    without: (),
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Records the mapped files. Returns whether the process has any mapping. The lines of `/proc/PID/maps` have range,
    /// permissions, offset, `major:minor`, inode and path.
    fn scan_mappings(&self, process: &Path, held: &mut HeldFiles) -> io::Result<bool> {
        let maps = fs::read(process.join("maps"))?;
        for line in maps.split(|&b| b == b'\n') {
            let mut words = line.split(|&b| b == b' ').filter(|w| !w.is_empty());
            let device = words.nth(3).and_then(device_number);
            let inode = words
                .next()
                .and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
            if let (Some(dev), Some(ino)) = (device, inode) {
                self.record_use(dev, ino, held);
            }
        }
        Ok(!maps.is_empty())
    }
}
