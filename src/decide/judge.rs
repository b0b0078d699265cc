//! *Is it safe?* Evidence in, verdict out.
//!
//! [`GATES`] is the whole law. A temp passes every gate or stays; the first gate that it does not
//! pass gives the reason. What is not known does not pass.

use std::fmt;
use std::time::Duration;

use super::observation::{Fingerprint, Kind, Observation, UseState};
use super::policy::{Action, Closed, Open, PID_FORGOTTEN, Policy, SoleCopy};
use super::reserved::Reserved;
use super::time::span;

/// Why a temp stays. A closed list: scripts rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was brought back from the quarantine and has not changed since.
    Restored,
    /// It is not yet quiet for its grace.
    Young,
    /// It is no longer the file that was looked at.
    Changed,
    /// It is not a regular file.
    NotRegular,
    /// It lies on another mount than its directory.
    OtherMount,
    /// It is immutable, append-only, or its bytes are elsewhere.
    Protected,
    /// It has another name.
    HardLinked,
    /// Its file system is not one where the proof is known to hold.
    NetworkFs,
    /// It belongs to somebody else.
    ForeignOwner,
    /// The process whose pid its name carries lives.
    WriterAlive,
    /// It was closed, and the rule leaves closed temps alone.
    Closed,
    /// Somebody holds a lock on it.
    Locked,
    /// Somebody has it open or mapped.
    InUse,
    /// That nobody holds it cannot be proven here.
    CannotTell,
    /// It may be the only copy of somebody's data.
    SoleCopy,
    /// It would be moved to the quarantine, and there can be none here.
    NoQuarantine,
    /// It would be moved to the quarantine, which is full and from which nothing may be dropped.
    QuarantineFull,
    /// Its name is reserved: for locks, databases, transfers or backups, or for the target of another temp.
    Reserved,
}

impl Reason {
    /// Every reason there is.
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

    /// The word that events and JSON carry.
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

    /// Whether this reason can end without any event that could be heard: a holder closes, a lock
    /// is let go, a writer dies.
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

/// What is to become of a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Delete it.
    Reap,
    /// Move it to the quarantine; the reason, where a gate asked for that.
    Quarantine(Option<Reason>),
    /// Leave it.
    Keep(Reason),
}

impl Verdict {
    /// The word that events and JSON carry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Reap => "reap",
            Verdict::Quarantine(_) => "quarantine",
            Verdict::Keep(_) => "keep",
        }
    }

    /// Why, where it is not simply an orphan.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Verdict::Reap => None,
            Verdict::Quarantine(reason) => reason,
            Verdict::Keep(reason) => Some(reason),
        }
    }
}

/// The process whose pid the name carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The name carries no pid.
    NoPid,
    /// No process with that pid can have written it.
    Gone(u32),
    /// A process with that pid lives, or may.
    Alive(u32),
    /// A process lives that goes by that pid in a pid namespace below ours: in a container.
    InContainer(u32),
    /// Whether one lives that goes by that pid in a container cannot be seen.
    Unknown(u32),
}

impl Writer {
    /// The pid in the name.
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

/// The file that the temp was to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The name does not say what it was to become.
    Unknown,
    /// Nothing stands there.
    Absent,
    /// A regular file without data: it is empty, a hole, or space that is only reserved.
    Empty,
    /// A regular file that cannot be opened, or the data of which is not on this disk.
    Unreadable,
    /// A directory, a FIFO, a socket or a device.
    NotRegular(Kind),
    /// A symlink that does not lead to a file that counts.
    Link(LinkFault),
    /// A regular file of somebody who is neither the temp's owner nor root. In a sticky directory
    /// anybody may make one beside another's temp, and no writer of the temp's has put it there.
    Foreign,
    /// A regular file with less than a sixteenth of the temp's data.
    Dwarfed,
    /// A regular file with less data than the temp, and not known to be older than the temp's last write: a program
    /// that lost its file may have written it anew, or a copy of the temp was cut off.
    Short,
    /// A regular file that counts: with it there, the temp is not the only copy.
    Whole {
        /// It is the temp itself under its other name.
        same_file: bool,
    },
}

impl Target {
    /// Whether the temp is not the only copy.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Target::Whole { .. })
    }

    /// Why the target does not count, as a predicate: `is missing`. `None` where it counts, and where it is not known.
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
            Target::Dwarfed => "has less than a sixteenth of its data",
            Target::Short => "has less data, and is not older",
        })
    }
}

