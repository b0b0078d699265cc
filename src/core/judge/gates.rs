//! The conditions that a temp must meet before it is removed, in their order.

use std::time::Duration;

use super::evidence::{Evidence, LeaseCoverage, Writer};
use super::verdict::Reason;
use crate::core::observation::{Kind, UseState};
use crate::core::policy::{Closed, Open, PID_VALIDITY, Policy, SoleCopy};
use crate::core::target::Target;
use crate::core::time::span;

/// The result of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateResult {
    /// The temp passes the gate.
    Pass,
    /// The temp passes the gate only because a setting of the rule allows its removal.
    Allow(Reason),
    /// The temp is kept.
    Keep(Reason),
    /// The temp may be moved to the quarantine, but must not be destroyed.
    Quarantine(Reason),
}

impl GateResult {
    /// Returns whether the temp passes the gate.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, GateResult::Pass | GateResult::Allow(_))
    }
}

/// One condition that a temp must meet before it is removed.
pub struct Gate {
    /// The condition, in words. It is also the id of the rule in `tests/rules`.
    pub name: &'static str,
    check: fn(&Evidence, &Policy) -> GateResult,
    describe: fn(&Evidence) -> String,
}

impl Gate {
    /// Checks the condition.
    #[must_use]
    pub fn check(&self, evidence: &Evidence, policy: &Policy) -> GateResult {
        rule!(self.name, (self.check)(evidence, policy), without: GateResult::Pass)
    }

    /// Describes the evidence that the gate's result is based on.
    #[must_use]
    pub fn describe(&self, evidence: &Evidence) -> String {
        (self.describe)(evidence)
    }
}

const fn gate(
    name: &'static str,
    check: fn(&Evidence, &Policy) -> GateResult,
    describe: fn(&Evidence) -> String,
) -> Gate {
    Gate {
        name,
        check,
        describe,
    }
}

/// All gates, in the order in which they are checked. `tests/without-each-rule` leaves out one at a time.
pub static GATES: &[Gate] = &[
    gate("not restored", check_restored, describe_restored),
    gate("name not reserved", check_name, describe_name),
    gate("quiet for its grace", check_grace, describe_grace),
    gate("unchanged", check_unchanged, describe_unchanged),
    gate("regular file", check_kind, describe_kind),
    gate("same mount as its directory", check_mount, describe_mount),
    gate(
        "not protected, data on this disk",
        check_protected,
        describe_protected,
    ),
    gate("one link", check_links, describe_links),
    gate("supported file system", check_fs, describe_fs),
    gate("same owner, or run as root", check_owner, describe_owner),
    gate("writer gone", check_writer, describe_writer),
    gate("not ignored after a close", check_close, describe_close),
    gate("not locked", check_locks, describe_locks),
    gate("not open or mapped", check_use, describe_use),
    gate("use state known", check_use_known, describe_use_known),
    gate("unless_open file unused", check_guard, describe_guard),
    gate("mappings covered", check_mappings, describe_mappings),
    gate("not the only copy", check_only_copy, describe_only_copy),
];

/// The name of the gate that is not asked of companions.
pub(super) const ONLY_COPY: &str = "not the only copy";

fn keep_if(condition: bool, reason: Reason) -> GateResult {
    if condition {
        GateResult::Keep(reason)
    } else {
        GateResult::Pass
    }
}

fn check_restored(e: &Evidence, _: &Policy) -> GateResult {
    keep_if(e.restored, Reason::Restored)
}

fn describe_restored(e: &Evidence) -> String {
    match e.restored {
        true => "orphand restore put it back, and it has not changed since".into(),
        false => "it has no mark of a restored file".into(),
    }
}

fn check_name(e: &Evidence, _: &Policy) -> GateResult {
    keep_if(e.reserved.is_some(), Reason::Reserved)
}

fn describe_name(e: &Evidence) -> String {
    match &e.reserved {
        Some(reserved) => reserved.to_string(),
        None => "its name is not reserved".into(),
    }
}

fn check_grace(e: &Evidence, _: &Policy) -> GateResult {
    let is_young = is_too_young(e.quiet, e.grace);
    keep_if(rule!("both-looks-and-the-grace", is_young), Reason::Young)
}

/// Reports whether a temp that has been quiet for this time is kept because of its age. Then no later gate counts.
#[must_use]
pub fn is_too_young(quiet: Duration, grace: Duration) -> bool {
    quiet < grace
}

