//! The effect of a look on the state of a temp.

use std::time::Duration;

use super::flags::{Flags, Origin, ReportedReasons};
use super::tracked::{LastUse, Tracked};
use crate::core::observation::{Fingerprint, UseState};
use crate::core::packed::Packed;
use crate::core::policy::{Open, min_observation_gap};
use crate::core::time::{JUMP, Mono, Now};

/// The result of one look at a temp, as far as the tracker needs it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The time right before the look.
    pub began: Now,
    /// The time right after it. A look can take seconds: a virus scanner may delay each open, and a disk may not answer.
    pub ended: Now,
    /// The last jump of the wall clock relative to the monotonic clock, if one was detected until the look ended.
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
    /// This is the end of the look, or the end of the second in the file's newest date if dates are whole seconds:
    /// until then the file could change without a new date.
    fn quiet_since(&self) -> Mono {
        let ended = self.ended();
        let age = ended.wall.since(self.fingerprint.newest());
        let lag = rule!("last-second-gives-no-credit", self.lag, without: Duration::ZERO);
        ended.mono.after(lag.saturating_sub(age))
    }

    /// Returns the time until which the file may have changed or had a holder, although this look found it unused.
    fn ended(&self) -> Now {
        rule!("quiet-from-the-end-of-a-look", self.ended, without: self.began)
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
    /// Updates the state after a look, and returns the next step.
    pub fn look(&mut self, look: &Look, grace: Duration, open: Open) -> Next {
        if self.has_new_rules() {
            self.apply_new_rules(look.ended().mono, grace);
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
                self.restart_grace(look, grace, LastUse::InUse)
            }
            LastUse::Unused | LastUse::InUse if in_use && counts => {
                self.fingerprint = Packed::new(&look.fingerprint);
                self.last_use = LastUse::InUse;
                // It is judged although it has a holder, so that the holder is reported.
                self.judge_at(look, grace)
            }
            LastUse::InUse if rule!("held-restarts-the-grace", counts) => {
                self.kept_reason = None;
                self.times_kept = 0;
                self.restart_grace(look, grace, LastUse::Unused)
            }
            LastUse::Unused | LastUse::InUse if rule!("changed-restarts-the-grace", !same) => {
                if self.fingerprint.ino() != look.fingerprint.ino {
                    self.reported = ReportedReasons::default();
                }
                self.times_kept = 0;
                self.first_look(look, grace, in_use)
            }
            LastUse::Unused | LastUse::InUse => {
                self.last_use = LastUse::new(rule!("uncounted-holder-is-remembered", in_use));
                self.judge_at(look, grace)
            }
        };
        if let Next::LookAt(at) = next {
            self.due = at;
        }
        next
    }

    /// Reports whether the last look found the temp unused, and it was not kept since.
    #[must_use]
    pub fn was_unused(&self) -> bool {
        self.last_use == LastUse::Unused
            && self.times_kept == 0
            && self.kept_reason.is_none()
            && !self.has_new_rules()
    }

    /// Reports whether another look now, which sees this fingerprint and no holder, makes such a temp ready to be
    /// judged. That look changes nothing in this state.
    #[must_use]
    pub fn lacks_only_proof(&self, file: &Fingerprint, now: Mono, grace: Duration) -> bool {
        self.was_unused()
            && self.fingerprint == Packed::new(file)
            && now >= self.quiet_since.after(grace)
    }

    /// Limits the credit that was measured by the old rule: see [`Tracked::mark_rules_changed`].
    fn apply_new_rules(&mut self, now: Mono, grace: Duration) {
        self.flags.set(Flags::NEW_RULES, false);
        let earliest = now.before(grace / 2);
        let shift = earliest.since(self.quiet_since);
        if rule!("new-rules-leave-half-grace", true) {
            self.quiet_since = self.quiet_since.max(earliest);
        }
        self.unused_before = self.unused_before.saturating_add(millis(shift));
    }

    /// Starts the grace at this look, without any credit.
    fn restart_grace(&mut self, look: &Look, grace: Duration, last_use: LastUse) -> Next {
        self.fingerprint = Packed::new(&look.fingerprint);
        self.last_use = last_use;
        self.quiet_since = look.quiet_since();
        self.unused_before = 0;
        Next::LookAt(self.quiet_since.after(grace))
    }

    /// Handles the first look at a fingerprint, and gives it credit by its dates.
    fn first_look(&mut self, look: &Look, grace: Duration, in_use: bool) -> Next {
        let unused = self.unused_by_dates(look);
        let credit = unused.min(self.most_credit(look, grace));
        self.fingerprint = Packed::new(&look.fingerprint);
        self.last_use = LastUse::new(in_use);
        self.quiet_since = look.quiet_since().before(credit);
        self.unused_before = millis(unused - credit);
        self.kept_reason = None;
        let due = self.quiet_since.after(grace);
        Next::LookAt(rule!("both-looks-and-the-grace", due, without: look.ended.mono))
    }

    /// Returns the time for which the file was unused until this look ended, by its dates and within the bounds of its
    /// origin.
    fn unused_by_dates(&self, look: &Look) -> Duration {
        let now = look.ended().mono;
        let age = look.ended().wall.since(look.fingerprint.newest());
        // The limit by the time since boot is not a marked rule: `Mono::before` has the same limit, so no test would
        // fail without it here.
        let mut unused = age.saturating_sub(look.lag).min(now.since_boot());
        if let Some(last_jump) = look.last_jump {
            unused =
                rule!("credit-since-clock-jump", unused.min(now.since(last_jump)), without: unused);
        }
        let since_discovery = unused.min(now.since(self.discovered));
        match self.origin() {
            Origin::Created => rule!("credit-since-creation", since_discovery, without: unused),
            Origin::FoundWithoutCredit => {
                rule!("credit-since-found", since_discovery, without: unused)
            }
            Origin::Found | Origin::FoundWithHalfCredit => unused,
        }
    }

    /// Returns the largest part of the grace that a first look may give as credit.
    ///
    /// Its writer may have had it open until just now, however late this look is, so half the grace remains. The
    /// exception is a temp that existed before the watch: there only the gap between two looks remains.
    fn most_credit(&self, look: &Look, grace: Duration) -> Duration {
        let gap = rule!("credit-leaves-confirm", min_observation_gap(grace, look.lag), without: Duration::ZERO);
        match self.origin() {
            Origin::Found if !self.was_looked_at() => grace - gap,
            Origin::Found => grace / 2,
            Origin::FoundWithHalfCredit => {
                rule!("scan-leaves-half-grace", grace / 2, without: grace - gap)
            }
            Origin::Created | Origin::FoundWithoutCredit => {
                rule!("late-look-leaves-half-grace", grace / 2, without: grace - gap)
            }
        }
    }

    fn judge_at(&self, look: &Look, grace: Duration) -> Next {
        let now = look.began.mono;
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
        let age = look.ended.wall.since(look.fingerprint.newest());
        // A clock difference that is too small to count as a jump may have increased the age.
        let written = look.ended.mono.before(age.saturating_sub(JUMP + look.lag));
        let written = rule!("later-process-did-not-write", self.discovered.max(written), without: self.discovered);
        (self.origin() == Origin::Created && is_dated).then_some(written)
    }
}

/// Returns whole milliseconds, rounded down. The maximum of 49 days suffices, because the limit is one day.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
