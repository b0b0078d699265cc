//! Decides when a temp is looked at and when it is judged.
//!
//! [`Tracked`] is the state of one temp from its discovery to its verdict. The map of all temps is in [`crate::index`];
//! events and scans add to it, and workers look at the temps that are due. Each look changes the state by these rules:
//!
//! - A temp can be removed only after two looks, at least [`min_observation_gap`] apart, that saw the same
//!   fingerprint and, unless the policy allows it, no holder, and only once it has been quiet for its grace. A temp with
//!   a holder is judged too, so that the holder is reported.
//! - A holder counts like a change: after a look that saw one, the grace starts again at the first look that sees none.
//!   (Closing a file does not change its fingerprint.)
//! - The first look at a fingerprint gives a credit for the time for which the file was quiet before, by its own dates
//!   and within bounds. From then on only the monotonic clock counts.

use std::time::Duration;

use super::judge::Reason;
use super::observation::{Fingerprint, UseState};
use super::packed::Packed;
use super::policy::{self, Open, min_observation_gap};
use super::time::{JUMP, Mono, Now};

/// The way in which a temp was discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event reported its creation, or a rename to its name.
    Created,
    /// A scan found it. Its own dates give it credit.
    Found,
    /// A scan found it. It waits for its whole grace, whatever its dates are.
    FoundWithoutCredit,
    /// A scan found it in a watched directory, in a hot one, which is scanned instead of watched, or in a root that was
    /// added after the start. Its own dates give
    /// it credit for at most half the grace, so its writer has as much time as with an event.
    FoundWithHalfCredit,
}

/// The state of one temp. It is small and has no second allocation, because there may be a million temps. Fields that a
/// look sets are meaningless before the first look.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The time of its discovery.
    discovered: Mono,
    due: Mono,
    /// The start of the time that counts towards the grace, by the last look.
    quiet_since: Mono,
    /// The time without use before `quiet_since`, in milliseconds.
    unused_before: u32,
    /// The fingerprint that the last look saw.
    fingerprint: Packed,
    last_use: LastUse,
    reported: ReportedReasons,
    /// The number of times that it was kept since its last change.
    times_kept: u8,
    /// The reason of the last verdict, if that kept it.
    kept_reason: Option<Reason>,
    flags: Flags,
}

/// The use state that the last look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastUse {
    /// There was no look yet.
    NotLooked,
    /// It was proven that no process uses it.
    Unused,
    /// A process uses it, or may.
    InUse,
}

/// Boolean flags of one bit each, and the origin in two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags(u8);

impl Flags {
    const CLOSED: u8 = 1;
    const CHECKED_OUT: u8 = 2;
    const NEW_RULES: u8 = 4;
    const AWAITING_PUT_BACK: u8 = 8;
    const CLAIM_PENDING: u8 = 16;
    const TARGET: u8 = 128;
    /// Mask of the two bits of the origin.
    const ORIGIN: u8 = 32 | 64;

    /// Returns the same flags with another origin.
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

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }
}

/// The set of reasons that were already reported for this temp, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReportedReasons([u8; 3]);

/// The result of one look at a temp, as far as the tracker needs it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The time of the look.
    pub now: Now,
    /// The last jump of the wall clock relative to the monotonic clock, if one was detected.
    pub last_jump: Option<Mono>,
    /// The fingerprint of the file.
    pub fingerprint: Fingerprint,
    /// The longest time by which a change may be later than the file's dates show.
    pub lag: Duration,
    /// The use state of the file.
    pub use_state: UseState,
}

impl Look {
    /// Returns the earliest moment from which the file counts as quiet after this look.
    ///
    /// This is now, or the end of the second in the file's newest date if dates are whole seconds: until then the file
    /// could change without a new date.
    fn quiet_since(&self) -> Mono {
        let age = self.now.wall.since(self.fingerprint.newest());
        let lag = rule!("last-second-gives-no-credit", self.lag, without: Duration::ZERO);
        self.now.mono.after(lag.saturating_sub(age))
    }
}

/// The next step for a temp after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look at it again at this moment.
    LookAt(Mono),
    /// Judge it now.
    Judge(Quiet),
}

/// The time for which a temp has been quiet when it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The time since its last change or its last holder, as far as it counts towards the grace.
    pub quiet: Duration,
    /// The same time without the limit that the grace puts on the credit. It is compared with the 24 hours after which
    /// the pid in a name no longer counts.
    pub unused: Duration,
    /// The fingerprint at the last look.
    pub fingerprint: Fingerprint,
}

