//! A look at one root: the thin shell that gathers the facts and lets each subject judge them.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use orphand::decide::judge::LeaseCoverage;
use orphand::decide::policy::Policy;
use orphand::look::{Dir, RootError, answer, observe_fd};
use orphand::reap::quarantine;
use orphand::root::Root;
use rustix::fs::{Access as May, AtFlags, Dir as Entries};
use rustix::io::Errno;

use super::super::scan::{FoundClaims, put_back_command};
use super::super::{shell, text};
use super::access::Access;
use super::check::{Check, CheckState};
use super::disk::DiskSpace;
use super::proof_check::FileSystemCheck;
use super::tree::TreeSize;
use super::{access, clock, disk, lease_probe, names, proof_check, sharing, system, tree};

/// A directory to look at.
#[derive(Clone, Debug)]
pub(super) struct CheckedRoot {
    pub(super) path: PathBuf,
    pub(super) policy: Arc<Policy>,
    /// It may hold more than one program's files.
    pub(super) broad: bool,
}

/// What is known of all roots.
#[derive(Debug, Default)]
pub(super) struct RootReport {
    pub(super) checks: Vec<Check>,
    pub(super) directories: TreeSize,
}

/// How long a root has to answer, and everything else that may lie on a mount.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long its directories are counted at most: the rest is for everything else.
const COUNT_LIMIT: Duration = Duration::from_secs(2);

enum Finding {
    Check(Check),
    Directories(TreeSize),
    /// That was all.
    End,
}

/// Looks at all of them at once, each in a thread of its own: a dead mount holds up nobody but its
/// own thread, which the end of the process takes along.
pub(super) fn check_all(wards: Vec<CheckedRoot>) -> RootReport {
    let mut threads: VecDeque<(PathBuf, Receiver<Finding>)> = VecDeque::new();
    // A thread that hangs may keep the process from ending.
    let no_answer = answer::silent(wards.iter().map(|ward| ward.path.as_path()));
    let no_answer: BTreeSet<PathBuf> = no_answer.into_iter().map(Path::to_owned).collect();
    let end = Instant::now() + ANSWER_LIMIT;
    for ward in wards {
        if no_answer.contains(&ward.path) {
            // Nothing is sent, which is reported like silence.
            let (_, found) = unbounded();
            threads.push_back((ward.path, found));
            continue;
        }
        let (send, found) = unbounded();
        threads.push_back((ward.path.clone(), found));
        let thread = std::thread::Builder::new().name("orphand-doctor".into());
        // Without a thread its channel ends unsaid, and that is reported like silence.
        let _ = thread.spawn(move || check_root(&ward, &send));
    }
    let mut visited = RootReport::default();
    for (path, found) in threads {
        loop {
            match found.recv_deadline(end) {
                Ok(Finding::Check(check)) => visited.checks.push(check.for_root(&path)),
                Ok(Finding::Directories(count)) => {
                    visited.directories = visited.directories.plus(count);
                }
                Ok(Finding::End) => break,
                Err(_) => {
                    visited.checks.push(no_answer("root", &path).for_root(&path));
                    break;
                }
            }
        }
    }
    visited
}

/// What `ask` gives, if it answers in time.
pub(super) fn within_limit<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, answer) = bounded(1);
    let thread = std::thread::Builder::new().name("orphand-doctor".into());
    let _ = thread.spawn(move || send.send(ask()));
    answer.recv_timeout(ANSWER_LIMIT).ok()
}

/// Something that gave no answer in time.
pub(super) fn no_answer(check: &'static str, path: &Path) -> Check {
    let (why, fix) = system::NO_ANSWER;
    Check::error(
        check,
        format!(
            "{} does not answer: nothing came for {}. Behind that is {why}",
            text::escaped(path),
            text::span(ANSWER_LIMIT)
        ),
        format!("{fix} {}", shell::word(path)),
    )
}

/// What is found goes out at once: should the next question never be answered, it is known.
fn check_root(ward: &CheckedRoot, found: &Sender<Finding>) {
    let began = Instant::now();
    let tell = |check: Check| _ = found.send(Finding::Check(check));
    if let Some(check) = system::check_before_open(&ward.path) {
        tell(check);
    }
    if let Some((root, dir)) = open(ward, &tell) {
        examine(ward, &dir, &tell);
        let end = began + COUNT_LIMIT;
        tell(claims(&root, end));
        let count = tree::count(&root, end);
        let _ = found.send(Finding::Directories(count));
    }
    let _ = found.send(Finding::End);
}

/// Counts the claims that a killed orphand left. The search stops at `end`.
fn claims(root: &Root, end: Instant) -> Check {
    let is_over = || Instant::now() >= end;
    let found = orphand::scan::find(root, &mut |_, _| {}, &|_| {}, &is_over).unwrap_or_default();
    let claims = FoundClaims::still_present(root, &found.claims);
    match claims.files {
        0 => Check::ok(
            "claims",
            "no temp has the name of a removal that was cut off",
        ),
        _ => Check::warning("claims", claims.describe(), put_back_command(root)),
    }
}

