//! Recovers the claims of a set that a crash left. They have the same digits.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;

use super::calls;
use super::lazy_quarantine::LazyQuarantine;
use super::quarantine::{ClaimedSet, MovedAs, Slot};
use super::recovered::{Recovered, StoredMember, is_ours};
use super::types::{BatchContext, Outcome, held_reason};
use crate::core::companions;
use crate::core::observation::{Kind, Observation};
use crate::core::own_names;
use crate::core::policy::Policy;
use crate::core::sort::set_of;
use crate::core::temp_set::{LeftSet, SetRecovery, recovery};
use crate::core::time::Wall;
use crate::evidence::siblings::find_set;
use crate::evidence::{self, CheckedFile, FileId};
use crate::fs::dir::{self, Buffer};

/// A claim of a member.
struct LeftClaim {
    /// The present name.
    claim: OsString,
    seen: Observation,
    /// The lease on the file, until it has another name.
    _lease: CheckedFile,
}

impl LeftClaim {
    /// Returns the digits of its set.
    fn digits(&self) -> Option<String> {
        own_names::parse_claim(&self.claim)?.set
    }

    /// Returns the time of the claim, or a later one. A change of the owner or the permissions changes the ctime, so the
    /// time in the digits is better.
    fn claimed(&self) -> Wall {
        let ctime = self.seen.fingerprint.ctime;
        let by_digits = self
            .digits()
            .and_then(|digits| own_names::set_time(&digits));
        match rule!("time-of-the-claim-is-in-its-name", by_digits, without: None) {
            Some(at) => at.min(ctime),
            None => ctime,
        }
    }
}

/// The claims of a set, by their original names.
type LeftClaims = BTreeMap<OsString, LeftClaim>;

/// The claims of a set that a crash left.
pub(super) struct LeftNames {
    /// The name of the main file.
    main: OsString,
    /// The names of the claims, by their original names.
    claims: BTreeMap<OsString, OsString>,
}

/// Finds the set to which the claim of the file `original` with the digits `set` belongs. Returns `None` if no temp of
/// the rule can be its main file, or if the file has no companions: digits that a version without sets has chosen may
/// look like those of a set.
pub(super) fn find_left_set(
    batch_context: BatchContext<'_>,
    set: &str,
    original: &OsStr,
) -> io::Result<Option<LeftNames>> {
    let mut claims = claims_of(batch_context, set)?;
    let Some(main) = main_of(batch_context, &claims, original) else {
        return Ok(None);
    };
    claims.retain(|name, _| *name == main || companions::may_belong(&main, name));
    let is_alone = claims.len() == 1 && claims.contains_key(&main);
    let names = &batch_context.context.policy.names;
    let left = LeftNames { main, claims };
    let is_single = is_alone
        && find_set(batch_context.dir, names, &left.main)?
            .companions
            .is_empty();
    Ok((!is_single).then_some(left))
}

/// Recovers a set. Returns `None` if it has no claims of ours that this rule may rename.
pub(super) fn recover_set(
    batch_context: BatchContext<'_>,
    left: LeftNames,
) -> io::Result<Option<Recovered>> {
    let LeftNames {
        main,
        claims: names,
    } = left;
    let mut claims = LeftClaims::new();
    for (original, claim) in names {
        match open(batch_context, &claim)? {
            Opened::Claim(found) => _ = claims.insert(original, *found),
            Opened::Gone => {}
            // A set that this process cannot put back as a whole is not put back in part.
            Opened::NotOurs | Opened::Stays => return Ok(None),
            Opened::Held(reason) => return Ok(Some(Recovered::Kept(reason))),
        }
    }
    if claims.is_empty() {
        return Ok(None);
    }
    let policy = batch_context.context.policy;
    let claimed = set_of(claims.keys().filter(|name| **name != main).cloned());
    let names = find_set(batch_context.dir, &policy.names, &main)?;
    let in_place = names.companions.difference(&claimed);
    let left = LeftSet {
        has_main_claim: claims.contains_key(&main),
        has_newer_companion: match claims.get(&main) {
            Some(main) => has_newer(batch_context, in_place, main)?,
            None => false,
        },
        claimed,
        names,
    };
    match rule!("left-set-stays-together", recovery(&left), without: SetRecovery::PutBack) {
        SetRecovery::PutBack => match put_back(batch_context, &main, &mut claims)? {
            PutBack::Done => Ok(Some(Recovered::PutBack(main))),
            PutBack::NameIsTaken => {
                claim_members_in_place(batch_context, &main, &left, &mut claims)?;
                quarantine(batch_context, &main, claims)
            }
        },
        SetRecovery::Quarantine => {
            claim_members_in_place(batch_context, &main, &left, &mut claims)?;
            quarantine(batch_context, &main, claims)
        }
        SetRecovery::QuarantineRest => quarantine_rest(batch_context, &main, claims),
    }
}

