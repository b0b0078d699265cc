//! The facts that exist only on macOS. This file has only been type-checked; see docs/platforms.md.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use orphand::core::sort::sort_by;
use orphand::evidence::CheckedFile;
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;

use super::check::Check;
use super::privacy;
use super::tree::TreeSize;

/// The command that corrects the clock.
pub(super) const CLOCK_FIX: &str = "sudo sntp -sS time.apple.com";

/// The possible causes if a root does not answer, and the fix.
pub(super) const NO_ANSWER: (&str, &str) = (
    "a privacy dialog that waits for an answer, a file server that cannot be reached, or a disk that fails",
    "answer the dialog if there is one (System Settings > Privacy & Security), then: df",
);

/// Runs the checks of the machine. The number of watched directories is limited only by that of open files, which orphand
/// raises itself.
pub(super) fn machine_checks(_: TreeSize) -> Vec<Check> {
    vec![Check::ok(
        "system",
        "macOS: this program has only been type-checked for it, never run on it; try scan and sweep -n first",
    )]
}

/// macOS has no other name of the type than `f_fstypename`, which the rules use too.
pub(super) fn file_system_type(_: &Dir) -> Option<String> {
    None
}

/// Returns whether `dir` ignores upper and lower case in names (pathconf(2)).
pub(super) fn folds_case(dir: &Dir) -> Option<bool> {
    /// `_PC_CASE_SENSITIVE` of sys/unistd.h.
    const CASE_SENSITIVE: libc::c_int = 11;
    // SAFETY: fpathconf takes an open descriptor and a number.
    match unsafe { libc::fpathconf(dir.fd().as_raw_fd(), CASE_SENSITIVE) } {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

/// Returns `false`. It is never called, because no file system of macOS needs this check.
pub(super) fn can_examine_all() -> bool {
    false
}

/// Returns the mechanism of a proof, for people.
pub(super) fn proof_source(checked: &CheckedFile) -> &'static str {
    match checked.is_proven_by_kernel() {
        true => "the kernel's refusal to remove a file in use (AT_NODELETEBUSY, macOS 26)",
        false => {
            "a scan of the processes of this user (the kernel's own refusal, AT_NODELETEBUSY of macOS 26, does not \
             work here; system call 226 is not used)"
        }
    }
}

/// Checks a root before it is opened, because opening it may show a privacy dialog.
pub(super) fn check_before_open(root: &Path) -> Option<Check> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    privacy::judge(root, home.as_deref())
}

/// Returns the pids of the visible `orphand` processes except this one, whatever command they run.
pub(super) fn watcher_pids() -> Vec<u32> {
    let mut pids: Vec<libc::pid_t> = vec![0; 16_384];
    let size = libc::c_int::try_from(size_of_val(pids.as_slice())).unwrap_or(0);
    // SAFETY: the buffer is valid for writing `size` bytes.
    let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) };
    pids.truncate(usize::try_from(count).unwrap_or(0));
    let mut watchers: Vec<u32> = pids
        .into_iter()
        .filter(|&pid| pid > 0 && is_orphand(pid))
        .map(libc::pid_t::cast_unsigned)
        .filter(|&pid| pid != std::process::id())
        .collect();
    sort_by(&mut watchers, Ord::cmp);
    watchers
}

fn is_orphand(pid: libc::pid_t) -> bool {
    let mut name = [0_u8; 64];
    // SAFETY: the buffer is valid for writing its length.
    let length = unsafe { libc::proc_name(pid, name.as_mut_ptr().cast(), name.len() as u32) };
    let length = usize::try_from(length).unwrap_or(0);
    name.get(..length) == Some(b"orphand")
}

/// Returns the roots of a watcher that the lock folder does not show. They are unknown on this system.
pub(super) fn watched_roots(_: u32) -> Vec<Root> {
    Vec::new()
}
