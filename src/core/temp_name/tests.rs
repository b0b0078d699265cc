//! Tests of all parts together.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::grammar::{BUILT_IN, Grammar, NameEnd, NameParts, built_in};
use super::token::{PID_MAX, Token};
use super::*;
use crate::core::learn::{Form, TargetShape};
use crate::core::own_names::OWN_PREFIX;
use crate::core::reserved::Reserved;
use proptest::prelude::*;

const NONE: [&str; 0] = [];
const UUID: &str = "1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b";
const T_PID_UUID: Option<&str> = Some("<t>.<pid>.<uuid>.tmp");
const T_UUID: Option<&str> = Some("<t>.<uuid>.tmp");
const T_PID_N: Option<&str> = Some("<t>.<pid>.<n>.tmp");
const T_PID: Option<&str> = Some("<t>.<pid>.tmp");
const T: Option<&str> = Some("<t>.tmp");

fn names(globs: &[&str], writers: &[&str]) -> Names {
    Names::allowing_broad(globs, writers).expect("the rules of these tests are valid")
}

/// In each row `U` is replaced by a uuid, and `*` before a form means that the shape is known.
#[test]
fn names_of_one_writer_have_one_shape() {
    let names = names(&NONE, &["git", "claude-code"]);
    for (name, form, target, longer) in [
        ("s.json.U.tmp", "*s.json.<uuid>.tmp", Some("s.json"), None),
        (
            "s.json.47.U.tmp",
            "*s.json.<pid>.<uuid>.tmp",
            Some("s.json"),
            Some("s.json.47"),
        ),
        (
            "log.2024.U.tmp",
            "*log.2024.<uuid>.tmp",
            Some("log.2024"),
            Some("log.2024"),
        ),
        (
            "log.0123.U.tmp",
            "*log.0123.<uuid>.tmp",
            Some("log.0123"),
            None,
        ),
        (
            "log.20240131.U.tmp",
            "*log.20240131.<uuid>.tmp",
            Some("log.20240131"),
            None,
        ),
        (
            "log.240131.tmp",
            "log.240131.tmp",
            Some("log.240131"),
            Some("log.240131"),
        ),
        (
            "log.202413.tmp",
            "log.<pid>.tmp",
            Some("log"),
            Some("log.202413"),
        ),
        ("a.47.2.tmp", "a.<pid>.<n>.tmp", Some("a"), Some("a.47.2")),
        (
            "a.47.2024.tmp",
            "a.47.2024.tmp",
            Some("a.47.2024"),
            Some("a.47.2024"),
        ),
        ("a.tmp", "a.tmp", Some("a"), None),
        (
            "c.json.tmp.47.0123456789ab",
            "*c.json.tmp.<pid>.<hex:12>",
            Some("c.json"),
            None,
        ),
        ("tmp_obj_aB3dE6", "*tmp_obj_<alnum:6>", None, None),
        ("blob-U", "blob-<uuid>", None, None),
        ("blob-017", "blob-<n>", None, None),
        ("blob-01ab7f", "blob-<hex>", None, None),
        ("film1.part", "film1.part", None, None),
    ] {
        let full = name.replace('U', UUID);
        let shape = names.shape(OsStr::new(&full));
        assert_eq!(names.form(OsStr::new(&full)), shape.form, "{name}");
        let star = if shape.is_known { "*" } else { "" };
        let shown = format!("{star}{}", shape.form.to_str().unwrap());
        let text = |name: &Option<OsString>| name.as_ref().map(|n| n.to_str().unwrap().to_owned());
        assert_eq!(shown, form, "{name}");
        assert_eq!(text(&shape.target).as_deref(), target, "{name}");
        assert_eq!(text(&shape.numbered_target).as_deref(), longer, "{name}");
    }
}

/// Name, grammar, targets, pid, and whether the name is random.
type ParseRow<'a> = (&'a str, Option<&'a str>, &'a [&'a str], Option<u32>, bool);

fn patterns() -> impl Iterator<Item = &'static str> {
    let writers = writers().flat_map(|writer| &writer.patterns);
    writers.map(String::as_str).chain(BUILT_IN)
}

