//! Evidence on macOS. A process scan shows the holders of a file. If the kernel refuses to remove the name of a file in
//! use, a removal that succeeds proves that the file was unused. This code is type-checked but was never run; see
//! docs/platforms.md.
//!
//! It relies on facts from the source of XNU (xnu-11417, macOS 15.4, or the version that is named):
//!
//! - `F_SETLEASE` exists since macOS 14, but it needs an entitlement from Apple, which orphand does not have.
//! - `unlinkat(AT_NODELETEBUSY)`, since macOS 26.0, fails with EBUSY while any process has the file open or mapped,
//!   except as an event listener. Older kernels fail with EINVAL before any look-up. The file system itself makes this
//!   check, so it is tried first, and used only on the type of file system where the trial succeeded.
//! - `proc_pidinfo` and similar functions fail with EPERM for a process of another uid, unless the caller is root. They
//!   do not show a descriptor in flight over a socket or in a Mach message. The scan examines one process after the
//!   other, and not all of them at the same time.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, c_int, c_uint, c_void};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{FileId, ProcessScan};
use crate::core::judge::{LeaseCoverage, Writer};
use crate::core::macos_use;
use crate::core::macos_use::Facts;
use crate::core::observation::{Holder, UseState};
use crate::core::sort::sort_by;
use crate::core::time::Mono;
use crate::fs::dir::Dir;
use crate::sys::mutex::guard;

/// A program without Apple's entitlement gets no lease, so the members of a set could be opened while they are claimed.
pub const HAS_LEASES: bool = false;

/// Opens a file that was observed to be regular, to check whether another process uses it.
///
/// `O_EVTONLY` makes the descriptor one of an event listener. The kernel does not count it as a use of the file, so it
/// can stay open while the file is removed, and it does not prevent the ejection of a volume. It needs the right to
/// read, like any other descriptor. Extended attributes and locks can be read through it: fgetxattr and `F_GETLK` check
/// the vnode and our credentials, and not the mode of the descriptor.
///
/// `RACE:` between the observation and this call the name may be given to a FIFO or a device. `O_NONBLOCK` and
/// `O_NOCTTY` make a FIFO and a terminal harmless. Worst case: a device special file is opened and closed, or a file
/// whose data is not on this disk is fetched.
pub fn open_for_check(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir.fd(),
        name,
        listener_flags(),
        Mode::empty(),
    )?)
}

/// Does the same. An open does not change the access time of a file.
pub use open_for_check as open_own_for_check;

/// The flag of a descriptor by which it is checked whether a process uses the file: that of an event listener. Otherwise
/// this process would be found as one that uses the file.
pub(crate) const CHECK_ONLY: OFlags = OFlags::from_bits_retain(libc::O_EVTONLY.cast_unsigned());

/// Returns the flags of an event listener's descriptor.
fn listener_flags() -> OFlags {
    OFlags::RDONLY
        | CHECK_ONLY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC
}

/// Writes a file system to the disk. macOS has no call for this that reports errors, so each file is written alone.
pub(super) fn flush_file_system(_: BorrowedFd<'_>, _: &str) -> bool {
    false
}

/// Checks whether files are used. It stores the last process scan for a moment, so that one scan is enough for all
/// files that are checked together.
#[derive(Debug, Default)]
pub struct UseChecker {
    cached_scan: Arc<CachedProcessScan>,
}

impl UseChecker {
    /// There are no leases, so [`CheckedFile::recheck`] shows nothing.
    pub const HOLDS_LEASES: bool = false;

    /// Creates a value without a scan.
    #[must_use]
    pub fn new() -> UseChecker {
        UseChecker::default()
    }

    /// Checks whether any other process has `file` open or mapped.
    ///
    /// [`UseState::InUse`] is certain. [`UseState::Unused`] has only the certainty that [`macos_use::use_state`]
    /// describes, and may come from a scan that is a moment old. It allows the claim. The decisive checks come after
    /// the claim ([`CheckedFile::check`], and the removal itself).
    #[must_use]
    pub fn check(&self, file: OwnedFd) -> (UseState, CheckedFile) {
        let mut checked = self.unchecked(file);
        (checked.check(), checked)
    }

    /// Returns the file without a check.
    #[must_use]
    pub fn unchecked(&self, file: OwnedFd) -> CheckedFile {
        // The scan compares files by the numbers that the process tables report for this descriptor.
        let id = vnode_of(own_pid(), file.as_raw_fd())
            .map(|seen| seen.file())
            .ok();
        let kernel_refuses = type_of_file_system(file.as_fd())
            .is_some_and(|kind| refusing_file_system() == Some(kind));
        CheckedFile {
            file,
            cached_scan: Arc::clone(&self.cached_scan),
            id,
            kernel_refuses,
            released: None,
        }
    }

