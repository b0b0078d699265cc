//! Shapes that tell the targets of temps.

use super::form::{Form, digit_words, value};
use crate::core::random::{self, Randomness, is_like_other_date, is_like_time};

/// A shape that is learned well enough to tell the target of a temp by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetShape {
    /// The names.
    pub form: Form,
    /// The base name of the target.
    pub target: Vec<u8>,
    /// The owner of temp and target.
    pub owner: u32,
}

impl TargetShape {
    /// Reports whether `name` is a temp of the target for certain.
    ///
    /// A person may choose a name that fits by chance. So the random parts must have digits among letters or letters of
    /// both cases, or be digits that are no date and no time. Digits that are a word outside of the target's name may
    /// also be a part of a longer target: they must not look like a date either.
    #[must_use]
    pub fn tells(&self, name: &[u8]) -> bool {
        let is_random = |value: &[u8]| {
            value.iter().all(u8::is_ascii_digit)
                || rule!("told-names-are-no-words", random::of(value) == Randomness::Strong, without: true)
        };
        let mut fields = self.form.fields().into_iter();
        let mut digits = digit_words(name, &self.target).into_iter();
        self.form.matches(name)
            && fields.all(|field| is_random(&value(field, name)))
            && !rule!(
                "told-digits-are-no-date",
                digits.any(|digits| is_like_time(digits) || is_like_other_date(digits))
            )
    }

    /// Reports whether the file `name`, which is not a temp, shows that the names of this shape may be temps of longer
    /// targets: with the literal end of the shape, it would be one of these names.
    #[must_use]
    pub fn is_longer_target(&self, name: &[u8]) -> bool {
        let suffix = self.form.suffix();
        !suffix.is_empty() && self.form.matches(&[name, suffix].concat())
    }
}

/// Returns the shape that tells the target of the file `name` of `owner`. `None` if no shape does, or if several shapes
/// tell different targets.
#[must_use]
pub fn telling<'s>(shapes: &'s [TargetShape], name: &[u8], owner: u32) -> Option<&'s TargetShape> {
    let is_of_owner =
        |shape: &&TargetShape| rule!("shape-has-one-owner", shape.owner == owner, without: true);
    let mut telling = shapes
        .iter()
        .filter(is_of_owner)
        .filter(|shape| shape.tells(name));
    let first = telling.next()?;
    telling
        .all(|other| other.target == first.target)
        .then_some(first)
}
