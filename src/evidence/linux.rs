//! Evidence on Linux: the lease is the proof, `/proc` only names holders.

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
use crate::clock;
use crate::decide::judge::{LeaseCoverage, Writer};
use crate::decide::observation::{Holder, UseState};
use crate::decide::time::Mono;
use crate::look::Dir;

/// Opens a file whose type is known to be regular, in order to ask who else has it.
///
/// `RACE:` between the look that said *regular* and this call the name may come to stand for a
/// FIFO, a socket or a device. `O_NONBLOCK` and `O_NOCTTY` make that harmless for the first two;
/// worst case: a device special file that somebody with the right to make one put there is opened
/// and closed.
pub fn open_for_check(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    let no_wait = rule!("open-never-waits", OFlags::NONBLOCK, without: OFlags::empty());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | no_wait | OFlags::NOCTTY | OFlags::CLOEXEC;
    // O_NOATIME needs the owner's uid; whoever lacks that leaves an access time behind.
    match rustix::fs::openat(dir.fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir.fd(), name, flags, Mode::empty())?),
        answer => Ok(answer?),
    }
}

/// A thread that may ask for leases. While it exists SIGIO is blocked in this thread and nowhere
/// else: the kernel announces a broken lease with it, and by default it kills the process. No
/// process-wide setting is touched.
#[derive(Debug)]
pub struct LeaseThread {
    before: libc::sigset_t,
    tid: libc::pid_t,
    /// The signal mask belongs to one thread.
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl Default for LeaseThread {
    fn default() -> LeaseThread {
        LeaseThread::new()
    }
}

impl LeaseThread {
    /// Blocks SIGIO in this thread.
    #[must_use]
    pub fn new() -> LeaseThread {
        let mut before = MaybeUninit::uninit();
        let sigio = sigio();
        // SAFETY: both sets are valid for the call, which fills `before` (pthread_sigmask(3)).
        let before = unsafe {
            let blocked =
                rule!("sigio-is-blocked-here", &raw const sigio, without: std::ptr::null());
            libc::pthread_sigmask(libc::SIG_BLOCK, blocked, before.as_mut_ptr());
            before.assume_init()
        };
        LeaseThread {
            before,
            tid: rustix::thread::gettid().as_raw_nonzero().get(),
            _stays_on_its_thread: PhantomData,
        }
    }

    /// Asks the kernel whether anybody else has `file` open or mapped.
    ///
    /// A write lease is granted only if nobody on this kernel does: through whatever name, in
    /// whatever namespace, by a mapping whose descriptor is closed, in flight over a socket
    /// (fcntl(2), and measured on ext4, xfs, btrfs, tmpfs; on overlayfs mappings and users of the
    /// layers below are not seen). It needs the owner's uid or `CAP_LEASE`.
    #[must_use]
    pub fn lease(&self, file: OwnedFd) -> (UseState, LeasedFile) {
        let mut leased = LeasedFile {
            file,
            tid: self.tid,
            has_lease: false,
            locked: false,
        };
        (leased.acquire(), leased)
    }

    /// Asks the same of a file that was asked about before, maybe in another thread, and let go of.
    pub fn lease_again(&self, leased: &mut LeasedFile) -> UseState {
        leased.tid = self.tid;
        leased.acquire()
    }
}

impl Drop for LeaseThread {
    fn drop(&mut self) {
        let sigio = sigio();
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `before` came from the kernel, `sigio` and `none` are valid for the calls.
        unsafe {
            if libc::sigismember(&raw const self.before, libc::SIGIO) == 0 {
                // A break that was announced while it was blocked must not be delivered now.
                libc::sigtimedwait(&raw const sigio, std::ptr::null_mut(), &raw const none);
            }
            let before = &raw const self.before;
            libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut());
        }
    }
}

fn sigio() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set, sigaddset changes it; SIGIO is a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
        set.assume_init()
    }
}

