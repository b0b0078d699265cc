#![allow(clippy::single_range_in_vec_init)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::time::{Mono, Wall};

/// 2026-11-29T10:00:00Z
const NOW: Wall = Wall {
    sec: 1_795_946_400,
    nsec: 123_456_789,
};
const DIR: DirId = DirId {
    dev: 1,
    ino: 2,
    born: Some(NOW),
};
const S: Duration = Duration::from_secs(1);

/// A directory that is watched, and its clock.
struct Watched {
    learner: Learner,
    seconds: u64,
}

impl Watched {
    fn new() -> Watched {
        Watched {
            learner: Learner::default(),
            seconds: 0,
        }
    }

    fn mono(&self) -> Mono {
        Mono(1_000_000_000_000).after(S * u32::try_from(self.seconds).unwrap())
    }

    fn wall(&self) -> Wall {
        Wall {
            sec: NOW.sec + i64::try_from(self.seconds).unwrap(),
            ..NOW
        }
    }

    fn create(&mut self, name: impl AsRef<[u8]>) {
        let at = self.mono();
        self.learner.created(Created {
            dir: DIR,
            name: name.as_ref(),
            at,
        });
        self.seconds += 1;
    }

    fn rename_by(&mut self, owner: u32, temp: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        self.learner.renamed(&Renamed {
            dir: DIR,
            temp: temp.as_ref(),
            target: target.as_ref(),
            owner,
            born: Some(self.wall()),
            at: self.mono(),
            wall: self.wall(),
        });
        self.seconds += 1;
    }

    fn write(&mut self, temp: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        self.create(temp.as_ref());
        self.rename_by(1000, temp, target);
    }

    fn wait(&mut self, seconds: u64) {
        self.seconds += seconds;
        let (mono, wall) = (self.mono(), self.wall());
        self.learner.expire(mono, wall);
    }

    /// Returns the known shapes as text, with `!` before those that are learned well enough.
    fn known(&self) -> Vec<String> {
        let text = |(shape, is_well): (LearnedShape, bool)| {
            let form = String::from_utf8_lossy(&shape.form.text()).into_owned();
            let target = String::from_utf8_lossy(&shape.place.target).into_owned();
            format!("{}{form} -> {target}", if is_well { "!" } else { "" })
        };
        let mut known: Vec<String> = self.learner.known().into_iter().map(text).collect();
        known.sort();
        known
    }
}

/// Returns numbers that look random, and are the same in each run.
fn random(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state)
    })
}

/// Returns `length` characters of `alphabet`.
fn characters(bits: &mut impl Iterator<Item = u64>, alphabet: &[u8], length: usize) -> String {
    let one = || char::from(alphabet[bits.next().unwrap() as usize % alphabet.len()]);
    std::iter::repeat_with(one).take(length).collect()
}

const DIGITS: &[u8] = b"0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const PYTHON: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz_";
const ALNUM: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const UPPER: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The writers of which no row is known, and the one shape that they teach.
#[test]
fn writers_with_random_names_are_learned() {
    let check = |name: &str, alphabet: &[u8], lengths: &[usize], want: &str| {
        let mut watched = Watched::new();
        let mut bits = random(name.len() as u64 + 7);
        for _ in 0..60 {
            let mut temp = name.to_owned();
            for length in lengths {
                temp = temp.replacen('*', &characters(&mut bits, alphabet, *length), 1);
            }
            watched.write(temp, "data.json");
        }
        assert!(
            watched.known().contains(&want.to_owned()),
            "{name}: {:?}",
            watched.known()
        );
        let well = |shape: &String| shape.starts_with('!');
        assert_eq!(
            watched.known().iter().filter(|one| well(one)).count(),
            usize::from(well(&want.to_owned())),
            "{name}"
        );
    };
    check(
        "data.json.*",
        DIGITS,
        &[9],
        "!data.json.<[0-9]:9> -> data.json",
    );
    check(
        "data.json.tmp-*",
        HEX,
        &[16],
        "!data.json.tmp-<[0-9a-f]:16> -> data.json",
    );
    check(
        ".data.json.*",
        ALNUM,
        &[6],
        "!.data.json.<[0-9a-zA-Z]:6> -> data.json",
    );
    check(
        "data.json.*",
        UPPER,
        &[6],
        "!data.json.<[0-9A-Z]:6> -> data.json",
    );
    check(
        "data.json.*",
        LETTERS,
        &[6],
        "!data.json.<[a-zA-Z]:6> -> data.json",
    );
    check(
        "data.json.*-*-4*-*-*.tmp",
        HEX,
        &[8, 4, 3, 4, 12],
        "!data.json.<[0-9a-f]:8>-<[0-9a-f]:4>-4<[0-9a-f]:3>-<[0-9a-f]:4>-<[0-9a-f]:12>.tmp -> data.json",
    );
    // These do not contain the target, so they are only shown.
    check("tmp*", PYTHON, &[8], "tmp<[0-9a-z]:8> -> data.json");
    check(
        ".goutputstream-*",
        UPPER,
        &[6],
        ".goutputstream-<[0-9A-Z]:6> -> data.json",
    );
    // A part of the target's name is not the target.
    check(
        "my-data.jsonx.*",
        HEX,
        &[8],
        "my-data.jsonx.<[0-9a-f]:8> -> data.json",
    );
}

