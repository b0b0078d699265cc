//! The sets of a directory: finds the companions of a temp, and tracks them between looks.
//!
//! The grace of a set counts from the last change of any member. So each companion has a tracking state of its own,
//! which is updated when the temp is looked at. The temp is judged once all of them are ready.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::clock_reading::ClockReading;
use super::look::{LookResult, SeenFile, look_at};
use crate::core::companions::MAX_COMPANIONS;
use crate::core::judge::{Evidence, Reason};
use crate::core::own_names::fits_in_claim;
use crate::core::policy::{Open, Policy};
use crate::core::reserved::Reserved;
use crate::core::temp_name::ParsedName;
use crate::core::time::{Mono, Now};
use crate::core::tracker::{Look, Next, Origin, Tracked};
use crate::evidence::{self, EvidenceContext, Role, TempInfo, UseChecker};
use crate::fs::dir::{Dir, RootId};
use crate::sys::mutex::guard;

/// The largest number of sets that are tracked. When it is reached, the set that was looked at longest ago is
/// forgotten, and its grace starts again.
const MAX_SETS: usize = 10_000;

/// The companions of temps, with their tracking states.
#[derive(Debug, Default)]
pub struct TrackedSets {
    sets: Mutex<HashMap<(RootId, OsString), TrackedSet>>,
}

#[derive(Debug)]
struct TrackedSet {
    companions: BTreeMap<OsString, Tracked>,
    looked: Mono,
}

/// The directory and the rule of a set.
#[derive(Clone, Copy)]
pub(super) struct SetContext<'a> {
    pub(super) dir: &'a Dir,
    pub(super) below: &'a Path,
    pub(super) policy: &'a Policy,
    pub(super) use_checker: &'a UseChecker,
    pub(super) our_uid: u32,
}

/// A look at the main file of a set.
#[derive(Clone, Copy)]
pub(super) struct MainLook<'a> {
    pub(super) name: &'a OsStr,
    /// The clocks right before that look.
    pub(super) clock_reading: ClockReading,
    pub(super) grace: Duration,
    /// The way in which companions count as found.
    pub(super) origin: Origin,
}

/// The state of a set after a look.
pub(super) enum SetState {
    /// The temp has no companions.
    Single,
    /// Its companions are others than at the last look, so its grace starts again.
    Changed,
    /// A companion is not ready before this moment.
    Wait(Mono),
    /// The companions cannot be judged; the temp is kept for this reason.
    Kept(Reason),
    /// All companions are ready.
    Ready(Vec<SeenMember>),
}

/// A companion that was looked at.
pub(super) struct SeenMember {
    pub(super) seen: SeenFile,
    pub(super) temp_info: TempInfo,
}

/// A companion of an examined temp, with the evidence about it.
#[derive(Debug)]
pub struct ExaminedMember {
    /// Its path.
    pub path: PathBuf,
    /// The evidence.
    pub evidence: Evidence,
}

impl TrackedSets {
    /// Looks at the companions `names` of a temp that was just looked at, and updates their states.
    pub(super) fn look(
        &self,
        context: SetContext<'_>,
        main: MainLook<'_>,
        names: &BTreeSet<OsString>,
    ) -> io::Result<SetState> {
        // The usual case.
        if names.is_empty() && self.is_empty() {
            return Ok(SetState::Single);
        }
        let key = (context.dir.id(), main.name.to_owned());
        let known = self.take(&key);
        if names.is_empty() && known.is_none() {
            return Ok(SetState::Single);
        }
        let had = known.map(|known| known.companions);
        let is_changed = had.as_ref().is_some_and(|had| !had.keys().eq(names.iter()));
        let mut tracked = had.unwrap_or_default();
        tracked.retain(|name, _| names.contains(name));
        let state = look_at_all(context, main, names, &mut tracked)?;
        if !tracked.is_empty() {
            let looked = main.clock_reading.now.mono;
            self.insert(
                key,
                TrackedSet {
                    companions: tracked,
                    looked,
                },
            );
        }
        Ok(match state {
            _ if rule!("changed-set-restarts-the-grace", is_changed) => SetState::Changed,
            SetState::Ready(members) if members.is_empty() => SetState::Single,
            state => state,
        })
    }

    /// Forgets the companions of a temp.
    pub(super) fn forget(&self, dir: RootId, main: &OsStr) {
        let mut sets = guard(&self.sets);
        // The usual case.
        if !sets.is_empty() {
            sets.remove(&(dir, main.to_owned()));
        }
    }

    fn is_empty(&self) -> bool {
        let sets = guard(&self.sets);
        sets.is_empty()
    }

    fn take(&self, key: &(RootId, OsString)) -> Option<TrackedSet> {
        let mut sets = guard(&self.sets);
        sets.remove(key)
    }

    fn insert(&self, key: (RootId, OsString), set: TrackedSet) {
        let mut sets = guard(&self.sets);
        if sets.len() >= MAX_SETS {
            let oldest = sets.iter().min_by_key(|(_, set)| set.looked);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                sets.remove(&oldest);
            }
        }
        sets.insert(key, set);
    }
}

