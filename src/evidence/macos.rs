//! Evidence on macOS: a walk over the processes shows holders, and where the kernel refuses to
//! remove the name of a file in use, that refusal is the proof. Type-checked only, never run; see
//! docs/platforms.md.
//!
//! What it rests on was read in XNU (xnu-11417, macOS 15.4; later ones where named):
//!
//! - `F_SETLEASE` is there since macOS 14, but needs an entitlement of Apple's. Not for us.
//! - `unlinkat(AT_NODELETEBUSY)`, since macOS 26.0, fails with EBUSY while anybody has the file
//!   open or mapped, event listeners excepted. Older kernels answer EINVAL before any look-up. The
//!   check itself is the file system's, so it is tried out, and believed only where it was tried.
//! - `proc_pidinfo` and its siblings answer EPERM for another uid's process, unless we are root.
//!   They say nothing of a descriptor in flight over a socket or in a Mach message. The walk asks
//!   one process after the other, not all of them at one instant.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, c_int, c_uint, c_void};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{FileId, ProcessScan};
use crate::decide::judge::{LeaseCoverage, Writer};
use crate::decide::macos_hold::{self, Facts};
use crate::decide::observation::{Holder, UseState};
use crate::decide::time::Mono;
use crate::look::Dir;

/// Opens a file whose type is known to be regular, in order to ask who else has it.
///
/// `O_EVTONLY` makes it an event listener's descriptor: the kernel does not count it as a use of
/// the file, so it can stay open while the file is removed, and it does not keep a volume from
/// being ejected. It needs the right to read, like any other. Extended attributes and locks can
/// be read through it (fgetxattr and `F_GETLK` ask the vnode and our credentials, and do not look
/// at what the descriptor was opened for).
///
/// `RACE:` between the look that said *regular* and this call the name may come to stand for a
/// FIFO or a device. `O_NONBLOCK` and `O_NOCTTY` make a FIFO and a terminal harmless; worst case: a
/// device special file is opened and closed, or a file whose bytes are elsewhere is fetched.
pub fn open_to_ask(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir.fd(),
        name,
        listening(),
        Mode::empty(),
    )?)
}

fn listening() -> OFlags {
    OFlags::RDONLY
        | OFlags::from_bits_retain(libc::O_EVTONLY.cast_unsigned())
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC
}

/// Asks who holds files. It keeps the last walk over the processes for a moment: one walk answers
/// for all the files that are looked at together.
#[derive(Debug, Default)]
pub struct LeaseThread {
    walks: Arc<Walks>,
}

impl LeaseThread {
    /// Has not walked yet.
    #[must_use]
    pub fn new() -> LeaseThread {
        LeaseThread::default()
    }

    /// Asks whether anybody else has `file` open or mapped.
    ///
    /// [`UseState::InUse`] is certain. [`UseState::Unused`] is only worth what [`macos_hold::use_state`] says, and
    /// comes out of a walk that may be a moment old: it allows the claim, and everything that
    /// counts is asked after that ([`LeasedFile::acquire`], and the removal itself).
    #[must_use]
    pub fn lease(&self, file: OwnedFd) -> (UseState, LeasedFile) {
        // The file is looked for under the numbers that the process tables themselves give it.
        let id = vnode_of(own_pid(), file.as_raw_fd())
            .map(|seen| seen.file())
            .ok();
        let kernel_refuses = type_of_file_system(file.as_fd())
            .is_some_and(|here| refusing_file_system() == Some(here));
        let mut leased = LeasedFile {
            file,
            walks: Arc::clone(&self.walks),
            id,
            kernel_refuses,
            let_go: None,
        };
        (leased.acquire(), leased)
    }

    /// Asks the same of a file that was asked about before. As for the first question, a walk counts
    /// that another file was answered by.
    pub fn lease_again(&self, leased: &mut LeasedFile) -> UseState {
        leased.let_go = None;
        leased.acquire()
    }
}

/// An open file, and what can be asked about its holders. Nothing is held that could delay anybody.
#[derive(Debug)]
pub struct LeasedFile {
    file: OwnedFd,
    walks: Arc<Walks>,
    id: Option<FileId>,
    kernel_refuses: bool,
    let_go: Option<Instant>,
}