/// An open file, and the lease or the lock on it while that is held. An opener waits while it is leased (for
/// at most `/proc/sys/fs/lease-break-time`, 45 s, if this process is stopped just then), and who wants
/// to lock it while it is locked.
#[derive(Debug)]
pub struct LeasedFile {
    file: OwnedFd,
    /// The thread that asks: SIGIO is blocked there.
    tid: libc::pid_t,
    has_lease: bool,
    /// By us.
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

impl LeasedFile {
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

    /// Asks for the lease; again, after it was let go. To be called in the thread that asked first.
    pub fn acquire(&mut self) -> UseState {
        // The signal is to go to this thread, where it is blocked, and that must be so before the
        // lease is there to be broken. Each time: letting a lease go clears the owner.
        if !self.set_owner() {
            return UseState::Unknown;
        }
        let hold = self.lease();
        self.has_lease |= hold == UseState::Unused;
        hold
    }

    fn lease(&self) -> UseState {
        match self.set_lease(libc::F_WRLCK) {
            Ok(()) => UseState::Unused,
            Err(Errno::AGAIN | Errno::TXTBSY) => {
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused)
            }
            Err(_) => rule!("no-answer-is-not-free", UseState::Unknown, without: UseState::Unused),
        }
    }

    /// Whether still nobody wants the file. Two questions, and neither contains the other:
    /// `F_GETLEASE` shows an opener that waits for us (as `F_RDLCK` or `F_UNLCK`), asking for the
    /// lease a second time shows one that is past its look-up and parked before the lease is
    /// checked (by an on-access scanner, say).
    #[must_use]
    pub fn still_held(&self) -> UseState {
        // SAFETY: F_GETLEASE takes no argument.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) } {
            libc::F_WRLCK => {
                rule!("opener-past-its-lookup", self.lease(), without: UseState::Unused)
            }
            -1 => UseState::Unknown,
            _ => rule!(
                "opener-that-waits",
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused),
                without: self.lease(),
            ),
        }
    }

    /// Whether somebody else holds a BSD or POSIX lock on it. If not, nobody gets a BSD lock, nor a POSIX or
    /// OFD lock to write, before [`LeasedFile::release`].
    ///
    /// For files alone that are to go though somebody may hold them: there is no asking for a BSD lock but
    /// by taking it (`/proc/locks` leaves some out), and a live program's own attempt fails meanwhile.
    ///
    /// RACE: a POSIX lock to read may be taken right after this (a file that is open for reading alone can be
    /// locked against no readers); worst case: a file goes by the user's wish that was locked a moment before.
    ///
    /// # Errors
    ///
    /// The kernel does not say: it has no memory left, say.
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

    /// Lets lease and lock go and keeps the file open. Closing would not be enough while a forked child
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

    /// The file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for LeasedFile {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether the process whose pid a name carries can have written the temp.
///
/// It is gone if there is no such process, if it is a zombie, or if it started after the temp was
/// changed last. `written` is that moment at the latest, where it is known.
///
/// Nor can a thread of the kernel have written it, nor init. A process of another user can: it may have given up root
/// since, or have given the file away (`CAP_CHOWN`), and no file in `/proc` shows that for certain.
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
        // What that tells of may be another process of that number.
        _ => return Writer::Alive(pid),
    };
    let Some(stat) = ProcessStat::parse(&stat) else {
        return Writer::Alive(pid);
    };
    // The first thread of a process may end before the others.
    let has_ended = matches!(stat.state, 'Z' | 'X')
        && rule!("ended-with-its-last-thread", is_its_last_thread(pid), without: true);
    let is_younger = written.is_some_and(|written| started_after(stat.started, written));
    match has_ended || is_younger || stat.is_kernel_thread() || is_init(pid) {
        true => Writer::Gone(pid),
        false => Writer::Alive(pid),
    }
}