/// Reports whether one of these files was created or written after the main file was claimed. A ctime does not show this: a
/// recovery that was killed may have given a companion its name back.
///
/// RACE: a companion of another file may be created between this look and the put-back of the main file (µs). Worst case: it
/// damages the main file.
fn has_newer<'n>(
    batch_context: BatchContext<'_>,
    names: impl Iterator<Item = &'n OsString>,
    main: &LeftClaim,
) -> io::Result<bool> {
    let claimed = main.claimed();
    for name in names {
        let seen = batch_context.dir.observe(name)?;
        let file = seen.map(|seen| seen.fingerprint);
        let is_newer = |date: Wall| date >= claimed;
        if file.is_some_and(|file| file.btime.is_some_and(is_newer) || is_newer(file.mtime)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the names of the claims with the digits `set`, by their original names.
fn claims_of(
    batch_context: BatchContext<'_>,
    set: &str,
) -> io::Result<BTreeMap<OsString, OsString>> {
    let mut names = BTreeMap::new();
    let mut add = |name: &OsStr, _| {
        let claim = own_names::parse_claim(name);
        if let Some(claim) = claim.filter(|claim| claim.set.as_deref() == Some(set))
            && let Some(original) = claim.original
        {
            names.insert(original, name.to_owned());
        }
        true
    };
    let dir = batch_context.dir;
    dir.read_while(&mut Buffer::default(), &mut add)?;
    Ok(names)
}

/// Returns the name of the main file of the set that contains the file `original`, if the rule matches it. Any user can
/// create such names, so a set of which the rule takes no temp is left alone.
fn main_of(
    batch_context: BatchContext<'_>,
    names: &BTreeMap<OsString, OsString>,
    original: &OsStr,
) -> Option<OsString> {
    let policy = batch_context.context.policy;
    let below = batch_context.dir.below();
    let is_temp = |name: &OsStr| policy.is_temp(below, name);
    let is_main = |main: &OsStr| main == original || companions::may_belong(main, original);
    let claimed = names.keys().map(OsString::as_os_str);
    // The claim of the main file is missing if that was removed or moved before.
    let missing = names.keys().flat_map(|name| temps_above(policy, name));
    let missing = missing.filter(|name| !names.contains_key(*name));
    let mut mains = missing.chain(claimed);
    let takes = |main: &OsStr| rule!("set-of-other-rules-stays", is_temp(main), without: true);
    let main = mains.find(|main| is_main(main) && takes(main));
    main.map(OsStr::to_owned)
}

/// Returns the names of the temps of which `name` may be a companion, or a companion of one, and so on.
fn temps_above<'n>(policy: &Policy, name: &'n OsStr) -> Vec<&'n OsStr> {
    let mut all = Vec::new();
    let mut at = 0;
    let mut next = Some(name);
    while let Some(companion) = next {
        for temp in policy.names.temps_of(companion) {
            if !all.contains(&temp) {
                all.push(temp);
            }
        }
        next = all.get(at).copied();
        at += 1;
    }
    all
}

enum Opened {
    Claim(Box<LeftClaim>),
    Gone,
    /// Another user's file, or one that is not regular.
    NotOurs,
    /// A user restored it.
    Stays,
    Held(crate::core::judge::Reason),
}

/// Opens a claim or a member with its own name, and leases it.
fn open(batch_context: BatchContext<'_>, name: &OsStr) -> io::Result<Opened> {
    let dir = batch_context.dir;
    match dir.observe(name)? {
        Some(seen) if seen.fingerprint.kind == Kind::File && is_ours(&seen) => {}
        Some(_) => return Ok(Opened::NotOurs),
        None => return Ok(Opened::Gone),
    }
    let opened = match evidence::open_for_check(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(Opened::Held(crate::core::judge::Reason::InUse));
        }
        opened => opened?,
    };
    let (use_state, checked) = batch_context.use_checker.check(opened);
    let seen = dir::observe_fd(checked.file())?;
    let marks = batch_context.context.marks;
    let is_restored = marks.has(checked.file(), &seen.fingerprint)?;
    if rule!("restored-member-stays", is_restored) {
        return Ok(Opened::Stays);
    }
    if let Some(reason) = held_reason(
        rule!("held-set-stays", use_state, without: crate::core::observation::UseState::Unused),
    ) {
        return Ok(Opened::Held(reason));
    }
    Ok(Opened::Claim(Box::new(LeftClaim {
        claim: name.to_owned(),
        seen,
        _lease: checked,
    })))
}

enum PutBack {
    Done,
    /// Another file has one of the names in the meantime. All members that were claimed are claimed again.
    NameIsTaken,
}

