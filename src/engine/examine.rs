//! Looks at one temp, and judges it without its history.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::context::{DirContext, Engine};
use crate::core::event::Details;
use crate::core::judge::{Evidence, GuardFile, LeaseCoverage, Reason, Verdict, judge};
use crate::core::observation::{Kind, Observation, UseState};
use crate::core::policy::Policy;
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::Siblings;
use crate::evidence::{self, CheckedFile, EvidenceContext, FileId, FileUse, TempInfo, UseChecker};
use crate::fs::dir;
use crate::fs::dir::Dir;
use crate::sys::clock;

/// The result of [`look_at`].
pub(super) enum LookResult {
    /// No file has this name.
    Missing,
    /// The name refers to something that is never a temp.
    NotATemp,
    /// A regular file.
    File(SeenFile),
}

/// A regular file that was looked at.
pub(super) struct SeenFile {
    pub(super) observation: Observation,
    pub(super) use_state: UseState,
    /// Its handle, if it was opened.
    pub(super) checked: Option<CheckedFile>,
}

impl SeenFile {
    pub(super) fn file_use(&self) -> FileUse<'_> {
        FileUse {
            state: self.use_state,
            file: self.checked.as_ref(),
        }
    }
}

/// Observes the file `name`, and checks whether a process uses it if it can be a temp of this user. Changes no state
/// and gathers no other evidence.
pub(super) fn look_at(
    dir: &Dir,
    name: &OsStr,
    policy: &Policy,
    use_checker: &UseChecker,
    our_uid: u32,
) -> io::Result<LookResult> {
    let Some(first) = dir.observe(name)? else {
        return Ok(LookResult::Missing);
    };
    let file = &first.fingerprint;
    if rule!("only-files-are-temps", file.kind != Kind::File) {
        return Ok(LookResult::NotATemp);
    }
    let unopened = |use_state| {
        LookResult::File(SeenFile {
            observation: first,
            use_state,
            checked: None,
        })
    };
    let is_ours = our_uid == 0 || file.uid == our_uid;
    // A file of another user gives no lease. A file whose data is stored elsewhere would be fetched if it were opened.
    // On a file system whose proof does not count, the check would have no meaning.
    if !is_ours || first.dataless || !dir.properties().has_proof(policy) {
        return Ok(unopened(UseState::Unknown));
    }
    let opened = match evidence::open_for_check(dir, name) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(LookResult::Missing),
                // A lease of another process prevents the open: that process is a holder.
                io::ErrorKind::WouldBlock => Ok(unopened(UseState::InUse)),
                io::ErrorKind::PermissionDenied => Ok(unopened(UseState::Unknown)),
                _ => Err(error),
            };
        }
    };
    let (use_state, checked) = use_checker.check(opened);
    Ok(LookResult::File(SeenFile {
        observation: dir::observe_fd(checked.file())?,
        use_state,
        checked: Some(checked),
    }))
}

/// The result of [`judge_now`].
#[derive(Debug)]
pub struct Examined {
    /// The path of the temp.
    pub path: PathBuf,
    /// The path of its target.
    pub target: Option<PathBuf>,
    /// Its name and ages.
    pub temp_info: TempInfo,
    /// The evidence for the verdict.
    pub evidence: Evidence,
    /// The verdict.
    pub verdict: Verdict,
    /// Details for messages.
    pub details: Details,
}

/// A directory whose temps are looked at once.
#[derive(Clone, Copy, Debug)]
pub struct ScannedDir<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// A quarantine exists or can be created.
    pub has_quarantine: bool,
    /// The guard files that were checked for its temps.
    pub guards: &'a GuardChecks,
}

/// Looks at a temp once, gathers its evidence, and returns the verdict that it would get now, for `scan` and `explain`.
/// No tracking state is used.
pub fn judge_now(
    engine: &Engine,
    dir_context: DirContext<'_>,
    scanned: ScannedDir<'_>,
    use_checker: &UseChecker,
    name: &OsStr,
) -> io::Result<Option<Examined>> {
    let dir = scanned.dir;
    let policy = &dir_context.root.policy;
    let parsed = policy.names.parse(name);
    let no_siblings = Siblings::default();
    let context = engine.evidence_context(policy, &no_siblings, scanned.guards);
    let LookResult::File(seen) = look_at(dir, name, policy, use_checker, context.our_uid)? else {
        return Ok(None);
    };
    let now = clock::now();
    let file = &seen.observation.fingerprint;
    let lag = dir.properties().dates.lag(file);
    let quiet = now.wall.since(file.newest()).saturating_sub(lag);
    let siblings = engine.listings.siblings_of(dir, policy, 1)?;
    let temp_info = TempInfo {
        name: name.to_owned(),
        reserved: policy.names.reserved(name.as_bytes()),
        grace: policy.grace_of(&parsed, file.size == 0, lag),
        parsed: siblings.apply_numbered(parsed),
        expected: None,
        quiet,
        unused: quiet.min(now.mono.since_boot()),
        written: None,
        closed: false,
    };
    let coverage = dir.lease_coverage();
    let needs_scan = coverage == LeaseCoverage::OpensOnly && seen.use_state == UseState::Unused;
    let process_scan =
        needs_scan.then(|| evidence::scan_processes(&[FileId::from(file)], coverage));
    let context = EvidenceContext {
        siblings: &siblings,
        since: now.mono,
        quarantine: scanned.has_quarantine,
        process_scan: process_scan.as_ref(),
        ..context
    };
    let (evidence, found) =
        evidence::gather(dir, &temp_info, seen.observation, seen.file_use(), context)?;
    let verdict = judge(&evidence, policy);
    let target = evidence::target_name(&temp_info.parsed, found.index);
    Ok(Some(Examined {
        details: match verdict {
            Verdict::Keep(reason) => Details {
                guard: guard_for(&evidence, reason).map(|guard| guard.path.clone()),
                ..details(engine, policy, dir, name, &evidence.observation, reason)
            },
            _ => Details::default(),
        },
        target: target.map(|name| dir_context.path(name)),
        path: dir_context.path(name),
        temp_info,
        evidence,
        verdict,
    }))
}

/// Returns the details, for messages, of a temp that is kept for `reason`.
pub(super) fn details(
    engine: &Engine,
    policy: &Policy,
    dir: &Dir,
    name: &OsStr,
    seen: &Observation,
    reason: Reason,
) -> Details {
    let parsed = policy.names.parse(name);
    let file = &seen.fingerprint;
    if let Some(pid) = parsed.pid {
        engine.writers.learn(pid, file.uid);
    }
    let process = engine.writers.process_of(FileId::from(file), parsed.pid);
    let pid = parsed.pid.filter(|_| reason == Reason::WriterAlive);
    let writer = pid.and_then(|_| process.as_ref()?.name.clone());
    Details {
        file_system: dir.properties().file_system.to_string(),
        writer_pid: pid,
        writer,
        process,
        is_dataless: seen.dataless,
        quiet: clock::wall().since(file.newest()),
        grace: policy.grace_of(&parsed, file.size == 0, dir.properties().dates.lag(file)),
        guard: None,
    }
}

/// Returns the guard file if it, and not the temp itself, is the cause of `reason`.
pub(super) fn guard_for(evidence: &Evidence, reason: Reason) -> Option<&GuardFile> {
    let guard = evidence.guard.as_ref();
    guard.filter(|guard| guard.state.reason() == Some(reason) && !evidence.use_state.is_held())
}