/// In each row `U` is replaced by a uuid.
fn check(writers: &[&str], rows: &[ParseRow<'_>]) {
    let names = names(&NONE, writers);
    for (name, grammar, targets, pid, random) in rows {
        let name = name.replace('U', UUID);
        let parsed = names.parse(OsStr::new(&name));
        let expected = ParsedName {
            owner: None,
            numbered_targets: parsed.numbered_targets.clone(),
            grammar: grammar.map(Into::into),
            writer: parsed.writer.clone(),
            is_discarded: parsed.is_discarded,
            is_longest: false,
            longer_targets: parsed.longer_targets.clone(),
            may_be_word: parsed.may_be_word,
            targets: targets
                .iter()
                .map(|t| OsString::from(t.replace('U', UUID)))
                .collect(),
            pid: *pid,
            is_random: *random,
        };
        assert_eq!(parsed, expected, "{name:?}");
    }
}

/// In each row: the name before the uuid, the target by the name alone, and the target with the digits.
#[test]
fn digits_before_a_uuid_may_belong_to_the_target() {
    let names = names(&NONE, &NONE);
    #[rustfmt::skip]
    let rows = [
        ("metrics.4711", "metrics", Some("metrics.4711")),
        ("metrics.1900", "metrics.1900", None),
        ("metrics.2024", "metrics.2024", None),
        ("metrics.2100", "metrics.2100", None),
        ("metrics.1899", "metrics", Some("metrics.1899")),
        ("metrics.2101", "metrics", Some("metrics.2101")),
        ("metrics.202411", "metrics.202411", None),
        ("metrics.202413", "metrics", Some("metrics.202413")),
        ("metrics.202400", "metrics", Some("metrics.202400")),
        ("metrics.241129", "metrics.241129", None),
        ("metrics.241132", "metrics", Some("metrics.241132")),
        ("metrics.241329", "metrics", Some("metrics.241329")),
        ("metrics.20241129", "metrics.20241129", None),
        ("metrics.123124", "metrics.123124", None),
        ("metrics.311224", "metrics.311224", None),
        ("metrics.123269", "metrics", Some("metrics.123269")),
        ("metrics.323124", "metrics", Some("metrics.323124")),
        ("metrics.123130", "metrics", Some("metrics.123130")),
        ("metrics.2024366", "metrics.2024366", None),
        ("metrics.2024367", "metrics", Some("metrics.2024367")),
        ("metrics.007", "metrics.007", None),
        ("metrics", "metrics", None),
    ];
    for (stem, target, numbered) in rows {
        let parsed = names.parse(OsStr::new(&format!("{stem}.{UUID}.tmp")));
        let first = |names: &[OsString]| names.first().cloned();
        assert_eq!(first(&parsed.targets), Some(target.into()), "{stem}");
        assert_eq!(
            first(&parsed.numbered_targets),
            numbered.map(OsString::from),
            "{stem}"
        );
        if let Some(numbered) = numbered {
            let longer = parsed.with_numbered_targets();
            assert_eq!(first(&longer.targets), Some(numbered.into()), "{stem}");
            assert!(longer.pid.is_some() && longer.is_random, "{stem}");
        }
    }
}

#[test]
fn a_number_is_stripped_from_a_name() {
    for (name, want) in [
        ("metrics.2023", Some("metrics")),
        ("metrics.1", Some("metrics")),
        (&*format!("metrics.{UUID}"), Some("metrics")),
        ("metrics2023", None),
        ("metrics", None),
        (".2023", None),
        ("", None),
    ] {
        let found = strip_number(name.as_bytes()).map(|stem| str::from_utf8(stem).unwrap());
        assert_eq!(found, want, "{name}");
    }
}

#[test]
#[rustfmt::skip] // one row a line
fn built_in_grammars_parse_names() {
    check(&NONE, &[
        ("sessions.json.4711.U.tmp", T_PID_UUID, &["sessions.json"], Some(4711), true),
        (".sessions.json.4711.U.tmp", T_PID_UUID, &[".sessions.json", "sessions.json"], Some(4711), true),
        ("a.4194304.U.tmp", T_PID_UUID, &["a"], Some(4_194_304), true),
        ("a.4194305.U.tmp", T_UUID, &["a.4194305"], None, true),
        ("a.0.U.tmp", T_UUID, &["a.0"], None, true),
        ("a.0123.U.tmp", T_UUID, &["a.0123"], None, true),
        ("a.+1.U.tmp", T_UUID, &["a.+1"], None, true),
        ("4711.U.tmp", T_UUID, &["4711"], None, true),
        ("sessions.json.U.tmp", T_UUID, &["sessions.json"], None, true),
        ("a.U.U.tmp", T_UUID, &["a.U"], None, true),
        ("U.tmp", T, &["U"], None, false),
        (".U.tmp", T, &[".U", "U"], None, false),
        ("a.12.3.tmp", T_PID_N, &["a.12.3"], Some(12), true),
        ("a.12.0003.tmp", T_PID_N, &["a.12.0003"], Some(12), true),
        ("a.012.3.tmp", T_PID, &["a.012.3"], Some(3), true),
        ("a.12..tmp", T, &["a.12."], None, false),
        ("report.2024.tmp", T_PID, &["report.2024"], Some(2024), true),
        (".report.2024.tmp", T_PID, &[".report.2024", "report.2024"], Some(2024), true),
        ("report.4194305.tmp", T, &["report.4194305"], None, false),
        ("report.02.tmp", T, &["report.02"], None, false),
        ("state.tmp", T, &["state"], None, false),
        (".state.tmp", T, &[".state", "state"], None, false),
        ("..x.tmp", T, &["..x", ".x"], None, false),
        ("...x.tmp", T, &["...x", "..x"], None, false),
        ("..tmp", T, &[], None, false),
        ("...tmp", T, &[], None, false),
        ("a/b.tmp", T, &[], None, false),
        (".tmp", None, &[], None, false),
        ("state.TMP", None, &[], None, false),
        ("state", None, &[], None, false),
        ("", None, &[], None, false),
    ]);
}

/// Numbers that may belong to the target of an unknown writer are pids of a known one.
#[test]
fn names_of_a_known_writer_form_groups() {
    let default = Names::default();
    let claude = names(&NONE, &["claude-code", "git"]).with_default_writers();
    let other = names(&["*.tmp", "x*"], &[]).with_default_writers();
    for (names, name, group) in [
        (&default, "sessions.json.U.tmp", Some("sessions.json")),
        (&default, "openclaw.json.U.tmp", Some("openclaw.json")),
        (&default, "sessions.json.47.U.tmp", Some("sessions.json")),
        (&default, "sessions.json.2024.U.tmp", Some("sessions.json")),
        (&default, "sessions.json.0123.U.tmp", None),
        (&default, "sessions.json.20240131.U.tmp", None),
        (&default, ".sessions.json.U.tmp", None),
        (&default, "sessions.jsonl.U.tmp", None),
        (&default, "job.U.tmp", None),
        (&default, "sessions.json.47.tmp", None),
        (&default, "sessions.json.tmp", None),
        (&default, "sessions.json", None),
        (&default, ".claude.json.tmp.618010.1da311f03c01", None),
        (
            &claude,
            ".claude.json.tmp.618010.1da311f03c01",
            Some(".claude.json"),
        ),
        (&claude, "tmp_obj_Ab3dE6", None),
        (&claude, "sessions.json.U.tmp", Some("sessions.json")),
        (&other, "sessions.json.U.tmp", None),
    ] {
        let name = name.replace('U', UUID);
        let shape = names.shape(OsStr::new(&name));
        assert_eq!(shape.group.as_deref(), group.map(OsStr::new), "{name}");
    }
}

#[test]
#[rustfmt::skip] // one row a line
fn grammars_of_writers_parse_names() {
    let long = |t: usize| format!("{}.tmp-1234567890abcdef", "x".repeat(t));
    let claude = Some("<t>.tmp.<pid>.<hex:12>");
    let atomically = Some("<t>.tmp-<digits:10><hex:6>");
    let rows: &[ParseRow<'_>] = &[
        (".claude.json.tmp.618010.1da311f03c01", claude, &[".claude.json", "claude.json"], Some(618_010), true),
        ("2024.7.tmp.9.07ff79270095", claude, &["2024.7"], Some(9), true),
        ("a.tmp.0618010.1da311f03c01", None, &[], None, false),
        ("a.tmp.618010.1DA311F03C01", None, &[], None, false),
        ("a.tmp.618010.1da311f03c0", None, &[], None, false),
        ("config.json.tmp-8123456789a1b2c3", atomically, &["config.json"], None, true),
        (&long(106), atomically, &[&"x".repeat(106)], None, true),
        (&long(107), atomically, &[], None, true),
        ("config.json.tmp-812345678a1b2c3", None, &[], None, false),
        ("tmp_obj_Ab3dE6", Some("tmp_obj_<alnum:6>"), &[], None, true),
        ("tmp_pack_Ab3dE6", Some("tmp_pack_<alnum:6>"), &[], None, true),
        ("tmp_pack_Ab3dE", None, &[], None, false),
        ("tmp_pack_backup", None, &[], None, false),
        ("tmp_pack_Ab3-E6", None, &[], None, false),
        ("xtmp_obj_Ab3dE6", None, &[], None, false),
        ("sessions.json.12.U.tmp", T_PID_UUID, &["sessions.json"], Some(12), true),
        ("sessions.json.2024.U.tmp", T_PID_UUID, &["sessions.json"], Some(2024), true),
        ("openclaw.json.U.tmp", T_UUID, &["openclaw.json"], None, true),
        // The built-in grammars still match.
        ("a.12.U.tmp", T_PID_UUID, &["a"], Some(12), true),
    ];
    check(&["openclaw", "claude-code", "atomically", "git"], rows);
    check(&NONE, &[(".claude.json.tmp.618010.1da311f03c01", None, &[], None, false)]);
}

#[test]
#[rustfmt::skip] // one row a line
fn a_rule_matches_its_names_only() {
    /// Globs, writers, name, and whether the rule matches it.
    type MatchRow<'a> = (&'a [&'a str], &'a [&'a str], &'a [u8], bool);
    let rows: &[MatchRow<'_>] = &[
        (&[], &[], b"a.tmp", true),
        (&[], &[], b".a.tmp", true),
        (&[], &[], b"a.TMP", false),
        (&[], &[], b"a.tmp~", false),
        (&[], &[], b"tmp", false),
        (&[], &[], b"", false),
        (&[], &[], b"\xff\n\x1b[31m.tmp", true),
        (&[], &[], &[b'x'; 255], false),
        (&[], &[], b".syncthing.a.json.tmp", false),
        (&[], &[], b".syncthing.tmp", true),
        (&[], &[], b"0.tmp", false),
        (&[], &[], b"0123456789.tmp", false),
        (&[], &[], b"0a.tmp", true),
        (&[], &[], b".tmp", false),
        (&[], &[], b".orphand.tmp", false),
        (&["*.tmp"], &[], b"a.tmp", true),
        (&["*.tmp"], &[], b"0.tmp", false),
        (&["*"], &[], b"a", true),
        (&["*"], &[], b"0.tmp", false),
        (&["*"], &[], b".syncthing.a.tmp", false),
        (&["*"], &[], b".orphand", false),
        (&["**"], &[], b"0.tmp", false),
        (&["?*.tmp"], &[], b"0.tmp", false),
        (&["*.*"], &[], b".tmp", false),
        (&["*.{tmp,part}"], &[], b"0.tmp", false),
        (&["*.{tmp,part}"], &[], b"0.part", true),
        (&[".*.tmp"], &[], b".syncthing.a.tmp", false),
        (&[".*.tmp"], &[], b".a.tmp", true),
        (&["[0-9]*.tmp"], &[], b"0.tmp", true),
        (&["?.tmp"], &[], b"0.tmp", true),
        (&["*.tmp", "0.tmp"], &[], b"0.tmp", true),
        (&["*.tmp", "0.tmp"], &[], b"1.tmp", false),
        (&[".tmp"], &[], b".tmp", true),
        (&[".syncthing.*.tmp"], &[], b".syncthing.a.tmp", true),
        (&[".orphand*"], &[], b".orphand-x.tmp", false),
        (&["*.part"], &[], b"a.tmp", false),
        (&["*.part"], &[], b"a\n\xff.part", true),
        (&["a?b.part"], &[], b"a\nb.part", true),
        (&["a?b.part"], &[], b"a\xffb.part", true),
        (&["a[*]b"], &[], b"a*b", true),
        (&["a\\*b"], &[], b"axb", false),
        (&["x*"], &[], &[b'x'; 255], true),
        (&[], &["claude-code"], b"a.tmp.7.1da311f03c01", true),
        (&[], &["claude-code"], b"a.tmp", true),
        (&[], &[], b"a.tmp.7.1da311f03c01", false),
        (&["*.part"], &["git"], b"tmp_obj_Ab3dE6", true),
        (&["*.part"], &["git"], b"a.tmp", false),
        (&[], &["claude-code"], b".orphand.tmp.7.1da311f03c01", false),
    ];
    for (globs, writers, name, expected) in rows {
        let is_match = names(globs, writers).matches(name);
        assert_eq!(is_match, *expected, "{globs:?} {writers:?} {}", name.escape_ascii());
    }
    for (_, _, name, expected) in rows.iter().filter(|row| row.0.is_empty() && row.1.is_empty()) {
        assert_eq!(Names::default().matches(name), *expected, "{}", name.escape_ascii());
    }
}

#[test]
fn a_glob_needs_a_literal_character() {
    for (glob, broad) in [
        ("*", true),
        ("**", true),
        ("?*", true),
        ("*.*", true),
        ("*-*", true),
        ("*_~.*", true),
        ("[a-z]*", true),
        ("[a]", true),
        ("{*,a*}", true),
        ("{*.tmp,*.*}", true),
        ("*.tmp", false),
        ("a*", false),
        ("*.{tmp,part}", false),
        ("{a,b}*", false),
        (r"\**", false),
        ("*#", false),
        ("*é", false),
    ] {
        let refused = NameError::BroadGlob { glob: glob.into() };
        let want = broad.then_some(refused);
        assert_eq!(Names::new(&[glob], &NONE).err(), want, "{glob}");
        assert!(Names::allowing_broad(&[glob], &NONE).is_ok(), "{glob}");
    }
    let error = Names::new(&["*.tmp", "*"], &NONE).expect_err("one glob is broad");
    let error = error.to_string();
    assert!(error.contains("--allow-broad-name"), "{error}");
    let many = "{a,b}".repeat(12);
    let error = Names::new(&[many], &NONE).expect_err("too many alternatives");
    assert!(error.to_string().contains("alternatives"), "{error}");
}

#[test]
#[rustfmt::skip] // one row a line
fn reserved_names_are_recognized() {
    /// Globs, writers, name, and the pattern by which it is reserved.
    type ReservedRow<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<&'a str>);
    let rows: &[ReservedRow<'_>] = &[
        (&[], &[], "a.tmp", None),
        (&[], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
        (&["*.tmp"], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
        (&["CFNetworkDownload_*.tmp"], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
        (&["CFNetworkDownload_x.tmp"], &[], "CFNetworkDownload_x.tmp", None),
        (&[], &[], ".nfs0001.tmp", Some(".nfs*")),
        (&["*-journal"], &[], "app.db-journal", Some("*-journal")),
        (&["app.db-journal"], &[], "app.db-journal", None),
        (&["app.db-*"], &[], "app.db-journal", Some("*-journal")),
        (&["*.lock"], &[], "a.lock", Some("*.lock")),
        (&["*.LOCK"], &[], "a.LOCK", Some("*.lock")),
        (&["{a,b}.lock"], &[], "b.lock", None),
        (&[r"a\.lock"], &[], "a.lock", None),
        (&["?.lock"], &[], "a.lock", Some("*.lock")),
        (&["[a].lock"], &[], "a.lock", Some("*.lock")),
        (&["*"], &[], "a.lock", Some("*.lock")),
        (&["*.part"], &[], "a.part", None),
        (&["*.{part,tmp}"], &[], "a.part", None),
        (&["a*.part"], &[], "a.part", None),
        (&["a.part"], &[], "a.part", None),
        (&["a*"], &[], "a.part", Some("*.part")),
        (&["*part"], &[], "a.part", Some("*.part")),
        (&["*.par?"], &[], "a.part", Some("*.part")),
        (&["b*.part", "a*"], &[], "a.part", Some("*.part")),
        (&["*~"], &[], "a~", None),
        (&["*"], &[], "a~", Some("*~")),
        (&["*.bak"], &[], ".nfs1.bak", Some(".nfs*")),
        (&["*.bak~"], &[], "a.bak~", None),
        (&["*-partial-7"], &[], "a-partial-7", None),
        (&["*-partial-*"], &[], "a-partial-7", Some("*-partial-<n>")),
        (&["*.backup-*"], &[], "a.backup-1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b", Some("*.backup-<uuid>")),
        // The list also has priority over the grammar of a writer.
        (&[], &["claude-code"], "~$a.tmp.7.1da311f03c01", Some("~$*")),
        (&[], &["claude-code"], "a.tmp.7.1da311f03c01", None),
        // The star matches an empty text.
        (&["sessions.json*"], &[], "sessions.json", Some("sessions.json*")),
        (&["sessions.json**"], &[], "sessions.json", Some("sessions.json**")),
        (&["sessions.json*"], &[], "sessions.json.1.tmp", None),
        (&["{sessions,data}.json*"], &[], "data.json", Some("{sessions,data}.json*")),
        (&["s*.json*"], &[], "sessions.json", Some("s*.json*")),
        (&["sessions.json", "sessions.json*"], &[], "sessions.json", None),
        (&["sessions.json*", "*.json"], &[], "sessions.json", None),
        (&["sessions.json*", "*"], &[], "sessions.json", Some("sessions.json*")),
        (&["*.tmp", "a*"], &[], "a", Some("a*")),
        (&["*.tmp", "a.tmp*"], &[], "a.tmp", None),
        (&["a.tmp*"], &[], "a.tmp", Some("a.tmp*")),
    ];
    for (globs, writers, name, want) in rows {
        let names = names(globs, writers);
        assert!(names.matches(name.as_bytes()), "{globs:?} {name}");
        let reserved = match names.reserved(name.as_bytes()) {
            Some(Reserved::Listed(row)) => Some(row.pattern.to_owned()),
            Some(Reserved::EmptyStar(glob)) => Some(glob),
            Some(other) => panic!("{globs:?} {name}: {other:?}"),
            None => None,
        };
        assert_eq!(reserved.as_deref(), *want, "{globs:?} {writers:?} {name}");
    }
}

#[test]
#[rustfmt::skip] // one row a line
fn targets_are_found_among_the_names_of_a_directory() {
    /// Globs, writers, names in the directory, and targets.
    type TargetRow<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let rows: &[TargetRow<'_>] = &[
        (&[], &[], &["a", "a.tmp", "b.7.U.tmp"], &[]),
        (&[], &[], &["a.tmp.tmp"], &["a.tmp"]),
        (&[], &[], &["a.tmp.U.tmp"], &["a.tmp"]),
        (&[], &[], &["a.tmp.7.tmp"], &["a.tmp"]),
        (&[], &[], &[".a.tmp.tmp"], &[".a.tmp", "a.tmp"]),
        (&[], &[], &["a.tmp.tmp.tmp"], &["a.tmp.tmp"]),
        (&[], &[], &["a.tmp~"], &[]),
        (&["sessions.json*"], &[], &["sessions.json.U.tmp"], &["sessions.json", "sessions.json.U"]),
        (&["s*"], &[], &["s.2024.tmp"], &["s", "s.2024"]),
        (&["*.json", "*.tmp"], &[], &["a.json.tmp", "b.tmp"], &["a.json"]),
        (&["*.json"], &[], &["a.json.tmp"], &[]),
        (&["*.json"], &["claude-code"], &["a.json.tmp.7.1da311f03c01"], &["a.json"]),
    ];
    for (globs, writers, present, want) in rows {
        let present: Vec<OsString> = present.iter().map(|name| name.replace('U', UUID).into()).collect();
        let targets = names(globs, writers).targets_among(present.iter().map(AsRef::as_ref));
        let mut targets: Vec<OsString> = targets.into_keys().collect();
        targets.sort();
        let want: Vec<OsString> = want.iter().map(|name| name.replace('U', UUID).into()).collect();
        assert_eq!(targets, want, "{globs:?} {present:?}");
    }
}

#[test]
fn ineffective_globs_are_found() {
    let all = names(
        &[
            "*-journal",
            "*.{lock,pid}",
            "*.{lock,part}",
            "a.lock",
            "*.part",
            "a*",
            "*",
        ],
        &NONE,
    );
    let without: Vec<&str> = all.ineffective_globs().iter().map(|one| one.0).collect();
    assert_eq!(without, ["*-journal", "*.{lock,pid}"]);
}

#[test]
fn a_narrower_glob_is_proposed() {
    let all = names(
        &["sessions.json*", "*.part", "a*b*", "x.tmp*", "a.*", "*"],
        &NONE,
    );
    let narrower = all.narrower();
    let instead: Vec<&str> = narrower.iter().map(|one| one.instead.as_str()).collect();
    assert_eq!(instead, ["sessions.json.*.tmp"]);
    let message = narrower.first().map(ToString::to_string);
    let message = message.unwrap_or_default();
    assert!(
        message.contains("also matches \"sessions.json\""),
        "{message}"
    );
    assert_eq!(names(&NONE, &NONE).narrower(), []);
}

#[test]
fn names_are_shown_as_given() {
    let all = names(&["*.part", "*.tmp"], &["git"]);
    let want = "*.tmp, *.part, tmp_obj_<alnum:6> and 10 more of git";
    assert_eq!(all.to_string(), want);
    assert_eq!(Names::default().to_string(), "*.tmp");
    assert_eq!(names(&["*.part"], &NONE).to_string(), "*.part");
}

#[test]
#[rustfmt::skip] // one row a line
fn errors_say_what_to_do() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("", "", &["empty", "leave it out"]),
        ("cache/*.part", "", &["\"cache/*.part\"", "write \"*.part\""]),
        ("cache/", "", &["write \"*.tmp\""]),
        ("{a/[b,c}", "", &["write \"*.tmp\""]),
        ("[a", "", &["\"[a\"", "unclosed character class", "backslash"]),
        ("[b-\x1b]", "", &["'b' > '\\u{1b}'"]),
        ("*.tmp", "claude", &["\"claude\"", "did you mean \"claude-code\"", "--writer list"]),
        ("*.tmp", "Git", &["did you mean \"git\""]),
        ("*.tmp", "atomicaly", &["did you mean \"atomically\""]),
    ];
    for (glob, writer, parts) in rows {
        let writers: &[&str] = if writer.is_empty() { &[] } else { &[writer] };
        let error = Names::new(&[glob], writers).expect_err("the rule is wrong").to_string();
        for part in *parts {
            assert!(error.contains(part), "{error:.300} does not contain {part}");
        }
    }
    assert_eq!(Names::new(&[""], &NONE).err(), Some(NameError::EmptyGlob));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(
        start in prop::sample::select(&["", ".", "..", ".syncthing.", ".orphand"][..]),
        middle in prop::collection::vec(any::<u8>(), 0..300),
        end in prop::sample::select(&["", ".tmp", ".7.tmp", ".7.8.tmp", "-1b4e.tmp", ".tmp.7.0123456789ab"][..]),
    ) {
        let name = [start.as_bytes(), &middle, end.as_bytes()].concat();
        let names = names(&["*.tmp", "[!a]?*.{part,tmp}"], &["claude-code", "atomically", "git"]);
        prop_assert!(!(names.matches(&name) && name.starts_with(OWN_PREFIX.as_bytes())));
        for target in names.parse(OsStr::from_bytes(&name)).targets {
            prop_assert!(!matches!(target.as_bytes(), b"" | b"." | b".."));
            prop_assert!(target.len() < name.len() && !target.as_bytes().contains(&b'/'));
        }
    }

    #[test]
    fn a_built_name_is_split_into_its_parts(
        target in prop::collection::vec(any::<u8>(), 1..100),
        pid in 1..=PID_MAX,
        number in any::<u64>(),
        uuid in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        random in "[0-9a-f]{64}",
        digits in "[0-9]{40}",
        mixed in "([a-z][A-Z][0-9]){8}",
    ) {
        let default_names = Names::default();
        for pattern in patterns() {
            let grammar = Grammar::new(pattern, None).expect("the pattern is in the notation");
            let mut expected = NameParts { target: None, pid: None, is_random: true, may_be_word: false, is_certain: true };
            let mut name = grammar.pattern.prefix.as_bytes().to_vec();
            for token in &grammar.pattern.tokens {
                let part = match token {
                    Token::Target => { expected.target = Some(&target[..]); target.clone() }
                    Token::Pid => { expected.pid = Some(pid); pid.to_string().into_bytes() }
                    Token::Number => number.to_string().into_bytes(),
                    Token::Uuid => uuid.clone().into_bytes(),
                    Token::Hex(len) => random.as_bytes()[..*len].to_vec(),
                    Token::Alnum(len) => mixed.as_bytes().repeat(5)[..*len].to_vec(),
                    Token::Class(class) => {
                        let mut members = mixed.bytes().cycle().filter(|byte| class.contains(byte));
                        let part: Vec<u8> = members.by_ref().take(class.len).collect();
                        part
                    }
                    Token::Digits(len) => digits.as_bytes()[..*len].to_vec(),
                    Token::Literal(literal) => literal.as_bytes().to_vec(),
                };
                name.extend(part);
            }
            let found = grammar.split(&name);
            let end = NameEnd::of(&name);
            prop_assert!(found.is_none() || grammar.may_match(&name, end), "{}", name.escape_ascii());
            prop_assert_eq!(grammar.split_by_end(&name, end), found, "{}", name.escape_ascii());
            let all = default_names.active_writers().flat_map(|writer| &writer.grammars);
            let first = all.chain(built_in()).find(|grammar| grammar.split(&name).is_some());
            let parsed = default_names.parse(OsStr::from_bytes(&name));
            let first = first.map(|grammar| Arc::clone(&grammar.text));
            prop_assert_eq!(parsed.grammar, first, "{}", name.escape_ascii());
            prop_assert!(found.is_some() || grammar.may_refuse(), "{}", name.escape_ascii());
            // Digits that may be a date are not random.
            let found = found.map(|found| NameParts {
                is_random: found.is_random || !found.is_certain,
                is_certain: true,
                may_be_word: false,
                ..found
            });
            prop_assert!(found.is_none_or(|found| found == expected), "{}", name.escape_ascii());
        }
    }
}

/// A date is a part of the target's name in the shape too, whatever its form is.
#[test]
fn a_date_of_any_form_stays_in_the_shape() {
    for digits in ["2024", "2026331", "301299", "20261130"] {
        let name = format!("log.{digits}.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp");
        let shape = Names::default().shape(OsStr::new(&name));
        let want = format!("log.{digits}");
        assert_eq!(shape.target.as_deref(), Some(OsStr::new(&want)));
    }
}

/// The order in which names are read: writers, learned shapes, built-in grammars.
#[test]
fn a_learned_shape_is_read_after_the_writers() {
    let (one, other) = (
        "sessions.json.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp",
        "sessions.json.8f14e45f-ceea-467f-9e6b-d1c2b3a49586.tmp",
    );
    let form = Form::literal(one.as_bytes()).widened(other.as_bytes());
    let shape = TargetShape {
        form: form.unwrap(),
        target: b"sessions.json".to_vec(),
        owner: 1000,
    };
    let shapes: Arc<[TargetShape]> = [shape].into();
    for (writers, is_told) in [(&NONE[..], true), (&["openclaw"], false)] {
        let names = names(&NONE, writers).with_shapes(Arc::clone(&shapes));
        let told = names.telling_shape(other.as_bytes(), 1000);
        assert_eq!(told.is_some(), is_told, "{writers:?}");
        let without = names.with_shapes(Arc::default());
        assert_eq!(names.parse(OsStr::new(one)), without.parse(OsStr::new(one)));
        assert!(
            names.group_of(OsStr::new(one), 1000).is_some(),
            "{writers:?}"
        );
        assert_eq!(
            without.group_of(OsStr::new(one), 1000).is_some(),
            !is_told,
            "{writers:?}"
        );
    }
}
