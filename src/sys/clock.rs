//! Reads the monotonic clock and the wall clock.

use std::time::{Duration, Instant};

use crate::core::time::{Mono, Now, Wall};

/// The monotonic clock that stops while the machine sleeps: on Linux `CLOCK_MONOTONIC`; on macOS `CLOCK_UPTIME_RAW`,
/// because `CLOCK_MONOTONIC` continues there (clock_gettime(3) on both).
#[cfg(target_os = "macos")]
const MONOTONIC: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(not(target_os = "macos"))]
const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// The clock from which file systems take the dates of files.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FILE_DATES: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const FILE_DATES: libc::clockid_t = libc::CLOCK_REALTIME;

/// Returns the current time of the monotonic clock.
#[must_use]
pub fn mono() -> Mono {
    let t = read(MONOTONIC);
    let sec = u64::try_from(t.sec).unwrap_or(0);
    Mono(
        sec.saturating_mul(1_000_000_000)
            .saturating_add(u64::from(t.nsec)),
    )
}

/// Returns the current time of the wall clock.
#[must_use]
pub fn wall() -> Wall {
    read(libc::CLOCK_REALTIME)
}

/// Returns a moment that separates older files from newer ones by their dates. No file created before this call has a
/// later date, and every file created after it has a later date, if the file system keeps nanoseconds.
///
/// Linux dates files by its last tick, up to 10 ms ago (`current_time` in its fs/inode.c), so this function waits for
/// the next tick. If the clock is set back just then, files created soon afterwards have earlier dates.
#[must_use]
pub fn boundary() -> Wall {
    const MAX_WAIT: Duration = Duration::from_millis(100);
    let (moment, start) = (wall(), Instant::now());
    let file_clock = rule!("boundary-by-file-clock", FILE_DATES, without: libc::CLOCK_REALTIME);
    while read(file_clock) <= moment && start.elapsed() < MAX_WAIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    moment
}

/// Returns the current time of both clocks.
#[must_use]
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall: wall(),
    }
}

/// Converts `at` to an [`Instant`], for waiting on channels. A moment more than a year ahead becomes one a year ahead.
#[must_use]
pub fn instant(at: Mono) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + at.since(mono()).min(YEAR)
}

fn read(clock: libc::clockid_t) -> Wall {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid timespec that outlives the call.
    let status = unsafe { libc::clock_gettime(clock, &raw mut t) };
    // The call fails only for a clock that the system does not have. Both clocks have existed for decades.
    assert_eq!(status, 0, "clock_gettime({clock}) failed");
    Wall {
        sec: t.tv_sec,
        nsec: u32::try_from(t.tv_nsec).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::dir::Dir;

    #[test]
    fn dates_separate_older_files_from_newer_ones() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(&temp.path().canonicalize().unwrap(), None).unwrap();
        let create = |name: String| {
            std::fs::write(temp.path().join(&name), "x").unwrap();
            let seen = dir.observe(name.as_ref()).unwrap().unwrap().fingerprint;
            [Some(seen.ctime), seen.btime]
        };
        for n in 0..100 {
            let before = create(format!("{n}.before"));
            let moment = boundary();
            let after = create(format!("{n}.after"));
            assert!(before.into_iter().flatten().all(|date| date <= moment));
            assert!(after.into_iter().flatten().all(|date| date > moment));
        }
    }
}
