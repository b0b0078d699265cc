//! The parts of a pattern: literal text, the target, and random parts.

use std::fmt;

use crate::core::random::{self, Kinds, Randomness};
use crate::core::suffix::{is_lower_hex, strip_end, strip_uuid};

/// The `PID_MAX_LIMIT` of Linux. No other system has a higher limit. A larger number is a time or a hash.
pub(super) const PID_MAX: u32 = 4_194_304;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Target,
    Pid,
    Uuid,
    Number,
    Hex(usize),
    Digits(usize),
    Alnum(usize),
    /// A class with an exact number of characters. It matches only a part that mixes kinds of characters.
    Class(Class),
    Literal(Box<str>),
}

/// The characters of a class, all of them ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// The text between the brackets.
    pub(super) text: Box<str>,
    pub(super) len: usize,
    pub(super) members: u128,
    /// The kinds of characters that the class has.
    pub(super) kinds: Kinds,
}

impl Class {
    pub(super) fn contains(&self, byte: &u8) -> bool {
        byte.is_ascii() && self.members & (1 << byte) != 0
    }
}

/// The result of removing a token from the end of a name.
pub(super) struct Removed<'n> {
    /// The name before the part.
    pub(super) before: &'n [u8],
    /// The part.
    pub(super) part: &'n [u8],
    /// How likely the part is to be random.
    pub(super) randomness: Randomness,
}

impl Token {
    /// Reports whether the part has another content in each name.
    pub(super) fn is_random(&self) -> bool {
        !matches!(self, Token::Target | Token::Literal(_))
    }

    /// Returns the bytes with which a part can end, as a set of ASCII characters. `None` if it can end with others.
    pub(super) fn last_bytes(&self) -> Option<u128> {
        let is_last = |byte: &u8| match self {
            Token::Target => true,
            Token::Literal(text) => text.as_bytes().last() == Some(byte),
            Token::Pid | Token::Number | Token::Digits(_) => byte.is_ascii_digit(),
            Token::Uuid => byte.is_ascii_hexdigit(),
            Token::Hex(_) => is_lower_hex(byte),
            Token::Alnum(_) => byte.is_ascii_alphanumeric(),
            Token::Class(class) => class.contains(byte),
        };
        if !(128..=u8::MAX).all(|byte| !is_last(&byte)) {
            return None;
        }
        let last = (0..128).filter(is_last);
        Some(last.fold(0, |set, byte| set | 1 << byte))
    }

    /// Appends the text of the token to a pattern. Most tokens need no formatting.
    pub(super) fn append_to(&self, pattern: &mut Vec<u8>) {
        match self {
            Token::Literal(text) => pattern.extend_from_slice(text.as_bytes()),
            Token::Pid => pattern.extend_from_slice(b"<pid>"),
            Token::Uuid => pattern.extend_from_slice(b"<uuid>"),
            Token::Number => pattern.extend_from_slice(b"<n>"),
            other => pattern.extend_from_slice(other.to_string().as_bytes()),
        }
    }

    /// Returns `name` without the part at its end, by its length and its characters. `None` if the name does not end in
    /// such a part.
    ///
    /// The target is not removed in this way, because it is what remains.
    pub(super) fn before<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        match self {
            Token::Target => None,
            Token::Literal(text) => name.strip_suffix(text.as_bytes()),
            Token::Pid => {
                let (before, digits) = split_digits(name)?;
                parse_pid(digits).map(|_| before)
            }
            Token::Number => Some(split_digits(name)?.0),
            Token::Uuid => strip_uuid(name),
            Token::Hex(len) => strip_end(name, *len, is_lower_hex),
            Token::Digits(len) => strip_end(name, *len, u8::is_ascii_digit),
            Token::Alnum(len) => strip_end(name, *len, u8::is_ascii_alphanumeric),
            Token::Class(class) => strip_end(name, class.len, |byte| class.contains(byte)),
        }
    }

    /// Removes the part from the end of `name`. Returns `None` if the name does not end in such a part, or if the part
    /// is not random.
    pub(super) fn strip<'n>(&self, name: &'n [u8]) -> Option<Removed<'n>> {
        let before = self.before(name)?;
        let part = name.get(before.len()..)?;
        let randomness = match self {
            Token::Alnum(_) => match random::of(part) {
                Randomness::None if rule!("words-are-not-random", true) => return None,
                some => some,
            },
            Token::Class(class) => random::of_class(part, class.kinds)?,
            Token::Hex(_) => random::of(part),
            // Digits alone never show that they are random.
            Token::Digits(_) | Token::Number => Randomness::None,
            _ => Randomness::Strong,
        };
        Some(Removed {
            before,
            part,
            randomness,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Target => f.write_str("<t>"),
            Token::Pid => f.write_str("<pid>"),
            Token::Uuid => f.write_str("<uuid>"),
            Token::Number => f.write_str("<n>"),
            Token::Hex(len) => write!(f, "<hex:{len}>"),
            Token::Digits(len) => write!(f, "<digits:{len}>"),
            Token::Alnum(len) => write!(f, "<alnum:{len}>"),
            Token::Class(class) => write!(f, "<[{}]:{}>", class.text, class.len),
            Token::Literal(text) => f.write_str(text),
        }
    }
}

/// Splits off all decimal digits at the end, of which there must be at least one. Returns the rest and the digits.
pub(super) fn split_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().rev().take_while(|b| b.is_ascii_digit());
    let start = bytes.len().checked_sub(digits.count())?;
    let (before, digits) = bytes.split_at_checked(start)?;
    (!digits.is_empty()).then_some((before, digits))
}

/// Parses a pid. Leading zeros and numbers above the limit of the kernel are refused, because a wrong pid would look
/// like a writer that is gone.
pub(super) fn parse_pid(digits: &[u8]) -> Option<u32> {
    let pid: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (pid <= PID_MAX && !digits.starts_with(b"0")).then_some(pid)
}
