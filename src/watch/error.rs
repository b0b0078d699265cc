//! The reasons for which a directory cannot be watched.

/// The reason for which a directory cannot be watched.
#[derive(Debug)]
pub enum WatchError {
    /// The path does not exist, or is not a directory.
    Missing,
    /// A limit is reached.
    Limit(WatchLimit),
    /// Any other error.
    Other(notify::Error),
}

/// A limit that prevents another watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchLimit {
    /// The user's limit of watches. Linux reports it as ENOSPC, "no space left on device", although it does not concern
    /// a disk.
    Watches,
    /// The user's limit of inotify instances.
    Instances,
    /// The limit of open files, of this process or of the system.
    Files,
    /// The limit of threads.
    Threads,
}

impl WatchLimit {
    /// Returns a sentence on the limit, and one on how to raise it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            WatchLimit::Instances => {
                "A kernel limit is reached: this user cannot have any more inotify instances. This has nothing to do \
                 with disk space. To raise the limit: sudo sysctl fs.inotify.max_user_instances=1024 (in a user \
                 namespace also user.max_inotify_instances)."
            }
            WatchLimit::Files if cfg!(target_os = "macos") => {
                "A limit is reached: no more files can be opened, or no more directories watched. To raise it: ulimit -n, \
                 SoftResourceLimits with NumberOfFiles in a property list of launchd; for the whole system: sysctl \
                 kern.maxfiles."
            }
            WatchLimit::Threads if cfg!(target_os = "macos") => {
                "A limit is reached: no more threads can be started. To raise the limit of processes: ulimit -u, \
                 SoftResourceLimits with NumberOfProcesses in a property list of launchd."
            }
            WatchLimit::Files => {
                "A limit is reached: no more files can be opened. To raise it: ulimit -n, LimitNOFILE= of a unit; for \
                 the whole system: sysctl fs.file-max."
            }
            WatchLimit::Threads => {
                "A limit is reached: no more threads can be started. To raise the limit of processes: ulimit -u, \
                 TasksMax= of a unit."
            }
            WatchLimit::Watches => {
                "A kernel limit is reached: this user cannot watch any more directories. This has nothing to do with \
                 disk space. To raise the limit: sudo sysctl fs.inotify.max_user_watches=524288 (in a user namespace \
                 also user.max_inotify_watches)."
            }
        }
    }
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> WatchError {
        use notify::ErrorKind;
        let number = match &error.kind {
            // On macOS notify allows as many directories as a part of the limit of open files.
            ErrorKind::MaxFilesWatch if cfg!(target_os = "macos") => {
                return WatchError::Limit(WatchLimit::Files);
            }
            ErrorKind::MaxFilesWatch => return WatchError::Limit(WatchLimit::Watches),
            ErrorKind::PathNotFound | ErrorKind::WatchNotFound => return WatchError::Missing,
            ErrorKind::Io(io) => io.raw_os_error(),
            _ => None,
        };
        match number {
            Some(libc::ENOENT | libc::ENOTDIR) => WatchError::Missing,
            Some(libc::ENOSPC) => WatchError::Limit(WatchLimit::Watches),
            Some(libc::ENFILE) => WatchError::Limit(WatchLimit::Files),
            // Linux reports the limit of inotify instances by the same number.
            Some(libc::EMFILE) => match std::fs::File::open("/dev/null") {
                Ok(_) => WatchError::Limit(WatchLimit::Instances),
                Err(_) => WatchError::Limit(WatchLimit::Files),
            },
            Some(libc::EAGAIN) => WatchError::Limit(WatchLimit::Threads),
            _ => WatchError::Other(error),
        }
    }
}
