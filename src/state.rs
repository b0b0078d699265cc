//! Where orphand keeps what is its own, and the lock that lets only one work on a root.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::look::RootId;

/// The folders of orphand's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    /// Journal and marks: `$XDG_STATE_HOME/orphand`, else `~/.local/state/orphand`, on macOS
    /// `~/Library/Application Support/orphand`.
    pub state: Option<PathBuf>,
    /// Locks: `$XDG_RUNTIME_DIR/orphand`, else the state folder.
    pub runtime: Option<PathBuf>,
}

impl Folders {
    /// As the environment says.
    #[must_use]
    pub fn from_env() -> Folders {
        let folder = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let at_home = if cfg!(target_os = "macos") {
            "Library/Application Support/orphand"
        } else {
            ".local/state/orphand"
        };
        let state = folder("XDG_STATE_HOME")
            .map(|state| state.join("orphand"))
            .or_else(|| folder("HOME").map(|home| home.join(at_home)));
        let runtime = folder("XDG_RUNTIME_DIR")
            .map(|runtime| runtime.join("orphand"))
            .or_else(|| state.clone());
        Folders { state, runtime }
    }
}

/// Opens a file that orphand keeps for itself, by `options`.
///
/// Root may have been started in somebody else's environment, and the folder be theirs: what they
/// put there must not have us write to a file elsewhere, nor wait for ever. What is no file of
/// ours is [`io::ErrorKind::InvalidData`].
pub fn open_own(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let not_ours = || io::Error::new(io::ErrorKind::InvalidData, "it is not a file with one name");
    let file = match options.mode(0o600).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(not_ours()),
        opened => opened?,
    };
    let seen = file.metadata()?;
    match seen.is_file() && seen.nlink() <= 1 {
        true => Ok(file),
        false => Err(not_ours()),
    }
}

/// Reads the regular file at `path`, which may have `most` bytes.
///
/// A FIFO would be waited for, and a device may have no end: what is not a regular file is
/// [`io::ErrorKind::InvalidInput`], and what is too large [`io::ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: to open a device may do something.
    is_regular(&fs::metadata(path)?)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let seen = file.metadata()?;
    is_regular(&seen)?;
    read_at_most(file, seen.len(), most)
}

/// Reads a file of orphand's own, as [`open_own`] opens it, which may have `most` bytes.
pub fn read_own(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_own(File::options().read(true).to_owned(), path)?;
    let length = file.metadata()?.len();
    read_at_most(file, length, most)
}

fn read_at_most(file: File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let too_large = |has: &str| {
        let what = format!("it has {has} bytes, and {most} is the most");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
    };
    if length > most {
        return too_large(&length.to_string());
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile, and a file of /proc has no length.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => too_large(&format!("more than {most}")),
        false => Ok(bytes),
    }
}

fn is_regular(seen: &fs::Metadata) -> io::Result<()> {
    let kind = seen.file_type();
    let kind = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() => "a character device",
        () => "a block device",
    };
    let what = format!("it is {kind}, not a regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// The lock on one root. It ends with the process, however that ends.
#[derive(Debug)]
pub struct RootLock {
    file: File,
    path: PathBuf,
}

/// Why a root cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another orphand works on it.
    #[error("another orphand works on it")]
    Busy {
        /// Which, if it could be read.
        pid: Option<u32>,
    },
    /// No lock can be made here. Nothing depends on it but that two orphands share the work.
    #[error("its lock {path:?} cannot be made: {error}")]
    Unavailable {
        /// Where it would be.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl RootLock {
    /// Locks the root `id`, in the folder `runtime`.
    pub fn take(runtime: &Path, id: RootId) -> Result<RootLock, LockError> {
        let path = runtime.join(format!("root-{:x}-{:x}.lock", id.dev, id.ino));
        let unavailable = |error| LockError::Unavailable {
            path: path.clone(),
            error,
        };
        let make = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime);
        make.map_err(unavailable)?;
        loop {
            let options = File::options()
                .read(true)
                .write(true)
                .create(true)
                .to_owned();
            let mut file = open_own(options, &path).map_err(unavailable)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Err(LockError::Busy {
                        pid: text.trim().parse().ok(),
                    });
                }
                Err(error) => return Err(unavailable(error.into())),
            }
            // Whoever had it may have removed the file between our open and our lock.
            let ours = file.metadata().map_err(unavailable)?.ino();
            if fs::metadata(&path).map(|there| there.ino()).ok() != Some(ours) {
                continue;
            }
            // On a full disk there is no room for the pid. The lock holds all the same.
            let _ = file.set_len(0);
            let _ = file.rewind();
            let _ = write!(file, "{}", std::process::id());
            return Ok(RootLock { file, path });
        }
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        // Removed while it is still held, so that nobody locks a file without a name for long:
        // `take` notices.
        let _ = fs::remove_file(&self.path);
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first_and_gets_it_afterwards() {
        let runtime = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let id = RootId::of(root.path()).unwrap();
        let first = RootLock::take(runtime.path(), id).unwrap();
        match RootLock::take(runtime.path(), id) {
            Err(LockError::Busy { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        let again = RootLock::take(runtime.path(), id);
        assert!(again.is_ok(), "{again:?}");
        drop(again);
        assert_eq!(
            fs::read_dir(runtime.path()).unwrap().count(),
            0,
            "no litter"
        );
    }
}
