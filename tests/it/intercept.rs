//! Intercepts system calls between a program and the kernel.
//!
//! seccomp(2) passes every call that concerns files to a supervisor. The supervisor lets it through, answers
//! it with an error, or kills the program at that point. So the unmodified program meets the fault, through
//! its own libraries. Unlike a preloaded shim, this also covers calls that are made without libc; unlike
//! strace(1), it needs no package and no root.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A system call that concerns files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    /// openat(2) or open(2) of a directory.
    OpenDir,
    /// openat2(2).
    OpenBelow,
    /// openat(2) or open(2) of an existing file.
    OpenFile,
    /// openat(2) or open(2) with `O_CREAT`.
    Create,
    /// statx(2) by name.
    StatName,
    /// statx(2) of an open file.
    StatFd,
    /// fstatfs(2).
    FileSystem,
    /// getdents64(2).
    List,
    /// fcntl(2), `F_SETOWN_EX`.
    SetOwner,
    /// fcntl(2), `F_SETLEASE` with `F_WRLCK`.
    SetLease,
    /// fcntl(2), `F_GETLEASE`.
    GetLease,
    /// fcntl(2), `F_SETLEASE` with `F_UNLCK`.
    EndLease,
    /// lseek(2), which finds data and holes.
    Seek,
    /// fgetxattr(2).
    GetXattr,
    /// flock(2).
    Lock,
    /// flock(2) with `LOCK_UN`.
    Unlock,
    /// write(2).
    Write,
    /// fsync(2).
    Sync,
    /// syncfs(2).
    SyncAll,
    /// ftruncate(2).
    Truncate,
    /// renameat2(2), renameat(2), rename(2).
    Rename,
    /// mkdirat(2), mkdir(2).
    MakeDir,
    /// unlinkat(2) of a file, unlink(2).
    Unlink,
    /// unlinkat(2) of a directory.
    RemoveDir,
    /// fcntl(2), `F_OFD_GETLK`.
    QueryLock,
    /// fcntl(2), `F_OFD_SETLK`.
    LockRange,
    /// fcntl(2), `F_OFD_SETLK` with `F_UNLCK`.
    UnlockRange,
    /// Another command of fcntl(2).
    Other,
}

impl Call {
    /// Reports whether the call changes the disk.
    pub(crate) fn changes_disk(self) -> bool {
        match self {
            Call::Create
            | Call::Write
            | Call::Truncate
            | Call::Rename
            | Call::MakeDir
            | Call::Unlink
            | Call::RemoveDir => true,
            Call::OpenDir
            | Call::OpenBelow
            | Call::OpenFile
            | Call::StatName
            | Call::StatFd
            | Call::FileSystem
            | Call::List
            | Call::SetOwner
            | Call::SetLease
            | Call::GetLease
            | Call::EndLease
            | Call::Seek
            | Call::GetXattr
            | Call::Sync
            | Call::SyncAll
            | Call::Lock
            | Call::Unlock
            | Call::QueryLock
            | Call::LockRange
            | Call::UnlockRange
            | Call::Other => false,
        }
    }
}

/// The response to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResponse {
    /// Execute the call.
    Allow,
    /// Do not execute the call: it fails with this error.
    Fail(Errno),
    /// Do not execute the call: kill the process.
    Kill,
}

/// A call that waits for its response.
pub(crate) struct PendingCall {
    pub(crate) call: Call,
    /// The calling thread.
    tid: u32,
    number: libc::c_long,
    args: [u64; 6],
}

