//! A learned shape, for people and in JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use orphand::core::learn::{KnownShape, KnownShapes, LearnedShape};
use orphand::core::observation::Kind;
use orphand::core::policy::{Learn, Policy};
use orphand::core::sort::sort_by;
use orphand::fs::dir::{Buffer, Dir};
use orphand::fs::root::Root;
use orphand::store::json::{WirePath, field};
use serde::{Deserialize, Serialize};

use super::{shell, text};

/// The maximum length of an option in a line, in bytes. A pattern repeats a class for each random character, because it
/// has no counts.
const MAX_OPTION: usize = 200;

/// A shape of the names of temps, learned from healthy renames.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LearnedFields {
    #[serde(flatten, with = "field::dir")]
    pub(crate) dir: WirePath<'static>,
    /// The shape as text: `data.json.<[0-9]:9>`.
    pub(crate) shape: String,
    /// The path of the target.
    #[serde(flatten, with = "field::target")]
    pub(crate) target: WirePath<'static>,
    /// The owner of the files.
    pub(crate) uid: u32,
    /// The number of healthy writes.
    pub(crate) writes: u64,
    /// At least 20 files were seen, 95 % of them were renamed to the target, and their names contain it.
    pub(crate) learned_well: bool,
    /// The rule matches the names.
    pub(crate) matched: bool,
    /// The option that would make the rule match them. `None` if it does already, or if no option can.
    pub(crate) option: Option<String>,
    /// The option with which a watch would take them. `None` if it does already, or if the shape is not learned well
    /// enough.
    pub(crate) learn_option: Option<String>,
}

impl LearnedFields {
    /// Returns the fields of a shape for a rule with these names.
    pub(crate) fn new(policy: &Policy, known: &KnownShape) -> LearnedFields {
        let names = &policy.names;
        let LearnedShape { place, form, .. } = &known.shape;
        let matched = names.matches(form.example());
        LearnedFields {
            dir: Some(known.dir.clone().into()),
            shape: String::from_utf8_lossy(&form.text()).into_owned(),
            target: Some(known.dir.join(OsStr::from_bytes(&place.target)).into()),
            uid: place.owner,
            writes: known.shape.writes,
            learned_well: known.is_learned_well,
            matched,
            option: name_option(known).filter(|_| !matched),
            learn_option: (known.is_learned_well && !matched && policy.learn != Learn::Take)
                .then(|| "--learn take".to_owned()),
        }
    }

    /// Returns the line about the shape.
    pub(crate) fn line(&self) -> String {
        let dir = self.dir.as_deref().unwrap_or(Path::new(""));
        let target = self
            .target
            .as_deref()
            .and_then(Path::file_name)
            .unwrap_or_default();
        let matched = match (&self.option, self.matched) {
            (_, true) => String::new(),
            (Some(option), false) if option.len() > MAX_OPTION => {
                "; the rule does not match them.   to match them: the option in the output of --json"
                    .to_owned()
            }
            (Some(option), false) => {
                format!("; the rule does not match them.   to match them: {option}")
            }
            (None, false) => "; the rule does not match them".to_owned(),
        };
        let matched = match &self.learn_option {
            Some(option) => {
                format!("{matched}   a watch takes those that it sees created: {option}")
            }
            None => matched,
        };
        format!(
            "{} in {}/: {} renamed such files to {}{matched}",
            text::escaped(Path::new(&with_uuids(&self.shape))),
            text::escaped(dir).trim_end_matches('/'),
            text::counted(self.writes, "write has", "writes have"),
            text::escaped(Path::new(target))
        )
    }
}

/// Returns the text of a shape with `<uuid>` for the classes of a uuid, as in the shapes of other temps.
fn with_uuids(shape: &str) -> String {
    let mut out = String::new();
    let mut rest = shape;
    while let Some(first) = rest.chars().next() {
        let is_start = !out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '>');
        let (shown, after) = match uuid_end(rest).filter(|_| is_start) {
            Some(after) => ("<uuid>", after),
            None => {
                let after = hex_digits(rest).map_or(&rest[first.len_utf8()..], |(_, after)| after);
                (&rest[..rest.len() - after.len()], after)
            }
        };
        out.push_str(shown);
        rest = after;
    }
    out
}

/// Returns the rest of `text`, which follows a uuid at its start. `None` if there is none, or if it is the same in all
/// names.
fn uuid_end(text: &str) -> Option<&str> {
    let mut rest = text;
    for (index, length) in [8_usize, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-')?;
        }
        let mut left = length;
        while left > 0 {
            let (digits, after) = hex_digits(rest)?;
            left = left.checked_sub(digits)?;
            rest = after;
        }
    }
    let is_class = text[..text.len() - rest.len()].contains('<');
    let is_end = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '<');
    (is_class && is_end).then_some(rest)
}

/// Returns the number of hexadecimal digits for which the start of `text` stands, a digit or a class such as
/// `<[0-9a-f]:8>`, and the rest.
fn hex_digits(text: &str) -> Option<(usize, &str)> {
    let Some(class) = text.strip_prefix("<[") else {
        let rest = text.strip_prefix(|c: char| c.is_ascii_hexdigit())?;
        return Some((1, rest));
    };
    let (class, rest) = class.split_once("]:")?;
    let (count, rest) = rest.split_once('>')?;
    let other = ["0-9", "a-f", "A-F"]
        .iter()
        .fold(class.to_owned(), |class, range| {
            class.replacen(range, "", 1)
        });
    other.is_empty().then_some((count.parse().ok()?, rest))
}

