//! The shape of a name, by which the copies of one target are found.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::grammar::{Grammar, NameParts, Token, is_like_date};
use crate::core::suffix::{is_lower_hex, strip_uuid};

/// The form that the names of all temps of one writer have in common: `sessions.json.<uuid>.tmp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name, with each random part replaced by its kind.
    pub form: OsString,
    /// The shortest possible target, without digits that may be a pid.
    pub target: Option<OsString>,
    /// The same target with those digits. `None` if there are none.
    pub numbered_target: Option<OsString>,
    /// The target by whose name the temps of one directory and owner form a group. `None` if the grammar is a built-in
    /// one, or the name does not contain its target.
    pub group: Option<OsString>,
    /// The shape comes from a built-in grammar with a uuid, or from a writer that the rule turns on.
    pub is_known: bool,
}

impl Grammar {
    /// Returns the shape of a name that the grammar matches.
    pub(super) fn shape(&self, name: &[u8]) -> Option<Shape> {
        let NameParts { target, .. } = self.split(name)?;
        let target = target.filter(|_| !self.may_truncate(name));
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        let has_digits = self.tokens.starts_with(&pid_is_next) && self.only_targets().is_none();
        // The pid follows the target and its dot, and a number may follow the pid.
        let digits = target.filter(|_| has_digits).and_then(|target| {
            let rest = name.get(target.len() + 1..)?;
            let numbers = rest.split(|b| *b == b'.');
            let numbers = numbers.take_while(|part| part.iter().all(u8::is_ascii_digit));
            let length: usize = numbers.map(|part| part.len() + 1).sum();
            rest.get(..length.checked_sub(1)?)
        });
        let longer = target
            .zip(digits)
            .map(|(target, digits)| [target, b".", digits].concat());
        let has_date = |digits: &[u8]| digits.split(|b| *b == b'.').any(is_like_date);
        let is_date = rule!("date-stays-in-the-shape", digits.is_some_and(has_date));
        let target = match (&longer, is_date) {
            (Some(longer), true) => Some(longer.as_slice()),
            _ => target,
        };
        let mut form = Vec::new();
        let mut rest = self.pattern.as_bytes();
        if let Some(target) = target {
            rest = rest.strip_prefix(b"<t>")?;
            form.extend_from_slice(target);
        }
        if is_date {
            rest = rest.strip_prefix(b".<pid>")?;
            rest = rest.strip_prefix(b".<n>").unwrap_or(rest);
        }
        form.extend_from_slice(rest);
        let name_of = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Some(Shape {
            form: name_of(&form),
            target: target.map(name_of),
            numbered_target: longer.as_deref().map(name_of),
            group: target.filter(|_| self.writer.is_some()).map(name_of),
            is_known: self.writer.is_some() || self.tokens.contains(&Token::Uuid),
        })
    }
}

impl Shape {
    /// Returns the shape of a name that no grammar matches, without its counters and random parts.
    pub(super) fn without_grammar(name: &[u8]) -> Shape {
        Shape {
            form: form_without_grammar(name),
            target: None,
            numbered_target: None,
            group: None,
            is_known: false,
        }
    }
}

fn form_without_grammar(name: &[u8]) -> OsString {
    let mut form = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, others)) = rest.split_first() {
        // A uuid does not begin directly after a letter or digit.
        let starts = !form.last().is_some_and(u8::is_ascii_alphanumeric);
        if let Some((_, after)) = rest.split_at_checked(36).filter(|(uuid, after)| {
            starts
                && strip_uuid(uuid).is_some_and(<[u8]>::is_empty)
                && !after.first().is_some_and(u8::is_ascii_alphanumeric)
        }) {
            form.extend_from_slice(b"<uuid>");
            rest = after;
            continue;
        }
        if !first.is_ascii_alphanumeric() {
            form.push(first);
            rest = others;
            continue;
        }
        let end = rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric())
            .count();
        let (run, after) = rest.split_at(end);
        let digits = run.iter().filter(|b| b.is_ascii_digit()).count();
        form.extend_from_slice(match run.len() {
            len if len == digits => b"<n>",
            6.. if digits > 0 && run.iter().all(is_lower_hex) => b"<hex>",
            _ => run,
        });
        rest = after;
    }
    OsStr::from_bytes(&form).to_owned()
}
