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
    T::deserialize(MapAccessDeserializer::new(Entries::of(table)))
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
    fn about(self, key: &str, value: &Spanned<DeValue<'_>>) -> SpannedError {
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

/// The entries of a table.
struct Entries<'de> {
    entries: vec::IntoIter<Entry<'de>>,
    /// The entry whose key was read last.
    last: Option<Entry<'de>>,
}

impl<'de> Entries<'de> {
    fn of(table: &'de DeTable<'de>) -> Entries<'de> {
        let entries = entries(table).into_iter();
        let last = None;
        Entries { entries, last }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = SpannedError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, SpannedError> {
        self.last = self.entries.next();
        let key = self.last.map(|entry| entry.key.into_deserializer());
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, SpannedError> {
        let no_key = || SpannedError::custom("no key was read before this value");
        let Entry { key, value, .. } = self.last.ok_or_else(no_key)?;
        let text = "a string";
        let reader = Reader { key, value, text };
        seed.deserialize(reader)
            .map_err(|error| error.about(key, value))
    }
}

/// The values of a list.
struct List<'de> {
    key: &'de str,
    values: slice::Iter<'de, Spanned<DeValue<'de>>>,
}

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = SpannedError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, SpannedError> {
        let read = |value| {
            let (key, text) = (self.key, LIST);
            let read = seed.deserialize(Reader { key, value, text });
            read.map_err(|error| error.about(key, value))
        };
        self.values.next().map(read).transpose()
    }
}

/// The type of all lists in the file.
const LIST: &str = "a list of strings";

/// A value.
struct Reader<'de> {
    key: &'de str,
    value: &'de Spanned<DeValue<'de>>,
    /// The words of an error for a value that is not a string.
    text: &'static str,
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = SpannedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Table(table) => visitor.visit_map(Entries::of(table)),
            DeValue::Array(list) => visitor.visit_seq(List {
                key: self.key,
                values: list.iter(),
            }),
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
        match self.value.get_ref() {
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            _ => Err(Error::invalid_type(Unexpected::Unit, &"true or false")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            _ => Err(Error::invalid_type(Unexpected::Unit, &self.text)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SpannedError> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.deserialize_any(visitor),
            DeValue::String(one) => Err(SpannedError::custom(format!(
                "{} must be a list; did you mean [{one:?}]?",
                self.key
            ))),
            _ => Err(Error::invalid_type(Unexpected::Unit, &LIST)),
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
        Err(SpannedError::custom(format!(
            "{key} cannot be {given}; {meant}"
        )))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct map struct identifier ignored_any
    }
}

/// Returns the name of a type with its article.
fn with_article(type_name: &str) -> String {
    match type_name.starts_with(['a', 'i']) {
        true => format!("an {type_name}"),
        false => format!("a {type_name}"),
    }
}
