//! A model of the protocol, explored exhaustively for small bounds.
//!
//! The model has names, inodes, leases, threads inside one `open`, writers that follow the rule (docs/safety.md, first
//! paragraph) or are killed, a second writer with the same name, readers, a full disk, and a reaper that may be killed
//! between any two of its calls. Every order of their actions is tried. It uses the real judge and the real
//! fingerprint, and the reaper follows the real [`Step::ALL`]: a step without its part in the model does not compile.
//!
//! A model that finds no loss proves little by itself. So each check of the protocol is left out in turn, and each
//! window that docs/safety.md names is opened in turn; the model must then find a loss.
//!
//! `model_sets.rs` is the model of temps with companions.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use orphand::core::judge::{
    Dates, DirProperties, Evidence, LeaseCoverage, Target, Verdict, Writer, judge,
};
use orphand::core::observation::{Fingerprint, Kind, Observation, UseState};
use orphand::core::policy::Policy;
use orphand::core::time::Wall;
use orphand::reap::Step;

use crate::explorer::{
    self, Explorable, Loss, LossTrace, Transitions, assert_needed, format_trace,
};
use crate::fixture::{RunAs, in_own_process, in_parallel};

/// The number of an inode.
pub(crate) type Ino = u8;

/// The file names in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    Temp,
    Target,
    /// Another temp, which a writer renames onto the first.
    Spare,
    Claim(u8),
    /// A slot in the quarantine.
    Slot(u8),
}

const CLAIMS: u8 = 2;
const SLOTS: u8 = 3;
const INODES: usize = 4;
const NAMES: usize = 3 + CLAIMS as usize + SLOTS as usize;

impl Name {
    fn index(self) -> usize {
        match self {
            Name::Temp => 0,
            Name::Target => 1,
            Name::Spare => 2,
            Name::Claim(n) => 3 + usize::from(n),
            Name::Slot(n) => 3 + usize::from(CLAIMS + n),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Lease {
    #[default]
    None,
    /// The reaper has a lease.
    Held,
    /// The reaper has a lease, and another process has tried to open the file.
    Breaking,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Inode {
    /// Grows with each change of the content.
    content: u8,
    /// Grows with each rename.
    renamed: u8,
    empty: bool,
    lease: Lease,
}

/// The result of a look at a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Snapshot {
    ino: Ino,
    content: u8,
    renamed: u8,
    empty: bool,
}

/// Returns the observation of an inode whose content and name have changed so many times.
pub(crate) fn observation(ino: Ino, content: u8, renamed: u8, empty: bool) -> Observation {
    let wall = |sec: u8, nsec: u8| Wall {
        sec: i64::from(sec),
        nsec: u32::from(nsec),
    };
    Observation {
        fingerprint: Fingerprint {
            dev: 1,
            ino: u64::from(ino),
            kind: Kind::File,
            size: if empty { 0 } else { 7 },
            mtime: wall(content, 0),
            ctime: wall(content, renamed),
            btime: None,
            links: 1,
            uid: 0,
        },
        mode: 0o600,
        mount: Some(1),
        mount_root: false,
        protected: false,
        dataless: false,
        allocated: 0,
    }
}

impl Snapshot {
    fn observation(self) -> Observation {
        observation(self.ino, self.content, self.renamed, self.empty)
    }

    fn same_after_rename(self, judged: Snapshot) -> bool {
        let (now, judged) = (self.observation(), judged.observation());
        now.fingerprint.is_same_after_rename(&judged.fingerprint)
    }
}

/// The operations of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// `O_CREAT | O_EXCL`; the script ends if the name exists.
    Create(Name),
    /// Opens the temp.
    Open(OpenMode),
    Write,
    Close,
    Rename(Name, Name),
    Unlink(Name),
    /// Moves the directory out of the root.
    MoveDir,
    /// Opens the better copies in the quarantine.
    OpenBetter,
    /// Overwrites them.
    SpoilBetter,
    /// Removes them from the quarantine.
    RemoveBetter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenMode {
    /// `O_CREAT | O_TRUNC`
    Truncate,
    /// `O_CREAT | O_APPEND`
    Append,
    Read,
    /// `O_NONBLOCK`
    ReadWithoutWaiting,
}

type Script = &'static [Op];

const WRITER: Script = &[
    Op::Create(Name::Temp),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Temp, Name::Target),
];
const TRUNCATER: Script = &[
    Op::Open(OpenMode::Truncate),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Temp, Name::Target),
];
const APPENDER: Script = &[
    Op::Open(OpenMode::Append),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Temp, Name::Target),
];
const RENEWER: Script = &[
    Op::Unlink(Name::Temp),
    Op::Create(Name::Temp),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Temp, Name::Target),
];
const REPLACER: Script = &[
    Op::Create(Name::Spare),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Spare, Name::Temp),
    Op::Rename(Name::Temp, Name::Target),
];
const READER: Script = &[Op::Open(OpenMode::Read), Op::Close];
const PEEPER: Script = &[Op::Open(OpenMode::ReadWithoutWaiting), Op::Close];
const SPOILER: Script = &[Op::Unlink(Name::Target)];
const MOVER: Script = &[Op::MoveDir];
const BETTER_SPOILER: Script = &[Op::OpenBetter, Op::SpoilBetter];
const BETTER_REMOVER: Script = &[Op::RemoveBetter];

/// The progress of a thread inside `open`. The kernel counts an opener before it looks for leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Opening {
    #[default]
    Not,
    /// It has looked up the inode of the name.
    Found(Ino),
    /// It is counted: a lease would now be refused.
    Counted(Ino),
    /// It waits for the reaper's lease to end.
    Waits(Ino),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Actor {
    at: u8,
    dead: bool,
    open: Option<Ino>,
    opening: Opening,
    /// The inode that it will rename to the target.
    pending: Option<Ino>,
    /// The number of looks at its file since it last changed the file, or was last seen holding it.
    looks: u8,
    /// It was already inside `open` when the reaper requested the lease for the second time.
    was_in: bool,
}