#[test]
fn a_shape_is_known_after_three_renames_and_used_after_twenty() {
    let mut watched = Watched::new();
    let mut bits = random(3);
    let mut names =
        std::iter::repeat_with(|| format!("data.json.{}", characters(&mut bits, HEX, 12)));
    let (mut known, mut well) = (None, None);
    for n in 1..=40 {
        watched.write(names.next().unwrap(), "data.json");
        let shapes = watched.known();
        known = known.or((!shapes.is_empty()).then_some(n));
        well = well.or(shapes.iter().any(|one| one.starts_with('!')).then_some(n));
    }
    assert!((3..=6).contains(&known.unwrap()), "{known:?}");
    assert!((20..=24).contains(&well.unwrap()), "{well:?}");
    // Two of 42 files without a rename are more than 5 %... three are.
    for _ in 0..3 {
        watched.create(names.next().unwrap());
    }
    assert!(
        watched.known()[0].starts_with('!'),
        "their minute is not over"
    );
    watched.wait(61);
    let shapes = watched.known();
    assert!(
        shapes.len() == 1 && !shapes[0].starts_with('!'),
        "{shapes:?}"
    );
    for _ in 0..60 {
        watched.write(names.next().unwrap(), "data.json");
    }
    assert!(watched.known()[0].starts_with('!'));
    // A file that was read after its writer had ended may be needed under its own name.
    watched.learner.was_read(DIR, b"data.json.other");
    assert!(watched.known()[0].starts_with('!'), "another name");
    watched
        .learner
        .was_read(DIR, names.next().unwrap().as_bytes());
    assert!(!watched.known()[0].starts_with('!'));
}

