//! A model of the protocol for sets, explored exhaustively for small bounds: a temp with one or two companions.
//!
//! Another process makes up to two actions at any moment: it opens or writes a member, creates a file at the name of a
//! member or of one more companion, creates a database there, renames all members onto a target, removes a member, or
//! removes or creates the target. The reaper is killed between any two of its calls, and again while it recovers or
//! while a user restores the set; and one of its calls fails. Every order of all this is tried.
//!
//! The model uses the real decisions about sets ([`judge_set`], [`before_claims`], [`after_claims`], [`recovery`]) and
//! the real fingerprint, and its reaper follows the real [`Step`]: a step without its part in the model does not
//! compile. `set_attacks` makes the same attacks on the real protocol, one at a time.
//!
//! A model that finds no loss proves little by itself. So each rule is left out in turn, and each window that
//! docs/safety.md names is opened in turn; the model must then find a loss.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;

use orphand::core::judge::{Evidence, Target, Verdict, judge_set};
use orphand::core::observation::{Observation, UseState};
use orphand::core::policy::Policy;
use orphand::core::temp_set::{
    LeftSet, SetNames, SetRecovery, SetStep, after_claims, before_claims, recovery,
};
use orphand::reap::Step;

use crate::explorer::{
    Explorable, Loss, LossTrace, Transitions, assert_needed, explore, format_trace,
};
use crate::fixture::{RunAs, in_own_process, in_parallel};
use crate::model::{evidence, observation};

/// The index of a file: a member, the target, or a file that the other process creates.
type File = u8;
/// The index of a name of the set: 0 is the main file's, and the last one is that of a companion that does not exist at
/// first.
type Name = u8;

const MAIN: File = 0;
const MAX_MEMBERS: usize = 3;
const TARGET: File = MAX_MEMBERS as File;
const FILES: usize = MAX_MEMBERS + 3;
const MAX_NAMES: usize = MAX_MEMBERS + 1;
const NAMES: [&str; MAX_NAMES] = ["main", "main-journal", "main-shm", "main-wal"];

/// The place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    NotCreated,
    Removed,
    /// A name of the set.
    Name(Name),
    /// The name that a writer gives to a member at last. `Renamed(0)` is the target.
    Renamed(Name),
    /// The claim for this name.
    Claim(Name),
    /// In this folder of the quarantine, with this name.
    Stored(u8, Name),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Lease {
    #[default]
    None,
    Held,
    /// Another process has tried to open the file.
    Breaking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelFile {
    place: Place,
    /// Grows with each change of the content.
    content: u8,
    /// Grows with each rename.
    renamed: u8,
    lease: Lease,
    /// It has changed since the claim of the main file.
    is_newer: bool,
    /// Orphand has given it its name back since then, which changes its dates.
    is_back: bool,
    /// Another process has renamed or removed it, or uses it beside another main file: it no longer belongs to the set.
    is_apart: bool,
    /// The other process created it beside the main file.
    is_of_set: bool,
}

/// The result of a look at a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Snapshot {
    file: File,
    content: u8,
    renamed: u8,
}

impl Snapshot {
    fn observation(self) -> Observation {
        observation(self.file, self.content, self.renamed, false)
    }

    fn is_same_after_rename(self, judged: Snapshot) -> bool {
        let (now, judged) = (self.observation(), judged.observation());
        now.fingerprint.is_same_after_rename(&judged.fingerprint)
    }
}

/// The progress of an `open` by the other process. The kernel counts an opener before it looks for leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OpenState {
    Found,
    Counted,
    Waits,
    Open,
    Written,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Opening {
    file: File,
    state: OpenState,
    writes: bool,
}

const MAX_ACTIONS: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Actor {
    /// The number of actions that it has begun.
    begun: u8,
    opens: [Option<Opening>; MAX_ACTIONS],
    /// It renames all members: whether the main file is the first one, and the number of those that it has renamed.
    renames: Option<(bool, u8)>,
    /// It has created a database, and will delete the journals that it finds beside it.
    deletes_journals: bool,
}

/// The moment of a reading of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Before,
    After,
    Last,
    Recovery,
}

/// The next call of the reaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Killed, or not started.
    Stopped,
    Idle,
    /// A step for a member, and its call.
    Do(Step, Name, u8),
    /// Reading the names of the set: the companions first, the name of the main file last.
    Names(Reading),
    PutBack(u8),
    /// Claiming a member that has its name, before all are moved.
    ClaimAgain(Name),
    /// Moving a member to the quarantine; whether a name was taken.
    Move(Name, bool),
    UndoMove(Name, bool),
    RecoverOpen(Name),
    RecoverPutBack(u8),
    RecoverClaimAgain(Name),
    RecoverAdd(Name),
    RecoverMove(Name),
    RecoverRest(Name),
    /// A user restores the set.
    Restore(u8),
    UndoRestore(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelReaper {
    at: At,
    kills_left: u8,
    failures_left: u8,
    restores_left: u8,
    /// A restore was killed or has failed, and must be repeated.
    is_restore_left: bool,
    now: Attempt,
}

/// One passage of the set through the protocol or its recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Attempt {
    judged: [Snapshot; MAX_NAMES],
    opened: [File; MAX_NAMES],
    after: [Snapshot; MAX_NAMES],
    /// A bit for each member that has its claim.
    claimed: u8,
    /// A bit for each member that has its name again, or always had it.
    named: u8,
    /// A bit for each member that is in the quarantine.
    stored: u8,
    moves: bool,
    is_whole: bool,
    /// The target counted at the last look at it.
    was_whole: bool,
    /// The names that were found, a bit for each, and the number of names that were looked up.
    found: u8,
    looked_up: u8,
    folder: u8,
    is_kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SetState {
    files: [ModelFile; FILES],
    actor: Actor,
    reaper: ModelReaper,
}

/// An action of the other process or of the reaper.
#[derive(Clone, Copy, Debug)]
enum Action {
    Open(Name, bool),
    OpenGoesOn(OpenState),
    Close,
    Create(Name),
    CreateDatabase,
    DeleteJournals,
    RenameAll(bool),
    RenameNext,
    Unlink(Name),
    RemoveTarget,
    CreateTarget,
    Reaper(At),
    CallFails(At),
    Killed,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Reaper(at) => write!(f, "reaper: {at:?}"),
            Action::CallFails(at) => write!(f, "reaper: {at:?} fails"),
            Action::Killed => f.write_str("the reaper is killed"),
            Action::Open(name, writes) => {
                write!(f, "other process: opens {name}, writes: {writes}")
            }
            Action::OpenGoesOn(state) => write!(f, "other process: its open is {state:?}"),
            Action::Create(name) => write!(f, "other process: creates {name}"),
            Action::RenameAll(main_first) => {
                write!(
                    f,
                    "other process: renames all members, main file first: {main_first}"
                )
            }
            Action::Unlink(name) => write!(f, "other process: unlinks {name}"),
            other => write!(f, "other process: {other:?}"),
        }
    }
}

/// Defines an enum and the list of its variants together.
macro_rules! listed {
    ($(#[$what:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$what])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            const ALL: &[$name] = &[$($name::$variant),*];
        }
    };
}

