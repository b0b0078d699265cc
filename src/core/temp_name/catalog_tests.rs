//! One row for each writer of the catalog: names that it matches, each with its target, and names that it must not
//! match.

use std::ffi::{OsStr, OsString};

use super::catalog::{parse, rows};
use super::*;

const UUID: &str = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
const HEX_40: &str = "0123456789abcdef0123456789abcdef01234567";
const HEX_64: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The name of the writer, the names that it matches with their targets (empty: the name has none), and others.
type WriterRow<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

/// Returns a name for each pattern, with its writer.
pub(super) fn names_of_rows() -> Vec<(&'static str, String)> {
    let names = |row: &WriterRow<'static>| {
        let (writer, matched, _) = *row;
        let names = matched.iter().map(move |(name, _)| (writer, expand(name)));
        names.collect::<Vec<_>>()
    };
    ROWS.iter().flat_map(names).collect()
}

/// `U` stands for a uuid, `H` for 40 hex digits and `X` for 64.
#[rustfmt::skip] // one name or one row a line
const ROWS: &[WriterRow<'_>] = &[
    ("openclaw", &[
        ("sessions.json.4711.U.tmp", "sessions.json"),
        ("sessions.json.U.tmp", "sessions.json"),
        ("openclaw.json.U.tmp", "openclaw.json"),
    ], &["other.json.U.tmp", "sessions.jsonl.U.tmp", "sessions.json.tmp", "sessions.json"]),
    ("openclaw-files", &[
        ("a.jsonl.repair.4711.U.tmp", "a.jsonl"),
        ("a.jsonl.repair-4711-1764444444444.tmp", "a.jsonl"),
        ("MEMORY.md.forget.4711.U.tmp", "MEMORY.md"),
        ("MEMORY.md.promotion.4711.U.tmp", "MEMORY.md"),
        ("DREAMS.md.dreams.4711.U.tmp", "DREAMS.md"),
        ("page.md.lint-report.4711.U.tmp", "page.md"),
    ], &["a.jsonl.repair.U.tmp", "a.jsonl.bak-4711-1764444444444", "a.rebuild.4711.U.tmp", ".repair.4711.U.tmp"]),
    ("openclaw-memory", &[("main.sqlite.tmp-U", "main.sqlite")],
        &["main.sqlite.tmp-U-wal", "main.sqlite.backup-U", "main.sqlite.tmp"]),
    ("fs-safe", &[(".fs-safe-replace.4711.U.tmp", "")],
        &[".fs-safe-replace.U.tmp", "x.fs-safe-replace.4711.U.tmp", ".fs-safe-replace.4711.tmp"]),
    ("claude-code", &[(".claude.json.tmp.618010.1da311f03c01", ".claude.json"), ("2024.7.tmp.9.07ff79270095", "2024.7")],
        &["a.tmp.0618010.1da311f03c01", "a.tmp.618010.1DA311F03C01", "a.tmp.618010.1da311f03c0"]),
    ("cortex", &[("a.db.tmp.4711.1764444444444", "a.db")], &["a.db.tmp.4711.176444444444", "a.db.4711.1764444444444"]),
    ("lean-ctx", &[(".a.rs.lean-ctx.tmp.4711.123456", "a.rs"), ("..env.lean-ctx.tmp.4711.1", ".env")],
        &["a.rs.lean-ctx.tmp.4711.1", ".a.rs.tmp.4711.1", ".lean-ctx.tmp.4711.1"]),
    ("opencodex", &[("a.toml.ocx.4711.3.tmp", "a.toml")], &["a.toml.ocx.4711.tmp", "a.toml.4711.3.tmp"]),
    ("trace-mcp", &[(".a.json.tmp.4711.0123456789ab", "a.json"), ("a.json.tmp.4711.0123456789ab", "a.json")],
        &["a.json.tmp.4711.0123456789", "a.json.tmp.x.0123456789ab"]),
    ("romp", &[("a.tmp.4711.2.3", "a"), ("a.tmp.4711", "a")], &["a.4711.2.3", "a.tmp.4711.2"]),
    ("exarchos", &[("a.state.json.tmp.5.4711", "a.state.json"), ("a.state.json.tmp.4711", "a.state.json")],
        &["a.state.json.4711", "a.tmp.5.4194305"]),
    ("cc-settings", &[(".4711-1764444444444.tmp", "")], &[".4711-176444444444.tmp", "a.4711-1764444444444.tmp", ".2024-01.tmp"]),
    ("caveman", &[(".caveman-active.4711.17", "")], &[".caveman-active", ".caveman-active.4711", "caveman-active.4711.17"]),
    ("pi-subagents", &[("state.json.tmp-4711-1764444444444", "state.json")], &["state.json.tmp-4711", "state.json.tmp-4711-17"]),
    ("nanotune", &[("a.json.tmp-4711", "a.json")], &["a.json.tmp-4711-1", "a.json.tmp-04711", "a.json.4711"]),
    ("kirocrew", &[("tmpr3tea0ke.tmp", "")], &["tmpmarkdown.tmp", "tmpsettings.tmp", "tmp20261129.tmp", "a.tmpr3tea0ke.tmp"]),
    ("atomically", &[("config.json.tmp-8123456789a1b2c3", "config.json")],
        &["config.json.tmp-812345678a1b2c3", "config.json.tmp-8123456789A1B2C3", "config.json.tmp"]),
    // Digits that may be a time, a date or a counter of the target's name.
    ("write-file-atomic", &[("data.json.741603160", ""), ("data.json.41603160", ""), ("data.json.4241603160", "")],
        &["app.log.2026112900", "dump.1712345678", "lib.so.1", "log.20261129", "a.978307200", "a.01603160"]),
    ("steno", &[(".data.json.tmp", "data.json")], &["data.json.tmp", ".tmp"]),
    ("pnpm", &[("a.json.tmp-4711-0-7", "a.json")], &["a.json.tmp-4711-0", "a.json.tmp-4711"]),
    ("vscode", &[("a.rs.vsctmp", "a.rs")], &[".vsctmp", "a.rs.vsctmp.1"]),
    ("python", &[("tmp6isdc1hx", ""), ("tmpomabx3ij", "")], &["tmpsettings", "tmp20261129", "tmpomabx3i", "tmpomabx3ijk", "a.tmpomabx3ij"]),
    ("python-suffix", &[
        ("cfg.json.r3tea0ke.tmp", "cfg.json"),
        ("app.json.q3_x81ab.tmp", "app.json"),
        ("location-5q27izfq.tmp", "location"),
        ("app.version2.tmp", "app.version2"),
        ("app.2026data.tmp", "app.2026data"),
    ], &["notes.markdown.tmp", "app.settings.tmp", "log.20261129.tmp", "a.R3TEA0KE.tmp"]),
    ("rust-tempfile", &[(".tmpaB3xYz", "")], &[".tmpconfig", ".tmpCONFIG", ".tmp123456", "a.tmpaB3xYz"]),
    ("atomic-write-file", &[(".a.json.aB3xYz", "a.json"), ("..env.aB3xYz", ".env"), (".a.json.Backup", "")],
        &["a.json.aB3xYz", ".a.json.backup", ".a.json.123456"]),
    ("renameio", &[(".a.json5577006791947779410", ""), (".a.json557700679194777941", "")],
        &[".bash_history1", ".vimrc2", ".a.1764444444444444444", "a.json5577006791947779410"]),
    ("moby", &[(".tmp-a.json4241603160", ""), (".tmp-a.json741603160", "")], &[".tmp-a.json", ".tmp-a.json1764444444", "a.json741603160"]),
    ("glib", &[("gschemas.compiled.G7TIZ3", "gschemas.compiled"), ("disk.NOTES1", "")],
        &["main.STABLE", "a.123456", "a.g7tiz3", "a.G7TIZ"]),
    ("gio", &[(".goutputstream-G7TIZ3", "")], &[".goutputstream-STABLE", "goutputstream-G7TIZ3", ".goutputstream-g7tiz3"]),
    ("qt", &[("keys.kdbx.AbQxZr", "keys.kdbx"), ("notes.Latest", ""), ("a.newDoc", "")],
        &["main.stable", "notes.latest", "main.STABLE", "a.AbQxZ1"]),
    ("cocoa", &[("list.md.sb-5f3e2d1c-k9XbQz", "list.md")], &["list.md.sb-5f3e2d1c-backup", "list.md.sb-5f3e2d1-k9XbQz"]),
    ("chromium", &[(".org.chromium.Chromium.aB3xYz", ""), (".com.google.Chrome.aB3xYz", "")],
        &[".com.google.Chrome.backup", "a.com.google.Chrome.aB3xYz"]),
    ("jetbrains", &[("a.rs___jb_tmp___", "a.rs")], &["a.rs___jb_old___", "___jb_tmp___"]),
    ("git", &[
        ("tmp_obj_VTR8LD", ""),
        ("tmp_pack_Ab3dE6", ""),
        ("tmp_idx_Ab3dE6", ""),
        ("tmp_rev_Ab3dE6", ""),
        ("tmp_mtimes_Ab3dE6", ""),
        ("tmp_bitmap_Ab3dE6", ""),
        (".tmp-4711-pack-H.pack", ""),
        (".tmp-4711-pack-H.idx", ""),
        (".tmp-4711-pack-H.rev", ""),
        (".tmp-4711-pack-H.mtimes", ""),
        (".tmp-4711-pack-H.bitmap", ""),
    ], &["tmp_obj_backup", "tmp_pack_123456", "tmp_pack_Ab3dE", "tmp_pack_Ab3-E6", "xtmp_obj_Ab3dE6", "tmp_objdir-incoming-Ab3dE6",
        "pack-H.pack", "pack-H.keep", "tmp_graph_Ab3dE6", ".tmp-4711-pack-H.keep"]),
    ("git-info", &[("refs_1IhNGK", ""), ("packs_Zhp9pQ", "")], &["refs_backup", "refs", "packs_123456", "packs_Zhp9p"]),
    ("rsync", &[(".big.iso.wdAdVS", "big.iso"), (".bashrc.wdAdVS", "bashrc")], &["big.iso.wdAdVS", ".big.iso.backup", ".big.iso.wdAdV"]),
    ("systemd", &[(".#machine-id0f1e2d3c4b5a6978", "machine-id")], &["machine-id0f1e2d3c4b5a6978", ".#machine-id-f1e2d3c4b5a697"]),
    ("nix", &[("a.narinfo.tmp.4711.2", "a.narinfo"), ("a.narinfo.tmp.4711", "a.narinfo")], &["a.narinfo.4711", "a.tmp.4711.2.3"]),
    ("restic", &[("X-tmp-3141592", "")], &["report-tmp-2024", "H-tmp-1", "X-tmp-", "X"]),
    ("mutagen", &[(".mutagen-temporary-atomic-write3141592", "")], &["mutagen-temporary-atomic-write1", ".mutagen-temporary-atomic-write"]),
    ("syncthing", &[(".syncthing.tmp.3141592", "")], &[".syncthing.a.tmp", ".syncthing.tmp"]),
    ("hadoop", &[("part-00000._COPYING_", "part-00000")], &["._COPYING_", "part-00000._COPYING_.1"]),
    ("ccache", &[("0123R.tmp.aB3xYz.tmp", "0123R"), ("0123.o.tmp.aB3xYz", "0123.o")], &["0123.o.tmp.backup", "0123.o.aB3xYz"]),
    ("sccache", &[(".sccachetmpaB3xYz", "")], &[".sccachetmpbackup", "sccachetmpaB3xYz"]),
    ("docker-pull", &[("GetImageBlob481516", "")], &["GetImageBlob", "xGetImageBlob1"]),
    ("redis", &[
        ("temp-4711.rdb", ""),
        ("temp-1764444444.4711.rdb", ""),
        ("temp-rewriteaof-4711.aof", ""),
        ("temp-rewriteaof-bg-4711.aof", ""),
    ], &["dump.rdb", "temp.rdb", "temp-a.rdb", "temp-rewriteaof-4711.rdb"]),
    ("redis-config", &[("nodes.conf.tmp-4711-1764444444444", "nodes.conf")], &["nodes.conf.tmp-4711", "nodes.conf"]),
    ("redis-rewrite", &[("redis.conf.3n0J11", "redis.conf"), ("sentinel.conf.aB3xYz", "sentinel.conf")], &["redis.conf.backup", "a.iso.sha256"]),
    ("leveldb", &[("000012.dbtmp", ""), ("CURRENT.000012.dbtmp", ""), ("OPTIONS-000012.dbtmp", "")],
        &["CURRENT", "OPTIONS-000012", "a.dbtmp", "000012.ldb", "LOCK"]),
    ("etcd", &[("db.tmp.3141592", "")], &["db", "0.tmp", "1.tmp", "xdb.tmp.1"]),
    ("rails", &[(".a.css.tmp.0123456789abcdef0123456789abcdef", "a.css")], &["a.css.tmp.0123456789abcdef0123456789abcdef", ".a.css.tmp.H"]),
];