/// Names that are not random, of writers that rename each file to the same target at once.
#[test]
fn counters_dates_and_times_are_not_random() {
    fn check(what: &str, name: impl Fn(u64, Wall) -> String) {
        let mut watched = Watched::new();
        for n in 0..40 {
            let temp = name(n, watched.wall());
            watched.write(temp, "data.json");
            assert_eq!(watched.known(), [""; 0], "{what}, after {} writes", n + 1);
        }
    }
    let ms = |at: Wall| at.sec * 1_000 + i64::from(at.nsec) / 1_000_000;
    check("a fixed name", |_, _| "data.json.tmp".to_owned());
    check("a counter", |n, _| format!("data.json.{:08}", n + 1));
    check("a falling counter", |n, _| {
        format!("data.json.{:08}", 90_000_000 - n)
    });
    check("a counter in steps", |n, _| {
        format!("data.json.{}", 100_000_000 + n * n * 7)
    });
    check("a counter of base 36", |n, _| {
        format!(
            "data.json.lu48i{}{}",
            char::from(b'a' + (n / 10) as u8),
            n % 10
        )
    });
    check("a hexadecimal counter", |n, _| {
        format!("data.json.{:08x}", 0x0a00_0000 + n * 77)
    });
    check("two numbers in turn", |n, _| {
        format!("data.json.{}", [123_456_789, 987_654_321][n as usize % 2])
    });
    check("small numbers", |n, _| {
        format!("data.json.{:05}", random(n + 1).nth(3).unwrap() % 100_000)
    });
    check("versions", |n, _| {
        format!("data-{}.{}.{}.json", n * 7 % 10, n * 3 % 10, n % 10)
    });
    check("the time in s", |_, at| format!("data.json.{}", at.sec));
    check("the time in ms", |_, at| format!("data.json.{}", ms(at)));
    check("the time in us", |_, at| {
        format!("data.json.{}", ms(at) * 1_000 + 7)
    });
    check("the time in ns", |_, at| {
        format!("data.json.{}", ms(at) * 1_000_000 + 77)
    });
    // Not in their order, as from several processes.
    let jitter = |n: u64| i64::try_from(random(n + 1).nth(5).unwrap() % 80_000).unwrap();
    check("times near the birth in s", |n, at| {
        format!("data.json.{}", at.sec - jitter(n))
    });
    check("times near the birth in ms", |n, at| {
        format!("data.json.{}", ms(at) - jitter(n) * 1_000)
    });
    check("hexadecimal times near the birth", |n, at| {
        format!("data.json.{:x}", at.sec - jitter(n))
    });
    let day = |n: u64| 1 + random(n + 1).nth(2).unwrap() % 28;
    check("dates", |n, _| format!("data.json.202611{:02}", day(n)));
    check("dates with dashes", |n, _| {
        format!("data.json.{}-11-{:02}", 1980 + n * 13 % 60, day(n))
    });
    check("dates with a time", |n, _| {
        format!("data.json.202611{:02}T1015{:02}Z", day(n), n)
    });
    check("days, months and years", |n, _| {
        format!(
            "data.json.{:02}{:02}{:02}",
            10 + n % 17,
            1 + n * 5 % 12,
            day(n)
        )
    });
    let words = [
        "backup", "latest", "stable", "broken", "middle", "carpet", "little", "yellow",
    ];
    check("words", |n, _| {
        format!("data.json.{}", words[(n * 5 % 8) as usize])
    });
    let capital = [
        "Backup", "Latest", "Stable", "Broken", "Middle", "Carpet", "Little", "Yellow",
    ];
    check("words with a capital", |n, _| {
        format!("data.json.{}", capital[(n * 5 % 8) as usize])
    });
    check("a pid that changes now and then", |n, _| {
        format!(
            "data.json.{}.{:04}",
            [40_811, 51_733, 48_204][(n / 15) as usize],
            n
        )
    });
    check("a time and a random part", |n, at| {
        format!(
            "data.json.{}-{}",
            ms(at),
            characters(&mut random(n + 1), HEX, 8)
        )
    });
}

