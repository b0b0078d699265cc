//! Evidence on Linux. A lease proves that a file is unused. `/proc` shows whether a writer runs, proves the absence of
//! mappings where a lease does not cover them, and names holders.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{FileId, ProcessScan};
use crate::core::judge::{LeaseCoverage, Writer};
use crate::core::observation::{Holder, UseState};
use crate::core::time::Mono;
use crate::fs::dir::Dir;
use crate::sys::clock;

/// Opens a file that was observed to be regular, to check whether another process uses it.
///
/// `RACE:` between the observation and this call the name may be given to a FIFO, a socket or a device. `O_NONBLOCK`
/// and `O_NOCTTY` make the first two harmless. Worst case: a device special file, put there by a user who has the right
/// to create one, is opened and closed.
pub fn open_for_check(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    let no_wait = rule!("open-never-waits", OFlags::NONBLOCK, without: OFlags::empty());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | no_wait | OFlags::NOCTTY | OFlags::CLOEXEC;
    // O_NOATIME needs the owner's uid. Without it, opening the file changes its access time.
    match rustix::fs::openat(dir.fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir.fd(), name, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// Checks by leases whether files are used. While this value exists, SIGIO is blocked in this thread and in no other:
/// the kernel announces a broken lease by SIGIO, which kills the process by default. No setting of the whole process is
/// changed.
#[derive(Debug)]
pub struct UseChecker {
    /// The signal mask before SIGIO was blocked.
    previous_mask: libc::sigset_t,
    /// The id of this thread.
    tid: libc::pid_t,
    /// The signal mask belongs to one thread, so this value must not move to another one.
    _not_send: PhantomData<*const ()>,
}

impl Default for UseChecker {
    fn default() -> UseChecker {
        UseChecker::new()
    }
}

impl UseChecker {
    /// Blocks SIGIO in this thread.
    #[must_use]
    pub fn new() -> UseChecker {
        let mut previous_mask = MaybeUninit::uninit();
        let sigio = sigio();
        // SAFETY: both sets are valid for the call, which fills `previous_mask` (pthread_sigmask(3)).
        let previous_mask = unsafe {
            let blocked =
                rule!("sigio-is-blocked-here", &raw const sigio, without: std::ptr::null());
            libc::pthread_sigmask(libc::SIG_BLOCK, blocked, previous_mask.as_mut_ptr());
            previous_mask.assume_init()
        };
        UseChecker {
            previous_mask,
            tid: rustix::thread::gettid().as_raw_nonzero().get(),
            _not_send: PhantomData,
        }
    }

    /// Checks with the kernel whether any other process has `file` open or mapped, by requesting a write lease.
    ///
    /// The kernel grants the lease only if no process on this machine uses the file: under any name, in any namespace,
    /// by a mapping whose descriptor is closed, or by a descriptor in flight over a socket (fcntl(2), and measured on
    /// ext4, xfs, btrfs and tmpfs). On overlayfs the lease does not cover mappings and users of the lower layers. A
    /// lease needs the owner's uid or `CAP_LEASE`.
    #[must_use]
    pub fn check(&self, file: OwnedFd) -> (UseState, CheckedFile) {
        let mut checked = CheckedFile {
            file,
            tid: self.tid,
            has_lease: false,
            locked: false,
        };
        (checked.check(), checked)
    }

    /// Checks a file again that was checked before and released, maybe in another thread.
    pub fn check_again(&self, checked: &mut CheckedFile) -> UseState {
        checked.tid = self.tid;
        checked.check()
    }
}

impl Drop for UseChecker {
    fn drop(&mut self) {
        let sigio = sigio();
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel filled `previous_mask`; `sigio` and `none` are valid for the calls.
        unsafe {
            if libc::sigismember(&raw const self.previous_mask, libc::SIGIO) == 0 {
                // A SIGIO that is pending from a broken lease must not be delivered when it is unblocked.
                libc::sigtimedwait(&raw const sigio, std::ptr::null_mut(), &raw const none);
            }
            let previous_mask = &raw const self.previous_mask;
            libc::pthread_sigmask(libc::SIG_SETMASK, previous_mask, std::ptr::null_mut());
        }
    }
}

fn sigio() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set, and sigaddset changes it. SIGIO is a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
        set.assume_init()
    }
}