fn expand(text: &str) -> String {
    match text {
        _ if text.contains(".U") || text.contains("-U") => text.replacen('U', UUID, 1),
        _ if text.contains("-H") || text.starts_with('H') || text.ends_with(".H") => {
            text.replacen('H', HEX_40, 1)
        }
        _ if text.starts_with('X') => text.replacen('X', HEX_64, 1),
        _ => text.to_owned(),
    }
}

#[test]
fn each_writer_matches_its_names_only() {
    for (writer, fitting, others) in ROWS {
        let names = Names::new(&["x"], &[writer]).expect("a writer of the catalog");
        for (name, target) in *fitting {
            let name = expand(name);
            assert!(names.matches(name.as_bytes()), "{writer}: {name}");
            let parsed = names.parse(OsStr::new(&name));
            let row = parsed.writer.as_ref().map(|row| row.name.as_str());
            assert_eq!(row, Some(*writer), "{name}");
            let found = parsed.targets.first().cloned().unwrap_or_default();
            assert_eq!(found, OsString::from(target), "{writer}: {name}");
        }
        for name in *others {
            let name = expand(name);
            assert!(!names.matches(name.as_bytes()), "{writer}: {name}");
        }
    }
}

/// Each pattern is matched by a name of the table, and each writer has one row in it.
#[test]
fn every_pattern_has_a_row() {
    for writer in rows() {
        let mut of_writer = ROWS.iter().filter(|row| row.0 == writer.row().name);
        let row = of_writer
            .next()
            .unwrap_or_else(|| panic!("no row for {}", writer.row().name));
        assert_eq!(of_writer.count(), 0, "{}", writer.row().name);
        for grammar in &writer.grammars {
            let is_match =
                |(name, _): &&(&str, &str)| grammar.split(expand(name).as_bytes()).is_some();
            assert!(
                row.1.iter().any(|name| is_match(&name)),
                "no name for {}",
                grammar.text
            );
        }
    }
    assert_eq!(ROWS.len(), rows().len());
    assert!(rows().len() >= 40);
}