listed! {
    /// A rule of the protocol for sets.
    Check {
        /// No step is made for a member that is not the file that was looked at.
        Look,
        /// The opened file is the one that was looked at.
        Opened,
        /// Every member is proven unused.
        Proof,
        /// Each companion is proven, not only the main file.
        CompanionsProven,
        JudgedAgain,
        /// Nothing was added to the set before the first claim.
        NamesBefore,
        /// The main file is claimed first.
        MainClaimedFirst,
        /// A member that cannot be claimed ends the removal.
        AllClaimed,
        Compare,
        /// No file has a name of the set after the claims, and none at last.
        NoNewMember,
        WaitsForUs,
        CountedByNow,
        ReleaseWait,
        ProvenLast,
        Untouched,
        TargetLast,
        /// The main file is removed or moved first.
        MainRemovedFirst,
        /// The main file gets its name back last.
        MainPutBackLast,
        /// A put-back finds out first whether the main file's name is taken.
        TakenMainFirst,
        PutBackOverwritesNothing,
        /// If a name is taken, the members that have their names are moved too.
        AllAreMoved,
        /// These are claimed before.
        MovedFromClaims,
        /// If a member cannot be moved, those before it get their claims again.
        MoveIsUndone,
        Recovery,
        /// A recovery takes all claims of the set together.
        WholeRecovery,
        RecoveryOverwritesNothing,
        RecoveryPutsMainBackLast,
        RecoveryLeavesHeldAlone,
        /// A recovery moves the companions that have their names too.
        RecoveryAddsNamed,
        /// These are claimed before.
        RecoveryMovesFromClaims,
        /// Except those that changed since the claim of the main file.
        NewerStays,
        /// Or that are in use.
        UsedStays,
        /// Companions without their main file are not put back.
        RestIsMoved,
        RestFollowsMain,
        /// A set is not restored while companions have their claims.
        IncompleteIsNotRestored,
        MainRestoredLast,
        RestoreOverwritesNothing,
        RestoreIsUndone,
    }
}

listed! {
    /// A remaining window that docs/safety.md names. While it is closed, no process acts in it.
    Window {
        /// A thread stays inside one `open` from before the claim until after the last proof.
        InsideOpen,
        /// The target is removed after its last check.
        TargetRemoved,
        /// One more companion is created after the last reading of the names.
        LateCompanion,
        /// A database is created while a companion has its name without its main file.
        NewDatabase,
        /// Orphand is killed, or a rename fails, between the put-back of a companion and that of the main file, whose
        /// name another file takes.
        TakenAfterPutBack,
    }
}

#[derive(Clone, Copy, Debug)]
struct Model {
    companions: u8,
    has_target: bool,
    /// The maximum number of actions of the other process.
    actions: u8,
    kills: u8,
    failures: u8,
    without: &'static [Check],
    open: Option<Window>,
}

impl SetState {
    fn at(&self, place: Place) -> Option<File> {
        let file = self.files.iter().position(|file| file.place == place)?;
        Some(file as File)
    }

    fn file(&mut self, file: File) -> &mut ModelFile {
        &mut self.files[usize::from(file)]
    }

    fn place(&self, file: File) -> Place {
        self.files[usize::from(file)].place
    }

    fn look(&self, file: File) -> Snapshot {
        let ModelFile {
            content, renamed, ..
        } = self.files[usize::from(file)];
        Snapshot {
            file,
            content,
            renamed,
        }
    }

    fn look_at(&self, place: Place) -> Option<Snapshot> {
        self.at(place).map(|file| self.look(file))
    }

    fn is_whole(&self) -> bool {
        self.at(Place::Renamed(0)).is_some()
    }

    fn target(&self) -> Target {
        match self.is_whole() {
            true => Target::Whole { same_file: false },
            false => Target::Absent,
        }
    }

    fn opens(&self) -> impl Iterator<Item = Opening> {
        self.actor.opens.into_iter().flatten()
    }

    /// Reports whether a lease on the file would be refused.
    fn is_held(&self, file: File) -> bool {
        self.opens()
            .any(|open| open.file == file && open.state != OpenState::Found)
    }

    fn has_claims(&self) -> bool {
        let is_claim = |file: &ModelFile| matches!(file.place, Place::Claim(_));
        self.files.iter().any(is_claim)
    }

    /// Moves a file that exists. A file that had the new place is removed.
    fn put(&mut self, file: File, place: Place) {
        if let Some(there) = self.at(place) {
            self.file(there).place = Place::Removed;
        }
        let moved = self.file(file);
        moved.place = place;
        moved.renamed += 1;
    }

    fn free_folder(&self) -> u8 {
        let used = |file: &ModelFile| match file.place {
            Place::Stored(folder, _) => folder + 1,
            _ => 0,
        };
        self.files.iter().map(used).max().unwrap_or(0)
    }

    fn release_all(&mut self) {
        for file in &mut self.files {
            file.lease = Lease::None;
        }
    }

    /// Ends the work of the reaper, for now.
    fn end(mut self) -> SetState {
        self.release_all();
        self.reaper.now = Attempt::default();
        self.reaper.at = At::Idle;
        self
    }

    fn to(mut self, at: At) -> SetState {
        self.reaper.at = at;
        self
    }
}

/// The result of a rename that refuses to overwrite.
enum Renamed {
    Done,
    NotFound,
    Exists,
}

impl Model {
    fn has(&self, check: Check) -> bool {
        !self.without.contains(&check)
    }

    fn is_closed(&self, window: Window) -> bool {
        self.open != Some(window)
    }

    /// Returns the number of members.
    fn members(&self) -> u8 {
        self.companions + 1
    }

    /// Returns the name of the companion that does not exist at first.
    fn extra(&self) -> Name {
        self.companions + 1
    }