    /// Checks a file again that was checked before. A scan that was made for another file may be used, as for the first
    /// check.
    pub fn check_again(&self, checked: &mut CheckedFile) -> UseState {
        checked.released = None;
        checked.check()
    }
}

/// An open file, whose use can be checked. It holds no lease and no lock, so it delays no other process.
#[derive(Debug)]
pub struct CheckedFile {
    file: OwnedFd,
    cached_scan: Arc<CachedProcessScan>,
    id: Option<FileId>,
    kernel_refuses: bool,
    /// The time of the last [`CheckedFile::release`].
    released: Option<Instant>,
}

impl CheckedFile {
    /// Checks the file again. After [`CheckedFile::release`], only a scan that began later is used.
    pub fn check(&mut self) -> UseState {
        self.check_since(self.released)
    }

    /// Returns [`UseState::Unused`] without a check. There is no lease that could have been broken since the last
    /// check. A scan for each file of a batch would keep all of them without their names for that time (a scan takes a
    /// tenth of a second or more). Instead, one scan that begins after the last claim of the batch serves all files
    /// ([`CheckedFile::check`]).
    #[must_use]
    pub fn recheck(&self) -> UseState {
        UseState::Unused
    }

    /// Returns whether another process holds a BSD or POSIX lock on the file.
    ///
    /// RACE: a lock may be taken right after this call. Worst case: on the user's request a file is removed that was
    /// locked a moment before.
    ///
    /// # Errors
    ///
    /// The kernel reports an error.
    pub fn lock(&mut self) -> io::Result<bool> {
        is_locked_by_others(self.file())
    }

    /// Ensures that the next check uses a new scan.
    pub fn release(&mut self) {
        self.released = Some(Instant::now());
    }

    /// Returns the open file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Prepares the file for a move. The kernel refuses no rename of a file in use, so only a process scan can prove
    /// that it is unused.
    pub(crate) fn expect_move(&mut self) {
        self.kernel_refuses = false;
    }

    /// Returns the flags with which the kernel refuses to remove the name of this file while it is in use. Returns
    /// `None` if the kernel does not refuse it.
    pub(crate) fn removal_flags(&self) -> Option<AtFlags> {
        self.kernel_refuses.then_some(NO_DELETE_BUSY)
    }

    /// Reports whether the kernel itself refuses to remove the name of this file while it is in use. Otherwise a
    /// process scan is the only evidence.
    #[must_use]
    pub fn is_proven_by_kernel(&self) -> bool {
        self.kernel_refuses
    }

    /// Reports whether a scan that began after [`CheckedFile::release`] proves that no process uses the file. Without a
    /// release, a new scan begins now.
    pub(crate) fn is_still_unused(&self) -> bool {
        let since = self.released.unwrap_or_else(Instant::now);
        self.check_since(Some(since)) == UseState::Unused
    }

    fn check_since(&self, since: Option<Instant>) -> UseState {
        let (Some(id), Ok(seen)) = (self.id, rustix::fs::fstat(&self.file)) else {
            return UseState::Unknown;
        };
        let request = ScanRequest {
            dev: id.dev,
            since,
            // Before the claim, and if the kernel proves it later, a scan only avoids that a holder loses the name of
            // its file for a moment.
            thorough: since.is_some() && !self.kernel_refuses,
        };
        let (held, examined) = self.cached_scan.find(request, id.ino);
        macos_use::use_state(&Facts {
            seen: held,
            // An error counts as not locked: a lock can only be one more reason to keep the file.
            locked: is_locked_by_others(self.file()).unwrap_or(false),
            examined,
            kernel_refuses: self.kernel_refuses,
            owner: seen.st_uid,
            our_uid: rustix::process::geteuid().as_raw(),
            mode: u32::from(seen.st_mode),
            acl: has_acl(self.file()),
            owners_ignored: ignores_owners(self.file()),
        })
    }
}

/// Returns whether the process whose pid is in the name of a temp can have written the temp. The writer has ended if
/// there is no such process, or if the process is a zombie.
///
/// Start times are not compared. macOS stores them by the wall clock (`p_start` is the time of day of the fork), and a
/// clock that was set could make a live writer younger than its own temp.
///
/// The kernel and launchd cannot have written the temp. A process of another user can: it may have given up root since
/// then, or have given the file away.
#[must_use]
pub fn writer(pid: u32, _: Option<Mono>) -> Writer {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Writer::Alive(pid);
    };
    // kill(2) succeeds for a zombie, as POSIX requires.
    if rustix::process::test_kill_process(process) == Err(Errno::SRCH) {
        return Writer::Gone(pid);
    }
    match short_info(process.as_raw_nonzero().get()) {
        Ok(info) if info.pbsi_status == libc::SZOMB => Writer::Gone(pid),
        Ok(_) if pid <= 1 => Writer::Gone(pid),
        Ok(_) | Err(_) => Writer::Alive(pid),
    }
}

