//! Decides from the evidence whether a temp is removed, moved to the quarantine or kept.
//!
//! The decision consists of the conditions in [`GATES`], which are checked in order. A temp that fails a gate is kept,
//! or moved to the quarantine if the gate permits that. The first gate that keeps the temp gives the reason. A gate
//! fails if a fact that it needs is unknown.

use std::fmt;
use std::time::Duration;

use super::observation::{Fingerprint, Kind, Observation, UseState};
use super::policy::{Action, Closed, Open, PID_VALIDITY, Policy, SoleCopy};
use super::reserved::Reserved;
use super::time::span;

/// The reason why a temp is kept. This is a closed list on which scripts rely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was restored from the quarantine and has not changed since.
    Restored,
    /// It has not been quiet for its grace yet.
    Young,
    /// It is no longer in the state that the last look saw.
    Changed,
    /// It is not a regular file.
    NotRegular,
    /// It is on another mount than its directory.
    OtherMount,
    /// It is immutable or append-only, or its data is not on this disk.
    Protected,
    /// It has another hard link.
    HardLinked,
    /// The proof that a file is unused is not known to be valid on its file system.
    NetworkFs,
    /// It belongs to another user.
    ForeignOwner,
    /// The process whose pid is in its name is running, or may be.
    WriterAlive,
    /// It was closed, and the rule ignores closed temps.
    Closed,
    /// A process holds a lock on it.
    Locked,
    /// A process has it open or mapped.
    InUse,
    /// It cannot be proven that no process uses it.
    CannotTell,
    /// It may be the only copy of its data.
    SoleCopy,
    /// It would be moved to the quarantine, but no quarantine is possible here.
    NoQuarantine,
    /// It would be moved to the quarantine, which is full and contains nothing that may be dropped.
    QuarantineFull,
    /// Its name is reserved for locks, databases, transfers or backups, or is the name of another temp's target.
    Reserved,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 18] = [
        Reason::Restored,
        Reason::Young,
        Reason::Changed,
        Reason::NotRegular,
        Reason::OtherMount,
        Reason::Protected,
        Reason::HardLinked,
        Reason::NetworkFs,
        Reason::ForeignOwner,
        Reason::WriterAlive,
        Reason::Closed,
        Reason::Locked,
        Reason::InUse,
        Reason::CannotTell,
        Reason::SoleCopy,
        Reason::NoQuarantine,
        Reason::QuarantineFull,
        Reason::Reserved,
    ];

    /// Returns its name in events and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Restored => "restored",
            Reason::Young => "young",
            Reason::Changed => "changed",
            Reason::NotRegular => "not-regular",
            Reason::OtherMount => "other-mount",
            Reason::Protected => "protected",
            Reason::HardLinked => "hard-linked",
            Reason::NetworkFs => "network-fs",
            Reason::ForeignOwner => "foreign-owner",
            Reason::WriterAlive => "writer-alive",
            Reason::Closed => "closed",
            Reason::Locked => "locked",
            Reason::InUse => "in-use",
            Reason::CannotTell => "cannot-tell",
            Reason::SoleCopy => "sole-copy",
            Reason::NoQuarantine => "no-quarantine",
            Reason::QuarantineFull => "quarantine-full",
            Reason::Reserved => "reserved",
        }
    }

    /// Reports whether this reason can end without a file system event: a holder closes the file, a lock is released,
    /// or a writer exits.
    #[must_use]
    pub fn ends_without_event(self) -> bool {
        matches!(self, Reason::InUse | Reason::Locked | Reason::WriterAlive)
    }

    pub(crate) fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The decision on a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Delete it.
    Reap,
    /// Move it to the quarantine. `Some` if a gate requires that, with the reason.
    Quarantine(Option<Reason>),
    /// Keep it where it is.
    Keep(Reason),
}

impl Verdict {
    /// Returns its name in events and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Reap => "reap",
            Verdict::Quarantine(_) => "quarantine",
            Verdict::Keep(_) => "keep",
        }
    }

    /// Returns the reason, if a gate gave one.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Verdict::Reap => None,
            Verdict::Quarantine(reason) => reason,
            Verdict::Keep(reason) => Some(reason),
        }
    }
}

/// The state of the process whose pid is in the temp's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The name contains no pid.
    NoPid,
    /// No process with that pid can have written it.
    Gone(u32),
    /// A process with that pid is running, or may be.
    Alive(u32),
    /// A process that has that pid in a pid namespace below this one (a container) is running.
    InContainer(u32),
    /// It cannot be determined whether a process in a container has that pid.
    Unknown(u32),
}

impl Writer {
    /// Returns the pid in the name.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        match self {
            Writer::NoPid => None,
            Writer::Gone(pid)
            | Writer::Alive(pid)
            | Writer::InContainer(pid)
            | Writer::Unknown(pid) => Some(pid),
        }
    }
}

