//! What only Linux has to be asked: sysctls, inotify, namespaces, `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use orphand::decide::judge::LeaseCoverage;
use orphand::evidence::{self, LeasedFile};
use orphand::look::Dir;
use orphand::root::Root;
use orphand::state::{is_lock_name, read_held};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::check::Check;
use super::kernel;
use super::limits::{self, KernelLimit, LimitState};
use super::sharing::decode_octal;
use super::tree::TreeSize;
use super::visibility::{self, Visibility};

/// How a clock is set right.
pub(super) const CLOCK_FIX: &str = "sudo timedatectl set-ntp true";

/// What may stand behind a root that does not answer, and what to do.
pub(super) const NO_ANSWER: (&str, &str) = (
    "a file server that is away, or a disk that fails",
    "look what it is: findmnt -T",
);

/// The checks of the machine. `need`: the directories of all roots.
pub(super) fn machine_checks(need: TreeSize) -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (instances, watches) = inotify_limits();
    vec![
        kernel::judge(release.trim()),
        limits::leases(read_sysctl("fs/leases-enable")),
        limits::break_time(read_sysctl("fs/lease-break-time")),
        limits::watches(watches, need),
        limits::instances(instances),
        limits::queue(read_sysctl("fs/inotify/max_queued_events")),
        visibility::judge(visibility()),
    ]
}

fn read_sysctl(sysctl: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(sysctl)).ok()?;
    text.trim().parse().ok()
}

/// One instance and one watch are asked for and given back at once.
fn inotify_limits() -> (LimitState, LimitState) {
    let instance = inotify::init(inotify::CreateFlags::CLOEXEC);
    let watch = match &instance {
        Ok(instance) => {
            inotify::add_watch(instance, "/", inotify::WatchFlags::DELETE_SELF).map(drop)
        }
        Err(_) => Ok(()),
    };
    let instances = LimitState {
        limit: lowest([
            (
                "fs.inotify.max_user_instances",
                "fs/inotify/max_user_instances",
            ),
            ("user.max_inotify_instances", "user/max_inotify_instances"),
        ]),
        reached: instance.err() == Some(Errno::MFILE),
    };
    let watches = LimitState {
        limit: lowest([
            ("fs.inotify.max_user_watches", "fs/inotify/max_user_watches"),
            ("user.max_inotify_watches", "user/max_inotify_watches"),
        ]),
        reached: watch == Err(Errno::NOSPC),
    };
    (instances, watches)
}

/// The first is the machine's limit; the second is that of this user namespace, and the same
/// number in the first one (kernel/ucount.c). The lower is in force.
fn lowest(sysctls: [(&'static str, &str); 2]) -> Option<KernelLimit> {
    let limits = sysctls.into_iter().filter_map(|(name, file)| {
        Some(KernelLimit {
            name,
            value: read_sysctl(file)?,
        })
    });
    limits.min_by_key(|limit| limit.value)
}

/// The numbers are `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` of linux/proc_ns.h.
fn visibility() -> Visibility {
    let other = |name: &str, first: u64| {
        fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|meta| meta.ino() != first)
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The last one mounted there is the one that is seen.
    let proc = mounts
        .lines()
        .filter_map(parse_mount)
        .rfind(|mount| mount.at == Path::new("/proc"));
    let root = rustix::process::geteuid().is_root();
    Visibility {
        proc: evidence::shows_our_processes(),
        other_pids: other("pid", 0xEFFF_FFFC),
        other_users: other("user", 0xEFFF_FFFD),
        hidden: proc.is_some_and(|proc| visibility::hides_processes(proc.options)),
        root,
        // One that came too fast for the first walk is met by the second.
        all: root && (can_examine_all() || can_examine_all()),
    }
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
struct MountInfo<'a> {
    id: u64,
    at: PathBuf,
    kind: &'a str,
    /// Those of the file system.
    options: &'a str,
}

fn parse_mount(line: &str) -> Option<MountInfo<'_>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let at = decode_octal(mount.nth(3)?);
    let mut file_system = file_system.split(' ');
    Some(MountInfo {
        id,
        at,
        kind: file_system.next()?,
        options: file_system.nth(1)?,
    })
}

/// The type of the file system that `dir` is on, as it was mounted.
pub(super) fn file_system_type(dir: &Dir) -> Option<String> {
    let id = dir.place().mount?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let found = mounts
        .lines()
        .filter_map(parse_mount)
        .find(|mount| mount.id == id)?;
    Some(found.kind.to_owned())
}

/// Whether names in `dir` that differ in their capitals are one, by its own flag
/// (`FS_CASEFOLD_FL` of linux/fs.h).
pub(super) fn folds_case(dir: &Dir) -> Option<bool> {
    const CASEFOLD: u32 = 0x4000_0000;
    let flags = rustix::fs::ioctl_getflags(dir.fd()).ok()?;
    Some(flags.bits() & CASEFOLD != 0)
}

/// Whether every process can be examined, down to its mappings.
pub(super) fn can_examine_all() -> bool {
    evidence::scan_processes(&[], LeaseCoverage::OpensOnly).complete
}

/// What stands behind a proof.
pub(super) fn proof_source(_: &LeasedFile) -> &'static str {
    "a lease of the kernel's"
}

/// What is to be said of a root before it is opened.
pub(super) fn check_before_open(_: &Path) -> Option<Check> {
    None
}

/// The processes of `orphand watch` that can be seen.
pub(super) fn watcher_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let watches = |pid: &u32| {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let mut args = file("cmdline");
        args.push(0);
        let mut args = args.split(|&byte| byte == 0).skip(1);
        // Not ourselves, whatever the directories are called that we were given.
        *pid != std::process::id()
            && file("comm").trim_ascii_end() == b"orphand"
            && args.any(|arg| arg == b"watch")
    };
    let mut watchers: Vec<u32> = pids.filter(watches).collect();
    watchers.sort_unstable();
    watchers
}

/// Returns the directories of a watcher, by the lock files that it has open. Only root can read those of
/// another user's process.
pub(super) fn watched_roots(pid: u32) -> Vec<Root> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = open.into_iter().flatten().flatten();
    let lock = |entry: fs::DirEntry| {
        let path = fs::read_link(entry.path()).ok()?;
        let name = path.file_name()?.to_str()?;
        // The name says that it is a regular file: another one is not opened.
        let is_lock = is_lock_name(name) && fs::metadata(entry.path()).ok()?.is_file();
        let file = is_lock.then(|| fs::File::open(entry.path()).ok())??;
        let held = read_held(file);
        held.root.filter(|_| held.pid == Some(pid))
    };
    open.filter_map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - fuse.sshfs h:/x rw,user=1";
        let seen = parse_mount(line).unwrap();
        assert_eq!((seen.id, seen.at.as_path()), (36, Path::new("/mnt 2")));
        assert_eq!((seen.kind, seen.options), ("fuse.sshfs", "rw,user=1"));
        let plain = parse_mount("22 1 0:21 / /proc rw - proc proc rw,hidepid=2").unwrap();
        assert!(visibility::hides_processes(plain.options));
        for broken in ["", "x", "36 35 98:0 / /x rw - ext4", "a b c d e f - g h i"] {
            assert!(parse_mount(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn the_lower_limit_counts() {
        let none = [("a", "no/such"), ("b", "neither")];
        assert_eq!(lowest(none), None);
        let one = [("a", "no/such"), ("b", "fs/inotify/max_queued_events")];
        assert_eq!(lowest(one).map(|limit| limit.name), Some("b"));
    }
}