/// Why a symlink does not count as a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkFault {
    /// It leads to nothing, or in a circle.
    Dangling,
    /// It, or another symlink on the way, belongs to neither the temp's owner nor root.
    Foreign,
    /// A directory on the way can be written by other users, or cannot be searched.
    Writable,
    /// The way crosses a mount.
    OtherMount,
    /// It leads to a file that the rule takes, or into the quarantine.
    Temp,
}

/// How exact the dates of a file system are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dates {
    /// Nanoseconds, by a clock that never runs backwards: of two changes the later one never has the earlier date.
    Fine,
    /// Fine for a file that has a birth time, else whole seconds. ext4 has no room for either the birth time or the
    /// fraction of a second in an inode of 128 bytes, ext2 never has, and overlayfs shows what lies below it.
    FineIfBorn,
    /// Whole seconds.
    WholeSeconds,
    /// Not known.
    Unknown,
}

impl Dates {
    /// How far apart two different dates of files are, at the least. Only of two changes with different dates is it
    /// known which was the later one.
    #[must_use]
    pub fn step(self, file: &Fingerprint) -> Duration {
        match (self, file.btime) {
            (Dates::Fine, _) | (Dates::FineIfBorn, Some(_)) => NANOSECOND,
            (Dates::FineIfBorn, None) | (Dates::WholeSeconds, _) => Duration::from_secs(1),
            // FAT's: the longest of any file system that Linux or macOS has.
            (Dates::Unknown, _) => Duration::from_secs(2),
        }
    }

    /// By how much later than its dates a file may have changed, where that matters for its grace: the step of coarse
    /// dates, else zero.
    #[must_use]
    pub fn lag(self, file: &Fingerprint) -> Duration {
        match self.step(file) {
            NANOSECOND => Duration::ZERO,
            step => step,
        }
    }

    /// The lag of files in a directory with these dates, as far as the file system tells without one of them.
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

/// How far the proof that nobody holds a file reaches on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseCoverage {
    /// Whoever has the file open or mapped is seen.
    OpensAndMaps,
    /// Mappings without a descriptor, and users of the layers below, are not seen (overlayfs).
    OpensOnly,
    /// Not known, or known to end at this kernel while others use the file system too.
    Unknown,
}

/// The directory that a temp lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirProperties {
    /// Its device number.
    pub dev: u64,
    /// Its mount, where the system numbers mounts.
    pub mount: Option<u64>,
    /// The kernel's name of its file system.
    pub file_system: std::sync::Arc<str>,
    /// How far the proof reaches there.
    pub lease_coverage: LeaseCoverage,
    /// How exact its dates are.
    pub dates: Dates,
    /// A quarantine is there, or could be.
    pub quarantine: bool,
}

impl DirProperties {
    /// Whether the proof counts here: it is known to hold, or the rule trusts it.
    #[must_use]
    pub fn has_proof(&self, policy: &Policy) -> bool {
        let mut trusted = policy.trusted_file_systems.iter();
        self.lease_coverage != LeaseCoverage::Unknown
            || trusted.any(|name| **name == *self.file_system)
    }
}

/// Everything that the verdict rests on, gathered at the last moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What is there now.
    pub observation: Observation,
    /// What the earlier look saw; `None` where there was none.
    pub expected: Option<Fingerprint>,
    /// How long it has been quiet.
    pub quiet: Duration,
    /// How long it must be.
    pub grace: Duration,
    /// How long nobody has used it, for the pid in its name.
    pub unused: Duration,
    /// Where it lies.
    pub dir: DirProperties,
    /// The uid that this process acts as.
    pub our_uid: u32,
    /// The pid in its name.
    pub writer: Writer,
    /// A close by a writer was reported.
    pub closed: bool,
    /// Who holds it.
    pub use_state: UseState,
    /// It could be opened: so it can be asked for locks.
    pub opened: bool,
    /// Where the proof does not see mappings: whether every process could be examined otherwise,
    /// and none had it mapped.
    pub mappings_examined: bool,
    /// What it was to replace.
    pub target: Target,
    /// Its name has a random part by a grammar.
    pub random_name: bool,
    /// It carries the mark of a restored file that has not changed since.
    pub restored: bool,
    /// Why its name is reserved, if it is.
    pub reserved: Option<Reserved>,
}

/// What a gate says of a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing stands against it.
    Pass,
    /// It stays.
    Keep(Reason),
    /// It may go, but not be destroyed.
    Quarantine(Reason),
}

