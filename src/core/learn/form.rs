//! The form of a shape: which bytes of a name are literal, and which ones are random characters of a class.

use std::ops::Range;

use crate::core::random::is_like_date;

/// The smallest number of characters of a random part. Shorter ones are versions, copies `1` and `2`, or small
/// counters.
pub const MIN_RANDOM: usize = 6;

/// The names of a shape: all have the same length, the same literal bytes, and between these random characters of a
/// class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// One name of this form.
    example: Vec<u8>,
    /// The parts of the name that are not literal, in their order. Each lies within one word.
    parts: Vec<Part>,
}

/// A part of the names that is not literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its position in the names.
    pub at: Range<usize>,
    /// The characters that may occur in it.
    pub class: Class,
}

/// A set of letters and digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class(u8);

const DIGIT: u8 = 1;
const LOWER_HEX: u8 = 2;
const LOWER: u8 = 4;
const UPPER_HEX: u8 = 8;
const UPPER: u8 = 16;

impl Class {
    /// Returns the smallest class with all these characters.
    fn of(bytes: &[u8]) -> Class {
        let flag = |byte: &u8| match byte {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => LOWER_HEX,
            b'g'..=b'z' => LOWER,
            b'A'..=b'F' => UPPER_HEX,
            b'G'..=b'Z' => UPPER,
            _ => 0,
        };
        Class(bytes.iter().map(flag).fold(0, |all, one| all | one))
    }