/// The state of the temp's target, the file that the temp was to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// The temp's name does not identify the target.
    Unknown,
    /// No file with that name exists.
    Absent,
    /// A regular file without data: it is empty, or consists only of holes or preallocated space.
    Empty,
    /// A regular file that cannot be opened, or whose data is not on this disk.
    Unreadable,
    /// A directory, a FIFO, a socket or a device.
    NotRegular(Kind),
    /// A symlink that is not accepted as a target.
    Link(LinkFault),
    /// A regular file that belongs neither to the temp's owner nor to root. In a sticky directory any user can create
    /// such a file beside the temp of another user, so it need not come from the temp's writer.
    Foreign,
    /// A regular file with less than a sixteenth of the temp's data.
    FarSmaller,
    /// A regular file that has less data than the temp and is not known to be older than the temp's last write. It may
    /// be a new file of a program that lost the old one, or a truncated copy of the temp.
    Short,
    /// A regular file that counts: as long as it exists, the temp is not the only copy.
    Whole {
        /// The target is another hard link to the temp itself.
        same_file: bool,
    },
}

impl Target {
    /// Reports whether the target counts, so that the temp is not the only copy.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Target::Whole { .. })
    }

    /// Returns the reason for which the target does not count, as a predicate such as `is missing`. Returns `None` if
    /// it counts or is unknown.
    #[must_use]
    pub fn fault(self) -> Option<&'static str> {
        Some(match self {
            Target::Unknown | Target::Whole { .. } => return None,
            Target::Absent => "is missing",
            Target::Empty => "has no content",
            Target::Unreadable => "cannot be read",
            Target::NotRegular(Kind::Dir) => "is a directory",
            Target::NotRegular(_) => "is a FIFO, a socket or a device",
            Target::Link(LinkFault::Dangling) => "is a symlink that leads to nothing",
            Target::Link(LinkFault::Foreign) => "leads through a symlink of another user",
            Target::Link(LinkFault::Writable) => {
                "is a symlink through a directory that other users can write"
            }
            Target::Link(LinkFault::OtherMount) => "is a symlink to another mount",
            Target::Link(LinkFault::Temp) => "is a symlink to another temp",
            Target::Foreign => "belongs to another user",
            Target::FarSmaller => "has less than a sixteenth of the temp's data",
            Target::Short => "has less data, and is not older",
        })
    }
}

/// The reason why a symlink does not count as a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkFault {
    /// It points to a missing file, or is part of a loop.
    Dangling,
    /// It, or another symlink on its path, belongs neither to the temp's owner nor to root.
    Foreign,
    /// A directory on its path can be written by other users, or cannot be searched.
    Writable,
    /// Its path crosses a mount.
    OtherMount,
    /// It points to a file that is a temp by the rule, or into the quarantine.
    Temp,
}

/// The precision of a file system's dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dates {
    /// Nanoseconds, from a clock that never runs backwards: the later of two changes never has the earlier date.
    Fine,
    /// `Fine` for a file that has a birth time, else whole seconds. In an inode of 128 bytes, ext4 has no space for the
    /// birth time and the fraction of a second; ext2 never stores them; overlayfs shows the dates of its layers.
    FineIfBorn,
    /// Whole seconds.
    WholeSeconds,
    /// The precision is not known.
    Unknown,
}

impl Dates {
    /// Returns the smallest difference between two different dates. Only if the dates of two changes differ is their
    /// order known.
    #[must_use]
    pub fn step(self, file: &Fingerprint) -> Duration {
        match (self, file.btime) {
            (Dates::Fine, _) | (Dates::FineIfBorn, Some(_)) => NANOSECOND,
            (Dates::FineIfBorn, None) | (Dates::WholeSeconds, _) => Duration::from_secs(1),
            // The step of FAT, the longest of all file systems on Linux and macOS.
            (Dates::Unknown, _) => Duration::from_secs(2),
        }
    }

    /// Returns the longest time by which a change of the file may be later than its dates show, as far as that matters
    /// for its grace: the step of coarse dates, else zero.
    #[must_use]
    pub fn lag(self, file: &Fingerprint) -> Duration {
        match self.step(file) {
            NANOSECOND => Duration::ZERO,
            step => step,
        }
    }

    /// Returns the lag of files with such dates, as far as it is known without looking at one of the files.
    #[must_use]
    pub fn usual_lag(self) -> Duration {
        match self {
            Dates::Fine | Dates::FineIfBorn => Duration::ZERO,
            Dates::WholeSeconds => Duration::from_secs(1),
            Dates::Unknown => Duration::from_secs(2),
        }
    }
}

/// The step of fine dates.
const NANOSECOND: Duration = Duration::from_nanos(1);

