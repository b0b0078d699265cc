//! Parses and formats moments: a duration before now, a day, or a time.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use orphand::core::time::Wall;

use super::duration;

/// A moment from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Timestamp);

impl Moment {
    /// Returns the moment as a wall-clock time, as used for the times of files.
    pub(crate) fn wall(self) -> Wall {
        let nsec = self.0.subsec_nanosecond().max(0);
        Wall {
            sec: self.0.as_second(),
            nsec: nsec.unsigned_abs(),
        }
    }
}

/// Formats a time of a JSON object in the time zone of this machine.
pub(crate) fn local(time: &str, format: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime(format).to_string(),
        Err(_) => time.to_owned(),
    }
}

/// Parses `7d` (seven days ago), `today`, `yesterday`, `2026-11-28`, and times by RFC 3339. A day means its beginning.
/// A day, and a time without a zone, is in the time zone of this machine.
pub(crate) fn parse(text: &str) -> Result<Moment, String> {
    read(text, &Zoned::now())
}

fn read(text: &str, now: &Zoned) -> Result<Moment, String> {
    let too_far = || format!("{text:?} is too far away");
    let day = |date: Date| {
        let midnight = date.to_zoned(now.time_zone().clone());
        midnight.map_err(|_| too_far())
    };
    let zoned = match text {
        "today" => day(now.date())?,
        "yesterday" => day(now.date().yesterday().map_err(|_| too_far())?)?,
        // Dates and times have a "-", durations have none.
        text if text.contains('-') => {
            if let Ok(time) = text.parse::<Timestamp>() {
                return Ok(Moment(time));
            }
            match (is_date(text), text.parse::<DateTime>()) {
                (true, Ok(date)) => day(date.date())?,
                (false, Ok(time)) => in_zone(time, now.time_zone()).ok_or_else(too_far)?,
                (_, Err(_)) => return Err(not_a_moment(text)),
            }
        }
        text => {
            let ago = duration::parse(text).map_err(|what| {
                match text.starts_with(|c: char| c.is_ascii_digit()) {
                    true => what,
                    false => not_a_moment(text),
                }
            })?;
            return Ok(Moment(before(now.timestamp(), ago)));
        }
    };
    Ok(Moment(zoned.timestamp()))
}

fn is_date(text: &str) -> bool {
    text.len() == "2026-11-28".len()
}

fn in_zone(time: DateTime, zone: &TimeZone) -> Option<Zoned> {
    time.to_zoned(zone.clone()).ok()
}

/// Returns the moment `ago` before `now`, but not earlier than the beginning of 1970: no journal is older.
fn before(now: Timestamp, ago: Duration) -> Timestamp {
    let then = now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH);
    then.max(Timestamp::UNIX_EPOCH)
}

fn not_a_moment(text: &str) -> String {
    format!(
        "{text:?} is not a time; write a duration before now (90m, 7d), today, yesterday, a date (2026-11-28) or \
         a date with a time (2026-11-28T09:30:00Z)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_parsed() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2026-11-29T10:00:00Z".parse().expect("a time");
        let now = now.to_zoned(zone);
        for (text, want) in [
            ("0s", Some("2026-11-29T10:00:00Z")),
            ("90m", Some("2026-11-29T08:30:00Z")),
            ("1h30m", Some("2026-11-29T08:30:00Z")),
            ("7d", Some("2026-11-22T10:00:00Z")),
            ("213503982334d", Some("1970-01-01T00:00:00Z")),
            ("today", Some("2026-11-28T22:00:00Z")),
            ("yesterday", Some("2026-11-27T22:00:00Z")),
            ("2026-11-28", Some("2026-11-27T22:00:00Z")),
            ("2026-11-28T09:30:00Z", Some("2026-11-28T09:30:00Z")),
            ("2026-11-28T09:30:00.5Z", Some("2026-11-28T09:30:00.5Z")),
            ("2026-11-28T09:30:00+01:00", Some("2026-11-28T08:30:00Z")),
            ("2026-11-28T09:30:00-01:00", Some("2026-11-28T10:30:00Z")),
            ("2026-11-28T09:30:00", Some("2026-11-28T07:30:00Z")),
            ("2026-11-28 09:30", Some("2026-11-28T07:30:00Z")),
            ("7", None),
            ("", None),
            ("tomorrow", None),
            ("2026-13-01", None),
            ("2026-11-28T25:00:00Z", None),
            ("28-11-2026", None),
            ("-1d", None),
        ] {
            let want = want.map(|want| Moment(want.parse().expect(want)));
            assert_eq!(read(text, &now).ok(), want, "{text:?}");
        }
        for text in ["tomorrow", "28-11-2026", "", "-1d"] {
            let error = read(text, &now).unwrap_err();
            assert!(error.contains("yesterday, a date (2026-11-28)"), "{error}");
        }
        assert!(read("7", &now).unwrap_err().contains("7s"));
    }
}