/// An open file, with a lease or a lock on it.
///
/// While the file is leased, another process that opens it waits: for at most `/proc/sys/fs/lease-break-time`, 45 s, if
/// this process is stopped at that moment. While it is locked, another process that locks it waits.
#[derive(Debug)]
pub struct CheckedFile {
    file: OwnedFd,
    /// The thread that requests leases, in which SIGIO is blocked.
    tid: libc::pid_t,
    has_lease: bool,
    /// This process holds a lock on the file.
    locked: bool,
}

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
struct FileOwner {
    kind: libc::c_int,
    pid: libc::pid_t,
}
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

impl CheckedFile {
    fn set_owner(&self) -> bool {
        let owner = FileOwner {
            kind: F_OWNER_TID,
            pid: rule!(
                "sigio-to-this-thread",
                self.tid,
                without: std::process::id() as libc::pid_t,
            ),
        };
        // SAFETY: F_SETOWN_EX reads one `struct f_owner_ex`, which outlives the call.
        unsafe { libc::fcntl(self.file.as_raw_fd(), F_SETOWN_EX, &raw const owner) == 0 }
    }

    fn set_lease(&self, kind: libc::c_int) -> Result<(), Errno> {
        // SAFETY: F_SETLEASE takes an int.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, kind) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    /// Checks whether another process uses the file, by requesting the lease. This is also allowed after
    /// [`CheckedFile::release`]. It must be called in the thread of the last [`UseChecker::check`] or
    /// [`UseChecker::check_again`].
    pub fn check(&mut self) -> UseState {
        // The signal must go to this thread, where it is blocked, before there is a lease that can be broken. This is
        // needed each time, because releasing a lease clears the owner.
        if !self.set_owner() {
            return UseState::Unknown;
        }
        let use_state = self.request_lease();
        self.has_lease |= use_state == UseState::Unused;
        use_state
    }

    fn request_lease(&self) -> UseState {
        match self.set_lease(libc::F_WRLCK) {
            Ok(()) => UseState::Unused,
            Err(Errno::AGAIN | Errno::TXTBSY) => {
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused)
            }
            Err(_) => {
                rule!("no-answer-is-not-unused", UseState::Unknown, without: UseState::Unused)
            }
        }
    }

    /// Checks whether the leased file is still unused.
    ///
    /// Two checks are needed. `F_GETLEASE` shows a process that waits in an open until the lease is released (as
    /// `F_RDLCK` or `F_UNLCK`). A second request for the lease shows a process whose open has looked up the name but
    /// not checked the lease yet, for example because an on-access scanner delays it.
    #[must_use]
    pub fn recheck(&self) -> UseState {
        // SAFETY: F_GETLEASE takes no argument.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) } {
            libc::F_WRLCK => {
                rule!("opener-past-its-lookup", self.request_lease(), without: UseState::Unused)
            }
            -1 => UseState::Unknown,
            _ => rule!(
                "opener-that-waits",
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused),
                without: self.request_lease(),
            ),
        }
    }

    /// Locks the file. Returns `true` if another process holds a BSD or POSIX lock on it. Otherwise no other process
    /// can get a BSD lock, or a POSIX or OFD write lock, before [`CheckedFile::release`].
    ///
    /// This is only for files that are removed even if a process may use them. A BSD lock can be detected only by
    /// taking it (`/proc/locks` is incomplete), and a live program that tries to lock the file in the meantime fails.
    ///
    /// RACE: another process may take a POSIX read lock right after this call, because a file that is open only for
    /// reading cannot be locked against readers. Worst case: on the user's request a file is removed that was locked a
    /// moment before.
    ///
    /// # Errors
    ///
    /// The kernel reports an error, for example because it has no memory left.
    pub fn lock(&mut self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.locked = rule!(
                    "locked-to-the-end",
                    true,
                    without: rustix::fs::flock(&self.file, FlockOperation::Unlock).is_ok(),
                );
            }
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        match rule!(
            "no-lock-to-write-meanwhile",
            lock_whole_file(self.file(), libc::F_OFD_SETLK, libc::F_RDLCK),
            without: Ok(0),
        ) {
            Ok(_) => {
                rule!("posix-locks-are-asked-for", has_posix_lock(self.file()), without: Ok(false))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Releases lease and lock, and keeps the file open. Closing the file would not release them while a forked child
    /// has the descriptor.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.has_lease) {
            let _ = self.set_lease(libc::F_UNLCK);
        }
        if std::mem::take(&mut self.locked) {
            let _ = lock_whole_file(self.file(), libc::F_OFD_SETLK, libc::F_UNLCK);
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }

    /// Returns the open file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for CheckedFile {
    fn drop(&mut self) {
        self.release();
    }
}