fn open(ward: &CheckedRoot, tell: &dyn Fn(Check)) -> Option<(Root, Dir)> {
    let root = match Root::new(&ward.path, Arc::clone(&ward.policy), ward.broad) {
        Ok(root) => root,
        Err(refused) => {
            tell(access::refused(&refused));
            return None;
        }
    };
    match Dir::open_root(&root.path, None) {
        Ok(dir) => Some((root, dir)),
        Err(error) => {
            tell(access::cannot_open(
                &root.path,
                &error,
                blocked_at(&root.path, &error),
            ));
            None
        }
    }
}

/// The nearest folder on the way that could be looked at, and its owner.
fn blocked_at(path: &Path, error: &RootError) -> Option<(PathBuf, u32)> {
    let RootError::Io(_) = error else {
        return None;
    };
    path.ancestors().find_map(|at| {
        let meta = at.symlink_metadata().ok()?;
        Some((at.to_owned(), meta.uid()))
    })
}

fn examine(ward: &CheckedRoot, dir: &Dir, tell: &dyn Fn(Check)) {
    let trial = lease_probe::run(dir);
    let made = match &trial {
        Ok(_) => Ok(()),
        // Too full to try: the permissions have to answer.
        Err(Errno::NOSPC | Errno::DQUOT) => check_write_access(dir),
        Err(error) => Err(*error),
    };
    if let Ok(seen) = observe_fd(dir.fd()) {
        tell(access::judge(
            dir.path(),
            &Access {
                owner: seen.fingerprint.uid,
                uid: rustix::process::geteuid().as_raw(),
                mode: seen.mode,
                protected: seen.protected,
                listed: check_listing(dir),
                written: made,
            },
        ));
    }
    let place = dir.place();
    tell(proof_check::file_system(&FileSystemCheck {
        name: place.file_system.to_string(),
        kernel: system::file_system_type(dir),
        coverage: place.reach,
        trusted: ward
            .policy
            .trusted_file_systems
            .iter()
            .any(|name| **name == *place.file_system),
        all_seen: place.reach == LeaseCoverage::OpensOnly && system::can_examine_all(),
    }));
    tell(proof_check::lease_probe(&trial));
    let tried = trial.as_ref().ok();
    let folds = tried.map(|trial| trial.folds_case);
    if let Some(check) = names::judge(folds.or_else(|| system::folds_case(dir))) {
        tell(check);
    }
    if let Some(trial) = tried {
        tell(clock::judge_files(trial.clocks_differ));
    }
    let held_back = quarantined(dir);
    tell(disk::quarantine(dir.path(), held_back));
    if let Ok(room) = disk_space(dir) {
        let bytes = held_back.map_or(0, |(_, bytes)| bytes);
        for check in disk::judge(dir.path(), room, bytes) {
            tell(check);
        }
    }
    let real = std::fs::canonicalize(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    tell(sharing::judge(&real, &sharing::shared_dirs()));
}

fn check_write_access(dir: &Dir) -> Result<(), Errno> {
    let may = May::WRITE_OK | May::EXEC_OK;
    rustix::fs::accessat(dir.fd(), ".", may, AtFlags::EACCESS)
}

/// Whether names can be read; a few of them are.
fn check_listing(dir: &Dir) -> Result<(), Errno> {
    let entries = Entries::read_from(dir.fd())?;
    for entry in entries.take(3) {
        entry?;
    }
    // Names alone are not enough: what they stand for is looked at too.
    rustix::fs::accessat(dir.fd(), ".", May::EXEC_OK, AtFlags::EACCESS)
}

/// Files in the quarantine, and the space that they take; `None` where there can be none.
fn quarantined(dir: &Dir) -> Option<(u64, u64)> {
    if !quarantine::is_possible(dir) {
        return None;
    }
    let room = quarantine::Quarantine::open_existing(dir.path(), Some(dir.id())).ok()?;
    let stored = match room {
        Some(room) => room.stored().ok()?,
        None => Vec::new(),
    };
    let bytes = stored.iter().map(|stored| stored.seen.allocated);
    Some((stored.len() as u64, bytes.fold(0, u64::saturating_add)))
}

fn disk_space(dir: &Dir) -> io::Result<DiskSpace> {
    let seen = rustix::fs::fstatvfs(dir.fd())?;
    let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
    Ok(DiskSpace {
        total: bytes(seen.f_blocks),
        free: bytes(seen.f_bfree),
        available: bytes(seen.f_bavail),
        files: seen.f_files,
        files_free: seen.f_ffree,
    })
}

/// The worst of what was found.
pub(super) fn worst(checks: &[Check]) -> CheckState {
    let states = checks.iter().map(|check| check.state);
    states.max().unwrap_or(CheckState::Ok)
}