/// Returns an empty map: macOS has no pid namespaces.
pub(super) fn container_pids() -> io::Result<HashMap<u32, Vec<u32>>> {
    Ok(HashMap::new())
}

/// Returns `None`: [`UseChecker::check`] checks locks itself and returns [`UseState::Locked`].
pub(super) fn is_locked(_: Option<&CheckedFile>) -> Option<bool> {
    None
}

/// Returns an empty list: macOS has no table of locks.
pub(super) fn locked_files() -> io::Result<Vec<FileId>> {
    Ok(Vec::new())
}

/// Compares two device numbers. On macOS each device has only one number.
pub(super) fn may_be_device(listed: u64, dev: u64) -> bool {
    listed == dev
}

/// Returns whether another process holds a lock. `F_GETLK` reports a POSIX lock of another process, and a flock(2) of
/// any process.
fn is_locked_by_others(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_start: 0,
        l_len: 0,
        l_pid: 0,
        l_type: libc::F_WRLCK,
        l_whence: libc::SEEK_SET as libc::c_short,
    };
    // SAFETY: F_GETLK reads and writes one `struct flock`, which outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } {
        0 => Ok(lock.l_type != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reports whether the volume of a file ignores owners (`MNT_IGNORE_OWNERSHIP` of mount(2)), as most external disks do.
/// The kernel then reports the caller as the owner of each file (`vnode_attr_handle_uid_and_gid` of XNU).
fn ignores_owners(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).map_or(true, |seen| {
        seen.f_flags & libc::MNT_IGNORE_OWNERSHIP.cast_unsigned() != 0
    })
}

/// Reports whether other users may have access to a directory of mode 0700.
pub(crate) fn may_let_others_in(dir: BorrowedFd<'_>) -> bool {
    has_acl(dir)
}

/// Reports whether the file may have an access control list, which could let other users write. ENOENT means that it
/// has none (acl_get_fd_np in Apple's Libc). Any other error counts as a list.
fn has_acl(file: BorrowedFd<'_>) -> bool {
    /// `ACL_TYPE_EXTENDED` of sys/acl.h.
    const EXTENDED: c_uint = 0x0000_0100;
    // sys/acl.h
    unsafe extern "C" {
        fn acl_get_fd_np(fd: c_int, kind: c_uint) -> *mut c_void;
        fn acl_free(acl: *mut c_void) -> c_int;
    }
    // SAFETY: the descriptor is open. A result that is not null belongs to the caller and is freed once.
    unsafe {
        let acl = acl_get_fd_np(file.as_raw_fd(), EXTENDED);
        if acl.is_null() {
            return last_error() != Errno::NOENT;
        }
        acl_free(acl);
    }
    true
}

// --- the kernel's refusal --------------------------------------------------------------------

/// `AT_NODELETEBUSY` of sys/fcntl.h, since macOS 26.0.
const NO_DELETE_BUSY: AtFlags = AtFlags::from_bits_retain(0x4000);

/// The name of a file system's type: `f_fstypename` of statfs(2).
type FileSystemType = [libc::c_char; 16];

fn type_of_file_system(fd: BorrowedFd<'_>) -> Option<FileSystemType> {
    rustix::fs::fstatfs(fd).ok().map(|seen| seen.f_fstypename)
}

/// The state of the trial whether the kernel refuses removals.
enum RefusalTrial {
    /// The kernel refuses removals on this type of file system. `None`: on no type.
    Done(Option<FileSystemType>),
    /// The trial was not possible, for example because the disk was full, or because another process had the trial file
    /// open. Holds the time of the last attempt.
    NotYet(Option<Instant>),
}

/// Returns the type of file system on which a trial has shown that the kernel refuses removals. The trial is made once,
/// in a private folder in `$TMPDIR`. If it was not possible, it is repeated at most once a minute.
fn refusing_file_system() -> Option<FileSystemType> {
    const RETRY: Duration = Duration::from_secs(60);
    static TRIAL: Mutex<RefusalTrial> = Mutex::new(RefusalTrial::NotYet(None));
    let mut trial = guard(&TRIAL);
    match *trial {
        RefusalTrial::Done(result) => return result,
        RefusalTrial::NotYet(Some(last)) if last.elapsed() < RETRY => return None,
        RefusalTrial::NotYet(_) => {}
    }
    let result = try_refusal();
    match result {
        Ok(result) => *trial = RefusalTrial::Done(result),
        Err(_) => *trial = RefusalTrial::NotYet(Some(Instant::now())),
    }
    result.ok().flatten()
}