impl Tracked {
    /// Creates the state of a temp whose creation was just reported.
    ///
    /// `shortest` is the shortest grace of all rules. The temp's own rule is looked up only when half of that has
    /// passed.
    #[must_use]
    pub fn created(now: Mono, shortest: Duration) -> Tracked {
        Tracked::new(now, now.after(shortest / 2), Origin::Created)
    }

    /// Creates the state of a temp that a scan found. It is due at once.
    #[must_use]
    pub fn found(now: Mono, origin: Origin) -> Tracked {
        Tracked::new(now, now, origin)
    }

    fn new(discovered: Mono, due: Mono, origin: Origin) -> Tracked {
        Tracked {
            discovered,
            due,
            quiet_since: discovered,
            unused_before: 0,
            fingerprint: Packed::NONE,
            last_use: LastUse::NotLooked,
            reported: ReportedReasons::default(),
            times_kept: 0,
            kept_reason: None,
            flags: Flags::default().with(origin),
        }
    }

    /// Creates the state of a temp that is ignored until the next event with its name.
    #[must_use]
    pub fn ignored(now: Mono) -> Tracked {
        Tracked::new(now, Mono(u64::MAX), Origin::Found)
    }

    /// Creates the same state for a temp that orphand is about to put back.
    #[must_use]
    pub fn awaiting_put_back(now: Mono) -> Tracked {
        let mut temp = Tracked::ignored(now);
        temp.flags.set(Flags::AWAITING_PUT_BACK, true);
        temp
    }

    /// Handles a rename to the temp's name. Returns true if orphand expected this rename, because it put the temp back
    /// itself.
    pub fn take_expected_put_back(&mut self) -> bool {
        let is_expected = self.flags.has(Flags::AWAITING_PUT_BACK);
        self.flags.set(Flags::AWAITING_PUT_BACK, false);
        is_expected
    }

    /// Notes that the temp may still have the name of a claim, because its removal failed. Until the next search for the
    /// claim, orphand itself is the cause if the temp's name is missing.
    pub fn set_claim_pending(&mut self) {
        self.flags.set(Flags::CLAIM_PENDING, true);
    }

    /// Notes that no claim of the temp remains.
    pub fn clear_claim_pending(&mut self) {
        self.flags.set(Flags::CLAIM_PENDING, false);
    }

    /// Reports whether a claim of the temp may remain.
    #[must_use]
    pub fn is_claim_pending(&self) -> bool {
        self.flags.has(Flags::CLAIM_PENDING)
    }