impl LeasedFile {
    /// Asks again. After [`LeasedFile::release`] only a walk that began later than that counts.
    pub fn acquire(&mut self) -> UseState {
        self.look(self.let_go)
    }

    /// Nothing stands in anybody's way here that could have been broken since the last question,
    /// and to walk once more for each of a batch would keep all of them from their names for that
    /// long (a walk takes a tenth of a second or more). So it is not asked here: one walk that
    /// begins after the last claim of the batch answers for all ([`LeasedFile::acquire`]).
    #[must_use]
    pub fn still_held(&self) -> UseState {
        UseState::Unused
    }

    /// Whether somebody else holds a BSD or POSIX lock on it.
    ///
    /// RACE: one may be taken right after this; worst case: a file goes by the user's wish that was locked a
    /// moment before.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn lock(&mut self) -> io::Result<bool> {
        is_locked_by_others(self.file())
    }

    /// From now on only a new walk counts.
    pub fn release(&mut self) {
        self.let_go = Some(Instant::now());
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The flags with which the kernel refuses to remove this file's name while it is in use; none
    /// where it does not.
    pub(crate) fn unless_busy(&self) -> Option<AtFlags> {
        self.kernel_refuses.then_some(NO_DELETE_BUSY)
    }

    /// Whether the kernel itself refuses to remove this file's name while it is in use. Where it
    /// does not, a walk over the processes is all there is.
    #[must_use]
    pub fn is_the_kernels(&self) -> bool {
        self.kernel_refuses
    }

    /// Whether a walk that began after [`LeasedFile::release`], or, where nothing was let go of, one that
    /// begins now, proves that nobody holds it.
    pub(crate) fn is_still_free(&self) -> bool {
        let since = self.let_go.unwrap_or_else(Instant::now);
        self.look(Some(since)) == UseState::Unused
    }

    fn look(&self, since: Option<Instant>) -> UseState {
        let (Some(id), Ok(seen)) = (self.id, rustix::fs::fstat(&self.file)) else {
            return UseState::Unknown;
        };
        let wanted = Wanted {
            dev: id.dev,
            since,
            // Before the claim, and where the kernel proves it later, a walk only spares a holder
            // the loss of its name for a moment.
            thorough: since.is_some() && !self.kernel_refuses,
        };
        let (held, examined) = self.walks.ask(wanted, id.ino);
        macos_hold::use_state(&Facts {
            seen: held,
            // Here it can only add a reason to keep.
            locked: is_locked_by_others(self.file()).unwrap_or(false),
            examined,
            kernel_refuses: self.kernel_refuses,
            owner: seen.st_uid,
            our_uid: rustix::process::geteuid().as_raw(),
            mode: u32::from(seen.st_mode),
            acl: has_acl(self.file()),
        })
    }
}

/// Whether the process whose pid a name carries is gone: there is none, or it is a zombie.
///
/// Start times are not compared. macOS keeps them by the wall clock (`p_start` is the time of day
/// at the fork), and a clock that was set would make a live writer younger than its own temp.
///
/// Nor can the kernel or launchd have written it. A process of another user can: it may have given up root since, or
/// have given the file away.
#[must_use]
pub fn writer(pid: u32, _: Option<Mono>) -> Writer {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Writer::Alive(pid);
    };
    // kill(2) succeeds for a zombie, as POSIX wants it.
    if rustix::process::test_kill_process(process) == Err(Errno::SRCH) {
        return Writer::Gone(pid);
    }
    match short_info(process.as_raw_nonzero().get()) {
        Ok(info) if info.pbsi_status == libc::SZOMB => Writer::Gone(pid),
        Ok(_) if pid <= 1 => Writer::Gone(pid),
        Ok(_) | Err(_) => Writer::Alive(pid),
    }
}

/// There are no pid namespaces here.
pub(super) fn container_pids() -> io::Result<HashMap<u32, Vec<u32>>> {
    Ok(HashMap::new())
}