/// The progress of the reaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReaperState {
    /// Killed, or not started.
    Stopped,
    /// Recovering a claim: the number of the claim, and its next call.
    Recover(u8, u8),
    /// Waiting for the next look.
    Track,
    /// Running a step, and its next call.
    Do(Step, u8),
    /// Putting a claim back, and its next call.
    PutBack(u8),
}

/// The reaper, and data for the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelReaper {
    at: ReaperState,
    /// The result of the last look, and whether a process held the file.
    known: Option<(Snapshot, bool)>,
    attempts: u8,
    kills_left: u8,
    /// A bit for each claim that it kept because a process held it.
    left: u8,
    now: Attempt,
}

/// One temp that goes through the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Attempt {
    expected: Snapshot,
    seen: Snapshot,
    moves: bool,
    /// It is removed because of the better copies, if its target does not count.
    superseded: bool,
    opened: Ino,
    free: bool,
    judged: Snapshot,
    whole: bool,
    claim: Option<Claimed>,
    after: Snapshot,
    held: bool,
    /// The disk is full: the temp is processed under its original name.
    unclaimed: bool,
    /// Not part of the protocol, but data for the properties.
    history: History,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Claimed {
    Claim(u8),
    Slot(u8),
}

impl Claimed {
    fn name(self) -> Name {
        match self {
            Claimed::Claim(n) => Name::Claim(n),
            Claimed::Slot(n) => Name::Slot(n),
        }
    }
}

/// Facts at certain moments, for the properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct History {
    /// The directory was moved before the first step.
    moved_before: bool,
    /// The directory was moved before the last check of it.
    moved_since: bool,
    /// The inode of the name at the last comparison on a full disk.
    compared: Option<Ino>,
    /// The target counted at the last look.
    whole_last: bool,
    /// The better copies were in the quarantine and unused at the last check of them.
    better_last: bool,
    /// An opener got an error because of the reaper's lease, before the lease was requested again.
    was_refused: bool,
}

/// The copies in the quarantine that supersede the temp, as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Better {
    /// There are none, or no longer enough: one was removed or overwritten.
    #[default]
    Missing,
    /// A process has one open.
    Held,
    Unused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelState {
    names: [Option<Ino>; NAMES],
    inodes: [Inode; INODES],
    /// The number of inodes.
    made: Ino,
    dir_moved: bool,
    better: Better,
    actors: [Actor; 2],
    reaper: ModelReaper,
}

/// An action of an actor or of the reaper.
#[derive(Clone, Copy, Debug)]
enum Action {
    ActorStep(usize, Op, &'static str),
    ActorDies(usize),
    ReaperStep(ReaperState),
    ReaperKilled,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::ActorStep(who, op, what) => write!(f, "actor {who}: {op:?}{what}"),
            Action::ActorDies(who) => write!(f, "actor {who} is killed"),
            Action::ReaperStep(at) => write!(f, "reaper: {at:?}"),
            Action::ReaperKilled => f.write_str("the reaper is killed"),
        }
    }
}

/// A check of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    TwoLooks,
    HeldRestarts,
    ChangedRestarts,
    Resolve,
    Look,
    Opened,
    Proof,
    Judge,
    /// The judge's own comparison with the earlier look.
    JudgedSame,
    Compare,
    WaitsForUs,
    CountedByNow,
    ReleaseWait,
    ResolvedAgain,
    ProveLast,
    Untouched,
    TargetLast,
    /// The better copies are in the quarantine, unchanged.
    BetterJudged,
    /// The better copies are in the quarantine, unchanged and unused.
    BetterLast,
    FullDiskBetter,
    PutBackOverwritesNothing,
    PutBackDeletesNothing,
    FullDiskCompare,
    FullDiskTarget,
    FullDiskProve,
    Recovery,
    RecoveryOverwritesNothing,
    RecoveryDeletesNothing,
    RecoveryLeavesHeldAlone,
}

impl Check {
    const ALL: [Check; 29] = [
        Check::TwoLooks,
        Check::HeldRestarts,
        Check::ChangedRestarts,
        Check::Resolve,
        Check::Look,
        Check::Opened,
        Check::Proof,
        Check::Judge,
        Check::JudgedSame,
        Check::Compare,
        Check::WaitsForUs,
        Check::CountedByNow,
        Check::ReleaseWait,
        Check::ResolvedAgain,
        Check::ProveLast,
        Check::Untouched,
        Check::TargetLast,
        Check::BetterJudged,
        Check::BetterLast,
        Check::FullDiskBetter,
        Check::PutBackOverwritesNothing,
        Check::PutBackDeletesNothing,
        Check::FullDiskCompare,
        Check::FullDiskTarget,
        Check::FullDiskProve,
        Check::Recovery,
        Check::RecoveryOverwritesNothing,
        Check::RecoveryDeletesNothing,
        Check::RecoveryLeavesHeldAlone,
    ];
}

// The lists above are complete.
const _: () = assert!(Check::ALL.len() == Check::RecoveryLeavesHeldAlone as usize + 1);
const _: () = assert!(Window::ALL.len() == Window::FullDiskInsideOpen as usize + 1);

/// A remaining window that docs/safety.md names. While it is closed, no process acts in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// A thread stays inside one `open` from before the claim until after the last proof.
    InsideOpen,
    /// A writer pauses for longer than the rule allows.
    Pause,
    /// A writer renames between the claim and the put-back.
    BeforePutBack,
    /// The directory is moved out of the root after its last check.
    MovedOut,
    /// The target is removed after its last check.
    TargetRemoved,
    /// A better copy is removed, opened or overwritten after the last check of it.
    BetterRemoved,
    /// Full disk: another file takes the name after the comparison.
    FullDiskReplaced,
    /// Full disk: a thread is inside `open` when the file is removed.
    FullDiskInsideOpen,
}

