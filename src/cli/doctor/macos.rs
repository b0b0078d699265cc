//! What only macOS has to be asked. Type-checked only; see docs/platforms.md.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use orphand::evidence::LeasedFile;
use orphand::look::Dir;
use orphand::root::Root;

use super::check::Check;
use super::privacy;
use super::tree::TreeSize;

/// How a clock is set right.
pub(super) const CLOCK_CURE: &str = "sudo sntp -sS time.apple.com";

/// What may stand behind a root that does not answer, and what to do.
pub(super) const SILENT: (&str, &str) = (
    "a privacy dialog that waits for an answer, a file server that is away, or a disk that fails",
    "look for a dialog and answer it (System Settings > Privacy & Security), then: df",
);

/// The checks of the machine: FSEvents has no limits to raise.
pub(super) fn machine(_: TreeSize) -> Vec<Check> {
    vec![Check::ok(
        "system",
        "macOS: this program was type-checked for it and has not been run on it; try scan and \
         sweep -n first",
    )]
}

/// `f_fstypename`, which rules use too, is all there is.
pub(super) fn file_system_type(_: &Dir) -> Option<String> {
    None
}

/// Whether names in `dir` that differ in their capitals are one (pathconf(2)).
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

/// Never asked for: no file system here needs it.
pub(super) fn sees_all() -> bool {
    false
}

/// What stands behind a proof.
pub(super) fn proof_by(leased: &LeasedFile) -> &'static str {
    match leased.is_proven_by_kernel() {
        true => "the kernel's refusal to remove a file in use (AT_NODELETEBUSY, macOS 26)",
        false => {
            "a walk over the processes of this user (the kernel's own refusal, AT_NODELETEBUSY of \
             macOS 26, does not work here; system call 226 is not used)"
        }
    }
}

/// What is to be said of a root before it is opened: opening may ask a person.
pub(super) fn beforehand(root: &Path) -> Option<Check> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    privacy::judge(root, home.as_deref())
}

/// The processes of `orphand` that can be seen, but not this one: what each of them does is not
/// asked.
pub(super) fn watchers() -> Vec<u32> {
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
    watchers.sort_unstable();
    watchers
}

fn is_orphand(pid: libc::pid_t) -> bool {
    let mut name = [0_u8; 64];
    // SAFETY: the buffer is valid for writing its length.
    let length = unsafe { libc::proc_name(pid, name.as_mut_ptr().cast(), name.len() as u32) };
    let length = usize::try_from(length).unwrap_or(0);
    name.get(..length) == Some(b"orphand")
}

/// Returns the directories of a watcher that the folder of locks does not show: unknown on this system.
pub(super) fn worked_on(_: u32) -> Vec<Root> {
    Vec::new()
}