/// Things that happen in directories of programs and people. None of them teaches a removal: no shape is learned well
/// enough, and only the last two teach a shape at all.
#[test]
fn nothing_is_removed_because_of_ordinary_renames() {
    fn check(what: &str, act: impl Fn(&mut Watched, u64), shapes: &[&str]) {
        let mut watched = Watched::new();
        for n in 0..40 {
            act(&mut watched, n);
        }
        watched.wait(61);
        assert_eq!(watched.known(), shapes, "{what}");
        assert_eq!(telling(&watched), [], "{what}: nothing is removed or moved");
    }
    let hex = |n: u64, length| characters(&mut random(n + 1), HEX, length);
    check(
        "log rotation",
        |at, _| {
            at.create("app.log");
            at.rename_by(1000, "app.log.1", "app.log.2");
            at.rename_by(1000, "app.log", "app.log.1");
        },
        &[],
    );
    check(
        "log rotation by date",
        |at, n| {
            at.create("app.log");
            at.rename_by(1000, "app.log", format!("app.log-202611{:02}", 1 + n % 30));
        },
        &[],
    );
    check(
        "an editor's backup",
        |at, _| {
            at.rename_by(1000, "notes.txt", "notes.txt~");
            at.create("notes.txt");
        },
        &[],
    );
    check(
        "an editor's swap file",
        |at, _| {
            at.create(".notes.txt.swp");
            at.create("4913");
            at.learner.removed(DIR, b"4913");
            at.rename_by(1000, "notes.txt", "notes.txt~");
            at.create("notes.txt");
            at.learner.removed(DIR, b".notes.txt.swp");
        },
        &[],
    );
    check(
        "a photo import",
        |at, n| {
            at.write(
                format!("IMG_{:04}.jpg.{}", n, hex(n, 8)),
                format!("IMG_{n:04}.jpg"),
            );
        },
        &[],
    );
    check(
        "a finished download",
        |at, n| {
            let name = format!(
                "Unconfirmed {}.crdownload",
                100_000 + random(n + 1).nth(1).unwrap() % 900_000
            );
            at.write(name, "report.pdf");
        },
        &[],
    );
    check(
        "a download into a part file",
        |at, n| at.write(format!("{}.part", hex(n, 12)), "report.pdf"),
        &[],
    );
    check(
        "names with hashes that stay",
        |at, n| at.create(format!("bundle.{}.js", hex(n, 8))),
        &[],
    );
    check(
        "a content-addressed store",
        |at, n| at.write(format!("store.{}", hex(n + 500, 16)), hex(n, 40)),
        &[],
    );
    check(
        "copies that a person makes of a file with a writer",
        |at, n| {
            at.write(format!("data.json.{}", hex(n, 12)), "data.json");
            at.create(format!("data.json.{}", hex(n + 900, 12)));
        },
        &["data.json.<[0-9a-f]:12> -> data.json"],
    );
    check(
        "each target once",
        |at, n| {
            at.write(
                format!("page-{n}.html.{}", hex(n, 12)),
                format!("page-{n}.html"),
            );
        },
        &[],
    );
    check(
        "a slow writer",
        |at, n| {
            let name = format!("data.json.{}", hex(n, 12));
            at.create(&name);
            at.seconds += 61;
            at.rename_by(1000, &name, "data.json");
        },
        &[],
    );
    check(
        "renames of files that existed before",
        |at, n| {
            at.rename_by(1000, format!("data.json.{}", hex(n, 12)), "data.json");
        },
        &[],
    );
    check(
        "three owners, two writes each",
        |at, n| {
            let name = format!("data.json.{}", hex(n, 12));
            at.create(&name);
            at.rename_by(1000 + u32::try_from(n % 20).unwrap(), &name, "data.json");
        },
        &[],
    );
    check(
        "the best of many rendered frames",
        |at, n| {
            (0..50).for_each(|frame| at.create(format!("frame_{frame:06}.png")));
            at.rename_by(1000, format!("frame_{:06}.png", n * 17 % 50), "best.png");
            at.wait(61);
        },
        &[],
    );
    // The rest are temps by all that can be seen, but most files keep their names, or the target is another one.
    check(
        "the best of some candidates with random names",
        |at, n| {
            let names: Vec<String> = (0..4)
                .map(|i| format!("best.png.{}", hex(n * 4 + i, 10)))
                .collect();
            names.iter().for_each(|name| at.create(name));
            at.rename_by(1000, &names[0], "best.png");
            at.wait(61);
        },
        &["best.png.<[0-9a-f]:10> -> best.png"],
    );
    check(
        "a file that is put in place by another name",
        |at, n| {
            at.write(format!("upload-{}", hex(n, 10)), "current");
        },
        &["upload-<[0-9a-f]:10> -> current"],
    );
}

#[test]
fn two_writers_in_one_directory_are_told_apart() {
    let mut watched = Watched::new();
    let mut bits = random(11);
    for n in 0..200 {
        let hex = characters(&mut bits, HEX, 8);
        match n % 4 {
            // The same lengths, but another word.
            0 => watched.write(format!("data.json.tmp.{hex}"), "data.json"),
            1 => watched.write(format!("data.json.new.{hex}"), "data.json"),
            2 => watched.write(format!("more.json.tmp.{hex}"), "more.json"),
            _ => watched.create(format!("data.json.bak.{hex}")),
        }
    }
    watched.wait(61);
    assert_eq!(
        watched.known(),
        [
            "!data.json.new.<[0-9a-f]:8> -> data.json",
            "!data.json.tmp.<[0-9a-f]:8> -> data.json",
            "!more.json.tmp.<[0-9a-f]:8> -> more.json",
        ]
    );
}

#[test]
fn names_that_are_not_utf8_are_learned_byte_by_byte() {
    let mut watched = Watched::new();
    let mut bits = random(5);
    for _ in 0..40 {
        let hex = characters(&mut bits, HEX, 12);
        watched.write([b"\xff\xfe.db.", hex.as_bytes()].concat(), b"\xff\xfe.db");
    }
    let known = watched.learner.known();
    let [(shape, true)] = known.as_slice() else {
        panic!("{known:?}")
    };
    assert_eq!(shape.form.text(), b"\xff\xfe.db.<[0-9a-f]:12>");
    assert!(
        shape.form.matches(b"\xff\xfe.db.0123456789ab")
            && !shape.form.matches(b"\xff\xfd.db.0123456789ab")
    );
}

