//! The two clocks, read in one place.

use std::time::{Duration, Instant};

use crate::decide::time::{Mono, Now, Wall};

/// Stands still while the machine sleeps. `CLOCK_MONOTONIC` does that on Linux; on macOS it goes
/// on, and `CLOCK_UPTIME_RAW` is the one that does not (clock_gettime(3) on both).
#[cfg(target_os = "macos")]
const AWAKE: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(not(target_os = "macos"))]
const AWAKE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// What a file system takes its dates from.
#[cfg(any(target_os = "linux", target_os = "android"))]
const DATES: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DATES: libc::clockid_t = libc::CLOCK_REALTIME;

/// The monotonic clock now.
#[must_use]
pub fn mono() -> Mono {
    let t = read(AWAKE);
    let sec = u64::try_from(t.sec).unwrap_or(0);
    Mono(
        sec.saturating_mul(1_000_000_000)
            .saturating_add(u64::from(t.nsec)),
    )
}

/// The wall clock now.
#[must_use]
pub fn wall() -> Wall {
    read(libc::CLOCK_REALTIME)
}

/// A moment that tells files by their dates: none made before this call has a later one, and none made after
/// it has this one or an earlier one, where the file system keeps nanoseconds.
///
/// Linux dates files by its last tick, up to 10 ms ago (`current_time` in its fs/inode.c); so this waits for
/// the next one. A clock that is set back just then leaves what is made soon after it with earlier dates.
#[must_use]
pub fn boundary() -> Wall {
    const MOST: Duration = Duration::from_millis(100);
    let (moment, begun) = (wall(), Instant::now());
    let dates = rule!("boundary-by-file-clock", DATES, without: libc::CLOCK_REALTIME);
    while read(dates) <= moment && begun.elapsed() < MOST {
        std::thread::sleep(Duration::from_millis(1));
    }
    moment
}

/// The monotonic clock and the wall clock.
#[must_use]
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall: wall(),
    }
}

/// `at` as the standard library's kind of moment, for waiting on channels. Far futures are cut to
/// a year.
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
    let answer = unsafe { libc::clock_gettime(clock, &raw mut t) };
    // It fails only for a clock that the system does not have; both have been there for decades.
    assert_eq!(answer, 0, "clock_gettime({clock}) failed");
    Wall {
        sec: t.tv_sec,
        nsec: u32::try_from(t.tv_nsec).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Dir;

    #[test]
    fn a_date_tells_what_was_there_before() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(&temp.path().canonicalize().unwrap(), None).unwrap();
        let made = |name: String| {
            std::fs::write(temp.path().join(&name), "x").unwrap();
            let seen = dir.observe(name.as_ref()).unwrap().unwrap().fingerprint;
            [Some(seen.ctime), seen.btime]
        };
        for n in 0..100 {
            let before = made(format!("{n}.before"));
            let moment = boundary();
            let after = made(format!("{n}.after"));
            assert!(before.into_iter().flatten().all(|date| date <= moment));
            assert!(after.into_iter().flatten().all(|date| date > moment));
        }
    }
}