/// Tries on a private file all that removals rely on: that the kernel refuses the removal while the file is open, and
/// while it is only mapped, and that an event listener's descriptor does not prevent it. If one result is not as
/// expected, the flag is not used at all.
fn try_refusal() -> rustix::io::Result<Option<FileSystemType>> {
    let folder = TrialFolder::create()?;
    let Some(kind) = type_of_file_system(folder.fd.as_fd()) else {
        return Ok(None);
    };
    let remove = || rustix::fs::unlinkat(&folder.fd, TrialFolder::FILE, NO_DELETE_BUSY);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::openat(
        &folder.fd,
        TrialFolder::FILE,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?;
    let mut open = std::fs::File::from(open);
    open.write_all(b"?").map_err(|_| Errno::NOSPC)?;
    let _listener = rustix::fs::openat(
        &folder.fd,
        TrialFolder::FILE,
        listener_flags(),
        Mode::empty(),
    )?;
    if remove() != Err(Errno::BUSY) {
        return Ok(None);
    }
    let mapping = Mapping::of(open.as_fd())?;
    drop(open);
    if remove() != Err(Errno::BUSY) {
        return Ok(None);
    }
    drop(mapping);
    // The kernel may release a mapping's use of the file a little after munmap(2) has returned.
    for _ in 0..20 {
        match remove() {
            Ok(()) => {
                let left = rustix::fs::statat(&folder.fd, TrialFolder::FILE, AtFlags::empty());
                return Ok((left.err() == Some(Errno::NOENT)).then_some(kind));
            }
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return Ok(None),
        }
    }
    // Another process has the file open, for example a virus scanner. The trial has no result.
    Err(Errno::BUSY)
}

/// A private folder, which is removed with its file when the value is dropped.
struct TrialFolder {
    path: PathBuf,
    fd: OwnedFd,
}

impl TrialFolder {
    const FILE: &CStr = c"in-use";

    fn create() -> rustix::io::Result<TrialFolder> {
        let number = crate::sys::clock::mono().since_boot().as_nanos();
        let name = format!("orphand-try-{}-{number:x}", own_pid());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| errno_of(&error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(TrialFolder { path, fd }),
            Err(error) => {
                clear(&path);
                Err(error)
            }
        }
    }
}

impl Drop for TrialFolder {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.fd, TrialFolder::FILE, AtFlags::empty());
        clear(&self.path);
    }
}

fn clear(folder: &Path) {
    let _ = std::fs::remove_dir(folder);
}

/// A mapping of the first page of a file.
struct Mapping(*mut c_void);

impl Mapping {
    const LENGTH: usize = 1;

    fn of(file: BorrowedFd<'_>) -> rustix::io::Result<Mapping> {
        // SAFETY: this is a new mapping at an address that the kernel chooses, and nothing reads through it.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Mapping::LENGTH,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        match at {
            libc::MAP_FAILED => Err(last_error()),
            at => Ok(Mapping(at)),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of a mapping that is unmapped only here.
        unsafe { libc::munmap(self.0, Mapping::LENGTH) };
    }
}

// --- the process scan ------------------------------------------------------------------------

/// A scan is reused for this time, or for [`REUSE_FACTOR`] times its own duration if that is longer.
const SCAN_VALIDITY: Duration = Duration::from_millis(200);
/// The multiple of its duration for which a scan is reused. It limits the cost of a steady stream of temps to a fifth
/// of one core.
const REUSE_FACTOR: u32 = 5;

/// The last scan.
#[derive(Debug, Default)]
struct CachedProcessScan {
    last: Mutex<Option<CachedScan>>,
}

/// The requirements for a scan.
#[derive(Clone, Copy, Debug)]
struct ScanRequest {
    /// The device of the file.
    dev: u64,
    /// The scan must have begun at this time or later.
    since: Option<Instant>,
    /// The scan must have examined every region, so that no mapping is left out.
    thorough: bool,
}

/// The result of a process scan, for the files of one device.
#[derive(Debug)]
struct CachedScan {
    request: ScanRequest,
    began: Instant,
    took: Duration,
    /// Inode numbers of the regular files that a process uses.
    held: HashSet<u64>,
    /// Every relevant process was examined.
    examined: bool,
}

impl CachedProcessScan {
    /// Returns whether a process was found that uses the inode, and whether every relevant process was examined.
    fn find(&self, request: ScanRequest, ino: u64) -> (bool, bool) {
        let mut last = guard(&self.last);
        let scan = match last.take() {
            Some(scan) if scan.satisfies(request) => scan,
            _ => CachedScan::over_all(request),
        };
        let scan = last.insert(scan);
        (scan.held.contains(&ino), scan.examined)
    }
}

impl CachedScan {
    fn satisfies(&self, request: ScanRequest) -> bool {
        self.request.dev == request.dev
            && (self.request.thorough || !request.thorough)
            && request.since.is_none_or(|since| self.began >= since)
            && self.began.elapsed() <= SCAN_VALIDITY.max(self.took * REUSE_FACTOR)
    }