fn look_at_all(
    context: SetContext<'_>,
    main: MainLook<'_>,
    names: &BTreeSet<OsString>,
    tracked: &mut BTreeMap<OsString, Tracked>,
) -> io::Result<SetState> {
    let mut wait = None;
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        let began = main.clock_reading.again();
        let seen = match look_at_one(context, name)? {
            LookResult::File(seen) => seen,
            // The listing may be older than its removal.
            LookResult::Missing => return Ok(SetState::Changed),
            LookResult::NotATemp => {
                // All names are tracked, so that the set does not look changed at the next look.
                for name in names {
                    let new = || Tracked::found(began.now.mono, main.origin);
                    tracked.entry(name.clone()).or_insert_with(new);
                }
                return Ok(SetState::Kept(Reason::NotRegular));
            }
        };
        let ended = began.again();
        let fingerprint = seen.observation.fingerprint;
        let look = Look {
            began: began.now,
            ended: ended.now,
            last_jump: ended.last_jump(),
            fingerprint,
            lag: context.dir.properties().dates.lag(&fingerprint),
            use_state: seen.use_state,
        };
        let new = || Tracked::found(began.now.mono, main.origin);
        let state = tracked.entry(name.clone()).or_insert_with(new);
        match state.look(&look, main.grace, Open::Keep) {
            Next::LookAt(at) => wait = wait.max(Some(at)),
            Next::Judge(quiet) => members.push(SeenMember {
                temp_info: TempInfo {
                    expected: Some(quiet.fingerprint),
                    quiet: quiet.quiet,
                    unused: quiet.unused,
                    ..member_info(name, main.grace)
                },
                seen,
            }),
        }
    }
    Ok(match wait {
        Some(at) => SetState::Wait(at),
        None => SetState::Ready(members),
    })
}

fn look_at_one(context: SetContext<'_>, name: &OsStr) -> io::Result<LookResult> {
    let SetContext {
        dir,
        policy,
        use_checker,
        our_uid,
        ..
    } = context;
    let mut looked = look_at(dir, name, policy, use_checker, our_uid);
    // The protocol opens and leases all members again.
    if let Ok(LookResult::File(seen)) = &mut looked
        && let Some(checked) = &mut seen.checked
    {
        checked.release();
    }
    looked
}

/// Looks at the companions `names` once, without any history.
pub(super) fn look_once(
    context: SetContext<'_>,
    names: &BTreeSet<OsString>,
    now: Now,
    grace: Duration,
) -> io::Result<SetState> {
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        let seen = match look_at_one(context, name)? {
            LookResult::File(seen) => seen,
            LookResult::Missing => continue,
            LookResult::NotATemp => return Ok(SetState::Kept(Reason::NotRegular)),
        };
        let file = &seen.observation.fingerprint;
        let lag = context.dir.properties().dates.lag(file);
        let quiet = now.wall.since(file.newest()).saturating_sub(lag);
        members.push(SeenMember {
            temp_info: TempInfo {
                quiet,
                unused: quiet.min(now.mono.since_boot()),
                ..member_info(name, grace)
            },
            seen,
        });
    }
    Ok(match members.is_empty() {
        true => SetState::Single,
        false => SetState::Ready(members),
    })
}

/// Returns the facts about a companion that no look has to find out.
fn member_info(name: &OsStr, grace: Duration) -> TempInfo {
    TempInfo {
        name: name.to_owned(),
        parsed: ParsedName::default(),
        reserved: None,
        expected: None,
        quiet: Duration::ZERO,
        unused: Duration::ZERO,
        grace,
        by_shape: false,
        written: None,
        closed: false,
        role: Role::Companion,
    }
}

/// Gathers the evidence about the companions of a temp.
pub(super) fn gather_members(
    dir: &Dir,
    members: &[SeenMember],
    context: EvidenceContext<'_>,
) -> io::Result<Vec<Evidence>> {
    let gather = |member: &SeenMember| {
        let seen = &member.seen;
        let gathered = evidence::gather(
            dir,
            &member.temp_info,
            seen.observation,
            seen.file_use(),
            context,
        );
        gathered.map(|(evidence, _)| evidence)
    };
    members.iter().map(gather).collect()
}

/// Returns the sum of the sizes of companions, in bytes.
pub(super) fn bytes_of(members: &[SeenMember]) -> u64 {
    let sizes = members
        .iter()
        .map(|member| member.seen.observation.fingerprint.size);
    sizes.fold(0, u64::saturating_add)
}

/// Returns the reason for which a temp with these companions is reserved, if there is one.
pub(super) fn reserved(
    context: SetContext<'_>,
    main: &OsStr,
    names: &BTreeSet<OsString>,
) -> Option<Reserved> {
    if names.is_empty() {
        return None;
    }
    if names.len() > MAX_COMPANIONS {
        return Some(Reserved::LargeSet(names.len()));
    }
    let mut all = names.iter().map(OsString::as_os_str).chain([main]);
    if rule!("long-names-of-a-set-are-kept", !all.all(fits_in_claim)) {
        return Some(Reserved::LongNames);
    }
    let exclude = &context.policy.exclude;
    let is_excluded = |name: &&OsString| exclude.excludes(&context.below.join(name));
    let excluded = names.iter().find(is_excluded).cloned();
    rule!("excluded-companion-keeps", excluded, without: None).map(Reserved::ExcludedCompanion)
}