impl Window {
    const ALL: [Window; 8] = [
        Window::InsideOpen,
        Window::Pause,
        Window::BeforePutBack,
        Window::MovedOut,
        Window::TargetRemoved,
        Window::BetterRemoved,
        Window::FullDiskReplaced,
        Window::FullDiskInsideOpen,
    ];
}

#[derive(Clone, Copy, Debug)]
struct Model {
    scripts: [Script; 2],
    /// A temp of a killed writer exists from the start.
    orphan: bool,
    /// A target exists from the start.
    target: bool,
    /// The copies that supersede the temp are in the quarantine from the start.
    better: bool,
    /// A claim may fail for lack of space.
    full: bool,
    /// The maximum number of times that the reaper is killed.
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
}

impl ModelState {
    fn at(&self, name: Name) -> Option<Ino> {
        self.names[name.index()]
    }

    fn set(&mut self, name: Name, ino: Option<Ino>) {
        self.names[name.index()] = ino;
    }

    fn inode(&mut self, ino: Ino) -> &mut Inode {
        &mut self.inodes[usize::from(ino)]
    }

    fn look(&self, ino: Ino) -> Snapshot {
        let inode = self.inodes[usize::from(ino)];
        Snapshot {
            ino,
            content: inode.content,
            renamed: inode.renamed,
            empty: inode.empty,
        }
    }

    fn look_at(&self, name: Name) -> Option<Snapshot> {
        self.at(name).map(|ino| self.look(ino))
    }

    fn make(&mut self, name: Name) -> Ino {
        let ino = self.made;
        self.made += 1;
        self.inode(ino).empty = true;
        self.set(name, Some(ino));
        ino
    }

    /// Renames, and overwrites the new name.
    fn rename(&mut self, from: Name, to: Name) {
        let ino = self.at(from);
        self.set(from, None);
        self.set(to, ino);
        if let Some(ino) = ino {
            self.inode(ino).renamed += 1;
        }
    }

    fn target(&self) -> Target {
        match self.look_at(Name::Target) {
            None => Target::Absent,
            Some(seen) if seen.empty => Target::Empty,
            Some(_) => Target::Whole { same_file: false },
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self.target(), Target::Whole { .. })
    }

    /// Reports whether a lease on the inode would be refused.
    fn is_held(&self, ino: Ino) -> bool {
        self.actors.iter().any(|actor| {
            actor.open == Some(ino)
                || matches!(actor.opening, Opening::Counted(i) | Opening::Waits(i) if i == ino)
        })
    }

    /// Reports whether a live actor may still need the inode.
    fn is_needed(&self, ino: Ino) -> bool {
        self.actors.iter().any(|actor| {
            let open = actor.open == Some(ino) || actor.pending == Some(ino);
            open || actor.opening.of() == Some(ino)
        })
    }

    /// Reports whether the reaper has renamed the inode away.
    fn is_taken(&self, ino: Ino) -> bool {
        self.names[Name::Claim(0).index()..].contains(&Some(ino))
    }

    fn free_slot(&self) -> u8 {
        let free = (0..SLOTS).find(|n| self.at(Name::Slot(*n)).is_none());
        free.expect("enough slots for all attempts")
    }
}

impl Opening {
    fn of(self) -> Option<Ino> {
        match self {
            Opening::Not => None,
            Opening::Found(ino) | Opening::Counted(ino) | Opening::Waits(ino) => Some(ino),
        }
    }
}

impl Explorable for Model {
    type State = ModelState;
    type Action = Action;

    fn start(&self) -> ModelState {
        let mut state = ModelState {
            names: [None; NAMES],
            inodes: [Inode::default(); INODES],
            made: 0,
            dir_moved: false,
            better: match self.better {
                true => Better::Unused,
                false => Better::Missing,
            },
            actors: [Actor::default(); 2],
            reaper: ModelReaper {
                at: ReaperState::Track,
                known: None,
                attempts: 2,
                kills_left: self.kills,
                left: 0,
                now: Attempt::default(),
            },
        };
        for (name, there) in [(Name::Target, self.target), (Name::Temp, self.orphan)] {
            if there {
                let ino = state.make(name);
                state.inode(ino).empty = false;
            }
        }
        state
    }

    fn next(&self, state: &ModelState, next: &mut Transitions<Model>) {
        for index in 0..state.actors.len() {
            self.act(state, index, next);
        }
        self.reap(state, next);
    }
}

impl Model {
    fn has(&self, check: Check) -> bool {
        !self.without.contains(&check)
    }

    fn is_closed(&self, window: Window) -> bool {
        self.open != Some(window)
    }

