//! Recognizes names that look like temps although a rule does not match them.
//!
//! A scan asks for each name of a tree, so a name is compared with a pattern only if the bytes at its end allow a match.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::catalog;
use super::grammar::Grammar;
use super::names::Names;
use super::pattern::Pattern;
use super::token::{Token, split_digits};
use crate::core::census::Likeness;
use crate::core::own_names::is_own;
use crate::core::reserved;

/// The names that look like temps although a rule does not match them.
#[derive(Debug)]
pub struct Lookalikes<'a> {
    names: &'a Names,
    /// The literal texts at the end of names that the rule matches.
    endings: Vec<&'a str>,
    rows: OffRows,
}

impl<'a> Lookalikes<'a> {
    /// Prepares the search for names that a rule with these `names` does not match.
    #[must_use]
    pub fn new(names: &'a Names) -> Lookalikes<'a> {
        Lookalikes {
            names,
            endings: names.endings().filter(|end| has_letter(end)).collect(),
            rows: OffRows::new(names),
        }
    }

    /// Returns the reason why `name` looks like a temp, if it does. The rule must not match `name`.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Likeness> {
        let found = self.in_other_case(name).or_else(|| self.rows.find(name))?;
        let is_free = !is_own(OsStr::from_bytes(name)) && reserved::rows(name).next().is_none();
        is_free.then_some(found)
    }

    /// Returns the glob of a name that differs only in letter case from one that the rule takes.
    fn in_other_case(&self, name: &[u8]) -> Option<Likeness> {
        self.endings.iter().find_map(|ending| {
            // Nearly all names have another last byte.
            if !name.last()?.eq_ignore_ascii_case(ending.as_bytes().last()?) {
                return None;
            }
            let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
            if stem.is_empty() || !end.eq_ignore_ascii_case(ending.as_bytes()) {
                return None;
            }
            let taken = [stem, ending.as_bytes()].concat();
            let is_taken = self.names.matches(&taken) && self.names.reserved(&taken).is_none();
            let end = std::str::from_utf8(end).ok().filter(|_| is_taken)?;
            Some(Likeness::Case(format!("*{end}")))
        })
    }
}

fn has_letter(ending: &str) -> bool {
    ending.contains(|c: char| c.is_ascii_alphabetic())
}

/// The rows of the catalog that a rule does not turn on, by the bytes at the end of their names.
#[derive(Debug)]
struct OffRows {
    /// The indices of the patterns that end in literal text, by its last byte.
    by_last: Vec<Vec<usize>>,
    /// The patterns of which the part after the last literal byte has a fixed length.
    by_length: Vec<FixedEnds>,
    /// For each byte, the indices in `by_length` of the patterns of which it is the last literal byte, as a set.
    lengths_of_byte: Box<[u64; 256]>,
    /// For each byte, the indices in `by_length` of the patterns that may end with it, as a set.
    lengths_of_end: Box<[u64; 256]>,
    /// The patterns that end in a number after a literal byte.
    by_number: Vec<(u8, Vec<usize>)>,
    /// The patterns that tell nothing of this kind, by the bytes with which they may end.
    others: Vec<Vec<usize>>,
    grammars: Vec<(&'static str, Grammar)>,
}

/// The patterns of which the part after the last literal byte has one length.
#[derive(Debug)]
struct FixedEnds {
    length: usize,
    /// The last literal bytes, with the indices of the patterns.
    patterns: Vec<(u8, Vec<usize>)>,
}

/// The last literal byte of a pattern, and the part after it.
enum End {
    /// A part of this length.
    Fixed(usize, u8),
    /// A number of any length.
    Number(u8),
    Other,
}

impl OffRows {
    fn new(names: &Names) -> OffRows {
        let mut rows = OffRows {
            by_last: vec![Vec::new(); 256],
            by_length: Vec::new(),
            lengths_of_byte: Box::new([0; 256]),
            lengths_of_end: Box::new([0; 256]),
            by_number: Vec::new(),
            others: vec![Vec::new(); 256],
            grammars: Vec::new(),
        };
        let is_on = |name: &str| names.active_writers().any(|row| row.row().name == name);
        let off = catalog::rows().iter();
        for writer in off.filter(|writer| !is_on(&writer.row().name)) {
            for grammar in &writer.grammars {
                let index = rows.grammars.len();
                rows.add(grammar, index);
                let name = writer.row().name.as_str();
                rows.grammars.push((name, grammar.clone()));
            }
        }
        rows
    }

    fn add(&mut self, grammar: &Grammar, index: usize) {
        match end_of(&grammar.pattern) {
            End::Fixed(0, byte) => {
                if let Some(indices) = self.by_last.get_mut(usize::from(byte)) {
                    indices.push(index);
                }
            }
            End::Fixed(length, byte) => {
                let known = self.by_length.iter().position(|ends| ends.length == length);
                let at = known.unwrap_or_else(|| {
                    self.by_length.push(FixedEnds {
                        length,
                        patterns: Vec::new(),
                    });
                    self.by_length.len() - 1
                });
                if let Some(ends) = self.by_length.get_mut(at) {
                    add(&mut ends.patterns, byte, index);
                }
                if let Some(lengths) = self.lengths_of_byte.get_mut(usize::from(byte)) {
                    *lengths |= 1 << at;
                }
                for (last, lengths) in (0..=u8::MAX).zip(self.lengths_of_end.iter_mut()) {
                    *lengths |= u64::from(grammar.may_end_with(last)) << at;
                }
            }
            End::Number(byte) => add(&mut self.by_number, byte, index),
            End::Other => {
                for (last, others) in (0..=u8::MAX).zip(&mut self.others) {
                    if grammar.may_end_with(last) {
                        others.push(index);
                    }
                }
            }
        }
    }

