//! The file of learned shapes: `shapes.json` in the state folder.
//!
//! Verdicts depend on the shapes in it, so it is read only if this user owns it and no other user can write
//! it. A file that is wrong in any way is ignored as a whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::json::{WirePath, field};
use super::regular_file::{open_own, read_at_most, replace};
use crate::core::learn::{Class, DirId, Form, KnownShape, LearnedShape, Part, Place};
use crate::core::time::Wall;

/// The name of the file in the state folder.
const NAME: &str = "shapes.json";

/// The largest size of the file. It is more than all shapes that are kept need.
const LARGEST: u64 = 4 << 20;

/// The format of the file. A file of another format is ignored.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    shapes: Vec<ShapeFields>,
}

#[derive(Deserialize, Serialize)]
struct ShapeFields {
    #[serde(flatten, with = "field::dir")]
    dir: WirePath<'static>,
    dev: u64,
    ino: u64,
    born: Option<(i64, u32)>,
    #[serde(flatten, with = "field::target")]
    target: WirePath<'static>,
    owner: u32,
    /// One name of the form.
    #[serde(flatten, with = "field::file")]
    example: WirePath<'static>,
    /// The start, the end and the class of each part of the form.
    parts: Vec<(usize, usize, u8)>,
    writes: u64,
    ended: u64,
    renamed: u64,
    was_read: bool,
    #[serde(default)]
    has_other_target: bool,
    last_write: i64,
}

