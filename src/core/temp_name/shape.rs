//! The shape of a name, by which the copies of one target are found.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::grammar::{Grammar, NameEnd, NameParts};
use super::row::WriterGrammar;
use super::token::Token;
use crate::core::random::is_like_any_date;
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

/// The target of a name in its shape.
struct ShapeTarget<'n> {
    target: Option<Cow<'n, [u8]>>,
    /// The target with the digits that may be a pid. `None` if there are none.
    longer: Option<Vec<u8>>,
    /// These digits look like a date, and are a part of the target.
    is_date: bool,
}

impl Grammar {
    /// Returns the shape of a name that the grammar matches.
    pub(super) fn shape(&self, name: &[u8], end: NameEnd<'_>) -> Option<Shape> {
        let parts = self.split_by_end(name, end)?;
        let name_of = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        if !parts.is_random || !parts.is_certain {
            // A part that may be a word is not replaced, because two such names may belong to two files.
            return Some(Shape {
                target: self.target(name, &parts).map(name_of),
                ..Shape::without_grammar(name)
            });
        }
        let shape_target = self.shape_target(name, &parts);
        let form = self.form_with(&shape_target, name.len())?;
        let ShapeTarget { target, longer, .. } = shape_target;
        let target = target.as_deref();
        Some(Shape {
            form,
            target: target.map(name_of),
            numbered_target: longer.as_deref().map(name_of),
            group: target.filter(|_| self.forms_groups()).map(name_of),
            is_known: self.writer.is_some() || self.pattern.tokens.contains(&Token::Uuid),
        })
    }

    /// Returns the form of the shape of a name that the grammar matches, without the rest of the shape.
    pub(super) fn form(&self, name: &[u8], end: NameEnd<'_>) -> Option<OsString> {
        let parts = self.split_by_end(name, end)?;
        match parts.is_random && parts.is_certain {
            true => self.form_with(&self.shape_target(name, &parts), name.len()),
            false => Some(form_without_grammar(name)),
        }
    }

    /// Returns the form of a name of `length` bytes with certain random parts.
    fn form_with(&self, target: &ShapeTarget<'_>, length: usize) -> Option<OsString> {
        let mut tokens = self.pattern.tokens.as_slice();
        // The kind of a part is mostly shorter than the part.
        let mut form = Vec::with_capacity(length);
        form.extend_from_slice(self.pattern.prefix.as_bytes());
        if let Some(target) = &target.target {
            tokens = tokens.get(1..)?;
            form.extend_from_slice(target);
        }
        if target.is_date {
            // The dot and the pid are in the target, and a number after them too.
            tokens = tokens.get(2..)?;
            tokens = match tokens {
                [Token::Literal(dot), Token::Number, rest @ ..] if **dot == *"." => rest,
                tokens => tokens,
            };
        }
        for token in tokens {
            token.append_to(&mut form);
        }
        Some(OsString::from_vec(form))
    }

    /// Returns the group of the shape of a name that the grammar matches, if it has one.
    pub(super) fn group(&self, name: &[u8], end: NameEnd<'_>) -> Option<Option<OsString>> {
        let parts = self.split_by_end(name, end)?;
        if !parts.is_random || !parts.is_certain || !self.forms_groups() {
            return Some(None);
        }
        let target = self.shape_target(name, &parts).target;
        Some(target.map(|target| OsStr::from_bytes(&target).to_owned()))
    }

    /// Returns the target of a name whose random parts are certain, as it is in the shape.
    fn shape_target<'n>(&self, name: &'n [u8], parts: &NameParts<'n>) -> ShapeTarget<'n> {
        let target = parts.target.filter(|_| !self.may_truncate(name));
        let has_digits = self.pid_is_next() && self.only_targets().is_none();
        // The pid follows the target and its dot, and a number may follow the pid.
        let digits = target.filter(|_| has_digits).and_then(|target| {
            let rest = name.get(self.pattern.prefix.len() + target.len() + 1..)?;
            let numbers = rest.split(|b| *b == b'.');
            let numbers = numbers.take_while(|part| part.iter().all(u8::is_ascii_digit));
            let length: usize = numbers.map(|part| part.len() + 1).sum();
            rest.get(..length.checked_sub(1)?)
        });
        let longer = target
            .zip(digits)
            .map(|(target, digits)| [target, b".", digits].concat());
        let has_date = |digits: &[u8]| digits.split(|b| *b == b'.').any(is_like_any_date);
        let is_date = rule!("date-stays-in-the-shape", digits.is_some_and(has_date));
        let target = match (&longer, is_date) {
            (Some(longer), true) => Some(longer.clone().into()),
            _ => target.map(Cow::Borrowed),
        };
        ShapeTarget {
            target,
            longer,
            is_date,
        }
    }

    /// Reports whether the temps of one target form a group. If several targets have temps of the same name, a temp of
    /// one could supersede a temp of another.
    fn forms_groups(&self) -> bool {
        let is_shared = |row: &WriterGrammar| rule!("shared-names-form-no-group", row.shared_name);
        self.writer.as_ref().is_some_and(|row| !is_shared(row))
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

pub(super) fn form_without_grammar(name: &[u8]) -> OsString {
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
    OsString::from_vec(form)
}

/// Returns the form of a name without a random part that a grammar knows: `a-0017.tmp` and `leak17.tmp` are written by
/// one program with a counter. Only for output: names that differ in a number may be different files.
pub(super) fn form_of_fixed_name(name: &OsStr) -> OsString {
    let form = form_without_grammar(name.as_bytes());
    let mut rest = form.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&first, others)) = rest.split_first() {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let after = rest.get(digits..).unwrap_or_default();
        let is_end = !after.first().is_some_and(u8::is_ascii_alphanumeric);
        let has_letter = out.last().is_some_and(u8::is_ascii_alphabetic);
        if digits > 0 && is_end && has_letter {
            out.extend_from_slice(b"<n>");
            rest = after;
        } else if digits > 0 {
            out.extend(rest.iter().take(digits));
            rest = after;
        } else {
            out.push(first);
            rest = others;
        }
    }
    OsString::from_vec(out)
}