    fn over_all(request: ScanRequest) -> CachedScan {
        let began = Instant::now();
        let mut held = HashSet::new();
        let examined = scan_all(request.thorough, &mut |_, file| {
            if file.dev == request.dev {
                held.insert(file.ino);
            }
        });
        CachedScan {
            request,
            began,
            took: began.elapsed(),
            held,
            examined,
        }
    }
}

/// Scans all processes for those that have one of `wanted` open or mapped. The result is never complete: descriptors in
/// flight are not seen, and the quick way to list mappings may leave some out.
#[must_use]
pub fn scan_processes(wanted: &[FileId], _: LeaseCoverage) -> ProcessScan {
    let wanted: HashSet<FileId> = wanted.iter().copied().collect();
    let mut seen: HashMap<FileId, HashSet<libc::pid_t>> = HashMap::new();
    scan_all(false, &mut |pid, file| {
        if wanted.contains(&file) {
            seen.entry(file).or_default().insert(pid);
        }
    });
    let mut process_scan = ProcessScan::default();
    for (file, pids) in seen {
        let mut holders: Vec<Holder> = pids
            .into_iter()
            .map(|pid| Holder {
                pid: pid.cast_unsigned(),
                name: process_name(pid),
            })
            .collect();
        sort_by(&mut holders, Ord::cmp);
        process_scan.holders.insert(file, holders);
    }
    process_scan
}

/// Calls `note` with each process and each regular file that it has open or mapped. Returns whether every relevant
/// process could be examined.
///
/// RACE: a descriptor is not seen if it is passed, over a socket or as a Mach port, from a process that has not been
/// examined yet to one that has been. Worst case: the file counts as unused while the receiver holds it. If the kernel
/// refuses such removals, the file is still kept.
fn scan_all(thorough: bool, note: &mut dyn FnMut(libc::pid_t, FileId)) -> bool {
    let our_uid = rustix::process::geteuid().as_raw();
    let mut scanned = HashSet::new();
    let mut examined = true;
    // A child of a process that was not examined yet is found by listing again. If processes fork faster than this, the
    // scan is incomplete.
    for round in 0..4 {
        let Some(pids) = pids() else {
            return false;
        };
        // Pid 0 is the kernel itself, which does not hold a user's file.
        let mut new_pids = pids;
        new_pids.retain(|&pid| pid > 0 && scanned.insert(pid));
        if new_pids.is_empty() {
            break;
        }
        if round == 3 {
            examined = false;
        }
        for pid in new_pids {
            examined &= examine(pid, our_uid, thorough, note);
        }
    }
    examined && scanned.contains(&own_pid())
}

/// Examines one process. Returns `false` if a relevant process could not be examined.
fn examine(
    pid: libc::pid_t,
    our_uid: libc::uid_t,
    thorough: bool,
    note: &mut dyn FnMut(libc::pid_t, FileId),
) -> bool {
    let info = match short_info(pid) {
        Ok(info) => info,
        Err(error) => return error == Errno::SRCH,
    };
    // A zombie has closed everything.
    if info.pbsi_status == libc::SZOMB {
        return true;
    }
    match files_of(pid, thorough, &mut |file| note(pid, file)) {
        Ok(()) | Err(Errno::SRCH) => true,
        Err(_) => !is_relevant(&info, our_uid),
    }
}

/// Reports whether a process that cannot be examined may use a file that only `our_uid` and root may write.
///
/// This is so for a process of ours, also if it has another effective uid for a while, for a child of one, which may have
/// inherited a descriptor (the child of `sudo -u other program > file.tmp`), and for a file server, which does as root
/// what its clients request. Other processes of root are trusted. login(1) is the child of a terminal, and passes its
/// descriptors only to the shell.
fn is_relevant(info: &libc::proc_bsdshortinfo, our_uid: libc::uid_t) -> bool {
    const FILE_SERVERS: [&[u8]; 3] = [b"smbd", b"nfsd", b"AppleFileServer"];
    let is_ours = info.pbsi_uid == our_uid;
    let can_become_ours =
        info.pbsi_uid != 0 && [info.pbsi_ruid, info.pbsi_svuid].contains(&our_uid);
    let name = bytes(&info.pbsi_comm);
    let parent = short_info(info.pbsi_ppid.cast_signed());
    let may_inherit = name != b"login" && parent.is_ok_and(|parent| parent.pbsi_uid == our_uid);
    let is_file_server = FILE_SERVERS.contains(&name.as_slice());
    our_uid == 0 || is_ours || can_become_ours || may_inherit || is_file_server
}

