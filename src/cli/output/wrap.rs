//! Breaks lines that are wider than the terminal between words.

use std::borrow::Cow;
use std::os::fd::AsFd;

/// The width of the time of day at the start of a line about an event, with the gap after it.
const TIME_WIDTH: usize = "10:42:10  ".len();

/// The smallest room for text. In narrower terminals lines are not broken.
const MIN_ROOM: usize = 20;

/// Returns the width of the terminal that `stream` leads to, in characters. `None` if it leads to none, or if the width is
/// not known.
pub(crate) fn terminal_width(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Returns `text` with line breaks, so that no line is wider than `width`. Each further line is indented. A command that
/// the text proposes is not broken, so that it can be copied.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> Cow<'_, str> {
    match width {
        Some(width) if text.lines().any(|line| visible_width(line) > width) => {
            let lines: Vec<String> = text.lines().map(|line| broken(line, width)).collect();
            lines.join("\n").into()
        }
        _ => text.into(),
    }
}

/// A word, or a command, and the number of spaces before it.
struct Unit<'a> {
    gap: usize,
    text: &'a str,
}

fn broken(line: &str, width: usize) -> String {
    let units = units(line);
    let Some(first) = units.first() else {
        return String::new();
    };
    let indent = match (is_time(first.text), first.gap) {
        (true, _) => TIME_WIDTH,
        (false, 0) => 2,
        (false, _) => last_column(&units, width * 3 / 5).unwrap_or(first.gap + 2),
    };
    if width < indent + MIN_ROOM {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len() + 32);
    let mut used = 0;
    for unit in units {
        let length = visible_width(unit.text);
        if used > indent && used + unit.gap + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = indent;
        } else {
            out.push_str(&" ".repeat(unit.gap));
            used += unit.gap;
        }
        out.push_str(unit.text);
        used += length;
    }
    out
}

/// Returns where the last column of an indented row begins, if that is not after `most`.
fn last_column(units: &[Unit<'_>], most: usize) -> Option<usize> {
    let mut used = 0;
    let mut column = None;
    for (index, unit) in units.iter().enumerate() {
        used += unit.gap;
        if index > 0 && unit.gap > 1 && used <= most {
            column = Some(used);
        }
        used += visible_width(unit.text);
    }
    column
}

/// Splits a line at spaces. A command is one unit: it begins with `orphand` or `sudo` after a colon, and ends before two
/// spaces or after a punctuation mark.
fn units(line: &str) -> Vec<Unit<'_>> {
    let mut units: Vec<Unit<'_>> = Vec::new();
    let mut in_command = false;
    let mut rest = line;
    while let Some(gap) = rest.find(|c| c != ' ') {
        let at = line.len() - rest.len() + gap;
        let from_word = &rest[gap..];
        let length = from_word.find(' ').unwrap_or(from_word.len());
        let end = at + length;
        rest = &from_word[length..];
        let word = &line[at..end];
        match units.last_mut() {
            Some(command) if in_command && gap == 1 => {
                let begin = at - gap - command.text.len();
                command.text = &line[begin..end];
            }
            last => {
                let after_colon = last.is_some_and(|last| last.text.ends_with(':'));
                in_command = after_colon && matches!(word, "orphand" | "sudo");
                units.push(Unit { gap, text: word });
            }
        }
        in_command &= !word.ends_with([';', ')', ',']);
    }
    units
}

/// Reports whether a word is the time of day.
fn is_time(word: &str) -> bool {
    word.len() == 8
        && word.bytes().enumerate().all(|(index, byte)| match index {
            2 | 5 => byte == b':',
            _ => byte.is_ascii_digit(),
        })
}

/// Returns the number of characters of a text, without the codes that set colors.
pub(crate) fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => _ = chars.by_ref().find(char::is_ascii_alphabetic),
            _ => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        #[rustfmt::skip]
        let rows = [
            ("short", "short"),
            ("", ""),
            ("one two three four five six seven eight nine", "one two three four five six\n  seven eight nine"),
            ("  reap  indented words are indented a little further", "  reap  indented words are\n        indented a little\n        further"),
            ("10:42:10  removed  a.tmp  3 B  unused for 5 min", "10:42:10  removed  a.tmp  3 B\n          unused for 5 min"),
            ("a \x1b[1mcolored\x1b[0m word counts by its characters", "a \x1b[1mcolored\x1b[0m word counts by its\n  characters"),
            ("to delete: orphand quarantine purge /srv/app; then look", "to delete:\n  orphand quarantine purge /srv/app;\n  then look"),
            ("2 kept.   to see: orphand explain /a b  and more", "2 kept.   to see:\n  orphand explain /a b  and\n  more"),
            ("  ok    the text of a row has a column of its own", "  ok    the text of a row has\n        a column of its own"),
            ("a-very-long-word-that-does-not-fit-anywhere", "a-very-long-word-that-does-not-fit-anywhere"),
            ("first\nsecond line which is longer than that", "first\nsecond line which is longer\n  than that"),
        ];
        for (text, want) in rows {
            assert_eq!(wrapped(text, Some(30)), want, "{text}");
            assert_eq!(wrapped(text, None), text);
        }
    }

    #[test]
    fn a_narrow_terminal_breaks_nothing() {
        let line = "10:42:10  removed  a.tmp  3 B  unused";
        assert_eq!(wrapped(line, Some(20)), line);
    }
}