    fn members_of<'a>(&self, state: &'a SetState) -> impl Iterator<Item = (File, &'a ModelFile)> {
        let members = state.files.iter().take(usize::from(self.members()));
        members.enumerate().map(|(file, at)| (file as File, at))
    }

    /// Returns the member with this position in an order that begins or ends with the main file.
    fn in_order(&self, position: u8, main_first: bool) -> Name {
        match main_first {
            true => position,
            false => self.companions - position,
        }
    }

    /// Returns the state, or the loss in it.
    fn checked(&self, state: SetState) -> Result<SetState, Loss> {
        let main = state.files[usize::from(MAIN)];
        let is_at_its_name = |(file, member): (File, &ModelFile)| {
            member.is_apart || member.place == Place::Name(file)
        };
        if main.place == Place::Name(MAIN)
            && !main.is_apart
            && !self.members_of(&state).all(is_at_its_name)
        {
            return Err("the main file has its name without a companion");
        }
        let is_at_rest = matches!(state.reaper.at, At::Idle)
            && !state.has_claims()
            && !state.reaper.is_restore_left;
        match is_at_rest && self.is_split(&state) {
            true => Err("the set is split"),
            false => Ok(state),
        }
    }

    /// Reports whether the members that belong together are not all at their names, all in one folder of the
    /// quarantine, or all removed. The companions of a main file that was removed may also be in the quarantine.
    fn is_split(&self, state: &SetState) -> bool {
        let together = || {
            self.members_of(state)
                .filter(|(_, member)| !member.is_apart)
        };
        let all = |is: &dyn Fn(File, Place) -> bool| together().all(|(f, file)| is(f, file.place));
        let folder = together().find_map(|(_, member)| match member.place {
            Place::Stored(folder, _) => Some(folder),
            _ => None,
        });
        let is_named = all(&|file, place| place == Place::Name(file));
        let is_stored = all(&|file, place| Some(place) == folder.map(|f| Place::Stored(f, file)));
        let is_removed = state.place(MAIN) == Place::Removed
            && all(&|_, place| matches!(place, Place::Removed | Place::Stored(..)));
        // If another file has a name of the set, the new companion may belong to that file.
        let is_taken = |name: Name| {
            state
                .at(Place::Name(name))
                .is_some_and(|file| file > TARGET)
        };
        let is_left = |file: &ModelFile| {
            file.is_of_set && !file.is_apart && file.place == Place::Name(self.extra())
        };
        let leaves_one = !is_named
            && !(0..self.members()).any(is_taken)
            && together().count() > 0
            && state.files.iter().any(is_left);
        !(is_named || is_stored || is_removed) || leaves_one
    }

    /// Renames without overwriting anything, if the check is not left out.
    fn rename(&self, state: &mut SetState, from: Place, to: Place) -> Renamed {
        match (state.at(from), state.at(to)) {
            (None, _) => Renamed::NotFound,
            (Some(_), Some(_)) => Renamed::Exists,
            (Some(file), None) => {
                state.put(file, to);
                Renamed::Done
            }
        }
    }
}

impl Explorable for Model {
    type State = SetState;
    type Action = Action;

    fn start(&self) -> SetState {
        let file = |place| ModelFile {
            place,
            content: 0,
            renamed: 0,
            lease: Lease::None,
            is_newer: false,
            is_back: false,
            is_apart: false,
            is_of_set: false,
        };
        let mut files = [file(Place::NotCreated); FILES];
        for member in 0..self.members() {
            files[usize::from(member)].place = Place::Name(member);
        }
        if self.has_target {
            files[usize::from(TARGET)].place = Place::Renamed(0);
        }
        let mut state = SetState {
            files,
            actor: Actor::default(),
            reaper: ModelReaper {
                at: At::Do(Step::Resolve, 0, 0),
                kills_left: self.kills,
                failures_left: self.failures,
                restores_left: 2 * u8::from(self.kills > 0),
                is_restore_left: false,
                now: Attempt {
                    named: (1 << self.members()) - 1,
                    moves: !self.has_target,
                    ..Attempt::default()
                },
            },
        };
        for member in 0..self.members() {
            let seen = state.look(member);
            state.reaper.now.judged[usize::from(member)] = seen;
        }
        state
    }

    fn next(&self, state: &SetState, next: &mut Transitions<Model>) {
        let from = next.len();
        self.act(state, next);
        self.reap(state, next);
        for (_, then) in next.iter_mut().skip(from) {
            *then = then.and_then(|then| self.checked(then));
        }
    }
}

/// The other process.
impl Model {
    fn act(&self, state: &SetState, next: &mut Transitions<Model>) {
        for slot in 0..MAX_ACTIONS {
            if let Some(open) = state.actor.opens[slot] {
                self.go_on(state, slot, open, next);
            }
        }
        if let Some((main_first, done)) = state.actor.renames
            && let Some(then) = self.rename_one(*state, main_first, done)
        {
            next.push((Action::RenameNext, Ok(then)));
        }
        if state.actor.deletes_journals {
            next.push((Action::DeleteJournals, self.delete_journals(*state)));
        }
        if state.actor.begun < self.actions {
            self.begin(state, next);
        }
    }

    /// Adds the actions that the other process can begin.
    fn begin(&self, state: &SetState, next: &mut Transitions<Model>) {
        let mut begun = *state;
        begun.actor.begun += 1;
        for name in 0..=self.extra() {
            let place = Place::Name(name);
            if let Some(file) = state.at(place) {
                if file < self.members() {
                    for writes in [false, true] {
                        let mut then = begun;
                        then.actor.opens[usize::from(state.actor.begun)] = Some(Opening {
                            file,
                            state: OpenState::Found,
                            writes,
                        });
                        next.push((Action::Open(name, writes), Ok(then)));
                    }
                }
                let mut then = begun;
                then.file(file).place = Place::Removed;
                then.file(file).is_apart = true;
                next.push((Action::Unlink(name), Ok(then)));
            } else if !self.is_late(state, name) {
                let then = self.create(begun, name);
                next.push((Action::Create(name), Ok(then)));
                if name == MAIN && self.may_create_database(state) {
                    let mut then = then;
                    then.actor.deletes_journals = true;
                    next.push((Action::CreateDatabase, Ok(then)));
                }
            }
        }
        for main_first in [true, false] {
            if let Some(then) = self.rename_one(begun, main_first, 0) {
                next.push((Action::RenameAll(main_first), Ok(then)));
            }
        }
        let mut then = begun;
        if let Some(target) = state.at(Place::Renamed(0)) {
            then.file(target).place = Place::Removed;
            next.push((Action::RemoveTarget, Ok(then)));
        } else if state.place(TARGET) == Place::NotCreated {
            then.file(TARGET).place = Place::Renamed(0);
            next.push((Action::CreateTarget, Ok(then)));
        }
    }

    fn create(&self, mut state: SetState, name: Name) -> SetState {
        let is_new = |file: &File| state.place(*file) == Place::NotCreated;
        let file = (TARGET + 1..FILES as File).find(is_new);
        let file = file.expect("a file for each action");
        let has_main = matches!(state.place(MAIN), Place::Name(_) | Place::Claim(_));
        let new = state.file(file);
        new.place = Place::Name(name);
        new.is_newer = true;
        new.is_of_set = name == self.extra() && has_main;
        state
    }

    /// Reports whether a companion would appear after the last reading of the names.
    fn is_late(&self, state: &SetState, name: Name) -> bool {
        let is_read = match state.reaper.at {
            At::Names(Reading::Last) => state.reaper.now.looked_up >= name,
            At::Do(Step::ProveLast, _, 2) | At::Do(Step::Unlink, ..) | At::Move(_, false) => true,
            _ => false,
        };
        is_read && name == self.extra() && self.is_closed(Window::LateCompanion)
    }

    /// Reports whether no companion of the set can have its name while another main file exists.
    fn may_create_database(&self, state: &SetState) -> bool {
        let returns = match state.reaper.at {
            At::PutBack(call) | At::Restore(call) => call > 0,
            At::RecoverPutBack(_) | At::UndoRestore(_) => true,
            _ => false,
        };
        let is_alone = |(file, member): (File, &ModelFile)| {
            file != MAIN && !member.is_apart && member.place == Place::Name(file)
        };
        let is_unclear = returns || self.members_of(state).any(is_alone);
        !is_unclear
            || state.files[usize::from(MAIN)].is_apart
            || !self.is_closed(Window::NewDatabase)
    }

