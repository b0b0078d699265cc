//! Reads parsed TOML by serde. Each error has the position of the wrong value, and names the key and valid values,
//! which the errors of the `toml` crate do not.

use std::borrow::Cow;
use std::fmt;

use orphand::core::sort::sort_by;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggestion::choice_hint;

/// Reads a table of the file. Keys that `T` does not have are ignored.
pub(super) fn read<'t, T: Deserialize<'t>>(table: &'t DeTable<'t>) -> Result<T, SpannedError> {
    let of_entries = |entries: &[Entry<'t>]| {
        let entries = entries.iter().map(|entry| (entry.key, *entry));
        T::deserialize(MapDeserializer::new(entries))
    };
    let entries = entries(table);
    // Each entry is first read alone, so that an error can be attributed to it.
    for entry in &entries {
        of_entries(&[*entry]).map_err(|error| error.about(entry))?;
    }
    of_entries(&entries)
}

/// A key and its value.
#[derive(Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    /// The byte offset of the key in the text.
    pub(super) at: usize,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

/// Returns the entries of a table in the order of the file, so that the first error is reported.
pub(super) fn entries<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let entry = |(key, value): (&'t Spanned<Cow<'t, str>>, _)| Entry {
        key: key.get_ref(),
        at: key.span().start,
        value,
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    sort_by(&mut entries, |one, other| one.at.cmp(&other.at));
    entries
}

/// Returns the byte offset of the value of `key`.
pub(super) fn offset_of(table: &DeTable<'_>, key: &str) -> usize {
    table.get(key).map_or(0, |value| value.span().start)
}

/// Returns an error at the value of `key`.
pub(super) fn error_at(table: &DeTable<'_>, key: &str, what: impl fmt::Display) -> SpannedError {
    SpannedError::new(offset_of(table, key), what)
}

/// An error and its byte offset in the text.
#[derive(Debug)]
pub(super) struct SpannedError {
    at: Option<usize>,
    what: What,
}

#[derive(Debug)]
enum What {
    Message(String),
    /// The type that the value should have.
    Type(String),
    /// The values that the key may have.
    Value(String),
}

impl SpannedError {
    pub(super) fn new(at: usize, message: impl fmt::Display) -> SpannedError {
        let at = Some(at);
        let what = What::Message(message.to_string());
        SpannedError { at, what }
    }

    /// Returns the byte offset of the error.
    pub(super) fn at(&self) -> usize {
        self.at.unwrap_or(0)
    }

    /// Returns the error with the key and the position of the wrong value.
    fn about(self, entry: &Entry<'_>) -> SpannedError {
        let Entry { key, value, .. } = entry;
        let message = match self.what {
            What::Message(message) => message,
            What::Type(wanted) => {
                let found = with_article(value.get_ref().type_str());
                format!("{key} must be {wanted}, not {found}")
            }
            What::Value(wanted) => format!("{key} must be {wanted}"),
        };
        SpannedError::new(self.at.unwrap_or(value.span().start), message)
    }
}

impl fmt::Display for SpannedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Message(text) | What::Type(text) | What::Value(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for SpannedError {}

impl Error for SpannedError {
    fn custom<T: fmt::Display>(message: T) -> SpannedError {
        let what = What::Message(message.to_string());
        SpannedError { at: None, what }
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> SpannedError {
        let what = What::Type(wanted.to_string());
        SpannedError { at: None, what }
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> SpannedError {
        let what = What::Value(wanted.to_string());
        SpannedError { at: None, what }
    }
}

impl<'de> IntoDeserializer<'de, SpannedError> for Entry<'de> {
    type Deserializer = Entry<'de>;

    fn into_deserializer(self) -> Entry<'de> {
        self
    }
}

/// Reads the value of the entry.
impl<'de> Deserializer<'de> for Entry<'de> {
    type Error = SpannedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            value => match integer(value) {
                Some(number) => visitor.visit_i64(number),
                // No setting has any other value here, so it only has to be different from the values above.
                None => visitor.visit_f64(f64::NAN),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        let flag = self.value.get_ref().as_bool();
        let wrong = || Error::invalid_type(Unexpected::Unit, &"true or false");
        visitor.visit_bool(flag.ok_or_else(wrong)?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        let of_strings = "a list of strings";
        let string = |value: &'de Spanned<DeValue<'de>>| {
            let wrong = || SpannedError::invalid_type(Unexpected::Unit, &of_strings);
            let text = value.get_ref().as_str();
            text.ok_or_else(|| wrong().about(&Entry { value, ..self }))
        };
        match self.value.get_ref() {
            DeValue::Array(list) => {
                let strings: Vec<&str> = list.iter().map(string).collect::<Result<_, _>>()?;
                visitor.visit_seq(SeqDeserializer::new(strings.into_iter()))
            }
            DeValue::String(one) => {
                let wanted = format!("a list; did you mean [{one:?}]?");
                Err(Error::invalid_value(Unexpected::Unit, &wanted.as_str()))
            }
            _ => Err(Error::invalid_type(Unexpected::Unit, &of_strings)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SpannedError> {
        let (key, value) = (self.key, self.value.get_ref());
        let given = value.as_str();
        if let Some(word) = given.filter(|word| words.contains(word)) {
            return visitor.visit_enum(word.into_deserializer());
        }
        let choices = words.iter().map(|word| format!("{word:?}")).collect();
        let meant = choice_hint(given.unwrap_or_default(), choices);
        let given = given.map(|word| format!("{word:?}"));
        let given = given.unwrap_or_else(|| with_article(value.type_str()));
        Err(Error::custom(format!("{key} cannot be {given}; {meant}")))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map struct identifier ignored_any
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Returns the name of a type with its article.
fn with_article(type_name: &str) -> String {
    match type_name.starts_with(['a', 'i']) {
        true => format!("an {type_name}"),
        false => format!("a {type_name}"),
    }
}
