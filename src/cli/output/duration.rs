//! Parses durations: numbers with units.
//!
//! No library accepts exactly this format: existing ones also accept months, signs, spaces or other units.

use std::time::Duration;

use orphand::core::policy::{PolicyError, SHORTEST_GRACE};
use orphand::core::time::typed;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses `30s`, `5m`, `1h30m`, `1.5s`, `7d`, `250ms`. Each unit may occur once, a larger one before a smaller one.
/// Only the last number may have a fraction. A number without a unit is an error that proposes the number with one:
/// a guess that is wrong by a factor of sixty would delete files that are still needed.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut units = UNITS.iter();
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = number(rest).ok_or_else(|| not_a_duration(text))?;
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let Some(&(_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" if number.len() < text.len() => {
                    format!(
                        "{number:?} at the end of {text:?} has no unit; did you mean \"{text}s\"?"
                    )
                }
                "" => format!("{text:?} has no unit; did you mean \"{text}s\"?"),
                unit => format!("{unit:?} is not a unit; use ms, s, m, h or d"),
            });
        };
        if !units.any(|(name, _)| *name == unit) {
            return Err(format!(
                "the units of {text:?} are not in order; write each once, the largest first, like 1h30m"
            ));
        }
        if number.contains('.') && !after.is_empty() {
            return Err(format!(
                "only the last number of {text:?} may have a fraction; write for example 1h30m or 1.5h"
            ));
        }
        let ms = milliseconds(number, unit_ms).map_err(|wrong| wrong.message(text))?;
        total = ms
            .checked_add(total)
            .ok_or_else(|| NumberError::TooLong.message(text))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Parses a grace, which is a duration of at least [`SHORTEST_GRACE`]. A number without a unit that would be too short in
/// seconds is an error that proposes the shortest grace.
pub(crate) fn grace(text: &str) -> Result<Duration, String> {
    let in_seconds = || parse(&format!("{text}s"));
    let parsed = parse(text).map_err(|wrong| match in_seconds() {
        Ok(grace) if grace < SHORTEST_GRACE => format!(
            "{text:?} has no unit, and \"{text}s\" would be too short; did you mean {:?}, the shortest grace?",
            typed(SHORTEST_GRACE)
        ),
        _ => wrong,
    });
    match parsed? {
        grace if grace < SHORTEST_GRACE => Err(PolicyError::GraceTooShort(grace).to_string()),
        grace => Ok(grace),
    }
}

/// Splits `text` after the number at its beginning: digits, optionally with a point and more digits.
fn number(text: &str) -> Option<(&str, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = match text.get(whole..).and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) => digits(rest) + 1,
        None => 0,
    };
    let (number, rest) = text.split_at(whole + fraction);
    (whole > 0 && fraction != 1).then_some((number, rest))
}

fn not_a_duration(text: &str) -> String {
    format!(
        "{text:?} is not a duration; write numbers with units, like 30s or 1h30m (ms, s, m, h or d)"
    )
}

/// The reason why a number with a unit is not a valid duration.
enum NumberError {
    /// It does not fit in 64 bits of milliseconds.
    TooLong,
    /// It is not a whole number of milliseconds.
    TooFine,
}

impl NumberError {
    fn message(self, text: &str) -> String {
        match self {
            NumberError::TooLong => format!(
                "{text:?} is too long; the longest is {}d",
                u64::MAX / 86_400_000
            ),
            NumberError::TooFine => {
                format!("{text:?} is more precise than a millisecond; remove the last digits")
            }
        }
    }
}

/// Returns `number` times `unit_ms`, exactly, in milliseconds.
fn milliseconds(number: &str, unit_ms: u64) -> Result<u64, NumberError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| NumberError::TooLong)?;
    let mut ms = whole.checked_mul(unit_ms).ok_or(NumberError::TooLong)?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).map_err(|_| NumberError::TooFine)?;
        let part: u64 = fraction.parse().map_err(|_| NumberError::TooFine)?;
        let of = 10u64.checked_pow(digits).ok_or(NumberError::TooFine)?;
        let part = part.checked_mul(unit_ms).ok_or(NumberError::TooFine)?;
        if !part.is_multiple_of(of) {
            return Err(NumberError::TooFine);
        }
        ms = ms.checked_add(part / of).ok_or(NumberError::TooLong)?;
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_exactly() {
        for (text, want) in [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("1h30m", Some(5_400_000)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("1.5s", Some(1_500)),
            ("1m1.25s", Some(61_250)),
            ("0.1h", Some(360_000)),
            ("1.50s", Some(1_500)),
            ("213503982334d", Some(18_446_744_073_657_600_000)),
            ("30", None),
            ("", None),
            ("s", None),
            (".5s", None),
            ("1.s", None),
            ("1.5", None),
            ("1.5h30m", None),
            ("1.0001s", None),
            ("1.5ms", None),
            ("30m1h", None),
            ("1s1s", None),
            ("1h30", None),
            ("1h 30m", None),
            ("1..5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1 s", None),
            ("1S", None),
            ("1w", None),
            ("1e3s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("213503982334d1d", None),
            ("213503982334d23h59m59s999ms1", None),
            ("0.99999999999999999999s", None),
            ("١s", None),
        ] {
            assert_eq!(parse(text).ok().map(|d| d.as_millis()), want, "{text:?}");
        }
    }

    #[test]
    fn a_formatted_duration_is_parsed_as_the_same() {
        for text in [
            "0s", "1ms", "1s", "1500ms", "90s", "5m", "1h", "25h", "7d", "90061s",
        ] {
            assert_eq!(typed(parse(text).expect(text)), text);
        }
    }

    #[test]
    fn the_error_for_a_missing_unit_proposes_seconds() {
        for (text, proposal) in [("30", "30s"), ("1.5", "1.5s"), ("1h30", "1h30s")] {
            assert!(parse(text).unwrap_err().contains(proposal), "{text}");
        }
    }

    #[test]
    fn the_error_for_a_wrong_duration_shows_a_valid_one() {
        for (text, words) in [
            ("soon", "like 30s or 1h30m (ms, s, m, h or d)"),
            ("1w", "use ms, s, m, h or d"),
            ("30m1h", "the largest first, like 1h30m"),
            ("1.5h30m", "1h30m or 1.5h"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(grace("99ms").unwrap_err().contains("the shortest is 100ms"));
        for (text, words) in [
            ("0", "\"0s\" would be too short; did you mean \"100ms\""),
            ("0.05", "did you mean \"100ms\""),
            ("0.1", "did you mean \"0.1s\""),
            ("5", "did you mean \"5s\""),
        ] {
            let error = grace(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
