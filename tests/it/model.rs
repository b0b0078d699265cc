//! The protocol as a model, explored to its end for small bounds.
//!
//! Names, inodes, leases, threads inside one `open`, writers that follow the rule (docs/safety.md,
//! first paragraph) or die, a second writer by the same name, readers, a full disk, and a reaper
//! that may be killed between any two of its calls: every order in which they can act is tried.
//! What judges is the real judge, what compares is the real fingerprint, and the reaper goes through
//! the real [`Step::ALL`]; a step without its part here does not compile.
//!
//! A model that finds nothing says little. So each check of the protocol is taken out in turn, and
//! each window that docs/safety.md names is opened in turn, and a loss must be found then.
//!
//! The explorer is a breadth-first walk of fifty lines: stateright would do as well, and bring
//! forty crates along, a web server among them.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;
use std::time::Duration;

use orphand::decide::judge::{
    Dates, DirProperties, Evidence, LeaseCoverage, Target, Verdict, Writer, judge,
};
use orphand::decide::observation::{Fingerprint, Kind, Observation, UseState};
use orphand::decide::policy::Policy;
use orphand::decide::time::Wall;
use orphand::reap::Step;

use crate::fixture::{RunAs, in_own_process};

/// A number that stands for an inode.
type Ino = u8;

/// The names that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    Temp,
    Target,
    /// Another temp, that somebody renames onto the first.
    Spare,
    Claim(u8),
    /// A place in the quarantine.
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
    /// The reaper has it.
    Held,
    /// The reaper has it, and somebody has asked for the file.
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

/// What a look sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    ino: Ino,
    content: u8,
    renamed: u8,
    empty: bool,
}

impl Seen {
    fn observation(self) -> Observation {
        let wall = |sec: u8, nsec: u8| Wall {
            sec: i64::from(sec),
            nsec: u32::from(nsec),
        };
        Observation {
            fingerprint: Fingerprint {
                dev: 1,
                ino: u64::from(self.ino),
                kind: Kind::File,
                size: if self.empty { 0 } else { 7 },
                mtime: wall(self.content, 0),
                ctime: wall(self.content, self.renamed),
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

    fn same_after_rename(self, judged: Seen) -> bool {
        let (now, judged) = (self.observation(), judged.observation());
        now.fingerprint.is_same_after_rename(&judged.fingerprint)
    }
}

/// What others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// `O_CREAT | O_EXCL`; gives up where something is there.
    Create(Name),
    /// Opens the temp.
    Open(How),
    Write,
    Close,
    Rename(Name, Name),
    Unlink(Name),
    /// Moves the directory out of the root.
    MoveDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
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
    Op::Open(How::Truncate),
    Op::Write,
    Op::Close,
    Op::Rename(Name::Temp, Name::Target),
];
const APPENDER: Script = &[
    Op::Open(How::Append),
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
const READER: Script = &[Op::Open(How::Read), Op::Close];
const PEEPER: Script = &[Op::Open(How::ReadWithoutWaiting), Op::Close];
const SPOILER: Script = &[Op::Unlink(Name::Target)];
const MOVER: Script = &[Op::MoveDir];

/// Where a thread is inside `open`. The kernel counts an opener before it looks for leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Opening {
    #[default]
    Not,
    /// It has found the inode behind the name.
    Found(Ino),
    /// A lease would be refused now.
    Counted(Ino),
    /// It waits for ours to end.
    Waits(Ino),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Actor {
    at: u8,
    dead: bool,
    open: Option<Ino>,
    opening: Opening,
    /// What it means to rename to the target.
    pending: Option<Ino>,
    /// How often it was looked at since it last changed the file, or was last seen holding it.
    looks: u8,
    /// It was inside `open` already when the reaper asked for the second time.
    was_in: bool,
}

/// Where the reaper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Killed, or not started.
    Down,
    /// Puts a claim in order; the call that is next.
    Recover(u8, u8),
    /// Waits for the next look.
    Track,
    /// The call of a step that is next.
    Do(Step, u8),
    /// The call that is next.
    PutBack(u8),
}

/// What the reaper knows, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reaper {
    at: At,
    /// The last look, and whether somebody held the file.
    known: Option<(Seen, bool)>,
    attempts: u8,
    lives: u8,
    /// Claims that it left alone because somebody held them.
    left: u8,
    now: Attempt,
}

/// One temp on its way through the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Attempt {
    expected: Seen,
    seen: Seen,
    moves: bool,
    opened: Ino,
    free: bool,
    judged: Seen,
    whole: bool,
    claim: Option<Claimed>,
    after: Seen,
    held: bool,
    /// The disk is full: it is worked on by its own name.
    unclaimed: bool,
    /// From here on it is not part of the protocol, but of what is asked about it.
    told: Told,
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

/// What was so at certain moments, for the properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    /// The directory was moved before the first step.
    moved_before: bool,
    /// It was moved before the last question for it.
    moved_since: bool,
    /// What the name stood for at the last comparison on a full disk.
    compared: Option<Ino>,
    /// There was a whole target at the last look.
    whole_last: bool,
    /// Somebody was turned away by our lease before it was asked for again.
    turned_away: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FakeEnv {
    names: [Option<Ino>; NAMES],
    inodes: [Inode; INODES],
    /// How many of them there are.
    made: Ino,
    dir_moved: bool,
    actors: [Actor; 2],
    reaper: Reaper,
}

/// What is lost.
type Loss = &'static str;

/// Who does something.
#[derive(Clone, Copy, Debug)]
enum ActionOptions {
    Acts(usize, Op, &'static str),
    Dies(usize),
    Reaps(At),
    IsKilled,
}

impl fmt::Display for ActionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActionOptions::Acts(who, op, what) => write!(f, "actor {who}: {op:?}{what}"),
            ActionOptions::Dies(who) => write!(f, "actor {who} dies"),
            ActionOptions::Reaps(at) => write!(f, "reaper: {at:?}"),
            ActionOptions::IsKilled => f.write_str("the reaper is killed"),
        }
    }
}

