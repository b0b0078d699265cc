//! Removes and moves the temps of a pass, and writes the journal.

use std::collections::HashMap;
use std::ffi::OsString;

use super::{JudgedTemp, KeptTemp, Pass, ReadyTemp, Removal, Round};
use crate::core::event::{Disposed, Event};
use crate::core::judge::{self, Evidence, Reason, Verdict};
use crate::core::observation::Observation;
use crate::core::retention::NeededSpace;
use crate::engine::limits::{self, LimitContext};
use crate::evidence::{self, EvidenceContext, TempInfo};
use crate::fs::dir::Dir;
use crate::reap::{BatchContext, Companion, CompanionResult, Outcome};
use crate::store::journal::LineKind;
use crate::store::json::{self, FileFields, IntentLine, TimeText};
use crate::sys::clock;

impl<'a> Pass<'a> {
    /// Journals the intents, removes the temps, and reports the outcomes. Returns the temps that were kept.
    pub(super) fn dispose<'i>(
        &mut self,
        dir: &Dir,
        removals: Vec<Removal<'i>>,
        context: EvidenceContext<'_>,
    ) -> Vec<KeptTemp<'i>> {
        self.make_quarantine_space(&removals);
        self.journal_intents(&removals);
        let batch_context = BatchContext {
            root: &self.dir_context.root.path,
            id: self.dir_context.id,
            dir,
            use_checker: self.use_checker,
            context,
        };
        let (mut events, mut kept) = (Vec::with_capacity(removals.len()), Vec::new());
        let mut moved: HashMap<String, Vec<OsString>> = HashMap::new();
        for (removal, outcome) in self.engine.reaper.reap(batch_context, removals) {
            let Removal { mut temp, disposed } = removal;
            let of_companions = self.companion_events(&mut temp.judged, &disposed);
            let event = match outcome {
                Outcome::Reaped { freed } => Event::Reaped(Disposed { freed, ..disposed }),
                Outcome::Quarantined { id, folder } => {
                    let name = temp.item.name.clone();
                    moved.entry(folder).or_default().push(name);
                    Event::Quarantined {
                        disposed,
                        id: Some(id),
                        reason: temp.judged.candidate.verdict.reason(),
                    }
                }
                Outcome::Settled => {
                    self.engine.sets.forget(dir.id(), &temp.item.name);
                    self.settle(temp.item);
                    // Another process has removed the main file when its companions were about to be moved.
                    events.extend(of_companions);
                    continue;
                }
                Outcome::Kept(reason) => {
                    kept.extend(self.put_back(temp, reason));
                    continue;
                }
                Outcome::Failed { step, error } => {
                    self.report_failure(disposed.subject, step.action(), &error);
                    self.retry_later(temp.item);
                    // The event of its claim may not have been received yet.
                    if let Some(tracked) = &mut temp.item.temp {
                        tracked.set_claim_pending();
                    }
                    continue;
                }
            };
            temp.item.temp = None;
            self.engine.sets.forget(dir.id(), &temp.item.name);
            events.push(event);
            events.extend(of_companions);
        }
        self.stored.add_moved(self.dir_context, moved);
        let now: TimeText = clock::wall().into();
        let lines = events.iter().map(|event| json::event(event, now));
        self.engine.journal.write(LineKind::Outcome, lines);
        events.into_iter().for_each(&mut *self.emit);
        kept
    }

    /// Writes the intents to take the temps and their companions to the journal.
    fn journal_intents(&self, removals: &[Removal<'_>]) {
        let members: Vec<Vec<Disposed>> = removals
            .iter()
            .map(|removal| self.disposed_companions(&removal.temp.judged, &removal.disposed))
            .collect();
        let now = clock::wall().into();
        let intents: Vec<Intent<'_>> = removals
            .iter()
            .zip(&members)
            .flat_map(|(removal, members)| intents(removal, members))
            .collect();
        let lines = intents.iter().map(|intent| intent.line(now));
        rule!(
            "intents-are-written-first",
            self.engine.journal.write(LineKind::Intent, lines),
            without: (),
        );
    }

    /// Updates the tracking state of a temp that the protocol kept or put back for `reason`. Returns the temp if that is
    /// to be reported.
    fn put_back<'i>(&self, temp: ReadyTemp<'i>, reason: Reason) -> Option<KeptTemp<'i>> {
        let is_first_proof = temp.judged.candidate.looked.is_some();
        if let Some(tracked) = &mut temp.item.temp {
            if reason == Reason::Changed {
                // The file was used by another process in the meantime, so its grace starts again.
                tracked.reset(clock::mono(), temp.judged.grace());
                // The sweep reports it as young at its end: it may have changed long before the protocol.
                if is_first_proof && self.round == Round::Second {
                    return None;
                }
            } else if rule!("late-holder-is-noted", reason.is_held())
                // A look that cannot determine the holders counts as one that saw a holder.
                || (is_first_proof && reason == Reason::CannotTell)
            {
                tracked.mark_held();
            }
        }
        Some(KeptTemp { temp, reason })
    }

    pub(super) fn disposed(&self, temp: &JudgedTemp) -> Disposed {
        let temp_info = &temp.candidate.temp_info;
        let (size, pid) = (temp.observation().size(), temp_info.parsed.pid);
        let target = evidence::target_name(&temp_info.parsed, temp.target);
        let process = self.engine.writers.process_of(temp.file(), pid);
        let policy = &self.dir_context.root.policy;
        Disposed {
            quiet: temp_info.quiet,
            target: target.map(|name| self.dir_context.path(name)),
            target_state: temp.evidence.target,
            writer_pid: pid,
            writer: process.as_ref().and_then(|process| process.name.clone()),
            process,
            allowed: judge::allowed(&temp.evidence, policy),
            ..Disposed::new(self.dir_context.subject(&temp_info.name, Some(size)))
        }
    }

    /// Returns what is reported about the companions of a temp.
    pub(super) fn disposed_companions(&self, temp: &JudgedTemp, main: &Disposed) -> Vec<Disposed> {
        let companions = temp.candidate.companions.iter().zip(&temp.companions);
        let disposed = |(companion, evidence): (&Companion, &Evidence)| {
            let (temp_info, size) = (&companion.temp_info, evidence.observation.size());
            Disposed {
                subject: self.dir_context.subject(&temp_info.name, Some(size)),
                quiet: temp_info.quiet,
                ..main.clone()
            }
        };
        companions.map(disposed).collect()
    }

    /// Returns the events about the companions of a temp that went through the protocol.
    fn companion_events(&self, temp: &mut JudgedTemp, main: &Disposed) -> Vec<Event> {
        let all = self.disposed_companions(temp, main);
        let reason = temp.candidate.verdict.reason();
        let results = temp.candidate.companions.iter_mut();
        let results = results.map(|companion| std::mem::take(&mut companion.result));
        let event = |(disposed, result)| match result {
            CompanionResult::Left => None,
            CompanionResult::Reaped(freed) => Some(Event::Reaped(Disposed { freed, ..disposed })),
            CompanionResult::Quarantined(id) => Some(Event::Quarantined {
                disposed,
                id: Some(id),
                reason,
            }),
        };
        all.into_iter().zip(results).filter_map(event).collect()
    }

    /// Frees space in the quarantine, as far as its limits permit, if the temps to be moved do not fit.
    fn make_quarantine_space(&mut self, removals: &[Removal<'_>]) {
        let moves = removals
            .iter()
            .map(|removal| &*removal.temp.judged)
            .filter(|temp| matches!(temp.candidate.verdict, Verdict::Quarantine(_)));
        let bytes = moves.map(JudgedTemp::allocated);
        let wanted = NeededSpace {
            total: bytes.clone().fold(0, u64::saturating_add),
            smallest: bytes.min().unwrap_or(0),
        };
        let (usage, dir_context) = (self.engine.reaper.usage(), self.dir_context);
        if wanted.total == 0
            || !usage.lacks_room_for(&dir_context.root.path, dir_context.id, wanted.total)
        {
            return;
        }
        // Nothing is dropped because of its age here.
        let context = LimitContext {
            wanted,
            ..LimitContext::new(self.engine, self.use_checker)
        };
        loop {
            let result = limits::enforce_limits(dir_context.root, dir_context.id, context);
            result.events.into_iter().for_each(&mut *self.emit);
            if !result.has_more {
                return;
            }
        }
    }
}