    /// Returns the class from its number, which [`Class::number`] returns. `None` if it is not one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Class> {
        (1..32).contains(&number).then_some(Class(number))
    }

    /// Returns the class as a number, for storage.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    fn with(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    fn has(self, flags: u8) -> bool {
        self.0 & flags != 0
    }

    fn includes(self, byte: u8) -> bool {
        match byte {
            b'0'..=b'9' => self.has(DIGIT),
            b'a'..=b'f' => self.has(LOWER_HEX | LOWER),
            b'g'..=b'z' => self.has(LOWER),
            b'A'..=b'F' => self.has(UPPER_HEX | UPPER),
            b'G'..=b'Z' => self.has(UPPER),
            _ => false,
        }
    }

    /// Reports whether no ordinary word consists of these characters: they are digits, or of two kinds.
    fn excludes_words(self) -> bool {
        self.has(DIGIT) || (self.has(LOWER_HEX | LOWER) && self.has(UPPER_HEX | UPPER))
    }

    /// Reports whether `value`, which has only characters of the class, looks neither like a word nor like a number: it
    /// has digits and letters, or letters of both cases. In a class of digits every value does.
    fn is_mixed(self, value: &[u8]) -> bool {
        let has = |is_kind: fn(&u8) -> bool| usize::from(value.iter().any(is_kind));
        // A word may begin with a capital.
        let capitals = usize::from(value.iter().skip(1).any(u8::is_ascii_uppercase));
        let kinds = has(u8::is_ascii_digit) + has(u8::is_ascii_lowercase) + capitals;
        self.0 == DIGIT || kinds >= 2
    }

    fn write(self, out: &mut Vec<u8>) {
        let kinds: [(u8, &[u8]); 3] = [
            (DIGIT, b"0-9"),
            (
                LOWER_HEX | LOWER,
                if self.has(LOWER) { b"a-z" } else { b"a-f" },
            ),
            (
                UPPER_HEX | UPPER,
                if self.has(UPPER) { b"A-Z" } else { b"A-F" },
            ),
        ];
        out.push(b'[');
        for (_, range) in kinds.iter().filter(|(flags, _)| self.has(*flags)) {
            out.extend_from_slice(range);
        }
        out.push(b']');
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Returns the words of a name, which are its longest runs of ASCII letters and digits.
pub(super) fn words(name: &[u8]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (index, byte) in name.iter().enumerate() {
        match (is_word_byte(*byte), start) {
            (true, None) => start = Some(index),
            (false, Some(from)) => {
                words.push(from..index);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|from| from..name.len()));
    words
}

/// Reports whether two names have words of the same lengths between the same other bytes.
fn have_same_frame(one: &[u8], other: &[u8]) -> bool {
    let is_same = |(a, b): (&u8, &u8)| (is_word_byte(*a) && is_word_byte(*b)) || a == b;
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}

impl Form {
    /// Returns the form that includes only `name`.
    #[must_use]
    pub fn literal(name: &[u8]) -> Form {
        Form {
            example: name.to_vec(),
            parts: Vec::new(),
        }
    }

    /// Returns the form with these parts. `None` if a part is not within one word of the name, or has other characters.
    #[must_use]
    pub fn from_parts(example: Vec<u8>, parts: Vec<Part>) -> Option<Form> {
        let words = words(&example);
        let is_valid = |part: &Part| {
            let within =
                |word: &Range<usize>| word.start <= part.at.start && part.at.end <= word.end;
            let bytes = example.get(part.at.clone()).unwrap_or_default();
            !part.at.is_empty()
                && words.iter().any(within)
                && bytes.iter().all(|byte| part.class.includes(*byte))
        };
        let in_order = parts.windows(2).all(|pair| match pair {
            [one, other] => one.at.end < other.at.start,
            _ => true,
        });
        (in_order && parts.iter().all(is_valid)).then_some(Form { example, parts })
    }

    /// Returns one name of this form.
    #[must_use]
    pub fn example(&self) -> &[u8] {
        &self.example
    }

    /// Returns the parts that are not literal.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the narrowest form that includes the names of this form and `name`. `None` if they have words of
    /// different lengths or other bytes between them, or if a part that is not literal could be an ordinary word.
    #[must_use]
    pub fn widened(&self, name: &[u8]) -> Option<Form> {
        if !have_same_frame(&self.example, name) {
            return None;
        }
        let mut parts = Vec::new();
        for word in words(name) {
            let known = self
                .parts
                .iter()
                .filter(|part| word.contains(&part.at.start));
            let differs = |index: &usize| self.example.get(*index) != name.get(*index);
            let first = word.clone().find(differs).into_iter();
            let last = word
                .clone()
                .rev()
                .find(differs)
                .map(|last| last + 1)
                .into_iter();
            let start = first.chain(known.clone().map(|part| part.at.start)).min();
            let end = last.chain(known.clone().map(|part| part.at.end)).max();
            let (Some(start), Some(end)) = (start, end) else {
                continue;
            };
            let at = start..end;
            let of = |name: &[u8]| Class::of(name.get(at.clone()).unwrap_or_default());
            let seen = of(&self.example).with(of(name));
            let known: Vec<Class> = known.map(|part| part.class).collect();
            if known.is_empty() && !seen.excludes_words() {
                return None;
            }
            let class = known.into_iter().fold(seen, Class::with);
            parts.push(Part { at, class });
        }
        let mut form = Form {
            example: self.example.clone(),
            parts,
        };
        for field in form.field_ranges() {
            let of_field = form.parts.get(field.clone()).unwrap_or_default();
            let class = of_field
                .iter()
                .fold(Class::default(), |all, part| all.with(part.class));
            for part in form.parts.get_mut(field).unwrap_or_default() {
                part.class = class;
            }
        }
        Some(form)
    }

    /// Returns the ranges of `parts` that form a field: parts without a literal letter or digit between them, such as
    /// the five parts of a uuid.
    fn field_ranges(&self) -> Vec<Range<usize>> {
        let mut fields: Vec<Range<usize>> = Vec::new();
        let mut end = None;
        for (index, part) in self.parts.iter().enumerate() {
            let between = end.and_then(|end| self.example.get(end..part.at.start));
            let continues =
                between.is_some_and(|bytes| !bytes.iter().any(|byte| is_word_byte(*byte)));
            match fields.last_mut().filter(|_| continues) {
                Some(field) => field.end = index + 1,
                None => fields.push(index..index + 1),
            }
            end = Some(part.at.end);
        }
        fields
    }

    /// Returns the parts of each field.
    pub(super) fn fields(&self) -> Vec<&[Part]> {
        let fields = self.field_ranges().into_iter();
        fields.filter_map(|field| self.parts.get(field)).collect()
    }

    /// Reports whether the form includes `name`. In each field a name must have all kinds of characters, and must not
    /// be a date: ordinary words and dates have the same length by chance.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if !have_same_frame(&self.example, name) {
            return false;
        }
        let is_literal = |index: &usize| !self.parts.iter().any(|part| part.at.contains(index));
        let mut literals = (0..name.len()).filter(is_literal);
        if !literals.all(|index| self.example.get(index) == name.get(index)) {
            return false;
        }
        let fits = |field: &&[Part]| {
            let class = field.first().map_or(Class::default(), |part| part.class);
            let value = value(field, name);
            value.iter().all(|byte| class.includes(*byte))
                && class.is_mixed(&value)
                && !is_date(&value)
        };
        self.fields().iter().all(fits)
    }

    /// Reports whether `name`, in each field, looks neither like a word nor like a number.
    pub(super) fn is_mixed(&self, name: &[u8]) -> bool {
        let is_mixed = |field: &&[Part]| {
            let class = field.first().map_or(Class::default(), |part| part.class);
            class.is_mixed(&value(field, name))
        };
        self.fields().iter().all(is_mixed)
    }

    /// Reports whether the literal bytes contain the name of `target`, without a letter or digit directly before or
    /// after it.
    #[must_use]
    pub fn contains_target(&self, target: &[u8]) -> bool {
        let is_literal = |at: Range<usize>| {
            let mut parts = self.parts.iter();
            !parts.any(|part| part.at.start < at.end && at.start < part.at.end)
        };
        let is_border = |index: Option<usize>| {
            let byte = index.and_then(|index| self.example.get(index));
            !byte.is_some_and(|byte| is_word_byte(*byte))
        };
        let mut starts = 0..(self.example.len() + 1).saturating_sub(target.len());
        !target.is_empty()
            && starts.any(|start| {
                let at = start..start + target.len();
                self.example.get(at.clone()) == Some(target)
                    && is_border(start.checked_sub(1))
                    && is_border(Some(at.end))
                    && is_literal(at)
            })
    }

    /// Returns the literal text at the end. It may be empty.
    pub(super) fn suffix(&self) -> &[u8] {
        let end = self.parts.last().map_or(0, |part| part.at.end);
        self.example.get(end..).unwrap_or_default()
    }

    /// Returns the form as text: `data.json.<[0-9]:9>`.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let of_part = |part: &Part, out: &mut Vec<u8>| {
            out.push(b'<');
            part.class.write(out);
            out.extend_from_slice(format!(":{}>", part.at.len()).as_bytes());
        };
        self.write(of_part, |literal, out| out.extend_from_slice(literal))
    }

    /// Returns a pattern for `--name` that matches all names of the form: `data.json.[0-9][0-9]…`.
    #[must_use]
    pub fn glob(&self) -> Vec<u8> {
        let of_part =
            |part: &Part, out: &mut Vec<u8>| part.at.clone().for_each(|_| part.class.write(out));
        let escaped = |literal: &[u8], out: &mut Vec<u8>| {
            for byte in literal {
                if b"*?[]{}\\!".contains(byte) {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
        };
        self.write(of_part, escaped)
    }

    fn write(
        &self,
        part_text: impl Fn(&Part, &mut Vec<u8>),
        literal_text: impl Fn(&[u8], &mut Vec<u8>),
    ) -> Vec<u8> {
        let (mut out, mut end) = (Vec::new(), 0);
        for part in &self.parts {
            let literal = self.example.get(end..part.at.start);
            literal_text(literal.unwrap_or_default(), &mut out);
            part_text(part, &mut out);
            end = part.at.end;
        }
        literal_text(self.example.get(end..).unwrap_or_default(), &mut out);
        out
    }
}

/// Returns the words of `name` that are digits alone, without those of the first occurrence of `target`.
pub(super) fn digit_words<'n>(name: &'n [u8], target: &[u8]) -> Vec<&'n [u8]> {
    let starts = name.windows(target.len().max(1));
    let target = starts
        .into_iter()
        .position(|bytes| bytes == target)
        .map(|start| start..start + target.len());
    let is_outside = |word: &Range<usize>| {
        let is_in = |target: &Range<usize>| target.start <= word.start && word.end <= target.end;
        !target.as_ref().is_some_and(is_in)
    };
    let words = words(name).into_iter().filter(is_outside);
    let bytes = words.filter_map(|word| name.get(word));
    bytes
        .filter(|word| word.iter().all(u8::is_ascii_digit))
        .collect()
}

/// Returns the characters of a field in `name`, without the bytes between its parts.
pub(super) fn value(field: &[Part], name: &[u8]) -> Vec<u8> {
    let parts = field.iter().filter_map(|part| name.get(part.at.clone()));
    parts.flatten().copied().collect()
}

/// Reports whether digits are a date, alone or with a time, or begin like a number with leading zeros.
pub(super) fn is_date(value: &[u8]) -> bool {
    let digits: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'T' | b'Z'))
        .collect();
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let day = match digits.len() {
        // With hours and minutes, and with seconds or more.
        12..=17 => digits.get(..8),
        _ => Some(&*digits),
    };
    is_number && day.is_some_and(|day| matches!(day.len(), 6 | 8) && is_like_date(day))
}