fn describe_grace(e: &Evidence) -> String {
    format!(
        "quiet for {}; its grace is {}",
        span(e.quiet),
        span(e.grace)
    )
}

fn check_unchanged(e: &Evidence, _: &Policy) -> GateResult {
    let same = e
        .expected
        .is_none_or(|expected| expected == e.observation.fingerprint);
    keep_if(!same, Reason::Changed)
}

fn describe_unchanged(e: &Evidence) -> String {
    let f = &e.observation.fingerprint;
    let looks = match e.expected {
        None => "one look",
        Some(expected) if expected == *f => "the same at two looks",
        Some(_) => "changed between two looks",
    };
    format!("{looks}: inode {}, {} bytes", f.ino, f.size)
}

fn check_kind(e: &Evidence, _: &Policy) -> GateResult {
    let regular = e.observation.fingerprint.kind == Kind::File;
    keep_if(!regular, Reason::NotRegular)
}

fn describe_kind(e: &Evidence) -> String {
    match e.observation.fingerprint.kind {
        Kind::File => "a regular file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Other => "a FIFO, a socket or a device",
    }
    .into()
}

/// Compares mount ids, if the system has them. The device number does not suffice: on overlayfs a file and its
/// directory may have different ones permanently, and a bind mount of the same file system has the same one.
fn check_mount(e: &Evidence, _: &Policy) -> GateResult {
    let same = match (e.observation.mount, e.dir.mount) {
        (Some(file), Some(dir)) => file == dir,
        _ => e.observation.fingerprint.dev == e.dir.dev,
    };
    keep_if(!same || e.observation.mount_root, Reason::OtherMount)
}

fn describe_mount(e: &Evidence) -> String {
    let mount = |id: Option<u64>| {
        id.map_or_else(
            || "a mount without an id".into(),
            |id| format!("mount {id}"),
        )
    };
    let (file, dir) = (mount(e.observation.mount), mount(e.dir.mount));
    format!("the file is on {file}, its directory on {dir}")
}

fn check_protected(e: &Evidence, _: &Policy) -> GateResult {
    keep_if(
        e.observation.protected || e.observation.dataless,
        Reason::Protected,
    )
}

fn describe_protected(e: &Evidence) -> String {
    match (e.observation.protected, e.observation.dataless) {
        (true, _) => "immutable or append-only",
        (_, true) => "its data is not on this disk",
        (false, false) => "neither immutable nor append-only",
    }
    .into()
}

/// A second link is allowed if it is the temp's own target: the writer linked the temp and was killed before the
/// unlink.
fn check_links(e: &Evidence, _: &Policy) -> GateResult {
    let links = e.observation.fingerprint.links;
    let own_target = links == 2 && e.target == Target::Whole { same_file: true };
    keep_if(links != 1 && !own_target, Reason::HardLinked)
}

fn describe_links(e: &Evidence) -> String {
    match (e.observation.fingerprint.links, e.target) {
        (1, _) => "1 link".into(),
        (2, Target::Whole { same_file: true }) => "2 links; the other one is its target".into(),
        (n, _) => format!("{n} links"),
    }
}

fn check_fs(e: &Evidence, policy: &Policy) -> GateResult {
    keep_if(!e.dir.has_proof(policy), Reason::NetworkFs)
}

fn describe_fs(e: &Evidence) -> String {
    format!("file system {}", e.dir.file_system)
}

fn check_owner(e: &Evidence, _: &Policy) -> GateResult {
    let ours = e.our_uid == 0 || e.observation.fingerprint.uid == e.our_uid;
    keep_if(!ours, Reason::ForeignOwner)
}

fn describe_owner(e: &Evidence) -> String {
    let owner = e.observation.fingerprint.uid;
    format!("owned by uid {owner}; orphand runs as uid {}", e.our_uid)
}

fn check_writer(e: &Evidence, _: &Policy) -> GateResult {
    let may_be_running = match e.writer {
        Writer::NoPid | Writer::Gone(_) => false,
        Writer::Alive(_) | Writer::InContainer(_) | Writer::Unknown(_) => true,
    };
    let counts = rule!("pid-counts-for-a-day", e.unused < PID_VALIDITY, without: true);
    keep_if(may_be_running && counts, Reason::WriterAlive)
}

