//! The parts of a glob: its alternatives, without braces, and the literal text in them.
//!
//! The syntax is `globset`'s, which has already accepted the glob.

use std::iter::Peekable;
use std::str::Chars;

/// More alternatives than this are refused: each is a glob of its own.
const MOST: usize = 1_000;
/// Braces within braces.
const DEEPEST: usize = 16;

/// One of the globs that a glob with braces stands for. Without braces there is only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `*`, `?` or a class, as it is written.
    Wild(String),
}

/// Returns all alternatives of a glob, or `None` if there are too many.
pub(super) fn alternatives(glob: &str) -> Option<Vec<Alternative>> {
    let all = sequences(&mut glob.chars().peekable(), 0)?;
    Some(all.into_iter().map(Alternative).collect())
}

/// Reads up to the end, or, within braces, up to the comma or brace that ends the alternative.
fn sequences(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Vec<Vec<Piece>>> {
    let mut all = vec![Vec::new()];
    while let Some(next) = chars.peek().copied() {
        if depth > 0 && matches!(next, ',' | '}') {
            break;
        }
        chars.next();
        let piece = match next {
            '{' if depth == DEEPEST => return None,
            '{' => {
                let choices = braces(chars, depth + 1)?;
                if all.len() * choices.len() > MOST {
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

fn braces(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Vec<Vec<Piece>>> {
    let mut choices = Vec::new();
    loop {
        choices.extend(sequences(chars, depth)?);
        if choices.len() > MOST {
            return None;
        }
        if chars.next() != Some(',') {
            return Some(choices);
        }
    }
}

/// A class, from behind its opening bracket: one that closes at once stands for itself.
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
    /// Returns true if it contains a literal character other than `.`, `-`, `_` and `~`.
    pub(super) fn has_literal(&self) -> bool {
        let counts = |piece: &Piece| match piece {
            Piece::Literal(char) => !matches!(char, '.' | '-' | '_' | '~'),
            Piece::Wild(_) => false,
        };
        self.0.iter().any(counts)
    }

    /// Returns the only name that it fits, if there is only one.
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

    /// Returns true if it ends in `*`.
    pub(super) fn has_open_end(&self) -> bool {
        self.0.last().is_some_and(is_star)
    }

    /// Returns the alternative without the `*` at its end, if it ends in one and is not only that.
    pub(super) fn without_star(&self) -> Option<Alternative> {
        let stars = self.0.iter().rev().take_while(|piece| is_star(piece));
        let kept = self.0.len() - stars.count();
        let kept = self.0.get(..kept).filter(|kept| kept.len() < self.0.len());
        kept.filter(|kept| !kept.is_empty())
            .map(|kept| Alternative(kept.to_vec()))
    }

    /// Returns it as a glob.
    pub(super) fn text(&self) -> String {
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
        all.iter().map(Alternative::text).collect()
    }

    #[test]
    fn braces_stand_for_several_globs() {
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
        assert_eq!(alternatives(&many), None, "1,024");
        assert_eq!(alternatives(&"{".repeat(100_000)), None);
        let list = format!("{{{}}}", vec!["a"; 1_001].join(","));
        assert_eq!(alternatives(&list), None);
    }

    #[test]
    fn the_literal_text_of_a_glob() {
        // Name, whether a literal character counts, the whole name, the ending, without its star.
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
            let without = one.without_star().map(|one| one.text());
            assert_eq!(without.as_deref(), starless, "{glob}");
        }
    }
}
