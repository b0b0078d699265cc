//! Times in JSON.

use super::writer::Value;
use crate::core::time::Wall;

/// A time by RFC 3339, in UTC, with milliseconds and `Z`. A time after the year 9999 or before the year 0 is replaced by
/// the start of 1970.
#[derive(Clone, Copy, Debug)]
pub struct TimeText([u8; 24]);

impl TimeText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<Wall> for TimeText {
    fn from(at: Wall) -> TimeText {
        TimeText(bytes(at))
    }
}

impl Value for TimeText {
    fn append(&self, text: &mut Vec<u8>) {
        text.push(b'"');
        text.extend_from_slice(&self.0);
        text.push(b'"');
    }
}

/// Formats a time as [`TimeText`] does.
#[must_use]
pub fn time(at: Wall) -> String {
    TimeText::from(at).as_str().to_owned()
}

/// Each removed temp has four times in its lines, so they are written digit by digit.
fn bytes(at: Wall) -> [u8; 24] {
    const DAY: i64 = 86_400;
    let (days, second) = (at.sec.div_euclid(DAY), at.sec.rem_euclid(DAY));
    let Some((year, month, day)) = date(days) else {
        return *b"1970-01-01T00:00:00.000Z";
    };
    let digit = |value: u64| b'0' + (value % 10) as u8;
    let two = |value: u64| [digit(value / 10), digit(value)];
    let (second, milli) = (second.unsigned_abs(), u64::from(at.nsec) / 1_000_000);
    let ([a, b], [c, d]) = (two(year / 100), two(year % 100));
    let ([e, f], [g, h]) = (two(month), two(day));
    let ([i, j], [k, l]) = (two(second / 3600), two(second / 60 % 60));
    let ([m, n], [o, p], q) = (two(second % 60), two(milli / 10), digit(milli));
    [
        a, b, c, d, b'-', e, f, b'-', g, h, b'T', i, j, b':', k, l, b':', m, n, b'.', o, p, q, b'Z',
    ]
}

/// Returns the year, the month and the day of the month, in the Gregorian calendar, of the day that is this many days
/// after the start of 1970. Returns `None` outside the years 0 to 9999.
///
/// The algorithm is `civil_from_days` of Howard Hinnant's "chrono-compatible low-level date algorithms". Its years begin
/// in March.
fn date(days: i64) -> Option<(u64, u64, u64)> {
    const FIRST: i64 = -719_528;
    const LAST: i64 = 2_932_896;
    if !(FIRST..=LAST).contains(&days) {
        return None;
    }
    // Days since the first of March of the year -400, which is 400 years before year 0.
    let days = u64::try_from(days + 719_468 + 146_097).ok()?;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Some((year.checked_sub(400)?, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_jiff(at: Wall) -> String {
        let at = jiff::Timestamp::new(at.sec, at.nsec as i32).unwrap();
        format!("{at:.3}")
    }

    #[test]
    fn each_day_of_a_century_and_the_ends_of_the_range_are_right() {
        const DAY: i64 = 86_400;
        let century = (-40 * 366..60 * 366).map(|day| day * DAY);
        let ends = [
            -62_167_219_200,
            253_402_120_800,
            951_782_400,
            -2_203_891_200,
        ];
        for sec in century.chain(ends) {
            for (sec, nsec) in [(sec, 0), (sec + DAY - 1, 999_999_999)] {
                let at = Wall { sec, nsec };
                assert_eq!(time(at), by_jiff(at));
            }
        }
        for sec in [i64::MIN, -62_167_219_201, 253_402_300_800, i64::MAX] {
            assert_eq!(time(Wall { sec, nsec: 1 }), "1970-01-01T00:00:00.000Z");
        }
    }

    proptest! {
        #[test]
        fn any_time_is_right(
            sec in -62_167_219_200_i64..=253_402_207_199,
            nsec in 0..1_000_000_000_u32,
        ) {
            let at = Wall { sec, nsec };
            prop_assert_eq!(time(at), by_jiff(at));
        }
    }
}