/// Not asked here: [`LeaseThread::ask`] has the open file, asks it, and answers [`UseState::Locked`] by itself.
pub(super) fn is_locked(_: Option<&LeasedFile>) -> Option<bool> {
    None
}

/// There is no table of locks.
pub(super) fn locked_files() -> io::Result<Vec<FileId>> {
    Ok(Vec::new())
}

/// One device, one number.
pub(super) fn may_be_device(listed: u64, dev: u64) -> bool {
    listed == dev
}

/// `F_GETLK` tells of another process's POSIX lock and of anybody's flock(2).
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

/// Whether an access control list may let others write. "None" is told by ENOENT (acl_get_fd_np
/// in Apple's Libc); any other answer counts as one.
fn has_acl(file: BorrowedFd<'_>) -> bool {
    /// `ACL_TYPE_EXTENDED` of sys/acl.h.
    const EXTENDED: c_uint = 0x0000_0100;
    // sys/acl.h
    unsafe extern "C" {
        fn acl_get_fd_np(fd: c_int, kind: c_uint) -> *mut c_void;
        fn acl_free(acl: *mut c_void) -> c_int;
    }
    // SAFETY: the descriptor is open; what is returned is ours to free, once, if it is not null.
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

/// `f_fstypename` of statfs(2).
type FileSystem = [libc::c_char; 16];

fn type_of_file_system(fd: BorrowedFd<'_>) -> Option<FileSystem> {
    rustix::fs::fstatfs(fd).ok().map(|seen| seen.f_fstypename)
}

/// What is known of the kernel's refusal.
enum Tried {
    /// It works on this type of file system, or nowhere.
    Known(Option<FileSystem>),
    /// It could not be tried: no room for a file of our own, or somebody had that open.
    NotYet(Option<Instant>),
}

/// The type of file system on which the kernel was seen to refuse, if there is one. It is tried
/// once, in a folder of our own in `$TMPDIR`; until that comes to something, once a minute.
fn refusing_file_system() -> Option<FileSystem> {
    const AGAIN: Duration = Duration::from_secs(60);
    static TRIED: Mutex<Tried> = Mutex::new(Tried::NotYet(None));
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    match *tried {
        Tried::Known(answer) => return answer,
        Tried::NotYet(Some(last)) if last.elapsed() < AGAIN => return None,
        Tried::NotYet(_) => {}
    }
    let answer = try_refusal();
    match answer {
        Ok(answer) => *tried = Tried::Known(answer),
        Err(_) => *tried = Tried::NotYet(Some(Instant::now())),
    }
    answer.ok().flatten()
}

/// Tries on a file of our own what is relied on later: that the kernel refuses while the file is
/// open, also while it is only mapped, and that an event listener's descriptor is no hindrance.
/// One answer that is not as expected, and the flag is not used at all.
fn try_refusal() -> rustix::io::Result<Option<FileSystem>> {
    let folder = OwnFolder::make()?;
    let Some(file_system) = type_of_file_system(folder.fd.as_fd()) else {
        return Ok(None);
    };
    let remove = || rustix::fs::unlinkat(&folder.fd, OwnFolder::FILE, NO_DELETE_BUSY);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = rustix::fs::openat(&folder.fd, OwnFolder::FILE, flags, Mode::RUSR | Mode::WUSR)?;
    let mut open = std::fs::File::from(open);
    open.write_all(b"?").map_err(|_| Errno::NOSPC)?;
    let _listener = rustix::fs::openat(&folder.fd, OwnFolder::FILE, listening(), Mode::empty())?;
    if remove() != Err(Errno::BUSY) {
        return Ok(None);
    }
    let mapping = Mapping::of(open.as_fd())?;
    drop(open);
    if remove() != Err(Errno::BUSY) {
        return Ok(None);
    }
    drop(mapping);
    // A mapping's use of the file may end a little after munmap(2) returns.
    for _ in 0..20 {
        match remove() {
            Ok(()) => {
                let left = rustix::fs::statat(&folder.fd, OwnFolder::FILE, AtFlags::empty());
                return Ok((left.err() == Some(Errno::NOENT)).then_some(file_system));
            }
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return Ok(None),
        }
    }
    // Somebody, a virus scanner say, has it open. That says nothing.
    Err(Errno::BUSY)
}

/// A folder of our own, closed to everybody else, that goes away with what it holds.
struct OwnFolder {
    path: PathBuf,
    fd: OwnedFd,
}

impl OwnFolder {
    const FILE: &CStr = c"in-use";

    fn make() -> rustix::io::Result<OwnFolder> {
        let number = crate::clock::mono().since_boot().as_nanos();
        let name = format!("orphand-try-{}-{number:x}", own_pid());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| errno_of(&error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(OwnFolder { path, fd }),
            Err(error) => {
                clear(&path);
                Err(error)
            }
        }
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.fd, OwnFolder::FILE, AtFlags::empty());
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
        // SAFETY: a new mapping at an address of the kernel's choice; nothing reads through it.
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
        // SAFETY: address and length are those of a mapping that is unmapped here only.
        unsafe { libc::munmap(self.0, Mapping::LENGTH) };
    }
}