#[test]
fn a_learned_form_includes_no_ordinary_name() {
    fn learned(alphabet: &[u8], length: usize) -> Form {
        let mut watched = Watched::new();
        let mut bits = random(9);
        for _ in 0..40 {
            watched.write(
                format!("notes.{}", characters(&mut bits, alphabet, length)),
                "notes",
            );
        }
        let known = watched.learner.known();
        assert_eq!(known.len(), 1, "{known:?}");
        known[0].0.form.clone()
    }
    let check = |alphabet: &[u8], length, names: &[&str]| {
        let form = learned(alphabet, length);
        for name in names {
            assert!(
                !form.matches(name.as_bytes()),
                "{name} is in {:?}",
                String::from_utf8_lossy(&form.text())
            );
        }
    };
    check(
        LETTERS,
        6,
        &[
            "notes.latest",
            "notes.Latest",
            "notes.LATEST",
            "notes.123456",
            "notes",
        ],
    );
    check(
        PYTHON,
        8,
        &[
            "notes.markdown",
            "notes.20261129",
            "notes.Ab3dEf5h",
            "notes.abc-1234",
        ],
    );
    check(
        DIGITS,
        8,
        &[
            "notes.20261129",
            "notes.00000001",
            "notes.1234567",
            "notes.123456789",
            "other.12345678",
        ],
    );
    check(DIGITS, 14, &["notes.20261129101500"]);
    check(ALNUM, 6, &["notes.stable", "notes.Stable", "notes.202611"]);
    check(
        HEX,
        8,
        &[
            "notes.deadbeef",
            "notes.decade",
            "notes.12345678",
            "notes.g1234567",
        ],
    );
}

#[test]
fn the_pattern_of_a_form_matches_its_names() {
    let mut form = Form::literal(b"a[1]{b}*.0a1b2c3d");
    form = form.widened(b"a[1]{b}*.9f8e7d6c").unwrap();
    let glob = String::from_utf8(form.glob()).unwrap();
    let names = crate::core::temp_name::Names::new(&[glob], &[] as &[&str]).unwrap();
    assert!(names.matches(form.example()) && names.matches(b"a[1]{b}*.12345678"));
    assert!(!names.matches(b"a[1]{b}x.0a1b2c3d") && !names.matches(b"a[1]{b}*.0a1b2c3g"));
    assert_eq!(form.text(), b"a[1]{b}*.<[0-9a-f]:8>");
}

#[test]
fn memory_is_bounded() {
    let mut watched = Watched::new();
    for n in 0..3 * MAX_PENDING {
        watched.learner.created(Created {
            dir: DIR,
            name: format!("left.{n}").as_bytes(),
            at: watched.mono(),
        });
    }
    assert_eq!(watched.learner.pending_count(), MAX_PENDING);
    assert_eq!(watched.learner.next_late(watched.mono()), Some(WRITE_TIME));
    watched.wait(61);
    assert_eq!(watched.learner.pending_count(), 0);
    for n in 0..3 * MAX_SHAPES {
        watched.write(format!("target-{n}.tmp"), format!("target-{n}"));
    }
    assert_eq!(watched.learner.shape_count(), MAX_SHAPES);
    for n in 0..100 {
        watched.write(format!("x{}", ".x".repeat(n)), "one target");
    }
    assert!(watched.learner.shape_count() <= MAX_SHAPES);
    watched.wait(31 * 24 * 60 * 60);
    assert_eq!(
        watched.learner.shape_count(),
        0,
        "they expire after a month"
    );
}

#[test]
fn nothing_is_learned_from_reserved_and_own_names() {
    let mut watched = Watched::new();
    for name in [
        "a.json.lock",
        "a.json-wal",
        ".orphand-0123456789abcdef-a.tmp",
        "a~",
        "",
    ] {
        let created = Created {
            dir: DIR,
            name: name.as_bytes(),
            at: watched.mono(),
        };
        assert!(!watched.learner.created(created), "{name}");
    }
}