    /// Adds the possible actions of the actor: the next operation, or its death.
    fn act(&self, state: &ModelState, index: usize, next: &mut Transitions<Model>) {
        let me = state.actors[index];
        let Some(op) = self.scripts[index].get(usize::from(me.at)) else {
            return;
        };
        if me.dead {
            return;
        }
        let mut dead = *state;
        dead.actors[index] = Actor {
            dead: true,
            at: me.at,
            ..Actor::default()
        };
        if dead.better == Better::Held && self.scripts[index] == BETTER_SPOILER {
            dead.better = Better::Unused;
        }
        next.push((Action::ActorDies(index), Ok(dead)));

        let mut then = *state;
        let end = self.scripts[index].len() as u8;
        // Modified here, and stored in the new state at the end.
        let mut me = me;
        let mut loss = None;
        let mut what = "";
        match *op {
            Op::Create(name) if state.at(name).is_some() => {
                me.at = end;
                what = " gives up";
            }
            Op::Create(name) => {
                let ino = then.make(name);
                me.open = Some(ino);
                me.pending = Some(ino);
                me.looks = 0;
                me.at += 1;
            }
            Op::Open(how) => match me.opening {
                Opening::Not => match (state.at(Name::Temp), how) {
                    (Some(ino), _) => {
                        me.opening = Opening::Found(ino);
                        what = " finds it";
                    }
                    (None, OpenMode::Truncate | OpenMode::Append) => {
                        let ino = then.make(Name::Temp);
                        me.open = Some(ino);
                        me.pending = Some(ino);
                        me.looks = 0;
                        me.at += 1;
                        what = " creates it";
                    }
                    (None, OpenMode::Read | OpenMode::ReadWithoutWaiting) => {
                        me.at = end;
                        what = " finds nothing";
                    }
                },
                Opening::Found(ino) => {
                    me.opening = Opening::Counted(ino);
                    what = " is counted";
                }
                Opening::Counted(ino) | Opening::Waits(ino) => {
                    match (state.inodes[usize::from(ino)].lease, me.opening) {
                        (Lease::None, _) => {
                            me.opening = Opening::Not;
                            me.open = Some(ino);
                            if matches!(how, OpenMode::Truncate | OpenMode::Append) {
                                me.pending = Some(ino);
                            }
                            if how == OpenMode::Truncate {
                                then.inode(ino).content += 1;
                                then.inode(ino).empty = true;
                                me.looks = 0;
                            }
                            me.at += 1;
                        }
                        // It still waits.
                        (_, Opening::Waits(_)) => return,
                        _ => {
                            then.inode(ino).lease = Lease::Breaking;
                            if how == OpenMode::ReadWithoutWaiting {
                                let before = match state.reaper.at {
                                    ReaperState::Do(step, sub) => {
                                        position(step) < position(Step::ProveAgain)
                                            || (step, sub) == (Step::ProveAgain, 0)
                                    }
                                    _ => false,
                                };
                                then.reaper.now.history.was_refused |= before;
                                me.opening = Opening::Not;
                                me.at = end;
                                what = " gets an error";
                            } else {
                                me.opening = Opening::Waits(ino);
                                what = " waits";
                            }
                        }
                    }
                }
            },
            Op::Write => {
                let ino = me.open.expect("an open file");
                then.inode(ino).content += 1;
                then.inode(ino).empty = false;
                me.looks = 0;
                me.at += 1;
            }
            Op::Close => {
                me.open = None;
                me.at += 1;
            }
            Op::Rename(from, to) => match state.at(from) {
                Some(_) => {
                    then.rename(from, to);
                    me.looks = 0;
                    if to == Name::Target {
                        me.pending = None;
                        me.was_in = false;
                    }
                    me.at += 1;
                }
                None => {
                    let ours = me.pending.is_some_and(|ino| state.is_taken(ino));
                    if ours && me.was_in {
                        loss = Some("an opener from before the second lease request finds no name");
                    } else if ours && !self.is_closed(Window::BeforePutBack) {
                        loss = Some("a rename finds no name");
                    }
                    // The writer gets an error, and retries or reports it.
                    me.pending = None;
                    me.was_in = false;
                    me.at = end;
                    what = " finds nothing";
                }
            },
            Op::Unlink(name) => {
                then.set(name, None);
                me.at += 1;
            }
            Op::MoveDir => {
                then.dir_moved = true;
                me.at += 1;
            }
            Op::OpenBetter => {
                then.better = Better::Held;
                me.at += 1;
            }
            Op::SpoilBetter | Op::RemoveBetter => {
                then.better = Better::Missing;
                me.at += 1;
            }
        }
        then.actors[index] = me;
        next.push((
            Action::ActorStep(index, *op, what),
            loss.map_or(Ok(then), Err),
        ));
    }

    fn reap(&self, state: &ModelState, next: &mut Transitions<Model>) {
        let reaper = state.reaper;
        let label = Action::ReaperStep(reaper.at);
        if reaper.at != ReaperState::Stopped && reaper.kills_left > 0 {
            let mut killed = *state;
            killed.reaper = ModelReaper {
                at: ReaperState::Stopped,
                known: None,
                left: 0,
                kills_left: reaper.kills_left - 1,
                now: Attempt::default(),
                ..reaper
            };
            for inode in &mut killed.inodes {
                inode.lease = Lease::None;
            }
            // Until the next start, no process puts claims back.
            for actor in &mut killed.actors {
                actor.was_in = false;
            }
            next.push((Action::ReaperKilled, Ok(killed)));
        }
        match reaper.at {
            ReaperState::Stopped => {
                let mut then = *state;
                then.reaper.at = match self.has(Check::Recovery) {
                    true => ReaperState::Recover(0, 0),
                    false => ReaperState::Track,
                };
                next.push((label, then.check_no_claims_left()));
            }
            ReaperState::Recover(claim, call) => {
                next.push((label, self.recover(state, claim, call)))
            }
            ReaperState::Track => {
                if let Some(then) = self.track(state) {
                    next.push((label, Ok(then)));
                }
            }
            ReaperState::Do(step, call) => {
                let mut thens = Vec::new();
                self.step(*state, step, call, &mut thens);
                next.extend(thens.into_iter().map(|then| (label, then)));
            }
            ReaperState::PutBack(call) => next.push((label, self.put_back(*state, call))),
        }
    }