/// Whether `pid` is the machine's own first process. In a container that number is the program's that runs there: only
/// the initial pid namespace has the one that never writes a temp with its number (`PROC_PID_INIT_INO` of
/// linux/proc_ns.h).
fn is_init(pid: u32) -> bool {
    const INITIAL: &str = "pid:[4026531836]";
    pid == 1 && fs::read_link("/proc/self/ns/pid").is_ok_and(|space| space == Path::new(INITIAL))
}

/// Whether `/proc` shows the processes of our pid namespace, by the numbers that they have in it. It is one
/// namespace's for ever: a chroot may have another's, or none, and so has `unshare --pid` by itself.
#[must_use]
pub fn shows_our_processes() -> bool {
    let us = std::process::id();
    let Ok(status) = fs::read("/proc/self/status") else {
        return false;
    };
    // One number for each namespace, from that of `/proc` down to ours.
    let mut numbers = namespace_pids(&status);
    match (numbers.next(), numbers.next()) {
        (first, None) if first == Some(us) => true,
        (Some(_), _) => false,
        // A kernel without namespaces.
        (None, _) => {
            let us = us.to_string();
            fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&us))
        }
    }
}

/// Processes in pid namespaces below ours: by the numbers that they have there, those that they have here
/// (`NSpid` of proc_pid_status(5): one number for each namespace, ours first). Everybody may read that,
/// except under hidepid; who cannot be seen is not told of. Threads count too: kill(2) knows their numbers as well.
pub(super) fn container_pids() -> io::Result<HashMap<u32, Vec<u32>>> {
    if rule!("foreign-proc-shows-no-container", !shows_our_processes()) {
        return Err(io::Error::other("/proc is not that of this pid namespace"));
    }
    let mut known: HashMap<u32, Vec<u32>> = HashMap::new();
    // A process that was there before this began is met: they are listed in the order of their numbers.
    for here in numeric_names(Path::new("/proc"))? {
        if inner_pids(&PathBuf::from(format!("/proc/{here}")))?.is_empty() {
            continue;
        }
        let threads = match numeric_names(&task_dir(here)) {
            Err(error) if has_ended(&error) || is_denied(&error) => continue,
            threads => threads?,
        };
        for thread in rule!("threads-have-numbers-too", threads, without: vec![here]) {
            for there in inner_pids(&task_dir(here).join(thread.to_string()))? {
                known.entry(there).or_default().push(here);
            }
        }
    }
    Ok(known)
}

/// By which numbers the process or thread at `at` goes below our namespace.
fn inner_pids(at: &Path) -> io::Result<Vec<u32>> {
    match fs::read(at.join("status")) {
        Ok(status) => Ok(namespace_pids(&status).skip(1).collect()),
        Err(error) if has_ended(&error) || is_denied(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether something of `/proc` may not be read by us (hidepid, a profile).
fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether something of `/proc` could not be read because its process has ended.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether no thread of the process `pid` is left but its first, for all that can be known.
fn is_its_last_thread(pid: u32) -> bool {
    match numeric_names(&task_dir(pid)) {
        Ok(threads) => threads.len() < 2,
        Err(error) => has_ended(&error),
    }
}

/// The numbers of the line `NSpid`.
fn namespace_pids(status: &[u8]) -> impl Iterator<Item = u32> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"NSpid:"));
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    let numbers = line.split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok())
}

fn task_dir(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task"))
}

/// What the process `pid` of the user `uid` calls itself (proc_pid_comm(5): its first 15 bytes);
/// `None` if there is no such process, or if it is one of the kernel's own.
pub(super) fn writer_name(pid: u32, uid: u32) -> Option<String> {
    let at = PathBuf::from(format!("/proc/{pid}"));
    let is_its = fs::metadata(&at).is_ok_and(|meta| meta.uid() == uid);
    // Threads of the kernel have no memory of their own, and so no command line.
    let has_memory = fs::read(at.join("cmdline")).is_ok_and(|line| !line.is_empty());
    (is_its && has_memory && shows_our_processes()).then(|| comm(&at))
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
    /// When it started, in ticks of the boot clock.
    started: u64,
}

