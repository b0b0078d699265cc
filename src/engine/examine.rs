//! Looks at one temp, and judges it without its history.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::context::{DirContext, Engine};
use super::look::{LookResult, SeenFile, look_at, open_listed};
use super::sets::{self, ExaminedMember, SeenMember, SetContext, SetState};
use crate::core::event::Details;
use crate::core::judge::{
    self, Evidence, GuardFile, LeaseCoverage, Reason, Verdict, is_too_young, judge_set,
};
use crate::core::observation::{Observation, UseState};
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::temp_name::ParsedName;
use crate::core::time::Now;
use crate::evidence::guard::GuardChecks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::Siblings;
use crate::evidence::{
    self, EvidenceContext, FileId, FileUse, KnownTarget, ProcessScan, Role, SharedTargets,
    TempInfo, UseChecker,
};
use crate::fs::dir::Dir;
use crate::sys::clock;

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
    /// Its companions.
    pub companions: Vec<ExaminedMember>,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason for which the temp would not be removed if a setting of its rule did not allow it.
    pub allowed: Option<Reason>,
    /// Details for messages.
    pub details: Details,
}

/// A directory whose temps are looked at once, with the facts that all of them have in common.
#[derive(Debug)]
pub struct ScannedDir<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// Its root, and its path below the root.
    pub context: DirContext<'a>,
    /// A quarantine exists or can be created.
    pub has_quarantine: bool,
    /// The other names in the directory.
    pub siblings: Siblings,
    marks: RestoreMarks,
    our_uid: u32,
}

impl<'a> ScannedDir<'a> {
    /// Returns the directory `dir`, in which `siblings` were found.
    ///
    /// A file gets its mark before `restore` gives it its name back, so the marks of all names that were found before
    /// this call are read.
    #[must_use]
    pub fn new(
        engine: &Engine,
        dir: &'a Dir,
        context: DirContext<'a>,
        siblings: Siblings,
        has_quarantine: bool,
    ) -> ScannedDir<'a> {
        ScannedDir {
            dir,
            context,
            has_quarantine,
            siblings,
            marks: engine.marks.with_list_read(),
            our_uid: rustix::process::geteuid().as_raw(),
        }
    }

    fn set_context<'b>(&'b self, checks: &'b SharedChecks) -> SetContext<'b> {
        SetContext {
            dir: self.dir,
            below: self.context.below,
            policy: &self.context.root.policy,
            use_checker: &checks.use_checker,
            our_uid: self.our_uid,
        }
    }
}

/// The checks that temps of one directory share, in one thread.
#[derive(Debug, Default)]
pub struct SharedChecks {
    use_checker: UseChecker,
    guards: GuardChecks,
    targets: SharedTargets,
    /// A listing of the directory has shown the temps to be regular files.
    are_listed: bool,
}

impl SharedChecks {
    /// Returns the checks for temps that a listing of the directory has shown to be regular files.
    pub(super) fn of_listed() -> SharedChecks {
        SharedChecks {
            are_listed: true,
            ..SharedChecks::default()
        }
    }
}

/// The facts about a temp that follow from the names in its directory.
struct NamedTemp<'a> {
    name: &'a OsStr,
    parsed: ParsedName,
    companions: BTreeSet<OsString>,
    reserved: Option<Reserved>,
}

/// A temp that was looked at, and its age at that time.
struct AgedTemp {
    seen: SeenFile,
    now: Now,
    quiet: Duration,
    grace: Duration,
}

