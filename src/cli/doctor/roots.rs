//! Gathers the facts of each root, and passes them to the functions that judge them.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use orphand::core::judge::LeaseCoverage;
use orphand::core::policy::Policy;
use orphand::core::sort::set_of;
use orphand::fs::dir::{Dir, RootError, observe_fd};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::reap::quarantine::{self, StoredSum};
use rustix::fs::{Access as May, AtFlags, Dir as Entries};
use rustix::io::Errno;

use super::access::{self, Access};
use super::check::Check;
use super::proof::{self, FileSystemCheck};
use super::storage::{self, DiskSpace};
use super::system;
use super::tree::{self, TreeSize};
use crate::cli::output::{shell, text};

/// A directory to check.
#[derive(Clone, Debug)]
pub(super) struct CheckedRoot {
    pub(super) path: PathBuf,
    pub(super) policy: Arc<Policy>,
    /// The rule allows a broad root, one that may have files of many programs.
    pub(super) broad: bool,
}

/// The findings of all roots.
#[derive(Debug, Default)]
pub(super) struct RootReport {
    pub(super) checks: Vec<Check>,
    pub(super) directories: TreeSize,
}

/// The time limit for the answer of a root, and of any other path that may be on a mount.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// The time limit for the walk through a root. The rest of [`ANSWER_LIMIT`] is for the other checks.
const WALK_LIMIT: Duration = Duration::from_secs(2);

enum Finding {
    Check(Check),
    Directories(TreeSize),
    /// The checks of the root are complete.
    End,
}

/// Checks all roots at the same time, each in a thread of its own. A mount that hangs blocks only its own thread, which
/// ends with the process.
pub(super) fn check_all(roots: Vec<CheckedRoot>) -> RootReport {
    let mut threads = VecDeque::<(PathBuf, Receiver<Finding>)>::new();
    // A thread that hangs may keep the process from ending, so roots that do not answer get none.
    let unanswered = response::unresponsive(roots.iter().map(|checked| checked.path.as_path()));
    let unanswered: BTreeSet<PathBuf> = set_of(unanswered.into_iter().map(Path::to_owned));
    let end = Instant::now() + ANSWER_LIMIT;
    for checked in roots {
        let (send, found) = unbounded();
        threads.push_back((checked.path.clone(), found));
        // A channel without a sender is reported as no answer, also if no thread can be started.
        if !unanswered.contains(&checked.path) {
            let thread = std::thread::Builder::new().name("orphand-doctor".into());
            let _ = thread.spawn(move || check_root(&checked, &send));
        }
    }
    let mut report = RootReport::default();
    for (path, found) in threads {
        loop {
            match found.recv_deadline(end) {
                Ok(Finding::Check(check)) => report.checks.push(check.for_root(&path)),
                Ok(Finding::Directories(count)) => {
                    report.directories = report.directories.plus(count);
                }
                Ok(Finding::End) => break,
                Err(_) => {
                    report.checks.push(no_answer("root", &path).for_root(&path));
                    break;
                }
            }
        }
    }
    report
}

/// Returns the result of `ask`, or `None` if it takes longer than the limit.
pub(super) fn within_limit<T: Send + 'static>(
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, answer) = bounded(1);
    let thread = std::thread::Builder::new().name("orphand-doctor".into());
    let _ = thread.spawn(move || send.send(ask()));
    answer.recv_timeout(ANSWER_LIMIT).ok()
}

/// Returns the check for a path that gave no answer in time.
pub(super) fn no_answer(check: &'static str, path: &Path) -> Check {
    let (why, fix) = system::NO_ANSWER;
    Check::error(
        check,
        format!(
            "{} does not answer: no reply within {}. Possible causes: {why}",
            text::escaped(path),
            text::span(ANSWER_LIMIT)
        ),
        format!("{fix} {}", shell::word(path)),
    )
}

/// Checks one root. Each finding is sent at once, so that it is reported even if the next system call hangs.
fn check_root(checked: &CheckedRoot, found: &Sender<Finding>) {
    let began = Instant::now();
    let emit = |check: Check| _ = found.send(Finding::Check(check));
    if let Some(check) = system::check_before_open(&checked.path) {
        emit(check);
    }
    if let Some((root, dir)) = open(checked, &emit) {
        examine(checked, &dir, &emit);
        let (size, claims) = tree::walk(&root, began + WALK_LIMIT);
        emit(claims);
        let _ = found.send(Finding::Directories(size));
    }
    let _ = found.send(Finding::End);
}

