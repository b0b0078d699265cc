//! Compiles globs, splits one into its alternatives without braces, and finds the literal text in them.
//!
//! The syntax is that of `globset`, which has already accepted a glob that is split.

use std::iter::Peekable;
use std::str::Chars;

use globset::{Glob, GlobBuilder, GlobSet};

/// The largest number of alternatives. Each of them becomes a glob of its own, so a glob with more is refused.
const MAX_ALTERNATIVES: usize = 1_000;
/// The largest depth of braces within braces.
const MAX_DEPTH: usize = 16;

/// Compiles globs into a set. Returns the message of the error, if there is one.
///
/// A set is used even for one glob: a single matcher panics on a pattern that is too large, while a set returns an
/// error. With `literal_separator`, only `**` matches a "/".
pub(super) fn compile<'a>(
    globs: impl IntoIterator<Item = &'a str>,
    literal_separator: bool,
) -> Result<GlobSet, String> {
    let parse = |glob| {
        GlobBuilder::new(glob)
            .literal_separator(literal_separator)
            .build()
    };
    let parsed: Result<Vec<Glob>, _> = globs.into_iter().map(parse).collect();
    parsed
        .and_then(GlobSet::new)
        .map_err(|error| error_text(&error))
}

/// Returns the message of an error in a glob. A message about a range contains its two ends unchanged, so control
/// characters are escaped.
fn error_text(error: &globset::Error) -> String {
    let shown = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    error.kind().to_string().chars().map(shown).collect()
}

/// One alternative of a glob with braces. A glob without braces has only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `*`, `?` or a class, as written in the glob.
    Wild(String),
}

/// Returns all alternatives of a glob, or `None` if there are too many.
pub(super) fn alternatives(glob: &str) -> Option<Vec<Alternative>> {
    let all = sequences(&mut glob.chars().peekable(), 0)?;
    Some(all.into_iter().map(Alternative).collect())
}

