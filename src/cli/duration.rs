//! Durations as people type them: a whole number and a unit.

use std::time::Duration;

/// Reads `30s`, `5m`, `1h`, `7d`, `250ms`. A number without a unit is an error that names it with
/// one: guessing wrong by a factor of sixty would delete what is still needed.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "{text:?} is not a duration; say a whole number and a unit, like 30s (ms, s, m, h or d)"
        ));
    }
    let too_long = || {
        format!(
            "{text:?} is too long; the longest is {}d",
            u64::MAX / 86_400_000
        )
    };
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("{text:?} has no unit; did you mean {text}s?")),
        _ => {
            return Err(format!(
                "{unit:?} is not a unit; there are ms, s, m, h and d"
            ));
        }
    };
    number
        .checked_mul(unit)
        .map(Duration::from_millis)
        .ok_or_else(too_long)
}

/// As [`parse`] reads it: in the largest unit that loses nothing, down to milliseconds.
pub(crate) fn typed(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let unit = units
        .iter()
        .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("30", None),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1 s", None),
            ("1S", None),
            ("1w", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("١s", None),
        ] {
            assert_eq!(parse(text).ok().map(|d| d.as_millis()), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_typed_is_read_as_the_same() {
        for text in [
            "0s", "1ms", "1s", "1500ms", "90s", "5m", "1h", "25h", "7d", "90061s",
        ] {
            assert_eq!(typed(parse(text).expect(text)), text);
        }
    }

    #[test]
    fn a_number_without_a_unit_is_named_with_one() {
        assert!(parse("30").unwrap_err().contains("30s"));
    }
}
