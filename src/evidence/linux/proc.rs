//! Reads `/proc`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Reports whether `/proc` shows the processes of our pid namespace by the pids that they have there. A mounted `/proc`
/// always belongs to one namespace. A chroot may have the `/proc` of another namespace or none, and `unshare
/// --pid` without `--mount-proc` leaves the one of the old namespace.
#[must_use]
pub fn shows_our_processes() -> bool {
    let us = std::process::id();
    let Ok(status) = fs::read("/proc/self/status") else {
        return false;
    };
    // One pid for each namespace, from the namespace of `/proc` down to ours.
    let mut pids = namespace_pids(&status);
    match (pids.next(), pids.next()) {
        (first, None) if first == Some(us) => true,
        (Some(_), _) => false,
        // A kernel without namespaces.
        (None, _) => {
            let us = us.to_string();
            fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&us))
        }
    }
}

/// Returns the pids in the line `NSpid`.
pub(super) fn namespace_pids(status: &[u8]) -> impl Iterator<Item = u32> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"NSpid:"));
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    let pids = line.split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok())
}

/// Returns all names in a folder of `/proc` that are numbers.
pub(super) fn numeric_names(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(numbers)
}

pub(super) fn task_dir(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task"))
}

/// Reports whether a file of `/proc` could not be read because its process has ended.
pub(super) fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Reports whether a file of `/proc` could not be read for lack of permission (hidepid, a security profile).
pub(super) fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

pub(super) fn comm(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

pub(super) fn device_number(word: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some(rustix::fs::makedev(number(major)?, number(minor)?))
}

/// Reports whether this process is root in the initial pid and user namespaces. In any other namespace it sees only
/// some of the processes, without an error.
pub(super) fn sees_every_process() -> bool {
    rustix::process::geteuid().is_root()
        && is_namespace("pid", INITIAL_PID_NAMESPACE)
        && is_namespace("user", INITIAL_USER_NAMESPACE)
}

/// `PROC_PID_INIT_INO` of linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// `PROC_USER_INIT_INO` of linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

fn is_namespace(kind: &str, number: u64) -> bool {
    fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|meta| meta.ino() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_all_namespaces_are_parsed() {
        for (status, want) in [
            ("Name:\tx\nNSpid:\t4711\nNSpgid:\t4711\t9\n", &[4711][..]),
            ("Name:\tx\nNSpid:\t4711\t7\nNSpgid:\t4711\t8\n", &[4711, 7]),
            ("NSpid:\t4711\t70\t1\n", &[4711, 70, 1]),
            ("NSpid:\t4711\t7", &[4711, 7]),
            ("NSpid:\n", &[]),
            ("", &[]),
        ] {
            let found: Vec<u32> = namespace_pids(status.as_bytes()).collect();
            assert_eq!(found, want, "{status:?}");
        }
    }
}
