//! *Is it time?* What is known of one temp between its first sight and its verdict.
//!
//! The map of all temps is elsewhere ([`crate::watch`] fills it, the timer thread empties it);
//! this is the value in it, and the rules by which looks move it on:
//!
//! - A temp is judged only after two looks, at least [`min_observation_gap`] apart, that saw the same
//!   fingerprint and nobody holding it, and only once it has been quiet for its grace.
//! - Held counts as touched: after a look that saw a holder, the grace starts again at the first
//!   look that finds the temp free. (Closing a file does not change its fingerprint.)
//! - The first look at a fingerprint gives it credit for the time that its own dates say it has
//!   been quiet already, within bounds; from then on only the monotonic clock counts.

use std::time::Duration;

use super::judge::Reason;
use super::observation::{Fingerprint, UseState};
use super::packed::Packed;
use super::policy::{self, Open, min_observation_gap};
use super::time::{JUMP, Mono, Now};

/// How a temp came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its creation (or its arrival by a rename) was reported.
    Created,
    /// A scan found it; its own dates say how old it is.
    Found,
    /// A scan found it, and it is to wait a whole grace whatever its dates say.
    FoundWithoutCredit,
    /// A scan found it of which an event should have told, or would have where a directory is not hot:
    /// its dates count, and say no more than half a grace, so that its writer has as long as where its
    /// creation is seen.
    FoundWithHalfCredit,
}

/// What is known of one temp. Kept small, and without a second allocation: there may be a million of
/// them. What only a look can say means nothing until there was one.
#[derive(Clone, Debug)]
pub struct Tracked {
    seen: Mono,
    due: Mono,
    /// By the last look.
    quiet_since: Mono,
    /// For how many milliseconds longer than that nobody has used it.
    unused_before: u32,
    /// By the last look.
    fingerprint: Packed,
    known: LastUse,
    said: ReportedReasons,
    /// How often it was kept since it last changed.
    tries: u8,
    /// Why it was kept when it was last judged.
    kept: Option<Reason>,
    marks: Flags,
}

/// What the last look said of holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastUse {
    /// There was none yet.
    Nothing,
    Free,
    Held,
}

/// Yes-or-no marks, a bit each, and the origin in two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags(u8);

impl Flags {
    const CLOSED: u8 = 1;
    const REAPING: u8 = 2;
    const REVIEWED: u8 = 4;
    const RETURNS: u8 = 8;
    const NAMELESS: u8 = 16;
    const TARGET: u8 = 128;
    /// The two bits of the origin.
    const ORIGIN: u8 = 32 | 64;

    /// The same marks and another origin.
    fn with(self, origin: Origin) -> Flags {
        let origin = match origin {
            Origin::Created => 0,
            Origin::Found => 32,
            Origin::FoundWithoutCredit => 64,
            Origin::FoundWithHalfCredit => 32 | 64,
        };
        Flags(self.0 & !Flags::ORIGIN | origin)
    }

    fn origin(self) -> Origin {
        match self.0 & Flags::ORIGIN {
            0 => Origin::Created,
            32 => Origin::Found,
            64 => Origin::FoundWithoutCredit,
            _ => Origin::FoundWithHalfCredit,
        }
    }

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8, on: bool) {
        self.0 = if on { self.0 | mark } else { self.0 & !mark };
    }
}

/// The reasons that were already reported for this temp: a bit each, in as few bytes as they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReportedReasons([u8; 3]);

/// One look at a temp, as the tracker needs it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When.
    pub now: Now,
    /// When the wall clock and the monotonic clock last parted, if that was noticed.
    pub last_jump: Option<Mono>,
    /// What was there.
    pub fingerprint: Fingerprint,
    /// By how much later than its dates say it may have changed.
    pub lag: Duration,
    /// Who held it.
    pub use_state: UseState,
}

impl Look {
    /// From when on it can have been quiet at the earliest: from the end of the second that its dates name, where they
    /// are of whole seconds. Until then it could change without another date.
    fn quiet_since(&self) -> Mono {
        let age = self.now.wall.since(self.fingerprint.newest());
        let lag = rule!("last-second-gives-no-credit", self.lag, without: Duration::ZERO);
        self.now.mono.after(lag.saturating_sub(age))
    }
}

/// What is to be done with a temp after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet: look again then.
    LookAt(Mono),
    /// Judge it now.
    Judge(Quiet),
}