/// One thing that a temp must be before it may go.
pub struct Gate {
    /// What passing it means.
    pub name: &'static str,
    ask: fn(&Evidence, &Policy) -> Answer,
    says: fn(&Evidence) -> String,
}

impl Gate {
    /// Asks the gate.
    #[must_use]
    pub fn check(&self, evidence: &Evidence, policy: &Policy) -> Answer {
        rule!(self.name, (self.ask)(evidence, policy), without: Answer::Pass)
    }

    /// What the gate's answer rests on, in words.
    #[must_use]
    pub fn describe(&self, evidence: &Evidence) -> String {
        (self.says)(evidence)
    }
}

const fn gate(
    name: &'static str,
    ask: fn(&Evidence, &Policy) -> Answer,
    says: fn(&Evidence) -> String,
) -> Gate {
    Gate { name, ask, says }
}

/// All gates, in the order in which they are asked. `tests/without-each-rule` leaves out one at a time.
pub static GATES: &[Gate] = &[
    gate("not brought back by restore", restored, says_restored),
    gate("a name that is not reserved", reserved, says_reserved),
    gate("quiet for its grace", young, says_young),
    gate("still what was looked at", changed, says_changed),
    gate("a regular file", not_regular, says_not_regular),
    gate("on its directory's mount", other_mount, says_other_mount),
    gate("not protected", protected, says_protected),
    gate("no other name", hard_linked, says_hard_linked),
    gate("on a file system with proof", network_fs, says_network_fs),
    gate("ours to judge", foreign_owner, says_foreign_owner),
    gate("writer gone", writer_alive, says_writer_alive),
    gate("not settled by a close", closed, says_closed),
    gate("nobody locks it", locked, says_locked),
    gate("nobody holds it", in_use, says_hold),
    gate("that is proven", cannot_tell, says_proof),
    gate("mappings seen as well", unseen_mapping, says_mappings),
    gate("not the only copy", sole_copy, says_sole_copy),
];

/// The verdict on a temp: the first gate that keeps it decides; one that asks for the quarantine
/// is remembered, and the temp goes there if no later gate keeps it.
#[must_use]
pub fn judge(evidence: &Evidence, policy: &Policy) -> Verdict {
    let mut quarantine = None;
    for gate in GATES {
        match gate.check(evidence, policy) {
            Answer::Pass => {}
            Answer::Keep(reason) => return Verdict::Keep(reason),
            Answer::Quarantine(reason) => quarantine = quarantine.or(Some(reason)),
        }
    }
    let to_quarantine = quarantine.is_some() || policy.action == Action::Quarantine;
    match to_quarantine {
        true if evidence.dir.quarantine => Verdict::Quarantine(quarantine),
        true => Verdict::Keep(Reason::NoQuarantine),
        false => Verdict::Reap,
    }
}

fn keep_if(stays: bool, reason: Reason) -> Answer {
    if stays {
        Answer::Keep(reason)
    } else {
        Answer::Pass
    }
}

fn restored(e: &Evidence, _: &Policy) -> Answer {
    keep_if(e.restored, Reason::Restored)
}

fn says_restored(e: &Evidence) -> String {
    match e.restored {
        true => "orphand restore brought it back, and it has not changed since".into(),
        false => "it carries no mark of a restored file".into(),
    }
}

fn reserved(e: &Evidence, _: &Policy) -> Answer {
    keep_if(e.reserved.is_some(), Reason::Reserved)
}

fn says_reserved(e: &Evidence) -> String {
    match &e.reserved {
        Some(reserved) => reserved.to_string(),
        None => "its name is not reserved, and no companion lies beside it".into(),
    }
}

fn young(e: &Evidence, _: &Policy) -> Answer {
    keep_if(
        rule!("both-looks-and-the-grace", e.quiet < e.grace),
        Reason::Young,
    )
}

fn says_young(e: &Evidence) -> String {
    format!(
        "quiet for {}, its grace is {}",
        span(e.quiet),
        span(e.grace)
    )
}

fn changed(e: &Evidence, _: &Policy) -> Answer {
    let same = e
        .expected
        .is_none_or(|expected| expected == e.observation.fingerprint);
    keep_if(!same, Reason::Changed)
}

fn says_changed(e: &Evidence) -> String {
    let f = &e.observation.fingerprint;
    let looks = match e.expected {
        None => "one look",
        Some(expected) if expected == *f => "two looks, the same",
        Some(_) => "two looks that differ",
    };
    format!("{looks}: inode {}, {} bytes", f.ino, f.size)
}

