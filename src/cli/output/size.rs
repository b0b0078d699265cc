//! Parses sizes: a whole number and a unit. Units are powers of a thousand, as in the output.

/// Parses `500kB`, `16MB`, `1GB`, and returns bytes. A number without a unit is an error that proposes the number
/// with one, because a limit of sixteen bytes is certainly not meant.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "{text:?} is not a size; write a whole number and a unit, like 16MB (kB, MB or GB)"
        ));
    }
    let too_large = || {
        format!(
            "{text:?} is too large; the largest is {}GB",
            u64::MAX / 1_000_000_000
        )
    };
    let number: u64 = number.parse().map_err(|_| too_large())?;
    let unit = match unit {
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" => return Err(format!("{text:?} has no unit; did you mean \"{text}MB\"?")),
        _ => {
            return Err(format!("{unit:?} is not a unit; there are kB, MB and GB"));
        }
    };
    number.checked_mul(unit).ok_or_else(too_large)
}

/// Formats a size as [`parse`] accepts it, in the largest unit that keeps whole kB exact.
pub(crate) fn typed(bytes: u64) -> String {
    match bytes {
        0 => "0kB".to_owned(),
        bytes if bytes.is_multiple_of(1_000_000_000) => format!("{}GB", bytes / 1_000_000_000),
        bytes if bytes.is_multiple_of(1_000_000) => format!("{}MB", bytes / 1_000_000),
        bytes => format!("{}kB", bytes / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        for (text, want) in [
            ("0kB", Some(0)),
            ("1kB", Some(1_000)),
            ("500kB", Some(500_000)),
            ("16MB", Some(16_000_000)),
            ("2GB", Some(2_000_000_000)),
            ("18446744073GB", Some(18_446_744_073_000_000_000)),
            ("18446744074GB", None),
            ("99999999999999999999kB", None),
            ("16", None),
            ("", None),
            ("MB", None),
            ("1.5MB", None),
            ("-1MB", None),
            ("1 MB", None),
            ("1mb", None),
            ("1KB", None),
            ("1MiB", None),
            ("1B", None),
            ("1TB", None),
            ("١MB", None),
        ] {
            assert_eq!(parse(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn the_error_for_a_missing_unit_proposes_megabytes() {
        assert!(parse("16").unwrap_err().contains("16MB"));
    }

    #[test]
    fn a_formatted_size_is_parsed_as_the_same() {
        for text in [
            "0kB", "1kB", "999kB", "1MB", "1001kB", "16MB", "1GB", "1500MB",
        ] {
            assert_eq!(typed(parse(text).expect(text)), text);
        }
    }
}