/// What somebody does, and what comes of it.
type Next = (ActionOptions, Result<FakeEnv, Loss>);

/// A check that the protocol makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    TwoLooks,
    HeldRestarts,
    ChangedRestarts,
    Resolve,
    Look,
    Opened,
    LeasedFile,
    Judge,
    /// The judge's own comparison with the earlier look.
    JudgedSame,
    Compare,
    WaitsForUs,
    CountedByNow,
    Breath,
    ResolvedAgain,
    ProveLast,
    Untouched,
    TargetLast,
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
    const ALL: [Check; 26] = [
        Check::TwoLooks,
        Check::HeldRestarts,
        Check::ChangedRestarts,
        Check::Resolve,
        Check::Look,
        Check::Opened,
        Check::LeasedFile,
        Check::Judge,
        Check::JudgedSame,
        Check::Compare,
        Check::WaitsForUs,
        Check::CountedByNow,
        Check::Breath,
        Check::ResolvedAgain,
        Check::ProveLast,
        Check::Untouched,
        Check::TargetLast,
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

// None is forgotten above.
const _: () = assert!(Check::ALL.len() == Check::RecoveryLeavesHeldAlone as usize + 1);
const _: () = assert!(Window::ALL.len() == Window::FullDiskInsideOpen as usize + 1);

/// A window that is left, and that docs/safety.md names. While it is not opened, nobody acts in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// A thread stays inside one `open` from before the claim until after the last proof.
    InsideOpen,
    /// A writer pauses for longer than the rule allows.
    Pause,
    /// A writer renames between the claim and the put-back.
    Meanwhile,
    /// The directory is moved out of the root after the last question for it.
    MovedOut,
    /// The target goes after the last look at it.
    TargetGoes,
    /// Full disk: another file takes the name after the comparison.
    FullDiskReplaced,
    /// Full disk: a thread is inside `open` when the file is removed.
    FullDiskInsideOpen,
}

impl Window {
    const ALL: [Window; 7] = [
        Window::InsideOpen,
        Window::Pause,
        Window::Meanwhile,
        Window::MovedOut,
        Window::TargetGoes,
        Window::FullDiskReplaced,
        Window::FullDiskInsideOpen,
    ];
}

#[derive(Clone, Copy, Debug)]
struct Model {
    scripts: [Script; 2],
    /// A temp of a dead writer lies there from the beginning.
    orphan: bool,
    /// So does a target.
    target: bool,
    /// A claim may find no room.
    full: bool,
    /// How often the reaper is killed, at most.
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
}

impl FakeEnv {
    fn at(&self, name: Name) -> Option<Ino> {
        self.names[name.index()]
    }

    fn set(&mut self, name: Name, ino: Option<Ino>) {
        self.names[name.index()] = ino;
    }

    fn inode(&mut self, ino: Ino) -> &mut Inode {
        &mut self.inodes[usize::from(ino)]
    }

    fn look(&self, ino: Ino) -> Seen {
        let inode = self.inodes[usize::from(ino)];
        Seen {
            ino,
            content: inode.content,
            renamed: inode.renamed,
            empty: inode.empty,
        }
    }

    fn look_at(&self, name: Name) -> Option<Seen> {
        self.at(name).map(|ino| self.look(ino))
    }

    fn make(&mut self, name: Name) -> Ino {
        let ino = self.made;
        self.made += 1;
        self.inode(ino).empty = true;
        self.set(name, Some(ino));
        ino
    }

    /// Renames, over whatever is there.
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

    /// Whether a lease on it would be refused.
    fn is_held(&self, ino: Ino) -> bool {
        self.actors.iter().any(|actor| {
            actor.open == Some(ino)
                || matches!(actor.opening, Opening::Counted(i) | Opening::Waits(i) if i == ino)
        })
    }

    /// Whether somebody who lives could still need it.
    fn is_needed(&self, ino: Ino) -> bool {
        self.actors.iter().any(|actor| {
            let open = actor.open == Some(ino) || actor.pending == Some(ino);
            open || actor.opening.of() == Some(ino)
        })
    }