fn not_regular(e: &Evidence, _: &Policy) -> Answer {
    let regular = e.observation.fingerprint.kind == Kind::File;
    keep_if(!regular, Reason::NotRegular)
}

fn says_not_regular(e: &Evidence) -> String {
    match e.observation.fingerprint.kind {
        Kind::File => "a regular file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Other => "a FIFO, a socket or a device",
    }
    .into()
}

/// By the mount's number where there is one: on overlayfs a file and its directory may differ in
/// their device numbers for ever, and a bind mount of the same file system has the same one.
fn other_mount(e: &Evidence, _: &Policy) -> Answer {
    let same = match (e.observation.mount, e.dir.mount) {
        (Some(file), Some(dir)) => file == dir,
        _ => e.observation.fingerprint.dev == e.dir.dev,
    };
    keep_if(!same || e.observation.mount_root, Reason::OtherMount)
}

fn says_other_mount(e: &Evidence) -> String {
    let number = |mount: Option<u64>| mount.map_or_else(|| "unnumbered".into(), |m| m.to_string());
    let (file, dir) = (number(e.observation.mount), number(e.dir.mount));
    format!("file on mount {file}, directory on mount {dir}")
}

fn protected(e: &Evidence, _: &Policy) -> Answer {
    keep_if(
        e.observation.protected || e.observation.dataless,
        Reason::Protected,
    )
}

fn says_protected(e: &Evidence) -> String {
    match (e.observation.protected, e.observation.dataless) {
        (true, _) => "immutable or append-only",
        (_, true) => "its content is not on this machine",
        (false, false) => "neither immutable nor append-only",
    }
    .into()
}

/// A temp whose other name is its own target (linked, then killed before the unlink) loses nothing.
fn hard_linked(e: &Evidence, _: &Policy) -> Answer {
    let links = e.observation.fingerprint.links;
    let own_target = links == 2 && e.target == Target::Whole { same_file: true };
    keep_if(links != 1 && !own_target, Reason::HardLinked)
}

fn says_hard_linked(e: &Evidence) -> String {
    match (e.observation.fingerprint.links, e.target) {
        (1, _) => "one link".into(),
        (2, Target::Whole { same_file: true }) => "two links, the other is its target".into(),
        (n, _) => format!("{n} links"),
    }
}

fn network_fs(e: &Evidence, policy: &Policy) -> Answer {
    keep_if(!e.dir.has_proof(policy), Reason::NetworkFs)
}

fn says_network_fs(e: &Evidence) -> String {
    format!("file system {}", e.dir.file_system)
}

fn foreign_owner(e: &Evidence, _: &Policy) -> Answer {
    let ours = e.our_uid == 0 || e.observation.fingerprint.uid == e.our_uid;
    keep_if(!ours, Reason::ForeignOwner)
}

fn says_foreign_owner(e: &Evidence) -> String {
    let owner = e.observation.fingerprint.uid;
    format!("owned by uid {owner}; this is uid {}", e.our_uid)
}

fn writer_alive(e: &Evidence, _: &Policy) -> Answer {
    let may_live = match e.writer {
        Writer::NoPid | Writer::Gone(_) => false,
        Writer::Alive(_) | Writer::InContainer(_) | Writer::Unknown(_) => true,
    };
    let counts = rule!("pid-counts-for-a-day", e.unused < PID_FORGOTTEN, without: true);
    keep_if(may_live && counts, Reason::WriterAlive)
}

fn says_writer_alive(e: &Evidence) -> String {
    match e.writer {
        Writer::NoPid => "its name carries no pid".into(),
        Writer::Gone(pid) => format!("pid {pid} is gone"),
        Writer::Alive(pid) if e.unused < PID_FORGOTTEN => format!("pid {pid} lives"),
        Writer::Alive(pid) => format!("pid {pid} lives, but nobody used this for 24 h"),
        Writer::InContainer(pid) if e.unused < PID_FORGOTTEN => {
            format!("a process in a container, where it is pid {pid}, lives")
        }
        Writer::InContainer(pid) => {
            format!("pid {pid} of a container lives, but nobody used this for 24 h")
        }
        Writer::Unknown(pid) if e.unused < PID_FORGOTTEN => {
            format!("whether a process in a container is pid {pid} there cannot be seen")
        }
        Writer::Unknown(pid) => {
            format!("pid {pid} of a container may live, but nobody used this for 24 h")
        }
    }
}