fn open(checked: &CheckedRoot, emit: &dyn Fn(Check)) -> Option<(Root, Dir)> {
    let root = match Root::new(&checked.path, Arc::clone(&checked.policy), checked.broad) {
        Ok(root) => root,
        Err(refused) => {
            emit(access::refused(&refused));
            return None;
        }
    };
    match Dir::open_root(&root.path, None) {
        Ok(dir) => Some((root, dir)),
        Err(error) => {
            let blocked_by = blocked_at(&root.path, &error);
            emit(access::cannot_open(&root.path, &error, blocked_by));
            None
        }
    }
}

/// Returns the nearest ancestor of `path` that can be examined, and its owner.
fn blocked_at(path: &Path, error: &RootError) -> Option<(PathBuf, u32)> {
    let RootError::Io(_) = error else {
        return None;
    };
    path.ancestors().find_map(|at| {
        let meta = at.symlink_metadata().ok()?;
        Some((at.to_owned(), meta.uid()))
    })
}

fn examine(checked: &CheckedRoot, dir: &Dir, emit: &dyn Fn(Check)) {
    let probe = proof::probe(dir);
    let made = match &probe {
        Ok(_) => Ok(()),
        // The disk is too full for the probe: the permissions decide.
        Err(Errno::NOSPC | Errno::DQUOT) => check_write_access(dir),
        Err(error) => Err(*error),
    };
    if let Ok(seen) = observe_fd(dir.fd()) {
        emit(access::judge(
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
    emit(proof::file_system(&file_system(dir, &checked.policy)));
    emit(proof::judge(&probe));
    let probe = probe.ok();
    let folds = probe.as_ref().map(|probe| probe.folds_case);
    if let Some(check) = storage::names(folds.or_else(|| system::folds_case(dir))) {
        emit(check);
    }
    if let Some(probe) = probe {
        emit(storage::dates(probe.clocks_differ));
    }
    let contents = quarantine_contents(dir);
    emit(storage::quarantine(dir.path(), contents));
    if let Ok(space) = disk_space(dir) {
        let quarantined_size = contents.map_or(0, |sum| sum.size.disk_bytes);
        for check in storage::space(dir.path(), space, quarantined_size) {
            emit(check);
        }
    }
    let real = std::fs::canonicalize(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    emit(storage::sharing(&real, &storage::shared_dirs()));
}

fn file_system(dir: &Dir, policy: &Policy) -> FileSystemCheck {
    let properties = dir.properties();
    let mut trusted = policy.trusted_file_systems.iter();
    FileSystemCheck {
        name: properties.file_system.to_string(),
        kernel: system::file_system_type(dir),
        coverage: properties.lease_coverage,
        trusted: trusted.any(|name| **name == *properties.file_system),
        all_seen: properties.lease_coverage == LeaseCoverage::OpensOnly
            && system::can_examine_all(),
    }
}

fn check_write_access(dir: &Dir) -> Result<(), Errno> {
    let access = May::WRITE_OK | May::EXEC_OK;
    rustix::fs::accessat(dir.fd(), ".", access, AtFlags::EACCESS)
}

/// Checks that the first names can be read.
fn check_listing(dir: &Dir) -> Result<(), Errno> {
    let entries = Entries::read_from(dir.fd())?;
    for entry in entries.take(3) {
        entry?;
    }
    // orphand examines the files too, so reading the names is not enough.
    rustix::fs::accessat(dir.fd(), ".", May::EXEC_OK, AtFlags::EACCESS)
}

/// Returns the files in the quarantine, or `None` if no quarantine is possible.
fn quarantine_contents(dir: &Dir) -> Option<StoredSum> {
    if !quarantine::is_possible(dir) {
        return None;
    }
    match quarantine::Quarantine::open_existing(dir.path(), Some(dir.id())).ok()? {
        Some(quarantine) => quarantine.sum().ok(),
        None => Some(StoredSum::default()),
    }
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
