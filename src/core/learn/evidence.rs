//! Evidence for *is a part of these names random?*: the names in the order in which they were created.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use super::form::{Form, MIN_RANDOM, Part, is_date, value, words};
use crate::core::time::Wall;

/// A name that was seen, with the evidence that only its file can give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    name: Vec<u8>,
    /// The words of the name that may be the time of the file's birth, one bit each.
    times: u64,
}

/// A number that differs by less than this from the birth of its file is a time.
const NEAR_BIRTH: Duration = Duration::from_secs(24 * 60 * 60);

impl Sample {
    /// Returns the sample of a file with this birth time. Without one, every number may be a time.
    #[must_use]
    pub fn new(name: &[u8], born: Option<Wall>) -> Sample {
        let is_time = |word: &Range<usize>| {
            let word = name.get(word.clone()).unwrap_or_default();
            match born {
                Some(born) => is_time_near(word, born),
                None => word.len() >= MIN_RANDOM && word.iter().all(u8::is_ascii_digit),
            }
        };
        let words = words(name);
        let bits = words.iter().enumerate().filter(|(_, word)| is_time(word));
        let bit = |index: usize| {
            u32::try_from(index).map_or(0, |index| 1_u64.checked_shl(index).unwrap_or(0))
        };
        Sample {
            name: name.to_vec(),
            times: bits
                .map(|(index, _)| bit(index))
                .fold(0, |all, bit| all | bit),
        }
    }

    /// Returns the sample of a file of which only the name counts, because other files show whether there is a time in
    /// it.
    #[must_use]
    pub fn without_times(name: &[u8]) -> Sample {
        Sample {
            name: name.to_vec(),
            times: 0,
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Reports whether the word that contains `part` may be a time.
    fn is_time(&self, part: &Part) -> bool {
        let words = words(&self.name);
        let index = words.iter().position(|word| word.contains(&part.at.start));
        // A name has fewer than 128 words. The later ones have no bit.
        index.is_none_or(|index| index >= 64 || self.times >> index & 1 == 1)
    }
}

/// Reports whether `word` is a number of seconds, milliseconds, microseconds or nanoseconds since 1970 that is near
/// `born`. The digits may be decimal, hexadecimal or of base 36.
fn is_time_near(word: &[u8], born: Wall) -> bool {
    let Some(text) = std::str::from_utf8(word)
        .ok()
        .filter(|word| word.len() >= MIN_RANDOM)
    else {
        return false;
    };
    let born = i128::from(born.sec) * 1_000_000_000 + i128::from(born.nsec);
    let near = i128::try_from(NEAR_BIRTH.as_nanos()).unwrap_or(i128::MAX);
    [10, 16, 36].into_iter().any(|radix| {
        let number = u64::from_str_radix(text, radix).ok();
        number.is_some_and(|number| {
            [1_000_000_000, 1_000_000, 1_000, 1]
                .into_iter()
                .any(|unit: i128| (i128::from(number) * unit - born).abs() <= near)
        })
    })
}

/// The number of samples from which each word of a field is examined, and not only the field as a whole.
pub(super) const ENOUGH_FOR_WORDS: usize = 8;

/// Reports whether every field of the form is random, as far as the samples show. The samples are in the order in which
/// the files were created.
pub(super) fn is_random(form: &Form, samples: &[Sample]) -> bool {
    let fields = form.fields();
    let mut names = HashSet::new();
    !fields.is_empty()
        // A name that comes again is one of a few: `a`, `b`, and `a` again. Words are never mixed.
        && samples.iter().all(|sample| names.insert(sample.name()))
        && samples.iter().filter(|sample| form.is_mixed(sample.name())).count() * 4 >= samples.len() * 3
        && fields.iter().all(|field| is_random_field(field, samples))
}

fn is_random_field(field: &[Part], samples: &[Sample]) -> bool {
    let length: usize = field.iter().map(|part| part.at.len()).sum();
    let values = |parts: &[Part]| -> Vec<Vec<u8>> {
        samples
            .iter()
            .map(|sample| value(&whole_words(parts, sample.name()), sample.name()))
            .collect()
    };
    let whole = values(field);
    length >= MIN_RANDOM
        && !samples
            .iter()
            .any(|sample| field.iter().any(|part| sample.is_time(part)))
        && !whole.iter().all(|value| is_date(value))
        && changes_in_both_directions(&whole)
        && field.chunks(1).all(|part| {
            let words = values(part);
            !words.iter().all(|word| is_date(word))
                && (samples.len() < ENOUGH_FOR_WORDS || changes_in_both_directions(&words))
        })
}

/// Returns the parts, extended to the words that contain them.
fn whole_words(parts: &[Part], name: &[u8]) -> Vec<Part> {
    let words = words(name);
    let whole = |part: &Part| {
        let word = words.iter().find(|word| word.contains(&part.at.start));
        Part {
            at: word.unwrap_or(&part.at).clone(),
            class: part.class,
        }
    };
    parts.iter().map(whole).collect()
}

/// Reports whether values rise and fall as random ones do. Of `n` random values, a half is less than the one before;
/// a counter only rises, or rises until it begins again. A value that hardly ever changes is a name or a pid.
fn changes_in_both_directions(values: &[Vec<u8>]) -> bool {
    let pairs = || values.iter().zip(values.iter().skip(1));
    let rises = pairs().filter(|(one, next)| one < next).count();
    let falls = pairs().filter(|(one, next)| one > next).count();
    let least = (values.len() / 5).max(1);
    rises.min(falls) >= least
}
