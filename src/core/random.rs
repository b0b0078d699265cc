//! Decides whether a part of a name can be random, or may be a word, a date or a counter that a person chose.

/// How likely a part of a name is to be random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Randomness {
    /// It may be a word or a number.
    None,
    /// It may be a word that begins with a capital letter, or that has a number before or after it: `version2`.
    Word,
    /// It may be made of words: `newFile`, `IDs`.
    Mixed,
    /// It is no word: digits are among the letters, or letters of both cases.
    Strong,
}

/// The kinds of characters that a part or a class has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) lower: bool,
    pub(super) upper: bool,
    pub(super) digits: bool,
}

impl Kinds {
    pub(super) fn of(bytes: impl Iterator<Item = u8>) -> Kinds {
        bytes.fold(Kinds::default(), |kinds, byte| Kinds {
            lower: kinds.lower || byte.is_ascii_lowercase(),
            upper: kinds.upper || byte.is_ascii_uppercase(),
            digits: kinds.digits || byte.is_ascii_digit(),
        })
    }

    /// Reports whether there are digits and letters of both cases.
    pub(super) fn are_all(self) -> bool {
        self.lower && self.upper && self.digits
    }

    /// Reports whether a part must have letters and digits to mix them. A part of a class without digits must have
    /// letters of both cases.
    pub(super) fn mixes(self, class: Kinds) -> bool {
        match class.digits {
            true => self.digits && (self.lower || self.upper),
            false => self.lower && self.upper,
        }
    }
}

/// Reports whether `part` has digits and letters of both cases, and each of its characters is of another kind than the
/// one before. So it contains no word of two letters: `aB3xYz`, but not `V2test` or `MacM1x`.
pub(super) fn has_all_kinds_mixed(part: &[u8]) -> bool {
    let kind = |byte: u8| Kinds::of(std::iter::once(byte));
    let changes = |pair: &[u8]| match pair {
        [one, next] => kind(*one) != kind(*next),
        _ => true,
    };
    let is_mixed =
        rule!("word-with-digits-may-be-chosen", part.windows(2).all(changes), without: true);
    Kinds::of(part.iter().copied()).are_all() && is_mixed
}

/// Returns how likely `part` is to be random.
pub(super) fn of(part: &[u8]) -> Randomness {
    let is_known = |byte: &&u8| byte.is_ascii_alphanumeric();
    let part: Vec<u8> = part.iter().filter(is_known).copied().collect();
    let letters = without_outer_digits(&part);
    let upper = letters
        .iter()
        .filter(|byte| byte.is_ascii_uppercase())
        .count();
    let lower = letters
        .iter()
        .filter(|byte| byte.is_ascii_lowercase())
        .count();
    let starts_upper = letters.first().is_some_and(u8::is_ascii_uppercase);
    let ends_lower = letters.last().is_some_and(u8::is_ascii_lowercase);
    match (upper, lower) {
        _ if letters.iter().any(u8::is_ascii_digit) => Randomness::Strong,
        (0, _) | (_, 0) if letters.len() == part.len() || letters.is_empty() => Randomness::None,
        (0, _) | (_, 0) => Randomness::Word,
        (1, _) if starts_upper => Randomness::Word,
        (1, _) => Randomness::Mixed,
        (_, 1) if ends_lower => Randomness::Mixed,
        _ => Randomness::Strong,
    }
}

/// Removes the digits at both ends.
fn without_outer_digits(part: &[u8]) -> &[u8] {
    let is_letter = |byte: &u8| !byte.is_ascii_digit();
    let first = part.iter().position(is_letter);
    let last = part.iter().rposition(is_letter);
    first
        .zip(last)
        .and_then(|(first, last)| part.get(first..=last))
        .unwrap_or_default()
}

/// Returns the same for a part of a class with these kinds. Returns `None` if the part does not mix them.
pub(super) fn of_class(part: &[u8], class: Kinds) -> Option<Randomness> {
    let kinds = Kinds::of(part.iter().copied());
    let is_mixed = rule!("classes-mix-their-kinds", kinds.mixes(class), without: true);
    is_mixed.then(|| of(part))
}

/// Reports whether digits are probably a part of a name instead of a pid: a year from 1900 to 2100, alone or with a
/// month or a month and a day, a date of six digits, or digits that begin with 0.
pub(super) fn is_like_date(digits: &[u8]) -> bool {
    digits.starts_with(b"0")
        || match digits.len() {
            4 => is_year(digits),
            6 => {
                is_split(digits, 4, is_year, is_month)
                    || (is_number(digits.get(2..4), 1..=12) && is_number(digits.get(4..), 1..=31))
            }
            8 => is_day(digits),
            _ => false,
        }
}