impl ProcessStat {
    /// The command name before the rest may hold spaces and parentheses.
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

/// Whether a process that started at `ticks` of the boot clock did so after `moment`.
///
/// The boot clock runs through a suspend, ours does not. All time slept so far is added to `moment`,
/// also what was slept after it: that moves `moment` too late rather than too early, and keeps.
fn started_after(ticks: u64, moment: Mono) -> bool {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    let slept = boot.saturating_sub(clock::mono().since_boot());
    let moment = moment.since_boot() + slept;
    let rate = rustix::param::clock_ticks_per_second();
    let Some(started) = ticks.checked_mul(1_000).and_then(|ms| ms.checked_div(rate)) else {
        return false;
    };
    // A second of doubt covers the coarseness of both.
    Duration::from_millis(started) > moment + Duration::from_secs(1)
}

/// Whether somebody holds a BSD or POSIX lock on it, as far as the open file says so.
pub(super) fn is_locked(leased: Option<&LeasedFile>) -> Option<bool> {
    let leased = leased?;
    // Nobody else can, and what is seen is our own.
    let not = leased.locked.then_some(false);
    not.or_else(|| has_posix_lock(leased.file()).ok().filter(|locked| *locked))
}

/// The files that `/proc/locks` tells to be locked. It gives a page at a time, and where a lock ends between two
/// of them, another one is left out (measured on Linux 6.18): then it is read several times.
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

/// Whether somebody else holds a POSIX lock on it. The question is that of an open file which holds none: so
/// those of this process count too; but it loses them when it closes the file, as each look does (fcntl(2)).
fn has_posix_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    let found = lock_whole_file(file, libc::F_OFD_GETLK, libc::F_WRLCK)?;
    Ok(found != libc::F_UNLCK)
}

/// `command` of fcntl(2) with a lock of the sort `kind` on all of the file. The kind that comes back.
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

/// Whether the table of locks may mean by `listed` the device that stat(2) calls `dev`.
///
/// Where a file system has no device of its own (btrfs, with a number for each subvolume) stat(2) may give another
/// number than the table. Two files of one number are taken for one then, which keeps.
pub(super) fn may_be_device(listed: u64, dev: u64) -> bool {
    rule!("lock-disk-has-two-numbers", rustix::fs::major(dev) == 0) || listed == dev
}

/// The file that a line of `/proc/locks` tells of (proc_locks(5)): number, `->` if it is waited for, kind,
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

/// Walks over all processes and notes who has one of `wanted` open or mapped.
///
/// `reach` says how to compare: on overlayfs a mapping may carry the device number of a layer
/// below, so the inode number alone makes a file doubtful there. It names nobody: strangers hold files with
/// the same number.
#[must_use]
pub fn scan_processes(wanted: &[FileId], reach: LeaseCoverage) -> ProcessScan {
    let mut walk = ProcessWalk {
        wanted: by_number(wanted),
        any_device: reach == LeaseCoverage::OpensOnly,
        holders: HashMap::new(),
        uncertain: HashSet::new(),
        complete: rule!("walk-must-see-all-processes", sees_every_process(), without: true),
    };
    let mut walked = HashSet::new();
    // A process that was forked behind the reading position is found by reading again. Who forks
    // faster than this reads leaves the walk incomplete.
    for round in 0..4 {
        let Ok(mut news) = numeric_names(Path::new("/proc")) else {
            walk.complete = rule!("no-list-clears-no-file", false, without: walk.complete);
            break;
        };
        // At the least we are there ourselves.
        walk.complete &= !news.is_empty();
        news.retain(|pid| walked.insert(*pid));
        if news.is_empty() {
            break;
        }
        if round == 3 {
            walk.complete = false;
        }
        for pid in news {
            walk.scan_process(pid);
        }
    }
    if rule!("foreign-proc-names-no-holder", !shows_our_processes()) {
        // The numbers there are other processes' here.
        let held = walk.holders.drain().map(|(file, _)| file);
        walk.uncertain.extend(held);
    }
    ProcessScan {
        holders: walk.holders,
        uncertain: walk.uncertain,
        complete: walk.complete,
    }
}