/// Returns whether the process whose pid is in the name of a temp can have written the temp.
///
/// The writer has ended if there is no such process, if the process is a zombie, or if it started after the last change
/// of the temp. `written` is the latest time at which that change can have happened, if that is known.
///
/// A kernel thread cannot have written the temp, and neither can init. A process of another user can: it may
/// have given up root since then, or have given the file away (`CAP_CHOWN`), and no file in `/proc` shows that for
/// certain.
#[must_use]
pub fn writer(pid: u32, written: Option<Mono>) -> Writer {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Writer::Alive(pid);
    };
    if rustix::process::test_kill_process(process) == Err(Errno::SRCH) {
        return Writer::Gone(pid);
    }
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) if rule!("foreign-proc-shows-no-writer", shows_our_processes(), without: true) => {
            stat
        }
        // `/proc` may show another process with this pid.
        _ => return Writer::Alive(pid),
    };
    let Some(stat) = ProcessStat::parse(&stat) else {
        return Writer::Alive(pid);
    };
    // The main thread of a process may end before the others.
    let has_ended = matches!(stat.state, 'Z' | 'X')
        && rule!("ended-with-its-last-thread", is_its_last_thread(pid), without: true);
    let is_younger = written.is_some_and(|written| started_after(stat.started, written));
    match has_ended || is_younger || stat.is_kernel_thread() || is_init(pid) {
        true => Writer::Gone(pid),
        false => Writer::Alive(pid),
    }
}

/// Reports whether `pid` is init. Only in the initial pid namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h) is pid 1 a
/// process that never writes a temp with its pid. In a container it is the container's own program.
fn is_init(pid: u32) -> bool {
    const INITIAL: &str = "pid:[4026531836]";
    let namespace = fs::read_link("/proc/self/ns/pid");
    pid == 1 && namespace.is_ok_and(|namespace| namespace == Path::new(INITIAL))
}

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

/// Returns the processes in child pid namespaces: a map from each pid there to the pids here (`NSpid` of
/// proc_pid_status(5), which has one pid for each namespace, ours first).
///
/// Every user may read these pids, except under hidepid. Processes that are hidden are missing from the result. The ids
/// of threads are included, because kill(2) accepts them too.
pub(super) fn container_pids() -> io::Result<HashMap<u32, Vec<u32>>> {
    if rule!("foreign-proc-shows-no-container", !shows_our_processes()) {
        return Err(io::Error::other("/proc does not show this pid namespace"));
    }
    let mut outer_pids: HashMap<u32, Vec<u32>> = HashMap::new();
    // Processes are listed in the order of their pids, so every process that existed before this call is found.
    for outer in numeric_names(Path::new("/proc"))? {
        if inner_pids(&PathBuf::from(format!("/proc/{outer}")))?.is_empty() {
            continue;
        }
        let threads = match numeric_names(&task_dir(outer)) {
            Err(error) if has_ended(&error) || is_denied(&error) => continue,
            threads => threads?,
        };
        for thread in rule!("threads-have-pids-too", threads, without: vec![outer]) {
            for inner in inner_pids(&task_dir(outer).join(thread.to_string()))? {
                outer_pids.entry(inner).or_default().push(outer);
            }
        }
    }
    Ok(outer_pids)
}