/// A row may be on by default, or discard temps, only for a writer that docs/writers.md says was read or killed.
#[test]
fn defaults_are_few_and_every_row_has_a_source() {
    let named = |is: fn(&WriterGrammar) -> bool| -> Vec<&str> {
        writers()
            .filter(|row| is(row))
            .map(|row| row.name.as_str())
            .collect()
    };
    let defaults = ["openclaw", "openclaw-files", "fs-safe", "atomically", "git"];
    assert_eq!(named(|row| row.default), defaults);
    let discards = ["git", "git-info", "restic"];
    assert_eq!(
        named(|row| row.uncommitted == Uncommitted::Discard),
        discards
    );
    for row in writers() {
        assert!(
            row.source.contains("https://"),
            "{} has no source",
            row.name
        );
    }
}

/// Names of files that are no temps, under the default names. Each would be one of the shorter target beside it.
#[test]
fn ordinary_names_are_not_read_for_a_shorter_target() {
    for (name, target) in [
        ("notes.markdown.tmp", "notes.markdown"),
        ("app.settings.tmp", "app.settings"),
        ("log.20261129.tmp", "log.20261129"),
        (".config.tmp", ".config"),
        ("page.4711.tmp", "page.4711"),
    ] {
        let names = Names::default();
        assert!(names.matches(name.as_bytes()), "{name}");
        let parsed = names.parse(OsStr::new(name));
        assert_eq!(
            parsed.targets.first(),
            Some(&OsString::from(target)),
            "{name}"
        );
        assert_eq!(names.shape(OsStr::new(name)).group, None, "{name}");
    }
    for name in [
        "main.stable",
        "notes.latest",
        "app.log.2026112900",
        "dump.1712345678",
        "lib.so.1",
        "tmp_obj_backup",
    ] {
        assert!(!Names::default().matches(name.as_bytes()), "{name}");
    }
}

