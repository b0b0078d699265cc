//! Gathers the evidence about one temp.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use super::container_pids::ContainerPids;
use super::flushed_targets::FlushedTargets;
use super::guard::{GuardChecks, GuardContext};
use super::holders::{FileId, ProcessScan};
use super::locks::Locks;
use super::restore_marks::RestoreMarks;
use super::siblings::{Siblings, find_main};
use super::system::{self, CheckedFile};
use super::target::{ComparedTemp, FoundTarget, SharedTargets, find_target, find_target_name};
use crate::core::judge::{DirProperties, Evidence, Target, Writer};
use crate::core::observation::{Fingerprint, Observation, UseState};
use crate::core::policy;
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::temp_name::ParsedName;
use crate::core::time::Mono;
use crate::fs::dir::Dir;
use crate::sys::clock;

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
    /// The rule does not take the name, and only a learned shape does.
    pub by_shape: bool,
    /// A close by a writer was reported.
    pub closed: bool,
    /// The part that it has in a set.
    pub role: Role,
}

/// The part that a file has in a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It is in no set.
    #[default]
    Single,
    /// It is the main file, and its companions have this size together, in bytes.
    Main {
        /// The size of the companions.
        companion_bytes: u64,
    },
    /// It is a companion.
    Companion,
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
    /// The guard files that were checked in this pass.
    pub guards: &'a GuardChecks,
    /// The start of this pass. Each temp that is judged in it was seen unchanged at an earlier look.
    pub since: Mono,
    /// A quarantine exists or can be created.
    pub quarantine: bool,
    /// A scan of all processes, on file systems where a lease does not cover mappings.
    pub process_scan: Option<&'a ProcessScan>,
    /// The targets that are on the disk. `None` if nothing will be removed.
    pub flushed: Option<&'a FlushedTargets>,
}

impl<'a> EvidenceContext<'a> {
    /// Returns the facts that the check of the guard files of a temp in `dir` needs.
    #[must_use]
    pub fn for_guards<'b>(&self, dir: &'b Dir, name: &'b OsStr) -> GuardContext<'b>
    where
        'a: 'b,
    {
        GuardContext {
            dir,
            name,
            policy: self.policy,
            our_uid: self.our_uid,
            locks: self.locks,
        }
    }
}

/// Returns the state of the process with the pid in the name. If it is gone, or if the name has none, the pids that other
/// grammars read in the name count too.
fn writer(temp_info: &TempInfo, file_use: FileUse<'_>, context: EvidenceContext<'_>) -> Writer {
    let pid = temp_info.parsed.pid;
    if !file_use.is_needed {
        return pid.map_or(Writer::NoPid, Writer::Unknown);
    }
    let state_of = |pid| writer_of(pid, temp_info, context);
    let writer = pid.map_or(Writer::NoPid, state_of);
    if !matches!(writer, Writer::NoPid | Writer::Gone(_)) {
        return writer;
    }
    let others = context.policy.names.other_pids(&temp_info.name, pid);
    let mut others = others.into_iter().map(state_of);
    let running = others.find(|other| !matches!(other, Writer::Gone(_)));
    rule!("pid-of-each-writer", running, without: None).unwrap_or(writer)
}

/// Returns the state of the process with the pid `pid`, in this pid namespace or in a child namespace, as a possible
/// writer of the temp.
fn writer_of(pid: u32, temp_info: &TempInfo, context: EvidenceContext<'_>) -> Writer {
    let can_have = |pid| matches!(system::writer(pid, temp_info.written), Writer::Alive(_));
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
    /// What is known about its target.
    pub target: KnownTarget<'a>,
    /// False if the temp is kept whatever the evidence about its use, its writer and its target is. Then this evidence is
    /// not gathered, and counts as unknown.
    pub is_needed: bool,
}