// --- the walk --------------------------------------------------------------------------------

/// How old a walk may be, and for how many times its own length, to answer one more question.
/// The second bounds what looking at a steady trickle of temps costs: a fifth of one core.
const FRESH: Duration = Duration::from_millis(200);
const TIMES: u32 = 5;

/// The last walk.
#[derive(Debug, Default)]
struct Walks {
    last: Mutex<Option<ProcessWalk>>,
}

/// Which walk will do.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The device whose files are asked for.
    dev: u64,
    /// It must have begun at this moment or later.
    since: Option<Instant>,
    /// It must have examined mappings in the way that leaves none out.
    thorough: bool,
}

/// What a walk over the processes saw of one device.
#[derive(Debug)]
struct ProcessWalk {
    wanted: Wanted,
    began: Instant,
    took: Duration,
    /// Inode numbers of the regular files that somebody holds.
    held: HashSet<u64>,
    /// Every process that counts was examined.
    examined: bool,
}

impl Walks {
    /// Whether somebody was seen holding the inode, and whether everybody who counts was examined.
    fn ask(&self, wanted: Wanted, ino: u64) -> (bool, bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let walk = match last.take() {
            Some(walk) if walk.serves(wanted) => walk,
            _ => ProcessWalk::over_all(wanted),
        };
        let walk = last.insert(walk);
        (walk.held.contains(&ino), walk.examined)
    }
}

impl ProcessWalk {
    fn serves(&self, wanted: Wanted) -> bool {
        self.wanted.dev == wanted.dev
            && (self.wanted.thorough || !wanted.thorough)
            && wanted.since.is_none_or(|since| self.began >= since)
            && self.began.elapsed() <= FRESH.max(self.took * TIMES)
    }

    fn over_all(wanted: Wanted) -> ProcessWalk {
        let began = Instant::now();
        let mut held = HashSet::new();
        let examined = walk(wanted.thorough, &mut |_, file| {
            if file.dev == wanted.dev {
                held.insert(file.ino);
            }
        });
        ProcessWalk {
            wanted,
            began,
            took: began.elapsed(),
            held,
            examined,
        }
    }
}

/// Walks over all processes and notes who has one of `wanted` open or mapped. Never complete:
/// what is in flight is not seen, and the quick way of asking for mappings may leave some out.
#[must_use]
pub fn scan_processes(wanted: &[FileId], _: LeaseCoverage) -> ProcessScan {
    let wanted: HashSet<FileId> = wanted.iter().copied().collect();
    let mut seen: HashMap<FileId, HashSet<libc::pid_t>> = HashMap::new();
    walk(false, &mut |pid, file| {
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
        holders.sort();
        process_scan.holders.insert(file, holders);
    }
    process_scan
}

/// Calls `note` with each process and each regular file that it has open or mapped. Says whether
/// every process that counts could be examined.
///
/// RACE: a descriptor that is handed, over a socket or as a Mach port, from a process that is still
/// to be examined to one that has been, is not seen. Worst case: the file counts as free while the
/// receiver holds it; then the kernel's refusal saves it, where there is one.
fn walk(thorough: bool, note: &mut dyn FnMut(libc::pid_t, FileId)) -> bool {
    let us = rustix::process::geteuid().as_raw();
    let mut walked = HashSet::new();
    let mut examined = true;
    // A child of a process that was still to be examined is found by reading the list again. Who
    // forks faster than this reads leaves the walk incomplete.
    for round in 0..4 {
        let Some(pids) = pids() else {
            return false;
        };
        // The kernel itself, pid 0, is no process that could hold a user's file.
        let mut news = pids;
        news.retain(|&pid| pid > 0 && walked.insert(pid));
        if news.is_empty() {
            break;
        }
        if round == 3 {
            examined = false;
        }
        for pid in news {
            examined &= examine(pid, us, thorough, note);
        }
    }
    examined && walked.contains(&own_pid())
}

/// Examines one process. False if it could not be, and counts.
fn examine(
    pid: libc::pid_t,
    us: libc::uid_t,
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
        Err(_) => !counts(&info, us),
    }
}

