//! Recovers claims that a crash left.

use std::ffi::{OsStr, OsString};
use std::io;

use super::calls;
use super::lazy_quarantine::LazyQuarantine;
use super::quarantine::MovedAs;
use super::recover_set::{find_left_set, recover_set};
use super::recovered::{Recovered, StoredMember, is_ours};
use super::types::{BatchContext, Outcome, held_reason};
use crate::core::judge::Reason;
use crate::core::observation::{FileSize, Kind};
use crate::core::own_names;
use crate::evidence;
use crate::evidence::siblings::has_companion;
use crate::fs::dir;

/// Recovers a claim that a crash left: gives it its original name back, so that it is a temp like any other. If another
/// file has the name, or the name is not known, the claim is moved to the quarantine.
///
/// The claim of a member of a set is recovered together with all others of that set.
///
/// A held claim is kept: another orphand may be processing it. Returns `None` if the file is not a claim of ours.
pub fn recover(batch_context: BatchContext<'_>, claim: &OsStr) -> io::Result<Option<Recovered>> {
    let Some(parsed) = own_names::parse_claim(claim) else {
        return Ok(None);
    };
    if let (Some(set), Some(original)) = (&parsed.set, &parsed.original)
        && let Some(left) = find_left_set(batch_context, set, original)?
    {
        return recover_set(batch_context, left);
    }
    let dir = batch_context.dir;
    match dir.observe(claim)? {
        Some(seen) if seen.fingerprint.kind == Kind::File && is_ours(&seen) => {}
        _ => return Ok(None),
    }
    let opened = match evidence::open_for_check(dir, claim) {
        // Another orphand has finished with it in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(Some(Recovered::Kept(Reason::InUse)));
        }
        opened => opened?,
    };
    let (use_state, checked) = batch_context.use_checker.check(opened);
    let now = dir::observe_fd(checked.file())?;
    // A file that a user restored is kept, even under such a name.
    let marks = batch_context.context.marks;
    let is_restored = marks.has(checked.file(), &now.fingerprint)?;
    if rule!("restored-claim-stays", is_restored) {
        return Ok(None);
    }
    // Any user can create such a name, so a file that is not a temp by this rule is kept. A shortened name matches
    // other rules than the whole name did: the file is moved, because no rule would find it again.
    let is_temp = |name| batch_context.context.policy.is_temp(dir.below(), name);
    if let Some(original) = &parsed.original
        && rule!("claim-of-other-rules-stays", !is_temp(original))
    {
        log::warn!(
            "{claim:?} in {:?} was left by an unfinished removal of {original:?}; the rule does not match that name, so \
             the claim stays; to rename it back: mv -n, or a rule that matches it",
            batch_context.root.join(dir.below())
        );
        return Ok(None);
    }
    if let Some(reason) = held_reason(
        rule!("held-claim-stays", use_state, without: crate::core::observation::UseState::Unused),
    ) {
        return Ok(Some(Recovered::Kept(reason)));
    }
    undo(batch_context, claim, parsed.original, now.size())
}

/// Gives the claim its `original` name back, or moves it to the quarantine, if another file has that name, or the name of
/// a companion.
fn undo(
    batch_context: BatchContext<'_>,
    claim: &OsStr,
    original: Option<OsString>,
    size: FileSize,
) -> io::Result<Option<Recovered>> {
    let dir = batch_context.dir;
    // Without a set, the file had no companion when it was claimed. One that exists now may belong to another file.
    // RACE: a companion of another file may be created after this look (µs). Worst case: it damages the file.
    let has_companion = match &original {
        Some(name) => has_companion(dir, &batch_context.context.policy.names, name)?,
        None => false,
    };
    let is_alone = !rule!("claim-returns-to-no-companion", has_companion);
    if let Some(name) = original.as_ref().filter(|_| is_alone) {
        match calls::rename(dir.fd(), claim, dir.fd(), name) {
            Ok(()) => return Ok(original.map(Recovered::PutBack)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let name = original.unwrap_or_else(|| claim.to_owned());
    let slot = LazyQuarantine::new(batch_context).slot(&name, MovedAs::SoleCopy);
    let slot = slot.map_err(|outcome| match outcome {
        Outcome::Failed { error, .. } => error,
        _ => io::Error::other(
            "another file has its name or that of a companion, and no quarantine is possible here",
        ),
    })?;
    let is_stored = slot.receive(dir, claim, &name)?;
    Ok(is_stored.then(|| {
        let id = slot.keep();
        Recovered::Quarantined(vec![StoredMember { id, name, size }])
    }))
}
