//! Formats values for people: escaped names, sizes, time spans and counts.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use orphand::core::observation::FileSize;
pub(crate) use orphand::core::time::span;

/// Returns `path` in a form that is safe to print: characters that could move the cursor, hide or reverse text, or
/// end a line are escaped. Any process that may write to a watched directory chooses names in it.
pub(crate) fn escaped(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    // The fast path for nearly all names.
    let is_plain = |b: &u8| (b' '..=b'~').contains(b) && *b != b'\\';
    if let (true, Ok(plain)) = (bytes.iter().all(is_plain), std::str::from_utf8(bytes)) {
        return plain.to_owned();
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if rule!(
                "names-are-escaped",
                c == '\\' || c.is_control() || is_invisible(c)
            ) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Returns a process in the form `node[4711]`.
pub(crate) fn process(name: &str, pid: u32) -> String {
    format!("{}[{pid}]", escaped(Path::new(name)))
}

/// Returns `text` as one line. The names in it are escaped already.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    for c in text.lines().collect::<Vec<_>>().join(" ").chars() {
        match c.is_control() || is_invisible(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Returns `text` as a TOML string in one line. Characters that a terminal would interpret are escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\'' => out.push(c),
            // Rust's `Debug` escapes every character that is not printable.
            c if c.escape_debug().len() > 1 => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Reports whether `c` is invisible but changes how other characters are shown: line and paragraph separators,
/// characters of zero width, and marks that change the direction of text.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Formats a time that may be less than a second: `350 µs`, `1.2 ms`, `40 ms`; longer ones like [`span`].
pub(crate) fn short_span(time: Duration) -> String {
    let (us, ms) = (time.as_micros(), time.as_millis());
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{ms}.{} ms", us / 100 % 10),
        10_000..1_000_000 => format!("{ms} ms"),
        _ => span(time),
    }
}

/// Formats a size like `51.2 GB`, in powers of a thousand as Finder and disk manufacturers do.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match value {
        v if v < 99.95 => format!("{v:.1} {name}"),
        v => format!("{v:.0} {name}"),
    }
}

/// Formats the length of files, and the space that they use on the disk if the text differs: `40.0 MB, 48.5 MB on the
/// disk`.
pub(crate) fn sizes(sizes: FileSize) -> String {
    match size_on_disk(sizes) {
        None => size(sizes.bytes),
        Some(disk) => format!("{}, {disk}", size(sizes.bytes)),
    }
}

/// Formats the same where the text is not in parentheses: `40.0 MB (48.5 MB on the disk)`.
pub(crate) fn size_with_disk(sizes: FileSize) -> String {
    match size_on_disk(sizes) {
        None => size(sizes.bytes),
        Some(disk) => format!("{} ({disk})", size(sizes.bytes)),
    }
}

fn size_on_disk(sizes: FileSize) -> Option<String> {
    let disk = size(sizes.disk_bytes);
    (disk != size(sizes.bytes)).then(|| format!("{disk} on the disk"))
}

/// Formats a number like `8,662`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns `text` with at most `most` characters: an ellipsis replaces its middle.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let ellipsis = if is_unicode() { "…" } else { "..." };
    let kept = most.saturating_sub(ellipsis.chars().count());
    // The end of a name tells less than its beginning.
    let tail = kept / 3;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(length - tail).collect();
    format!("{head}{ellipsis}{tail}")
}

/// Joins the parts of a line: `2 waiting · 1 held`.
pub(crate) fn joined(parts: &[String]) -> String {
    parts.join(if is_unicode() { " · " } else { " | " })
}

/// Reports whether the terminal shows characters that are not ASCII, by the variables for the locale. Without any of
/// them it is assumed that it does.
pub(crate) fn is_unicode() -> bool {
    static IS_UNICODE: LazyLock<bool> = LazyLock::new(|| {
        let value = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value);
        locale.is_none_or(|locale| is_unicode_locale(&locale.to_string_lossy()))
    });
    *IS_UNICODE
}

/// Reports whether a locale like `de_DE.UTF-8` has the characters of Unicode.
fn is_unicode_locale(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    match locale.split_once('.') {
        Some((_, charset)) => charset.starts_with("utf-8") || charset.starts_with("utf8"),
        None => locale != "c" && locale != "posix",
    }
}

/// Formats a number with a noun, like `1 temp` or `2 temps`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn names_that_a_terminal_would_interpret_are_escaped() {
        for (name, want) in [
            (&b"plain name.tmp"[..], "plain name.tmp"),
            ("größe.tmp".as_bytes(), "größe.tmp"),
            (b"a\nb", r"a\nb"),
            (b"\x1b[2J", r"\u{1b}[2J"),
            (b"back\\slash", r"back\\slash"),
            (b"\xff\xfe.tmp", r"\xff\xfe.tmp"),
            ("a\u{202e}pmt.b".as_bytes(), r"a\u{202e}pmt.b"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
        ] {
            assert_eq!(escaped(Path::new(OsStr::from_bytes(name))), want);
        }
    }

    #[test]
    fn the_locale_decides_on_characters() {
        for (locale, want) in [
            ("C", false),
            ("POSIX", false),
            ("C.UTF-8", true),
            ("de_DE.utf8", true),
            ("de_DE.UTF-8@euro", true),
            ("de_DE.ISO-8859-1", false),
            ("de_DE", true),
        ] {
            assert_eq!(is_unicode_locale(locale), want, "{locale}");
        }
    }

    #[test]
    fn sizes_are_in_powers_of_a_thousand() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (9_960, "10.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (51_200_000_000, "51.2 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn the_space_on_the_disk_is_shown_if_it_differs() {
        for (bytes, disk_bytes, want) in [
            (0, 0, "0 B"),
            (40_000_000, 40_001_536, "40.0 MB"),
            (40_000_000, 48_500_000, "40.0 MB, 48.5 MB on the disk"),
        ] {
            let both = FileSize { bytes, disk_bytes };
            assert_eq!(sizes(both), want);
            let is_same = size_with_disk(both) == want;
            assert_eq!(is_same, !want.contains("disk"), "{want}");
        }
    }

    #[test]
    fn counts_have_thousands_separators() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(8_662), "8,662");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "temp", "temps"), "1 temp");
    }
}