/// Whether a process that cannot be examined leaves a doubt about a file that only `us` and root
/// may write: one of ours, also one that has put another uid on for a while, and a file server,
/// which does as root what its clients want. Other processes of root's are trusted.
fn counts(info: &libc::proc_bsdshortinfo, us: libc::uid_t) -> bool {
    const FILE_SERVERS: [&[u8]; 3] = [b"smbd", b"nfsd", b"AppleFileServer"];
    let ours = info.pbsi_uid == us;
    let ours_at_times = info.pbsi_uid != 0 && [info.pbsi_ruid, info.pbsi_svuid].contains(&us);
    let name = bytes(&info.pbsi_comm);
    us == 0 || ours || ours_at_times || FILE_SERVERS.contains(&name.as_slice())
}

/// Calls `note` with each regular file that a process has open or mapped. An error if it could not
/// be examined to the end.
fn files_of(
    pid: libc::pid_t,
    thorough: bool,
    note: &mut dyn FnMut(FileId),
) -> rustix::io::Result<()> {
    for open in list(pid, libc::PROC_PIDLISTFDS)? {
        if open.proc_fdtype != PROX_FDTYPE_VNODE {
            continue;
        }
        match vnode_of(pid, open.proc_fd) {
            Ok(seen) if seen.is_use() => note(seen.file()),
            Ok(_) => {}
            // Closed meanwhile; revoked; or a file that we may not even stat: none is ours, which
            // answers the same question through our own descriptor.
            Err(Errno::BADF | Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    // A descriptor on its way to another process can have the form of a Mach port.
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
    // After the descriptors: who maps a file and closes it then is seen in one place or the other.
    let mapped = mapped_files(pid, thorough, note)?;
    // Every process has its own program mapped. Where ours does not show, the question is not
    // understood.
    if pid == own_pid() && mapped == 0 {
        return Err(Errno::NOSYS);
    }
    // Had it become another uid's meanwhile, each of its descriptors would have said EPERM.
    list(pid, libc::PROC_PIDLISTFDS).map(drop)
}

/// Calls `note` with each regular file that a process has mapped; the number of mappings.
///
/// The thorough way goes from region to region, like lsof, and is slow. The quick one asks for
/// those with a file behind them, like Apple's own proc_listpidspath; it ends early at a mapping
/// whose file was taken away by force. Neither sees what is mapped through the pagers that the
/// kernel keeps for programs themselves (dyld's, say).
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
        let region: MappedRegion = match ask(|to, size| {
            // SAFETY: `to` is valid for writing `size` bytes.
            unsafe { libc::proc_pidinfo(pid, flavor, at, to, size) }
        }) {
            Ok(region) => region,
            // This is how both say that there is no more.
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

/// Of sys/proc_info.h, where the libc crate has them not or as another type.
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

/// A C structure of integers alone, of which every pattern of bytes is a value.
///
/// # Safety
///
/// It is one.
unsafe trait Plain {}

// SAFETY: integers and arrays of them, `repr(C)`, and of the sizes that XNU gives them (the second
// numbers; sys/proc_info.h of xnu-11417). Apple keeps them: the kernel refuses any smaller buffer.
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

    /// A regular file, opened for more than to listen for its events.
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

/// Lets `call` fill a structure. libproc returns the number of bytes, or 0 and errno.
fn ask<T: Plain>(call: impl FnOnce(*mut c_void, c_int) -> c_int) -> rustix::io::Result<T> {
    let mut answer = MaybeUninit::<T>::zeroed();
    let size = size_of::<T>();
    match usize::try_from(call(answer.as_mut_ptr().cast(), size as c_int)) {
        // SAFETY: it was zeroed, and any bytes are a value of it.
        Ok(written) if written == size => Ok(unsafe { answer.assume_init() }),
        Ok(written) if written > 0 => Err(Errno::IO),
        _ => Err(last_error()),
    }
}

/// Lets `call` fill a list, with more and more room until some of it is left.
fn ask_list<T: Copy>(
    empty: T,
    mut call: impl FnMut(*mut c_void, c_int) -> c_int,
) -> rustix::io::Result<Vec<T>> {
    const MOST: usize = 1 << 22;
    let mut room = 256;
    while room <= MOST {
        let mut list = vec![empty; room];
        // "None" is 0 as well, and leaves errno as it was.
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
        if count < room {
            list.truncate(count);
            return Ok(list);
        }
        room *= 2;
    }
    Err(Errno::NOMEM)
}

/// All processes, zombies too.
fn pids() -> Option<Vec<libc::pid_t>> {
    let pids = ask_list(0, |to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_listpids(PROC_ALL_PIDS, 0, to, size) }
    });
    pids.ok().filter(|pids| !pids.is_empty())
}

/// A process's descriptors or, in the same form (`struct proc_fileportinfo`: name, type), its file
/// ports.
fn list(pid: libc::pid_t, flavor: c_int) -> rustix::io::Result<Vec<libc::proc_fdinfo>> {
    let empty = libc::proc_fdinfo {
        proc_fd: 0,
        proc_fdtype: 0,
    };
    ask_list(empty, |to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidinfo(pid, flavor, 0, to, size) }
    })
}