#[test]
fn names_without_a_certain_random_part_form_no_group() {
    for (writer, name, group) in [
        ("python-suffix", "a.r3tea0ke.tmp", Some("a")),
        ("python-suffix", "a.version2.tmp", None),
        ("qt", "keys.kdbx.AbQxZr", Some("keys.kdbx")),
        ("qt", "notes.Latest", None),
        // Several targets have this name.
        ("rsync", ".big.iso.wdAdVS", None),
        ("trace-mcp", "a.json.tmp.4711.0123456789ab", None),
        ("git", "tmp_obj_Ab3dE6", None),
    ] {
        let names = Names::new(&["x"], &[writer]).expect("a writer");
        let shape = names.shape(OsStr::new(name));
        assert_eq!(shape.group.as_deref(), group.map(OsStr::new), "{name}");
    }
}

/// A part that may be a word is not discarded, although its writer discards.
#[test]
fn only_random_names_are_discarded() {
    let names = Names::new(&["x"], &["git", "atomically"]).expect("writers");
    for (name, is_discarded) in [
        ("tmp_obj_VTR8LD", true),
        ("tmp_obj_Ab3dE6", true),
        ("tmp_obj_Backup", false),
        ("tmp_obj_data01", false),
        ("a.tmp-8123456789a1b2c3", false),
        ("x", false),
    ] {
        let parsed = names.parse(OsStr::new(name));
        assert_eq!(parsed.is_discarded, is_discarded, "{name}");
    }
    let own = WriterGrammar {
        name: "own".into(),
        patterns: vec!["<t>.own-<hex:8>".into()],
        uncommitted: Uncommitted::Discard,
        truncates_at: Some(40),
        ..WriterGrammar::default()
    };
    let own = OwnWriters::new(vec![own]).expect("a row");
    let names = Names::with_own_writers(&["x"], &["own"], &own, false).expect("a writer");
    let parse = |target: &str| names.parse(OsStr::new(&format!("{target}.own-0123abcd")));
    assert!(parse("a").is_discarded);
    // The target may be another one, which exists and does not count.
    assert!(!parse(&"a".repeat(30)).is_discarded);
}