    /// One look, as the tracker makes it.
    fn track(&self, state: &ModelState) -> Option<ModelState> {
        let mut then = *state;
        if state.reaper.attempts == 0 {
            return None;
        }
        let Some(seen) = state.look_at(Name::Temp) else {
            then.reaper.known = None;
            return (then != *state).then_some(then);
        };
        let held = state.is_held(seen.ino);
        for actor in &mut then.actors {
            let pauses = actor.pending == Some(seen.ino) && actor.open.is_none();
            if pauses && actor.looks >= 1 {
                if self.is_closed(Window::Pause) {
                    // According to the rule, it renames before this look.
                    return None;
                }
            } else if pauses {
                actor.looks += 1;
            } else if actor.open == Some(seen.ino) {
                actor.looks = 0;
            }
        }
        let judged = match state.reaper.known {
            None if self.has(Check::TwoLooks) => false,
            None => true,
            // Judging reports that a process holds it.
            _ if held => false,
            Some((_, true)) if self.has(Check::HeldRestarts) => false,
            Some((known, _)) if known != seen && self.has(Check::ChangedRestarts) => false,
            Some(_) => true,
        };
        then.reaper.known = Some((seen, held));
        if judged && !held {
            let superseded = state.better == Better::Unused;
            let verdict = judge_as(seen, None, UseState::Unused, state.target(), superseded);
            then.reaper.now = Attempt {
                expected: seen,
                superseded,
                moves: matches!(verdict, Verdict::Quarantine(_)),
                ..Attempt::default()
            };
            then.reaper.attempts -= 1;
            then.reaper.at = ReaperState::Do(Step::ALL[0], 0);
        }
        (then != *state).then_some(then)
    }

    /// One call of one step.
    fn step(
        &self,
        mut state: ModelState,
        step: Step,
        call: u8,
        thens: &mut Vec<Result<ModelState, Loss>>,
    ) {
        let now = state.reaper.now;
        let claim = now.claim.map_or(Name::Temp, Claimed::name);
        let mut go_on = |mut state: ModelState| {
            state.reaper.at = after(step);
            thens.push(Ok(state));
        };
        match (step, call) {
            (Step::Resolve, _) => {
                if self.has(Check::Resolve) && state.dir_moved {
                    return thens.push(Ok(state.end_attempt(false)));
                }
                state.reaper.now.history.moved_before = state.dir_moved;
                go_on(state);
            }
            (Step::Look, _) => match state.look_at(Name::Temp) {
                None => thens.push(Ok(state.end_attempt(false))),
                Some(seen) if seen != now.expected && self.has(Check::Look) => {
                    thens.push(Ok(state.end_attempt(false)));
                }
                Some(seen) => {
                    state.reaper.now.seen = seen;
                    go_on(state);
                }
            },
            // A file that a look has left open is used again. Otherwise it is opened now.
            (Step::Open, _) => {
                let mut before = state;
                before.reaper.now.opened = now.expected.ino;
                go_on(before);
                match state.at(Name::Temp) {
                    None => thens.push(Ok(state.end_attempt(false))),
                    Some(ino) => {
                        state.reaper.now.opened = ino;
                        go_on(state);
                    }
                }
            }
            (Step::Prove, _) => {
                let free = self.request_lease(&mut state, Check::Proof);
                state.reaper.now.free = free;
                go_on(state);
            }
            (Step::Judge, 0) => {
                let judged = state.look(now.opened);
                if judged != now.seen && self.has(Check::Opened) {
                    return thens.push(Ok(state.end_attempt(false)));
                }
                state.reaper.now.judged = judged;
                state.reaper.at = ReaperState::Do(step, 1);
                thens.push(Ok(state));
            }
            (Step::Judge, _) => {
                let use_state = if now.free {
                    UseState::Unused
                } else {
                    UseState::InUse
                };
                let expected = Some(now.expected).filter(|_| self.has(Check::JudgedSame));
                // An open better copy is unchanged.
                let superseded = match self.has(Check::BetterJudged) {
                    true => now.superseded && state.better != Better::Missing,
                    false => now.superseded,
                };
                let target = state.target();
                let verdict = judge_as(now.judged, expected, use_state, target, superseded);
                let as_before = match verdict {
                    Verdict::Reap => !now.moves,
                    Verdict::Quarantine(_) => now.moves,
                    Verdict::Keep(_) => false,
                };
                if !as_before && self.has(Check::Judge) {
                    return thens.push(Ok(state.end_attempt(!now.free)));
                }
                state.reaper.now.whole = state.is_whole();
                go_on(state);
            }
            (Step::Claim, _) => {
                if state.at(Name::Temp).is_none() {
                    return thens.push(Ok(state.end_attempt(false)));
                }
                if now.history.moved_before {
                    return thens.push(Err("a file outside the root is touched"));
                }
                if self.full && now.free && !now.moves {
                    let mut unclaimed = state;
                    unclaimed.reaper.now.unclaimed = true;
                    go_on(unclaimed);
                }
                let claim = match now.moves {
                    true => Claimed::Slot(state.free_slot()),
                    // The numbers of claims are random and never used again.
                    false => Claimed::Claim(state.reaper.attempts),
                };
                state.rename(Name::Temp, claim.name());
                state.reaper.now.claim = Some(claim);
                go_on(state);
            }
            (Step::Compare, 1) => {
                if state.is_whole() != now.whole && self.has(Check::FullDiskTarget) {
                    return thens.push(Ok(state.end_attempt(false)));
                }
                if !self.check_better(&mut state, Check::FullDiskBetter) {
                    return thens.push(Ok(state.end_attempt(false)));
                }
                state.reaper.now.history.whole_last = state.is_whole();
                go_on(state);
            }
            (Step::Compare, _) => match state.look_at(claim) {
                None => thens.push(Ok(state.end_attempt(false))),
                Some(seen) if now.unclaimed => {
                    if seen != now.judged && self.has(Check::FullDiskCompare) {
                        return thens.push(Ok(state.end_attempt(false)));
                    }
                    state.reaper.now.history.compared = Some(seen.ino);
                    state.reaper.at = ReaperState::Do(step, 1);
                    thens.push(Ok(state));
                }
                Some(seen) => {
                    if !seen.same_after_rename(now.judged) && self.has(Check::Compare) {
                        return thens.push(Ok(state.start_put_back(false)));
                    }
                    state.reaper.now.after = seen;
                    go_on(state);
                }
            },
            (Step::ProveAgain, 0) => {
                for actor in &mut state.actors {
                    let of = actor.opening.of() == Some(now.opened);
                    actor.was_in |= of && !matches!(actor.opening, Opening::Found(_));
                }
                let lease = state.inodes[usize::from(now.opened)].lease;
                let check = match now.unclaimed {
                    true => Check::FullDiskProve,
                    false => Check::WaitsForUs,
                };
                if now.free && lease != Lease::Held && self.has(check) && self.has(Check::Proof) {
                    return thens.push(Ok(state.abort(true)));
                }
                state.reaper.at = ReaperState::Do(step, 1);
                thens.push(Ok(state));
            }
            (Step::ProveAgain, _) => {
                let check = match now.unclaimed {
                    true => Check::FullDiskProve,
                    false => Check::CountedByNow,
                };
                let held = state.is_held(now.opened) && self.has(Check::Proof);
                if now.free && held && self.has(check) {
                    return thens.push(Ok(state.abort(true)));
                }
                // Without a claim on a full disk, no process can wait for it.
                state.reaper.at = match now.unclaimed {
                    true => ReaperState::Do(Step::Unlink, 0),
                    false => after(step),
                };
                thens.push(Ok(state));
            }
            (Step::Release, _) => {
                state.inode(now.opened).lease = Lease::None;
                go_on(state);
            }
            (Step::Wait, 0) => {
                let ino = state.at(claim);
                let inside = state
                    .actors
                    .iter()
                    .any(|actor| ino.is_some_and(|ino| actor.opening == Opening::Found(ino)));
                // A thread that was inside `open` at the start of the wait has returned at its end.
                if inside && self.has(Check::ReleaseWait) && self.is_closed(Window::InsideOpen) {
                    return;
                }
                state.reaper.at = ReaperState::Do(step, 1);
                thens.push(Ok(state));
            }
            (Step::Wait, _) => {
                if state.dir_moved && self.has(Check::ResolvedAgain) {
                    return thens.push(Ok(state.start_put_back(false)));
                }
                state.reaper.now.history.moved_since = state.dir_moved;
                go_on(state);
            }
            (Step::ProveLast, 0) => {
                if now.free
                    && self.has(Check::ProveLast)
                    && !self.request_lease(&mut state, Check::Proof)
                {
                    return thens.push(Ok(state.start_put_back(true)));
                }
                state.reaper.at = ReaperState::Do(step, 1);
                thens.push(Ok(state));
            }
            (Step::ProveLast, 1) => match state.look_at(claim) {
                None => thens.push(Ok(state.end_attempt(false))),
                Some(seen) if seen != now.after && self.has(Check::Untouched) => {
                    thens.push(Ok(state.start_put_back(false)));
                }
                Some(_) => {
                    state.reaper.at = ReaperState::Do(step, 2);
                    thens.push(Ok(state));
                }
            },
            (Step::ProveLast, _) => {
                if state.is_whole() != now.whole && self.has(Check::TargetLast) {
                    return thens.push(Ok(state.start_put_back(false)));
                }
                if !self.check_better(&mut state, Check::BetterLast) {
                    return thens.push(Ok(state.start_put_back(false)));
                }
                state.reaper.now.history.whole_last = state.is_whole();
                go_on(state);
            }
            (Step::Unlink, _) => {
                if let Some(then) = self.unlink(state, claim) {
                    thens.push(then);
                }
            }
        }
    }