    fn find(&self, name: &[u8]) -> Option<Likeness> {
        let last = name.last().copied()?;
        let of_last = self.by_last.get(usize::from(last));
        if let Some(found) = of_last.and_then(|indices| self.first_like(indices, name)) {
            return Some(found);
        }
        let mut lengths = self.lengths_of_end.get(usize::from(last)).copied()?;
        while lengths != 0 {
            let index = lengths.trailing_zeros();
            lengths &= lengths - 1;
            let ends = self.by_length.get(index as usize)?;
            // Most names end here for each length.
            if let Some(byte) = name.get(name.len().wrapping_sub(ends.length + 1))
                && let Some(lengths) = self.lengths_of_byte.get(usize::from(*byte))
                && lengths & (1 << index) != 0
                && let Some(found) = self.of_byte(&ends.patterns, *byte, name)
            {
                return Some(found);
            }
        }
        if last.is_ascii_digit()
            && let Some((before, _)) = split_digits(name)
            && let Some(byte) = before.last()
            && let Some(found) = self.of_byte(&self.by_number, *byte, name)
        {
            return Some(found);
        }
        self.first_like(self.others.get(usize::from(last))?, name)
    }

    fn of_byte(&self, patterns: &[(u8, Vec<usize>)], byte: u8, name: &[u8]) -> Option<Likeness> {
        let (_, indices) = patterns.iter().find(|(last, _)| *last == byte)?;
        self.first_like(indices, name)
    }

    /// Returns the writer of the first of these patterns that matches `name`.
    fn first_like(&self, indices: &[usize], name: &[u8]) -> Option<Likeness> {
        indices.iter().find_map(|index| {
            let (writer, grammar) = self.grammars.get(*index)?;
            is_like(grammar, name).then_some(Likeness::Writer(writer))
        })
    }
}

fn add(patterns: &mut Vec<(u8, Vec<usize>)>, byte: u8, index: usize) {
    match patterns.iter_mut().find(|(last, _)| *last == byte) {
        Some((_, indices)) => indices.push(index),
        None => patterns.push((byte, vec![index])),
    }
}

/// Reports whether the pattern matches `name`, and no random part may be a word.
fn is_like(grammar: &Grammar, name: &[u8]) -> bool {
    grammar.split(name).is_some_and(|parts| parts.is_random)
}

fn end_of(pattern: &Pattern) -> End {
    let mut length = 0;
    let mut tokens = pattern.tokens.iter().rev();
    let last_of = |text: &str| text.bytes().last();
    while let Some(token) = tokens.next() {
        match token {
            Token::Literal(text) => {
                return last_of(text).map_or(End::Other, |byte| End::Fixed(length, byte));
            }
            Token::Uuid => length += 36,
            Token::Hex(count) | Token::Digits(count) | Token::Alnum(count) => length += count,
            Token::Class(class) => length += class.len,
            Token::Pid | Token::Number if length == 0 => {
                let before = match tokens.next() {
                    Some(Token::Literal(text)) => last_of(text),
                    Some(_) => None,
                    None => last_of(&pattern.prefix),
                };
                return before.map_or(End::Other, End::Number);
            }
            Token::Target | Token::Pid | Token::Number => return End::Other,
        }
    }
    last_of(&pattern.prefix).map_or(End::Other, |byte| End::Fixed(length, byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::temp_name::catalog_tests::names_of_rows;

    fn names(globs: &[&str], writers: &[&str]) -> Names {
        Names::new(globs, writers).unwrap()
    }

    #[test]
    fn the_ends_of_names_exclude_no_pattern() {
        let none = names(&["*.nothing"], &[]);
        let lookalikes = Lookalikes::new(&none);
        let mut found = 0;
        for (writer, name) in names_of_rows() {
            let fits = |(_, grammar): &(&str, Grammar)| is_like(grammar, name.as_bytes());
            let expected = lookalikes.rows.grammars.iter().any(fits);
            let is_found = lookalikes.rows.find(name.as_bytes()).is_some();
            assert_eq!(is_found, expected, "{writer}: {name}");
            found += usize::from(is_found);
        }
        assert!(found > 50, "{found}");
    }

    #[test]
    fn names_of_rows_that_are_off_and_of_another_case_are_found() {
        let case = |glob: &str| Some(Likeness::Case(glob.to_owned()));
        let writer = |name| Some(Likeness::Writer(name));
        for (names, name, likeness) in [
            (Names::default(), "a.TMP", case("*.TMP")),
            (Names::default(), "a.Tmp", case("*.Tmp")),
            // The rule does not take these in small letters either.
            (Names::default(), "0.TMP", None),
            (Names::default(), ".TMP", None),
            (Names::default(), "a.txt", None),
            (Names::default(), ".orphand-x.TMP", None),
            (names(&["*.Part", "x*.cache"], &[]), "a.part", None),
            (names(&["x*.cache"], &[]), "xa.CACHE", case("*.CACHE")),
            (names(&["x*.cache"], &[]), "a.CACHE", None),
            (names(&["123*"], &[]), "123", None),
            (
                Names::default(),
                ".a.iso.aB3xYz",
                writer("atomic-write-file"),
            ),
            (names(&["*.part"], &[]), "tmp_obj_aB3xYz", writer("git")),
            // The digits may be a version, and the part a word.
            (Names::default(), ".a.sha256", None),
            (Names::default(), "a.lock", None),
        ] {
            assert_eq!(
                Lookalikes::new(&names).find(name.as_bytes()),
                likeness,
                "{name}"
            );
        }
    }
}
