//! Parses globs, compiles them, and finds the literal text in them.
//!
//! `*`, `?`, classes like `[a-z]` and `[!a]`, alternatives like `{a,b}`, and a backslash before a literal character.
//! `fast-glob` compares names with single alternatives. Its own syntax for braces, and for a backslash before a letter,
//! is not used.

use std::iter::Peekable;
use std::str::Chars;

/// The largest number of alternatives. Each of them becomes a glob of its own, so a glob with more is refused.
const MAX_ALTERNATIVES: usize = 1_000;
/// The largest depth of braces within braces.
const MAX_DEPTH: usize = 16;
/// The characters that are special outside a class.
const SPECIAL: &str = r"*?[{}\";

/// The error in a glob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GlobError {
    #[error("too many alternatives; at most 1,000 are possible")]
    TooManyAlternatives,
    #[error("unclosed alternatives; missing '}}'")]
    UnclosedBrace,
    #[error("unopened alternatives; missing '{{'")]
    UnopenedBrace,
    #[error("unclosed character class; missing ']'")]
    UnclosedClass,
    #[error("invalid range; {0:?} > {1:?}")]
    WrongRange(char, char),
    /// A class matches one byte.
    #[error("{0:?} is in a character class, which may contain only ASCII characters")]
    NotAscii(char),
    #[error("nothing follows the last backslash")]
    NothingEscaped,
}

/// A compiled glob. The default matches nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Glob {
    /// The alternatives in the syntax of `fast-glob`, without braces.
    alternatives: Vec<String>,
}

impl Glob {
    pub(super) fn new(glob: &str) -> Result<Glob, GlobError> {
        Ok(alternatives(glob)?.iter().collect())
    }

    /// Reports whether it matches a name or a path. Only `**` matches a "/". `?` and a class match one byte.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let mut alternatives = self.alternatives.iter();
        alternatives.any(|glob| fast_glob::glob_match(glob, name))
    }
}

impl<A: std::borrow::Borrow<Alternative>> FromIterator<A> for Glob {
    fn from_iter<I: IntoIterator<Item = A>>(alternatives: I) -> Glob {
        let texts = alternatives.into_iter().map(|one| one.borrow().glob_text());
        Glob {
            alternatives: texts.collect(),
        }
    }
}

/// Returns the glob that matches only this text.
pub fn escape(text: &str) -> String {
    text.chars().flat_map(escaped).collect()
}

fn escaped(char: char) -> impl Iterator<Item = char> {
    let backslash = SPECIAL.contains(char).then_some('\\');
    backslash.into_iter().chain([char])
}

/// One alternative of a glob with braces. A glob without braces has only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `*`, `?` or a class, in the syntax of `fast-glob`.
    Wild(String),
}

/// Returns all alternatives of a glob.
pub(super) fn alternatives(glob: &str) -> Result<Vec<Alternative>, GlobError> {
    let chars = &mut glob.chars().peekable();
    let all = sequences(chars, 0)?;
    match chars.next() {
        Some(_) => Err(GlobError::UnopenedBrace),
        None => Ok(all.into_iter().map(Alternative).collect()),
    }
}