    fn delete_journals(&self, mut state: SetState) -> Result<SetState, Loss> {
        state.actor.deletes_journals = false;
        let is_gone = state.at(Place::Name(MAIN)).is_none_or(|file| file == MAIN);
        if is_gone && self.is_closed(Window::NewDatabase) {
            return Ok(state);
        }
        for name in 1..=self.extra() {
            if let Some(file) = state.at(Place::Name(name)) {
                if file < self.members()
                    && !state.files[usize::from(file)].is_apart
                    && !state.files[usize::from(MAIN)].is_apart
                {
                    return Err("a new database deletes the journal of the set");
                }
                state.file(file).place = Place::Removed;
                state.file(file).is_apart = true;
            }
        }
        Ok(state)
    }

    /// Renames one member onto its last name. Returns `None` while orphand has the file: the writer is not paused.
    fn rename_one(&self, mut state: SetState, main_first: bool, done: u8) -> Option<SetState> {
        let name = self.in_order(done, main_first);
        let Some(file) = state.at(Place::Name(name)) else {
            // A writer that finds no name gets an error, and retries.
            let is_taken = matches!(state.place(name), Place::Claim(_));
            state.actor.renames = None;
            return (done > 0 && !is_taken).then_some(state);
        };
        state.put(file, Place::Renamed(name));
        state.file(file).is_apart = true;
        state.actor.renames = (done < self.companions).then_some((main_first, done + 1));
        Some(state)
    }

    /// Adds the next action for an open file.
    fn go_on(&self, state: &SetState, slot: usize, open: Opening, next: &mut Transitions<Model>) {
        let mut then = *state;
        let file = open.file;
        let set = |then: &mut SetState, new| {
            then.actor.opens[slot] = Some(Opening { state: new, ..open });
            new
        };
        let new = match open.state {
            OpenState::Found => set(&mut then, OpenState::Counted),
            OpenState::Counted | OpenState::Waits => {
                match state.files[usize::from(file)].lease {
                    Lease::None => set(&mut then, OpenState::Open),
                    // It still waits.
                    _ if open.state == OpenState::Waits => return,
                    _ => {
                        then.file(file).lease = Lease::Breaking;
                        set(&mut then, OpenState::Waits)
                    }
                }
            }
            OpenState::Open if open.writes => {
                then.file(file).content += 1;
                then.file(file).is_newer = true;
                set(&mut then, OpenState::Written)
            }
            OpenState::Open | OpenState::Written => {
                then.actor.opens[slot] = None;
                next.push((Action::Close, Ok(then)));
                return;
            }
        };
        next.push((Action::OpenGoesOn(new), Ok(then)));
    }
}

/// The reaper.
impl Model {
    fn reap(&self, state: &SetState, next: &mut Transitions<Model>) {
        let at = state.reaper.at;
        let label = Action::Reaper(at);
        if !matches!(at, At::Stopped | At::Idle) && state.reaper.kills_left > 0 {
            let mut killed = state.end().to(At::Stopped);
            killed.reaper.kills_left -= 1;
            killed.reaper.is_restore_left |= matches!(at, At::Restore(_) | At::UndoRestore(_));
            next.push((Action::Killed, Ok(killed)));
        }
        let is_idle = matches!(at, At::Stopped | At::Idle);
        let is_stored = matches!(state.place(MAIN), Place::Stored(..));
        if is_idle && is_stored && state.reaper.restores_left > 0 {
            let mut then = state.to(At::Restore(0));
            then.reaper.restores_left -= 1;
            next.push((Action::Reaper(then.reaper.at), Ok(then)));
        }
        if state.reaper.failures_left > 0 && self.may_fail(state) {
            let mut then = *state;
            then.reaper.failures_left -= 1;
            next.push((Action::CallFails(at), self.call(then, true)));
        }
        match at {
            At::Idle if !state.has_claims() => {}
            At::Do(Step::Wait, ..) if self.waits_for_opener(state) => {}
            _ => next.push((label, self.call(*state, false))),
        }
    }

    /// Reports whether the next call changes the directory.
    fn may_fail(&self, state: &SetState) -> bool {
        let claimed = |name| state.at(Place::Claim(name)).is_some();
        match state.reaper.at {
            At::Do(Step::Claim | Step::Unlink, ..) | At::Move(..) | At::RecoverMove(_) => true,
            At::PutBack(call) => call > 0,
            At::RecoverPutBack(_) => true,
            At::RecoverRest(name) => claimed(name),
            At::ClaimAgain(name) | At::RecoverClaimAgain(name) => {
                state.reaper.now.named & (1 << name) != 0
            }
            At::Restore(call) => call > 0,
            _ => false,
        }
    }

    /// A thread that was inside `open` at the start of the wait has returned at its end.
    fn waits_for_opener(&self, state: &SetState) -> bool {
        let is_inside = |open: Opening| {
            let is_claimed = matches!(state.place(open.file), Place::Claim(_));
            open.state == OpenState::Found && is_claimed
        };
        self.has(Check::ReleaseWait)
            && self.is_closed(Window::InsideOpen)
            && state.opens().any(is_inside)
    }

    /// Makes the next call, which may fail.
    fn call(&self, state: SetState, fails: bool) -> Result<SetState, Loss> {
        match state.reaper.at {
            At::Stopped | At::Idle => self.start_recovery(state),
            At::Do(step, name, call) => self.step(state, step, (name, call), fails),
            At::Names(reading) => Ok(self.read_name(state, reading)),
            At::PutBack(call) => self.put_back(state, call, fails),
            At::Move(position, is_taken) => self.move_one(state, position, is_taken, fails),
            At::UndoMove(position, is_taken) => Ok(self.undo_move(state, position, is_taken)),
            At::RecoverOpen(name) => Ok(self.recover_open(state, name)),
            At::RecoverPutBack(position) => self.recover_put_back(state, position, fails),
            // The claims that exist stay.
            At::ClaimAgain(_) | At::RecoverClaimAgain(_) if fails => Ok(state.end()),
            At::ClaimAgain(name) => {
                let last = At::Move(0, true);
                Ok(self.claim_again(state, name, Check::MovedFromClaims, last))
            }
            At::RecoverClaimAgain(name) => {
                let last = self.after_taken();
                Ok(self.claim_again(state, name, Check::RecoveryMovesFromClaims, last))
            }
            At::RecoverAdd(name) => self.recover_add(state, name),
            At::RecoverMove(name) => self.recover_move(state, name, fails),
            At::RecoverRest(name) => self.recover_rest(state, name, fails),
            At::Restore(call) => self.restore(state, call, fails),
            At::UndoRestore(name) => Ok(self.undo_restore(state, name)),
        }
    }

    /// Returns the state after a step for a member: before the same step for the next member, or at `last`.
    fn after(&self, state: SetState, step: Step, name: Name, last: At) -> SetState {
        state.to(match name + 1 < self.members() {
            true => At::Do(step, name + 1, 0),
            false => last,
        })
    }