/// Calls `note` with each regular file that a process has open or mapped. Returns an error if the process could not be
/// examined completely.
fn files_of(
    pid: libc::pid_t,
    thorough: bool,
    note: &mut dyn FnMut(FileId),
) -> rustix::io::Result<()> {
    note_open_files(pid, note)?;
    // A descriptor in flight to another process can have the form of a Mach port.
    for port in list(pid, PROC_PIDLISTFILEPORTS)? {
        if port.proc_fdtype != PROX_FDTYPE_VNODE {
            continue;
        }
        match vnode_of_port(pid, port.proc_fd.cast_unsigned()) {
            Ok(seen) if seen.is_use() => note(seen.file()),
            Ok(_) => {}
            Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    // This comes after the descriptors: a process that maps a file and then closes it is seen in one of the two lists.
    let mapped = mapped_files(pid, thorough, note)?;
    // Every process has its own program mapped. If the mapping of this process is missing, the call does not work as
    // expected.
    if pid == own_pid() && mapped == 0 {
        return Err(Errno::NOSYS);
    }
    // If the process had changed its uid since the first list, each of its descriptors would have failed with EPERM.
    // This call fails in that case.
    list(pid, libc::PROC_PIDLISTFDS).map(drop)
}

/// Calls `note` with each regular file that a process has open.
///
/// A descriptor that disappears after it was listed may have got another number by dup(2), so the descriptors are listed
/// again.
///
/// RACE: this may happen each time. Worst case: the file counts as unused while the process holds it.
fn note_open_files(pid: libc::pid_t, note: &mut dyn FnMut(FileId)) -> rustix::io::Result<()> {
    const TRIES: usize = 4;
    for _ in 0..TRIES {
        let mut is_complete = true;
        for open in list(pid, libc::PROC_PIDLISTFDS)? {
            if open.proc_fdtype != PROX_FDTYPE_VNODE {
                continue;
            }
            match vnode_of(pid, open.proc_fd) {
                Ok(seen) if seen.is_use() => note(seen.file()),
                Ok(_) => {}
                Err(Errno::BADF) => is_complete = false,
                // The descriptor was revoked, or it is one of a file that we may not even stat. It is not the file in
                // question, because the same call succeeds for our own descriptor of that file.
                Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(error),
            }
        }
        if is_complete {
            break;
        }
    }
    Ok(())
}

/// Calls `note` with each regular file that a process has mapped. Returns the number of mappings.
///
/// The thorough way visits every region, like lsof, and is slow. The quick way lists only regions with a file, like
/// Apple's own proc_listpidspath, and ends early at a mapping whose file was removed by force. Neither sees files that
/// are mapped through the kernel's pagers for programs, for example the one of dyld.
fn mapped_files(
    pid: libc::pid_t,
    thorough: bool,
    note: &mut dyn FnMut(FileId),
) -> rustix::io::Result<usize> {
    let flavor = if thorough {
        PROC_PIDREGIONPATHINFO
    } else {
        PROC_PIDREGIONPATHINFO2
    };
    let mut mapped = 0;
    let mut at = 0;
    loop {
        let region: MappedRegion = match read_struct(|to, size| {
            // SAFETY: `to` is valid for writing `size` bytes.
            unsafe { libc::proc_pidinfo(pid, flavor, at, to, size) }
        }) {
            Ok(region) => region,
            // Both ways end with this error after the last region.
            Err(Errno::INVAL) => return Ok(mapped),
            Err(error) => return Err(error),
        };
        if region.vnode.vi_stat.vst_dev != 0 {
            mapped += 1;
            if region.vnode.vi_type == VREG {
                note(id(&region.vnode));
            }
        }
        let Some(next) = region.region.address.checked_add(region.region.size) else {
            return Ok(mapped);
        };
        if next <= at {
            return Err(Errno::IO);
        }
        at = next;
    }
}

// --- sys/proc_info.h -------------------------------------------------------------------------

// Constants of sys/proc_info.h that the libc crate does not have, or has as another type.
const PROC_ALL_PIDS: u32 = 1;
const PROC_PIDREGIONPATHINFO: c_int = 8;
const PROC_PIDLISTFILEPORTS: c_int = 14;
const PROC_PIDFDVNODEINFO: c_int = 1;
const PROC_PIDFILEPORTVNODEPATHINFO: c_int = 2;
const PROX_FDTYPE_VNODE: u32 = 1;
/// Public until macOS 13, since then in sys/proc_info_private.h.
const PROC_PIDREGIONPATHINFO2: c_int = 22;
/// `VREG` of sys/vnode.h.
const VREG: c_int = 1;
/// `FWRITE` of sys/fcntl.h.
const FWRITE: u32 = 0x0002;

/// `struct proc_fileinfo`.
#[repr(C)]
struct FileInfo {
    open_flags: u32,
    status: u32,
    offset: i64,
    kind: i32,
    guard_flags: u32,
}

/// `struct vnode_fdinfo`.
#[repr(C)]
struct OpenVnode {
    file: FileInfo,
    vnode: libc::vnode_info,
}

/// `struct vnode_fdinfowithpath`.
#[repr(C)]
struct OpenVnodeWithPath {
    open: OpenVnode,
    path: [u8; 1024],
}

/// `struct proc_regioninfo`.
#[repr(C)]
struct Region {
    protection: [u32; 4],
    offset: u64,
    rest: [u32; 14],
    address: u64,
    size: u64,
}

/// `struct proc_regionwithpathinfo`.
#[repr(C)]
struct MappedRegion {
    region: Region,
    vnode: libc::vnode_info,
    path: [u8; 1024],
}

/// A C structure that has only integers, so that every pattern of bytes is a valid value.
///
/// # Safety
///
/// The type is such a structure.
unsafe trait Plain {}

// SAFETY: the types have only integers and arrays of integers, are `repr(C)`, and have the sizes of XNU (the numbers on
// the right side below; sys/proc_info.h of xnu-11417). Apple does not change these sizes, because the kernel refuses a
// smaller buffer.
unsafe impl Plain for libc::proc_bsdshortinfo {}
// SAFETY: as above.
unsafe impl Plain for OpenVnode {}
// SAFETY: as above.
unsafe impl Plain for OpenVnodeWithPath {}
// SAFETY: as above.
unsafe impl Plain for MappedRegion {}
const _: () = {
    assert!(size_of::<libc::proc_bsdshortinfo>() == 64);
    assert!(size_of::<libc::proc_fdinfo>() == 8);
    assert!(size_of::<libc::vnode_info>() == 152);
    assert!(size_of::<OpenVnode>() == 24 + 152);
    assert!(size_of::<OpenVnodeWithPath>() == 24 + 152 + 1024);
    assert!(size_of::<Region>() == 96);
    assert!(size_of::<MappedRegion>() == 96 + 152 + 1024);
};

impl OpenVnode {
    fn file(&self) -> FileId {
        id(&self.vnode)
    }

    /// Reports whether this is a regular file that is opened for more than its events.
    fn is_use(&self) -> bool {
        let listens = self.file.open_flags & libc::O_EVTONLY.cast_unsigned() != 0;
        let writes = self.file.open_flags & FWRITE != 0;
        self.vnode.vi_type == VREG && (writes || !listens)
    }
}

fn id(vnode: &libc::vnode_info) -> FileId {
    FileId {
        dev: u64::from(vnode.vi_stat.vst_dev),
        ino: vnode.vi_stat.vst_ino,
    }
}

fn own_pid() -> libc::pid_t {
    std::process::id().cast_signed()
}

fn last_error() -> Errno {
    errno_of(&io::Error::last_os_error())
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Returns a structure that `call` fills. libproc returns the number of bytes, or 0 with errno.
fn read_struct<T: Plain>(call: impl FnOnce(*mut c_void, c_int) -> c_int) -> rustix::io::Result<T> {
    let mut answer = MaybeUninit::<T>::zeroed();
    let size = size_of::<T>();
    match usize::try_from(call(answer.as_mut_ptr().cast(), size as c_int)) {
        // SAFETY: the memory was zeroed, and any bytes are a valid value.
        Ok(written) if written == size => Ok(unsafe { answer.assume_init() }),
        Ok(written) if written > 0 => Err(Errno::IO),
        _ => Err(last_error()),
    }
}

/// Returns a list that `call` fills. The memory is enlarged until some of it remains unused.
fn read_list<T: Copy>(
    empty: T,
    mut call: impl FnMut(*mut c_void, c_int) -> c_int,
) -> rustix::io::Result<Vec<T>> {
    const MAX_ITEMS: usize = 1 << 22;
    let mut capacity = 256;
    while capacity <= MAX_ITEMS {
        let mut list = vec![empty; capacity];
        // An empty list is 0 as well, and leaves errno unchanged.
        // SAFETY: the address of this thread's errno is always valid.
        unsafe { *libc::__error() = 0 };
        let written = call(
            list.as_mut_ptr().cast(),
            size_of_val(list.as_slice()) as c_int,
        );
        let count = match usize::try_from(written) {
            Ok(bytes) if bytes > 0 => bytes / size_of::<T>(),
            _ => match io::Error::last_os_error().raw_os_error() {
                None | Some(0) => 0,
                Some(error) => return Err(Errno::from_raw_os_error(error)),
            },
        };
        if count < capacity {
            list.truncate(count);
            return Ok(list);
        }
        capacity *= 2;
    }
    Err(Errno::NOMEM)
}

/// Returns the pids of all processes, including zombies.
fn pids() -> Option<Vec<libc::pid_t>> {
    let pids = read_list(0, |to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_listpids(PROC_ALL_PIDS, 0, to, size) }
    });
    pids.ok().filter(|pids| !pids.is_empty())
}

/// Returns the descriptors of a process or, in the same form (`struct proc_fileportinfo`: name, type), its file ports.
fn list(pid: libc::pid_t, flavor: c_int) -> rustix::io::Result<Vec<libc::proc_fdinfo>> {
    let empty = libc::proc_fdinfo {
        proc_fd: 0,
        proc_fdtype: 0,
    };
    read_list(empty, |to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidinfo(pid, flavor, 0, to, size) }
    })
}