#[test]
fn after_lost_events_only_new_files_count() {
    let mut watched = Watched::new();
    let mut bits = random(4);
    for n in 0..10 {
        let name = format!("data.json.{}", characters(&mut bits, HEX, 12));
        watched.create(&name);
        if n % 2 == 0 {
            watched.learner.forget_pending();
        }
        watched.rename_by(1000, &name, "data.json");
    }
    let [(shape, _)] = &*watched.learner.known() else {
        panic!("{:?}", watched.known())
    };
    assert_eq!((shape.writes, shape.ended), (5, shape.renamed));
}

#[test]
fn a_stored_shape_is_known_at_once_and_tested_again() {
    let place = Place {
        dir: DIR,
        target: b"data.json".to_vec(),
        owner: 1000,
    };
    let mut form = Form::literal(b"data.json.19000000");
    form = form.widened(b"data.json.23456789").unwrap();
    let stored = Form::from_parts(form.example().to_vec(), form.parts().to_vec()).unwrap();
    assert_eq!(stored, form);
    let mut watched = Watched::new();
    watched
        .learner
        .add(LearnedShape::stored(place, stored, 40, NOW));
    assert_eq!(watched.known(), ["data.json.<[0-9]:8> -> data.json"]);
    // The numbers turn out to be a counter.
    for n in 0..20 {
        watched.write(format!("data.json.{}", 31_000_000 + n), "data.json");
    }
    assert_eq!(watched.known(), [""; 0]);
}

#[test]
fn a_stored_form_with_wrong_parts_is_refused() {
    let class = Class::from_number(1).unwrap();
    let of = |parts: &[std::ops::Range<usize>]| {
        let parts = parts
            .iter()
            .map(|at| Part {
                at: at.clone(),
                class,
            })
            .collect();
        Form::from_parts(b"a.123456.7".to_vec(), parts)
    };
    assert!(of(&[2..8]).is_some() && of(&[2..8, 9..10]).is_some() && of(&[]).is_some());
    for wrong in [
        &[2..9][..],
        &[0..1],
        &[2..30],
        &[5..5],
        &[9..10, 2..8],
        &[2..5, 4..8],
    ] {
        assert!(of(wrong).is_none(), "{wrong:?}");
    }
    assert_eq!(
        (Class::from_number(0), Class::from_number(32)),
        (None, None)
    );
}

/// Returns the shapes that tell targets.
fn telling(watched: &Watched) -> Vec<TargetShape> {
    let known = watched.learner.known().into_iter();
    let known = known.map(|(shape, is_learned_well)| KnownShape {
        dir: "/srv".into(),
        shape,
        is_learned_well,
    });
    let well = watched.learner.learned_well();
    let known: Vec<KnownShape> = known.collect();
    assert_eq!(
        well.len(),
        known.iter().filter(|one| one.is_learned_well).count()
    );
    known.iter().filter_map(KnownShape::telling).collect()
}

/// Learns the names `name`, whose `*` is replaced by characters, and returns the shapes that tell targets.
fn taught(name: &str, alphabet: &[u8], length: usize) -> Vec<TargetShape> {
    let mut watched = Watched::new();
    let mut bits = random(name.len() as u64 + 1);
    for _ in 0..60 {
        let temp = name.replace('*', &characters(&mut bits, alphabet, length));
        watched.write(temp, "data.json");
    }
    telling(&watched)
}