    fn proves(&self, name: Name) -> bool {
        self.has(Check::Proof) && (name == MAIN || self.has(Check::CompanionsProven))
    }

    /// Requests the lease on a file.
    fn request_lease(&self, state: &mut SetState, name: Name, file: File) -> bool {
        if self.proves(name) && state.is_held(file) {
            return false;
        }
        state.file(file).lease = Lease::Held;
        true
    }

    /// One call of one step for one member.
    fn step(
        &self,
        mut state: SetState,
        step: Step,
        (name, call): (Name, u8),
        fails: bool,
    ) -> Result<SetState, Loss> {
        let index = usize::from(name);
        let now = state.reaper.now;
        Ok(match (step, call) {
            (Step::Resolve, _) => state.to(At::Do(Step::Look, 0, 0)),
            (Step::Look, _) => match state.look_at(Place::Name(name)) {
                Some(seen) if seen == now.judged[index] || !self.has(Check::Look) => {
                    state.reaper.now.judged[index] = seen;
                    self.after(state, step, name, At::Do(Step::Open, 0, 0))
                }
                _ => state.end(),
            },
            (Step::Open, _) => match state.at(Place::Name(name)) {
                None => state.end(),
                Some(file) => {
                    state.reaper.now.opened[index] = file;
                    state.to(At::Do(Step::Prove, name, 0))
                }
            },
            (Step::Prove, _) => match self.request_lease(&mut state, name, now.opened[index]) {
                false => state.end(),
                true => self.after(state, Step::Open, name, At::Do(Step::Judge, 0, 0)),
            },
            (Step::Judge, 0) => {
                let seen = state.look(now.opened[index]);
                if seen != now.judged[index] && self.has(Check::Opened) {
                    return Ok(state.end());
                }
                state.reaper.now.judged[index] = seen;
                self.after(state, step, name, At::Do(step, 0, 1))
            }
            (Step::Judge, _) => self.judge(state),
            (Step::Claim, _) => return self.claim(state, name, fails),
            (Step::Compare, _) => {
                let member = self.in_order(name, self.has(Check::MainClaimedFirst));
                let index = usize::from(member);
                match state.look_at(Place::Claim(member)) {
                    Some(seen)
                        if seen.is_same_after_rename(now.judged[index])
                            || !self.has(Check::Compare) =>
                    {
                        state.reaper.now.after[index] = seen;
                        self.after(state, Step::Claim, name, At::Names(Reading::After))
                    }
                    _ => state.to(At::PutBack(0)),
                }
            }
            (Step::ProveAgain, 0) => {
                let lease = state.files[usize::from(now.opened[index])].lease;
                match lease != Lease::Held && self.proves(name) && self.has(Check::WaitsForUs) {
                    true => state.to(At::PutBack(0)),
                    false => state.to(At::Do(step, name, 1)),
                }
            }
            (Step::ProveAgain, _) => {
                let is_held = state.is_held(now.opened[index]) && self.proves(name);
                match is_held && self.has(Check::CountedByNow) {
                    true => state.to(At::PutBack(0)),
                    false => self.after(state, step, name, At::Do(Step::Release, 0, 0)),
                }
            }
            (Step::Release, _) => {
                state.file(now.opened[index]).lease = Lease::None;
                self.after(state, step, name, At::Do(Step::Wait, 0, 0))
            }
            (Step::Wait, _) => state.to(At::Do(Step::ProveLast, 0, 0)),
            (Step::ProveLast, 0) => {
                let is_proven = !self.has(Check::ProvenLast)
                    || self.request_lease(&mut state, name, now.opened[index]);
                match is_proven {
                    true => state.to(At::Do(step, name, 1)),
                    false => state.to(At::PutBack(0)),
                }
            }
            (Step::ProveLast, 1) => match state.look_at(Place::Claim(name)) {
                Some(seen) if seen != now.after[index] && self.has(Check::Untouched) => {
                    state.to(At::PutBack(0))
                }
                _ => self.after(state, step, name, At::Names(Reading::Last)),
            },
            (Step::ProveLast, _) => self.check_target(state),
            (Step::Unlink, _) => return self.unlink(state, name, fails),
        })
    }

    /// Judges all members with the real judge.
    fn judge(&self, mut state: SetState) -> SetState {
        let now = state.reaper.now;
        let target = state.target();
        let of = |name: Name| -> Evidence {
            let seen = now.judged[usize::from(name)].observation();
            evidence(seen, UseState::Unused, target)
        };
        let companions: Vec<Evidence> = (1..self.members()).map(of).collect();
        let verdict = judge_set(&of(MAIN), &companions, &Policy::default(), true);
        let is_as_before = match verdict {
            Verdict::Reap => !now.moves,
            Verdict::Quarantine(_) => now.moves,
            Verdict::Keep(_) => false,
        };
        if !is_as_before && self.has(Check::JudgedAgain) {
            return state.end();
        }
        state.reaper.now.is_whole = state.is_whole();
        state.to(At::Names(Reading::Before))
    }

    /// Looks up one name of the set, the companions first, and decides after the last one.
    fn read_name(&self, mut state: SetState, reading: Reading) -> SetState {
        let looked_up = state.reaper.now.looked_up + 1;
        let is_last = looked_up > self.extra();
        let name = if is_last { MAIN } else { looked_up };
        state.reaper.now.looked_up = looked_up;
        if state.at(Place::Name(name)).is_some() {
            state.reaper.now.found |= 1 << name;
        }
        if !is_last {
            return state;
        }
        let found = names(state.reaper.now.found);
        state.reaper.now.looked_up = 0;
        let found_bits = std::mem::take(&mut state.reaper.now.found);
        let goes_on = |step, check| step == SetStep::Continue || !self.has(check);
        match reading {
            Reading::Before => {
                let members = names((1 << self.members()) - 1).companions;
                match goes_on(before_claims(&members, &found), Check::NamesBefore) {
                    true => state.to(At::Do(Step::Claim, 0, 0)),
                    false => state.end(),
                }
            }
            Reading::After => match goes_on(after_claims(&found), Check::NoNewMember) {
                true => state.to(At::Do(Step::ProveAgain, 0, 0)),
                false => state.to(At::PutBack(0)),
            },
            Reading::Last => match goes_on(after_claims(&found), Check::NoNewMember) {
                true => state.to(At::Do(Step::ProveLast, 0, 2)),
                false => state.to(At::PutBack(0)),
            },
            Reading::Recovery => self.choose_recovery(state, found, found_bits),
        }
    }

    fn check_target(&self, mut state: SetState) -> SetState {
        let now = state.reaper.now;
        let is_whole = state.is_whole();
        let is_same = is_whole == now.is_whole || (now.moves && !is_whole);
        if !is_same && self.has(Check::TargetLast) {
            return state.to(At::PutBack(0));
        }
        state.reaper.now.was_whole = is_whole;
        match now.moves {
            true => state.to(At::Move(0, false)),
            false => state.to(At::Do(Step::Unlink, 0, 0)),
        }
    }

