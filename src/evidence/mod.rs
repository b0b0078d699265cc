//! Evidence: who holds a file, whether its writer lives, what it was to replace.
//!
//! Each system answers in its own file, with the same functions: [`LeaseThread`] and [`LeasedFile`] (nobody
//! holds it), [`scan_processes`] (who does, for people), [`writer`], [`open_to_ask`]. What a
//! system cannot prove it says so, and the temp stays.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::clock;
use crate::decide::judge::{DirProperties, Evidence, Writer};
use crate::decide::observation::{Fingerprint, Holder, Observation, UseState};
use crate::decide::policy::{self, Policy};
use crate::decide::reserved::Reserved;
use crate::decide::temp_name::ParsedName;
use crate::decide::time::Mono;
use crate::look::Dir;
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
    LeaseThread, LeasedFile, ORIGIN, mark, open_to_ask, scan_processes, set_mark, writer,
};
pub use target::{Compared, FoundTarget, target, target_again, target_name};

/// A file, as the kernel's tables name it.
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

/// What was seen on a walk over the processes.
#[derive(Clone, Debug, Default)]
pub struct ProcessScan {
    /// Who was seen holding which of the files that were asked for.
    pub holders: HashMap<FileId, Vec<Holder>>,
    /// Those that somebody may hold who is not among them: a file with the same number is held, on a device
    /// that may be the same one by another name.
    pub doubtful: HashSet<FileId>,
    /// Every process on this machine was examined, descriptors and mappings, and none of them
    /// could hide. Only then does an absence here prove anything.
    pub complete: bool,
}

impl ProcessScan {
    /// Who was seen holding `file`.
    #[must_use]
    pub fn of(&self, file: FileId) -> Vec<Holder> {
        self.holders.get(&file).cloned().unwrap_or_default()
    }

    /// Whether it is proven that nobody has `file` mapped.
    #[must_use]
    pub fn proves_unmapped(&self, file: FileId) -> bool {
        let is_held = self.holders.contains_key(&file) || self.doubtful.contains(&file);
        self.complete && !is_held
    }
}

/// A temp on its way to a verdict: what is known of it beside what stands on disk.
#[derive(Clone, Debug)]
pub struct TempInfo {
    /// Its base name.
    pub name: OsString,
    /// What that says.
    pub parsed: ParsedName,
    /// Why that is reserved, as far as the rule tells and what was seen of it before.
    pub reserved: Option<Reserved>,
    /// What the earlier look saw; `None` where there was none.
    pub expected: Option<Fingerprint>,
    /// How long it has been quiet.
    pub quiet: Duration,
    /// How long nobody has used it.
    pub unused: Duration,
    /// How long it must be quiet.
    pub grace: Duration,
    /// When it was changed last, at the latest, if that is known.
    pub written: Option<Mono>,
    /// Whether a close by a writer was reported.
    pub closed: bool,
}

/// What holds for all temps of one directory.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceContext<'a> {
    /// The rule.
    pub policy: &'a Policy,
    /// As whom the files are judged.
    pub our_uid: u32,
    /// Where restored files are marked.
    pub marks: &'a RestoreMarks,
    /// Who goes by which pid in namespaces below ours.
    pub nested: &'a ContainerPids,
    /// Which files are seen to be locked.
    pub locks: &'a Locks,
    /// What lies beside them.
    pub siblings: &'a Siblings,
    /// What is judged was looked at before this too, and was the same.
    pub since: Mono,
    /// A quarantine is there, or could be.
    pub quarantine: bool,
    /// A walk over the processes, where the proof does not see mappings.
    pub process_scan: Option<&'a ProcessScan>,
}

/// Whether the process that goes by `pid`, here or in a namespace below ours, can have written the temp.
fn writer_of(pid: u32, temp_info: &TempInfo, context: EvidenceContext<'_>) -> Writer {
    let can_have = |pid| matches!(writer(pid, temp_info.written), Writer::Alive(_));
    if can_have(pid) {
        return Writer::Alive(pid);
    }
    // That long it stood between the two looks at the least.
    let between = policy::min_observation_gap(temp_info.grace, Duration::ZERO);
    let since = context.since.min(clock::mono().before(between));
    match context.nested.resolve(pid, since) {
        Ok(called)
            if rule!(
                "writer-in-a-container-lives",
                called.iter().copied().any(can_have)
            ) =>
        {
            Writer::InContainer(pid)
        }
        Ok(_) => Writer::Gone(pid),
        Err(_) => rule!("failed-walk-keeps", Writer::Unknown(pid), without: Writer::Gone(pid)),
    }
}

/// Puts together what the verdict rests on. `answer` is what the kernel was asked with, if it was,
/// and what it answered; `seen` is the newest look.
///
/// Returns what was found at the name of its target, too.
pub fn gather(
    dir: &Dir,
    temp_info: &TempInfo,
    seen: Observation,
    answer: (Option<&LeasedFile>, UseState),
    context: EvidenceContext<'_>,
) -> io::Result<(Evidence, FoundTarget)> {
    let (leased, hold) = answer;
    let fingerprint = seen.fingerprint;
    let temp = Compared {
        seen: &seen,
        file: leased.map(LeasedFile::file),
    };
    let found = target(dir, context.policy, &temp_info.parsed, temp)?;
    let writer = match temp_info.parsed.pid {
        None => Writer::NoPid,
        Some(pid) => writer_of(pid, temp_info, context),
    };
    let is_locked = || {
        let asked = system::is_locked(leased);
        asked.unwrap_or_else(|| context.locks.tell_of(&fingerprint))
    };
    let hold = match hold {
        UseState::InUse | UseState::Unknown if is_locked() => UseState::Locked,
        // Nobody who locks it lets it be free.
        _ => hold,
    };
    let restored = match leased {
        Some(leased) => context.marks.has(leased.file(), &fingerprint)?,
        None => false,
    };
    // Digits that read as a date may be a part of a flag's name. Only an empty file is asked whether it is one.
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
            ..dir.place().clone()
        },
        our_uid: context.our_uid,
        writer,
        closed: temp_info.closed,
        use_state: hold,
        opened: rule!("unopened-is-not-asked", leased.is_some(), without: true),
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