    /// Checks that the better copies, if the temp is removed because of them, are in the quarantine and unused.
    fn check_better(&self, state: &mut ModelState, check: Check) -> bool {
        let is_unused = state.better == Better::Unused;
        state.reaper.now.history.better_last = is_unused;
        is_unused || !state.reaper.now.superseded || !self.has(check)
    }

    /// Requests the lease.
    fn request_lease(&self, state: &mut ModelState, check: Check) -> bool {
        let opened = state.reaper.now.opened;
        if self.has(check) && state.is_held(opened) {
            return false;
        }
        state.inode(opened).lease = Lease::Held;
        true
    }

    /// The last step of the protocol, where a loss is detected.
    fn unlink(&self, mut state: ModelState, name: Name) -> Option<Result<ModelState, Loss>> {
        let now = state.reaper.now;
        let Some(ino) = state.at(name) else {
            return Some(Ok(state.end_attempt(false)));
        };
        if now.moves {
            return Some(match state.is_needed(ino) {
                true => Err("a file is moved away that a writer needs"),
                false => Ok(state.end_attempt(false)),
            });
        }
        if now.unclaimed {
            let newly_inside = |actor: &Actor| actor.opening.of() == Some(ino) && !actor.was_in;
            if self.is_closed(Window::FullDiskInsideOpen) && state.actors.iter().any(newly_inside) {
                return None;
            }
            if self.is_closed(Window::FullDiskReplaced) && now.history.compared != Some(ino) {
                return None;
            }
        }
        let last_copy = !state.inodes[usize::from(ino)].empty
            && match self.is_closed(Window::TargetRemoved) {
                true => !now.history.whole_last,
                false => !state.is_whole(),
            }
            && match self.is_closed(Window::BetterRemoved) {
                true => !now.history.better_last,
                false => state.better != Better::Unused,
            };
        let outside = match self.is_closed(Window::MovedOut) {
            true => now.history.moved_since,
            false => state.dir_moved && !now.unclaimed,
        };
        let loss = if state.is_needed(ino) {
            Some("a live writer's bytes are lost")
        } else if state.look(ino).content != now.judged.content || ino != now.judged.ino {
            Some("a file that was not judged is removed")
        } else if last_copy {
            Some("the only copy is removed")
        } else if outside {
            Some("a file outside the root is removed")
        } else if now.history.was_refused {
            Some("an opener that got an error finds no file at its next attempt")
        } else {
            None
        };
        state.set(name, None);
        Some(loss.map_or_else(|| Ok(state.end_attempt(false)), Err))
    }

