//! Compiles the text of a pattern.

use super::token::{Class, Token};
use crate::core::random::Kinds;

/// The largest count of a part. A name has at most 255 bytes.
const MAX_COUNT: usize = 255;

/// The notation, as messages list it.
const PARTS: &str = "<t>, <pid>, <n>, <uuid>, <hex:N>, <digits:N>, <alnum:N> and <[a-z0-9]:N>";

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The literal text at its start. It may be empty.
    pub(super) prefix: Box<str>,
    /// The parts after that text. The target can only be the first of them.
    pub(super) tokens: Vec<Token>,
}

impl Pattern {
    /// Compiles `text`. The error is a sentence without its subject, which is the pattern.
    pub(super) fn new(text: &str) -> Result<Pattern, String> {
        let mut tokens = tokens(text)?;
        let prefix = match tokens.first() {
            Some(Token::Literal(literal)) => {
                let literal = literal.clone();
                tokens.remove(0);
                literal
            }
            _ => Box::default(),
        };
        let pattern = Pattern { prefix, tokens };
        pattern.check()?;
        Ok(pattern)
    }

    fn check(&self) -> Result<(), String> {
        let literals = self.tokens.iter().filter_map(|token| match token {
            Token::Literal(text) => Some(text),
            _ => None,
        });
        let mut literals = literals.chain((!self.prefix.is_empty()).then_some(&self.prefix));
        if rule!("patterns-have-a-literal", literals.clone().next().is_none()) {
            return Err("has no literal character, so it would match names of every kind".into());
        }
        let is_random = self.tokens.iter().any(Token::is_random);
        let has_word = literals.any(|text| text.contains(|c: char| !"._-~".contains(c)));
        if rule!("fixed-patterns-have-a-word", !is_random && !has_word) {
            return Err(
                "has neither a random part nor a literal character other than \".\", \"_\", \
                        \"-\" and \"~\", so it would match names of every kind"
                    .into(),
            );
        }
        if !is_random && !self.tokens.contains(&Token::Target) {
            return Err("is a whole name; put it into names instead".into());
        }
        let later = self.tokens.get(1..).unwrap_or_default();
        if later.contains(&Token::Target) {
            return Err(match self.has_target() {
                true => "has <t> twice".into(),
                false => "has a part before <t>; only literal text can stand there".into(),
            });
        }
        let has_any_number = |token: &Token| matches!(token, Token::Pid | Token::Number);
        let adjacent = self.tokens.windows(2).any(|pair| match pair {
            [first, second] => {
                (has_any_number(first) && second.is_random())
                    || (first.is_random() && has_any_number(second))
            }
            _ => false,
        });
        if adjacent {
            return Err("has a number directly before or after another part, so its end cannot be found; put \
                        a separator between them"
                .into());
        }
        if self
            .tokens
            .iter()
            .filter(|token| **token == Token::Pid)
            .count()
            > 1
        {
            return Err("has <pid> twice; write <n> for the other number".into());
        }
        Ok(())
    }

    /// Reports whether a name contains its target.
    pub(super) fn has_target(&self) -> bool {
        self.tokens.first() == Some(&Token::Target)
    }

    /// Returns the literal text at the end. It may be empty.
    pub(super) fn suffix(&self) -> &str {
        match self.tokens.last() {
            Some(Token::Literal(text)) => text,
            _ => "",
        }
    }
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.contains(['/', '\0']) {
        return Err(
            "contains a \"/\" or a zero byte, which no name has; write only the last part of the \
                    path"
                .into(),
        );
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('<') {
        push_literal(&mut tokens, literal)?;
        let (part, after) = after
            .split_once('>')
            .ok_or_else(|| "has a \"<\" without a \">\"".to_owned())?;
        tokens.push(token(part)?);
        rest = after;
    }
    push_literal(&mut tokens, rest)?;
    Ok(tokens)
}

fn push_literal(tokens: &mut Vec<Token>, literal: &str) -> Result<(), String> {
    if literal.contains('>') {
        return Err("has a \">\" without a \"<\"".into());
    }
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal.into()));
    }
    Ok(())
}

/// Compiles the part `<text>`.
fn token(text: &str) -> Result<Token, String> {
    if let Some(class) = text.strip_prefix('[') {
        let (class_text, count) = class
            .split_once("]:")
            .ok_or_else(|| format!("has the class <{text}> without a count; write <[a-z0-9]:8>"))?;
        return class_of(class_text, count_of(text, count)?);
    }
    Ok(match text.split_once(':') {
        Some(("hex", count)) => Token::Hex(count_of(text, count)?),
        Some(("digits", count)) => Token::Digits(count_of(text, count)?),
        Some(("alnum", count)) => Token::Alnum(count_of(text, count)?),
        Some(_) => return Err(unknown(text)),
        None => match text {
            "t" => Token::Target,
            "pid" => Token::Pid,
            "uuid" => Token::Uuid,
            "n" => Token::Number,
            "hex" | "digits" | "alnum" => {
                return Err(format!(
                    "has <{text}> without a count; did you mean <{text}:8>?"
                ));
            }
            _ => return Err(unknown(text)),
        },
    })
}

fn unknown(text: &str) -> String {
    let known = ["t", "pid", "uuid", "n", "hex:8", "digits:8", "alnum:8"];
    let edits = |known: &&&str| strsim::levenshtein(text, known);
    let nearest = known
        .iter()
        .min_by_key(edits)
        .filter(|known| edits(known) <= 2);
    match nearest {
        Some(nearest) => format!("has the unknown part <{text}>; did you mean <{nearest}>?"),
        None => format!("has the unknown part <{text}>; the parts are {PARTS}"),
    }
}

fn count_of(part: &str, count: &str) -> Result<usize, String> {
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|_| is_number);
    count
        .filter(|count| (1..=MAX_COUNT).contains(count))
        .ok_or_else(|| format!("has <{part}>, whose count must be a number from 1 to {MAX_COUNT}"))
}

fn class_of(text: &str, len: usize) -> Result<Token, String> {
    let bytes = text.as_bytes();
    let wrong = |why: &str| Err(format!("has the class [{text}], {why}"));
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !bytes.iter().all(is_allowed) {
        return wrong("which may have only letters, digits, \"_\" and \"-\", all of them ASCII");
    }
    let mut members = 0_u128;
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let (last, after) = match after {
            [b'-', last, after @ ..] => (*last, after),
            _ => (first, after),
        };
        let same_kind = Kinds::of([first].into_iter()) == Kinds::of([last].into_iter());
        if first > last || !same_kind {
            return wrong("which has a wrong range; the ranges are like a-z, A-Z and 0-9");
        }
        for byte in first..=last {
            members |= 1 << byte;
        }
        rest = after;
    }
    let kinds = Kinds::of((0..128).filter(|byte| members & (1 << byte) != 0));
    if !kinds.mixes(kinds) {
        return wrong("which must have letters and digits, or letters of both cases");
    }
    Ok(Token::Class(Class {
        text: text.into(),
        len,
        members,
        kinds,
    }))
}