fn by_number(wanted: &[FileId]) -> HashMap<u64, Vec<FileId>> {
    let mut numbers: HashMap<u64, Vec<FileId>> = HashMap::new();
    for file in wanted {
        numbers.entry(file.ino).or_default().push(*file);
    }
    numbers
}

struct ProcessWalk {
    /// By inode number; files on several devices may share one.
    wanted: HashMap<u64, Vec<FileId>>,
    any_device: bool,
    holders: HashMap<FileId, Vec<Holder>>,
    uncertain: HashSet<FileId>,
    complete: bool,
}

/// What one process holds of what is wanted.
#[derive(Default)]
struct HeldFiles {
    certain: HashSet<FileId>,
    /// Files with the number of a wanted one, on another device.
    doubtful: HashSet<FileId>,
}

impl ProcessWalk {
    fn scan_process(&mut self, pid: u32) {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let mut held = HeldFiles::default();
        let (mut examined, has_memory) = self.examine(pid, &at, &mut held);
        if rule!("walk-asks-other-threads", !has_memory) {
            // A kernel thread, or a process whose first thread has ended: the others may live on, and
            // only they show what it has.
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

    /// Notes what the process or thread at `at` holds. Says whether all of it could be examined, and
    /// whether it has any memory.
    fn examine(&self, pid: u32, at: &Path, held: &mut HeldFiles) -> (bool, bool) {
        // Our own descriptors are those that we ask with; our mappings are not.
        let fds = match pid == std::process::id() {
            true => Ok(()),
            false => self.scan_descriptors(at, held),
        };
        let maps = match pid == std::process::id() {
            true => {
                rule!("walk-sees-our-mappings", self.scan_mappings(at, held), without: Ok(true))
            }
            false => self.scan_mappings(at, held),
        };
        let has_memory = *maps.as_ref().unwrap_or(&false);
        let is_examined = |answer: io::Result<()>| match answer {
            Ok(()) => true,
            Err(error) => has_ended(&error),
        };
        (is_examined(fds) && is_examined(maps.map(drop)), has_memory)
    }

    /// Somebody has the file with these numbers.
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

    /// Lines of `/proc/PID/maps`: range, permissions, offset, `major:minor`, inode, path.
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

/// The numbers among the names in a folder of `/proc`: all of them, or an error.
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

/// Whether this process is root in the first pid and user namespaces: in any other it sees only a
/// part of the processes, without an error.
fn sees_every_process() -> bool {
    rustix::process::geteuid().is_root()
        && is_first_namespace("pid", FIRST_PIDS)
        && is_first_namespace("user", FIRST_USERS)
}

/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` of linux/proc_ns.h.
const FIRST_PIDS: u64 = 0xEFFF_FFFC;
const FIRST_USERS: u64 = 0xEFFF_FFFD;

fn is_first_namespace(kind: &str, number: u64) -> bool {
    fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|meta| meta.ino() == number)
}

/// The extended attribute that marks a restored file.
pub(super) const RESTORED: &str = "user.orphand.restored";

/// The extended attribute of a directory in a quarantine that says which directory its files lay in.
pub const ORIGIN: &str = "user.orphand.origin";

/// Puts the extended attribute `name` on `file`.
pub fn set_mark(file: BorrowedFd<'_>, name: &str, mark: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(file, name, mark, flags)?)
}

/// The extended attribute `name` of `file`, if it bears one, or could.
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
    fn lines_of_locks() {
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
    fn numbers_in_other_namespaces() {
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