/// For how long a temp has been quiet, when it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Since its last change or its last holder, as far as it counts towards the grace.
    pub quiet: Duration,
    /// The same without the limit that the grace puts on the credit: what the 24 hours after which
    /// a pid in a name counts no more are measured in.
    pub unused: Duration,
    /// The fingerprint that both looks agree on.
    pub fingerprint: Fingerprint,
}

impl Tracked {
    /// A temp whose creation was just reported. `shortest` is the shortest grace of any rule: its
    /// own rule is only looked up when that has passed.
    #[must_use]
    pub fn created(now: Mono, shortest: Duration) -> Tracked {
        Tracked::new(now, now.after(shortest / 2), Origin::Created)
    }

    /// A temp that a scan found: it is looked at at once.
    #[must_use]
    pub fn found(now: Mono, origin: Origin) -> Tracked {
        Tracked::new(now, now, origin)
    }

    fn new(seen: Mono, due: Mono, origin: Origin) -> Tracked {
        Tracked {
            seen,
            due,
            quiet_since: seen,
            unused_before: 0,
            fingerprint: Packed::NONE,
            known: LastUse::Nothing,
            said: ReportedReasons::default(),
            tries: 0,
            kept: None,
            marks: Flags::default().with(origin),
        }
    }

    /// A temp that is left alone for as long as nothing is heard of its name.
    #[must_use]
    pub fn ignored(now: Mono) -> Tracked {
        Tracked::new(now, Mono(u64::MAX), Origin::Found)
    }

    /// The same, of one that is about to have its name back from us.
    #[must_use]
    pub fn awaiting_put_back(now: Mono) -> Tracked {
        let mut temp = Tracked::ignored(now);
        temp.marks.set(Flags::RETURNS, true);
        temp
    }

    /// Something was renamed to its name. Says whether that was to be expected: we have given it back.
    pub fn take_put_back(&mut self) -> bool {
        let is_it = self.marks.has(Flags::RETURNS);
        self.marks.set(Flags::RETURNS, false);
        is_it
    }

    /// Its claim could not be removed, and maybe not put back either: until it is looked for again, that
    /// nothing stands at its name is our own doing.
    pub fn set_claim_pending(&mut self) {
        self.marks.set(Flags::NAMELESS, true);
    }

    /// No claim of it is left.
    pub fn clear_claim_pending(&mut self) {
        self.marks.set(Flags::NAMELESS, false);
    }

    /// Whether a claim of it may be left.
    #[must_use]
    pub fn is_claim_pending(&self) -> bool {
        self.marks.has(Flags::NAMELESS)
    }