impl<'a> NamedTemp<'a> {
    fn new(
        scanned: &ScannedDir<'_>,
        set_context: SetContext<'_>,
        name: &'a OsStr,
    ) -> NamedTemp<'a> {
        let names = &scanned.context.root.policy.names;
        let companions = scanned.siblings.companions_of(name);
        let by_name = names.reserved(name.as_bytes());
        NamedTemp {
            name,
            parsed: names.parse(name),
            reserved: by_name.or_else(|| sets::reserved(set_context, name, &companions)),
            companions,
        }
    }

    /// Returns what is known about the temp before its evidence is gathered.
    fn into_temp_info(
        self,
        scanned: &ScannedDir<'_>,
        aged: &AgedTemp,
        members: &[SeenMember],
    ) -> io::Result<TempInfo> {
        let names = &scanned.context.root.policy.names;
        let uid = aged.seen.observation.fingerprint.uid;
        let parsed = (scanned.siblings).apply(self.parsed, names, self.name, uid);
        Ok(TempInfo {
            name: self.name.to_owned(),
            reserved: self.reserved,
            grace: aged.grace,
            role: match members.is_empty() {
                true => Role::Single,
                false => Role::Main {
                    companion_bytes: sets::bytes_of(members),
                },
            },
            parsed: evidence::with_longer_target(scanned.dir, parsed)?,
            expected: None,
            quiet: aged.quiet,
            unused: aged.quiet.min(aged.now.mono.since_boot()),
            by_shape: false,
            written: None,
            closed: false,
        })
    }

    /// Looks at the temp. Skips the check whether a process uses it if the verdict does not depend on that. So a scan
    /// disturbs no writer that is still at work: a lease would delay the next open of the file.
    fn look(
        &self,
        scanned: &ScannedDir<'_>,
        checks: &SharedChecks,
    ) -> io::Result<Option<AgedTemp>> {
        let (dir, our_uid) = (scanned.dir, scanned.our_uid);
        let policy = &scanned.context.root.policy;
        let use_checker = &checks.use_checker;
        let opened = match checks.are_listed {
            true => open_listed(dir, self.name, policy, use_checker, our_uid)?,
            false => None,
        };
        if let Some(seen) = opened {
            let aged = self.at_age(seen, scanned);
            return Ok(Some(match self.is_kept_at(&aged) {
                true => aged,
                false => AgedTemp {
                    seen: aged.seen.with_check(use_checker),
                    ..aged
                },
            }));
        }
        Ok(
            match look_at(dir, self.name, policy, use_checker, our_uid)? {
                LookResult::File(seen) => Some(self.at_age(seen, scanned)),
                LookResult::Missing | LookResult::NotATemp => None,
            },
        )
    }

    /// Reports whether the temp is kept whatever else is found out about it, apart from a mark of `restore`.
    fn is_kept_at(&self, aged: &AgedTemp) -> bool {
        // The grace of a set runs from the last change of any of its files.
        let is_young = self.companions.is_empty() && is_too_young(aged.quiet, aged.grace);
        self.reserved.is_some() || is_young
    }

    fn at_age(&self, seen: SeenFile, scanned: &ScannedDir<'_>) -> AgedTemp {
        let now = clock::now();
        let file = &seen.observation.fingerprint;
        let lag = scanned.dir.properties().dates.lag(file);
        let is_empty = file.size == 0 && self.companions.is_empty();
        let policy = &scanned.context.root.policy;
        AgedTemp {
            now,
            quiet: now.wall.since(file.newest()).saturating_sub(lag),
            grace: policy.grace_of(&self.parsed, is_empty, lag),
            seen,
        }
    }
}

