//! A hand between a program and the kernel.
//!
//! seccomp(2) hands every call that concerns files to a supervisor, which lets it through, answers
//! it with an error instead, or lets the program die right there. So it is the program as it is
//! that meets the fault, through its own libraries, and no stand-in of ours; unlike a shim that is
//! preloaded it also sees calls that are made without libc, and unlike strace(1) it needs no
//! package and no root.

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

/// What a program asks of the kernel, as far as files are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    /// openat(2) of a directory, or open(2).
    OpenDir,
    /// openat2(2).
    OpenBelow,
    /// The same of a file that must be there.
    OpenFile,
    /// The same of a file that may have to be made.
    Create,
    /// statx(2) by name.
    StatName,
    /// statx(2) of what is open.
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
    /// lseek(2): where data and holes begin.
    Seek,
    /// fgetxattr(2).
    GetXattr,
    /// flock(2).
    Lock,
    /// The same with `LOCK_UN`.
    Unlock,
    /// write(2).
    Write,
    /// ftruncate(2).
    Truncate,
    /// renameat2(2), and the older two.
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
    /// The same with `F_UNLCK`.
    UnlockRange,
    /// Another command of fcntl(2).
    Other,
}

impl Call {
    /// Whether it changes what is on the disk.
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
            | Call::Lock
            | Call::Unlock
            | Call::QueryLock
            | Call::LockRange
            | Call::UnlockRange
            | Call::Other => false,
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResponse {
    /// It is made.
    Allow,
    /// It is not made, and fails with this.
    Fail(Errno),
    /// It is not made, and the process is killed.
    Kill,
}

/// A call that waits for its answer.
pub(crate) struct PendingCall {
    pub(crate) call: Call,
    /// The thread that makes it.
    tid: u32,
    number: libc::c_long,
    args: [u64; 6],
}

impl PendingCall {
    /// What it is about; of a rename, what is renamed.
    pub(crate) fn path(&self) -> PathBuf {
        match self.number {
            libc::SYS_fstatfs
            | libc::SYS_fcntl
            | libc::SYS_flock
            | libc::SYS_fgetxattr
            | libc::SYS_getdents64
            | libc::SYS_write
            | libc::SYS_ftruncate => self.open_file(self.args[0]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open | libc::SYS_rename | libc::SYS_unlink | libc::SYS_mkdir => {
                self.string(self.args[0])
            }
            _ => self.path_at(self.args[0], self.args[1]),
        }
    }

    /// What a rename leads to.
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
            // An empty name stands for what is open itself.
            false if name.as_os_str().is_empty() => self.open_file(dir),
            false => self.open_file(dir).join(name),
        }
    }

    fn open_file(&self, fd: u64) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/{}", self.tid, fd as i32)).unwrap_or_default()
    }

    /// What a `struct flock` begins with.
    fn lock_kind(&self) -> libc::c_short {
        let mut kind = [0; 2];
        let memory = File::open(format!("/proc/{}/mem", self.tid)).unwrap();
        memory.read_exact_at(&mut kind, self.args[2]).unwrap();
        libc::c_short::from_ne_bytes(kind)
    }

    fn string(&self, at: u64) -> PathBuf {
        let mut bytes = vec![0; 4096];
        let memory = File::open(format!("/proc/{}/mem", self.tid));
        // What is behind the string may be the end of what is mapped.
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

/// The calls that are handed over.
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
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    // Newer processors have only those above.
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

/// The filter, made before it is needed: between fork and exec nothing can be allocated.
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

    /// From here on the calls of this thread, and of those that it makes, are handed over to whoever
    /// has what this returns. There is no way back.
    fn install(&mut self) -> io::Result<OwnedFd> {
        let program = libc::sock_fprog {
            len: self.0.len() as u16,
            filter: self.0.as_mut_ptr(),
        };
        // SAFETY: the program outlives the call; what comes back is a descriptor of ours alone.
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

/// Answers calls until nobody is left who could make one.
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
        // SAFETY: all zeroes is what the call wants to find; it fills the struct.
        let asked = unsafe {
            let mut asked: libc::seccomp_notif = std::mem::zeroed();
            match libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) {
                0 => asked,
                // Whoever asked was killed meanwhile.
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
        // SAFETY: the struct outlives the call. Who was killed needs no answer.
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    }
}

/// The process that a thread belongs to.
fn process_of_thread(tid: u32) -> libc::pid_t {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let tgid = tgid.and_then(|tgid| tgid.trim().parse().ok());
    tgid.unwrap_or(tid as libc::pid_t)
}

/// Runs `body` in a thread of its own, and hands its calls to `answer`, which another thread calls.
pub(crate) fn thread<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
    mut answer: impl FnMut(&PendingCall) -> CallResponse + Send + 'static,
) -> io::Result<thread::Result<T>> {
    let (send, listener) = std::sync::mpsc::channel::<io::Result<OwnedFd>>();
    let supervisor = thread::spawn(move || {
        let listener = listener.recv().expect("a listener, or why there is none")?;
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
    Ok(result.map(|done| done.expect("it ran, because there was a listener")))
}

/// Whether calls can be handed over here.
pub(crate) fn is_possible() -> bool {
    thread(|| (), |_| CallResponse::Allow).is_ok()
}

/// Hands the calls of what `command` will run to `answer`. To be called last of all preparations;
/// the thread ends with the process.
pub(crate) fn process(
    command: &mut Command,
    mut answer: impl FnMut(&PendingCall) -> CallResponse + Send + 'static,
) -> JoinHandle<()> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut filter = Filter::new();
    // SAFETY: only system calls between fork and exec, on values made before.
    unsafe {
        command.pre_exec(move || {
            // All descriptors of the tests are still open, more than the program may have.
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

/// Room for one descriptor beside a message, aligned as cmsg(3) wants it.
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
    // SAFETY: as above; a descriptor that arrives is ours alone.
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