/// Returns the option that makes a rule match the names of a shape. A pattern is text, so there is none for names that
/// are not UTF-8.
pub(crate) fn name_option(known: &KnownShape) -> Option<String> {
    let glob = String::from_utf8(known.shape.form.glob()).ok()?;
    Some(format!("--name {}", shell::word(&glob)))
}

/// A known shape, and the number of files that fit it.
#[derive(Debug, Serialize)]
pub(crate) struct LearnedFiles {
    #[serde(flatten)]
    pub(crate) learned: LearnedFields,
    /// The number of files whose names fit the shape.
    pub(crate) files: u64,
}

impl LearnedFiles {
    /// Returns the line about the shape and its files.
    pub(crate) fn line(&self) -> String {
        let one = "file here has a name like";
        let files = text::counted(self.files, one, "files here have names like");
        format!("{files} {}", self.learned.line())
    }
}

/// Finds the known shapes which names in the directories of `root` fit, and counts these files. A directory that cannot
/// be read is skipped, because the scan has reported it.
pub(crate) fn find_files(root: &Root, known: &KnownShapes) -> Vec<LearnedFiles> {
    let top = Dir::open_root(&root.path, None);
    let Some(top) = top.ok().filter(|_| root.policy.learn != Learn::Off) else {
        return Vec::new();
    };
    let below = known.iter().filter_map(|known| root.below(&known.dir));
    let mut dirs: Vec<&Path> = below.chain([Path::new("")]).collect();
    sort_by(&mut dirs, Ord::cmp);
    dirs.dedup();
    let mut found = Vec::new();
    for below in dirs {
        let opened = match below.as_os_str().is_empty() {
            true => Dir::open_root(&root.path, Some(top.id())),
            false => top.open_within(below),
        };
        let Ok(dir) = opened else { continue };
        let id = dir.id().into();
        let mut files: Vec<(&KnownShape, u64)> =
            known.of_dir(id).iter().map(|one| (one, 0)).collect();
        if files.is_empty() {
            continue;
        }
        let counted = dir.read_while(&mut Buffer::default(), &mut |name, kind| {
            let is_file = kind.is_none_or(|kind| kind == Kind::File);
            let fitting = known.fitting(id, name.as_bytes()).filter(|_| is_file);
            for (_, count) in files.iter_mut().filter(|(one, _)| Some(*one) == fitting) {
                *count += 1;
            }
            true
        });
        if counted.is_err() {
            continue;
        }
        sort_by(&mut files, |(one, _), (other, _)| {
            one.shape.place.cmp(&other.shape.place)
        });
        let files = files.into_iter().filter(|(_, files)| *files > 0);
        found.extend(files.map(|(known, files)| LearnedFiles {
            learned: LearnedFields::new(&root.policy, known),
            files,
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use orphand::core::learn::{DirId, Form, Place};
    use orphand::sys::clock;

    use super::*;

    fn line(one: &str, other: &str) -> String {
        let form = Form::literal(one.as_bytes()).widened(other.as_bytes());
        let place = Place {
            dir: DirId {
                dev: 1,
                ino: 2,
                born: None,
            },
            target: b"data".to_vec(),
            owner: 0,
        };
        let known = KnownShape {
            dir: "/srv".into(),
            shape: LearnedShape::stored(place, form.unwrap(), 3, clock::wall()),
            is_learned_well: false,
        };
        LearnedFields::new(&Policy::default(), &known).line()
    }

    #[test]
    fn a_uuid_is_shown_as_such() {
        let uuid = "<[0-9a-f]:8>-<[0-9a-f]:4>-4<[0-9a-f]:3>-<[0-9a-f]:4>-<[0-9a-f]:12>";
        for (shape, want) in [
            ("cache.idx.UUID", "cache.idx.<uuid>"),
            ("UUID-UUID.tmp", "<uuid>-<uuid>.tmp"),
            ("größe-UUID.<[0-9a-f]:8>", "größe-<uuid>.<[0-9a-f]:8>"),
            ("xUUID", "xUUID"),
            ("<[0-9]:2>UUID", "<[0-9]:2>UUID"),
            ("UUID<[0-9]:2>", "UUID<[0-9]:2>"),
            ("<[0-9a-z]:8>-a", "<[0-9a-z]:8>-a"),
            (
                "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
                "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
            ),
            ("<[<", "<[<"),
        ] {
            let (shape, want) = (shape.replace("UUID", uuid), want.replace("UUID", uuid));
            assert_eq!(with_uuids(&shape), want);
        }
    }

    #[test]
    fn the_files_of_a_shape_are_counted() {
        let learned = || LearnedFields {
            shape: "data.<[0-9]:9>".to_owned(),
            dir: Some(Path::new("/srv").into()),
            target: Some(Path::new("/srv/data").into()),
            writes: 3,
            matched: true,
            ..LearnedFields::default()
        };
        let shape = "data.<[0-9]:9> in /srv/: 3 writes have renamed such files to data";
        for (files, start) in [
            (1, "1 file here has a name like"),
            (12, "12 files here have names like"),
        ] {
            let line = LearnedFiles {
                learned: learned(),
                files,
            }
            .line();
            assert_eq!(line, format!("{start} {shape}"));
        }
    }

    /// A pattern for many random characters is in the JSON output alone.
    #[test]
    fn a_line_has_no_long_option() {
        let start = "/srv/: 3 writes have renamed such files to data; the rule does not match them.   to match them: ";
        assert_eq!(
            line("data.1a2b", "data.b2a1"),
            format!("data.<[0-9a-f]:4> in {start}--name 'data.[0-9a-f][0-9a-f][0-9a-f][0-9a-f]'")
        );
        assert_eq!(
            line(&"1a".repeat(32), &"a1".repeat(32)),
            format!("<[0-9a-f]:64> in {start}the option in the output of --json")
        );
    }
}