/// What is known about the target of a temp before its evidence is gathered.
#[derive(Clone, Copy, Debug)]
pub enum KnownTarget<'a> {
    /// Nothing.
    Nothing,
    /// Other temps may have looked at it a moment ago.
    Shared(&'a SharedTargets),
    /// The look before the protocol found it.
    Found(FoundTarget),
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
    let found = target_of(dir, temp_info, &seen, file_use, context)?;
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
        writer: writer(temp_info, file_use, context),
        closed: temp_info.closed,
        use_state: use_state(file_use, &fingerprint, context),
        opened: rule!("unopened-is-not-asked", checked.is_some(), without: true),
        mappings_examined: context
            .process_scan
            .is_some_and(|process_scan| process_scan.proves_unmapped(file)),
        companion_bytes: companion_bytes(temp_info),
        target: found.target,
        // `Unknown` with an index means that another file has a similar name.
        discarded: temp_info.parsed.is_discarded_in(dir.path())
            && (found.index.is_none() || found.target != Target::Unknown),
        superseded: false,
        by_shape: temp_info.by_shape,
        random_name: has_random_name(temp_info, &fingerprint, context.policy),
        has_attributes: match checked {
            Some(checked) if fingerprint.size == 0 => system::has_attributes(checked.file())?,
            _ => false,
        },
        restored: match checked {
            Some(checked) => context.marks.has(checked.file(), &fingerprint)?,
            None => false,
        },
        reserved: reserved(dir, temp_info, context)?,
        guard: match file_use.is_needed {
            true => (context.guards).check(context.for_guards(dir, &temp_info.name)),
            false => None,
        },
    };
    Ok((evidence, found))
}

/// Looks for the target of the temp, and compares it with the temp if that is needed.
fn target_of(
    dir: &Dir,
    temp_info: &TempInfo,
    seen: &Observation,
    file_use: FileUse<'_>,
    context: EvidenceContext<'_>,
) -> io::Result<FoundTarget> {
    let shared = match file_use.target {
        KnownTarget::Found(found) => return Ok(found),
        KnownTarget::Shared(shared) => Some(shared),
        KnownTarget::Nothing => None,
    };
    let temp = ComparedTemp {
        seen,
        file: file_use.file.map(CheckedFile::file),
        companion_bytes: companion_bytes(temp_info),
        shared,
        // The protocol writes a shared target to the disk before it claims the temps.
        flushed: context.flushed.filter(|_| shared.is_none()),
    };
    match file_use.is_needed {
        true => find_target(dir, context.policy, &temp_info.parsed, temp),
        false => find_target_name(dir, context.policy, &temp_info.parsed, temp),
    }
}

fn companion_bytes(temp_info: &TempInfo) -> u64 {
    match temp_info.role {
        Role::Main { companion_bytes } => companion_bytes,
        Role::Single | Role::Companion => 0,
    }
}

/// Returns why the name of the temp is reserved.
fn reserved(
    dir: &Dir,
    temp_info: &TempInfo,
    context: EvidenceContext<'_>,
) -> io::Result<Option<Reserved>> {
    let by_name = temp_info.reserved.clone();
    let reserved = by_name.or_else(|| context.siblings.protect(&temp_info.name));
    match (reserved, temp_info.role) {
        // A companion is only taken together with its temp, also if the rule names it.
        (None, Role::Single | Role::Main { .. }) => {
            let main = find_main(dir, &context.policy.names, &temp_info.name)?;
            Ok(main.map(Reserved::CompanionOf))
        }
        (reserved, _) => Ok(reserved),
    }
}

/// Returns the use state of the temp. A file in use may be locked too.
fn use_state(
    file_use: FileUse<'_>,
    fingerprint: &Fingerprint,
    context: EvidenceContext<'_>,
) -> UseState {
    if !file_use.is_needed {
        return UseState::Unknown;
    }
    let is_locked = || {
        let by_file = system::is_locked(file_use.file);
        by_file.unwrap_or_else(|| context.locks.is_locked(fingerprint))
    };
    match file_use.state {
        UseState::InUse | UseState::Unknown if is_locked() => UseState::Locked,
        // A process that locks the file has it open, so an unused file is not locked.
        state => state,
    }
}

/// Reports whether the name of the temp has a random part.
///
/// Digits that look like a date may be part of the name of a file whose existence is the message. Only an empty file
/// can be such a flag.
fn has_random_name(temp_info: &TempInfo, fingerprint: &Fingerprint, policy: &Policy) -> bool {
    temp_info.parsed.is_random
        && rule!(
            "empty-file-may-be-flag",
            fingerprint.size > 0 || policy.names.form(&temp_info.name) != temp_info.name,
            without: true,
        )
}
