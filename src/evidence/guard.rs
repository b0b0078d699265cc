//! Checks guard files: the files that the key `unless_open` of a rule names.
//!
//! A program uses its temps only while it has its guard file open, and looks for them only after it has opened that
//! file. So the check is made once for all temps of a pass, before they are judged, and once more for each batch, after
//! its temps have been claimed: a program that opens the guard file after that check no longer finds their names.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Mutex;

use super::locks::Locks;
use super::{FileId, scan_processes, system};
use crate::core::judge::{GuardFile, GuardState, LeaseCoverage};
use crate::core::observation::{Kind, Observation, UseState};
use crate::core::policy::Policy;
use crate::fs::dir::Dir;
use crate::fs::response;
use crate::sys::mutex::guard;

/// Two checks at the same time would find each other: a check opens the file.
static CHECK: Mutex<()> = Mutex::new(());

/// The facts that a check of a guard file needs.
#[derive(Clone, Copy, Debug)]
pub struct GuardContext<'a> {
    /// The directory of the temp.
    pub dir: &'a Dir,
    /// Its name.
    pub name: &'a OsStr,
    /// The rule.
    pub policy: &'a Policy,
    /// The effective uid of this process.
    pub our_uid: u32,
    /// The table of locked files.
    pub locks: &'a Locks,
}

/// The checks of the guard files of one directory. Each file is checked once.
#[derive(Debug, Default)]
pub struct GuardChecks {
    checked: RefCell<Vec<GuardFile>>,
}

impl GuardChecks {
    /// Checks the guard files of a temp, or returns the result of the first check. Of several files, the first one that
    /// keeps the temp is returned. Returns `None` if there is no guard file.
    #[must_use]
    pub fn check(&self, context: GuardContext<'_>) -> Option<GuardFile> {
        let mut first = None;
        for path in context.policy.guard_files(context.name) {
            let guard = self.check_once(path, context);
            if guard.state.reason().is_some() {
                return Some(guard);
            }
            first = first.or(Some(guard));
        }
        first
    }

    fn check_once(&self, path: &Path, context: GuardContext<'_>) -> GuardFile {
        let mut checked = self.checked.borrow_mut();
        if let Some(known) = checked.iter().find(|known| known.path == path) {
            return known.clone();
        }
        let guard = check_file(path, context);
        checked.push(guard.clone());
        guard
    }
}

fn check_file(path: &Path, context: GuardContext<'_>) -> GuardFile {
    let (state, seen) = look_at(path, context);
    GuardFile {
        path: path.to_owned(),
        state,
        seen: seen.map(|seen| seen.fingerprint),
    }
}

/// Returns the state of the guard file `path`. Every error means that the state is unknown.
fn look_at(path: &Path, context: GuardContext<'_>) -> (GuardState, Option<Observation>) {
    let unknown = (GuardState::Unknown, None);
    // A relative path is on the file system of the directory, which has just responded, or near it.
    if let (true, Some(parent)) = (path.is_absolute(), path.parent())
        && !response::responds(parent)
    {
        return unknown;
    }
    let Ok((at, name)) = context.dir.open_parent_of(path) else {
        return unknown;
    };
    // Elsewhere another machine may use the file, or may just have created it.
    if !rule!("guard-needs-a-proof", at.properties().has_proof(context.policy), without: true) {
        return unknown;
    }
    match at.observe(&name) {
        Ok(None) => (GuardState::Missing, None),
        Ok(Some(seen)) => (state_of(&at, &name, &seen, context), Some(seen)),
        Err(_) => unknown,
    }
}

fn state_of(at: &Dir, name: &OsStr, seen: &Observation, context: GuardContext<'_>) -> GuardState {
    let file = &seen.fingerprint;
    let is_ours = context.our_uid == 0 || file.uid == context.our_uid;
    // A symlink may be a lock itself, and a FIFO cannot be leased. Opening a device may have effects.
    let is_checkable = file.kind == Kind::File && !seen.dataless && is_on_mount_of(at, seen);
    let use_state = match is_ours && rule!("guard-is-a-file", is_checkable, without: true) {
        true => {
            let _guard = guard(&CHECK);
            prove(at, name, seen)
        }
        false => UseState::Unknown,
    };
    match use_state {
        UseState::Unused => GuardState::Unused,
        UseState::InUse | UseState::Locked => GuardState::InUse,
        // A lock in the table proves the use, but a missing one proves nothing.
        UseState::Unknown if context.locks.is_locked(file) => GuardState::InUse,
        UseState::Unknown => GuardState::Unknown,
    }
}

/// Reports whether the file is on the mount of its directory, so that the properties of the directory apply to it.
fn is_on_mount_of(at: &Dir, seen: &Observation) -> bool {
    let there = at.properties();
    match (seen.mount, there.mount) {
        (Some(mount), Some(dir_mount)) => mount == dir_mount,
        _ => !seen.mount_root && seen.fingerprint.dev == there.dev,
    }
}

/// Returns the use state of the guard file, by the proof that is used for temps.
fn prove(at: &Dir, name: &OsStr, seen: &Observation) -> UseState {
    let use_state = system::guard_use(at, name);
    let coverage = at.lease_coverage();
    let needs_scan = use_state == UseState::Unused && coverage == LeaseCoverage::OpensOnly;
    if rule!("guard-on-overlay-is-searched-for", needs_scan) {
        let file = FileId::from(&seen.fingerprint);
        if !scan_processes(&[file], coverage).proves_unmapped(file) {
            return UseState::Unknown;
        }
    }
    use_state
}
