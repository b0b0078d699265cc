//! The names of files that belong to a temp, such as the log of a database.

use super::pattern;
use super::token::Token;

/// A pattern that begins with `<temp>`, which is the whole name of the temp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    text: String,
    tokens: Vec<Token>,
}

impl Companion {
    /// Compiles the pattern. The error is a sentence without its subject.
    pub(super) fn new(text: &str) -> Result<Companion, String> {
        let Some(rest) = text.strip_prefix("<temp>") else {
            return Err(
                "must begin with <temp>, the name of the temp; write \"<temp>-wal\"".into(),
            );
        };
        if rest.is_empty() {
            return Err("needs a literal character after <temp>; write \"<temp>-<n>\"".into());
        }
        let tokens = pattern::tokens(rest)?;
        if tokens.contains(&Token::Target) || rest.contains("<temp>") {
            return Err("may contain <temp> only at its start, and no <t>".into());
        }
        if !matches!(tokens.first(), Some(Token::Literal(_))) {
            return Err("needs a literal character after <temp>; write \"<temp>-<n>\"".into());
        }
        Ok(Companion {
            text: text.to_owned(),
            tokens,
        })
    }

    /// Returns the pattern.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.text
    }

    /// Returns the name of the temp to which the file `name` belongs, if the pattern matches.
    #[must_use]
    pub fn temp_of<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let mut tokens = self.tokens.iter().rev();
        let temp = tokens.try_fold(name, |rest, token| Some(token.strip(rest)?.before))?;
        (!temp.is_empty()).then_some(temp)
    }

    /// Returns the name of the companion of `temp`, if the pattern has no variable part.
    #[must_use]
    pub fn only_name(&self, temp: &[u8]) -> Option<Vec<u8>> {
        match self.tokens.as_slice() {
            [Token::Literal(end)] => Some([temp, end.as_bytes()].concat()),
            _ => None,
        }
    }
}
