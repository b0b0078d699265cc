//! Whether the clock can be believed.

use std::time::Duration;

use orphand::decide::time::Wall;

use super::super::text;
use super::check::Check;
use super::system::CLOCK_FIX;

/// 2020-01-01: before that nobody runs this program.
const EARLIEST: i64 = 1_577_836_800;
/// As far as two clocks may differ; orphand takes more than that for a clock that was set.
const MAX_DIFFERENCE: Duration = Duration::from_secs(2);

/// The machine's own clock. `up`: for how long it has been running.
pub(super) fn judge(wall: Wall, up: Duration) -> Check {
    let now = jiff::Timestamp::from_second(wall.sec).map(|now| now.to_string());
    let now = now.unwrap_or_else(|_| format!("{} s since 1970", wall.sec));
    let up_seconds = i64::try_from(up.as_secs()).unwrap_or(i64::MAX);
    let what = match wall.sec {
        sec if sec < up_seconds => format!(
            "{now}: by that the machine has run since before 1970. Files are judged by a clock \
             that counts from the start, so they only wait longer; the journal has wrong dates"
        ),
        sec if sec < EARLIEST => format!(
            "{now}: before 2020. Files are judged by a clock that counts from the start, so they \
             only wait longer; the journal has wrong dates"
        ),
        _ => return Check::ok("clock", format!("{now}, running for {}", text::span(up))),
    };
    Check::warning("clock", what, CLOCK_FIX)
}

/// The clock that dates the files of a root. `apart`: how far a file's date was from our clock.
pub(super) fn judge_files(apart: Duration) -> Check {
    match apart > MAX_DIFFERENCE {
        false => Check::ok("dates", "files get the dates of this machine's clock"),
        true => Check::warning(
            "dates",
            format!(
                "a file made just now is dated {} off this machine's clock, so how old a file was \
                 when orphand starts is not known: it waits a whole grace, or counts as that much \
                 older",
                text::span(apart)
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
    fn clocks() {
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
    fn dates_of_files() {
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