impl PendingCall {
    /// Returns the path that the call concerns; for a rename, its source.
    pub(crate) fn path(&self) -> PathBuf {
        match self.number {
            libc::SYS_fstatfs
            | libc::SYS_fcntl
            | libc::SYS_flock
            | libc::SYS_fgetxattr
            | libc::SYS_getdents64
            | libc::SYS_write
            | libc::SYS_fsync
            | libc::SYS_syncfs
            | libc::SYS_ftruncate => self.open_file(self.args[0]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open | libc::SYS_rename | libc::SYS_unlink | libc::SYS_mkdir => {
                self.string(self.args[0])
            }
            _ => self.path_at(self.args[0], self.args[1]),
        }
    }

    /// Returns the destination of a rename.
    pub(crate) fn rename_target(&self) -> Option<PathBuf> {
        match self.number {
            libc::SYS_renameat | libc::SYS_renameat2 => {
                Some(self.path_at(self.args[2], self.args[3]))
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => Some(self.string(self.args[1])),
            _ => None,
        }
    }

    fn path_at(&self, dir: u64, name: u64) -> PathBuf {
        let name = self.string(name);
        match name.is_absolute() || dir as i32 == libc::AT_FDCWD {
            true => name,
            // An empty name means the open file itself.
            false if name.as_os_str().is_empty() => self.open_file(dir),
            false => self.open_file(dir).join(name),
        }
    }

    fn open_file(&self, fd: u64) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/{}", self.tid, fd as i32)).unwrap_or_default()
    }

    /// Returns the first field of a `struct flock`.
    fn lock_kind(&self) -> libc::c_short {
        let mut kind = [0; 2];
        let memory = File::open(format!("/proc/{}/mem", self.tid)).unwrap();
        memory.read_exact_at(&mut kind, self.args[2]).unwrap();
        libc::c_short::from_ne_bytes(kind)
    }

    fn string(&self, at: u64) -> PathBuf {
        let mut bytes = vec![0; 4096];
        let memory = File::open(format!("/proc/{}/mem", self.tid));
        // The memory behind the string may be unmapped.
        let read = memory.and_then(|memory| {
            let page = 4096 - at % 4096;
            let first = memory.read_at(&mut bytes[..page as usize], at)?;
            Ok(first
                + memory
                    .read_at(&mut bytes[first..], at + first as u64)
                    .unwrap_or(0))
        });
        bytes.truncate(read.unwrap_or(0));
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        OsString::from_vec(bytes).into()
    }
}

/// The calls that are intercepted.
const CALLS: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_fgetxattr,
    libc::SYS_flock,
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_syncfs,
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    // Newer architectures have only those above.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

const F_SETOWN_EX: i32 = 15;

fn classify(number: libc::c_long, args: &[u64; 6]) -> Call {
    match number {
        libc::SYS_openat => classify_open(args[2] as i32),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => classify_open(args[1] as i32),
        libc::SYS_openat2 => Call::OpenBelow,
        libc::SYS_statx => match args[2] as i32 & libc::AT_EMPTY_PATH != 0 {
            true => Call::StatFd,
            false => Call::StatName,
        },
        libc::SYS_lseek => Call::Seek,
        libc::SYS_fstatfs => Call::FileSystem,
        libc::SYS_getdents64 => Call::List,
        libc::SYS_fcntl => match (args[1] as i32, args[2] as i32) {
            (F_SETOWN_EX, _) => Call::SetOwner,
            (libc::F_SETLEASE, libc::F_UNLCK) => Call::EndLease,
            (libc::F_SETLEASE, _) => Call::SetLease,
            (libc::F_GETLEASE, _) => Call::GetLease,
            (libc::F_OFD_GETLK, _) => Call::QueryLock,
            (libc::F_OFD_SETLK, _) => Call::LockRange,
            _ => Call::Other,
        },
        libc::SYS_fgetxattr => Call::GetXattr,
        libc::SYS_flock => match args[1] as i32 {
            libc::LOCK_UN => Call::Unlock,
            _ => Call::Lock,
        },
        libc::SYS_write => Call::Write,
        libc::SYS_fsync => Call::Sync,
        libc::SYS_syncfs => Call::SyncAll,
        libc::SYS_ftruncate => Call::Truncate,
        libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename,
        libc::SYS_mkdirat => Call::MakeDir,
        libc::SYS_unlinkat => match args[2] as i32 & libc::AT_REMOVEDIR != 0 {
            true => Call::RemoveDir,
            false => Call::Unlink,
        },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Call::Rename,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => Call::MakeDir,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => Call::Unlink,
        _ => Call::Other,
    }
}

fn classify_open(flags: i32) -> Call {
    match flags {
        flags if flags & libc::O_CREAT != 0 => Call::Create,
        flags if flags & libc::O_DIRECTORY != 0 => Call::OpenDir,
        _ => Call::OpenFile,
    }
}

/// The filter. It is created in advance: between fork and exec nothing can be allocated.
struct Filter(Vec<libc::sock_filter>);

impl Filter {
    fn new() -> Filter {
        // SAFETY: both only put their arguments into a struct.
        let (statement, jump) = unsafe {
            (
                |code: u32, k: u32| libc::BPF_STMT(code as u16, k),
                |code: u32, k: u32, yes: u8| libc::BPF_JUMP(code as u16, k, yes, 0),
            )
        };
        let mut program = vec![statement(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            std::mem::offset_of!(libc::seccomp_data, nr) as u32,
        )];
        for (index, call) in CALLS.iter().enumerate() {
            let to_the_end = (CALLS.len() - index) as u8;
            let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            program.push(jump(equal, *call as u32, to_the_end));
        }
        program.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ALLOW,
        ));
        program.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_USER_NOTIF,
        ));
        Filter(program)
    }

    /// Intercepts the calls of this thread, and of the threads that it creates, from now on. The owner of the
    /// returned descriptor receives them. This cannot be undone.
    fn install(&mut self) -> io::Result<OwnedFd> {
        let program = libc::sock_fprog {
            len: self.0.len() as u16,
            filter: self.0.as_mut_ptr(),
        };
        // SAFETY: the program outlives the call; the returned descriptor belongs to this process alone.
        unsafe {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            let listener = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            );
            match RawFd::try_from(listener) {
                Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

/// Answers calls until no process is left that could make one.
fn serve(listener: &OwnedFd, mut answer: impl FnMut(&PendingCall) -> CallResponse) {
    let fd = listener.as_raw_fd();
    loop {
        let mut ready = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        let polled = unsafe { libc::poll(&raw mut ready, 1, -1) };
        if polled < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if polled != 1 || ready.revents & libc::POLLIN == 0 {
            return;
        }
        // SAFETY: the call requires a zeroed struct, and fills it.
        let asked = unsafe {
            let mut asked: libc::seccomp_notif = std::mem::zeroed();
            match libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) {
                0 => asked,
                // The calling process was killed.
                _ => continue,
            }
        };
        let number = libc::c_long::from(asked.data.nr);
        let mut call = PendingCall {
            call: classify(number, &asked.data.args),
            tid: asked.pid,
            number,
            args: asked.data.args,
        };
        if call.call == Call::LockRange && call.lock_kind() == libc::F_UNLCK as libc::c_short {
            call.call = Call::UnlockRange;
        }
        let mut response = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: 0,
            flags: 0,
        };
        match answer(&call) {
            CallResponse::Allow => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            CallResponse::Fail(errno) => response.error = -errno.raw_os_error(),
            CallResponse::Kill => {
                // SAFETY: kill(2) takes any numbers. The pid of a process is that of its first thread.
                unsafe { libc::kill(process_of_thread(asked.pid), libc::SIGKILL) };
                response.error = -libc::EIO;
            }
        }
        // SAFETY: the struct outlives the call. A killed process needs no response, so an error does not
        // matter.
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    }
}