/// Reports whether digits may be a date of any order: also one that begins with the day or the month, or the day of a
/// year.
///
/// A year of two digits at the end counts if it is one from 1970 to 2029. About one in twenty-five random numbers of six
/// digits looks like one of the other orders.
pub(super) fn is_like_any_date(digits: &[u8]) -> bool {
    let has_likely_year = || {
        let year = digits.get(4..);
        digits.len() != 6 || is_number(year, 0..=29) || is_number(year, 70..=99)
    };
    is_like_date(digits) || (is_like_day_first(digits) && has_likely_year())
}

/// Reports whether digits may be a date that begins with the day or the month, or the day of a year.
fn is_like_day_first(digits: &[u8]) -> bool {
    match digits.len() {
        6 => begins_with_day(digits),
        7 => digits.get(..4).is_some_and(is_year) && is_number(digits.get(4..), 1..=366),
        8 => begins_with_day(digits) && digits.get(4..).is_some_and(is_year),
        _ => false,
    }
}

/// Reports whether digits begin with a month and a day, in any order.
fn begins_with_day(digits: &[u8]) -> bool {
    is_month_and_day(digits, 0, 2) || is_month_and_day(digits, 2, 0)
}

/// Reports whether digits have a month and a day at these places.
fn is_month_and_day(digits: &[u8], month: usize, day: usize) -> bool {
    is_number(digits.get(month..month + 2), 1..=12) && is_number(digits.get(day..day + 2), 1..=31)
}

/// Reports whether digits may be a date, with or without a time of day, or the seconds, milliseconds, microseconds or
/// nanoseconds of a time from 2001 to 2100.
pub(super) fn is_like_time(digits: &[u8]) -> bool {
    const FIRST: u64 = 978_307_200;
    const END: u64 = 4_133_980_800;
    let epoch = |divisor: u64| {
        let number: Option<u64> = std::str::from_utf8(digits)
            .ok()
            .and_then(|d| d.parse().ok());
        number.is_some_and(|number| (FIRST..END).contains(&(number / divisor)))
    };
    let is_hour = |part| is_number(part, 0..=23);
    let is_day_time = || {
        is_day(digits.get(..8).unwrap_or_default())
            && is_hour(digits.get(8..10))
            && digits.get(10..).is_some_and(|rest| {
                let mut parts = rest.chunks(2);
                parts.all(|part| is_number(Some(part), 0..=60))
            })
    };
    is_like_date(digits)
        || (matches!(digits.len(), 10 | 12 | 14) && is_day_time())
        || match digits.len() {
            9 | 10 => epoch(1),
            12 | 13 => epoch(1_000),
            15 | 16 => epoch(1_000_000),
            18 | 19 => epoch(1_000_000_000),
            _ => false,
        }
}

/// Reports whether digits may be a date that begins with the day, the month or a year of two digits, a day of a year, or
/// a time of day.
///
/// About one in seven random numbers of six digits looks like one, and fewer of other lengths.
pub(super) fn is_like_other_date(digits: &[u8]) -> bool {
    let number = |at: std::ops::Range<usize>, within| is_number(digits.get(at), within);
    let is_clock = |at: usize| {
        let rest = digits.get(at..).unwrap_or_default();
        number(at..at + 2, 0..=23)
            && rest.len().is_multiple_of(2)
            && rest
                .chunks(2)
                .skip(1)
                .all(|part| is_number(Some(part), 0..=60))
    };
    let is_date = |month, day| is_month_and_day(digits, month, day);
    let has_year = || digits.get(4..8).is_some_and(is_year);
    is_like_day_first(digits)
        || match digits.len() {
            6 => is_clock(0),
            10 => is_date(2, 4) && is_clock(6),
            12 => {
                (is_date(2, 4) && is_clock(6))
                    || (begins_with_day(digits) && has_year() && is_clock(8))
            }
            14 => begins_with_day(digits) && has_year() && is_clock(8),
            _ => false,
        }
}

fn is_number(part: Option<&[u8]>, range: std::ops::RangeInclusive<u32>) -> bool {
    let number = part.and_then(|part| std::str::from_utf8(part).ok()?.parse().ok());
    number.is_some_and(|number: u32| range.contains(&number))
}

fn is_year(digits: &[u8]) -> bool {
    is_number(Some(digits), 1900..=2100)
}

fn is_month(digits: &[u8]) -> bool {
    is_number(Some(digits), 1..=12)
}

fn is_day(digits: &[u8]) -> bool {
    is_split(digits.get(..6).unwrap_or_default(), 4, is_year, is_month)
        && is_number(digits.get(6..), 1..=31)
}

fn is_split(digits: &[u8], at: usize, first: fn(&[u8]) -> bool, second: fn(&[u8]) -> bool) -> bool {
    let parts = digits.split_at_checked(at);
    parts.is_some_and(|(before, after)| first(before) && second(after))
}
