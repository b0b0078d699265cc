//! The grammars of names: compiles a pattern, and splits a name into the parts that the pattern names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::writers::WriterGrammar;
use crate::core::suffix::{is_lower_hex, strip_end, strip_uuid};

/// The `PID_MAX_LIMIT` of Linux. No other system has a higher limit. A larger number is a time or a hash.
pub(super) const PID_MAX: u32 = 4_194_304;

/// The grammar whose leading dot is a prefix: see [`ParsedName::dot_is_prefix`].
const HIDDEN_PATTERN: &str = "<t>.<pid>.<uuid>.tmp";

/// The grammars of every rule. They are tried in this order, and the first match is used.
pub(super) const BUILT_IN: [&str; 5] = [
    HIDDEN_PATTERN,
    "<t>.<uuid>.tmp",
    "<t>.<pid>.<n>.tmp",
    "<t>.<pid>.tmp",
    "<t>.tmp",
];

/// The parts that a grammar finds in the base name of a temp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedName {
    /// The pattern of the grammar that matches. `None` if none does.
    pub grammar: Option<&'static str>,
    /// The possible base names of the target, the most likely first. Empty if the name does not contain its target.
    ///
    /// A leading dot may belong to the target or be added by the writer, so `.t` is followed by `t`. Digits that may be
    /// a pid or the end of the target count as a part of the target: it is the longest possible one.
    pub targets: Vec<OsString>,
    /// The same names, with the digits before a uuid as their end. These digits are the pid unless a file in the
    /// directory shows that they belong to the target. Empty if there are no such digits.
    pub numbered_targets: Vec<OsString>,
    /// The pid of the writer, if the grammar has one.
    pub pid: Option<u32>,
    /// Each write creates another name, so temps accumulate. With a fixed name (`<t>.tmp`) they do not.
    pub is_random: bool,
}

impl ParsedName {
    /// Reports whether a leading dot is known to be added by the writer. Of the writers with this grammar, those whose
    /// temps begin with a dot add it to the target's name (pnpm, and older versions of openclaw).
    #[must_use]
    pub fn dot_is_prefix(&self) -> bool {
        self.grammar == Some(HIDDEN_PATTERN)
    }

    /// Returns the same name, with the digits before its uuid as the end of its target.
    #[must_use]
    pub fn with_numbered_targets(self) -> ParsedName {
        ParsedName {
            targets: self.numbered_targets,
            numbered_targets: Vec::new(),
            ..self
        }
    }
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Target,
    Pid,
    Uuid,
    Number,
    Hex(usize),
    Digits(usize),
    Alnum(usize),
    Literal(&'static str),
}

impl Token {
    fn is_random(&self) -> bool {
        !matches!(self, Token::Target | Token::Literal(_))
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    pub(super) pattern: &'static str,
    pub(super) tokens: Vec<Token>,
    /// The writer that has the pattern. `None` for the patterns of every rule.
    pub(super) writer: Option<&'static WriterGrammar>,
}

/// The parts of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameParts<'n> {
    pub(super) target: Option<&'n [u8]>,
    pub(super) pid: Option<u32>,
}

impl Grammar {
    /// Compiles a pattern. Returns `None` if it is not in the notation. A test ensures that all patterns here are.
    pub(super) fn new(
        pattern: &'static str,
        writer: Option<&'static WriterGrammar>,
    ) -> Option<Grammar> {
        let mut tokens = Vec::new();
        for piece in pattern.split_inclusive('>') {
            let (literal, token) = piece.split_once('<').unwrap_or((piece, ""));
            if !literal.is_empty() {
                tokens.push(Token::Literal(literal));
            }
            tokens.push(match token.split_once(':').unwrap_or((token, "")) {
                ("", _) => continue,
                ("t>", _) => Token::Target,
                ("pid>", _) => Token::Pid,
                ("uuid>", _) => Token::Uuid,
                ("n>", _) => Token::Number,
                ("hex", len) => Token::Hex(len.strip_suffix('>')?.parse().ok()?),
                ("digits", len) => Token::Digits(len.strip_suffix('>')?.parse().ok()?),
                ("alnum", len) => Token::Alnum(len.strip_suffix('>')?.parse().ok()?),
                _ => return None,
            });
        }
        Some(Grammar {
            pattern,
            tokens,
            writer,
        })
    }

    /// Compiles the patterns of a writer.
    pub(super) fn all_of(writer: &'static WriterGrammar) -> impl Iterator<Item = Grammar> {
        let patterns = writer.patterns.iter();
        patterns.filter_map(move |pattern| Grammar::new(pattern, Some(writer)))
    }