/// Gives all members their names back, the main file last.
fn put_back(
    batch_context: BatchContext<'_>,
    main: &OsStr,
    claims: &mut LeftClaims,
) -> io::Result<PutBack> {
    let fd = batch_context.dir.fd();
    let companions = claims.iter().filter(|(name, _)| *name != main);
    let mut back = Vec::new();
    let mut is_taken = false;
    for (name, left) in companions.chain(claims.get_key_value(main)) {
        match calls::rename(fd, &left.claim, fd, name) {
            Ok(()) => back.push((name, left)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                is_taken = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if !is_taken {
        return Ok(PutBack::Done);
    }
    for (name, left) in back {
        claim_again(batch_context, name, left)?;
    }
    Ok(PutBack::NameIsTaken)
}

/// Gives a file that still has this name the name of its claim.
///
/// RACE: another process may give the name to another file between the check and the rename (µs). Worst case: that file
/// is in the quarantine.
fn claim_again(batch_context: BatchContext<'_>, name: &OsStr, left: &LeftClaim) -> io::Result<()> {
    let dir = batch_context.dir;
    let seen = dir.observe(name)?;
    let file = FileId::from(&left.seen.fingerprint);
    let is_same = seen.is_some_and(|seen| FileId::from(&seen.fingerprint) == file);
    match is_same.then(|| calls::rename(dir.fd(), name, dir.fd(), &left.claim)) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Claims the companions that the crash left under their own names: a crash during their move would leave them beside
/// another main file. A file that was written since the claim of the main file, or that is in use, may belong to another
/// main file.
fn claim_members_in_place(
    batch_context: BatchContext<'_>,
    main: &OsStr,
    left: &LeftSet,
    claims: &mut LeftClaims,
) -> io::Result<()> {
    let Some(main_claim) = claims.get(main) else {
        return Ok(());
    };
    let (claimed, digits) = (main_claim.claimed(), main_claim.claim.clone());
    for name in &left.names.companions {
        if left.claimed.contains(name) {
            continue;
        }
        if let Opened::Claim(mut found) = open(batch_context, name)? {
            let is_older = last_written(&found.seen) < claimed;
            let belongs = rule!("newer-companion-is-not-of-the-set", is_older, without: true);
            if let Some(claim) = own_names::claim_beside(&digits, name).filter(|_| belongs) {
                found.claim = claim;
                rule!("left-set-is-moved-from-its-claims", claim_again(batch_context, name, &found)?,
                    without: found.claim.clone_from(name));
                claims.insert(name.clone(), *found);
            }
        }
    }
    Ok(())
}

/// Returns when a companion was created or last written. Its ctime counts only without a birth time: a change of the owner
/// or the permissions changes it, and so does a recovery that was killed after it had given the companion its name back.
fn last_written(seen: &Observation) -> Wall {
    let file = &seen.fingerprint;
    let by_birth = file.btime.map(|born| born.max(file.mtime));
    rule!("companion-with-a-new-ctime-belongs", by_birth, without: None)
        .unwrap_or_else(|| file.newest())
}

/// Moves all members to the quarantine, the main file first.
fn quarantine(
    batch_context: BatchContext<'_>,
    main: &OsStr,
    mut claims: LeftClaims,
) -> io::Result<Option<Recovered>> {
    let main_claim = claims.remove_entry(main);
    let members: Vec<(OsString, LeftClaim)> = main_claim.into_iter().chain(claims).collect();
    let names: Vec<&OsStr> = members.iter().map(|(name, _)| name.as_os_str()).collect();
    let slots = LazyQuarantine::new(batch_context).set_slots(&names, MovedAs::SoleCopy);
    let slots = slots.map_err(no_quarantine)?;
    let mut stored = Vec::with_capacity(members.len());
    for ((name, left), slot) in members.into_iter().zip(slots) {
        stored.extend(store(batch_context, name, left, slot)?);
    }
    Ok(Some(Recovered::Quarantined(stored)))
}

/// Moves companions whose main file was removed or moved before: beside that file if it is in the quarantine.
fn quarantine_rest(
    batch_context: BatchContext<'_>,
    main: &OsStr,
    claims: LeftClaims,
) -> io::Result<Option<Recovered>> {
    let quarantine = LazyQuarantine::new(batch_context);
    let mut stored = Vec::with_capacity(claims.len());
    for (name, left) in claims {
        let digits = left.digits();
        let set = ClaimedSet {
            digits: digits.as_deref(),
            at: left.claimed(),
        };
        let slot = quarantine.slot_beside(main, &name, set);
        let slot = match rule!("rest-follows-its-main", slot, without: Ok(None)) {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                let slots = quarantine
                    .set_slots(&[&name], MovedAs::SoleCopy)
                    .map_err(no_quarantine)?;
                let Some(slot) = slots.into_iter().next() else {
                    continue;
                };
                slot
            }
            Err(outcome) => return Err(no_quarantine(outcome)),
        };
        stored.extend(store(batch_context, name, left, slot)?);
    }
    Ok(Some(Recovered::Quarantined(stored)))
}

fn store(
    batch_context: BatchContext<'_>,
    name: OsString,
    left: LeftClaim,
    slot: Slot,
) -> io::Result<Option<StoredMember>> {
    let is_stored = slot.receive(batch_context.dir, &left.claim, &name)?;
    Ok(is_stored.then(|| StoredMember {
        id: slot.keep(),
        name,
        size: left.seen.size(),
    }))
}

fn no_quarantine(outcome: Outcome) -> io::Error {
    match outcome {
        Outcome::Failed { error, .. } => error,
        _ => io::Error::other(
            "another file has a name of its set, and no quarantine is possible here",
        ),
    }
}