/// Returns the shapes in the file, without those whose last write is too long ago. `None`: there is no file.
///
/// # Errors
///
/// The file cannot be read, another user owns it or can write it, or its content is not valid.
pub fn read(state: &Path, now: Wall) -> io::Result<Option<Vec<KnownShape>>> {
    let file = match open_own(File::options().read(true).to_owned(), &state.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    // The open file is asked, because another user may own the folder and replace the file at any moment.
    let seen = file.metadata()?;
    let is_own = seen.uid() == rustix::process::geteuid().as_raw() && seen.mode() & 0o022 == 0;
    if rule!("shapes-are-of-this-user", !is_own) {
        return Err(invalid("another user owns it, or can write it"));
    }
    let document: Document = serde_json::from_slice(&read_at_most(file, seen.len(), LARGEST)?)?;
    if document.version != VERSION {
        return Err(invalid("it has another version"));
    }
    let shapes = document.shapes.into_iter().map(|fields| fields.shape());
    let shapes: Option<Vec<KnownShape>> = shapes.collect();
    let mut shapes = shapes.ok_or_else(|| invalid("a shape in it is not valid"))?;
    shapes.retain(|stored| !stored.shape.is_expired(now));
    Ok(Some(shapes))
}

/// Replaces the file. The temp of this write always has the same name.
pub fn write(state: &Path, shapes: &[KnownShape]) -> io::Result<()> {
    let document = Document {
        version: VERSION,
        shapes: shapes.iter().map(ShapeFields::new).collect(),
    };
    let text = serde_json::to_vec(&document)?;
    fs::create_dir_all(state)?;
    let new = state.join(format!("{NAME}.new"));
    replace(&state.join(NAME), &new, 0o600, |file| file.write_all(&text))
}

impl ShapeFields {
    fn new(stored: &KnownShape) -> ShapeFields {
        let LearnedShape { place, form, .. } = &stored.shape;
        let name = |bytes: &[u8]| Some(PathBuf::from(OsString::from_vec(bytes.to_vec())).into());
        let part = |part: &Part| (part.at.start, part.at.end, part.class.number());
        ShapeFields {
            dir: Some(stored.dir.clone().into()),
            dev: place.dir.dev,
            ino: place.dir.ino,
            born: place.dir.born.map(|born| (born.sec, born.nsec)),
            target: name(&place.target),
            owner: place.owner,
            example: name(form.example()),
            parts: form.parts().iter().map(part).collect(),
            writes: stored.shape.writes,
            ended: stored.shape.ended,
            renamed: stored.shape.renamed,
            was_read: stored.shape.was_read,
            has_other_target: stored.shape.has_other_target,
            last_write: stored.shape.last_write.sec,
        }
    }

    /// Returns the shape. `None` if a field is not valid.
    fn shape(self) -> Option<KnownShape> {
        let name = |path: WirePath<'static>| -> Option<Vec<u8>> {
            let name = path?.into_owned().into_os_string().into_vec();
            let is_name =
                (1..=255).contains(&name.len()) && !name.contains(&b'/') && !name.contains(&0);
            is_name.then_some(name)
        };
        let part = |(start, end, class): (usize, usize, u8)| {
            Some(Part {
                at: start..end,
                class: Class::from_number(class)?,
            })
        };
        let parts: Option<Vec<Part>> = self.parts.into_iter().map(part).collect();
        let form = Form::from_parts(name(self.example)?, parts?)?;
        let born = self.born.map(|(sec, nsec)| Wall { sec, nsec });
        let place = Place {
            dir: DirId {
                dev: self.dev,
                ino: self.ino,
                born,
            },
            target: name(self.target)?,
            owner: self.owner,
        };
        let last_write = Wall {
            sec: self.last_write,
            nsec: 0,
        };
        let is_valid = self.renamed <= self.ended && self.writes >= 3 && !form.parts().is_empty();
        let mut shape = LearnedShape::stored(place, form, self.writes, last_write);
        (shape.ended, shape.renamed, shape.was_read) = (self.ended, self.renamed, self.was_read);
        shape.has_other_target = self.has_other_target;
        let dir = self.dir?.into_owned();
        (is_valid && dir.is_absolute()).then(|| KnownShape {
            is_learned_well: shape.is_learned_well(&[]),
            dir,
            shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const NOW: Wall = Wall {
        sec: 1_795_946_400,
        nsec: 0,
    };

    fn stored(dir: &str, target: &[u8]) -> KnownShape {
        let name = |random: &[u8]| [target, b".", random].concat();
        let form = Form::literal(&name(b"0a1b2c3d"))
            .widened(&name(b"9f8e7d6c"))
            .unwrap();
        let place = Place {
            dir: DirId {
                dev: 7,
                ino: 9,
                born: Some(Wall { sec: 5, nsec: 6 }),
            },
            target: target.to_vec(),
            owner: 1000,
        };
        let mut shape = LearnedShape::stored(place, form, 30, NOW);
        (shape.ended, shape.renamed, shape.was_read) = (21, 20, true);
        shape.has_other_target = true;
        KnownShape {
            dir: dir.into(),
            is_learned_well: false,
            shape,
        }
    }

    #[test]
    fn shapes_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("new/state");
        assert_eq!(read(&state, NOW).unwrap(), None);
        let shapes = vec![
            stored("/srv/app", b"data.json"),
            stored("/srv/\u{fc}", b"\xff\xfe.db"),
        ];
        for _ in 0..2 {
            write(&state, &shapes).unwrap();
            assert_eq!(read(&state, NOW).unwrap().unwrap(), shapes);
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no temp is left");
        let month = Wall {
            sec: NOW.sec + 31 * 86_400,
            ..NOW
        };
        assert_eq!(read(&state, month).unwrap().unwrap(), []);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_ignored_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let path = state.join(NAME);
        write(state, &[stored("/srv/app", b"data.json")]).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let check = |text: &str, what: &str| {
            fs::write(&path, text).unwrap();
            assert_eq!(read(state, NOW).is_err(), !what.is_empty(), "{what}");
        };
        check(&good, "");
        for end in [0, 1, good.len() / 2, good.len() - 1] {
            check(&good[..end], "truncated");
        }
        check(&"[".repeat(100_000), "nested");
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"data.json\"", "\"../data.json\""),
            ("\"data.json\"", "\"\""),
            ("\"/srv/app\"", "\"srv/app\""),
            ("\"renamed\":20", "\"renamed\":22"),
            ("\"writes\":30", "\"writes\":2"),
            ("[[10,18,", "[[10,19,"),
            ("[[10,18,", "[[8,18,"),
            ("[[10,18,3]]", "[[10,18,0]]"),
            ("[[10,18,3]]", "[[10,18,1]]"),
            ("[[10,18,3]]", "[]"),
        ] {
            assert!(good.contains(from), "{from} is not in {good}");
            check(&good.replacen(from, to, 1), to);
        }
        check(&good, "");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(read(state, NOW).is_err(), "other users can write it");
        fs::rename(&path, state.join("elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(read(state, NOW).is_err(), "a symlink");
        if rustix::process::geteuid().is_root() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, &good).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(read(state, NOW).is_ok());
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(read(state, NOW).is_err(), "another user");
        }
    }

    /// Another user who owns the folder may exchange the file for one of their own between two calls.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_exchanged_while_it_is_read_is_never_trusted() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::{Duration, Instant};

        use rustix::fs::{CWD, RenameFlags, renameat_with};

        if !rustix::process::geteuid().is_root() {
            return eprintln!("only root can give a file to another user");
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, forged) = (folder.path().join(NAME), folder.path().join("forged"));
        write(folder.path(), &[stored("/srv/app", b"forged.json")]).unwrap();
        fs::rename(&path, &forged).unwrap();
        std::os::unix::fs::chown(&forged, Some(12_345), None).unwrap();
        let own = [stored("/srv/app", b"data.json")];
        write(folder.path(), &own).unwrap();
        // The numbers of reads of the own file, of refused reads, and of reads of the other file.
        let mut reads = [0; 3];
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    renameat_with(CWD, &path, CWD, &forged, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let end = Instant::now() + Duration::from_secs(10);
            while (reads[0] < 300 || reads[1] < 300) && reads[2] == 0 && Instant::now() < end {
                let kind = match read(folder.path(), NOW) {
                    Ok(shapes) if shapes.as_deref() == Some(&own) => 0,
                    Ok(_) => 2,
                    Err(_) => 1,
                };
                reads[kind] += 1;
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(reads[0] >= 300 && reads[1] >= 300, "{reads:?}");
        assert_eq!(reads[2], 0, "the shapes of another user");
    }
}