fn closed(e: &Evidence, policy: &Policy) -> Answer {
    let settled = policy.closed == Closed::Settled && (e.closed || e.use_state == UseState::Unused);
    keep_if(settled, Reason::Closed)
}

fn says_closed(e: &Evidence) -> String {
    match (e.closed, e.use_state) {
        (true, _) => "a close was seen",
        (false, UseState::Unused) => "nobody has it open",
        (false, _) => "no close was seen",
    }
    .into()
}

/// Where what is open may go, a lock is all that keeps it.
fn locked(e: &Evidence, policy: &Policy) -> Answer {
    match e.use_state {
        UseState::Locked => Answer::Keep(Reason::Locked),
        UseState::InUse | UseState::Unknown
            if rule!("unseen-locks-keep", !e.opened && policy.open != Open::Keep) =>
        {
            Answer::Keep(Reason::CannotTell)
        }
        UseState::InUse | UseState::Unknown | UseState::Unused => Answer::Pass,
    }
}

fn says_locked(e: &Evidence) -> String {
    match (e.use_state, e.opened) {
        (UseState::InUse | UseState::Unknown, false) => "it cannot be asked for locks".into(),
        (UseState::InUse | UseState::Unknown, true) => {
            "no lock on it is seen; before it goes it is asked for one".into()
        }
        _ => says_hold(e),
    }
}

fn in_use(e: &Evidence, policy: &Policy) -> Answer {
    match (e.use_state.is_held(), policy.open) {
        (false, _) | (true, Open::Reap) => Answer::Pass,
        (true, Open::Quarantine) => Answer::Quarantine(Reason::InUse),
        (true, Open::Keep) => Answer::Keep(Reason::InUse),
    }
}

fn says_hold(e: &Evidence) -> String {
    match e.use_state {
        UseState::Unused => "nobody on this kernel has it open or mapped",
        UseState::InUse => "somebody has it open or mapped",
        UseState::Locked => "somebody holds a lock on it",
        UseState::Unknown => "nobody was seen holding it",
    }
    .into()
}

/// `open = "reap"` is the one wish that does without the proof.
fn cannot_tell(e: &Evidence, policy: &Policy) -> Answer {
    let unproven = e.use_state == UseState::Unknown && policy.open != Open::Reap;
    keep_if(unproven, Reason::CannotTell)
}

fn says_proof(e: &Evidence) -> String {
    match e.use_state {
        UseState::Unknown => "the kernel gave no answer that proves it",
        _ => "it was asked for, and answered",
    }
    .into()
}

fn unseen_mapping(e: &Evidence, policy: &Policy) -> Answer {
    let blind = e.dir.lease_coverage == LeaseCoverage::OpensOnly && !e.mappings_examined;
    match policy.open {
        Open::Reap => Answer::Pass,
        _ if blind => Answer::Quarantine(Reason::CannotTell),
        _ => Answer::Pass,
    }
}

fn says_mappings(e: &Evidence) -> String {
    match (e.dir.lease_coverage, e.mappings_examined) {
        (LeaseCoverage::OpensAndMaps, _) => "the proof covers mappings here",
        (_, true) => "every process was examined, none has it mapped",
        (_, false) => "not every process could be examined for mappings",
    }
    .into()
}

/// An empty file may be a flag or a claim of a lock: it passes only if its name has a random part, or if it replaces a
/// file that is there.
fn sole_copy(e: &Evidence, policy: &Policy) -> Answer {
    let is_random = rule!("empty-with-fixed-name-is-kept", e.random_name, without: true);
    let says_nothing = e.observation.fingerprint.size == 0 && is_random;
    let sole = !says_nothing && !e.target.counts();
    match (sole, policy.sole_copy) {
        (false, _) | (true, SoleCopy::Reap) => Answer::Pass,
        (true, SoleCopy::Quarantine) => Answer::Quarantine(Reason::SoleCopy),
        (true, SoleCopy::Keep) => Answer::Keep(Reason::SoleCopy),
    }
}

fn says_sole_copy(e: &Evidence) -> String {
    match (e.observation.fingerprint.size, e.target) {
        (0, _) if e.random_name => "it is empty, and its name has a random part".into(),
        (0, target) if !target.counts() => {
            format!("it is empty, and may be a flag: {}", says_target(target))
        }
        (_, target) => says_target(target),
    }
}