/// The writer has the longer grace of fixed names, although its names are random.
#[test]
fn a_slow_writer_has_the_longer_grace() {
    use crate::core::policy::Policy;
    let policy = Policy::default();
    let grace = |name: &str, is_empty| {
        let parsed = policy.names.parse(OsStr::new(name));
        policy.grace_of(&parsed, is_empty, std::time::Duration::ZERO)
    };
    for is_empty in [false, true] {
        assert_eq!(grace("tmp_idx_Ab3dE6", is_empty), policy.grace.fixed);
        assert_eq!(
            grace("a.tmp-8123456789a1b2c3", is_empty),
            policy.grace.random
        );
    }
}

#[test]
fn companions_are_recognized() {
    let own = WriterGrammar {
        name: "own".into(),
        patterns: vec!["<t>.own-<n>".into()],
        companions: vec!["<temp>-log".into(), "<temp>.<n>".into()],
        unless_open: Some("LOCK".into()),
        ..WriterGrammar::default()
    };
    let own = OwnWriters::new(vec![own]).expect("a row");
    let names = Names::with_own_writers(&["x"], &["own"], &own, false).expect("a writer");
    let companions = names.companions_of(b"a.own-7");
    let temps = |name: &'static str| -> Vec<&[u8]> {
        companions
            .iter()
            .filter_map(|one| one.temp_of(name.as_bytes()))
            .collect()
    };
    assert_eq!(temps("a.own-7-log"), [b"a.own-7"]);
    assert_eq!(temps("a.own-7.12"), [b"a.own-7"]);
    assert_eq!(temps("a.own-7"), [b""; 0]);
    assert_eq!(temps("-log"), [b""; 0]);
    let only: Vec<_> = companions
        .iter()
        .map(|one| one.only_name(b"a.own-7"))
        .collect();
    assert_eq!(only, [Some(b"a.own-7-log".to_vec()), None]);
    let patterns: Vec<_> = companions.iter().map(Companion::pattern).collect();
    assert_eq!(patterns, ["<temp>-log", "<temp>.<n>"]);
    assert!(names.companions_of(b"x").is_empty());
    // A companion of a row belongs only to the temps of that row.
    let temps = |name: &'static str| names.temps_of(OsStr::new(name));
    for (name, temp) in [
        ("a.own-7-log", Some("a.own-7")),
        ("a.own-7.12", Some("a.own-7")),
        ("a.own-7-wal", Some("a.own-7")),
        ("x-wal", Some("x")),
        ("x-log", None),
        ("a.own-x.12", None),
    ] {
        let found: Vec<&OsStr> = temps(name).collect();
        assert_eq!(found, Vec::from_iter(temp.map(OsStr::new)), "{name}");
    }
    assert_eq!(names.companion_names("a.own-7".as_ref()), None);
    let of_x = names
        .companion_names("x".as_ref())
        .expect("no variable part");
    assert_eq!(of_x, ["x-wal", "x-shm", "x-journal"]);
    let parsed = names.parse(OsStr::new("a.own-7"));
    assert_eq!(
        parsed
            .writer
            .and_then(|row| row.unless_open.clone())
            .as_deref(),
        Some("LOCK")
    );
}