/// Looks at a temp once, gathers its evidence, and returns the verdict that it would get now, for `scan` and `explain`.
/// No tracking state is used.
pub fn judge_now(
    engine: &Engine,
    scanned: &ScannedDir<'_>,
    checks: &SharedChecks,
    name: &OsStr,
) -> io::Result<Option<Examined>> {
    let (dir, dir_context) = (scanned.dir, scanned.context);
    let policy = &dir_context.root.policy;
    let set_context = scanned.set_context(checks);
    let named = NamedTemp::new(scanned, set_context, name);
    let Some(aged) = named.look(scanned, checks)? else {
        return Ok(None);
    };
    let set = match named.reserved {
        Some(_) => SetState::Single,
        None => sets::look_once(set_context, &named.companions, aged.now, aged.grace)?,
    };
    let (members, fault) = match set {
        SetState::Ready(members) => (members, None),
        SetState::Kept(reason) => (Vec::new(), Some(reason)),
        _ => (Vec::new(), None),
    };
    let temp_info = named.into_temp_info(scanned, &aged, &members)?;
    let process_scan = scan_processes(dir.lease_coverage(), &aged.seen, &members);
    let context = EvidenceContext {
        policy,
        our_uid: scanned.our_uid,
        marks: &scanned.marks,
        container_pids: &engine.container_pids,
        locks: &engine.locks,
        siblings: &scanned.siblings,
        guards: &checks.guards,
        since: aged.now.mono,
        quarantine: scanned.has_quarantine,
        process_scan: process_scan.as_ref(),
        flushed: None,
    };
    let file_use = FileUse {
        target: KnownTarget::Shared(&checks.targets),
        ..aged.seen.file_use()
    };
    let (evidence, found) =
        evidence::gather(dir, &temp_info, aged.seen.observation, file_use, context)?;
    let companions = sets::gather_members(dir, &members, context)?;
    let verdict = match fault {
        Some(reason) => Verdict::Keep(reason),
        None => judge_set(&evidence, &companions, policy, evidence::HAS_LEASES),
    };
    let target = evidence::target_name(&temp_info.parsed, found.index);
    let member = |(member, evidence): (&SeenMember, Evidence)| ExaminedMember {
        path: dir_context.path(&member.temp_info.name),
        evidence,
    };
    let details = match verdict {
        Verdict::Keep(reason) => Details {
            guard: guard_for(&evidence, reason).map(|guard| guard.path.clone()),
            ..details(
                engine,
                policy,
                dir,
                &temp_info.parsed,
                &evidence.observation,
                reason,
            )
        },
        _ => Details::default(),
    };
    Ok(Some(Examined {
        companions: members.iter().zip(companions).map(member).collect(),
        details,
        target: target.map(|name| dir_context.path(name)),
        path: dir_context.path(name),
        temp_info,
        allowed: match verdict {
            Verdict::Reap => judge::allowed(&evidence, policy),
            _ => None,
        },
        evidence,
        verdict,
    }))
}

/// Searches the mappings of all processes for a temp and its companions, if a lease does not tell about mappings.
fn scan_processes(
    coverage: LeaseCoverage,
    seen: &SeenFile,
    members: &[SeenMember],
) -> Option<ProcessScan> {
    if coverage != LeaseCoverage::OpensOnly || seen.use_state != UseState::Unused {
        return None;
    }
    let observed = members.iter().map(|member| &member.seen.observation);
    let files = std::iter::once(&seen.observation).chain(observed);
    let files: Vec<FileId> = files.map(|seen| FileId::from(&seen.fingerprint)).collect();
    Some(evidence::scan_processes(&files, coverage))
}

/// Returns the details, for messages, of a temp that is kept for `reason`.
pub(super) fn details(
    engine: &Engine,
    policy: &Policy,
    dir: &Dir,
    parsed: &ParsedName,
    seen: &Observation,
    reason: Reason,
) -> Details {
    let file = &seen.fingerprint;
    if let Some(pid) = parsed.pid {
        engine.writers.learn(pid, file.uid);
    }
    let process = engine.writers.process_of(FileId::from(file), parsed.pid);
    let pid = parsed.pid.filter(|_| reason == Reason::WriterAlive);
    let writer = pid.and_then(|_| process.as_ref()?.name.clone());
    Details {
        file_system: Arc::clone(&dir.properties().file_system),
        writer_pid: pid,
        writer,
        process,
        is_dataless: seen.dataless,
        quiet: clock::wall().since(file.newest()),
        grace: policy.grace_of(parsed, file.size == 0, dir.properties().dates.lag(file)),
        guard: None,
    }
}

/// Returns the guard file if it, and not the temp itself, is the cause of `reason`.
pub(super) fn guard_for(evidence: &Evidence, reason: Reason) -> Option<&GuardFile> {
    let guard = evidence.guard.as_ref();
    guard.filter(|guard| guard.state.reason() == Some(reason) && !evidence.use_state.is_held())
}