/// Parses up to the end of the glob or up to a brace that closes. Within braces, a comma ends the alternative too.
fn sequences(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Piece>>, GlobError> {
    let mut all = vec![Vec::new()];
    while let Some(next) = chars.next_if(|next| *next != '}' && (*next != ',' || depth == 0)) {
        let piece = match next {
            '{' => {
                let choices = braces(chars, depth + 1)?;
                if all.len() * choices.len() > MAX_ALTERNATIVES {
                    return Err(GlobError::TooManyAlternatives);
                }
                let with = |start: &Vec<Piece>| {
                    let start = start.clone();
                    let with = move |end: &Vec<Piece>| [start.as_slice(), end].concat();
                    choices.iter().map(with).collect::<Vec<_>>()
                };
                all = all.iter().flat_map(with).collect();
                continue;
            }
            '\\' => Piece::Literal(chars.next().ok_or(GlobError::NothingEscaped)?),
            '*' | '?' => Piece::Wild(next.into()),
            '[' => Piece::Wild(class(chars)?),
            literal => Piece::Literal(literal),
        };
        all.iter_mut().for_each(|one| one.push(piece.clone()));
    }
    Ok(all)
}

/// Parses the alternatives within braces, after the opening one.
fn braces(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Piece>>, GlobError> {
    let mut choices = Vec::new();
    loop {
        if depth > MAX_DEPTH || choices.len() > MAX_ALTERNATIVES {
            return Err(GlobError::TooManyAlternatives);
        }
        choices.extend(sequences(chars, depth)?);
        match chars.next() {
            Some(',') => continue,
            Some(_) => return Ok(choices),
            None => return Err(GlobError::UnclosedBrace),
        }
    }
}

/// Parses a class, after its opening bracket. A closing bracket directly after the opening one is a literal character.
/// So is a backslash, of which `fast-glob` needs two.
fn class(chars: &mut Peekable<Chars<'_>>) -> Result<String, GlobError> {
    let mut text = String::from("[");
    text.extend(chars.next_if(|next| matches!(next, '!' | '^')));
    let mut is_first = true;
    loop {
        let low = chars.next().ok_or(GlobError::UnclosedClass)?;
        if low == ']' && !is_first {
            text.push(']');
            return Ok(text);
        }
        is_first = false;
        push_member(&mut text, low)?;
        let mut ahead = chars.clone();
        let (Some('-'), Some(high)) = (ahead.next(), ahead.next()) else {
            continue;
        };
        if high == ']' {
            continue;
        }
        if high < low {
            return Err(GlobError::WrongRange(low, high));
        }
        text.push('-');
        push_member(&mut text, high)?;
        *chars = ahead;
    }
}

fn push_member(class: &mut String, char: char) -> Result<(), GlobError> {
    if !char.is_ascii() {
        return Err(GlobError::NotAscii(char));
    }
    class.extend((char == '\\').then_some('\\'));
    class.push(char);
    Ok(())
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

    /// Returns the alternative in the syntax of `fast-glob`, where a "!" at the start negates the rest.
    fn glob_text(&self) -> String {
        let starts_with_mark = self.0.first() == Some(&Piece::Literal('!'));
        let mut text: String = starts_with_mark.then_some('\\').into_iter().collect();
        for piece in &self.0 {
            match piece {
                Piece::Literal(char) => text.extend(escaped(*char)),
                Piece::Wild(wild) => text.push_str(wild),
            }
        }
        text
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
            (r"\{a,b\}", &[r"\{a,b\}"]),
            ("a,b", &["a,b"]),
            (r"\a\n!", &["an!"]),
            ("!a", &[r"\!a"]),
            (r"[\]a", &[r"[\\]a"]),
            ("[a-c-e-]", &["[a-c-e-]"]),
            ("", &[""]),
        ] {
            assert_eq!(texts(glob), want, "{glob}");
        }
    }

    #[test]
    fn a_wrong_glob_is_refused() {
        let many = "{a,b}".repeat(10);
        let list = format!("{{{}}}", vec!["a"; 1_001].join(","));
        let deep = "{".repeat(100_000);
        for (glob, want) in [
            (many.as_str(), GlobError::TooManyAlternatives),
            (&list, GlobError::TooManyAlternatives),
            (&deep, GlobError::TooManyAlternatives),
            ("{a", GlobError::UnclosedBrace),
            ("{a,", GlobError::UnclosedBrace),
            ("a}", GlobError::UnopenedBrace),
            ("{a}}b", GlobError::UnopenedBrace),
            ("[a", GlobError::UnclosedClass),
            ("[]", GlobError::UnclosedClass),
            ("[!]", GlobError::UnclosedClass),
            ("[b-a]", GlobError::WrongRange('b', 'a')),
            ("[ä]", GlobError::NotAscii('ä')),
            ("[a-ä]", GlobError::NotAscii('ä')),
            (r"a\", GlobError::NothingEscaped),
        ] {
            assert_eq!(alternatives(glob).err(), Some(want), "{glob:.20}");
        }
    }

    #[test]
    fn a_glob_matches_bytes() {
        for (glob, matched, others) in [
            (
                "*.tmp",
                &["a.tmp", ".tmp", "ä.tmp"][..],
                &["a.tmp2", "a/b.tmp"][..],
            ),
            ("a?", &["ab", "a?"], &["a", "abc", "aä"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
            ("[!a-c]x", &["dx", "!x"], &["ax", "x"]),
            ("[]!]x", &["]x", "!x"], &["x"]),
            (r"[\]x", &[r"\x"], &["x"]),
            ("{a,b*}c", &["ac", "bc", "bxc"], &["ab", "c"]),
            ("!a", &["!a"], &["a", "b"]),
            ("!!a", &["!!a"], &["a", "!a"]),
            (r"\n\t", &["nt"], &["\n\t"]),
            ("a**b", &["ab", "axb"], &["a"]),
            ("**/b", &["b", "a/b", "a/c/b"], &["ab"]),
            ("*a*b*c", &["abc", "aabbcc", "xaxbxc"], &["acb"]),
        ] {
            let compiled = Glob::new(glob).expect("a glob");
            for name in matched {
                assert!(compiled.matches(name.as_bytes()), "{glob} {name}");
            }
            for name in others {
                assert!(!compiled.matches(name.as_bytes()), "{glob} {name}");
            }
        }
        assert!(Glob::new("a*").expect("a glob").matches(b"a\xff"));
        assert!(!Glob::default().matches(b""));
    }

    #[test]
    fn an_escaped_text_matches_itself() {
        for text in [r"a*?[b]{c,d}\!", "!x", r"\n", "plain", "[!a]"] {
            let glob = Glob::new(&escape(text)).expect("a glob");
            assert!(glob.matches(text.as_bytes()), "{text}");
        }
        assert_eq!(escape("a-b.tmp"), "a-b.tmp");
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