/// Returns the intents to remove a temp and its companions.
fn intents<'r>(
    removal: &'r Removal<'_>,
    companions: &'r [Disposed],
) -> impl Iterator<Item = Intent<'r>> {
    let temp = &*removal.temp.judged;
    let main = Intent {
        temp,
        disposed: &removal.disposed,
        temp_info: &temp.candidate.temp_info,
        seen: temp.observation(),
    };
    let members = temp.candidate.companions.iter().zip(&temp.companions);
    let companion =
        |(disposed, (companion, evidence)): (&'r Disposed, (&'r Companion, &'r Evidence))| Intent {
            temp,
            disposed,
            temp_info: &companion.temp_info,
            seen: &evidence.observation,
        };
    let companions = companions.iter().zip(members).map(companion);
    std::iter::once(main).chain(companions)
}

/// The intent to remove a temp or one of its companions.
struct Intent<'r> {
    /// The temp.
    temp: &'r JudgedTemp,
    /// What is reported about the file.
    disposed: &'r Disposed,
    temp_info: &'r TempInfo,
    seen: &'r Observation,
}

impl<'r> Intent<'r> {
    fn line(&self, now: TimeText) -> IntentLine<'r> {
        let Intent {
            temp,
            disposed,
            temp_info,
            seen,
        } = *self;
        let (file, candidate) = (&seen.fingerprint, &temp.candidate);
        IntentLine {
            time: now,
            file: FileFields {
                path: Some(disposed.subject.path.as_path().into()),
                root: Some(disposed.subject.root.as_path().into()),
                bytes: Some(file.size),
                disk_bytes: Some(seen.allocated),
            },
            verdict: candidate.verdict.as_str(),
            reason: candidate.verdict.reason().map(Reason::as_str),
            grammar: temp_info.parsed.grammar.as_deref(),
            quiet_ms: json::ms(temp_info.quiet),
            grace_ms: json::ms(temp_info.grace),
            target: disposed.target.as_deref().map(Into::into),
            writer_pid: temp_info.parsed.pid,
            dev: file.dev,
            ino: file.ino,
            uid: file.uid,
            mode: seen.mode,
            links: file.links,
            mtime: file.mtime.into(),
            ctime: file.ctime.into(),
        }
    }
}