    /// Reports whether orphand may have claimed the temp, and so may itself be the cause if the name is missing.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        self.is_checked_out() || self.is_claim_pending()
    }

    /// Notes that the file is the target of another temp, and so no orphan as long as it exists.
    pub fn mark_target(&mut self) {
        self.flags.set(Flags::TARGET, true);
    }

    /// Reports whether the file is the target of another temp.
    #[must_use]
    pub fn was_target(&self) -> bool {
        self.flags.has(Flags::TARGET)
    }

    /// Notes a holder that was found after the last look. The grace starts again at the first look that finds none.
    pub fn mark_held(&mut self) {
        if self.was_looked_at() {
            self.last_use = LastUse::InUse;
        }
    }

    fn was_looked_at(&self) -> bool {
        self.last_use != LastUse::NotLooked
    }

    /// Reports whether the temp is ignored.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.due == Mono(u64::MAX)
    }

    /// Starts again with a temp that was touched just now, and was put back if it had been claimed. Only the flags and
    /// the reported reasons remain.
    pub fn reset(&mut self, now: Mono, grace: Duration) {
        *self = Tracked {
            reported: self.reported,
            flags: self.flags.with(Origin::Created),
            ..Tracked::created(now, grace)
        };
    }

    /// Returns the moment of the next look.
    #[must_use]
    pub fn due(&self) -> Mono {
        self.due
    }

    /// Returns the moment at which the temp was discovered.
    #[must_use]
    pub fn discovered(&self) -> Mono {
        self.discovered
    }

    /// Returns the way in which the temp was discovered.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.flags.origin()
    }

    /// Returns the latest possible moment of the file's last change. A process that started later cannot have written
    /// it.
    ///
    /// It is known only if the creation was reported and no clock has jumped since. The moment of the creation does not
    /// suffice: the file may be opened again by a process with the pid of the one that created it. In a container, each
    /// start may give the same pid.
    #[must_use]
    pub fn written_by(&self, look: &Look) -> Option<Mono> {
        let jumped = look.last_jump.is_some_and(|at| at >= self.discovered);
        let is_dated = !rule!("jumped-clock-dates-nothing", jumped);
        let age = look.now.wall.since(look.fingerprint.newest());
        // A clock difference that is too small to count as a jump may have increased the age.
        let written = look.now.mono.before(age.saturating_sub(JUMP + look.lag));
        let written = rule!("later-process-did-not-write", self.discovered.max(written), without: self.discovered);
        (self.origin() == Origin::Created && is_dated).then_some(written)
    }

    /// Reports whether an event reported that a writer closed the temp.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flags.has(Flags::CLOSED)
    }

    /// Notes that a writer closed the temp.
    pub fn close(&mut self) {
        self.flags.set(Flags::CLOSED, true);
    }

    /// Reports whether the temp is checked out: a worker is processing it. In that time orphand itself may cause events
    /// with the temp's name.
    #[must_use]
    pub fn is_checked_out(&self) -> bool {
        self.flags.has(Flags::CHECKED_OUT)
    }

    /// Returns the size at the last look, in bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.was_looked_at().then(|| self.fingerprint.size())
    }

    /// Reports whether the temp was judged and kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.was_looked_at() && self.times_kept > 0
    }

    /// Returns the reason of the last verdict, if that kept it.
    #[must_use]
    pub fn kept_for(&self) -> Option<Reason> {
        self.kept_reason.filter(|_| self.is_kept())
    }

    /// Notes that the rules have changed. The temp is due at once, and that look uses the new rule.
    ///
    /// The credit, and the time until the next look, were measured by the old rule. With a shorter grace both could
    /// suffice at once, and a writer that closed the file a moment ago would have no time left. So after that look at
    /// most half of the new grace counts as quiet.
    pub fn mark_rules_changed(&mut self, now: Mono) {
        if !rule!("ignored-despite-new-rules", self.is_ignored()) {
            self.due = self.due.min(now);
            self.flags.set(Flags::NEW_RULES, true);
        }
    }

    /// Reports whether the rules have changed since the last look.
    #[must_use]
    pub fn has_new_rules(&self) -> bool {
        self.flags.has(Flags::NEW_RULES)
    }

    /// Marks the temp as being processed, and returns a copy of its state for the worker.
    pub fn check_out(&mut self) -> Tracked {
        self.flags.set(Flags::CHECKED_OUT, true);
        let copy = self.clone();
        self.flags.set(Flags::NEW_RULES, false);
        copy
    }

    /// Postpones the first look until half the grace of its own rule has passed. Returns false if it has passed
    /// already, or if the temp was found by a scan or looked at before.
    pub fn postpone_first_look(&mut self, grace: Duration, now: Mono) -> bool {
        if self.was_looked_at() || self.origin() != Origin::Created {
            return false;
        }
        let first = self.discovered.after(grace / 2);
        if first <= now {
            return false;
        }
        self.due = first;
        true
    }

    /// Updates the state after a look, and returns the next step.
    pub fn look(&mut self, look: &Look, grace: Duration, open: Open) -> Next {
        let now = look.now.mono;
        if self.has_new_rules() {
            self.flags.set(Flags::NEW_RULES, false);
            let earliest = now.before(grace / 2);
            let shift = earliest.since(self.quiet_since);
            if rule!("new-rules-leave-half-grace", true) {
                self.quiet_since = self.quiet_since.max(earliest);
            }
            self.unused_before = self.unused_before.saturating_add(millis(shift));
        }
        // An unknown use state counts as in use.
        let in_use = rule!("unknown-is-not-unused",
            look.use_state != UseState::Unused, without: look.use_state.is_held());
        // Only with `open = "reap"` a holder does not count. It is remembered nevertheless, because that setting may
        // change.
        let counts = open != Open::Reap;
        let same = self.fingerprint == Packed::new(&look.fingerprint);
        let next = match self.last_use {
            LastUse::NotLooked => self.first_look(look, grace, in_use),
            // It may be moved while it is in use, but not while it is written.
            LastUse::Unused | LastUse::InUse
                if in_use && open == Open::Quarantine && rule!("written-is-not-moved", !same) =>
            {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.last_use = LastUse::InUse;
                self.quiet_since = look.quiet_since();
                self.unused_before = 0;
                Next::LookAt(self.quiet_since.after(grace))
            }
            LastUse::Unused | LastUse::InUse if in_use && counts => {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.last_use = LastUse::InUse;
                // It is judged although it has a holder, so that the holder is reported.
                self.judge_at(look, grace)
            }
            LastUse::InUse if rule!("held-restarts-the-grace", counts) => {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.last_use = LastUse::Unused;
                self.quiet_since = look.quiet_since();
                self.unused_before = 0;
                self.kept_reason = None;
                self.times_kept = 0;
                Next::LookAt(self.quiet_since.after(grace))
            }
            LastUse::Unused | LastUse::InUse if rule!("changed-restarts-the-grace", !same) => {
                if self.fingerprint.ino() != look.fingerprint.ino {
                    self.reported = ReportedReasons::default();
                }
                self.times_kept = 0;
                self.first_look(look, grace, in_use)
            }
            LastUse::Unused | LastUse::InUse => {
                let is_in_use = rule!("uncounted-holder-is-remembered", in_use);
                self.last_use = if is_in_use {
                    LastUse::InUse
                } else {
                    LastUse::Unused
                };
                self.judge_at(look, grace)
            }
        };
        if let Next::LookAt(at) = next {
            self.due = at;
        }
        next
    }

    /// Handles the first look at a fingerprint, and gives it credit by its dates.
    fn first_look(&mut self, look: &Look, grace: Duration, in_use: bool) -> Next {
        let now = look.now.mono;
        let age = look.now.wall.since(look.fingerprint.newest());
        // The limit by the time since boot is not a marked rule: `Mono::before` has the same limit, so no test would
        // fail without it here.
        let mut unused = age.saturating_sub(look.lag).min(now.since_boot());
        if let Some(last_jump) = look.last_jump {
            unused =
                rule!("credit-since-clock-jump", unused.min(now.since(last_jump)), without: unused);
        }
        let since_discovery = unused.min(now.since(self.discovered));
        unused = match self.origin() {
            Origin::Created => rule!("credit-since-creation", since_discovery, without: unused),
            Origin::FoundWithoutCredit => {
                rule!("credit-since-found", since_discovery, without: unused)
            }
            Origin::Found | Origin::FoundWithHalfCredit => unused,
        };
        // Its writer may have had it open until just now, however late this look is, so half the grace remains. The
        // exception is a temp that existed before the watch: there only the gap between two looks remains.
        let gap = rule!("credit-leaves-confirm", min_observation_gap(grace, look.lag), without: Duration::ZERO);
        let limit = match self.origin() {
            Origin::Found if !self.was_looked_at() => grace - gap,
            Origin::Found => grace / 2,
            Origin::FoundWithHalfCredit => {
                rule!("scan-leaves-half-grace", grace / 2, without: grace - gap)
            }
            Origin::Created | Origin::FoundWithoutCredit => {
                rule!("late-look-leaves-half-grace", grace / 2, without: grace - gap)
            }
        };
        let credit = unused.min(limit);
        self.fingerprint = Packed::new(&look.fingerprint);
        self.last_use = if in_use {
            LastUse::InUse
        } else {
            LastUse::Unused
        };
        self.quiet_since = look.quiet_since().before(credit);
        self.unused_before = millis(unused - credit);
        self.kept_reason = None;
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

    /// Returns the state for a temp that is no longer being processed.
    #[must_use]
    pub fn check_in(mut self) -> Tracked {
        self.flags.set(Flags::CHECKED_OUT, false);
        self
    }

    /// Notes that the temp was kept for `reason`, and reports whether that reason is new. The next look is after
    /// [`policy::retry`].
    pub fn keep(&mut self, reason: Reason, grace: Duration, now: Mono) -> Kept {
        let reported_before = self.reported != ReportedReasons::default();
        let is_new = self.reported.insert(reason.bit());
        let retry = policy::retry(
            grace,
            reason.ends_without_event(),
            u32::from(self.times_kept),
        );
        if self.was_looked_at() {
            self.kept_reason = Some(reason);
        }
        self.times_kept = self.times_kept.saturating_add(1);
        self.due = now.after(retry);
        self.flags.set(Flags::CHECKED_OUT, false);
        Kept {
            is_new,
            reported_before,
            retry,
        }
    }

    /// Notes that nothing was done, because this is a dry run or because an operation failed. The next look is later.
    pub fn retry_later(&mut self, grace: Duration, now: Mono) -> Kept {
        self.keep(Reason::Young, grace, now)
    }
}

/// The result of [`Tracked::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// True if this reason was not reported before.
    pub is_new: bool,
    /// True if any reason was reported before.
    pub reported_before: bool,
    /// The time until the next look.
    pub retry: Duration,
}

/// Returns whole milliseconds, rounded down. The maximum of 49 days suffices, because the limit is one day.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

impl ReportedReasons {
    /// Adds a reason, and returns true if it was not in the set.
    fn insert(&mut self, bit: u32) -> bool {
        let [a, b, c] = self.0;
        let before = u32::from_le_bytes([a, b, c, 0]);
        let [a, b, c, _] = (before | bit).to_le_bytes();
        self.0 = [a, b, c];
        before & bit == 0
    }
}

#[cfg(test)]
mod tests;