/// Returns state and owners of a process. This works for processes of every user.
fn short_info(pid: libc::pid_t) -> rustix::io::Result<libc::proc_bsdshortinfo> {
    /// Includes zombies.
    const ZOMBIES: u64 = 1;
    read_struct(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDT_SHORTBSDINFO, ZOMBIES, to, size) }
    })
}

fn vnode_of(pid: libc::pid_t, fd: c_int) -> rustix::io::Result<OpenVnode> {
    read_struct(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidfdinfo(pid, fd, PROC_PIDFDVNODEINFO, to, size) }
    })
}

fn vnode_of_port(pid: libc::pid_t, port: u32) -> rustix::io::Result<OpenVnode> {
    let info: OpenVnodeWithPath = read_struct(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidfileportinfo(pid, port, PROC_PIDFILEPORTVNODEPATHINFO, to, size) }
    })?;
    Ok(info.open)
}

/// Returns the path of the program of a process. It is not known here.
pub(super) fn program(_pid: u32) -> Option<std::path::PathBuf> {
    None
}

/// Returns the control group of a process. There are none here.
pub(super) fn unit(_pid: u32) -> Option<String> {
    None
}

/// A handle of a process, which tells how the process ended. There is none here.
#[derive(Debug)]
pub(super) enum ProcessHandle {}