    /// Whether the reaper has taken its name away.
    fn is_taken(&self, ino: Ino) -> bool {
        self.names[Name::Claim(0).index()..].contains(&Some(ino))
    }

    fn free_slot(&self) -> u8 {
        let free = (0..SLOTS).find(|n| self.at(Name::Slot(*n)).is_none());
        free.expect("there are enough slots for all attempts")
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

impl Model {
    fn has(&self, check: Check) -> bool {
        !self.without.contains(&check)
    }

    fn is_shut(&self, window: Window) -> bool {
        self.open != Some(window)
    }

    fn start(&self) -> FakeEnv {
        let mut fake_env = FakeEnv {
            names: [None; NAMES],
            inodes: [Inode::default(); INODES],
            made: 0,
            dir_moved: false,
            actors: [Actor::default(); 2],
            reaper: Reaper {
                at: At::Track,
                known: None,
                attempts: 2,
                lives: self.kills,
                left: 0,
                now: Attempt::default(),
            },
        };
        for (name, there) in [(Name::Target, self.target), (Name::Temp, self.orphan)] {
            if there {
                let ino = fake_env.make(name);
                fake_env.inode(ino).empty = false;
            }
        }
        fake_env
    }

    fn next(&self, fake_env: &FakeEnv, next: &mut Vec<Next>) {
        for index in 0..fake_env.actors.len() {
            self.act(fake_env, index, next);
        }
        self.reap(fake_env, next);
    }

    /// What the actor may do now: go on, or die.
    fn act(&self, fake_env: &FakeEnv, index: usize, next: &mut Vec<Next>) {
        let me = fake_env.actors[index];
        let Some(op) = self.scripts[index].get(usize::from(me.at)) else {
            return;
        };
        if me.dead {
            return;
        }
        let mut dead = *fake_env;
        dead.actors[index] = Actor {
            dead: true,
            at: me.at,
            ..Actor::default()
        };
        next.push((ActionOptions::Dies(index), Ok(dead)));

        let mut then = *fake_env;
        let end = self.scripts[index].len() as u8;
        // Set on the copy through this, at the end of each arm.
        let mut me = me;
        let mut loss = None;
        let mut what = "";
        match *op {
            Op::Create(name) if fake_env.at(name).is_some() => {
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
                Opening::Not => match (fake_env.at(Name::Temp), how) {
                    (Some(ino), _) => {
                        me.opening = Opening::Found(ino);
                        what = " finds it";
                    }
                    (None, How::Truncate | How::Append) => {
                        let ino = then.make(Name::Temp);
                        me.open = Some(ino);
                        me.pending = Some(ino);
                        me.looks = 0;
                        me.at += 1;
                        what = " creates it";
                    }
                    (None, How::Read | How::ReadWithoutWaiting) => {
                        me.at = end;
                        what = " finds nothing";
                    }
                },
                Opening::Found(ino) => {
                    me.opening = Opening::Counted(ino);
                    what = " is counted";
                }
                Opening::Counted(ino) | Opening::Waits(ino) => {
                    match (fake_env.inodes[usize::from(ino)].lease, me.opening) {
                        (Lease::None, _) => {
                            me.opening = Opening::Not;
                            me.open = Some(ino);
                            if matches!(how, How::Truncate | How::Append) {
                                me.pending = Some(ino);
                            }
                            if how == How::Truncate {
                                then.inode(ino).content += 1;
                                then.inode(ino).empty = true;
                                me.looks = 0;
                            }
                            me.at += 1;
                        }
                        // It goes on waiting.
                        (_, Opening::Waits(_)) => return,
                        _ => {
                            then.inode(ino).lease = Lease::Breaking;
                            if how == How::ReadWithoutWaiting {
                                let before = match fake_env.reaper.at {
                                    At::Do(step, sub) => {
                                        place(step) < place(Step::ProveAgain)
                                            || (step, sub) == (Step::ProveAgain, 0)
                                    }
                                    _ => false,
                                };
                                then.reaper.now.told.turned_away |= before;
                                me.opening = Opening::Not;
                                me.at = end;
                                what = " is turned away";
                            } else {
                                me.opening = Opening::Waits(ino);
                                what = " waits";
                            }
                        }
                    }
                }
            },
            Op::Write => {
                let ino = me.open.expect("it is open");
                then.inode(ino).content += 1;
                then.inode(ino).empty = false;
                me.looks = 0;
                me.at += 1;
            }
            Op::Close => {
                me.open = None;
                me.at += 1;
            }
            Op::Rename(from, to) => match fake_env.at(from) {
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
                    let ours = me.pending.is_some_and(|ino| fake_env.is_taken(ino));
                    if ours && me.was_in {
                        loss = Some("who was in before the second question finds no name");
                    } else if ours && !self.is_shut(Window::Meanwhile) {
                        loss = Some("a rename finds no name");
                    }
                    // It knows now, and tries again or tells.
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
        }
        then.actors[index] = me;
        next.push((
            ActionOptions::Acts(index, *op, what),
            loss.map_or(Ok(then), Err),
        ));
    }

    fn reap(&self, fake_env: &FakeEnv, next: &mut Vec<Next>) {
        let reaper = fake_env.reaper;
        let label = ActionOptions::Reaps(reaper.at);
        if reaper.at != At::Down && reaper.lives > 0 {
            let mut killed = *fake_env;
            killed.reaper = Reaper {
                at: At::Down,
                known: None,
                left: 0,
                lives: reaper.lives - 1,
                now: Attempt::default(),
                ..reaper
            };
            for inode in &mut killed.inodes {
                inode.lease = Lease::None;
            }
            // Till the next start nobody puts back what was claimed.
            for actor in &mut killed.actors {
                actor.was_in = false;
            }
            next.push((ActionOptions::IsKilled, Ok(killed)));
        }
        match reaper.at {
            At::Down => {
                let mut then = *fake_env;
                then.reaper.at = match self.has(Check::Recovery) {
                    true => At::Recover(0, 0),
                    false => At::Track,
                };
                next.push((label, then.is_in_order()));
            }
            At::Recover(claim, call) => next.push((label, self.recover(fake_env, claim, call))),
            At::Track => {
                if let Some(then) = self.track(fake_env) {
                    next.push((label, Ok(then)));
                }
            }
            At::Do(step, call) => {
                let mut thens = Vec::new();
                self.step(*fake_env, step, call, &mut thens);
                next.extend(thens.into_iter().map(|then| (label, then)));
            }
            At::PutBack(call) => next.push((label, self.put_back(*fake_env, call))),
        }
    }

    /// One look, as the tracker takes it.
    fn track(&self, fake_env: &FakeEnv) -> Option<FakeEnv> {
        let mut then = *fake_env;
        if fake_env.reaper.attempts == 0 {
            return None;
        }
        let Some(seen) = fake_env.look_at(Name::Temp) else {
            then.reaper.known = None;
            return (then != *fake_env).then_some(then);
        };
        let held = fake_env.is_held(seen.ino);
        for actor in &mut then.actors {
            let pauses = actor.pending == Some(seen.ino) && actor.open.is_none();
            if pauses && actor.looks >= 1 {
                if self.is_shut(Window::Pause) {
                    // By the rule it renames before this look comes.
                    return None;
                }
            } else if pauses {
                actor.looks += 1;
            } else if actor.open == Some(seen.ino) {
                actor.looks = 0;
            }
        }
        let judged = match fake_env.reaper.known {
            None if self.has(Check::TwoLooks) => false,
            None => true,
            // Judging says so, and by whom.
            _ if held => false,
            Some((_, true)) if self.has(Check::HeldRestarts) => false,
            Some((known, _)) if known != seen && self.has(Check::ChangedRestarts) => false,
            Some(_) => true,
        };
        then.reaper.known = Some((seen, held));
        if judged && !held {
            let verdict = judge_as(seen, None, UseState::Unused, fake_env.target());
            then.reaper.now = Attempt {
                expected: seen,
                moves: matches!(verdict, Verdict::Quarantine(_)),
                ..Attempt::default()
            };
            then.reaper.attempts -= 1;
            then.reaper.at = At::Do(Step::ALL[0], 0);
        }
        (then != *fake_env).then_some(then)
    }

    /// One call of one step.
    fn step(
        &self,
        mut fake_env: FakeEnv,
        step: Step,
        call: u8,
        thens: &mut Vec<Result<FakeEnv, Loss>>,
    ) {
        let now = fake_env.reaper.now;
        let claim = now.claim.map_or(Name::Temp, Claimed::name);
        let mut go_on = |mut fake_env: FakeEnv| {
            fake_env.reaper.at = after(step);
            thens.push(Ok(fake_env));
        };
        match (step, call) {
            (Step::Resolve, _) => {
                if self.has(Check::Resolve) && fake_env.dir_moved {
                    return thens.push(Ok(fake_env.ended(false)));
                }
                fake_env.reaper.now.told.moved_before = fake_env.dir_moved;
                go_on(fake_env);
            }
            (Step::Look, _) => match fake_env.look_at(Name::Temp) {
                None => thens.push(Ok(fake_env.ended(false))),
                Some(seen) if seen != now.expected && self.has(Check::Look) => {
                    thens.push(Ok(fake_env.ended(false)));
                }
                Some(seen) => {
                    fake_env.reaper.now.seen = seen;
                    go_on(fake_env);
                }
            },
            // What a look has opened, the same is asked about again; what it has not, is opened now.
            (Step::Open, _) => {
                let mut before = fake_env;
                before.reaper.now.opened = now.expected.ino;
                go_on(before);
                match fake_env.at(Name::Temp) {
                    None => thens.push(Ok(fake_env.ended(false))),
                    Some(ino) => {
                        fake_env.reaper.now.opened = ino;
                        go_on(fake_env);
                    }
                }
            }
            (Step::Prove, _) => {
                let free = self.ask(&mut fake_env, Check::LeasedFile);
                fake_env.reaper.now.free = free;
                go_on(fake_env);
            }
            (Step::Judge, 0) => {
                let judged = fake_env.look(now.opened);
                if judged != now.seen && self.has(Check::Opened) {
                    return thens.push(Ok(fake_env.ended(false)));
                }
                fake_env.reaper.now.judged = judged;
                fake_env.reaper.at = At::Do(step, 1);
                thens.push(Ok(fake_env));
            }
            (Step::Judge, _) => {
                let hold = if now.free {
                    UseState::Unused
                } else {
                    UseState::InUse
                };
                let expected = Some(now.expected).filter(|_| self.has(Check::JudgedSame));
                let verdict = judge_as(now.judged, expected, hold, fake_env.target());
                let as_before = match verdict {
                    Verdict::Reap => !now.moves,
                    Verdict::Quarantine(_) => now.moves,
                    Verdict::Keep(_) => false,
                };
                if !as_before && self.has(Check::Judge) {
                    return thens.push(Ok(fake_env.ended(!now.free)));
                }
                fake_env.reaper.now.whole = fake_env.is_whole();
                go_on(fake_env);
            }
            (Step::Claim, _) => {
                if fake_env.at(Name::Temp).is_none() {
                    return thens.push(Ok(fake_env.ended(false)));
                }
                if now.told.moved_before {
                    return thens.push(Err("what lies outside of the root is touched"));
                }
                if self.full && now.free && !now.moves {
                    let mut unclaimed = fake_env;
                    unclaimed.reaper.now.unclaimed = true;
                    go_on(unclaimed);
                }
                let claim = match now.moves {
                    true => Claimed::Slot(fake_env.free_slot()),
                    // Their numbers are drawn at random, and never again.
                    false => Claimed::Claim(fake_env.reaper.attempts),
                };
                fake_env.rename(Name::Temp, claim.name());
                fake_env.reaper.now.claim = Some(claim);
                go_on(fake_env);
            }
            (Step::Compare, 1) => {
                if fake_env.is_whole() != now.whole && self.has(Check::FullDiskTarget) {
                    return thens.push(Ok(fake_env.ended(false)));
                }
                fake_env.reaper.now.told.whole_last = fake_env.is_whole();
                go_on(fake_env);
            }
            (Step::Compare, _) => match fake_env.look_at(claim) {
                None => thens.push(Ok(fake_env.ended(false))),
                Some(seen) if now.unclaimed => {
                    if seen != now.judged && self.has(Check::FullDiskCompare) {
                        return thens.push(Ok(fake_env.ended(false)));
                    }
                    fake_env.reaper.now.told.compared = Some(seen.ino);
                    fake_env.reaper.at = At::Do(step, 1);
                    thens.push(Ok(fake_env));
                }
                Some(seen) => {
                    if !seen.same_after_rename(now.judged) && self.has(Check::Compare) {
                        return thens.push(Ok(fake_env.back(false)));
                    }
                    fake_env.reaper.now.after = seen;
                    go_on(fake_env);
                }
            },
            (Step::ProveAgain, 0) => {
                for actor in &mut fake_env.actors {
                    let of = actor.opening.of() == Some(now.opened);
                    actor.was_in |= of && !matches!(actor.opening, Opening::Found(_));
                }
                let lease = fake_env.inodes[usize::from(now.opened)].lease;
                let check = match now.unclaimed {
                    true => Check::FullDiskProve,
                    false => Check::WaitsForUs,
                };
                if now.free
                    && lease != Lease::Held
                    && self.has(check)
                    && self.has(Check::LeasedFile)
                {
                    return thens.push(Ok(fake_env.stopped(true)));
                }
                fake_env.reaper.at = At::Do(step, 1);
                thens.push(Ok(fake_env));
            }
            (Step::ProveAgain, _) => {
                let check = match now.unclaimed {
                    true => Check::FullDiskProve,
                    false => Check::CountedByNow,
                };
                let held = fake_env.is_held(now.opened) && self.has(Check::LeasedFile);
                if now.free && held && self.has(check) {
                    return thens.push(Ok(fake_env.stopped(true)));
                }
                // On a full disk nothing is claimed that others could wait for.
                fake_env.reaper.at = match now.unclaimed {
                    true => At::Do(Step::Unlink, 0),
                    false => after(step),
                };
                thens.push(Ok(fake_env));
            }
            (Step::LetGo, _) => {
                fake_env.inode(now.opened).lease = Lease::None;
                go_on(fake_env);
            }
            (Step::Breathe, 0) => {
                let ino = fake_env.at(claim);
                let inside = fake_env
                    .actors
                    .iter()
                    .any(|actor| ino.is_some_and(|ino| actor.opening == Opening::Found(ino)));
                // Whoever was inside when it began is out when it ends.
                if inside && self.has(Check::Breath) && self.is_shut(Window::InsideOpen) {
                    return;
                }
                fake_env.reaper.at = At::Do(step, 1);
                thens.push(Ok(fake_env));
            }
            (Step::Breathe, _) => {
                if fake_env.dir_moved && self.has(Check::ResolvedAgain) {
                    return thens.push(Ok(fake_env.back(false)));
                }
                fake_env.reaper.now.told.moved_since = fake_env.dir_moved;
                go_on(fake_env);
            }
            (Step::ProveLast, 0) => {
                if now.free
                    && self.has(Check::ProveLast)
                    && !self.ask(&mut fake_env, Check::LeasedFile)
                {
                    return thens.push(Ok(fake_env.back(true)));
                }
                fake_env.reaper.at = At::Do(step, 1);
                thens.push(Ok(fake_env));
            }
            (Step::ProveLast, 1) => match fake_env.look_at(claim) {
                None => thens.push(Ok(fake_env.ended(false))),
                Some(seen) if seen != now.after && self.has(Check::Untouched) => {
                    thens.push(Ok(fake_env.back(false)));
                }
                Some(_) => {
                    fake_env.reaper.at = At::Do(step, 2);
                    thens.push(Ok(fake_env));
                }
            },
            (Step::ProveLast, _) => {
                if fake_env.is_whole() != now.whole && self.has(Check::TargetLast) {
                    return thens.push(Ok(fake_env.back(false)));
                }
                fake_env.reaper.now.told.whole_last = fake_env.is_whole();
                go_on(fake_env);
            }
            (Step::Unlink, _) => {
                if let Some(then) = self.unlink(fake_env, claim) {
                    thens.push(then);
                }
            }
        }
    }

    /// Asks for the lease.
    fn ask(&self, fake_env: &mut FakeEnv, check: Check) -> bool {
        let opened = fake_env.reaper.now.opened;
        if self.has(check) && fake_env.is_held(opened) {
            return false;
        }
        fake_env.inode(opened).lease = Lease::Held;
        true
    }

    /// The end of the protocol, where everything shows.
    fn unlink(&self, mut fake_env: FakeEnv, name: Name) -> Option<Result<FakeEnv, Loss>> {
        let now = fake_env.reaper.now;
        let Some(ino) = fake_env.at(name) else {
            return Some(Ok(fake_env.ended(false)));
        };
        if now.moves {
            return Some(match fake_env.is_needed(ino) {
                true => Err("a file is taken away from who needs it"),
                false => Ok(fake_env.ended(false)),
            });
        }
        if now.unclaimed {
            let newly_inside = |actor: &Actor| actor.opening.of() == Some(ino) && !actor.was_in;
            if self.is_shut(Window::FullDiskInsideOpen) && fake_env.actors.iter().any(newly_inside)
            {
                return None;
            }
            if self.is_shut(Window::FullDiskReplaced) && now.told.compared != Some(ino) {
                return None;
            }
        }
        let last_copy = !fake_env.inodes[usize::from(ino)].empty
            && match self.is_shut(Window::TargetGoes) {
                true => !now.told.whole_last,
                false => !fake_env.is_whole(),
            };
        let outside = match self.is_shut(Window::MovedOut) {
            true => now.told.moved_since,
            false => fake_env.dir_moved && !now.unclaimed,
        };
        let loss = if fake_env.is_needed(ino) {
            Some("a live writer's bytes are gone")
        } else if fake_env.look(ino).content != now.judged.content || ino != now.judged.ino {
            Some("what was not judged is gone")
        } else if last_copy {
            Some("the only copy is gone")
        } else if outside {
            Some("what lies outside of the root is gone")
        } else if now.told.turned_away {
            Some("who was turned away finds nothing when they come again")
        } else {
            None
        };
        fake_env.set(name, None);
        Some(loss.map_or_else(|| Ok(fake_env.ended(false)), Err))
    }

    fn put_back(&self, mut fake_env: FakeEnv, call: u8) -> Result<FakeEnv, Loss> {
        let now = fake_env.reaper.now;
        let claim = now.claim.expect("something was claimed");
        if fake_env.at(claim.name()).is_none() {
            return Ok(fake_env.ended(now.held));
        }
        match (call, claim) {
            (0, _) => {
                let taken = fake_env.at(Name::Temp).is_some();
                if taken && self.has(Check::PutBackOverwritesNothing) {
                    // Its name has a new owner: it is found in the quarantine.
                    for actor in &mut fake_env.actors {
                        actor.was_in = false;
                    }
                    // What lies in the quarantine stays there.
                    if matches!(claim, Claimed::Slot(_)) {
                        return Ok(fake_env.ended(now.held));
                    }
                    fake_env.reaper.at = At::PutBack(1);
                    return Ok(fake_env);
                }
                if taken {
                    return Err("a put-back overwrites a file");
                }
                fake_env.rename(claim.name(), Name::Temp);
                Ok(fake_env.ended(now.held))
            }
            _ if self.has(Check::PutBackDeletesNothing) => {
                let slot = Name::Slot(fake_env.free_slot());
                fake_env.rename(claim.name(), slot);
                Ok(fake_env.ended(now.held))
            }
            _ => Err("a put-back deletes a file"),
        }
    }

    fn recover(&self, fake_env: &FakeEnv, number: u8, call: u8) -> Result<FakeEnv, Loss> {
        let mut then = *fake_env;
        let claim = Name::Claim(number);
        let next = |mut then: FakeEnv, ino: Option<Ino>| {
            if let Some(ino) = ino {
                then.inode(ino).lease = Lease::None;
            }
            then.reaper.at = match number + 1 {
                CLAIMS => At::Track,
                more => At::Recover(more, 0),
            };
            then.is_in_order()
        };
        let Some(ino) = fake_env.at(claim) else {
            return next(then, None);
        };
        match call {
            0 if fake_env.is_held(ino) && self.has(Check::RecoveryLeavesHeldAlone) => {
                then.reaper.left |= 1 << number;
                next(then, None)
            }
            0 => {
                then.inode(ino).lease = Lease::Held;
                then.reaper.at = At::Recover(number, 1);
                Ok(then)
            }
            1 => match fake_env.at(Name::Temp) {
                Some(_) if self.has(Check::RecoveryOverwritesNothing) => {
                    then.reaper.at = At::Recover(number, 2);
                    Ok(then)
                }
                Some(_) => Err("a recovery overwrites a file"),
                None => {
                    then.rename(claim, Name::Temp);
                    next(then, Some(ino))
                }
            },
            _ if self.has(Check::RecoveryDeletesNothing) => {
                let slot = Name::Slot(fake_env.free_slot());
                then.rename(claim, slot);
                next(then, Some(ino))
            }
            _ => Err("a recovery deletes a file"),
        }
    }
}

impl FakeEnv {
    /// After a start no claim is left, but those that somebody holds.
    fn is_in_order(self) -> Result<FakeEnv, Loss> {
        let left = |n: u8| self.at(Name::Claim(n)).is_some() && self.reaper.left & (1 << n) == 0;
        match self.reaper.at == At::Track && (0..CLAIMS).any(left) {
            true => Err("a claim is left behind"),
            false => Ok(self),
        }
    }

    /// The protocol is over for this temp.
    fn ended(mut self, held: bool) -> FakeEnv {
        let opened = self.reaper.now.opened;
        self.inode(opened).lease = Lease::None;
        let known = self.reaper.known;
        // Who was seen holding it restarts the grace; so does a change.
        self.reaper.known = known.filter(|_| held).map(|(seen, _)| (seen, true));
        self.reaper.now = Attempt::default();
        self.reaper.at = At::Track;
        self
    }

    /// It is to be put back.
    fn back(mut self, held: bool) -> FakeEnv {
        self.reaper.now.held = held;
        self.reaper.at = At::PutBack(0);
        self
    }

    /// It stays: put back, where it was claimed.
    fn stopped(self, held: bool) -> FakeEnv {
        match self.reaper.now.claim {
            Some(_) => self.back(held),
            None => self.ended(held),
        }
    }
}

fn place(step: Step) -> usize {
    let place = Step::ALL.iter().position(|known| *known == step);
    place.expect("all of them are there")
}

/// The step that comes after this one.
fn after(step: Step) -> At {
    At::Do(Step::ALL[place(step) + 1], 0)
}

/// Asks the real judge.
fn judge_as(seen: Seen, expected: Option<Seen>, hold: UseState, target: Target) -> Verdict {
    static ALIKE: OnceLock<(Policy, DirProperties)> = OnceLock::new();
    let (policy, place) = ALIKE.get_or_init(|| {
        let place = DirProperties {
            dev: 1,
            mount: Some(1),
            file_system: "ext4".into(),
            lease_coverage: LeaseCoverage::OpensAndMaps,
            dates: Dates::Fine,
            quarantine: true,
        };
        (Policy::default(), place)
    });
    let evidence = Evidence {
        observation: seen.observation(),
        expected: expected.map(|seen| seen.observation().fingerprint),
        quiet: Duration::from_secs(9),
        grace: Duration::from_secs(9),
        unused: Duration::from_secs(9),
        dir: place.clone(),
        our_uid: 0,
        writer: Writer::NoPid,
        closed: false,
        use_state: hold,
        opened: true,
        mappings_examined: false,
        target,
        random_name: true,
        restored: false,
        reserved: None,
    };
    judge(&evidence, policy)
}

/// What an exploration has seen.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// Which steps were taken, by their place in the order.
    steps: [bool; Step::ALL.len()],
    reaped: bool,
}

/// Walks through every state that can be reached, nearest first. The way to the first loss is the
/// shortest.
fn explore(model: &Model) -> Result<Explored, (Loss, Vec<ActionOptions>)> {
    let mut explored = Explored::default();
    let mut known = HashSet::with_hasher(BuildHasherDefault::<Quick>::default());
    known.insert(model.start());
    // Each with where it came from, and how.
    let mut worlds = vec![(model.start(), 0, ActionOptions::IsKilled)];
    let mut next = Vec::new();
    let mut at = 0;
    while let Some((fake_env, _, _)) = worlds.get(at).copied() {
        model.next(&fake_env, &mut next);
        for (deed, then) in next.drain(..) {
            match then {
                Ok(then) if known.insert(then) => {
                    if let At::Do(step, _) = fake_env.reaper.at {
                        explored.steps[place(step)] = true;
                        let gone = |name| fake_env.at(name).is_some() && then.at(name).is_none();
                        explored.reaped |=
                            step == Step::Unlink && (0..CLAIMS).any(|n| gone(Name::Claim(n)));
                    }
                    worlds.push((then, at, deed));
                }
                Ok(_) => {}
                Err(loss) => {
                    let mut trace = vec![deed];
                    while at != 0 {
                        trace.push(worlds[at].2);
                        at = worlds[at].1;
                    }
                    trace.reverse();
                    return Err((loss, trace));
                }
            }
        }
        at += 1;
    }
    explored.states = worlds.len();
    Ok(explored)
}

/// A hash for small numbers by the million, which nobody attacks.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant as u8);
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u8(length as u8);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Who meets whom, and what is there before them.
const SCENES: [([Script; 2], bool); 8] = [
    ([WRITER, TRUNCATER], false),
    ([WRITER, WRITER], false),
    ([TRUNCATER, READER], true),
    ([RENEWER, APPENDER], true),
    ([REPLACER, TRUNCATER], true),
    ([PEEPER, APPENDER], true),
    ([TRUNCATER, SPOILER], true),
    ([APPENDER, MOVER], true),
];

fn models(
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
) -> impl Iterator<Item = Model> {
    SCENES.into_iter().flat_map(move |(scripts, orphan)| {
        // Removed, moved, removed on a full disk.
        [(true, false), (false, false), (true, true)].map(|(target, full)| Model {
            scripts,
            orphan,
            target,
            full,
            kills,
            without,
            open,
        })
    })
}

/// No order in which they can act loses a byte that somebody could still need.
#[test]
fn nothing_is_lost() {
    in_own_process(&[RunAs::CurrentUser], || {
        let mut all = Explored::default();
        // Killed once, and once more while it puts in order what that left.
        for model in models(2, &[], None) {
            match explore(&model) {
                Ok(explored) => {
                    all.states += explored.states;
                    all.reaped |= explored.reaped;
                    for (all, step) in all.steps.iter_mut().zip(explored.steps) {
                        *all |= step;
                    }
                }
                Err((loss, trace)) => panic!("{loss}: {model:?}{}", told(&trace)),
            }
        }
        println!("{} states", all.states);
        // Else nothing would be shown.
        assert!(all.reaped, "orphans go");
        assert_eq!(all.steps, [true; Step::ALL.len()], "each step is taken");
    });
}

fn told(trace: &[ActionOptions]) -> String {
    let told = trace.iter().map(|deed| format!("\n  {deed}"));
    told.collect()
}

/// The shortest way to a loss, if there is one.
fn loss(
    kills: u8,
    without: &'static [Check],
    open: Option<Window>,
) -> Option<(Loss, Model, Vec<ActionOptions>)> {
    models(kills, without, open).find_map(|model| {
        let (loss, trace) = explore(&model).err()?;
        Some((loss, model, trace))
    })
}

/// Why nothing is lost here without this check, and without which others it is.
fn is_doubled(check: Check) -> Option<(&'static str, &'static [Check])> {
    // A file that is not what was looked at is noticed at three doors.
    const SAME: &[Check] = &[Check::Look, Check::Opened, Check::JudgedSame];
    match check {
        Check::Look => Some(("it saves an open, and another's lease its break", SAME)),
        Check::Opened => Some(("it counts where there was no earlier look", SAME)),
        Check::JudgedSame => Some(("it is what scan and explain have", SAME)),
        // No byte depends on it: whoever holds a claim does not need the name that it bears. But it
        // may be another orphand's at work, where no lock could be made.
        Check::RecoveryLeavesHeldAlone => Some(("it spares another orphand's work", &[])),
        _ => None,
    }
}

/// Each check, alone or with those that double it.
#[test]
fn each_check_is_needed() {
    in_own_process(&[RunAs::CurrentUser], || {
        for check in &Check::ALL {
            let kills = match check {
                Check::Recovery
                | Check::RecoveryOverwritesNothing
                | Check::RecoveryDeletesNothing
                | Check::RecoveryLeavesHeldAlone => 1,
                // It shows without a kill, and sooner.
                _ => 0,
            };
            let alone = loss(kills, std::slice::from_ref(check), None);
            match (alone, is_doubled(*check)) {
                (Some((loss, _, trace)), None) => {
                    println!("without {check:?}: {loss}, after {} deeds", trace.len());
                }
                (None, Some((why, all))) => {
                    println!("without {check:?} nothing is lost: {why}");
                    assert!(
                        all.is_empty() || loss(kills, all, None).is_some(),
                        "{all:?}"
                    );
                }
                (None, None) => panic!("nothing is lost without {check:?}: what is it for?"),
                (Some((loss, model, trace)), Some(_)) => {
                    panic!("{check:?} has no double: {loss}: {model:?}{}", told(&trace))
                }
            }
        }
    });
}

/// Each window that is said to be left is one. While they are shut there is no other.
#[test]
fn each_window_is_one() {
    in_own_process(&[RunAs::CurrentUser], || {
        for window in Window::ALL {
            let loss = loss(0, &[], Some(window));
            let (loss, _, trace) = loss.unwrap_or_else(|| panic!("nothing is lost by {window:?}"));
            println!("{window:?}: {loss}{}", told(&trace));
        }
    });
}