/// State and owners of a process; anybody's may be asked for.
fn short_info(pid: libc::pid_t) -> rustix::io::Result<libc::proc_bsdshortinfo> {
    /// Zombies too.
    const ZOMBIES: u64 = 1;
    ask(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDT_SHORTBSDINFO, ZOMBIES, to, size) }
    })
}

fn vnode_of(pid: libc::pid_t, fd: c_int) -> rustix::io::Result<OpenVnode> {
    ask(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidfdinfo(pid, fd, PROC_PIDFDVNODEINFO, to, size) }
    })
}

fn vnode_of_port(pid: libc::pid_t, port: u32) -> rustix::io::Result<OpenVnode> {
    let answer: OpenVnodeWithPath = ask(|to, size| {
        // SAFETY: `to` is valid for writing `size` bytes.
        unsafe { libc::proc_pidfileportinfo(pid, port, PROC_PIDFILEPORTVNODEPATHINFO, to, size) }
    })?;
    Ok(answer.open)
}

/// What the process `pid` of the user `uid` calls itself; `None` if there is no such process.
pub(super) fn writer_name(pid: u32, uid: u32) -> Option<String> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let info = short_info(pid).ok()?;
    (info.pbsi_uid == uid).then(|| process_name(pid))
}

/// What a process calls itself; the first 15 bytes of that where it is another uid's.
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

/// The bytes before the first zero.
fn bytes(text: &[libc::c_char]) -> Vec<u8> {
    let text = text.iter().take_while(|&&c| c != 0);
    text.map(|&c| c.cast_unsigned()).collect()
}

/// The extended attribute that marks a restored file.
pub(super) const RESTORED: &str = "org.orphand.restored";

/// The extended attribute of a directory in a quarantine that says which directory its files lay in.
pub const ORIGIN: &str = "org.orphand.origin";

/// Puts the extended attribute `name` on `file`.
pub fn set_mark(file: BorrowedFd<'_>, name: &str, mark: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(file, name, mark, flags)?)
}

/// The extended attribute `name` of `file`, if it bears one, or could.
pub fn mark(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
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
