//! The fields for paths: one module for each name, for `#[serde(flatten, with = "…")]`.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};

use super::WirePath;

macro_rules! path_fields {
    ($($name:ident)+) => {$(
        #[doc = concat!("The path in the field `", stringify!($name), "`.")]
        pub mod $name {
            use super::{Deserializer, Serializer, WirePath};

            const NAMES: &[&str; 2] = &[stringify!($name), concat!(stringify!($name), "_b64")];

            /// Serializes the path.
            pub fn serialize<S: Serializer>(path: &WirePath<'_>, to: S) -> Result<S::Ok, S::Error> {
                super::serialize(path, NAMES, to)
            }

            /// Deserializes the path. It is `None` if the field is missing or not a path.
            pub fn deserialize<'d, 'a, D: Deserializer<'d>>(from: D) -> Result<WirePath<'a>, D::Error> {
                super::deserialize(NAMES, from)
            }
        }
    )+};
}

path_fields!(exe path root target superseded_by file program config dir max_name);

fn serialize<S: Serializer>(
    path: &WirePath<'_>,
    [name, name_b64]: &[&'static str; 2],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    match path.as_ref().map(|path| (path, path.to_str())) {
        None => map.serialize_entry(name, &())?,
        Some((_, Some(text))) => map.serialize_entry(name, text)?,
        Some((path, None)) => {
            map.serialize_entry(name, &path.to_string_lossy())?;
            map.serialize_entry(name_b64, &STANDARD.encode(path.as_os_str().as_bytes()))?;
        }
    }
    map.end()
}

fn deserialize<'d, 'a, D: Deserializer<'d>>(
    names: &'static [&'static str; 2],
    from: D,
) -> Result<WirePath<'a>, D::Error> {
    from.deserialize_struct("Path", names, PathVisitor(names))
}

struct PathVisitor(&'static [&'static str; 2]);

impl<'d> Visitor<'d> for PathVisitor {
    type Value = WirePath<'static>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut text, mut bytes) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name {
                name if name == self.0[0] => text = map.next_value::<Option<PathBuf>>()?,
                name if name == self.0[1] => {
                    let encoded = map.next_value::<String>()?;
                    bytes = STANDARD.decode(encoded).ok().map(OsString::from_vec);
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(bytes.map(PathBuf::from).or(text).map(Cow::Owned))
    }
}