#[test]
#[rustfmt::skip] // one row a line
fn wrong_patterns_are_refused() {
    for (pattern, error) in [
        ("", "is empty"),
        ("<uuid>", "no literal character"),
        ("<t><n>", "no literal character"),
        ("<t>.", "neither a random part"),
        (".<t>", "neither a random part"),
        ("a.tmp", "is a whole name"),
        ("<t>.<n>.<t>", "has <t> twice"),
        ("<n>.<t>.tmp", "a part before <t>"),
        ("<t>.<n><n>", "put a separator"),
        ("<t>.<n><hex:3>", "put a separator"),
        ("<t>.<hex:3><pid>", "put a separator"),
        ("<t>.<pid>.<pid>", "has <pid> twice"),
        ("<t>.<pdi>", "did you mean <pid>?"),
        ("<t>.<hex>", "did you mean <hex:8>?"),
        ("<t>.<hex:0>", "from 1 to 255"),
        ("<t>.<hex:256>", "from 1 to 255"),
        ("<t>.<hex:+8>", "from 1 to 255"),
        ("<t>.<oct:8>", "the parts are <t>"),
        ("<t>.<hex:8", "\"<\" without a \">\""),
        ("<t>.hex:8>", "\">\" without a \"<\""),
        ("a/<t>.tmp", "only the last part"),
        ("<t>.<[a-z0-9]>", "without a count"),
        ("<t>.<[a-z]:8>", "letters and digits"),
        ("<t>.<[z-a0]:8>", "a wrong range"),
        ("<t>.<[A-z0]:8>", "a wrong range"),
        ("<t>.<[a-z.]:8>", "only letters, digits"),
        ("<t>.<[aé0]:8>", "all of them ASCII"),
    ] {
        let row = WriterGrammar { name: "own".into(), patterns: vec![pattern.into()], ..WriterGrammar::default() };
        let found = OwnWriters::new(vec![row]).expect_err(pattern);
        assert!(found.1.message.contains(error), "{pattern}: {}", found.1);
        assert_eq!((found.0, found.1.key), (0, Some("patterns")), "{pattern}");
    }
    for pattern in ["<t>.<n>", "<t>.<digits:10><hex:6>", ".<t>.tmp", "a-<[a-z0-9-]:8>", "<t>.<[abc123_]:8>.x"] {
        let row = WriterGrammar { name: "own".into(), patterns: vec![pattern.into()], ..WriterGrammar::default() };
        assert!(OwnWriters::new(vec![row]).is_ok(), "{pattern}");
    }
}

#[test]
fn errors_in_a_catalog_are_found() {
    for (text, error) in [
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>.a']\nunknown = 1",
            "unknown field",
        ),
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>']",
            "no literal character",
        ),
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>.a']\n[[writer]]\nname = 'a'\npatterns = ['<t>.b']",
            "two rows",
        ),
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ntargets = ['a/b']",
            "not the name of a file",
        ),
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ncompanions = ['<temp>']",
            "a literal character after <temp>",
        ),
        (
            "[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ncompanions = ['<temp>-<t>']",
            "no <t>",
        ),
    ] {
        let found = parse(text).expect_err(text);
        assert!(found.contains(error), "{found}");
    }
}