/// Returns the pids of the process or thread at `at` in child namespaces of ours.
fn inner_pids(at: &Path) -> io::Result<Vec<u32>> {
    match fs::read(at.join("status")) {
        Ok(status) => Ok(namespace_pids(&status).skip(1).collect()),
        Err(error) if has_ended(&error) || is_denied(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reports whether a file of `/proc` could not be read for lack of permission (hidepid, a security profile).
fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Reports whether a file of `/proc` could not be read because its process has ended.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Reports whether the process `pid` has at most one thread. If its threads cannot be listed for any reason but its
/// end, the result is `false`.
fn is_its_last_thread(pid: u32) -> bool {
    match numeric_names(&task_dir(pid)) {
        Ok(threads) => threads.len() < 2,
        Err(error) => has_ended(&error),
    }
}

/// Returns the pids in the line `NSpid`.
fn namespace_pids(status: &[u8]) -> impl Iterator<Item = u32> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"NSpid:"));
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    let pids = line.split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok())
}

fn task_dir(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task"))
}

/// Returns the name of the process `pid` of the user `uid` (proc_pid_comm(5): its first 15 bytes). Returns `None` if
/// there is no such process, and for threads of the kernel.
pub(super) fn writer_name(pid: u32, uid: u32) -> Option<String> {
    let at = PathBuf::from(format!("/proc/{pid}"));
    let has_uid = fs::metadata(&at).is_ok_and(|meta| meta.uid() == uid);
    // Threads of the kernel have no memory of their own, so they have no command line.
    let has_memory = fs::read(at.join("cmdline")).is_ok_and(|line| !line.is_empty());
    (has_uid && has_memory && shows_our_processes()).then(|| comm(&at))
}

fn comm(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

/// A line of `/proc/PID/stat` (proc_pid_stat(5)).
struct ProcessStat {
    state: char,
    /// `PF_…` of linux/sched.h.
    flags: u32,
    /// The start time, in ticks of the boot clock.
    started: u64,
}

impl ProcessStat {
    /// Parses the fields after the command name, which may contain spaces and parentheses.
    fn parse(stat: &[u8]) -> Option<ProcessStat> {
        let after_name = stat.iter().rposition(|&b| b == b')')? + 1;
        let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(ProcessStat {
            state: fields.next()?.chars().next()?,
            flags: fields.nth(5)?.parse().ok()?,
            started: fields.nth(12)?.parse().ok()?,
        })
    }

    fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u32 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }
}

/// Reports whether a process that started at `ticks` of the boot clock started after `moment`.
///
/// The boot clock runs during a suspend, and our clock does not. The time of all suspends is added to `moment`, also of
/// suspends after it. So `moment` may become too late, but not too early, and the temp is kept in doubt.
fn started_after(ticks: u64, moment: Mono) -> bool {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    let suspended = boot.saturating_sub(clock::mono().since_boot());
    let moment = moment.since_boot() + suspended;
    let rate = rustix::param::clock_ticks_per_second();
    let Some(started) = ticks.checked_mul(1_000).and_then(|ms| ms.checked_div(rate)) else {
        return false;
    };
    // The second covers the limited precision of both clocks.
    Duration::from_millis(started) > moment + Duration::from_secs(1)
}

