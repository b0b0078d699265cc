//! The limits of the quarantines.

use std::time::{Duration, Instant};

use super::event_loop::Supervisor;
use super::root_watch::{LimitsDue, RootWatch};
use super::services::Services;
use crate::daemon::command::Moved;
use crate::engine::limits::{self, LimitContext};
use crate::fs::dir::Dir;
use crate::reap::quarantine::{self, Quarantine};

/// The interval at which the free space beside a quarantine with files is checked. For lack of space, only files
/// that were moved more than an hour ago are dropped.
const SPACE_CHECK: Duration = Duration::from_secs(5 * 60);

/// The time after a move of a temp of a group until the copies that it supersedes are dropped. Further moves do not
/// delay it.
const SUPERSEDED_CHECK: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Applies the limits to each quarantine.
    pub(super) fn enforce_all_limits(&mut self) {
        for root_watch in &mut self.root_watches {
            root_watch.enforce_limits(&mut self.services);
        }
    }

    /// Schedules a check of the quarantines for the moment when a file that was moved now expires, or soon if it may
    /// supersede other copies. The space was checked before the move.
    pub(super) fn note_quarantined(&mut self, moved: Moved) {
        let now = Instant::now();
        let age = self.services.active_roots.limits.age;
        let expiry = match moved {
            Moved::OfGroup => Some(now + SUPERSEDED_CHECK),
            Moved::Ungrouped if age.is_zero() => None,
            Moved::Ungrouped => now.checked_add(age),
        };
        for root_watch in &mut self.root_watches {
            let space_check = now + SPACE_CHECK;
            let limits_due = root_watch.limits_due.get_or_insert(LimitsDue {
                expiry,
                space_check,
            });
            limits_due.expiry = match moved {
                Moved::OfGroup => limits_due.expiry.min(expiry).or(expiry),
                Moved::Ungrouped => limits_due.expiry.or(expiry),
            };
        }
    }
}

impl RootWatch {
    /// Applies the limits to the quarantine if a check is due.
    pub(super) fn enforce_limits_when_due(&mut self, services: &mut Services, now: Instant) {
        let Some(limits_due) = self
            .limits_due
            .filter(|limits_due| limits_due.next() <= now)
        else {
            return;
        };
        let has_expired = limits_due.expiry.is_some_and(|expiry| expiry <= now);
        let (path, id) = (&self.active.root.path, self.active.id());
        let lacks_space = || {
            let dir = Dir::open_root(path, id);
            dir.is_ok_and(|dir| quarantine::lacks_space(&dir, services.active_roots.limits))
        };
        if has_expired || lacks_space() {
            return self.enforce_limits(services);
        }
        let has_quarantine = matches!(Quarantine::open_existing(path, id), Ok(Some(_)));
        self.limits_due = has_quarantine.then_some(LimitsDue {
            space_check: now + SPACE_CHECK,
            ..limits_due
        });
    }

    /// Applies the limits to the quarantine, and schedules the next check.
    pub(super) fn enforce_limits(&mut self, services: &mut Services) {
        let trust = services.clock_trust();
        let (root, id) = (&self.active.root, self.active.id());
        self.limits_due = None;
        if root.policy.is_dry_run() || id.is_none() {
            return;
        }
        let shared = &services.shared;
        let context = LimitContext {
            trust,
            ..LimitContext::new(&shared.engine, &services.use_checker)
        };
        let result = limits::enforce_limits(root, id, context);
        let events = result.events.into_iter();
        events.for_each(|event| shared.emit(event));
        let now = Instant::now();
        let next = match result.has_more {
            true => Some(Duration::ZERO),
            false => result.next,
        };
        self.limits_due = result.holds_files.then(|| LimitsDue {
            expiry: next.and_then(|next| now.checked_add(next)),
            space_check: now + SPACE_CHECK,
        });
    }
}
