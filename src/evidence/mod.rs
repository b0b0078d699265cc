//! Gathers the evidence about a temp: its use by processes, the state of its writer, and its target.
//!
//! Each system has its own file with the same functions. [`UseChecker`] and [`CheckedFile`] prove that a file is
//! unused. [`scan_processes`] finds the processes that use it, for messages, and as proof where a lease does not cover
//! mappings. [`writer`] checks the process whose pid is in the name, and [`open_for_check`] opens a file. If a system
//! cannot prove something, it reports that, and the temp is kept.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::core::judge::{DirProperties, Evidence, Writer};
use crate::core::observation::{Fingerprint, Holder, Observation, UseState};
use crate::core::policy;
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::temp_name::ParsedName;
use crate::core::time::Mono;
use crate::fs::dir::Dir;
use crate::sys::clock;
use container_pids::ContainerPids;
use locks::Locks;
use restore_marks::RestoreMarks;
use siblings::Siblings;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub mod container_pids;
pub mod locks;
pub mod restore_marks;
pub mod siblings;
mod target;
pub mod writer_names;

#[cfg(target_os = "linux")]
pub use system::shows_our_processes;
pub use system::{
    CheckedFile, ORIGIN, UseChecker, open_for_check, read_mark, scan_processes, set_mark, writer,
};
pub use target::{ComparedTemp, FoundTarget, find_target, recheck_target, target_name};

/// The identity of a file in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<&Fingerprint> for FileId {
    fn from(seen: &Fingerprint) -> FileId {
        FileId {
            dev: seen.dev,
            ino: seen.ino,
        }
    }
}

/// The result of a scan of all processes.
#[derive(Clone, Debug, Default)]
pub struct ProcessScan {
    /// The processes that use the requested files.
    pub holders: HashMap<FileId, Vec<Holder>>,
    /// The requested files that another process may use: it uses a file with the same inode number, on a device that
    /// may be the same one under another number.
    pub uncertain: HashSet<FileId>,
    /// The descriptors and mappings of every process on this machine were examined, and no process could be hidden.
    /// Only then does an absence from this result prove anything.
    pub complete: bool,
}

impl ProcessScan {
    /// Returns the processes that use `file`.
    #[must_use]
    pub fn holders_of(&self, file: FileId) -> Vec<Holder> {
        self.holders.get(&file).cloned().unwrap_or_default()
    }

    /// Reports whether the scan proves that no process has `file` mapped.
    #[must_use]
    pub fn proves_unmapped(&self, file: FileId) -> bool {
        let is_held = self.holders.contains_key(&file) || self.uncertain.contains(&file);
        self.complete && !is_held
    }
}

/// Facts about one temp that do not come from the file itself.
#[derive(Clone, Debug)]
pub struct TempInfo {
    /// The base name.
    pub name: OsString,
    /// The parts of the name.
    pub parsed: ParsedName,
    /// The reason for which the name is reserved, if the rule or an earlier observation gives one.
    pub reserved: Option<Reserved>,
    /// The fingerprint of the earlier look. `None` if there was no earlier look.
    pub expected: Option<Fingerprint>,
    /// The time for which it has been quiet.
    pub quiet: Duration,
    /// The time for which no process has used the temp.
    pub unused: Duration,
    /// The time for which it must be quiet before it is judged.
    pub grace: Duration,
    /// The latest time at which the temp can have been changed last, if that is known.
    pub written: Option<Mono>,
    /// A close by a writer was reported.
    pub closed: bool,
}

/// Facts that apply to all temps of one directory.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceContext<'a> {
    /// The rule.
    pub policy: &'a Policy,
    /// The effective uid of this process.
    pub our_uid: u32,
    /// The marks of restored files.
    pub marks: &'a RestoreMarks,
    /// The processes in child pid namespaces, by the pids that they have there.
    pub container_pids: &'a ContainerPids,
    /// The table of locked files.
    pub locks: &'a Locks,
    /// The other names in the directory.
    pub siblings: &'a Siblings,
    /// The start of this pass. Each temp that is judged in it was seen unchanged at an earlier look.
    pub since: Mono,
    /// A quarantine exists or can be created.
    pub quarantine: bool,
    /// A scan of all processes, on file systems where a lease does not cover mappings.
    pub process_scan: Option<&'a ProcessScan>,
}