/// Returns whether another process holds a BSD or POSIX lock on the file. Returns `None` if the open file does not show
/// that.
pub(super) fn is_locked(checked: Option<&CheckedFile>) -> Option<bool> {
    let checked = checked?;
    // While this process holds the lock, no other process can, and the lock that is visible is ours.
    let ours = checked.locked.then_some(false);
    ours.or_else(|| has_posix_lock(checked.file()).ok().filter(|locked| *locked))
}

/// Returns the files that are locked according to `/proc/locks`.
///
/// The kernel returns the table one page at a time. If a lock is released between two pages, another lock may be left
/// out (measured on Linux 6.18). So a table of several pages is read several times.
pub(super) fn locked_files() -> io::Result<Vec<FileId>> {
    const READINGS: usize = 4;
    let mut locked = Vec::new();
    for _ in 0..READINGS {
        let mut file = fs::File::open("/proc/locks")?;
        let (mut table, mut page, mut pages) = (Vec::new(), vec![0; 16 << 10], 0);
        loop {
            let length = file.read(&mut page)?;
            let Some(read @ [_, ..]) = page.get(..length) else {
                break;
            };
            table.extend_from_slice(read);
            pages += 1;
        }
        locked.extend(
            String::from_utf8_lossy(&table)
                .lines()
                .filter_map(parse_lock),
        );
        if pages < 2 {
            break;
        }
    }
    locked.sort_unstable_by_key(|file| (file.ino, file.dev));
    locked.dedup();
    Ok(locked)
}

/// Reports whether any process holds a POSIX lock on `file`. The kernel is queried for conflicts with an OFD lock, so
/// POSIX locks of this process count too. But a process loses them when it closes the file, which each look does
/// (fcntl(2)).
fn has_posix_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    let found = lock_whole_file(file, libc::F_OFD_GETLK, libc::F_WRLCK)?;
    Ok(found != libc::F_UNLCK)
}

