//! Locks on files.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::proc::device_number;
use crate::core::sort::sort_by;
use crate::evidence::FileId;

/// Returns the files that are locked according to `/proc/locks`.
///
/// The kernel returns the table one page at a time. If a lock is released between two pages, another lock may be left
/// out (measured on Linux 6.18). So a table of several pages is read several times.
pub(in crate::evidence) fn locked_files() -> io::Result<Vec<FileId>> {
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
    let key = |file: &FileId| (file.ino, file.dev);
    sort_by(&mut locked, |one, other| key(one).cmp(&key(other)));
    locked.dedup();
    Ok(locked)
}

/// Reports whether any process holds a POSIX lock on `file`. The kernel is queried for conflicts with an OFD lock, so
/// POSIX locks of this process count too. But a process loses them when it closes the file, which each look does
/// (fcntl(2)).
pub(super) fn has_posix_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    let found = lock_whole_file(file, libc::F_OFD_GETLK, libc::F_WRLCK)?;
    Ok(found != libc::F_UNLCK)
}

/// Calls fcntl(2) with `command` and a lock of type `kind` on the whole file. Returns the type that the kernel reports.
pub(super) fn lock_whole_file(
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
pub(in crate::evidence) fn may_be_device(listed: u64, dev: u64) -> bool {
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
}