/// Parses up to the end of the glob or, within braces, up to the comma or brace that ends the alternative.
fn sequences(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Vec<Vec<Piece>>> {
    let mut all = vec![Vec::new()];
    while let Some(next) = chars.peek().copied() {
        if depth > 0 && matches!(next, ',' | '}') {
            break;
        }
        chars.next();
        let piece = match next {
            '{' if depth == MAX_DEPTH => return None,
            '{' => {
                let choices = braces(chars, depth + 1)?;
                if all.len() * choices.len() > MAX_ALTERNATIVES {
                    return None;
                }
                let with = |start: &Vec<Piece>| {
                    let start = start.clone();
                    let with = move |end: &Vec<Piece>| [start.as_slice(), end].concat();
                    choices.iter().map(with).collect::<Vec<_>>()
                };
                all = all.iter().flat_map(with).collect();
                continue;
            }
            '\\' => Piece::Literal(chars.next().unwrap_or('\\')),
            '*' | '?' => Piece::Wild(next.into()),
            '[' => Piece::Wild(class(chars)),
            literal => Piece::Literal(literal),
        };
        all.iter_mut().for_each(|one| one.push(piece.clone()));
    }
    Some(all)
}

/// Parses the alternatives within braces, after the opening one.
fn braces(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Vec<Vec<Piece>>> {
    let mut choices = Vec::new();
    loop {
        choices.extend(sequences(chars, depth)?);
        if choices.len() > MAX_ALTERNATIVES {
            return None;
        }
        if chars.next() != Some(',') {
            return Some(choices);
        }
    }
}

/// Parses a class, after its opening bracket. A closing bracket directly after the opening one is a literal character.
fn class(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::from("[");
    text.extend(chars.next_if(|next| matches!(next, '!' | '^')));
    text.extend(chars.next_if_eq(&']'));
    for next in chars {
        text.push(next);
        if next == ']' {
            break;
        }
    }
    text
}

fn is_star(piece: &Piece) -> bool {
    *piece == Piece::Wild("*".into())
}

impl Alternative {
    /// Reports whether it contains a literal character other than `.`, `-`, `_` and `~`.
    pub(super) fn has_literal(&self) -> bool {
        let counts = |piece: &Piece| match piece {
            Piece::Literal(char) => !matches!(char, '.' | '-' | '_' | '~'),
            Piece::Wild(_) => false,
        };
        self.0.iter().any(counts)
    }

    /// Returns the only name that it matches, if it has no wildcards.
    pub(super) fn whole_name(&self) -> Option<String> {
        let end = self.ending();
        (end.chars().count() == self.0.len()).then_some(end)
    }

    /// Returns the literal text at its end.
    pub(super) fn ending(&self) -> String {
        let end = self.0.iter().rev().map_while(|piece| match piece {
            Piece::Literal(char) => Some(*char),
            Piece::Wild(_) => None,
        });
        let end: Vec<char> = end.collect();
        end.into_iter().rev().collect()
    }

    /// Reports whether it ends in `*`.
    pub(super) fn has_open_end(&self) -> bool {
        self.0.last().is_some_and(is_star)
    }

    /// Returns the alternative without the `*` at its end. Returns `None` if it does not end in `*` or contains nothing
    /// else.
    pub(super) fn without_star(&self) -> Option<Alternative> {
        let stars = self.0.iter().rev().take_while(|piece| is_star(piece));
        let kept = self.0.len() - stars.count();
        let kept = self.0.get(..kept).filter(|kept| kept.len() < self.0.len());
        kept.filter(|kept| !kept.is_empty())
            .map(|kept| Alternative(kept.to_vec()))
    }

    /// Returns the alternative as the text of a glob.
    pub(super) fn glob_text(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Literal(char) if r"*?[]{},\!".contains(*char) => format!("\\{char}"),
            Piece::Literal(char) => char.to_string(),
            Piece::Wild(text) => text.clone(),
        };
        self.0.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(glob: &str) -> Vec<String> {
        let all = alternatives(glob).expect("not too many");
        all.iter().map(Alternative::glob_text).collect()
    }

    #[test]
    fn braces_are_split_into_alternatives() {
        for (glob, want) in [
            ("a*b", &["a*b"][..]),
            ("*.{tmp,part}", &["*.tmp", "*.part"]),
            ("{a,b{c,d}}e", &["ae", "bce", "bde"]),
            ("{a,}x", &["ax", "x"]),
            ("[{]{a,b}", &["[{]a", "[{]b"]),
            ("[]{]x", &["[]{]x"]),
            ("[!]]x", &["[!]]x"]),
            (r"\{a,b\}", &[r"\{a\,b\}"]),
            ("a,b", &[r"a\,b"]),
            ("", &[""]),
        ] {
            assert_eq!(texts(glob), want, "{glob}");
        }
        let many = "{a,b}".repeat(10);
        assert_eq!(alternatives(&many), None, "1,024 alternatives");
        assert_eq!(alternatives(&"{".repeat(100_000)), None);
        let list = format!("{{{}}}", vec!["a"; 1_001].join(","));
        assert_eq!(alternatives(&list), None);
    }

    #[test]
    fn the_literal_text_of_a_glob_is_found() {
        // Glob, whether it has a literal character that counts, whole name, ending, text without its star.
        for (glob, literal, whole, ending, starless) in [
            ("*", false, None, "", None),
            ("**", false, None, "", None),
            ("*.*", false, None, "", Some("*.")),
            ("?-_~.", false, None, "-_~.", None),
            ("[ab]*", false, None, "", Some("[ab]")),
            ("*.tmp", true, None, ".tmp", None),
            ("a.tmp", true, Some("a.tmp"), "a.tmp", None),
            ("a*", true, None, "", Some("a")),
            ("a*b**", true, None, "", Some("a*b")),
            (r"a\*", true, Some("a*"), "a*", None),
            (r"\*", true, Some("*"), "*", None),
            (".~", false, Some(".~"), ".~", None),
        ] {
            let all = alternatives(glob).expect("one");
            let [one] = all.as_slice() else {
                panic!("{glob}: {all:?}");
            };
            assert_eq!(one.has_literal(), literal, "{glob}");
            assert_eq!(one.whole_name().as_deref(), whole, "{glob}");
            assert_eq!(one.ending(), ending, "{glob}");
            let without = one.without_star().map(|one| one.glob_text());
            assert_eq!(without.as_deref(), starless, "{glob}");
        }
    }
}
