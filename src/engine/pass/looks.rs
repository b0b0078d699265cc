//! The looks at the temps of a pass, and at their companions, and their tracking state.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::{JudgedTemp, Pass, PassItem, ReadyTemp, Round};
use crate::core::judge::{LeaseCoverage, Reason};
use crate::core::observation::UseState;
use crate::core::policy::{Open, Policy};
use crate::core::reserved::Reserved;
use crate::core::temp_name::ParsedName;
use crate::core::tracker::{Look, Next, Origin};
use crate::engine::clock_reading::ClockReading;
use crate::engine::look::{LookResult, Proof, SeenFile, look_at, look_at_listed};
use crate::engine::sets::{self, MainLook, SeenMember, SetContext, SetState};
use crate::evidence::{EvidenceContext, Role, TempInfo, UseChecker};
use crate::fs::dir::Dir;

impl<'a> Pass<'a> {
    /// Looks at one temp, and updates its tracking state. Returns the temp with its verdict if its grace is over.
    pub(super) fn examine<'i>(
        &mut self,
        dir: &Dir,
        item: &'i mut PassItem,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> Option<ReadyTemp<'i>> {
        if let Some(judged) = self.judge_unproven(dir, item, clock_reading, context) {
            return Some(ReadyTemp { item, judged });
        }
        let was_looked_at = item.temp.as_ref().is_some_and(|temp| temp.seen().is_some());
        let judged = match self.track(dir, item, clock_reading, context.our_uid) {
            Ok(Some((seen, temp_info))) => {
                self.judge(dir, item, seen, temp_info, clock_reading, context)
            }
            Ok(None) if !was_looked_at => {
                let looked = self.look_at_found_set(dir, item, clock_reading, context.our_uid);
                looked.map(|()| None)
            }
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        match judged {
            Ok(Some(judged)) => Some(ReadyTemp { item, judged }),
            Ok(None) => None,
            Err(error) => {
                let subject = self.dir_context.subject(&item.name, None);
                self.report_failure(subject, "examine it", &error);
                self.retry_later(item);
                None
            }
        }
    }

    /// Judges a temp that lacks only the proof that no process uses it, as if it had the proof. Returns it if the
    /// verdict is to remove it: then the protocol makes the proof right afterwards, so this look skips it. Otherwise, and if
    /// any call fails, the caller looks at the temp in full.
    fn judge_unproven(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> Option<Box<JudgedTemp>> {
        let policy = self.policy();
        let looked = item.looked.take();
        let properties = dir.properties();
        let has_protocol = UseChecker::HOLDS_LEASES
            && policy.open == Open::Keep
            && !policy.is_dry_run()
            && properties.lease_coverage == LeaseCoverage::OpensAndMaps
            && policy.is_temp(self.dir_context.below, &item.name);
        let temp = item.temp.as_ref();
        let temp = temp.filter(|temp| has_protocol && temp.was_unused())?;
        let observation = match looked {
            Some(looked) => *looked,
            None => dir.observe(&item.name).ok()??,
        };
        let fingerprint = observation.fingerprint;
        let parsed = policy.names.parse(&item.name);
        let lag = properties.dates.lag(&fingerprint);
        let grace = policy.grace_of(&parsed, fingerprint.size == 0, lag);
        // Another name of the file may be due as well, and the file would be found in use: by this process. The extended
        // attributes of an empty file are only read once it is open.
        let is_candidate = fingerprint.links == 1
            && fingerprint.size > 0
            && (context.our_uid == 0 || fingerprint.uid == context.our_uid)
            && temp.lacks_only_proof(&fingerprint, clock_reading.now.mono, grace);
        if !is_candidate
            || !self
                .siblings(dir)
                .ok()?
                .companions_of(&item.name)
                .is_empty()
        {
            return None;
        }
        let look = Look {
            began: clock_reading.now,
            ended: clock_reading.now,
            last_jump: clock_reading.last_jump(),
            fingerprint,
            lag,
            use_state: UseState::Unused,
        };
        let temp_info = enter_look(policy, item, parsed, &look, grace)?;
        let seen = SeenFile {
            observation,
            use_state: UseState::Unused,
            checked: None,
            proof: Proof::ByProtocol,
        };
        let judged = self.judge(dir, item, seen, temp_info, clock_reading, context);
        judged.ok()?.filter(|judged| judged.is_left_to_protocol())
    }

    /// Looks at one temp, and updates its tracking state. Returns the file and its times if its grace is over.
    fn track(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<Option<(SeenFile, TempInfo)>> {
        let policy = self.policy();
        // The callback accepts names that match any rule. A name that does not match this rule is not a temp of this
        // root.
        let is_temp = policy.is_temp(self.dir_context.below, &item.name);
        let shapes = &self.engine.shapes;
        let by_shape = !is_temp && shapes.appeared(dir, &item.name).is_some();
        if !is_temp && !by_shape {
            item.temp = None;
        }
        let Some(temp) = item.temp.as_mut() else {
            return Ok(None);
        };
        let parsed = policy.names.parse(&item.name);
        // Only a look shows whether the file is empty. Until then the shorter grace applies.
        let grace = |is_empty| policy.grace_of(&parsed, is_empty, Duration::ZERO);
        let now = clock_reading.now;
        if temp.postpone_first_look(grace(true).min(grace(false)), now.mono) {
            return Ok(None);
        }
        let look = match self.round {
            Round::First { .. } => look_at_listed,
            Round::Watch | Round::Second => look_at,
        };
        let seen = match look(dir, &item.name, policy, self.use_checker, our_uid)? {
            LookResult::File(seen) => seen,
            LookResult::Missing => {
                self.settle(item);
                return Ok(None);
            }
            LookResult::NotATemp => {
                item.temp = None;
                return Ok(None);
            }
        };
        let ended = clock_reading.again();
        let fingerprint = seen.observation.fingerprint;
        if by_shape && !shapes.takes(dir, &policy.names, &item.name, &fingerprint)? {
            item.temp = None;
            return Ok(None);
        }
        let lag = dir.properties().dates.lag(&fingerprint);
        let grace = policy.grace_of(&parsed, fingerprint.size == 0, lag);
        if temp.postpone_first_look(grace, now.mono) {
            return Ok(None);
        }
        if let Some(pid) = parsed.pid {
            // For messages: this process may have ended by the time the temp is judged.
            self.engine.writers.learn(pid, fingerprint.uid);
        }
        let look = Look {
            began: now,
            ended: ended.now,
            last_jump: ended.last_jump(),
            fingerprint,
            lag,
            use_state: seen.use_state,
        };
        let temp_info = enter_look(policy, item, parsed, &look, grace);
        item.looked =
            (self.round == Round::First { remembers: true }).then(|| Box::new(seen.observation));
        Ok(temp_info.map(|temp_info| {
            (
                seen,
                TempInfo {
                    by_shape,
                    ..temp_info
                },
            )
        }))
    }

    /// Looks at the companions of a temp that a scan has found, at its own first look. So both are ready at the same
    /// time. The companions of a temp whose creation was seen are looked at once it is ready itself.
    fn look_at_found_set(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<()> {
        let temp = item.temp.as_mut();
        let Some(temp) = temp.filter(|temp| temp.seen().is_some()) else {
            return Ok(());
        };
        if temp.origin() == Origin::Created {
            return Ok(());
        }
        let names = self.siblings(dir)?.companions_of(&item.name);
        let context = self.set_context(dir, our_uid);
        if names.is_empty() || sets::reserved(context, &item.name, &names).is_some() {
            return Ok(());
        }
        let lag = temp_lag(dir);
        let parsed = self.policy().names.parse(&item.name);
        let main = MainLook {
            name: &item.name,
            clock_reading,
            grace: self.policy().grace_of(&parsed, false, lag),
            origin: temp.origin(),
        };
        if let SetState::Wait(at) = self.engine.sets.look(context, main, &names)? {
            temp.wait_until(at);
        }
        Ok(())
    }

    fn set_context<'d>(&self, dir: &'d Dir, our_uid: u32) -> SetContext<'d>
    where
        'a: 'd,
    {
        SetContext {
            dir,
            below: self.dir_context.below,
            policy: self.policy(),
            use_checker: self.use_checker,
            our_uid,
        }
    }

    /// Looks at the companions of a temp whose own grace is over. Returns `None` if the temp is to be looked at again
    /// later.
    pub(super) fn look_at_set(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        temp_info: &mut TempInfo,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<Option<(Vec<SeenMember>, Option<Reason>)>> {
        let names = self.siblings(dir)?.companions_of(&item.name);
        let context = self.set_context(dir, our_uid);
        if temp_info.reserved.is_none() {
            temp_info.reserved = sets::reserved(context, &item.name, &names);
        }
        let Some(temp) = item.temp.as_mut().filter(|_| temp_info.reserved.is_none()) else {
            return Ok(Some((Vec::new(), None)));
        };
        let now = clock_reading.now;
        // With its companions an empty temp has content.
        if !names.is_empty() {
            let lag = temp_lag(dir);
            let grace = self.policy().grace_of(&temp_info.parsed, false, lag);
            temp_info.grace = grace.max(temp_info.grace);
        }
        let main = MainLook {
            name: &item.name,
            clock_reading,
            grace: temp_info.grace,
            origin: Origin::FoundWithHalfCredit,
        };
        let missing = temp_info.grace.saturating_sub(temp_info.quiet);
        Ok(match self.engine.sets.look(context, main, &names)? {
            SetState::Single => Some((Vec::new(), None)),
            SetState::Changed => {
                temp.reset(now.mono, temp_info.grace);
                None
            }
            SetState::Wait(at) => {
                temp.wait_until(at.max(now.mono.after(missing)));
                None
            }
            SetState::Ready(_) | SetState::Kept(_) if !missing.is_zero() => {
                temp.wait_until(now.mono.after(missing));
                None
            }
            SetState::Kept(reason) => Some((Vec::new(), Some(reason))),
            SetState::Ready(members) => {
                temp_info.role = Role::Main {
                    companion_bytes: sets::bytes_of(&members),
                };
                Some((members, None))
            }
        })
    }
}

/// Enters a look into the tracking state of a temp. Returns the temp with its times if its grace is over.
fn enter_look(
    policy: &Policy,
    item: &mut PassItem,
    parsed: ParsedName,
    look: &Look,
    grace: Duration,
) -> Option<TempInfo> {
    let temp = item.temp.as_mut()?;
    let Next::Judge(quiet) = temp.look(look, grace, policy.open) else {
        return None;
    };
    Some(TempInfo {
        name: item.name.clone(),
        reserved: match temp.was_target() {
            true => Some(Reserved::WasTarget),
            false => policy.names.reserved(item.name.as_bytes()),
        },
        parsed,
        expected: Some(quiet.fingerprint),
        quiet: quiet.quiet,
        unused: quiet.unused,
        grace,
        written: temp.written_by(look),
        closed: temp.is_closed(),
        by_shape: false,
        role: Role::Single,
    })
}

/// Returns the longest time by which a change of a file in `dir` may be later than its dates show.
fn temp_lag(dir: &Dir) -> Duration {
    dir.properties().dates.usual_lag()
}
