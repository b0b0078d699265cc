//! The state of one temp.

use std::time::Duration;

use super::flags::{Flags, Origin, ReportedReasons};
use crate::core::judge::Reason;
use crate::core::packed::Packed;
use crate::core::policy;
use crate::core::time::Mono;

/// The state of one temp. It is small and has no second allocation, because there may be a million temps. Fields that a
/// look sets are meaningless before the first look.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The time of its discovery.
    pub(super) discovered: Mono,
    pub(super) due: Mono,
    /// The start of the time that counts towards the grace, by the last look.
    pub(super) quiet_since: Mono,
    /// The time without use before `quiet_since`, in milliseconds.
    pub(super) unused_before: u32,
    /// The fingerprint that the last look saw.
    pub(super) fingerprint: Packed,
    pub(super) last_use: LastUse,
    pub(super) reported: ReportedReasons,
    /// The number of times that it was kept since its last change.
    pub(super) times_kept: u8,
    /// The reason of the last verdict, if that kept it.
    pub(super) kept_reason: Option<Reason>,
    pub(super) flags: Flags,
}

/// The use state that the last look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastUse {
    /// There was no look yet.
    NotLooked,
    /// It was proven that no process uses it.
    Unused,
    /// A process uses it, or may.
    InUse,
}

impl LastUse {
    pub(super) fn new(in_use: bool) -> LastUse {
        match in_use {
            true => LastUse::InUse,
            false => LastUse::Unused,
        }
    }
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

    /// Notes that the temp may still have the name of a claim, because its removal failed. Until the next search for
    /// the claim, orphand itself is the cause if the temp's name is missing.
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

    pub(super) fn was_looked_at(&self) -> bool {
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

    /// Returns the file as the last look saw it.
    #[must_use]
    pub fn seen(&self) -> Option<&Packed> {
        self.was_looked_at().then_some(&self.fingerprint)
    }

    /// Reports whether the temp was judged and kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.was_looked_at() && self.times_kept > 0
    }

    /// Reports whether it was reported as kept for a reason other than its age.
    #[must_use]
    pub fn was_reported(&self) -> bool {
        self.reported.has_other(Reason::Young)
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

    /// Postpones the next look until `at`, because a companion is not ready before.
    pub fn wait_until(&mut self, at: Mono) {
        self.due = self.due.max(at);
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
        let is_new = self.reported.insert(reason);
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
