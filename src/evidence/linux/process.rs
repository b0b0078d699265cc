//! Reads facts about a process from the kernel: its program, its control group, and its end.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::core::process::ExitStatus;

/// Returns the path of the program of the process `pid`.
pub(in crate::evidence) fn program(pid: u32) -> Option<PathBuf> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // The kernel adds this if the file was replaced, as upgrades do.
    let path = exe
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    Some(path.map_or(exe.clone(), PathBuf::from))
}

/// Returns the last part of the control group of the process `pid` (cgroups(7)). `None` for the root group.
pub(in crate::evidence) fn unit(pid: u32) -> Option<String> {
    let groups = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    last_part(&String::from_utf8_lossy(&groups))
}

/// Returns the last part of the path in the line of version 2, or else of systemd's hierarchy of version 1.
fn last_part(groups: &str) -> Option<String> {
    let path_of = |start: &str| groups.lines().find_map(|line| line.strip_prefix(start));
    let systemd = || {
        let mut lines = groups.lines();
        lines.find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path))
    };
    let path = path_of("0::")
        .filter(|path| *path != "/")
        .or_else(systemd)?;
    let part = path.rsplit('/').next().filter(|part| !part.is_empty())?;
    Some(part.to_owned())
}

/// A handle of a process, which tells how the process ended (pidfd_open(2)). It refers to the same process also after
/// another one has got the pid.
#[derive(Debug)]
pub(in crate::evidence) struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens a handle of the process `pid`, if it runs.
    pub(in crate::evidence) fn open(pid: u32) -> Option<ProcessHandle> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(ProcessHandle(pidfd_open(pid, PidfdFlags::empty()).ok()?))
    }

    /// Returns how the process ended. `None` if it runs, is a zombie, or the kernel is older than Linux 6.15.
    pub(in crate::evidence) fn exit_status(&self) -> Option<ExitStatus> {
        let mut info = PidfdInfo {
            mask: PIDFD_INFO_EXIT,
            ..PidfdInfo::default()
        };
        // SAFETY: the descriptor is open, and `info` is valid for the call, which fills it. Its size is in the number
        // of the request.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
        let is_known = result == 0 && info.mask & PIDFD_INFO_EXIT != 0;
        is_known.then(|| ExitStatus::from_wait(info.exit_code))
    }
}

/// `struct pidfd_info` of linux/pidfd.h, in its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid and ppid, and four user ids and group ids each.
    ids: [u32; 11],
    exit_code: u32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    (3 << 30 | size_of::<PidfdInfo>() << 16 | 0xFF << 8 | 11) as libc::Ioctl;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_control_group_is_found() {
        for (groups, want) in [
            (
                "0::/user.slice/user-1000.slice/app.slice/openclaw.service\n",
                Some("openclaw.service"),
            ),
            ("0::/\n", None),
            ("", None),
            (
                "12:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/\n",
                Some("a.service"),
            ),
            ("4:memory:/docker/0123\n", None),
        ] {
            assert_eq!(last_part(groups).as_deref(), want, "{groups:?}");
        }
    }

    #[test]
    fn the_end_of_another_process_is_known_or_null() {
        use std::process::{Command, Stdio};
        let start = || {
            Command::new("cat")
                .stdin(Stdio::piped())
                .spawn()
                .expect("cat")
        };
        let mut child = start();
        let handle = ProcessHandle::open(child.id()).expect("a handle");
        assert_eq!(handle.exit_status(), None, "it runs");
        child.kill().expect("a kill");
        child.wait().expect("a status");
        // Older kernels do not tell it.
        let known = [Some(ExitStatus::Signal(9)), None];
        assert!(known.contains(&handle.exit_status()));
        let is_new = {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
            let mut parts = release
                .split('.')
                .map_while(|part| part.parse::<u32>().ok());
            (parts.next(), parts.next()) >= (Some(6), Some(15))
        };
        assert!(!is_new || handle.exit_status() == known[0]);
        assert!(ProcessHandle::open(child.id()).is_none());
    }
}