    fn claim(&self, mut state: SetState, position: u8, fails: bool) -> Result<SetState, Loss> {
        let name = self.in_order(position, self.has(Check::MainClaimedFirst));
        if fails {
            return Ok(state.to(At::PutBack(0)));
        }
        match self.rename(&mut state, Place::Name(name), Place::Claim(name)) {
            Renamed::Done => {
                if name == MAIN {
                    for file in &mut state.files {
                        (file.is_newer, file.is_back) = (false, false);
                    }
                }
                state.reaper.now.named &= !(1 << name);
                state.reaper.now.claimed |= 1 << name;
                Ok(state.to(At::Do(Step::Compare, position, 0)))
            }
            Renamed::NotFound if self.has(Check::AllClaimed) => {
                state.reaper.now.named &= !(1 << name);
                Ok(state.to(At::PutBack(0)))
            }
            Renamed::NotFound => {
                Ok(self.after(state, Step::Claim, position, At::Names(Reading::After)))
            }
            Renamed::Exists => Err("a claim overwrites a file"),
        }
    }

    /// Removes a member, and detects a loss.
    fn unlink(&self, mut state: SetState, position: u8, fails: bool) -> Result<SetState, Loss> {
        let name = self.in_order(position, self.has(Check::MainRemovedFirst));
        let now = state.reaper.now;
        let Some(file) = state.at(Place::Claim(name)).filter(|_| !fails) else {
            return Ok(match position {
                0 => state.to(At::PutBack(0)),
                _ => self
                    .after(state, Step::Unlink, position, At::Idle)
                    .at_rest(),
            });
        };
        let is_opened = state.opens().any(|open| open.file == file);
        let judged = now.judged[usize::from(name)];
        let was_whole = match self.is_closed(Window::TargetRemoved) {
            true => now.was_whole,
            false => state.is_whole(),
        };
        let is_renamed =
            |(_, member): (File, &ModelFile)| matches!(member.place, Place::Renamed(_));
        if is_opened {
            return Err("a member that a process has opened is removed");
        } else if file != judged.file || state.look(file).content != judged.content {
            return Err("a member that was not judged is removed");
        } else if !was_whole {
            return Err("the only copy is removed");
        } else if self.members_of(&state).any(is_renamed) {
            return Err("a member is removed after a writer has renamed another one");
        }
        state.file(file).place = Place::Removed;
        Ok(self
            .after(state, Step::Unlink, position, At::Idle)
            .at_rest())
    }

    fn put_back(&self, mut state: SetState, call: u8, fails: bool) -> Result<SetState, Loss> {
        let now = state.reaper.now;
        if call == 0 {
            let is_taken = now.claimed & 1 != 0 && state.at(Place::Name(MAIN)).is_some();
            return Ok(match () {
                () if is_taken && self.has(Check::TakenMainFirst) => state.to(At::ClaimAgain(0)),
                () if now.stored != 0 => state.end(),
                () => state.to(At::PutBack(1)),
            });
        }
        if call > self.members() {
            return Ok(state.end());
        }
        let name = self.in_order(call - 1, !self.has(Check::MainPutBackLast));
        let bit = 1 << name;
        if now.claimed & bit == 0 {
            return Ok(state.to(At::PutBack(call + 1)));
        }
        if fails {
            return Ok(state.end());
        }
        match self.rename(&mut state, Place::Claim(name), Place::Name(name)) {
            Renamed::Exists if !self.has(Check::PutBackOverwritesNothing) => {
                Err("a put-back overwrites a file")
            }
            Renamed::Exists => {
                if !self.has(Check::AllAreMoved) {
                    state.reaper.now.named = 0;
                }
                Ok(state.to(At::ClaimAgain(0)))
            }
            Renamed::Done => {
                state.is_back(name);
                state.reaper.now.claimed &= !bit;
                state.reaper.now.named |= bit;
                Ok(state.to(At::PutBack(call + 1)))
            }
            Renamed::NotFound => {
                state.reaper.now.claimed &= !bit;
                Ok(state.to(At::PutBack(call + 1)))
            }
        }
    }

    /// Claims a member that has its name.
    fn claim_again(&self, mut state: SetState, name: Name, check: Check, last: At) -> SetState {
        let next = match state.reaper.at {
            _ if name > self.extra() => return state.to(last),
            At::ClaimAgain(_) => At::ClaimAgain(name + 1),
            _ => At::RecoverClaimAgain(name + 1),
        };
        let bit = 1 << name;
        let now = state.reaper.now;
        let place = Place::Name(name);
        let is_same = state.at(place) == Some(now.judged[usize::from(name)].file);
        if now.named & bit != 0 && self.has(check) {
            state.reaper.now.named &= !bit;
            if is_same && let Renamed::Done = self.rename(&mut state, place, Place::Claim(name)) {
                state.reaper.now.claimed |= bit;
            }
        }
        state.to(next)
    }

    /// Moves one member to the quarantine, from the name that it has.
    fn move_one(
        &self,
        mut state: SetState,
        position: u8,
        is_taken: bool,
        fails: bool,
    ) -> Result<SetState, Loss> {
        if position == self.members() {
            return Ok(state.end());
        }
        let next = At::Move(position + 1, is_taken);
        let name = self.in_order(position, self.has(Check::MainRemovedFirst));
        let bit = 1 << name;
        let now = state.reaper.now;
        let from = match () {
            () if now.claimed & bit != 0 => Place::Claim(name),
            () if now.named & bit != 0 => Place::Name(name),
            () => return Ok(state.to(next)),
        };
        if position == 0 {
            state.reaper.now.folder = state.free_folder();
        }
        let Some(file) = state.at(from) else {
            return Ok(state.to(next));
        };
        if from == Place::Name(name) && file != now.judged[usize::from(name)].file {
            return Ok(state.to(next));
        }
        if fails {
            return Ok(match self.has(Check::MoveIsUndone) {
                true => state.to(At::UndoMove(0, is_taken)),
                false => state.end(),
            });
        }
        if !is_taken && state.opens().any(|open| open.file == file) {
            return Err("a member that a process has opened is moved");
        }
        let folder = state.reaper.now.folder;
        self.store(&mut state, file, Place::Stored(folder, name))?;
        state.reaper.now.claimed &= !bit;
        state.reaper.now.named &= !bit;
        state.reaper.now.stored |= bit;
        Ok(state.to(next))
    }

    fn store(&self, state: &mut SetState, file: File, place: Place) -> Result<(), Loss> {
        if file > TARGET && !state.files[usize::from(file)].is_of_set {
            return Err("a file of another process is moved");
        }
        state.put(file, place);
        Ok(())
    }

    /// Gives the members that were moved the names of their claims again, the last one first.
    fn undo_move(&self, mut state: SetState, position: u8, is_taken: bool) -> SetState {
        if position == self.members() {
            return match is_taken {
                true => state.end(),
                false => state.to(At::PutBack(0)),
            };
        }
        let name = self.in_order(position, !self.has(Check::MainRemovedFirst));
        let bit = 1 << name;
        let from = Place::Stored(state.reaper.now.folder, name);
        if state.reaper.now.stored & bit != 0
            && let Renamed::Done = self.rename(&mut state, from, Place::Claim(name))
        {
            state.reaper.now.stored &= !bit;
            state.reaper.now.claimed |= bit;
        }
        state.to(At::UndoMove(position + 1, is_taken))
    }
}