impl ProcessHandle {
    /// Opens a handle of a process.
    pub(super) fn open(_pid: u32) -> Option<ProcessHandle> {
        None
    }

    /// Returns how the process ended.
    pub(super) fn exit_status(&self) -> Option<crate::core::process::ExitStatus> {
        match *self {}
    }
}

/// Returns the name of the process `pid` of the user `uid`. Returns `None` if there is no such process.
pub(super) fn writer_name(pid: u32, uid: u32) -> Option<String> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let info = short_info(pid).ok()?;
    (info.pbsi_uid == uid).then(|| process_name(pid))
}

/// Returns the name of a process, or its first 15 bytes if the process has another uid.
fn process_name(pid: libc::pid_t) -> String {
    let mut name = [0; 64];
    // SAFETY: the buffer is valid for writing its length, and large enough (`pbi_name` has 32).
    let length = unsafe { libc::proc_name(pid, name.as_mut_ptr().cast(), name.len() as u32) };
    let name = match length {
        1.. => bytes(&name),
        _ => short_info(pid)
            .map(|info| bytes(&info.pbsi_comm))
            .unwrap_or_default(),
    };
    String::from_utf8_lossy(&name).into_owned()
}

/// Returns the bytes before the first zero.
fn bytes(text: &[libc::c_char]) -> Vec<u8> {
    let text = text.iter().take_while(|&&c| c != 0);
    text.map(|&c| c.cast_unsigned()).collect()
}

/// Returns the use state of a guard file. It is never known: a process scan examines one process after the other, and a
/// descriptor in flight is in none of them. For temps the kernel's own check at the removal decides.
pub(super) fn guard_use(_: &Dir, _: &OsStr) -> UseState {
    UseState::Unknown
}

/// The extended attribute that marks a restored file.
pub(super) const RESTORED: &str = "org.orphand.restored";

/// The extended attribute of a directory in a quarantine that names the original directory of its files.
pub const ORIGIN: &str = "org.orphand.origin";

/// The extended attribute of a directory in a quarantine that names the set for which it was created, by the digits of its
/// claims.
pub const SET: &str = "org.orphand.set";

/// Sets the extended attribute `name` of `file`.
pub fn set_mark(file: BorrowedFd<'_>, name: &str, mark: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(file, name, mark, flags)?)
}

/// Returns the extended attribute `name` of `file`. Returns `None` if the file has none, or if the file system has no
/// extended attributes.
pub fn read_mark(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut found = vec![0; 128];
    match rustix::fs::fgetxattr(file, name, &mut found[..]) {
        Ok(length) => {
            found.truncate(length);
            Ok(Some(found))
        }
        Err(Errno::NOATTR | Errno::NOTSUP | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reports whether `file` has a resource fork, or extended attributes other than those of the system and of orphand. The
/// system sets attributes such as `com.apple.provenance` by itself.
pub(super) fn has_attributes(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut names = [0; 1024];
    let is_content = |name: &[u8]| {
        name == b"com.apple.ResourceFork"
            || !(name.is_empty()
                || name.starts_with(b"com.apple.")
                || name.starts_with(b"org.orphand."))
    };
    match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => Ok(names[..length].split(|byte| *byte == 0).any(is_content)),
        // They are more than fit into the buffer.
        Err(Errno::RANGE) => Ok(true),
        Err(Errno::NOTSUP | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