    fn put_back(&self, mut state: ModelState, call: u8) -> Result<ModelState, Loss> {
        let now = state.reaper.now;
        let claim = now.claim.expect("a claim");
        if state.at(claim.name()).is_none() {
            return Ok(state.end_attempt(now.held));
        }
        match (call, claim) {
            (0, _) => {
                let taken = state.at(Name::Temp).is_some();
                if taken && self.has(Check::PutBackOverwritesNothing) {
                    // Another file has its name: the temp is in the quarantine.
                    for actor in &mut state.actors {
                        actor.was_in = false;
                    }
                    // A file in the quarantine stays there.
                    if matches!(claim, Claimed::Slot(_)) {
                        return Ok(state.end_attempt(now.held));
                    }
                    state.reaper.at = ReaperState::PutBack(1);
                    return Ok(state);
                }
                if taken {
                    return Err("a put-back overwrites a file");
                }
                state.rename(claim.name(), Name::Temp);
                Ok(state.end_attempt(now.held))
            }
            _ if self.has(Check::PutBackDeletesNothing) => {
                let slot = Name::Slot(state.free_slot());
                state.rename(claim.name(), slot);
                Ok(state.end_attempt(now.held))
            }
            _ => Err("a put-back deletes a file"),
        }
    }

    fn recover(&self, state: &ModelState, number: u8, call: u8) -> Result<ModelState, Loss> {
        let mut then = *state;
        let claim = Name::Claim(number);
        let next = |mut then: ModelState, ino: Option<Ino>| {
            if let Some(ino) = ino {
                then.inode(ino).lease = Lease::None;
            }
            then.reaper.at = match number + 1 {
                CLAIMS => ReaperState::Track,
                more => ReaperState::Recover(more, 0),
            };
            then.check_no_claims_left()
        };
        let Some(ino) = state.at(claim) else {
            return next(then, None);
        };
        match call {
            0 if state.is_held(ino) && self.has(Check::RecoveryLeavesHeldAlone) => {
                then.reaper.left |= 1 << number;
                next(then, None)
            }
            0 => {
                then.inode(ino).lease = Lease::Held;
                then.reaper.at = ReaperState::Recover(number, 1);
                Ok(then)
            }
            1 => match state.at(Name::Temp) {
                Some(_) if self.has(Check::RecoveryOverwritesNothing) => {
                    then.reaper.at = ReaperState::Recover(number, 2);
                    Ok(then)
                }
                Some(_) => Err("a recovery overwrites a file"),
                None => {
                    then.rename(claim, Name::Temp);
                    next(then, Some(ino))
                }
            },
            _ if self.has(Check::RecoveryDeletesNothing) => {
                let slot = Name::Slot(state.free_slot());
                then.rename(claim, slot);
                next(then, Some(ino))
            }
            _ => Err("a recovery deletes a file"),
        }
    }
}

impl ModelState {
    /// After a start no claim is left, except claims that a process holds.
    fn check_no_claims_left(self) -> Result<ModelState, Loss> {
        let left = |n: u8| self.at(Name::Claim(n)).is_some() && self.reaper.left & (1 << n) == 0;
        match self.reaper.at == ReaperState::Track && (0..CLAIMS).any(left) {
            true => Err("a claim is left behind"),
            false => Ok(self),
        }
    }

    /// Ends the protocol for this temp.
    fn end_attempt(mut self, held: bool) -> ModelState {
        let opened = self.reaper.now.opened;
        self.inode(opened).lease = Lease::None;
        let known = self.reaper.known;
        // A holder that was seen restarts the grace, and so does a change.
        self.reaper.known = known.filter(|_| held).map(|(seen, _)| (seen, true));
        self.reaper.now = Attempt::default();
        self.reaper.at = ReaperState::Track;
        self
    }

    /// Starts the put-back.
    fn start_put_back(mut self, held: bool) -> ModelState {
        self.reaper.now.held = held;
        self.reaper.at = ReaperState::PutBack(0);
        self
    }

    /// Keeps the temp; puts it back if it was claimed.
    fn abort(self, held: bool) -> ModelState {
        match self.reaper.now.claim {
            Some(_) => self.start_put_back(held),
            None => self.end_attempt(held),
        }
    }
}

fn position(step: Step) -> usize {
    let place = Step::ALL.iter().position(|known| *known == step);
    place.expect("a step of Step::ALL")
}

/// Returns the state at the start of the next step.
fn after(step: Step) -> ReaperState {
    ReaperState::Do(Step::ALL[position(step) + 1], 0)
}

/// Calls the real judge.
fn judge_as(
    seen: Snapshot,
    expected: Option<Snapshot>,
    use_state: UseState,
    target: Target,
    superseded: bool,
) -> Verdict {
    let evidence = Evidence {
        expected: expected.map(|seen| seen.observation().fingerprint),
        superseded,
        ..evidence(seen.observation(), use_state, target)
    };
    static POLICY: OnceLock<Policy> = OnceLock::new();
    judge(&evidence, POLICY.get_or_init(Policy::default))
}