/// The kinds of use of a file that the proof detects on a file system. The proof is a lease on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseCoverage {
    /// All descriptors and mappings.
    OpensAndMaps,
    /// Descriptors, but neither mappings without a descriptor nor uses through the lower layers (overlayfs).
    OpensOnly,
    /// The coverage is not known, or other machines can use the file system.
    Unknown,
}

/// The properties of the directory that contains a temp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirProperties {
    /// Its device number.
    pub dev: u64,
    /// The id of its mount, if the system has mount ids.
    pub mount: Option<u64>,
    /// The kernel's name for its file system.
    pub file_system: std::sync::Arc<str>,
    /// The kinds of use that the proof detects on its file system.
    pub lease_coverage: LeaseCoverage,
    /// The precision of the dates of its files.
    pub dates: Dates,
    /// True if a quarantine exists or can be created.
    pub quarantine: bool,
}

impl DirProperties {
    /// Reports whether the proof is accepted here: it is known to be valid, or the rule trusts the file system.
    #[must_use]
    pub fn has_proof(&self, policy: &Policy) -> bool {
        let mut trusted = policy.trusted_file_systems.iter();
        self.lease_coverage != LeaseCoverage::Unknown
            || trusted.any(|name| **name == *self.file_system)
    }
}

/// Everything that the verdict is based on, gathered at the last moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The current state of the temp.
    pub observation: Observation,
    /// The fingerprint that the earlier look saw; `None` if there was no earlier look.
    pub expected: Option<Fingerprint>,
    /// The time for which the temp has been quiet.
    pub quiet: Duration,
    /// The time for which it must be quiet.
    pub grace: Duration,
    /// The time for which no process has used it; this limits how long the pid in its name counts.
    pub unused: Duration,
    /// The properties of its directory.
    pub dir: DirProperties,
    /// The effective uid of this process.
    pub our_uid: u32,
    /// The process whose pid is in its name.
    pub writer: Writer,
    /// True if an event reported that a writer closed it.
    pub closed: bool,
    /// The use state of the temp.
    pub use_state: UseState,
    /// True if it could be opened, so that its locks can be checked.
    pub opened: bool,
    /// True if every process could be examined for mappings in another way, and none had the file mapped. It matters
    /// only if the proof does not cover mappings.
    pub mappings_examined: bool,
    /// The state of its target.
    pub target: Target,
    /// True if its name has a random part according to a grammar.
    pub random_name: bool,
    /// True if it has the mark of a restored file and has not changed since.
    pub restored: bool,
    /// The reason why its name is reserved, if it is.
    pub reserved: Option<Reserved>,
}

/// The result of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateResult {
    /// The temp passes the gate.
    Pass,
    /// The temp is kept.
    Keep(Reason),
    /// The temp may be moved to the quarantine, but must not be destroyed.
    Quarantine(Reason),
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
    gate("mappings covered", check_mappings, describe_mappings),
    gate("not the only copy", check_only_copy, describe_only_copy),
];

/// Returns the verdict on a temp.
///
/// The first gate that keeps the temp decides. If no gate keeps it, it is moved to the quarantine if a gate or the rule
/// requires that, and otherwise deleted. Without a quarantine, it is kept instead of moved.
#[must_use]
pub fn judge(evidence: &Evidence, policy: &Policy) -> Verdict {
    let mut quarantine = None;
    for gate in GATES {
        match gate.check(evidence, policy) {
            GateResult::Pass => {}
            GateResult::Keep(reason) => return Verdict::Keep(reason),
            GateResult::Quarantine(reason) => quarantine = quarantine.or(Some(reason)),
        }
    }
    let to_quarantine = quarantine.is_some() || policy.action == Action::Quarantine;
    match to_quarantine {
        true if evidence.dir.quarantine => Verdict::Quarantine(quarantine),
        true => Verdict::Keep(Reason::NoQuarantine),
        false => Verdict::Reap,
    }
}

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
        None => "its name is not reserved, and it has no companion".into(),
    }
}