#[test]
fn a_shape_tells_the_target_of_random_names_only() {
    let check = |taught: &[TargetShape], told: &[&str], others: &[&str]| {
        for (names, want) in [(told, Some(&b"data.json"[..])), (others, None)] {
            for name in names {
                let found = super::telling(taught, name.as_bytes(), 1000);
                assert_eq!(found.map(|shape| &*shape.target), want, "{name}");
                assert_eq!(
                    super::telling(taught, name.as_bytes(), 0),
                    None,
                    "another owner"
                );
            }
        }
    };
    check(
        &taught("data.json.*.tmp", PYTHON, 8),
        &["data.json.k3j9x2mq.tmp", "data.json.a1b2c3d4.tmp"],
        // Words with a number before or after them, dates, and other names.
        &[
            "data.json.before12.tmp",
            "data.json.2024copy.tmp",
            "data.json.20241130.tmp",
            "data.json.original.tmp",
            "data.json.tmp",
            "data.json",
            "other.json.k3j9x2mq.tmp",
        ],
    );
    check(
        &taught("data.json.*", DIGITS, 9),
        &["data.json.741603160"],
        // A time in seconds, and numbers of a date.
        &[
            "data.json.998877665",
            "data.json.041603160",
            "data.json.74160316",
        ],
    );
    check(
        &taught("data.json.*", DIGITS, 10),
        &["data.json.9416031600"],
        &[
            "data.json.1795946400",
            "data.json.1112223334",
            "data.json.2024113012",
        ],
    );
    check(
        &taught("data.json.*", DIGITS, 13),
        &["data.json.7416031600123"],
        &["data.json.1795946400123"],
    );
    check(
        &taught("data.json.*", DIGITS, 16),
        &["data.json.7416031600123456"],
        &["data.json.1795946400123456"],
    );
    check(
        &taught("data.json.*", DIGITS, 19),
        &["data.json.7416031600123456789"],
        &["data.json.1795946400123456789"],
    );
    check(
        &taught("data.json.*", LETTERS, 8),
        &["data.json.kQwXbTzR"],
        &[
            "data.json.Original",
            "data.json.original",
            "data.json.newFiles",
        ],
    );
    // A year may be a part of a longer target; another number may be a pid.
    check(
        &taught("data.json.2024.*.tmp", HEX, 12),
        &[],
        &["data.json.2024.0a1b2c3d4e5f.tmp"],
    );
    check(
        &taught("data.json.4711.*.tmp", HEX, 12),
        &["data.json.4711.0a1b2c3d4e5f.tmp"],
        &[],
    );
    // The target is not in the name.
    check(&taught("tmp*", PYTHON, 8), &[], &["tmpk3j9x2mq"]);
}

#[test]
fn a_shape_of_two_targets_tells_none() {
    let name = |n: u64| format!("data.json.{}.tmp", characters(&mut random(n + 1), HEX, 12));
    let told = |others: &dyn Fn(&mut Watched, String)| {
        let mut watched = Watched::new();
        (0..100).for_each(|n| watched.write(name(n), "data.json"));
        others(&mut watched, name(1_000));
        (200..300).for_each(|n| watched.write(name(n), "data.json"));
        watched.wait(61);
        !telling(&watched).is_empty()
    };
    assert!(told(&|_, _| {}));
    assert!(
        told(&|at, name| at.create(name)),
        "one of a hundred is left"
    );
    assert!(
        !told(&|at, name| at.write(name, "data.json.bak")),
        "another target"
    );
    let late = |at: &mut Watched, name: String| {
        at.create(&name);
        at.seconds += 90;
        at.rename_by(1000, &name, "data.json.bak");
    };
    assert!(!told(&late), "another target, after more than a minute");
    assert!(!told(&|at, name| {
        at.create(&name);
        at.wait(61);
        at.learner.was_read(DIR, name.as_bytes());
    }));
    let left = |at: &mut Watched, _| (1_000..1_020).for_each(|n| at.create(name(n)));
    assert!(!told(&left), "more than 5 % are left");
}

/// A date may begin with its day, its month or a year of two digits, and a time of day may be alone.
#[test]
fn dates_in_any_order_are_not_told() {
    let dates: [(usize, &[&str]); 6] = [
        (6, &["143015", "113026", "301126", "261130", "235959"]),
        (7, &["2026334"]),
        (8, &["30112026", "11302026", "20261130"]),
        (10, &["2611301430"]),
        (12, &["261130143015", "301120261430", "113020261430"]),
        (14, &["30112026143015", "11302026143015"]),
    ];
    for (length, dates) in dates {
        let taught = taught("data.json.*", DIGITS, length);
        assert!(!taught.is_empty(), "{length}");
        let tells = |digits: &str| {
            super::telling(&taught, format!("data.json.{digits}").as_bytes(), 1000).is_some()
        };
        assert!(tells(&"86754321987654"[..length]), "{length}");
        for date in dates {
            assert!(!tells(date), "{date}");
        }
    }
}