/// Returns the evidence about a temp that has been quiet for its grace.
pub(crate) fn evidence(observation: Observation, use_state: UseState, target: Target) -> Evidence {
    static DIR: OnceLock<DirProperties> = OnceLock::new();
    let dir = DIR.get_or_init(|| DirProperties {
        dev: 1,
        mount: Some(1),
        file_system: "ext4".into(),
        lease_coverage: LeaseCoverage::OpensAndMaps,
        dates: Dates::Fine,
        quarantine: true,
    });
    Evidence {
        observation,
        expected: None,
        quiet: Duration::from_secs(9),
        grace: Duration::from_secs(9),
        unused: Duration::from_secs(9),
        dir: dir.clone(),
        our_uid: 0,
        writer: Writer::NoPid,
        closed: false,
        use_state,
        opened: true,
        mappings_examined: false,
        companion_bytes: 0,
        target,
        superseded: false,
        by_shape: false,
        discarded: false,
        random_name: true,
        has_attributes: false,
        restored: false,
        reserved: None,
        guard: None,
    }
}

/// The result of an exploration.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// The steps that were executed, by their position.
    steps: [bool; Step::ALL.len()],
    reaped: bool,
}

/// Visits every reachable state.
fn explore(model: &Model) -> Result<Explored, LossTrace<Model>> {
    let mut explored = Explored::default();
    let mut visit = |state: &ModelState, then: &ModelState| {
        if let ReaperState::Do(step, _) = state.reaper.at {
            explored.steps[position(step)] = true;
            let gone = |name| state.at(name).is_some() && then.at(name).is_none();
            explored.reaped |= step == Step::Unlink && (0..CLAIMS).any(|n| gone(Name::Claim(n)));
        }
    };
    let states = explorer::explore(model, &mut visit)?;
    Ok(Explored { states, ..explored })
}

/// The pairs of actors, and whether an orphan exists at the start.
const SCENARIOS: [([Script; 2], bool); 10] = [
    ([WRITER, TRUNCATER], false),
    ([WRITER, WRITER], false),
    ([TRUNCATER, READER], true),
    ([RENEWER, APPENDER], true),
    ([REPLACER, TRUNCATER], true),
    ([PEEPER, APPENDER], true),
    ([TRUNCATER, SPOILER], true),
    ([APPENDER, MOVER], true),
    ([BETTER_SPOILER, PEEPER], true),
    ([BETTER_REMOVER, TRUNCATER], true),
];

fn models(
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
) -> impl Iterator<Item = Model> {
    SCENARIOS.into_iter().flat_map(move |(scripts, orphan)| {
        let better = scripts.contains(&BETTER_SPOILER) || scripts.contains(&BETTER_REMOVER);
        // Removed, moved, removed on a full disk.
        let cases: &[(bool, bool)] = match better {
            true => &[(false, false), (false, true)],
            false => &[(true, false), (false, false), (true, true)],
        };
        cases.iter().map(move |&(target, full)| Model {
            scripts,
            orphan,
            target,
            better,
            full,
            kills,
            without,
            open,
        })
    })
}

/// No order of actions loses a byte that an actor may still need.
#[test]
fn nothing_is_lost() {
    in_own_process(&[RunAs::CurrentUser], || {
        let mut all = Explored::default();
        // The reaper is killed once, and again while it recovers.
        for model in models(2, &[], None) {
            match explore(&model) {
                Ok(explored) => {
                    all.states += explored.states;
                    all.reaped |= explored.reaped;
                    for (all, step) in all.steps.iter_mut().zip(explored.steps) {
                        *all |= step;
                    }
                }
                Err((loss, trace)) => panic!("{loss}: {model:?}{}", format_trace(&trace)),
            }
        }
        println!("{} states", all.states);
        // Otherwise the test would prove nothing.
        assert!(all.reaped, "no orphan was removed");
        assert_eq!(
            all.steps,
            [true; Step::ALL.len()],
            "not all steps were executed"
        );
    });
}

/// Returns the shortest trace to a loss, if there is one.
fn loss(
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
) -> Option<(Model, LossTrace<Model>)> {
    models(kills, without, open).find_map(|model| {
        let loss = explore(&model).err()?;
        Some((model, loss))
    })
}

/// Returns the reason why nothing is lost without this check, and the set of checks whose joint absence loses
/// something.
fn covered_by_others(check: Check) -> Option<(&'static str, &'static [Check])> {
    // Three checks detect a file that is not the one that was looked at.
    const SAME: &[Check] = &[Check::Look, Check::Opened, Check::JudgedSame];
    match check {
        Check::Look => Some((
            "it avoids an open, which would break the lease of another process",
            SAME,
        )),
        Check::Opened => Some(("it matters without an earlier look", SAME)),
        Check::JudgedSame => Some(("scan and explain have only this check", SAME)),
        Check::BetterJudged => Some((
            "it avoids a claim that would be put back",
            &[Check::BetterJudged, Check::BetterLast],
        )),
        // No byte depends on this check, because a process that holds a claim does not need the claim's name. But
        // another orphand may be processing the claim, if no lock could be created.
        Check::RecoveryLeavesHeldAlone => Some(("it does not disturb another orphand", &[])),
        _ => None,
    }
}

/// Leaves out each check, alone or with the checks that cover it.
#[test]
fn each_check_is_needed() {
    in_own_process(&[RunAs::CurrentUser], || {
        in_parallel(&Check::ALL, |check| {
            let kills = match check {
                Check::Recovery
                | Check::RecoveryOverwritesNothing
                | Check::RecoveryDeletesNothing
                | Check::RecoveryLeavesHeldAlone => 1,
                // A loss is found without a kill, and sooner.
                _ => 0,
            };
            assert_needed(check, covered_by_others(*check), |without| {
                loss(kills, without, None)
            });
        });
    });
}

/// Each window that docs/safety.md names loses something when it is open. While all are closed, nothing is lost.
#[test]
fn each_window_loses_something() {
    in_own_process(&[RunAs::CurrentUser], || {
        for window in Window::ALL {
            let loss = loss(0, &[], Some(window));
            let (_, (loss, trace)) =
                loss.unwrap_or_else(|| panic!("nothing is lost through {window:?}"));
            println!("{window:?}: {loss}{}", format_trace(&trace));
        }
    });
}