/// The recovery at the next start, and the restore by a user.
impl Model {
    fn start_recovery(&self, state: SetState) -> Result<SetState, Loss> {
        let state = state.end();
        match state.has_claims() {
            true if self.has(Check::Recovery) => Ok(state.to(At::RecoverOpen(0))),
            true => Err("a claim is left behind"),
            false => Ok(state),
        }
    }

    /// Ends a recovery in which no call has failed.
    fn end_recovery(&self, state: SetState) -> Result<SetState, Loss> {
        match state.has_claims() {
            true => Err("a claim is left behind"),
            false => Ok(state.end()),
        }
    }

    fn recover_open(&self, mut state: SetState, name: Name) -> SetState {
        if name > self.extra() {
            return match self.has(Check::WholeRecovery) {
                true => state.to(At::Names(Reading::Recovery)),
                // Each claim gets its name back, without a look at the others.
                false => state.to(At::RecoverPutBack(0)),
            };
        }
        if let Some(file) = state.at(Place::Claim(name)) {
            if state.is_held(file) && self.has(Check::RecoveryLeavesHeldAlone) {
                // The next attempt is made when the process has closed it.
                return state.end();
            }
            state.file(file).lease = Lease::Held;
            state.reaper.now.claimed |= 1 << name;
        }
        state.to(At::RecoverOpen(name + 1))
    }

    /// Asks the real decision.
    fn choose_recovery(&self, mut state: SetState, found: SetNames, found_bits: u8) -> SetState {
        state.reaper.now.found = found_bits;
        let claimed = state.reaper.now.claimed;
        let left = LeftSet {
            has_main_claim: claimed & 1 != 0,
            claimed: names(claimed).companions,
            names: found,
            has_newer_companion: false,
        };
        match recovery(&left) {
            SetRecovery::PutBack => state.to(At::RecoverPutBack(0)),
            SetRecovery::Quarantine => state.to(self.after_taken()),
            SetRecovery::QuarantineRest if self.has(Check::RestIsMoved) => {
                state.to(At::RecoverRest(1))
            }
            SetRecovery::QuarantineRest => state.to(At::RecoverPutBack(0)),
        }
    }

    fn recover_put_back(
        &self,
        mut state: SetState,
        position: u8,
        fails: bool,
    ) -> Result<SetState, Loss> {
        if position == self.members() {
            return self.end_recovery(state);
        }
        let next = At::RecoverPutBack(position + 1);
        let main_first =
            !self.has(Check::RecoveryPutsMainBackLast) || !self.has(Check::WholeRecovery);
        let name = self.in_order(position, main_first);
        let bit = 1 << name;
        if state.reaper.now.claimed & bit == 0 {
            return Ok(state.to(next));
        }
        if fails {
            return Ok(state.end());
        }
        match self.rename(&mut state, Place::Claim(name), Place::Name(name)) {
            Renamed::Exists if !self.has(Check::RecoveryOverwritesNothing) => {
                Err("a recovery overwrites a file")
            }
            Renamed::Exists => Ok(state.to(At::RecoverClaimAgain(0))),
            Renamed::Done => {
                state.is_back(name);
                let file = state.at(Place::Name(name)).expect("it was renamed");
                state.reaper.now.judged[usize::from(name)] = state.look(file);
                state.reaper.now.claimed &= !bit;
                state.reaper.now.named |= bit;
                Ok(state.to(next))
            }
            Renamed::NotFound => {
                state.reaper.now.claimed &= !bit;
                Ok(state.to(next))
            }
        }
    }

    /// Returns the next call of a recovery that finds a name taken.
    fn after_taken(&self) -> At {
        match self.has(Check::RecoveryAddsNamed) {
            true => At::RecoverAdd(1),
            false => At::RecoverMove(0),
        }
    }

    /// Claims a companion that the crash left under its own name.
    fn recover_add(&self, mut state: SetState, name: Name) -> Result<SetState, Loss> {
        let now = state.reaper.now;
        if name > self.extra() || now.claimed & 1 == 0 {
            return Ok(state.to(At::RecoverMove(0)));
        }
        let bit = 1 << name;
        let is_named = now.found & bit != 0 && (now.claimed | now.named) & bit == 0;
        let next = At::RecoverAdd(name + 1);
        let Some(file) = state.at(Place::Name(name)).filter(|_| is_named) else {
            return Ok(state.to(next));
        };
        let there = state.files[usize::from(file)];
        let is_used = state.is_held(file) && self.has(Check::UsedStays);
        let is_newer = there.is_newer && self.has(Check::NewerStays);
        if is_used || is_newer {
            if there.is_back && !self.is_closed(Window::TakenAfterPutBack) {
                return Err("a companion that was put back is left beside another main file");
            }
            state.file(file).is_apart = true;
        } else if (there.is_newer && !there.is_back) || state.is_held(file) {
            return Err("a companion that another process uses is moved");
        } else if self.has(Check::RecoveryMovesFromClaims) {
            state.put(file, Place::Claim(name));
            state.reaper.now.claimed |= bit;
        } else {
            state.reaper.now.named |= bit;
        }
        Ok(state.to(next))
    }

    fn recover_move(&self, mut state: SetState, name: Name, fails: bool) -> Result<SetState, Loss> {
        if name > self.extra() {
            return self.end_recovery(state);
        }
        if name == MAIN {
            state.reaper.now.folder = state.free_folder();
        }
        let now = state.reaper.now;
        let next = At::RecoverMove(name + 1);
        let from = match () {
            () if now.claimed & (1 << name) != 0 => Place::Claim(name),
            () if now.named & (1 << name) != 0 => Place::Name(name),
            () => return Ok(state.to(next)),
        };
        if fails {
            return Ok(state.end());
        }
        if let Some(file) = state.at(from) {
            self.store(&mut state, file, Place::Stored(now.folder, name))?;
        }
        Ok(state.to(next))
    }

    /// Moves a companion whose main file was removed or moved before.
    fn recover_rest(&self, mut state: SetState, name: Name, fails: bool) -> Result<SetState, Loss> {
        if name > self.extra() {
            return self.end_recovery(state);
        }
        if let Some(file) = state.at(Place::Claim(name)) {
            if fails {
                return Ok(state.end());
            }
            let folder = match state.place(MAIN) {
                Place::Stored(folder, _) if self.has(Check::RestFollowsMain) => folder,
                _ => state.free_folder(),
            };
            self.store(&mut state, file, Place::Stored(folder, name))?;
        }
        Ok(state.to(At::RecoverRest(name + 1)))
    }