fn describe_writer(e: &Evidence) -> String {
    let process = match e.writer {
        Writer::NoPid => return "its name contains no pid".into(),
        Writer::Gone(pid) => {
            return format!("no running process with pid {pid} can have written it");
        }
        Writer::Alive(pid) => format!("pid {pid} is running"),
        Writer::InContainer(pid) => format!("pid {pid} of a container is running"),
        Writer::Unknown(pid) => format!("pid {pid} of a container may be running"),
    };
    match e.writer {
        _ if e.unused >= PID_VALIDITY => {
            format!("{process}, but the file has not been used for 24 h")
        }
        Writer::Unknown(_) => format!("{process}; this cannot be checked"),
        _ => process,
    }
}

fn check_close(e: &Evidence, policy: &Policy) -> GateResult {
    let is_ignored =
        policy.closed == Closed::Settled && (e.closed || e.use_state == UseState::Unused);
    keep_if(is_ignored, Reason::Closed)
}

fn describe_close(e: &Evidence) -> String {
    match (e.closed, e.use_state) {
        (true, _) => "a close was reported",
        (false, UseState::Unused) => "no process has it open",
        (false, _) => "no close was reported",
    }
    .into()
}

/// Keeps locked temps. If the rule removes or moves open temps, a lock is the only kind of use that still keeps one, so
/// a temp whose locks cannot be checked is kept too.
fn check_locks(e: &Evidence, policy: &Policy) -> GateResult {
    match e.use_state {
        UseState::Locked => GateResult::Keep(Reason::Locked),
        UseState::InUse | UseState::Unknown
            if rule!("unseen-locks-keep", !e.opened && policy.open != Open::Keep) =>
        {
            GateResult::Keep(Reason::CannotTell)
        }
        UseState::InUse | UseState::Unknown | UseState::Unused => GateResult::Pass,
    }
}

fn describe_locks(e: &Evidence) -> String {
    match (e.use_state, e.opened) {
        (UseState::InUse | UseState::Unknown, false) => "its locks cannot be checked".into(),
        (UseState::InUse | UseState::Unknown, true) => {
            "no lock was found; locks are checked again before the removal".into()
        }
        _ => describe_use(e),
    }
}

/// Returns the action for an open temp. One that only a learned shape takes is kept, whatever the rule says.
fn open_action(e: &Evidence, policy: &Policy) -> Open {
    match rule!("shape-takes-only-unused", e.by_shape) {
        true => Open::Keep,
        false => policy.open,
    }
}

fn check_use(e: &Evidence, policy: &Policy) -> GateResult {
    match (e.use_state.is_held(), open_action(e, policy)) {
        (false, _) => GateResult::Pass,
        (true, Open::Reap) => GateResult::Allow(Reason::InUse),
        (true, Open::Quarantine) => GateResult::Quarantine(Reason::InUse),
        (true, Open::Keep) => GateResult::Keep(Reason::InUse),
    }
}

fn describe_use(e: &Evidence) -> String {
    match e.use_state {
        UseState::Unused => "no process on this kernel has it open or mapped",
        UseState::InUse => "a process has it open or mapped",
        UseState::Locked => "a process holds a lock on it",
        UseState::Unknown => "no process was found that has it open or mapped",
    }
    .into()
}

/// Only `open = "reap"` needs no proof.
fn check_use_known(e: &Evidence, policy: &Policy) -> GateResult {
    match (e.use_state, open_action(e, policy)) {
        (UseState::Unknown, Open::Reap) => GateResult::Allow(Reason::CannotTell),
        (UseState::Unknown, _) => GateResult::Keep(Reason::CannotTell),
        _ => GateResult::Pass,
    }
}

fn describe_use_known(e: &Evidence) -> String {
    match e.use_state {
        UseState::Unknown => "the kernel gave no conclusive answer",
        _ => "the kernel gave a conclusive answer",
    }
    .into()
}

/// No setting of the rule weakens this gate, not even `open = "reap"`.
fn check_guard(e: &Evidence, _: &Policy) -> GateResult {
    let guard = e.guard.as_ref();
    match guard.and_then(|guard| guard.state.reason()) {
        Some(reason) => GateResult::Keep(reason),
        None => GateResult::Pass,
    }
}

fn describe_guard(e: &Evidence) -> String {
    match &e.guard {
        Some(guard) => guard.describe(),
        None => "its rule has no unless_open".into(),
    }
}