/// Returns the state of the process with the pid `pid`, in this pid namespace or in a child namespace, as a possible
/// writer of the temp.
fn writer_of(pid: u32, temp_info: &TempInfo, context: EvidenceContext<'_>) -> Writer {
    let can_have = |pid| matches!(writer(pid, temp_info.written), Writer::Alive(_));
    if can_have(pid) {
        return Writer::Alive(pid);
    }
    // At least this time has passed between the two looks.
    let between = policy::min_observation_gap(temp_info.grace, Duration::ZERO);
    let since = context.since.min(clock::mono().before(between));
    match context.container_pids.resolve(pid, since) {
        Ok(pids)
            if rule!(
                "writer-in-a-container-lives",
                pids.iter().copied().any(can_have)
            ) =>
        {
            Writer::InContainer(pid)
        }
        Ok(_) => Writer::Gone(pid),
        Err(_) => rule!("failed-scan-keeps", Writer::Unknown(pid), without: Writer::Gone(pid)),
    }
}

/// The result of the check whether a process uses a temp.
#[derive(Clone, Copy, Debug)]
pub struct FileUse<'a> {
    /// The use state that the kernel reported.
    pub state: UseState,
    /// The open temp. `None` if it was not opened.
    pub file: Option<&'a CheckedFile>,
}

/// Gathers the evidence for a verdict. `seen` is the newest observation of the temp.
///
/// Also returns the target of the temp.
pub fn gather(
    dir: &Dir,
    temp_info: &TempInfo,
    seen: Observation,
    file_use: FileUse<'_>,
    context: EvidenceContext<'_>,
) -> io::Result<(Evidence, FoundTarget)> {
    let checked = file_use.file;
    let fingerprint = seen.fingerprint;
    let temp = ComparedTemp {
        seen: &seen,
        file: checked.map(CheckedFile::file),
    };
    let found = find_target(dir, context.policy, &temp_info.parsed, temp)?;
    let writer = match temp_info.parsed.pid {
        None => Writer::NoPid,
        Some(pid) => writer_of(pid, temp_info, context),
    };
    let is_locked = || {
        let by_file = system::is_locked(checked);
        by_file.unwrap_or_else(|| context.locks.is_locked(&fingerprint))
    };
    let use_state = match file_use.state {
        UseState::InUse | UseState::Unknown if is_locked() => UseState::Locked,
        // A process that locks the file has it open, so an unused file is not locked.
        state => state,
    };
    let restored = match checked {
        Some(checked) => context.marks.has(checked.file(), &fingerprint)?,
        None => false,
    };
    // Digits that look like a date may be part of the name of a file whose existence is the message. Only an empty file
    // can be such a flag.
    let random_name = temp_info.parsed.is_random
        && rule!(
            "empty-file-may-be-flag",
            fingerprint.size > 0
                || context.policy.names.shape(&temp_info.name).form != temp_info.name,
            without: true,
        );
    let by_name = temp_info.reserved.clone();
    let reserved = by_name.or_else(|| context.siblings.protect(&temp_info.name));
    let file = FileId::from(&fingerprint);
    let evidence = Evidence {
        observation: seen,
        expected: temp_info.expected,
        quiet: temp_info.quiet,
        grace: temp_info.grace,
        unused: temp_info.unused,
        dir: DirProperties {
            quarantine: context.quarantine,
            ..dir.properties().clone()
        },
        our_uid: context.our_uid,
        writer,
        closed: temp_info.closed,
        use_state,
        opened: rule!("unopened-is-not-asked", checked.is_some(), without: true),
        mappings_examined: context
            .process_scan
            .is_some_and(|process_scan| process_scan.proves_unmapped(file)),
        target: found.target,
        random_name,
        restored,
        reserved,
    };
    Ok((evidence, found))
}
