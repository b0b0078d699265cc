//! Looks once at all temps of a directory, and judges them without their history.

use std::ffi::OsString;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::context::{Engine, max_workers};
use super::examine::{Examined, ScannedDir, SharedChecks, judge_now};
use super::groups::judge_groups;
use crate::core::sort::sort_by;
use crate::reap::quarantine::Quarantine;
use crate::sys::mutex::{guard, into_inner};

/// The number of temps that one thread judges at a time, if a directory has more.
const CHUNK: usize = 256;

/// The temps of a directory that were examined, in the order of their names, and those that could not be.
#[derive(Debug, Default)]
pub struct JudgedDir {
    /// The examined temps.
    pub temps: Vec<Examined>,
    /// The names of the others, with the errors.
    pub failed: Vec<(OsString, io::Error)>,
}

/// Judges the temps `names` of a directory, with their groups. A listing of the directory has shown them to be regular
/// files. Files that are no temps any more are left out. A large directory is judged by several threads. `quarantine` is
/// that of the root, if there is one.
#[must_use]
pub fn judge_dir(
    engine: &Engine,
    scanned: &ScannedDir<'_>,
    names: &[OsString],
    quarantine: Option<&Quarantine>,
) -> JudgedDir {
    let mut judged = match names.len() > CHUNK && !may_disturb_each_other(scanned) {
        true => judge_in_threads(engine, scanned, names),
        false => judge_one_by_one(engine, scanned, names),
    };
    judge_groups(scanned.context, scanned.dir, quarantine, &mut judged.temps);
    judged
}

/// Reports whether the look at one temp may open another one, which would then appear to be in use.
fn may_disturb_each_other(scanned: &ScannedDir<'_>) -> bool {
    scanned.siblings.has_targets() || scanned.siblings.has_companions()
}

fn judge_one_by_one(engine: &Engine, scanned: &ScannedDir<'_>, names: &[OsString]) -> JudgedDir {
    let checks = SharedChecks::of_listed();
    let mut judged = JudgedDir::default();
    judged.temps.reserve_exact(names.len());
    for name in names {
        match judge_now(engine, scanned, &checks, name) {
            Ok(temp) => judged.temps.extend(temp),
            Err(error) => judged.failed.push((name.clone(), error)),
        }
    }
    judged
}

fn judge_in_threads(engine: &Engine, scanned: &ScannedDir<'_>, names: &[OsString]) -> JudgedDir {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = names.chunks(CHUNK).nth(at) else {
                return;
            };
            let judged = judge_one_by_one(engine, scanned, chunk);
            guard(&done).push((at, judged));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..max_workers().div_ceil(2) {
            // If no thread can be started, the present thread judges all temps.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut chunks = into_inner(done);
    sort_by(&mut chunks, |(one, _), (other, _)| one.cmp(other));
    let mut all = JudgedDir::default();
    for (_, chunk) in chunks {
        all.temps.extend(chunk.temps);
        all.failed.extend(chunk.failed);
    }
    all
}
