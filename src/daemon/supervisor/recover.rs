//! Claims that a crash left behind: their files are put back to the original names.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::root_watch::RootWatch;
use super::scan::existed_before;
use super::services::Services;
use crate::core::own_names;
use crate::core::policy;
use crate::daemon::existing::Existing;
use crate::engine::{self, DirContext, RecoveryOutcome};
use crate::sys::clock;

impl RootWatch {
    /// Puts back the file of `claim` in the directory `below` the root, or schedules another attempt.
    pub(super) fn recover(&self, services: &Services, below: &Path, claim: &OsStr) {
        let root = &self.active.root;
        let dir = root.path.join(below);
        // A root inside another root has a rule of its own.
        let owner = services.active_roots.root_of(&dir);
        if !owner.is_some_and(|(owner, _)| Arc::ptr_eq(owner, &self.active)) {
            return;
        }
        let id = self.active.id();
        let dir_context = DirContext { root, id, below };
        let shared = &services.shared;
        let temps = &shared.temps;
        let ignored = services
            .ignored_name(dir_context, claim)
            .map(|name| dir.join(name))
            .filter(|path| temps.expect_put_back(path, clock::mono()));
        let mut emit = |event| shared.emit(event);
        let outcome = engine::recover(
            &shared.engine,
            dir_context,
            &services.use_checker,
            claim,
            &mut emit,
        );
        match (outcome, ignored) {
            (RecoveryOutcome::PutBack(_), Some(_)) | (RecoveryOutcome::Done, None) => {}
            (RecoveryOutcome::PutBack(name), None) => {
                _ = temps.record_created(&dir.join(name), clock::mono());
            }
            // A failed put-back of an ignored temp needs no entry: the next full scan finds the claim again.
            (outcome, Some(path)) => {
                temps.cancel_put_back(&path);
                if let RecoveryOutcome::Kept(reason) = outcome {
                    shared.emit(engine::kept_claim(dir_context, claim, reason, None));
                }
            }
            (RecoveryOutcome::Kept(reason), None) => {
                if services.retry_claim(dir_context, claim) {
                    let retry =
                        policy::retry(root.policy.grace.shortest(), reason.ends_without_event(), 0);
                    let event = engine::kept_claim(dir_context, claim, reason, Some(retry));
                    shared.emit(event);
                }
            }
            (RecoveryOutcome::Failed, None) => _ = services.retry_claim(dir_context, claim),
        }
    }
}

impl Services {
    /// Schedules another attempt to put a claim back, at the deadline of its temp. Returns whether this is new.
    fn retry_claim(&self, dir_context: DirContext<'_>, claim: &OsStr) -> bool {
        let Ok(dir) = dir_context.open() else {
            return false;
        };
        let original = tracked_name(dir_context, claim);
        // A claim whose original name was cut off is tracked by its present name.
        let name = original.as_deref().unwrap_or(claim);
        let claims = self.shared.engine.reaper.claims();
        let is_new = claims.add_pending(dir.id(), name, claim);
        let path = dir_context.path(name);
        rule!(
            "held-claim-is-tried-again",
            self.shared.temps.record_claim_pending(&path, clock::mono()),
            without: (),
        );
        is_new
    }

    /// Returns the original name of a claim if temps that existed before the start are to be ignored and this is one of
    /// them. The put-back itself changes the dates of the file.
    fn ignored_name(&self, dir_context: DirContext<'_>, claim: &OsStr) -> Option<OsString> {
        let removes = self.shared.existing != Existing::Leave;
        if rule!("crash-leftover-is-left-alone", removes, without: true) {
            return None;
        }
        let dir = dir_context.open().ok()?;
        let existed = existed_before(&dir, claim, self.boundary)?;
        tracked_name(dir_context, claim)
            .filter(|_| existed || rule!("claim-at-start-whatever-date", !self.has_started))
    }
}

/// Returns the name by which the temp of a claim is tracked: its original name, or for a companion the name of its main
/// file. Returns `None` if that name was cut off.
fn tracked_name(dir_context: DirContext<'_>, claim: &OsStr) -> Option<OsString> {
    let claim = own_names::parse_claim(claim)?;
    let original = claim.original?;
    let names = &dir_context.root.policy.names;
    let main = claim.set.and_then(|_| names.temp_of(&original));
    Some(main.map_or_else(|| original.clone(), OsStr::to_owned))
}