/// What is at the target, as the end of a sentence.
fn says_target(target: Target) -> String {
    match target {
        Target::Unknown => "its name does not tell its target".into(),
        Target::Whole { .. } => "its target is there, with content".into(),
        target => format!("its target {}", target.fault().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::Graces;
    use crate::decide::time::Wall;

    const GRACE: Duration = Duration::from_secs(300);

    /// A temp against which nothing stands.
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
    fn an_orphan_goes() {
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
                "bind mount of the same file system",
                policy(),
                with(|e| e.observation.mount = Some(4)),
                keep(Reason::OtherMount),
            ),
            (
                "root of a subvolume",
                policy(),
                with(|e| e.observation.mount_root = true),
                keep(Reason::OtherMount),
            ),
            (
                "other device where mounts have no numbers",
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
                "hard link",
                policy(),
                with(|e| {
                    e.observation.fingerprint.links = 2;
                    e.expected = None;
                }),
                keep(Reason::HardLinked),
            ),
            (
                "third name beside the target",
                policy(),
                with(|e| {
                    e.observation.fingerprint.links = 3;
                    e.expected = None;
                    e.target = Target::Whole { same_file: true };
                }),
                keep(Reason::HardLinked),
            ),
            (
                "network",
                policy(),
                with(|e| {
                    e.dir.lease_coverage = LeaseCoverage::Unknown;
                    e.dir.file_system = "nfs".into();
                }),
                keep(Reason::NetworkFs),
            ),
            (
                "owner",
                policy(),
                with(|e| e.our_uid = 1001),
                keep(Reason::ForeignOwner),
            ),
            (
                "live writer",
                policy(),
                with(|e| e.writer = Writer::Alive(4711)),
                keep(Reason::WriterAlive),
            ),
            (
                "live writer in a container",
                policy(),
                with(|e| {
                    e.writer = Writer::InContainer(7);
                    e.unused = PID_FORGOTTEN - Duration::from_nanos(1);
                }),
                keep(Reason::WriterAlive),
            ),
            (
                "a writer in a container that cannot be seen",
                policy(),
                with(|e| {
                    e.writer = Writer::Unknown(7);
                    e.unused = PID_FORGOTTEN - Duration::from_nanos(1);
                }),
                keep(Reason::WriterAlive),
            ),
            (
                "a close was seen",
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
                "locked, though open ones may go",
                Policy {
                    open: Open::Reap,
                    ..policy()
                },
                with(|e| e.use_state = UseState::Locked),
                keep(Reason::Locked),
            ),
            (
                "locked, for all that can be seen",
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
                "the same, though open ones may go",
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
                "held, and locks cannot be seen",
                policy(),
                with(|e| {
                    e.use_state = UseState::InUse;
                    e.opened = false;
                }),
                keep(Reason::InUse),
            ),
            (
                "held",
                policy(),
                with(|e| e.use_state = UseState::InUse),
                keep(Reason::InUse),
            ),
            (
                "unproven",
                policy(),
                with(|e| e.use_state = UseState::Unknown),
                keep(Reason::CannotTell),
            ),
            (
                "unproven, though held ones may be moved",
                Policy {
                    open: Open::Quarantine,
                    ..policy()
                },
                with(|e| e.use_state = UseState::Unknown),
                keep(Reason::CannotTell),
            ),
            (
                "sole copy that is to stay",
                Policy {
                    sole_copy: SoleCopy::Keep,
                    ..policy()
                },
                with(|e| e.target = Target::Absent),
                keep(Reason::SoleCopy),
            ),
            (
                "sole copy and no quarantine",
                policy(),
                with(|e| {
                    e.target = Target::Unknown;
                    e.dir.quarantine = false;
                }),
                keep(Reason::NoQuarantine),
            ),
            (
                "to the quarantine by wish, and none is there",
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
    fn what_may_not_be_destroyed_is_moved() {
        let moved = |reason| Verdict::Quarantine(Some(reason));
        let sole = with(|e| e.target = Target::Absent);
        check(&policy(), &sole, moved(Reason::SoleCopy));
        let foreign = with(|e| e.target = Target::Foreign);
        check(&policy(), &foreign, moved(Reason::SoleCopy));
        let unknown = with(|e| e.target = Target::Unknown);
        check(&policy(), &unknown, moved(Reason::SoleCopy));
        let overlay = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
        check(&policy(), &overlay, moved(Reason::CannotTell));
        let wish = Policy {
            action: Action::Quarantine,
            ..policy()
        };
        check(&wish, &orphan(), Verdict::Quarantine(None));
        let held = with(|e| e.use_state = UseState::InUse);
        let move_held = Policy {
            open: Open::Quarantine,
            ..policy()
        };
        check(&move_held, &held, moved(Reason::InUse));
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
    fn what_may_go_all_the_same() {
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
        let pid_of_yesterday = with(|e| {
            e.writer = Writer::Alive(7);
            e.unused = PID_FORGOTTEN;
        });
        check(&policy(), &pid_of_yesterday, Verdict::Reap);
        for writer in [Writer::InContainer(7), Writer::Unknown(7)] {
            let container_of_yesterday = with(|e| {
                e.writer = writer;
                e.unused = PID_FORGOTTEN;
            });
            check(&policy(), &container_of_yesterday, Verdict::Reap);
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
    fn the_letter_takes_what_is_open() {
        let letter = Policy {
            open: Open::Reap,
            ..policy()
        };
        for hold in [UseState::InUse, UseState::Unknown, UseState::Unused] {
            check(&letter, &with(|e| e.use_state = hold), Verdict::Reap);
        }
        let unexamined = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
        check(&letter, &unexamined, Verdict::Reap);
        check(
            &settled(),
            &with(|e| e.use_state = UseState::InUse),
            Verdict::Reap,
        );
    }

    #[test]
    fn the_first_gate_that_keeps_gives_the_reason() {
        let everything = with(|e| {
            e.quiet = Duration::ZERO;
            e.observation.fingerprint.links = 4;
            e.our_uid = 5;
            e.writer = Writer::Alive(1);
            e.use_state = UseState::Locked;
            e.target = Target::Absent;
        });
        check(&policy(), &everything, Verdict::Keep(Reason::Young));
        let held_sole = with(|e| {
            e.use_state = UseState::InUse;
            e.target = Target::Absent;
        });
        check(&policy(), &held_sole, Verdict::Keep(Reason::InUse));
    }

    #[test]
    fn the_words_are_distinct_and_so_are_the_bits() {
        let words: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(words.len(), Reason::ALL.len());
        let bits = Reason::ALL
            .iter()
            .fold(0, |bits, reason| bits | reason.bit());
        assert_eq!(bits.count_ones() as usize, Reason::ALL.len());
    }

    #[test]
    fn every_gate_says_what_it_rests_on() {
        for gate in GATES {
            assert!(!gate.describe(&orphan()).is_empty(), "{}", gate.name);
            assert_eq!(
                gate.check(&orphan(), &policy()),
                Answer::Pass,
                "{}",
                gate.name
            );
        }
    }

    /// `orphand explain` prints these: they must not say the opposite of what the gate answers.
    #[test]
    fn what_is_said_is_what_is_so() {
        #[track_caller]
        fn says(gate: &str, evidence: &Evidence, end: &str) {
            let gate = GATES.iter().find(|g| g.name == gate).expect("a gate");
            let said = gate.describe(evidence);
            assert!(said.ends_with(end), "{}: {said:?}, not {end:?}", gate.name);
        }

        says(
            "not brought back by restore",
            &orphan(),
            "no mark of a restored file",
        );
        let restored = with(|e| e.restored = true);
        says(
            "not brought back by restore",
            &restored,
            "has not changed since",
        );
        says(
            "quiet for its grace",
            &orphan(),
            "quiet for 5 min, its grace is 5 min",
        );

        says(
            "still what was looked at",
            &orphan(),
            "the same: inode 7, 10 bytes",
        );
        let once = with(|e| e.expected = None);
        says(
            "still what was looked at",
            &once,
            "one look: inode 7, 10 bytes",
        );
        let grown = with(|e| e.observation.fingerprint.size = 11);
        says(
            "still what was looked at",
            &grown,
            "differ: inode 7, 11 bytes",
        );

        for (kind, word) in [
            (Kind::File, "regular file"),
            (Kind::Dir, "directory"),
            (Kind::Symlink, "symbolic link"),
            (Kind::Other, "a FIFO, a socket or a device"),
        ] {
            let other = with(|e| e.observation.fingerprint.kind = kind);
            says("a regular file", &other, word);
        }

        let elsewhere = with(|e| e.observation.mount = None);
        let mounts = "file on mount unnumbered, directory on mount 3";
        says("on its directory's mount", &elsewhere, mounts);

        says(
            "not protected",
            &orphan(),
            "neither immutable nor append-only",
        );
        let immutable = with(|e| e.observation.protected = true);
        says("not protected", &immutable, "immutable or append-only");
        let dataless = with(|e| e.observation.dataless = true);
        says("not protected", &dataless, "not on this machine");

        for (links, same_file, words) in [
            (1, false, "one link"),
            (2, true, "the other is its target"),
            (2, false, "2 links"),
            (3, true, "3 links"),
        ] {
            let linked = with(|e| {
                e.observation.fingerprint.links = links;
                e.target = Target::Whole { same_file };
            });
            says("no other name", &linked, words);
        }

        says("on a file system with proof", &orphan(), "file system ext4");
        let owner = "owned by uid 1000; this is uid 5";
        says("ours to judge", &with(|e| e.our_uid = 5), owner);

        let pid = |writer, unused| {
            with(|e| {
                e.writer = writer;
                e.unused = unused;
            })
        };
        let just_before = PID_FORGOTTEN - Duration::from_nanos(1);
        for (writer, unused, words) in [
            (Writer::NoPid, GRACE, "no pid"),
            (Writer::Gone(7), GRACE, "pid 7 is gone"),
            (Writer::Alive(7), just_before, "pid 7 lives"),
            (Writer::Alive(7), PID_FORGOTTEN, "nobody used this for 24 h"),
            (
                Writer::InContainer(7),
                just_before,
                "where it is pid 7, lives",
            ),
            (
                Writer::InContainer(7),
                PID_FORGOTTEN,
                "pid 7 of a container lives, but nobody used this for 24 h",
            ),
            (
                Writer::Unknown(7),
                just_before,
                "is pid 7 there cannot be seen",
            ),
            (
                Writer::Unknown(7),
                PID_FORGOTTEN,
                "pid 7 of a container may live, but nobody used this for 24 h",
            ),
        ] {
            says("writer gone", &pid(writer, unused), words);
        }

        let close = |closed, hold| {
            with(|e| {
                e.closed = closed;
                e.use_state = hold;
            })
        };
        for (closed, hold, words) in [
            (true, UseState::InUse, "a close was seen"),
            (false, UseState::Unused, "nobody has it open"),
            (false, UseState::InUse, "no close was seen"),
        ] {
            says("not settled by a close", &close(closed, hold), words);
        }

        for (hold, holder, leased) in [
            (
                UseState::Unused,
                "nobody on this kernel has it open or mapped",
                "answered",
            ),
            (
                UseState::InUse,
                "somebody has it open or mapped",
                "answered",
            ),
            (UseState::Locked, "a lock on it", "answered"),
            (
                UseState::Unknown,
                "nobody was seen holding it",
                "answer that proves it",
            ),
        ] {
            let held = with(|e| e.use_state = hold);
            let lock = match hold {
                UseState::Unused | UseState::Locked => holder,
                UseState::InUse | UseState::Unknown => "before it goes it is asked for one",
            };
            says("nobody locks it", &held, lock);
            says("nobody holds it", &held, holder);
            says("that is proven", &held, leased);
        }

        let unseen = with(|e| {
            e.use_state = UseState::InUse;
            e.opened = false;
        });
        says("nobody locks it", &unseen, "cannot be asked for locks");
        let unlocked = with(|e| e.opened = false);
        says("nobody locks it", &unlocked, "has it open or mapped");

        for (reach, examined, words) in [
            (
                LeaseCoverage::OpensAndMaps,
                false,
                "the proof covers mappings here",
            ),
            (LeaseCoverage::OpensOnly, true, "none has it mapped"),
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
            says("mappings seen as well", &mapped, words);
        }

        let same_file = false;
        let link = Target::Link;
        #[rustfmt::skip]
        let rows = [
            (0, true, Target::Absent, "its name has a random part"),
            (0, false, Target::Absent, "it is empty, and may be a flag: its target is missing"),
            (0, false, Target::Unknown, "may be a flag: its name does not tell its target"),
            (0, false, Target::Whole { same_file }, "its target is there, with content"),
            (1, true, Target::Unknown, "its name does not tell its target"),
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
            (1, true, Target::Dwarfed, "has less than a sixteenth of its data"),
            (1, true, Target::Short, "has less data, and is not older"),
            (1, true, Target::Whole { same_file }, "its target is there, with content"),
        ];
        for (size, random_name, target, words) in rows {
            let copy = with(|e| {
                e.observation.fingerprint.size = size;
                e.random_name = random_name;
                e.target = target;
            });
            says("not the only copy", &copy, words);
        }
    }

    #[test]
    fn a_verdict_has_its_word_and_its_reason() {
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