    /// Splits the name from its right end, where writers add their parts.
    pub(super) fn split<'n>(&self, name: &'n [u8]) -> Option<NameParts<'n>> {
        let mut parts = NameParts::default();
        let mut rest = name;
        for token in self.tokens.iter().rev() {
            rest = match *token {
                Token::Literal(literal) => rest.strip_suffix(literal.as_bytes())?,
                Token::Target if rest.is_empty() => return None,
                Token::Target if !self.may_be_target(rest) => return None,
                Token::Target => {
                    parts.target = Some(rest);
                    &[]
                }
                Token::Pid => {
                    let (before, digits) = split_digits(rest)?;
                    parts.pid = Some(parse_pid(digits)?);
                    before
                }
                Token::Number => split_digits(rest)?.0,
                Token::Uuid => strip_uuid(rest)?,
                Token::Hex(len) => strip_end(rest, len, is_lower_hex)?,
                Token::Digits(len) => strip_end(rest, len, u8::is_ascii_digit)?,
                Token::Alnum(len) => strip_end(rest, len, u8::is_ascii_alphanumeric)?,
            };
        }
        rest.is_empty().then_some(parts)
    }

    pub(super) fn parse(&self, name: &[u8]) -> Option<ParsedName> {
        let NameParts { target, pid } = self.split(name)?;
        let target = match self.tokens.last() {
            _ if self.may_truncate(name) => None,
            Some(Token::Literal(end)) if self.pid_may_belong_to_target() => {
                name.strip_suffix(end.as_bytes())
            }
            _ => target,
        };
        let parsed = ParsedName {
            grammar: Some(self.pattern),
            targets: target.map(target_names).unwrap_or_default(),
            numbered_targets: Vec::new(),
            pid,
            is_random: self.tokens.iter().any(Token::is_random),
        };
        // If the targets are known, the digits are not part of one.
        let may_be_numbered = self.tokens.contains(&Token::Uuid) && self.only_targets().is_none();
        let (Some(target), Some(pid), true) = (target, pid, may_be_numbered) else {
            return Some(parsed);
        };
        let longest = [target, b".", pid.to_string().as_bytes()].concat();
        let parsed = ParsedName {
            numbered_targets: target_names(&longest),
            ..parsed
        };
        let is_date = is_like_date(pid.to_string().as_bytes());
        Some(match rule!("date-is-no-pid", is_date) {
            true => parsed.with_numbered_targets(),
            false => parsed,
        })
    }

    /// Reports whether a temp of the writer can have this target.
    fn may_be_target(&self, target: &[u8]) -> bool {
        self.only_targets()
            .is_none_or(|only| only.iter().any(|one| one.as_bytes() == target))
    }

    /// Returns the names of all targets of the writer, if they are known.
    pub(super) fn only_targets(&self) -> Option<&'static [&'static str]> {
        self.writer
            .map(|writer| writer.targets)
            .filter(|targets| !targets.is_empty())
    }

    /// Reports whether the writer may have truncated the target in this name.
    pub(super) fn may_truncate(&self, name: &[u8]) -> bool {
        let limit = self.writer.and_then(|writer| writer.truncates_at);
        limit.is_some_and(|len| name.len() >= len)
    }

    /// Reports whether the digits of the pid may belong to the target. `report.2024.tmp` may have the target `report`
    /// and come from process 2024, or have the target `report.2024`. Before a uuid, digits that do not look like a date
    /// count as the pid, because openclaw writes `sessions.json.4711.<uuid>.tmp`.
    fn pid_may_belong_to_target(&self) -> bool {
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        self.tokens.starts_with(&pid_is_next) && !self.tokens.contains(&Token::Uuid)
    }
}

/// Reports whether digits are probably a part of a name instead of a pid: a year from 1900 to 2100, alone or with a
/// month or a month and a day, a date of six digits, or digits that begin with 0.
pub(super) fn is_like_date(digits: &[u8]) -> bool {
    let number =
        |part: Option<&[u8]>| -> Option<u32> { std::str::from_utf8(part?).ok()?.parse().ok() };
    let within = |part: Option<&[u8]>, range: std::ops::RangeInclusive<u32>| {
        number(part).is_some_and(|number| range.contains(&number))
    };
    let year = |part| within(part, 1900..=2100);
    let month = |part| within(part, 1..=12);
    let day = |part| within(part, 1..=31);
    digits.starts_with(b"0")
        || match digits.len() {
            4 => year(Some(digits)),
            6 => {
                (year(digits.get(..4)) && month(digits.get(4..)))
                    || (month(digits.get(2..4)) && day(digits.get(4..)))
            }
            8 => year(digits.get(..4)) && month(digits.get(4..6)) && day(digits.get(6..)),
            _ => false,
        }
}

/// Removes a number or a uuid, and the dot before it, from the end of `name`: `metrics.2023` becomes `metrics`.
#[must_use]
pub fn strip_number(name: &[u8]) -> Option<&[u8]> {
    let digits = split_digits(name).and_then(|(before, _)| before.strip_suffix(b"."));
    let stem = digits.or_else(|| strip_uuid(name)?.strip_suffix(b"."))?;
    (!stem.is_empty()).then_some(stem)
}

/// Returns the possible names of `<t>`, without those that no file can have.
fn target_names(target: &[u8]) -> Vec<OsString> {
    [Some(target), target.strip_prefix(b".")]
        .into_iter()
        .flatten()
        .filter(|name| !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/'))
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// Splits off all decimal digits at the end, of which there must be at least one. Returns the rest and the digits.
fn split_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().rev().take_while(|b| b.is_ascii_digit());
    let start = bytes.len().checked_sub(digits.count())?;
    let (before, digits) = bytes.split_at_checked(start)?;
    (!digits.is_empty()).then_some((before, digits))
}

/// Parses a pid. Leading zeros and numbers above the limit of the kernel are refused, because a wrong pid would look
/// like a writer that is gone.
fn parse_pid(digits: &[u8]) -> Option<u32> {
    let pid: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (pid <= PID_MAX && !digits.starts_with(b"0")).then_some(pid)
}
