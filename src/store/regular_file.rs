//! Opens, reads and replaces files that must be regular files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens one of orphand's own files with `options`.
///
/// When root runs orphand with the environment of another user, that user may own the folder. A file that they placed
/// there must neither redirect a write to a file in another place nor block orphand forever. A symlink, a file with
/// more than one name, and anything but a regular file is an error: [`io::ErrorKind::InvalidData`].
pub fn open_own(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let not_ours = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a regular file with exactly one name",
        )
    };
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

/// Reads the regular file at `path`, which may have at most `most` bytes.
///
/// Anything but a regular file is an error: [`io::ErrorKind::InvalidInput`]. Reading a FIFO could block forever, and a
/// device may have no end. A larger file is an error too: [`io::ErrorKind::FileTooLarge`].
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // This is checked before the file is opened, because opening a device may have an effect.
    check_regular(&fs::metadata(path)?)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let seen = file.metadata()?;
    check_regular(&seen)?;
    read_at_most(file, seen.len(), most)
}

/// Reads one of orphand's own files, which may have at most `most` bytes. It is opened by [`open_own`].
pub fn read_own(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_own(File::options().read(true).to_owned(), path)?;
    let length = file.metadata()?.len();
    read_at_most(file, length, most)
}

/// Replaces the file at `path` atomically by a new one that `write` fills. It is created with the permissions `mode`, of
/// which the umask takes some, and has the name `new` until it is complete.
///
/// `new` should always be the same name: if this process is killed, at most one such file is left, and the next call
/// replaces it. The old file of that name is removed and not opened, because it may be a FIFO or a symlink.
///
/// RACE: two processes may replace the file at the same time. Worst case: the new file of one of them is missing, and it
/// reports that. The file at `path` is complete at any time.
pub fn replace(
    path: &Path,
    new: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(mode).open(new)?;
    let replaced = write(&mut file).and_then(|()| fs::rename(new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(new);
    }
    replaced
}

/// Reads an open file of `length` bytes, which may have at most `most` bytes.
pub fn read_at_most(file: File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let too_large = |has: &str| {
        let what = format!("it has {has} bytes, and {most} is the most that is allowed");
        Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
    };
    if length > most {
        return too_large(&length.to_string());
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read, and a file of /proc has the length 0.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => too_large(&format!("more than {most}")),
        false => Ok(bytes),
    }
}

fn check_regular(seen: &fs::Metadata) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_that_is_not_too_large_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read_regular(&path(name), 5).unwrap(), b"12345");
            let error = read_regular(&path(name), 4).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            assert!(error.to_string().contains("5 bytes"), "{error}");
        }
        let created = std::process::Command::new("mkfifo")
            .arg(path("fifo"))
            .status();
        assert!(created.unwrap().success());
        for (path, words) in [
            (path("fifo"), "a FIFO"),
            (path("."), "a directory"),
            ("/dev/zero".into(), "a character device"),
        ] {
            let error = read_regular(&path, 5).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(read_own(&path("file"), 5).unwrap(), b"12345");
        assert!(read_own(&path("file"), 4).is_err());
        assert!(read_own(&path("link"), 5).is_err());
        assert!(read_own(&path("fifo"), 5).is_err());
    }

    /// A file of /proc has the length 0 but is not empty.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_without_a_length_is_read_up_to_the_limit() {
        let path = Path::new("/proc/self/status");
        assert!(!read_regular(path, 1 << 20).unwrap().is_empty());
        let error = read_regular(path, 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
