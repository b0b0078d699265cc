//! Writes the lines of the journal and of events, as the bytes that `serde_json` would write for the same fields.
//!
//! Each removed temp has three lines with some sixty fields. serde_json examines each byte of a string by itself, and
//! passes each field of a flattened struct through several calls. Here a key is one constant, and eight bytes of a string
//! are examined at a time. What is rare, such as a string that needs escapes, is left to serde_json.

use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::WirePath;

/// Fields of an object. The macro `fields!` implements it.
pub trait Fields {
    /// Appends the fields, each with its key and a comma after it.
    fn append_fields(&self, text: &mut Vec<u8>);
}

/// Appends the object with these fields to `text`.
pub fn append(text: &mut Vec<u8>, object: &impl Fields) {
    text.push(b'{');
    object.append_fields(text);
    // No value ends with a comma: a string ends with its quote.
    match text.last_mut() {
        Some(last) if *last == b',' => *last = b'}',
        _ => text.push(b'}'),
    }
}

impl<T: Fields + ?Sized> Fields for &T {
    fn append_fields(&self, text: &mut Vec<u8>) {
        (**self).append_fields(text);
    }
}

/// Fields that serde serializes.
#[derive(Debug)]
pub struct BySerde<T>(pub T);

impl<T: Serialize> Fields for BySerde<T> {
    fn append_fields(&self, text: &mut Vec<u8>) {
        let start = text.len();
        append_by_serde(text, &self.0);
        // The fields are between the braces.
        debug_assert_eq!((text.get(start), text.last()), (Some(&b'{'), Some(&b'}')));
        text.remove(start);
        text.pop();
        if text.len() > start {
            text.push(b',');
        }
    }
}

/// Implements [`Fields`] for a struct with these fields, in this order, or for an enum of structs. All of the fields must
/// be listed. After a colon is the kind of a field, if it has one:
///
/// - `path`: it is a path, with a second key for its exact bytes;
/// - `flat`: its fields are fields of this object;
/// - `serde`: serde serializes it;
/// - `if_some`: the same, but it is left out if it is `None`.
macro_rules! fields {
    (struct $type:ident $fields:tt) => {
        fields!(impl $type { $type $fields });
    };
    (enum $type:ident { $($variant:ident $fields:tt)+ }) => {
        fields!(impl $type { $($type::$variant $fields)+ });
    };
    (impl $type:ident { $($path:path { $($field:ident $(: $kind:ident)?),* $(,)? })+ }) => {
        impl $crate::store::json::Fields for $type<'_> {
            fn append_fields(&self, text: &mut Vec<u8>) {
                match self {
                    $($path { $($field),* } => { $(field!(text, $field $(: $kind)?);)* })+
                }
            }
        }
    };
}

/// Appends one field.
macro_rules! field {
    ($text:ident, $field:ident) => {
        field!($text, $field: (crate::store::json::writer::Value::append($field, $text)))
    };
    ($text:ident, $field:ident: serde) => {
        field!($text, $field: (crate::store::json::writer::append_by_serde($text, $field)))
    };
    ($text:ident, $field:ident: if_some) => {
        if $field.is_some() {
            field!($text, $field: serde);
        }
    };
    ($text:ident, $field:ident: path) => {{
        const KEYS: [&str; 2] = [
            concat!("\"", stringify!($field), "\":"),
            concat!("\"", stringify!($field), "_b64\":"),
        ];
        crate::store::json::writer::append_path($text, KEYS, $field);
    }};
    ($text:ident, $field:ident: flat) => {
        $crate::store::json::Fields::append_fields($field, $text)
    };
    ($text:ident, $field:ident: ($append:expr)) => {{
        $text.extend_from_slice(concat!("\"", stringify!($field), "\":").as_bytes());
        $append;
        $text.push(b',');
    }};
}

pub(super) use {field, fields};

/// A value of a field.
pub(super) trait Value {
    fn append(&self, text: &mut Vec<u8>);
}

impl<T: Value + ?Sized> Value for &T {
    fn append(&self, text: &mut Vec<u8>) {
        (**self).append(text);
    }
}

impl<T: Value> Value for Option<T> {
    fn append(&self, text: &mut Vec<u8>) {
        match self {
            Some(value) => value.append(text),
            None => text.extend_from_slice(b"null"),
        }
    }
}

impl Value for bool {
    fn append(&self, text: &mut Vec<u8>) {
        let word: &[u8] = if *self { b"true" } else { b"false" };
        text.extend_from_slice(word);
    }
}

macro_rules! integers {
    ($($type:ty)+) => {$(
        impl Value for $type {
            fn append(&self, text: &mut Vec<u8>) {
                let mut digits = itoa::Buffer::new();
                text.extend_from_slice(digits.format(*self).as_bytes());
            }
        }
    )+};
}

