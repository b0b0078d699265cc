//! Puts claims back that a crash left, or that could not be put back before.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::context::{DirContext, Engine};
use crate::core::event::{Details, Disposed, Event};
use crate::core::judge::Reason;
use crate::core::observation::FileSize;
use crate::evidence::UseChecker;
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::Siblings;
use crate::reap::{self, BatchContext, Recovered, StoredMember};
use crate::store::journal::LineKind;
use crate::store::json;
use crate::sys::clock;

/// The outcome of the recovery of a claim.
#[derive(Debug)]
pub enum RecoveryOutcome {
    /// The claim has this name again.
    PutBack(OsString),
    /// The claim is kept for now, for this reason. The recovery must be tried again.
    Kept(Reason),
    /// The recovery failed, and the failure was reported. It must be tried again.
    Failed,
    /// Nothing is left to do.
    Done,
}

/// Recovers a claim that is not in use by any thread: a crash left it, or it could not be put back.
pub fn recover(
    engine: &Engine,
    dir_context: DirContext<'_>,
    use_checker: &UseChecker,
    claim: &OsStr,
    emit: &mut dyn FnMut(Event),
) -> RecoveryOutcome {
    if engine.reaper.claims().is_in_progress(claim) {
        return RecoveryOutcome::Done;
    }
    let root = &dir_context.root.path;
    let Ok(dir) = dir_context.open() else {
        return RecoveryOutcome::Done;
    };
    let (siblings, guards) = (Siblings::default(), GuardChecks::default());
    let batch_context = BatchContext {
        root,
        id: dir_context.id,
        dir: &dir,
        use_checker,
        context: engine.evidence_context(&dir_context.root.policy, &siblings, &guards),
    };
    match reap::recover(batch_context, claim) {
        Ok(Some(Recovered::PutBack(name))) => {
            log::info!(
                "an unfinished removal of {name:?} was undone; the file has its original name again"
            );
            RecoveryOutcome::PutBack(name)
        }
        Ok(Some(Recovered::Kept(reason))) => RecoveryOutcome::Kept(reason),
        Ok(Some(Recovered::Quarantined(stored))) => {
            for StoredMember { id, name, size } in stored {
                let event = quarantined(dir_context, id, &name, size);
                let line = json::event(&event, clock::wall());
                engine.journal.write(LineKind::Outcome, &[line]);
                emit(event);
            }
            RecoveryOutcome::Done
        }
        Ok(None) => RecoveryOutcome::Done,
        Err(error) => {
            emit(Event::Failed {
                subject: dir_context.subject(claim, None),
                error: format!("cannot rename this claim back to its original name: {error}"),
                errno: error.raw_os_error(),
            });
            RecoveryOutcome::Failed
        }
    }
}

/// Returns the event for a claim that was moved to the quarantine.
fn quarantined(dir_context: DirContext<'_>, id: String, name: &OsStr, size: FileSize) -> Event {
    Event::Quarantined {
        disposed: Disposed::new(dir_context.subject(name, Some(size))),
        id: Some(id),
        reason: None,
    }
}

/// Returns the event that reports a kept claim. `retry` is the time until the next attempt, if there is one.
#[must_use]
pub fn kept_claim(
    dir_context: DirContext<'_>,
    claim: &OsStr,
    reason: Reason,
    retry: Option<Duration>,
) -> Event {
    Event::Kept {
        subject: dir_context.subject(claim, None),
        reason,
        holders: Vec::new(),
        retry,
        reported_before: false,
        details: Details::default(),
    }
}
