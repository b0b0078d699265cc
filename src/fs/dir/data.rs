//! Measures the data of a file: its length without holes and without space that is only reserved.
//!
//! Nothing is flushed. Nothing is read, except the first byte of a file without blocks.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::system;
use crate::core::observation::Observation;

/// The longest file, in bytes, that a file system keeps in the inode, so that it has no blocks of its own
/// (`inline_data` of ext4: less than an inode, of which 4 KiB is the largest).
const INLINE: u64 = 4096;

/// The largest number of ranges that are counted. A file with more ranges is sparse by design.
const MAX_RANGES: usize = 1_000;

/// Returns a lower bound for the bytes of data in `file`, of which `seen` is the observation. Counting stops when
/// `enough` is reached.
///
/// # Errors
///
/// The file system reports an error.
pub fn data_at_least(file: BorrowedFd<'_>, seen: &Observation, enough: u64) -> io::Result<u64> {
    if system::is_compressed(file)? {
        return Ok(0);
    }
    let size = seen.fingerprint.size;
    match seen.allocated {
        // lseek(2) reports data that is stored in an inode. It also reports data if a file system does not know its
        // holes.
        0 if size > INLINE || !begins_with_content(file)? => {
            Ok(rule!("hole-is-no-data", 0, without: size))
        }
        0 => Ok(ranges(file, size, enough)?.sum),
        allocated => {
            let data = ranges(file, size, enough)?.sum;
            Ok(rule!("reserved-space-is-no-data", data, without: size).min(allocated))
        }
    }
}

/// Returns an upper bound for the bytes of data in `file`, of which `seen` is the observation.
///
/// # Errors
///
/// The file system reports an error.
pub fn data_at_most(file: BorrowedFd<'_>, seen: &Observation) -> io::Result<u64> {
    let size = seen.fingerprint.size;
    if system::is_compressed(file)? {
        return Ok(size);
    }
    match seen.allocated {
        0 if size <= INLINE => Ok(size),
        0 => Ok(0),
        allocated => Ok(match ranges(file, size, u64::MAX)? {
            Ranges {
                sum,
                is_complete: true,
            } => sum.min(allocated),
            Ranges {
                is_complete: false, ..
            } => size.min(allocated),
        }),
    }
}

/// The ranges of a file that are not holes.
struct Ranges {
    /// The sum of their lengths, in bytes.
    sum: u64,
    /// All ranges were counted.
    is_complete: bool,
}

fn ranges(file: BorrowedFd<'_>, size: u64, enough: u64) -> io::Result<Ranges> {
    // Most files begin with data, so that one call finds the end of their first range.
    let mut at = match rustix::fs::seek(file, SeekFrom::Hole(0)) {
        // The file is empty by now.
        Err(Errno::NXIO) => 0,
        end => end?,
    };
    let mut sum = at.min(size);
    for _ in 1..MAX_RANGES {
        if at >= size {
            return Ok(Ranges {
                sum,
                is_complete: true,
            });
        }
        if sum >= enough {
            break;
        }
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data from here on.
            Err(Errno::NXIO) => {
                return Ok(Ranges {
                    sum,
                    is_complete: true,
                });
            }
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        if at <= start {
            break;
        }
        sum = sum.saturating_add(at.min(size).saturating_sub(start));
    }
    Ok(Ranges {
        sum,
        is_complete: false,
    })
}

fn begins_with_content(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut first = [0u8];
    match rustix::io::pread(file, &mut first, 0) {
        Ok(read) => Ok(read == 1 && first != [0]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::fs::dir;

    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(what: &str, make: impl Fn(&File), want: std::ops::RangeInclusive<u64>) {
        let file = tempfile::tempfile().unwrap();
        make(&file);
        let seen = dir::observe_fd(file.as_fd()).unwrap();
        let least = data_at_least(file.as_fd(), &seen, u64::MAX).unwrap();
        let most = data_at_most(file.as_fd(), &seen).unwrap();
        assert!(want.contains(&least), "{what}: at least {least}");
        assert!(
            least <= most && most <= seen.fingerprint.size,
            "{what}: {most}"
        );
    }

    #[test]
    fn holes_are_not_data() {
        check("empty", |_| {}, 0..=0);
        check(
            "a word",
            |file| file.write_all_at(b"word", 0).unwrap(),
            4..=4,
        );
        check("a hole", |file| file.set_len(20_000).unwrap(), 0..=0);
        check("a short hole", |file| file.set_len(2).unwrap(), 0..=0);
        let one_byte = |file: &File| {
            file.set_len(MIB).unwrap();
            file.write_all_at(b"x", MIB / 2).unwrap();
        };
        check("one byte in a hole", one_byte, 1..=64 << 10);
        let many = |file: &File| {
            for n in 0..3 {
                file.write_all_at(b"x", n * MIB).unwrap();
            }
        };
        check("three bytes, far apart", many, 3..=192 << 10);
        let written = |file: &File| file.write_all_at(&vec![7; 3 << 20], 0).unwrap();
        check("3 MiB", written, 3 * MIB..=3 * MIB);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reserved_space_is_not_data() {
        use rustix::fs::FallocateFlags;
        let reserve = |file: &File| {
            rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 20_000).unwrap();
        };
        check("reserved", reserve, 0..=0);
    }

    #[test]
    fn counting_stops_when_enough_is_reached() {
        let file = tempfile::tempfile().unwrap();
        for n in 0..9 {
            file.write_all_at(b"x", n * MIB).unwrap();
        }
        let seen = dir::observe_fd(file.as_fd()).unwrap();
        let all = data_at_least(file.as_fd(), &seen, u64::MAX).unwrap();
        let some = data_at_least(file.as_fd(), &seen, 1).unwrap();
        assert!((1..all).contains(&some), "{some} of {all}");
    }

    #[test]
    fn a_file_that_was_emptied_since_has_no_data() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"word", 0).unwrap();
        let seen = dir::observe_fd(file.as_fd()).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(data_at_least(file.as_fd(), &seen, 1).unwrap(), 0);
    }

    /// For a file with very many holes the two bounds differ, and the true value is between them.
    #[test]
    fn both_bounds_are_safe_if_there_are_too_many_ranges() {
        const HOLES: u64 = 1_500;
        let file = tempfile::tempfile().unwrap();
        for n in 0..HOLES {
            file.write_all_at(b"x", n * (64 << 10)).unwrap();
        }
        let seen = dir::observe_fd(file.as_fd()).unwrap();
        let least = data_at_least(file.as_fd(), &seen, u64::MAX).unwrap();
        let most = data_at_most(file.as_fd(), &seen).unwrap();
        assert!(least <= seen.allocated && least < most, "{least} {most}");
        assert!(most >= HOLES, "{most}");
    }
}