fn check_grace(e: &Evidence, _: &Policy) -> GateResult {
    keep_if(
        rule!("both-looks-and-the-grace", e.quiet < e.grace),
        Reason::Young,
    )
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
    match e.writer {
        Writer::NoPid => "its name contains no pid".into(),
        Writer::Gone(pid) => format!("no running process with pid {pid} can have written it"),
        Writer::Alive(pid) if e.unused < PID_VALIDITY => format!("pid {pid} is running"),
        Writer::Alive(pid) => {
            format!("pid {pid} is running, but the file has not been used for 24 h")
        }
        Writer::InContainer(pid) if e.unused < PID_VALIDITY => {
            format!("pid {pid} of a container is running")
        }
        Writer::InContainer(pid) => {
            format!("pid {pid} of a container is running, but the file has not been used for 24 h")
        }
        Writer::Unknown(pid) if e.unused < PID_VALIDITY => {
            format!("pid {pid} of a container may be running; this cannot be checked")
        }
        Writer::Unknown(pid) => {
            format!(
                "pid {pid} of a container may be running, but the file has not been used for 24 h"
            )
        }
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

fn check_use(e: &Evidence, policy: &Policy) -> GateResult {
    match (e.use_state.is_held(), policy.open) {
        (false, _) | (true, Open::Reap) => GateResult::Pass,
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
    let unproven = e.use_state == UseState::Unknown && policy.open != Open::Reap;
    keep_if(unproven, Reason::CannotTell)
}

fn describe_use_known(e: &Evidence) -> String {
    match e.use_state {
        UseState::Unknown => "the kernel gave no conclusive answer",
        _ => "the kernel gave a conclusive answer",
    }
    .into()
}

fn check_mappings(e: &Evidence, policy: &Policy) -> GateResult {
    let is_uncovered = e.dir.lease_coverage == LeaseCoverage::OpensOnly && !e.mappings_examined;
    match policy.open {
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
fn check_only_copy(e: &Evidence, policy: &Policy) -> GateResult {
    let is_random = rule!("empty-with-fixed-name-is-kept", e.random_name, without: true);
    let is_worthless = e.observation.fingerprint.size == 0 && is_random;
    let sole = !is_worthless && !e.target.counts();
    match (sole, policy.sole_copy) {
        (false, _) | (true, SoleCopy::Reap) => GateResult::Pass,
        (true, SoleCopy::Quarantine) => GateResult::Quarantine(Reason::SoleCopy),
        (true, SoleCopy::Keep) => GateResult::Keep(Reason::SoleCopy),
    }
}

fn describe_only_copy(e: &Evidence) -> String {
    match (e.observation.fingerprint.size, e.target) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Graces;
    use crate::core::time::Wall;

    const GRACE: Duration = Duration::from_secs(300);

    /// A temp that passes every gate.
    fn orphan() -> Evidence {
        let fingerprint = Fingerprint {
            dev: 1,
            ino: 7,
            kind: Kind::File,
            size: 10,
            mtime: Wall::default(),
            ctime: Wall::default(),
            btime: None,
            links: 1,
            uid: 1000,
        };
        Evidence {
            observation: Observation {
                fingerprint,
                mode: 0o100_600,
                mount: Some(3),
                mount_root: false,
                protected: false,
                dataless: false,
                allocated: 4096,
            },
            expected: Some(fingerprint),
            quiet: GRACE,
            grace: GRACE,
            unused: GRACE,
            dir: DirProperties {
                dev: 1,
                mount: Some(3),
                file_system: "ext4".into(),
                lease_coverage: LeaseCoverage::OpensAndMaps,
                dates: Dates::Fine,
                quarantine: true,
            },
            our_uid: 1000,
            writer: Writer::Gone(4711),
            closed: false,
            use_state: UseState::Unused,
            opened: true,
            mappings_examined: false,
            target: Target::Whole { same_file: false },
            random_name: true,
            restored: false,
            reserved: None,
        }
    }

    fn policy() -> Policy {
        Policy {
            grace: Graces::both(GRACE),
            ..Policy::default()
        }
    }

    fn settled() -> Policy {
        Policy {
            closed: Closed::Settled,
            open: Open::Reap,
            ..policy()
        }
    }

    fn with(change: impl FnOnce(&mut Evidence)) -> Evidence {
        let mut evidence = orphan();
        change(&mut evidence);
        evidence
    }

    #[track_caller]
    fn check(policy: &Policy, evidence: &Evidence, want: Verdict) {
        assert_eq!(judge(evidence, policy), want, "{evidence:#?}");
    }

    #[test]
    fn an_orphan_is_removed() {
        check(&policy(), &orphan(), Verdict::Reap);
    }

    #[test]
    fn each_gate_alone_keeps() {
        let keep = Verdict::Keep;
        let cases: [(&str, Policy, Evidence, Verdict); 30] = [
            (
                "restored",
                policy(),
                with(|e| e.restored = true),
                keep(Reason::Restored),
            ),
            (
                "reserved",
                policy(),
                with(|e| e.reserved = Some(Reserved::WasTarget)),
                keep(Reason::Reserved),
            ),
            (
                "young",
                policy(),
                with(|e| e.quiet = GRACE - Duration::from_nanos(1)),
                keep(Reason::Young),
            ),
            (
                "changed",
                policy(),
                with(|e| e.observation.fingerprint.size = 11),
                keep(Reason::Changed),
            ),
            (
                "not regular",
                policy(),
                with(|e| {
                    e.observation.fingerprint.kind = Kind::Other;
                    e.expected = None;
                }),
                keep(Reason::NotRegular),
            ),
            (
                "a bind mount of the same file system",
                policy(),
                with(|e| e.observation.mount = Some(4)),
                keep(Reason::OtherMount),
            ),
            (
                "the root of a subvolume",
                policy(),
                with(|e| e.observation.mount_root = true),
                keep(Reason::OtherMount),
            ),
            (
                "another device, without mount ids",
                policy(),
                with(|e| {
                    e.observation.mount = None;
                    e.dir.dev = 2;
                }),
                keep(Reason::OtherMount),
            ),
            (
                "immutable",
                policy(),
                with(|e| e.observation.protected = true),
                keep(Reason::Protected),
            ),
            (
                "dataless",
                policy(),
                with(|e| e.observation.dataless = true),
                keep(Reason::Protected),
            ),
            (
                "another hard link",
                policy(),
                with(|e| {
                    e.observation.fingerprint.links = 2;
                    e.expected = None;
                }),
                keep(Reason::HardLinked),
            ),
            (
                "a third link beside the target",
                policy(),
                with(|e| {
                    e.observation.fingerprint.links = 3;
                    e.expected = None;
                    e.target = Target::Whole { same_file: true };
                }),
                keep(Reason::HardLinked),
            ),
            (
                "a network file system",
                policy(),
                with(|e| {
                    e.dir.lease_coverage = LeaseCoverage::Unknown;
                    e.dir.file_system = "nfs".into();
                }),
                keep(Reason::NetworkFs),
            ),
            (
                "another owner",
                policy(),
                with(|e| e.our_uid = 1001),
                keep(Reason::ForeignOwner),
            ),
            (
                "a running writer",
                policy(),
                with(|e| e.writer = Writer::Alive(4711)),
                keep(Reason::WriterAlive),
            ),
            (
                "a running writer in a container",
                policy(),
                with(|e| {
                    e.writer = Writer::InContainer(7);
                    e.unused = PID_VALIDITY - Duration::from_nanos(1);
                }),
                keep(Reason::WriterAlive),
            ),
            (
                "containers that cannot be checked",
                policy(),
                with(|e| {
                    e.writer = Writer::Unknown(7);
                    e.unused = PID_VALIDITY - Duration::from_nanos(1);
                }),
                keep(Reason::WriterAlive),
            ),
            (
                "a close was reported",
                settled(),
                with(|e| {
                    e.closed = true;
                    e.use_state = UseState::InUse;
                }),
                keep(Reason::Closed),
            ),
            ("found closed", settled(), orphan(), keep(Reason::Closed)),
            (
                "locked",
                policy(),
                with(|e| e.use_state = UseState::Locked),
                keep(Reason::Locked),
            ),
            (
                "locked, with open = reap",
                Policy {
                    open: Open::Reap,
                    ..policy()
                },
                with(|e| e.use_state = UseState::Locked),
                keep(Reason::Locked),
            ),
            (
                "locks cannot be checked, with open = quarantine",
                Policy {
                    open: Open::Quarantine,
                    ..policy()
                },
                with(|e| {
                    e.use_state = UseState::InUse;
                    e.opened = false;
                }),
                keep(Reason::CannotTell),
            ),
            (
                "locks cannot be checked, with open = reap",
                Policy {
                    open: Open::Reap,
                    ..policy()
                },
                with(|e| {
                    e.use_state = UseState::Unknown;
                    e.opened = false;
                }),
                keep(Reason::CannotTell),
            ),
            (
                "open, and locks cannot be checked",
                policy(),
                with(|e| {
                    e.use_state = UseState::InUse;
                    e.opened = false;
                }),
                keep(Reason::InUse),
            ),
            (
                "open",
                policy(),
                with(|e| e.use_state = UseState::InUse),
                keep(Reason::InUse),
            ),
            (
                "not proven to be unused",
                policy(),
                with(|e| e.use_state = UseState::Unknown),
                keep(Reason::CannotTell),
            ),
            (
                "not proven to be unused, with open = quarantine",
                Policy {
                    open: Open::Quarantine,
                    ..policy()
                },
                with(|e| e.use_state = UseState::Unknown),
                keep(Reason::CannotTell),
            ),
            (
                "a sole copy, with sole_copy = keep",
                Policy {
                    sole_copy: SoleCopy::Keep,
                    ..policy()
                },
                with(|e| e.target = Target::Absent),
                keep(Reason::SoleCopy),
            ),
            (
                "a sole copy, without a quarantine",
                policy(),
                with(|e| {
                    e.target = Target::Unknown;
                    e.dir.quarantine = false;
                }),
                keep(Reason::NoQuarantine),
            ),
            (
                "action = quarantine, without a quarantine",
                Policy {
                    action: Action::Quarantine,
                    ..policy()
                },
                with(|e| e.dir.quarantine = false),
                keep(Reason::NoQuarantine),
            ),
        ];
        for (name, policy, evidence, want) in cases {
            assert_eq!(judge(&evidence, &policy), want, "{name}");
        }
    }

    #[test]
    fn a_temp_that_must_not_be_destroyed_is_moved() {
        let moved = |reason| Verdict::Quarantine(Some(reason));
        let sole = with(|e| e.target = Target::Absent);
        check(&policy(), &sole, moved(Reason::SoleCopy));
        let foreign = with(|e| e.target = Target::Foreign);
        check(&policy(), &foreign, moved(Reason::SoleCopy));
        let unknown = with(|e| e.target = Target::Unknown);
        check(&policy(), &unknown, moved(Reason::SoleCopy));
        let overlay = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
        check(&policy(), &overlay, moved(Reason::CannotTell));
        let action = Policy {
            action: Action::Quarantine,
            ..policy()
        };
        check(&action, &orphan(), Verdict::Quarantine(None));
        let held = with(|e| e.use_state = UseState::InUse);
        let move_open = Policy {
            open: Open::Quarantine,
            ..policy()
        };
        check(&move_open, &held, moved(Reason::InUse));
    }

    /// An empty file with a fixed name may be a flag or the claim of a lock.
    #[test]
    fn an_empty_file_with_a_fixed_name_is_removed_only_beside_its_target() {
        let moved = Verdict::Quarantine(Some(Reason::SoleCopy));
        let whole = Target::Whole { same_file: false };
        for (random_name, target, want) in [
            (true, Target::Absent, Verdict::Reap),
            (true, Target::Unknown, Verdict::Reap),
            (false, whole, Verdict::Reap),
            (false, Target::Absent, moved),
            (false, Target::Unknown, moved),
            (false, Target::Empty, moved),
            (false, Target::Foreign, moved),
        ] {
            let empty = with(|e| {
                e.observation.fingerprint.size = 0;
                e.expected = None;
                e.random_name = random_name;
                e.target = target;
            });
            check(&policy(), &empty, want);
        }
    }

    #[test]
    fn exceptions_are_removed() {
        let empty = with(|e| {
            e.observation.fingerprint.size = 0;
            e.expected = None;
            e.target = Target::Absent;
        });
        check(&policy(), &empty, Verdict::Reap);
        let own_target = with(|e| {
            e.observation.fingerprint.links = 2;
            e.expected = None;
            e.target = Target::Whole { same_file: true };
        });
        check(&policy(), &own_target, Verdict::Reap);
        let root = with(|e| e.our_uid = 0);
        check(&policy(), &root, Verdict::Reap);
        let old_pid = with(|e| {
            e.writer = Writer::Alive(7);
            e.unused = PID_VALIDITY;
        });
        check(&policy(), &old_pid, Verdict::Reap);
        for writer in [Writer::InContainer(7), Writer::Unknown(7)] {
            let old_container_pid = with(|e| {
                e.writer = writer;
                e.unused = PID_VALIDITY;
            });
            check(&policy(), &old_container_pid, Verdict::Reap);
        }
        let examined = with(|e| {
            e.dir.lease_coverage = LeaseCoverage::OpensOnly;
            e.mappings_examined = true;
        });
        check(&policy(), &examined, Verdict::Reap);
        let trusted = Policy {
            trusted_file_systems: vec!["nfs".into()],
            ..policy()
        };
        let nfs = with(|e| {
            e.dir.lease_coverage = LeaseCoverage::Unknown;
            e.dir.file_system = "nfs".into();
        });
        check(&trusted, &nfs, Verdict::Reap);
    }

    #[test]
    fn open_reap_removes_open_temps() {
        let open_reap = Policy {
            open: Open::Reap,
            ..policy()
        };
        for use_state in [UseState::InUse, UseState::Unknown, UseState::Unused] {
            check(
                &open_reap,
                &with(|e| e.use_state = use_state),
                Verdict::Reap,
            );
        }
        let unexamined = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
        check(&open_reap, &unexamined, Verdict::Reap);
        check(
            &settled(),
            &with(|e| e.use_state = UseState::InUse),
            Verdict::Reap,
        );
    }

    #[test]
    fn the_first_gate_that_keeps_gives_the_reason() {
        let failing_all = with(|e| {
            e.quiet = Duration::ZERO;
            e.observation.fingerprint.links = 4;
            e.our_uid = 5;
            e.writer = Writer::Alive(1);
            e.use_state = UseState::Locked;
            e.target = Target::Absent;
        });
        check(&policy(), &failing_all, Verdict::Keep(Reason::Young));
        let held_sole = with(|e| {
            e.use_state = UseState::InUse;
            e.target = Target::Absent;
        });
        check(&policy(), &held_sole, Verdict::Keep(Reason::InUse));
    }

    #[test]
    fn reasons_have_distinct_words_and_bits() {
        let words: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(words.len(), Reason::ALL.len());
        let bits = Reason::ALL
            .iter()
            .fold(0, |bits, reason| bits | reason.bit());
        assert_eq!(bits.count_ones() as usize, Reason::ALL.len());
    }

    #[test]
    fn every_gate_describes_its_evidence() {
        for gate in GATES {
            assert!(!gate.describe(&orphan()).is_empty(), "{}", gate.name);
            assert_eq!(
                gate.check(&orphan(), &policy()),
                GateResult::Pass,
                "{}",
                gate.name
            );
        }
    }

    /// `orphand explain` prints these descriptions, so they must not contradict the result of the gate.
    #[test]
    fn descriptions_match_the_evidence() {
        #[track_caller]
        fn assert_describes(gate: &str, evidence: &Evidence, end: &str) {
            let gate = GATES.iter().find(|g| g.name == gate).expect("a gate");
            let text = gate.describe(evidence);
            assert!(text.ends_with(end), "{}: {text:?}, not {end:?}", gate.name);
        }

        assert_describes("not restored", &orphan(), "no mark of a restored file");
        let restored = with(|e| e.restored = true);
        assert_describes("not restored", &restored, "has not changed since");
        assert_describes(
            "quiet for its grace",
            &orphan(),
            "quiet for 5 min; its grace is 5 min",
        );

        assert_describes(
            "unchanged",
            &orphan(),
            "the same at two looks: inode 7, 10 bytes",
        );
        let once = with(|e| e.expected = None);
        assert_describes("unchanged", &once, "one look: inode 7, 10 bytes");
        let grown = with(|e| e.observation.fingerprint.size = 11);
        assert_describes(
            "unchanged",
            &grown,
            "changed between two looks: inode 7, 11 bytes",
        );

        for (kind, word) in [
            (Kind::File, "regular file"),
            (Kind::Dir, "directory"),
            (Kind::Symlink, "symbolic link"),
            (Kind::Other, "a FIFO, a socket or a device"),
        ] {
            let other = with(|e| e.observation.fingerprint.kind = kind);
            assert_describes("regular file", &other, word);
        }

        let elsewhere = with(|e| e.observation.mount = None);
        let mounts = "the file is on a mount without an id, its directory on mount 3";
        assert_describes("same mount as its directory", &elsewhere, mounts);

        assert_describes(
            "not protected, data on this disk",
            &orphan(),
            "neither immutable nor append-only",
        );
        let immutable = with(|e| e.observation.protected = true);
        assert_describes(
            "not protected, data on this disk",
            &immutable,
            "immutable or append-only",
        );
        let dataless = with(|e| e.observation.dataless = true);
        assert_describes(
            "not protected, data on this disk",
            &dataless,
            "its data is not on this disk",
        );

        for (links, same_file, words) in [
            (1, false, "1 link"),
            (2, true, "2 links; the other one is its target"),
            (2, false, "2 links"),
            (3, true, "3 links"),
        ] {
            let linked = with(|e| {
                e.observation.fingerprint.links = links;
                e.target = Target::Whole { same_file };
            });
            assert_describes("one link", &linked, words);
        }

        assert_describes("supported file system", &orphan(), "file system ext4");
        let owner = "owned by uid 1000; orphand runs as uid 5";
        assert_describes(
            "same owner, or run as root",
            &with(|e| e.our_uid = 5),
            owner,
        );

        let pid = |writer, unused| {
            with(|e| {
                e.writer = writer;
                e.unused = unused;
            })
        };
        let just_before = PID_VALIDITY - Duration::from_nanos(1);
        for (writer, unused, words) in [
            (Writer::NoPid, GRACE, "no pid"),
            (
                Writer::Gone(7),
                GRACE,
                "no running process with pid 7 can have written it",
            ),
            (Writer::Alive(7), just_before, "pid 7 is running"),
            (
                Writer::Alive(7),
                PID_VALIDITY,
                "pid 7 is running, but the file has not been used for 24 h",
            ),
            (
                Writer::InContainer(7),
                just_before,
                "pid 7 of a container is running",
            ),
            (
                Writer::InContainer(7),
                PID_VALIDITY,
                "pid 7 of a container is running, but the file has not been used for 24 h",
            ),
            (
                Writer::Unknown(7),
                just_before,
                "pid 7 of a container may be running; this cannot be checked",
            ),
            (
                Writer::Unknown(7),
                PID_VALIDITY,
                "pid 7 of a container may be running, but the file has not been used for 24 h",
            ),
        ] {
            assert_describes("writer gone", &pid(writer, unused), words);
        }

        let close = |closed, use_state| {
            with(|e| {
                e.closed = closed;
                e.use_state = use_state;
            })
        };
        for (closed, use_state, words) in [
            (true, UseState::InUse, "a close was reported"),
            (false, UseState::Unused, "no process has it open"),
            (false, UseState::InUse, "no close was reported"),
        ] {
            assert_describes(
                "not ignored after a close",
                &close(closed, use_state),
                words,
            );
        }

        for (use_state, holder, leased) in [
            (
                UseState::Unused,
                "no process on this kernel has it open or mapped",
                "a conclusive answer",
            ),
            (
                UseState::InUse,
                "a process has it open or mapped",
                "a conclusive answer",
            ),
            (UseState::Locked, "a lock on it", "a conclusive answer"),
            (
                UseState::Unknown,
                "no process was found that has it open or mapped",
                "no conclusive answer",
            ),
        ] {
            let held = with(|e| e.use_state = use_state);
            let lock = match use_state {
                UseState::Unused | UseState::Locked => holder,
                UseState::InUse | UseState::Unknown => "locks are checked again before the removal",
            };
            assert_describes("not locked", &held, lock);
            assert_describes("not open or mapped", &held, holder);
            assert_describes("use state known", &held, leased);
        }

        let unseen = with(|e| {
            e.use_state = UseState::InUse;
            e.opened = false;
        });
        assert_describes("not locked", &unseen, "its locks cannot be checked");
        let unlocked = with(|e| e.opened = false);
        assert_describes("not locked", &unlocked, "has it open or mapped");

        for (reach, examined, words) in [
            (
                LeaseCoverage::OpensAndMaps,
                false,
                "the proof covers mappings on this file system",
            ),
            (LeaseCoverage::OpensOnly, true, "and none has it mapped"),
            (
                LeaseCoverage::OpensOnly,
                false,
                "not every process could be examined for mappings",
            ),
        ] {
            let mapped = with(|e| {
                e.dir.lease_coverage = reach;
                e.mappings_examined = examined;
            });
            assert_describes("mappings covered", &mapped, words);
        }

        let same_file = false;
        let link = Target::Link;
        #[rustfmt::skip]
        let rows = [
            (0, true, Target::Absent, "its name has a random part"),
            (0, false, Target::Absent, "it is empty and may be a flag: its target is missing"),
            (0, false, Target::Unknown, "may be a flag: its name does not identify its target"),
            (0, false, Target::Whole { same_file }, "its target exists and has content"),
            (1, true, Target::Unknown, "its name does not identify its target"),
            (1, true, Target::Absent, "its target is missing"),
            (1, true, Target::Empty, "its target has no content"),
            (1, true, Target::Unreadable, "its target cannot be read"),
            (1, true, Target::NotRegular(Kind::Dir), "its target is a directory"),
            (1, true, Target::NotRegular(Kind::Other), "its target is a FIFO, a socket or a device"),
            (1, true, link(LinkFault::Dangling), "is a symlink that leads to nothing"),
            (1, true, link(LinkFault::Foreign), "leads through a symlink of another user"),
            (1, true, link(LinkFault::Writable), "a directory that other users can write"),
            (1, true, link(LinkFault::OtherMount), "is a symlink to another mount"),
            (1, true, link(LinkFault::Temp), "is a symlink to another temp"),
            (1, true, Target::Foreign, "its target belongs to another user"),
            (1, true, Target::FarSmaller, "has less than a sixteenth of the temp's data"),
            (1, true, Target::Short, "has less data, and is not older"),
            (1, true, Target::Whole { same_file }, "its target exists and has content"),
        ];
        for (size, random_name, target, words) in rows {
            let copy = with(|e| {
                e.observation.fingerprint.size = size;
                e.random_name = random_name;
                e.target = target;
            });
            assert_describes("not the only copy", &copy, words);
        }
    }

    #[test]
    fn a_verdict_has_a_word_and_a_reason() {
        let (held, sole) = (Reason::InUse, Reason::SoleCopy);
        for (verdict, word, reason) in [
            (Verdict::Reap, "reap", None),
            (Verdict::Quarantine(None), "quarantine", None),
            (Verdict::Quarantine(Some(sole)), "quarantine", Some(sole)),
            (Verdict::Keep(held), "keep", Some(held)),
        ] {
            assert_eq!((verdict.as_str(), verdict.reason()), (word, reason));
        }
        assert_eq!(held.to_string(), "in-use");
        assert_eq!(Writer::NoPid.pid(), None);
        assert_eq!(
            [Writer::Gone(7), Writer::Alive(8), Writer::InContainer(9)].map(Writer::pid),
            [Some(7), Some(8), Some(9)]
        );
        assert_eq!(Writer::Unknown(7).pid(), Some(7));
    }
}