/// Returns the process of a thread.
fn process_of_thread(tid: u32) -> libc::pid_t {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let tgid = tgid.and_then(|tgid| tgid.trim().parse().ok());
    tgid.unwrap_or(tid as libc::pid_t)
}

/// Runs `body` in a thread of its own, and passes its calls to `answer`, which runs in another thread.
pub(crate) fn thread<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
    mut answer: impl FnMut(&PendingCall) -> CallResponse + Send + 'static,
) -> io::Result<thread::Result<T>> {
    let (send, listener) = std::sync::mpsc::channel::<io::Result<OwnedFd>>();
    let supervisor = thread::spawn(move || {
        let listener = listener.recv().expect("a listener or an error")?;
        serve(&listener, &mut answer);
        io::Result::Ok(())
    });
    let supervised = thread::spawn(move || {
        let installed = Filter::new().install();
        let is_there = installed.is_ok();
        let _ = send.send(installed);
        is_there.then(body)
    });
    let result = supervised.join();
    supervisor.join().expect("the supervisor does not panic")?;
    Ok(result.map(|done| done.expect("the thread ran, because there was a listener")))
}

/// Reports whether calls can be intercepted on this machine.
pub(crate) fn is_possible() -> bool {
    thread(|| (), |_| CallResponse::Allow).is_ok()
}

/// Passes the calls of the program that `command` will run to `answer`. Must be the last preparation of the
/// command. The returned thread ends with the process.
pub(crate) fn process(
    command: &mut Command,
    mut answer: impl FnMut(&PendingCall) -> CallResponse + Send + 'static,
) -> JoinHandle<()> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut filter = Filter::new();
    // SAFETY: the hook makes only system calls between fork and exec, on values created before.
    unsafe {
        command.pre_exec(move || {
            // All descriptors of the tests are still open here: more than the program may have.
            let limit = getrlimit(Resource::Nofile);
            let current = limit.maximum;
            setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
            let listener = filter.install()?;
            send_fd(theirs.as_raw_fd(), listener.as_raw_fd())?;
            Ok(setrlimit(Resource::Nofile, limit)?)
        });
    }
    thread::spawn(move || {
        let listener = receive_fd(ours.as_raw_fd()).expect("a listener");
        serve(&listener, &mut answer);
    })
}

/// The control buffer of a message, with room for one descriptor, aligned as cmsg(3) requires.
#[repr(C, align(8))]
struct ControlBuffer([u8; 64]);

fn message(beside: &mut ControlBuffer, data: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = data;
    message.msg_iovlen = 1;
    message.msg_control = beside.0.as_mut_ptr().cast();
    // SAFETY: only computes a length.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    message
}

fn send_fd(socket: RawFd, fd: RawFd) -> io::Result<()> {
    let (mut beside, mut byte) = (ControlBuffer([0; 64]), 0u8);
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let message = message(&mut beside, &mut data);
    // SAFETY: the header lies in `beside`, which has room for one descriptor, as `message` says.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(socket, &raw const message, 0)
    };
    match sent {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn receive_fd(socket: RawFd) -> io::Result<OwnedFd> {
    let (mut beside, mut byte) = (ControlBuffer([0; 64]), 0u8);
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut message = message(&mut beside, &mut data);
    // SAFETY: as above; a received descriptor belongs to this process alone.
    unsafe {
        if libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