integers!(i32 u32 u64 usize);

impl Value for str {
    fn append(&self, text: &mut Vec<u8>) {
        if needs_escape(self.as_bytes()) {
            return append_by_serde(text, self);
        }
        text.reserve(self.len() + 2);
        text.push(b'"');
        text.extend_from_slice(self.as_bytes());
        text.push(b'"');
    }
}

/// Appends what serde_json writes for `value`.
pub(super) fn append_by_serde(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(text, value);
    // Writing to memory does not fail, and no type of the wire format fails to serialize.
    debug_assert!(written.is_ok());
}

/// Appends the field of a path: its text, and its exact bytes if it is not UTF-8.
pub(super) fn append_path(text: &mut Vec<u8>, [key, key_b64]: [&str; 2], path: &WirePath<'_>) {
    text.extend_from_slice(key.as_bytes());
    match path.as_deref().map(|path| (path, path.to_str())) {
        None => text.extend_from_slice(b"null"),
        Some((_, Some(whole))) => whole.append(text),
        Some((path, None)) => {
            let bytes = STANDARD.encode(path.as_os_str().as_bytes());
            (*path.to_string_lossy()).append(text);
            text.push(b',');
            text.extend_from_slice(key_b64.as_bytes());
            bytes.as_str().append(text);
        }
    }
    text.push(b',');
}

/// Reports whether a byte of a string needs an escape in JSON: a quote, a backslash, or one below a space.
fn needs_escape(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let of_words = words.iter().fold(0, |found, word| found | special(*word));
    // The last word overlaps the one before.
    let of_rest = match text.last_chunk::<8>() {
        Some(last) => special(*last),
        None => {
            let mut padded = [b' '; 8];
            let bytes = padded.iter_mut().zip(rest);
            bytes.for_each(|(to, from)| *to = *from);
            special(padded)
        }
    };
    of_words | of_rest != 0
}

/// Returns zero if no byte of the word needs an escape.
///
/// The subtraction from each byte sets its highest bit if the byte is below the number. It may also set that bit in a
/// byte after such a byte, but never without one.
fn special(word: [u8; 8]) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    let word = u64::from_le_bytes(word);
    let is_below = |word: u64, limit: u8| word.wrapping_sub(each(limit)) & !word;
    let is_equal = |byte: u8| is_below(word ^ each(byte), 1);
    (is_below(word, b' ') | is_equal(b'"') | is_equal(b'\\')) & each(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;
    use std::path::Path;

    fn written(value: &(impl Value + ?Sized)) -> String {
        let mut text = Vec::new();
        value.append(&mut text);
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn each_byte_at_each_place_is_escaped_as_by_serde_json() {
        for length in 0..20 {
            for place in 0..length {
                for special in (0..=0xff).map(char::from).chain(['\u{2028}', '\u{fffd}']) {
                    let mut text: Vec<char> = vec!['a'; length];
                    text[place] = special;
                    let text: String = text.into_iter().collect();
                    assert_eq!(
                        written(text.as_str()),
                        serde_json::to_string(&text).unwrap()
                    );
                }
            }
        }
    }

    #[test]
    fn an_object_by_serde_is_part_of_another_one() {
        for (value, expected) in [
            (serde_json::json!({}), "{}"),
            (
                serde_json::json!({"a": ",", "b": []}),
                r#"{"a":",","b":[]}"#,
            ),
        ] {
            let mut text = Vec::new();
            append(&mut text, &BySerde(value));
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_by_serde_json(
            text: String,
            signed: i32,
            unsigned: Option<u64>,
            is_true: bool,
        ) {
            prop_assert_eq!(written(text.as_str()), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(written(&signed), serde_json::to_string(&signed).unwrap());
            prop_assert_eq!(written(&unsigned), serde_json::to_string(&unsigned).unwrap());
            prop_assert_eq!(written(&is_true), serde_json::to_string(&is_true).unwrap());
        }

        #[test]
        fn any_path_is_written_as_by_serde_json(
            bytes in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            #[derive(Serialize)]
            struct File<'a> {
                #[serde(flatten, with = "super::super::field::path")]
                path: WirePath<'a>,
            }
            let path = bytes.as_deref().map(|bytes| Path::new(OsStr::from_bytes(bytes)).into());
            let mut text = b"{".to_vec();
            append_path(&mut text, ["\"path\":", "\"path_b64\":"], &path);
            text.pop();
            text.push(b'}');
            prop_assert_eq!(text, serde_json::to_vec(&File { path }).unwrap());
        }
    }
}