    fn restore(&self, mut state: SetState, call: u8, fails: bool) -> Result<SetState, Loss> {
        let Place::Stored(folder, _) = state.place(MAIN) else {
            return Err("a restore ends too late");
        };
        state.reaper.now.folder = folder;
        let before = state;
        let is_stored = |name: Name| before.at(Place::Stored(folder, name)).is_some();
        if call == 0 {
            let has_claims = state.has_claims() && self.has(Check::IncompleteIsNotRestored);
            let is_taken = |name: Name| is_stored(name) && state.at(Place::Name(name)).is_some();
            return Ok(match has_claims || (0..=self.extra()).any(is_taken) {
                true => state.end().to(At::Stopped),
                false => state.to(At::Restore(1)),
            });
        }
        let names = self.members() + 1;
        let name = match self.has(Check::MainRestoredLast) {
            true => names - call,
            false => call - 1,
        };
        let done =
            |mut state: SetState| match call == names || state.place(MAIN) == Place::Name(MAIN) {
                true => {
                    state.reaper.is_restore_left = false;
                    state.end().to(At::Stopped)
                }
                false => state.to(At::Restore(call + 1)),
            };
        if !is_stored(name) {
            return Ok(done(state));
        }
        let undo = match self.has(Check::RestoreIsUndone) {
            true => At::UndoRestore(0),
            false => At::Stopped,
        };
        if fails {
            return Ok(state.to(undo));
        }
        let from = Place::Stored(folder, name);
        match self.rename(&mut state, from, Place::Name(name)) {
            Renamed::Exists if !self.has(Check::RestoreOverwritesNothing) => {
                Err("a restore overwrites a file")
            }
            Renamed::Exists => Ok(state.to(undo)),
            Renamed::NotFound => Ok(done(state)),
            Renamed::Done => {
                state.reaper.now.named |= 1 << name;
                Ok(done(state))
            }
        }
    }

    /// Moves the restored members back to the quarantine.
    fn undo_restore(&self, mut state: SetState, name: Name) -> SetState {
        if name > self.extra() {
            return state.end().to(At::Stopped);
        }
        let to = Place::Stored(state.reaper.now.folder, name);
        if state.reaper.now.named & (1 << name) != 0 && state.at(Place::Name(name)) == Some(name) {
            self.rename(&mut state, Place::Name(name), to);
        }
        state.to(At::UndoRestore(name + 1))
    }
}

impl SetState {
    /// A companion has its name back.
    fn is_back(&mut self, name: Name) {
        if let Some(file) = self.at(Place::Name(name)).filter(|_| name != MAIN) {
            self.file(file).is_newer = true;
            self.file(file).is_back = true;
        }
    }

    /// Ends the work of the reaper if nothing is left to do.
    fn at_rest(self) -> SetState {
        match self.reaper.at {
            At::Idle => self.end(),
            _ => self,
        }
    }
}

/// Returns the names with these bits.
fn names(bits: u8) -> SetNames {
    let found = |name: &usize| bits & (1 << name) != 0;
    let companions = (1..MAX_NAMES).filter(found);
    SetNames {
        has_main: found(&0),
        companions: companions.map(|name| OsString::from(NAMES[name])).collect(),
    }
}

/// The number of companions, and the largest numbers of actions, kills and failures.
type Size = (u8, u8, u8, u8);
const SIZES: [Size; 3] = [(1, 2, 2, 1), (2, 1, 2, 1), (2, 2, 1, 0)];
/// A loss is found in these sizes, and sooner.
const SMALL_SIZES: [Size; 3] = [(2, 1, 2, 0), (2, 1, 1, 1), (1, 2, 1, 0)];

fn models(
    sizes: [Size; 3],
    without: &'static [Check],
    open: Option<Window>,
) -> impl Iterator<Item = Model> {
    let sizes = sizes.into_iter();
    sizes.flat_map(move |(companions, actions, kills, failures)| {
        [true, false].map(|has_target| Model {
            companions,
            has_target,
            actions,
            kills,
            failures,
            without,
            open,
        })
    })
}

/// Returns the shortest trace to a loss, if there is one.
fn loss(without: &'static [Check], open: Option<Window>) -> Option<(Model, LossTrace<Model>)> {
    models(SMALL_SIZES, without, open).find_map(|model| {
        let loss = explore(&model, &mut |_, _| {}).err()?;
        Some((model, loss))
    })
}

/// No order of actions loses a byte that a process may still need, and none splits the set.
#[test]
fn no_set_is_lost_or_split() {
    in_own_process(&[RunAs::CurrentUser], || {
        for model in models(SIZES, &[], None) {
            let (mut removed, mut stored) = (false, false);
            let mut steps = BTreeSet::new();
            let mut visit = |before: &SetState, then: &SetState| {
                removed |= then.place(MAIN) == Place::Removed && !then.files[0].is_apart;
                stored |= matches!(then.place(MAIN), Place::Stored(..));
                if let At::Do(step, ..) = before.reaper.at {
                    steps.insert(step as u8);
                }
            };
            match explore(&model, &mut visit) {
                Ok(states) => println!("{states} states: {model:?}"),
                Err((loss, trace)) => panic!("{loss}: {model:?}{}", format_trace(&trace)),
            }
            // Otherwise the test would prove nothing.
            let is_done = if model.has_target { removed } else { stored };
            assert!(is_done, "no set was taken: {model:?}");
            let all = Step::ALL.len() - usize::from(!model.has_target);
            assert_eq!(steps.len(), all, "not all steps were executed: {steps:?}");
        }
    });
}

/// Returns the reason why nothing is lost without this rule, and the set of rules whose joint absence loses something.
fn covered_by_others(check: Check) -> Option<(&'static str, &'static [Check])> {
    match check {
        Check::NamesBefore => Some((
            "it avoids claims that would be put back",
            &[Check::NamesBefore, Check::NoNewMember],
        )),
        Check::WaitsForUs => Some((
            "a process that waits finds its name again sooner",
            &[Check::WaitsForUs, Check::ProvenLast],
        )),
        Check::CountedByNow => Some((
            "a process inside an open finds its name again sooner",
            &[Check::CountedByNow, Check::ProvenLast],
        )),
        Check::MoveIsUndone => Some((
            "the recovery moves the other members too",
            &[Check::MoveIsUndone, Check::RestFollowsMain],
        )),
        // Another orphand may be processing the claims, if no lock could be created.
        Check::RecoveryLeavesHeldAlone => Some(("it does not disturb another orphand", &[])),
        _ => None,
    }
}

/// Leaves out each rule, alone or with the rules that cover it.
#[test]
fn each_rule_of_sets_is_needed() {
    in_own_process(&[RunAs::CurrentUser], || {
        in_parallel(Check::ALL, |check| {
            assert_needed(check, covered_by_others(*check), |without| {
                loss(without, None)
            });
        });
    });
}

/// Each window that docs/safety.md names loses something when it is open. While all are closed, nothing is lost.
#[test]
fn each_window_of_sets_loses_something() {
    in_own_process(&[RunAs::CurrentUser], || {
        for window in Window::ALL {
            let (_, (loss, trace)) = loss(&[], Some(*window))
                .unwrap_or_else(|| panic!("nothing is lost through {window:?}"));
            println!("{window:?}: {loss}{}", format_trace(&trace));
        }
    });
}