/// Without a birth time, another directory may get the inode number of the one in which a shape was learned.
#[test]
fn a_shape_of_a_directory_without_a_birth_time_is_not_learned_well() {
    for (born, want) in [(Some(NOW), true), (None, false)] {
        let place = Place {
            dir: DirId { born, ..DIR },
            target: b"data.json".to_vec(),
            owner: 1000,
        };
        let form = Form::literal(b"data.json.a0z9b1y8").widened(b"data.json.0a9z1b8y");
        let mut shape = LearnedShape::stored(place, form.unwrap(), 40, NOW);
        (shape.ended, shape.renamed) = (40, 40);
        assert_eq!(shape.is_learned_well(&[]), want, "{born:?}");
    }
}

/// An action in a watched directory: which of some names, and what happens to it.
fn any_actions() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
    prop::collection::vec((0..6_u8, 0..40_u8, any::<u16>()), 0..300)
}

proptest! {
    /// Whatever happens: the counts agree, a shape includes the names that it was learned from and never its target,
    /// and a shape that is learned well enough names its target.
    #[test]
    fn learned_shapes_are_consistent(actions in any_actions(), names in prop::collection::vec("[a-c0-9.]{1,10}", 40)) {
        let mut watched = Watched::new();
        let mut renamed = Vec::new();
        for (action, name, number) in actions {
            let name = &names[usize::from(name)];
            match action {
                0 => watched.create(name),
                1 => watched.rename_by(1000, name, "a.b"),
                2 => {
                    let name = format!("a.b.{:012x}", u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16);
                    watched.write(&name, "a.b");
                    renamed.push(name);
                }
                3 => watched.learner.removed(DIR, name.as_bytes()),
                4 => watched.wait(u64::from(number) % 90),
                _ => watched.write(name, "a.b"),
            }
            prop_assert!(watched.learner.pending_count() <= MAX_PENDING);
        }
        for (shape, is_well) in watched.learner.known() {
            let target = &shape.place.target;
            prop_assert!(shape.renamed <= shape.ended && shape.renamed <= shape.writes);
            prop_assert!(shape.writes >= 3 && !shape.form.parts().is_empty());
            prop_assert!(!shape.form.matches(target));
            prop_assert!(!is_well || shape.form.contains_target(target));
            prop_assert!(!is_well || shape.ended >= 20);
        }
    }

    /// A widened form includes both names, except where they could be words or dates, and only names of their frame.
    #[test]
    fn a_widened_form_has_the_frame_of_its_names(one in "[a-z0-9.-]{1,20}", other in "[a-z0-9.-]{1,20}", third in "[a-z0-9.-]{1,20}") {
        if let Some(form) = Form::literal(one.as_bytes()).widened(other.as_bytes()) {
            prop_assert_eq!(one.len(), other.len());
            let again = Form::from_parts(form.example().to_vec(), form.parts().to_vec());
            prop_assert_eq!(again.as_ref(), Some(&form));
            let with_one = form.widened(one.as_bytes());
            prop_assert_eq!(with_one.as_ref(), Some(&form));
            let with_other = form.widened(other.as_bytes());
            prop_assert_eq!(with_other.as_ref(), Some(&form));
            if form.matches(third.as_bytes()) {
                prop_assert_eq!(third.len(), one.len());
                let separators = |name: &str| name.replace(|c: char| c.is_ascii_alphanumeric(), "0");
                prop_assert_eq!(separators(&third), separators(&one));
            }
        }
    }

    /// Names with enough random characters are learned, whatever is literal in them.
    #[test]
    fn random_names_are_learned(prefix in "[a-z]{1,4}\\.[a-z]{1,4}", suffix in "(\\.[xyz]{3})?", seed in 1..u64::MAX) {
        let mut watched = Watched::new();
        let mut bits = random(seed);
        for _ in 0..60 {
            watched.write(format!("{prefix}.{}{suffix}", characters(&mut bits, ALNUM, 16)), &prefix);
        }
        let known = watched.known();
        prop_assert!(known.iter().any(|shape| shape.starts_with('!')), "{:?}", known);
    }

    /// A counter is never learned, whatever its start, its step and its number system.
    #[test]
    fn counters_are_never_learned(start in 0..u64::from(u32::MAX), step in 1..1_000_000_u64, radix in 0..2) {
        let mut watched = Watched::new();
        for n in 0..40 {
            let value = start + n * step;
            let value = if radix == 0 { format!("{value:020}") } else { format!("{value:016x}") };
            watched.write(format!("data.json.{value}"), "data.json");
            prop_assert_eq!(watched.known(), [""; 0]);
        }
    }
}
