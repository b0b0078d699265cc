//! Judges the clock of the machine, and the clock that dates the files of a root.

use std::time::Duration;

use orphand::core::time::Wall;

use super::check::Check;
use super::system::CLOCK_FIX;
use crate::cli::output::text;

/// 2020-01-01, in seconds since 1970. The program is younger than that.
const EARLIEST: i64 = 1_577_836_800;
/// The largest accepted difference of two clocks. orphand takes a larger one for a clock jump.
const MAX_DIFFERENCE: Duration = Duration::from_secs(2);

/// Judges the clock of the machine. `up` is the time since boot.
pub(super) fn judge(wall: Wall, up: Duration) -> Check {
    let now = jiff::Timestamp::from_second(wall.sec).map(|now| now.to_string());
    let now = now.unwrap_or_else(|_| format!("{} s since 1970", wall.sec));
    let up_seconds = i64::try_from(up.as_secs()).unwrap_or(i64::MAX);
    let what = match wall.sec {
        sec if sec < up_seconds => format!(
            "{now}: by this clock the machine has been running since before 1970. Ages are measured by a clock that \
             counts from boot, so removals are only later; the journal has wrong dates"
        ),
        sec if sec < EARLIEST => format!(
            "{now}: before 2020. Ages are measured by a clock that counts from boot, so removals are only later; the \
             journal has wrong dates"
        ),
        _ => return Check::ok("clock", format!("{now}, running for {}", text::span(up))),
    };
    Check::warning("clock", what, CLOCK_FIX)
}

/// Judges the clock that dates the files of a root. `difference` is the difference between the date of a new file and the
/// clock of this machine.
pub(super) fn judge_files(difference: Duration) -> Check {
    match difference > MAX_DIFFERENCE {
        false => Check::ok("dates", "files get the dates of this machine's clock"),
        true => Check::warning(
            "dates",
            format!(
                "the date of a new file is {} off this machine's clock, so the age of a file is not known when orphand \
                 starts: the file waits a whole grace, or counts as older by that difference",
                text::span(difference)
            ),
            format!("set the clocks of both machines: {CLOCK_FIX}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn a_clock_before_2020_is_a_warning() {
        for (sec, up, state) in [
            (1_800_000_000, 5, CheckState::Ok),
            (EARLIEST, 5, CheckState::Ok),
            (EARLIEST - 1, 5, CheckState::Warning),
            (100, 50, CheckState::Warning),
            (0, 60, CheckState::Warning),
            (-5, 60, CheckState::Warning),
            (i64::MAX, 5, CheckState::Ok),
        ] {
            let check = judge(Wall { sec, nsec: 0 }, Duration::from_secs(up));
            assert_eq!(check.state, state, "{check:?}");
            assert_eq!(check.fix.is_some(), state != CheckState::Ok);
        }
        let set = judge(Wall { sec: 0, nsec: 0 }, Duration::from_secs(60));
        assert!(set.what.contains("before 1970"), "{set:?}");
    }

    #[test]
    fn dates_that_are_off_are_a_warning() {
        for (ms, state) in [
            (0, CheckState::Ok),
            (2_000, CheckState::Ok),
            (2_001, CheckState::Warning),
        ] {
            let check = judge_files(Duration::from_millis(ms));
            assert_eq!(check.state, state, "{ms}");
        }
        let off = judge_files(Duration::from_secs(90));
        assert!(off.what.contains("1 min 30 s off"), "{off:?}");
    }
}