/// Calls fcntl(2) with `command` and a lock of type `kind` on the whole file. Returns the type that the kernel reports.
fn lock_whole_file(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: these commands read and write one `struct flock`, which outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        0 => Ok(lock.l_type.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reports whether the device number `listed` in the table of locks may be the device `dev` of stat(2).
///
/// On a file system without a device of its own (btrfs, with a number for each subvolume) stat(2) may report a
/// different number than the table. In that case two files with the same inode number count as one file, so the temp is
/// kept.
pub(super) fn may_be_device(listed: u64, dev: u64) -> bool {
    rule!("lock-disk-has-two-numbers", rustix::fs::major(dev) == 0) || listed == dev
}

/// Parses the file in a line of `/proc/locks` (proc_locks(5)): number, `->` if a process waits for the lock, kind,
/// ADVISORY, READ or WRITE, pid, `major:minor:inode`.
fn parse_lock(line: &str) -> Option<FileId> {
    let mut words = line
        .split_ascii_whitespace()
        .skip(1)
        .skip_while(|w| *w == "->");
    let kind = words.next()?;
    let (device, ino) = words.nth(3)?.rsplit_once(':')?;
    matches!(kind, "FLOCK" | "POSIX" | "OFDLCK").then_some(FileId {
        dev: device_number(device.as_bytes())?,
        ino: ino.parse().ok()?,
    })
}

/// Scans all processes for those that have one of `wanted` open or mapped.
///
/// With [`LeaseCoverage::OpensOnly`] (overlayfs) a mapping may have the device number of a lower layer. A file whose
/// inode number alone matches is uncertain then. Its process is not reported as a holder, because other files have the
/// same number.
#[must_use]
pub fn scan_processes(wanted: &[FileId], coverage: LeaseCoverage) -> ProcessScan {
    let mut scan = ScanProgress {
        wanted: by_number(wanted),
        any_device: coverage == LeaseCoverage::OpensOnly,
        holders: HashMap::new(),
        uncertain: HashSet::new(),
        complete: rule!("scan-must-see-all-processes", sees_every_process(), without: true),
    };
    let mut scanned = HashSet::new();
    // A process that was forked behind the reading position is found by listing again. If processes fork faster than
    // this, the scan is incomplete.
    for round in 0..4 {
        let Ok(mut pids) = numeric_names(Path::new("/proc")) else {
            scan.complete = rule!("failed-listing-proves-nothing", false, without: scan.complete);
            break;
        };
        // The list has at least this process.
        scan.complete &= !pids.is_empty();
        pids.retain(|pid| scanned.insert(*pid));
        if pids.is_empty() {
            break;
        }
        if round == 3 {
            scan.complete = false;
        }
        for pid in pids {
            scan.scan_process(pid);
        }
    }
    if rule!("foreign-proc-names-no-holder", !shows_our_processes()) {
        // The pids in this `/proc` are those of another namespace.
        let held = scan.holders.drain().map(|(file, _)| file);
        scan.uncertain.extend(held);
    }
    ProcessScan {
        holders: scan.holders,
        uncertain: scan.uncertain,
        complete: scan.complete,
    }
}

fn by_number(wanted: &[FileId]) -> HashMap<u64, Vec<FileId>> {
    let mut numbers: HashMap<u64, Vec<FileId>> = HashMap::new();
    for file in wanted {
        numbers.entry(file.ino).or_default().push(*file);
    }
    numbers
}

/// A process scan that is in progress.
struct ScanProgress {
    /// The requested files, by inode number. Files on several devices may have the same number.
    wanted: HashMap<u64, Vec<FileId>>,
    /// A file with a requested inode number on another device is uncertain.
    any_device: bool,
    holders: HashMap<FileId, Vec<Holder>>,
    uncertain: HashSet<FileId>,
    complete: bool,
}

/// The requested files that one process uses.
#[derive(Default)]
struct HeldFiles {
    /// The requested files that the process certainly uses.
    certain: HashSet<FileId>,
    /// The requested files with the same inode number as a used file on another device.
    doubtful: HashSet<FileId>,
}

impl ScanProgress {
    fn scan_process(&mut self, pid: u32) {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let mut held = HeldFiles::default();
        let (mut examined, has_memory) = self.examine(pid, &at, &mut held);
        if rule!("scan-examines-other-threads", !has_memory) {
            // This is a kernel thread, or a process whose main thread has ended. The other threads may still be
            // running, and only they show the files of the process.
            let threads = numeric_names(&at.join("task"));
            examined &= threads.as_ref().err().is_none_or(has_ended);
            for thread in threads.unwrap_or_default() {
                let thread = at.join("task").join(thread.to_string());
                examined &= self.examine(pid, &thread, &mut held).0;
            }
        }
        self.complete &= examined;
        self.uncertain.extend(held.doubtful);
        if held.certain.is_empty() {
            return;
        }
        let name = comm(&at);
        for file in held.certain {
            let holder = Holder {
                pid,
                name: name.clone(),
            };
            self.holders.entry(file).or_default().push(holder);
        }
    }

    /// Adds the files that the process or thread at `at` uses to `held`. Returns whether it could be examined
    /// completely, and whether it has any memory.
    fn examine(&self, pid: u32, at: &Path, held: &mut HeldFiles) -> (bool, bool) {
        // The descriptors of this process are the ones that this check itself uses. Its mappings are not.
        let fds = match pid == std::process::id() {
            true => Ok(()),
            false => self.scan_descriptors(at, held),
        };
        let maps = match pid == std::process::id() {
            true => {
                rule!("scan-sees-our-mappings", self.scan_mappings(at, held), without: Ok(true))
            }
            false => self.scan_mappings(at, held),
        };
        let has_memory = *maps.as_ref().unwrap_or(&false);
        let is_examined = |result: io::Result<()>| match result {
            Ok(()) => true,
            Err(error) => has_ended(&error),
        };
        (is_examined(fds) && is_examined(maps.map(drop)), has_memory)
    }

    /// Records that the process uses the file with these numbers.
    fn record_use(&self, dev: u64, ino: u64, held: &mut HeldFiles) {
        for file in self.wanted.get(&ino).into_iter().flatten() {
            if file.dev == dev {
                held.certain.insert(*file);
            } else if rule!("file-number-alone-keeps", self.any_device) {
                held.doubtful.insert(*file);
            }
        }
    }

    fn scan_descriptors(&self, process: &Path, held: &mut HeldFiles) -> io::Result<()> {
        for entry in fs::read_dir(process.join("fd"))? {
            match fs::metadata(entry?.path()) {
                Ok(meta) => rule!(
                    "descriptors-make-holders",
                    self.record_use(meta.dev(), meta.ino(), held),
                    without: (),
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Records the mapped files. Returns whether the process has any mapping. The lines of `/proc/PID/maps` have range,
    /// permissions, offset, `major:minor`, inode and path.
    fn scan_mappings(&self, process: &Path, held: &mut HeldFiles) -> io::Result<bool> {
        let maps = fs::read(process.join("maps"))?;
        for line in maps.split(|&b| b == b'\n') {
            let mut words = line.split(|&b| b == b' ').filter(|w| !w.is_empty());
            let device = words.nth(3).and_then(device_number);
            let inode = words
                .next()
                .and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
            if let (Some(dev), Some(ino)) = (device, inode) {
                self.record_use(dev, ino, held);
            }
        }
        Ok(!maps.is_empty())
    }
}

fn device_number(word: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some(rustix::fs::makedev(number(major)?, number(minor)?))
}

/// Returns all names in a folder of `/proc` that are numbers.
fn numeric_names(folder: &Path) -> io::Result<Vec<u32>> {
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

/// Reports whether this process is root in the initial pid and user namespaces. In any other namespace it sees only
/// some of the processes, without an error.
fn sees_every_process() -> bool {
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

/// The extended attribute that marks a restored file.
pub(super) const RESTORED: &str = "user.orphand.restored";

/// The extended attribute of a directory in a quarantine that names the original directory of its files.
pub const ORIGIN: &str = "user.orphand.origin";

/// Sets the extended attribute `name` of `file`.
pub fn set_mark(file: BorrowedFd<'_>, name: &str, mark: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(file, name, mark, flags)?)
}

/// Returns the extended attribute `name` of `file`. Returns `None` if the file has none, or if the file system has no
/// extended attributes.
pub fn read_mark(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut found = [0; 128];
    match rustix::fs::fgetxattr(file, name, &mut found[..]) {
        Ok(length) => Ok(found.get(..length).map(<[u8]>::to_vec)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => rule!("unreadable-mark-keeps", Err(error.into()), without: Ok(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_lock_table_are_parsed() {
        for (line, want) in [
            (
                "1: POSIX  ADVISORY  WRITE 708 08:01:123 0 EOF",
                Some((8, 1, 123)),
            ),
            (
                "2: FLOCK  ADVISORY  READ 709 00:27:77 0 EOF",
                Some((0, 0x27, 77)),
            ),
            (
                "2: -> FLOCK  ADVISORY  WRITE 710 00:27:78 0 EOF",
                Some((0, 0x27, 78)),
            ),
            (
                "4: OFDLCK ADVISORY  READ -1 fd:00:9 0 EOF",
                Some((0xfd, 0, 9)),
            ),
            ("3: LEASE  ACTIVE    READ 711 08:01:124 0 EOF", None),
            ("3: POSIX  ADVISORY  READ 711 08:01", None),
            ("", None),
        ] {
            let want = want.map(|(major, minor, ino)| FileId {
                dev: rustix::fs::makedev(major, minor),
                ino,
            });
            assert_eq!(parse_lock(line), want, "{line}");
        }
    }

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
