//! Reads parsed TOML by serde. Each error has the position of the wrong value, and names the key and valid values,
//! which the errors of the `toml` crate do not.

use std::borrow::Cow;
use std::{fmt, slice, vec};

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggestion::choice_hint;

/// Reads a table of the file. Keys that `T` does not have are ignored.
pub(super) fn read<'t, T: Deserialize<'t>>(table: &'t DeTable<'t>) -> Result<T, SpannedError> {
    let entries = entries(table).into_iter();
    let value = None;
    T::deserialize(MapAccessDeserializer::new(Entries { entries, value }))
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
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// An error and its byte offset in the text.
#[derive(Debug)]
pub(super) struct SpannedError {
    at: Option<usize>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The whole message.
    Message(String),
    /// The message without the name of the key at its beginning.
    OfKey(String),
    /// The type that the value should have.
    Type(String),
}

impl SpannedError {
    pub(super) fn new(at: usize, message: impl fmt::Display) -> SpannedError {
        SpannedError::custom(message).or_at(at)
    }

    fn of_key(message: String) -> SpannedError {
        let what = What::OfKey(message);
        SpannedError { at: None, what }
    }

    /// Returns the error with this position, unless it has one.
    pub(super) fn or_at(self, at: usize) -> SpannedError {
        let at = self.at.or(Some(at));
        SpannedError { at, ..self }
    }

    /// Returns the byte offset of the error.
    pub(super) fn at(&self) -> usize {
        self.at.unwrap_or(0)
    }

    /// Returns the error with the position of `value`, unless it has one.
    fn located(self, value: &Spanned<DeValue<'_>>) -> SpannedError {
        let error = self.or_at(value.span().start);
        let what = match error.what {
            What::Type(wanted) => {
                let found = with_article(value.get_ref().type_str());
                What::OfKey(format!("must be {wanted}, not {found}"))
            }
            what => what,
        };
        SpannedError { what, ..error }
    }

    /// Returns the error with the name of the key in its message.
    fn named(self, key: &str) -> SpannedError {
        let what = match self.what {
            What::OfKey(message) => What::Message(format!("{key} {message}")),
            what => what,
        };
        SpannedError { what, ..self }
    }
}

impl fmt::Display for SpannedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Message(text) | What::OfKey(text) | What::Type(text) => f.write_str(text),
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
        SpannedError::of_key(format!("must be {wanted}"))
    }
}

/// The entries of a table.
struct Entries<'de> {
    entries: vec::IntoIter<Entry<'de>>,
    /// The entry whose key was read last.
    value: Option<Entry<'de>>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = SpannedError;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, SpannedError>
    where
        K: DeserializeSeed<'de>,
    {
        self.value = self.entries.next();
        let key = self
            .value
            .map(|entry| seed.deserialize(entry.key.into_deserializer()));
        key.transpose()
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, SpannedError>
    where
        V: DeserializeSeed<'de>,
    {
        let Entry { key, value, .. } = self
            .value
            .ok_or_else(|| SpannedError::custom("no key was read before this value"))?;
        let read = seed.deserialize(Reader(value));
        read.map_err(|error| error.located(value).named(key))
    }
}

/// The values of a list.
struct List<'de>(slice::Iter<'de, Spanned<DeValue<'de>>>);

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = SpannedError;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, SpannedError>
    where
        T: DeserializeSeed<'de>,
    {
        let read = |value| {
            let read = seed.deserialize(Reader(value));
            read.map_err(|error| error.located(value))
        };
        self.0.next().map(read).transpose()
    }
}

/// A value.
struct Reader<'de>(&'de Spanned<DeValue<'de>>);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = SpannedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Array(list) => visitor.visit_seq(List(list.iter())),
            DeValue::Table(table) => {
                let entries = entries(table).into_iter();
                let value = None;
                visitor.visit_map(Entries { entries, value })
            }
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => visitor.visit_f64(f64::INFINITY),
                }
            }
            // No setting has such a value, so it only has to be different from the others.
            DeValue::Float(_) | DeValue::Datetime(_) => visitor.visit_f64(f64::NAN),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.0.get_ref() {
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            _ => Err(Error::invalid_type(Unexpected::Unit, &"true or false")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SpannedError> {
        let value = self.0.get_ref();
        match value.as_str() {
            Some(word) if words.contains(&word) => visitor.visit_enum(word.into_deserializer()),
            given => {
                let choices = words.iter().map(|word| format!("{word:?}")).collect();
                let meant = choice_hint(given.unwrap_or_default(), choices);
                let given = given.map(|word| format!("{word:?}"));
                let given = given.unwrap_or_else(|| with_article(value.type_str()));
                Err(SpannedError::of_key(format!("cannot be {given}; {meant}")))
            }
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Returns the name of a type with its article.
fn with_article(type_name: &str) -> String {
    match type_name.starts_with(['a', 'i']) {
        true => format!("an {type_name}"),
        false => format!("a {type_name}"),
    }
}
