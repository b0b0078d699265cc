//! The facts that exist only on Linux: sysctls, inotify limits, namespaces, and `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use orphand::core::judge::LeaseCoverage;
use orphand::core::sort::sort_by;
use orphand::evidence::{self, CheckedFile};
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use orphand::store::lock::{is_lock_name, read_lock_file};
use orphand::sys::mountinfo::{self, Mount};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::check::Check;
use super::kernel::{self, KernelLimit, LimitState, Visibility};
use super::tree::TreeSize;

/// The command that corrects the clock.
pub(super) const CLOCK_FIX: &str = "sudo timedatectl set-ntp true";

/// The possible causes if a root does not answer, and the fix.
pub(super) const NO_ANSWER: (&str, &str) = (
    "a file server that cannot be reached, or a disk that fails",
    "find the file system: findmnt -T",
);

/// Runs the checks of the machine. `need` is the number of directories in all roots.
pub(super) fn machine_checks(need: TreeSize) -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (instances, watches) = inotify_limits();
    vec![
        kernel::release(release.trim()),
        kernel::leases(read_sysctl("fs.leases-enable")),
        kernel::break_time(read_sysctl("fs.lease-break-time")),
        kernel::watches(watches, need),
        kernel::instances(instances),
        kernel::queue(read_sysctl("fs.inotify.max_queued_events")),
        kernel::visibility(visibility()),
    ]
}

/// Returns the value of a sysctl by its name, as in sysctl(8).
fn read_sysctl(name: &str) -> Option<u64> {
    let file = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns the limits on inotify instances and watches. It creates one of each to find out whether a limit is reached,
/// and removes them at once.
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
            "fs.inotify.max_user_instances",
            "user.max_inotify_instances",
        ]),
        reached: instance.err() == Some(Errno::MFILE),
    };
    let watches = LimitState {
        limit: lowest(["fs.inotify.max_user_watches", "user.max_inotify_watches"]),
        reached: watch == Err(Errno::NOSPC),
    };
    (instances, watches)
}

/// Returns the lower of two limits, which is in force. The first is the limit of the machine, the second that of this
/// user namespace. In the initial namespace both are the same number (kernel/ucount.c).
fn lowest(sysctls: [&'static str; 2]) -> Option<KernelLimit> {
    let limit = |name| read_sysctl(name).map(|value| KernelLimit { name, value });
    sysctls
        .into_iter()
        .filter_map(limit)
        .min_by_key(|limit| limit.value)
}

/// Returns the view of this process on the other processes. The inode numbers are `PROC_PID_INIT_INO` and
/// `PROC_USER_INIT_INO` of linux/proc_ns.h.
fn visibility() -> Visibility {
    let other = |name: &str, first: u64| {
        fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|meta| meta.ino() != first)
    };
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    // The last mount on a path hides the others.
    let proc = mounts(&table).rfind(|mount| mount.path == Path::new("/proc"));
    let root = rustix::process::geteuid().is_root();
    Visibility {
        proc: evidence::shows_our_processes(),
        other_pids: other("pid", 0xEFFF_FFFC),
        other_users: other("user", 0xEFFF_FFFD),
        hidden: proc
            .is_some_and(|proc| kernel::hides_processes(&String::from_utf8_lossy(proc.options))),
        root,
        // A process that starts during the first scan may be missed by it, but not by the second.
        all: root && (can_examine_all() || can_examine_all()),
    }
}

/// Returns the type of the file system of `dir`, as it was mounted.
pub(super) fn file_system_type(dir: &Dir) -> Option<String> {
    let id = dir.properties().mount?;
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let mount = mounts(&table).find(|mount| mount.id == id)?;
    Some(String::from_utf8_lossy(mount.kind).into_owned())
}

fn mounts(table: &[u8]) -> impl DoubleEndedIterator<Item = Mount<'_>> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(mountinfo::parse)
}

/// Returns whether `dir` ignores upper and lower case in names, by its flag `FS_CASEFOLD_FL` (linux/fs.h).
pub(super) fn folds_case(dir: &Dir) -> Option<bool> {
    const CASEFOLD: u32 = 0x4000_0000;
    let flags = rustix::fs::ioctl_getflags(dir.fd()).ok()?;
    Some(flags.bits() & CASEFOLD != 0)
}

/// Returns whether every process can be examined, including its mappings.
pub(super) fn can_examine_all() -> bool {
    evidence::scan_processes(&[], LeaseCoverage::OpensOnly).complete
}

/// Returns the mechanism of a proof, for people.
pub(super) fn proof_source(_: &CheckedFile) -> &'static str {
    "a kernel lease"
}

/// Checks a root before it is opened. Linux has no such check.
pub(super) fn check_before_open(_: &Path) -> Option<Check> {
    None
}

/// Returns the pids of the visible `orphand watch` processes.
pub(super) fn watcher_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let watches = |pid: &u32| {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let mut args = file("cmdline");
        args.push(0);
        let mut args = args.split(|&byte| byte == 0).skip(1);
        // This process may have a directory named `watch` as its argument.
        *pid != std::process::id()
            && file("comm").trim_ascii_end() == b"orphand"
            && args.any(|arg| arg == b"watch")
    };
    let mut watchers: Vec<u32> = pids.filter(watches).collect();
    sort_by(&mut watchers, Ord::cmp);
    watchers
}

/// Returns the roots of a watcher, by the lock files that it has open. Only root can read those of another user's
/// process.
pub(super) fn watched_roots(pid: u32) -> Vec<Root> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = open.into_iter().flatten().flatten();
    let lock = |entry: fs::DirEntry| {
        let path = fs::read_link(entry.path()).ok()?;
        let name = path.file_name()?.to_str()?;
        // A lock is a regular file. Anything else, such as a FIFO, is not opened.
        let is_lock = is_lock_name(name) && fs::metadata(entry.path()).ok()?.is_file();
        let file = is_lock.then(|| fs::File::open(entry.path()).ok())??;
        let held = read_lock_file(file);
        held.root.filter(|_| held.pid == Some(pid))
    };
    open.filter_map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_option_hides_processes() {
        let proc = mountinfo::parse(b"22 1 0:21 / /proc rw - proc proc rw,hidepid=2").unwrap();
        assert!(kernel::hides_processes(
            std::str::from_utf8(proc.options).unwrap()
        ));
    }

    #[test]
    fn the_lower_limit_is_in_force() {
        let none = ["no.such", "neither"];
        assert_eq!(lowest(none), None);
        let one = ["no.such", "fs.inotify.max_queued_events"];
        assert_eq!(lowest(one).map(|limit| limit.name), Some(one[1]));
    }
}