    /// Whether it is our own doing if its name is gone.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        self.is_reaping() || self.is_claim_pending()
    }

    /// Another temp was meant for its name: it is no leftover, for as long as it is there.
    pub fn mark_target(&mut self) {
        self.marks.set(Flags::TARGET, true);
    }

    /// Returns true if another temp was meant for its name.
    #[must_use]
    pub fn was_target(&self) -> bool {
        self.marks.has(Flags::TARGET)
    }

    /// Somebody held it after the look: its grace starts again at the first look that finds it free.
    pub fn mark_held(&mut self) {
        if self.was_looked_at() {
            self.known = LastUse::Held;
        }
    }

    fn was_looked_at(&self) -> bool {
        self.known != LastUse::Nothing
    }

    /// Whether it is left alone.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.due == Mono(u64::MAX)
    }

    /// It was touched just now, and put back if it had been claimed: everything begins again, but
    /// what was said of it stays said.
    pub fn reset(&mut self, now: Mono, grace: Duration) {
        *self = Tracked {
            said: self.said,
            marks: self.marks.with(Origin::Created),
            ..Tracked::created(now, grace)
        };
    }

    /// When something is to be done about it.
    #[must_use]
    pub fn due(&self) -> Mono {
        self.due
    }

    /// When it was first seen.
    #[must_use]
    pub fn seen(&self) -> Mono {
        self.seen
    }

    /// How it came to be known.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.marks.origin()
    }

    /// When the file that was looked at was changed last, at the latest: nobody who started after that can
    /// have written it. Known where its creation was seen, and no clock has jumped since.
    ///
    /// A name may be opened again, by a process with the number of the one that made it: in a container each
    /// start may give the same.
    #[must_use]
    pub fn written_by(&self, look: &Look) -> Option<Mono> {
        let jumped = look.last_jump.is_some_and(|at| at >= self.seen);
        let is_dated = !rule!("jumped-clock-dates-nothing", jumped);
        let age = look.now.wall.since(look.fingerprint.newest());
        // What is no jump yet may have aged it.
        let written = look.now.mono.before(age.saturating_sub(JUMP + look.lag));
        let written =
            rule!("later-process-did-not-write", self.seen.max(written), without: self.seen);
        (self.origin() == Origin::Created && is_dated).then_some(written)
    }

    /// Whether a close by a writer was reported.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.marks.has(Flags::CLOSED)
    }

    /// Notes that a writer closed it.
    pub fn close(&mut self) {
        self.marks.set(Flags::CLOSED, true);
    }

    /// Whether it is being disposed of right now: what is heard of its name then is our own doing.
    #[must_use]
    pub fn is_reaping(&self) -> bool {
        self.marks.has(Flags::REAPING)
    }

    /// Its size at the last look.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.was_looked_at().then(|| self.fingerprint.size())
    }

    /// Whether it was judged and kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.was_looked_at() && self.tries > 0
    }

    /// Why it was kept when it was last judged, if it was.
    #[must_use]
    pub fn kept_for(&self) -> Option<Reason> {
        self.kept.filter(|_| self.is_kept())
    }

    /// The rules have changed: it is looked at at once, and armed by the rule that holds now.
    ///
    /// What it was given credit for was measured by the old rule, and so was the time until that look. By a
    /// shorter grace both would be enough at once, and whoever closed it a moment ago would have no time
    /// left: that look gives no more than half the new grace.
    pub fn mark_rules_changed(&mut self, now: Mono) {
        if !rule!("left-alone-by-other-rules", self.is_ignored()) {
            self.due = self.due.min(now);
            self.marks.set(Flags::REVIEWED, true);
        }
    }

    /// Whether the rules have changed since it was looked at.
    #[must_use]
    pub fn has_new_rules(&self) -> bool {
        self.marks.has(Flags::REVIEWED)
    }

    /// What is asked of it is asked of a copy from here on.
    pub fn check_out(&mut self) -> Tracked {
        self.marks.set(Flags::REAPING, true);
        let copy = self.clone();
        self.marks.set(Flags::REVIEWED, false);
        copy
    }

    /// Whether the first look, by the grace of its own rule, is still ahead; then it is put off.
    pub fn postpone(&mut self, grace: Duration, now: Mono) -> bool {
        if self.was_looked_at() || self.origin() != Origin::Created {
            return false;
        }
        let first = self.seen.after(grace / 2);
        if first <= now {
            return false;
        }
        self.due = first;
        true
    }

    /// Takes one look into account.
    pub fn look(&mut self, look: &Look, grace: Duration, open: Open) -> Next {
        let now = look.now.mono;
        if self.has_new_rules() {
            self.marks.set(Flags::REVIEWED, false);
            let most = now.before(grace / 2);
            let taken = most.since(self.quiet_since);
            if rule!("other-rules-leave-half-grace", true) {
                self.quiet_since = self.quiet_since.max(most);
            }
            self.unused_before = self.unused_before.saturating_add(millis(taken));
        }
        // What nobody can tell is no "nobody".
        let held = rule!("cannot-tell-is-not-free", look.use_state != UseState::Unused, without: look.hold.is_held());
        // Only the wish to take what is open counts a holder for nothing. It is remembered all the same:
        // that wish may end.
        let counts = open != Open::Reap;
        let same = self.fingerprint == Packed::new(&look.fingerprint);
        let next = match self.known {
            LastUse::Nothing => self.first_look(look, grace, held),
            // It may be taken while it is held, but not while it is written.
            LastUse::Free | LastUse::Held
                if held && open == Open::Quarantine && rule!("written-is-not-moved", !same) =>
            {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.known = LastUse::Held;
                self.quiet_since = look.quiet_since();
                self.unused_before = 0;
                Next::LookAt(self.quiet_since.after(grace))
            }
            LastUse::Free | LastUse::Held if held && counts => {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.known = LastUse::Held;
                // It would be judged now but for its holder: judging says so, and by whom.
                self.judge_at(look, grace)
            }
            LastUse::Held if rule!("held-restarts-the-grace", counts) => {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.known = LastUse::Free;
                self.quiet_since = look.quiet_since();
                self.unused_before = 0;
                self.kept = None;
                self.tries = 0;
                Next::LookAt(self.quiet_since.after(grace))
            }
            LastUse::Free | LastUse::Held if rule!("changed-restarts-the-grace", !same) => {
                if self.fingerprint.ino() != look.fingerprint.ino {
                    self.said = ReportedReasons::default();
                }
                self.tries = 0;
                self.first_look(look, grace, held)
            }
            LastUse::Free | LastUse::Held => {
                let is_known = rule!("uncounted-holder-is-remembered", held);
                self.known = if is_known {
                    LastUse::Held
                } else {
                    LastUse::Free
                };
                self.judge_at(look, grace)
            }
        };
        if let Next::LookAt(at) = next {
            self.due = at;
        }
        next
    }

    /// The first look at a fingerprint, with the credit that its dates give it.
    fn first_look(&mut self, look: &Look, grace: Duration, held: bool) -> Next {
        let now = look.now.mono;
        let age = look.now.wall.since(look.fingerprint.newest());
        // The time since boot is no marked rule: `Mono::before` keeps it too, so no test fails without it here.
        let mut unused = age.saturating_sub(look.lag).min(now.since_boot());
        if let Some(last_jump) = look.last_jump {
            unused = rule!("credit-since-clocks-parted", unused.min(now.since(last_jump)), without: unused);
        }
        let seen = unused.min(now.since(self.seen));
        unused = match self.origin() {
            Origin::Created => rule!("credit-since-creation", seen, without: unused),
            Origin::FoundWithoutCredit => rule!("credit-since-told-to-wait", seen, without: unused),
            Origin::Found | Origin::FoundWithHalfCredit => unused,
        };
        // Whoever wrote it may have held it until just now, however late this look is: half a grace is
        // left to them. Not where it was there before anybody could hear of it.
        let gap = rule!("credit-leaves-confirm", min_observation_gap(grace, look.lag), without: Duration::ZERO);
        let most = match self.origin() {
            Origin::Found if !self.was_looked_at() => grace - gap,
            Origin::Found => grace / 2,
            Origin::FoundWithHalfCredit => {
                rule!("scan-leaves-half-grace", grace / 2, without: grace - gap)
            }
            Origin::Created | Origin::FoundWithoutCredit => {
                rule!("late-look-leaves-half-grace", grace / 2, without: grace - gap)
            }
        };
        let credit = unused.min(most);
        self.fingerprint = Packed::new(&look.fingerprint);
        self.known = if held { LastUse::Held } else { LastUse::Free };
        self.quiet_since = look.quiet_since().before(credit);
        self.unused_before = millis(unused - credit);
        self.kept = None;
        let due = self.quiet_since.after(grace);
        Next::LookAt(rule!("both-looks-and-the-grace", due, without: now))
    }

    fn judge_at(&self, look: &Look, grace: Duration) -> Next {
        let now = look.now.mono;
        let due = rule!("both-looks-and-the-grace", self.quiet_since.after(grace), without: now);
        if rule!("quiet-by-the-second-look", now < due) {
            return Next::LookAt(due);
        }
        let quiet = now.since(self.quiet_since);
        Next::Judge(Quiet {
            quiet,
            unused: quiet + Duration::from_millis(u64::from(self.unused_before)),
            fingerprint: look.fingerprint,
        })
    }

    /// The same, not being disposed of any more.
    #[must_use]
    pub fn check_in(mut self) -> Tracked {
        self.marks.set(Flags::REAPING, false);
        self
    }

    /// Notes that it was kept for `reason`, and says whether that is news. It is looked at again
    /// after [`policy::retry`].
    pub fn keep(&mut self, reason: Reason, grace: Duration, now: Mono) -> Kept {
        let again = self.said != ReportedReasons::default();
        let news = self.said.note(reason.bit());
        let retry = policy::retry(grace, reason.ends_without_event(), u32::from(self.tries));
        if self.was_looked_at() {
            self.kept = Some(reason);
        }
        self.tries = self.tries.saturating_add(1);
        self.due = now.after(retry);
        self.marks.set(Flags::REAPING, false);
        Kept {
            is_new: news,
            reported_before: again,
            retry,
        }
    }

    /// Notes that nothing was done because this is a dry run, or that it could not be done; it is
    /// looked at again later. Says whether that is news.
    pub fn retry_later(&mut self, grace: Duration, now: Mono) -> Kept {
        self.keep(Reason::Young, grace, now)
    }
}

/// What [`Tracked::keep`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Nobody was told so far.
    pub is_new: bool,
    /// Something else was told of it before.
    pub reported_before: bool,
    /// In what time it is looked at again.
    pub retry: Duration,
}

/// Rounded down: never longer than it is. 49 days are enough for a limit of one.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

impl ReportedReasons {
    fn note(&mut self, bit: u32) -> bool {
        let [a, b, c] = self.0;
        let before = u32::from_le_bytes([a, b, c, 0]);
        let [a, b, c, _] = (before | bit).to_le_bytes();
        self.0 = [a, b, c];
        before & bit == 0
    }
}

#[cfg(test)]
mod tests;