fn check_mappings(e: &Evidence, policy: &Policy) -> GateResult {
    let is_uncovered = e.dir.lease_coverage == LeaseCoverage::OpensOnly && !e.mappings_examined;
    match open_action(e, policy) {
        Open::Reap => GateResult::Pass,
        _ if is_uncovered => GateResult::Quarantine(Reason::CannotTell),
        _ => GateResult::Pass,
    }
}

fn describe_mappings(e: &Evidence) -> String {
    match (e.dir.lease_coverage, e.mappings_examined) {
        (LeaseCoverage::OpensAndMaps, _) => "the proof covers mappings on this file system",
        (_, true) => "every process was examined, and none has it mapped",
        (_, false) => "not every process could be examined for mappings",
    }
    .into()
}

/// Requires the quarantine, or keeps the temp, if it may be the only copy. An empty file may be a lock file, or
/// a flag: a file whose existence is the message. It passes only if its name has a random part or its target counts.
/// A file that only a learned shape takes never passes: a person may have chosen its name.
fn check_only_copy(e: &Evidence, policy: &Policy) -> GateResult {
    if rule!("shape-only-moves", e.by_shape) {
        return match policy.sole_copy {
            SoleCopy::Keep => GateResult::Keep(Reason::SoleCopy),
            SoleCopy::Quarantine | SoleCopy::Reap => GateResult::Quarantine(Reason::SoleCopy),
        };
    }
    let is_random = rule!("empty-with-fixed-name-is-kept", e.random_name, without: true);
    let has_no_attributes = rule!("attributes-are-content", !e.has_attributes, without: true);
    let is_worthless = size_with_companions(e) == 0 && is_random && has_no_attributes;
    let sole = !is_worthless && !e.target.counts() && !is_discarded(e);
    match (sole, policy.sole_copy) {
        (true, SoleCopy::Quarantine) if is_superseded(e) => GateResult::Pass,
        (false, _) => GateResult::Pass,
        (true, SoleCopy::Reap) => GateResult::Allow(Reason::SoleCopy),
        (true, SoleCopy::Quarantine) => GateResult::Quarantine(Reason::SoleCopy),
        (true, SoleCopy::Keep) => GateResult::Keep(Reason::SoleCopy),
    }
}

/// Reports whether the writer has lost nothing: it only replaces its target, and the target was not there before
/// either, or is not in the name. A target that exists and does not count is a sign that the data is needed. A process
/// that has the temp open may still put it in place.
fn is_discarded(e: &Evidence) -> bool {
    let has_no_target = matches!(e.target, Target::Absent | Target::Unknown);
    let is_unused = e.use_state == UseState::Unused;
    e.discarded
        && rule!("discard-only-without-a-target", has_no_target, without: true)
        && rule!("discarded-temp-is-unused", is_unused, without: true)
}

/// Reports whether better copies make the temp superfluous. A process that has it open may still write more than they
/// contain.
fn is_superseded(e: &Evidence) -> bool {
    let is_unused = e.use_state == UseState::Unused;
    e.superseded && rule!("superseded-temp-is-unused", is_unused, without: true)
}

/// Returns the size of the temp and its companions, in bytes.
fn size_with_companions(e: &Evidence) -> u64 {
    let companions = rule!("companions-count-as-content", e.companion_bytes, without: 0);
    e.observation.fingerprint.size.saturating_add(companions)
}

fn describe_only_copy(e: &Evidence) -> String {
    match (size_with_companions(e), e.target) {
        _ if e.by_shape => "the rule does not match its name, only a learned shape does".into(),
        _ if is_superseded(e) => {
            "later copies with as much data are in the quarantine or are moved there first".into()
        }
        _ if is_discarded(e) => {
            "its writer never removes a target before it has replaced it".into()
        }
        (0, target) if e.has_attributes && !target.counts() => {
            format!(
                "it is empty but has extended attributes: {}",
                describe_target(target)
            )
        }
        (0, _) if e.random_name => "it is empty, and its name has a random part".into(),
        (0, target) if !target.counts() => {
            format!("it is empty and may be a flag: {}", describe_target(target))
        }
        (_, target) => describe_target(target),
    }
}

/// Describes the target, as the end of a sentence.
fn describe_target(target: Target) -> String {
    match target {
        Target::Unknown => "its name does not identify its target".into(),
        Target::Whole { .. } => "its target exists and has content".into(),
        target => format!("its target {}", target.fault().unwrap_or_default()),
    }
}
