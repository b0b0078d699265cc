//! The catalog of writers: its documentation, its output, and a user's own writers.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use orphand::core::temp_name::{Uncommitted, WriterGrammar, writers};

use crate::sandbox::{Sandbox, dead_pid, live_pid};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Returns the table of the catalog, as docs/writers.md has it.
fn table() -> String {
    let mut table = String::from(
        "\n| writer | patterns | on by default | target missing | more |\n|---|---|---|---|---|\n",
    );
    let code = |texts: &[String]| {
        let texts = texts.iter().map(|text| format!("`{text}`"));
        texts.collect::<Vec<_>>().join(", ")
    };
    for row in writers() {
        let WriterGrammar { name, .. } = row;
        let mut more = Vec::new();
        if !row.targets.is_empty() {
            more.push(format!("only for {}", code(&row.targets)));
        }
        if !row.companions.is_empty() {
            more.push(format!("companions {}", code(&row.companions)));
        }
        if let Some(path) = &row.unless_open {
            more.push(format!("only while no process has `{path}` open"));
        }
        if row.shared_name {
            more.push("several targets have temps of the same name".into());
        }
        if row.slow {
            more.push("the longer grace".into());
        }
        let missing = match row.uncommitted {
            Uncommitted::KeepBest => "keep the best",
            Uncommitted::Discard => "discard",
        };
        let default = if row.default { "yes" } else { "" };
        let (patterns, more) = (code(&row.patterns), more.join("; "));
        writeln!(
            table,
            "| {name} | {patterns} | {default} | {missing} | {more} |"
        )
        .unwrap();
    }
    table + "\n"
}

#[test]
fn the_documentation_has_the_catalog() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/writers.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- table -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end -->").unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = format!("{before}<!-- table -->\n{}<!-- end -->{after}", table());
        fs::write(&file, text).unwrap();
    } else {
        assert_eq!(
            found,
            table(),
            "to update: UPDATE_EXPECT=1 cargo test --test it writers::"
        );
    }
}

#[test]
fn the_list_is_a_document_too() {
    let sandbox = Sandbox::new();
    for command in ["scan", "watch", "sweep", "explain"] {
        let run = sandbox.run([command, "--writer", "list", "--json"]);
        let document = run.exit(0).stdout_json();
        let listed = document["writers"].as_array().unwrap();
        let names: Vec<&str> = listed
            .iter()
            .map(|row| row["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            writers().map(|row| row.name.as_str()).collect::<Vec<_>>()
        );
        let git = listed.iter().find(|row| row["name"] == "git").unwrap();
        assert_eq!(git["uncommitted"], "discard");
        assert_eq!(git["default"], true);
        assert_eq!(git["patterns"][0], "tmp_obj_<alnum:6>");
        assert!(
            git["source"]
                .as_str()
                .unwrap()
                .contains("https://github.com/git/git")
        );
    }
}

/// Each temp in the documents of `scan` and `explain` has the writer whose row is on.
#[test]
fn documents_name_the_writer() {
    let sandbox = Sandbox::new()
        .file("a.json.tmp-8123456789a1b2c3", "x")
        .file("a.tmp", "x")
        .aged(OLD_ENOUGH);
    let scan = sandbox
        .run(["scan", "--json", "root"])
        .exit(0)
        .stdout_json();
    let writer = |document: &serde_json::Value, name: &str| {
        let temps = document["temps"].as_array().unwrap();
        let has_name = |temp: &&serde_json::Value| temp["path"].as_str().unwrap().ends_with(name);
        temps.iter().find(has_name).unwrap()["writer"].clone()
    };
    assert_eq!(writer(&scan, "/a.json.tmp-8123456789a1b2c3"), "atomically");
    assert_eq!(writer(&scan, "/a.tmp"), serde_json::Value::Null);
    let files = ["root/a.json.tmp-8123456789a1b2c3", "root/a.tmp"];
    let explain = sandbox
        .run(["explain", "--json", files[0], files[1]])
        .exit(0)
        .stdout_json();
    assert_eq!(
        writer(&explain, "/a.json.tmp-8123456789a1b2c3"),
        "atomically"
    );
    assert_eq!(writer(&explain, "/a.tmp"), serde_json::Value::Null);
    sandbox
        .run(["explain", files[0]])
        .exit(0)
        .stdout_has("a temp of the writer atomically: <t>.tmp-<digits:10><hex:6>");
}

/// A user's own writer is on only where a rule names it, and its keys have the same effect as those of the catalog.
#[test]
fn own_writers_are_on_where_a_rule_names_them() {
    let config = "[[writer]]\nname = \"keeper\"\npatterns = [\"<t>.own-<hex:8>\"]\n\
                  [[writer]]\nname = \"dropper\"\npatterns = [\"<t>.own-<hex:8>\"]\nuncommitted = \"discard\"\n";
    for (writer, target, result) in [
        ("", "", None),
        ("keeper", "", Some("quarantined")),
        ("dropper", "", Some("reaped")),
        // It exists and does not count.
        ("dropper", "-", Some("quarantined")),
        ("keeper", "whole, to the last byte of it", Some("reaped")),
        ("dropper", "whole, to the last byte of it", Some("reaped")),
    ] {
        let mut sandbox = Sandbox::new()
            .file("a.own-0123abcd", "ten bytes.")
            .file("../config/orphand/config.toml", config);
        if !target.is_empty() {
            sandbox = sandbox.file("a", target.trim_matches('-'));
        }
        let sandbox = sandbox.aged(OLD_ENOUGH);
        let named = ["--writer", writer];
        let args = SHORT
            .iter()
            .chain(named.iter().filter(|_| !writer.is_empty()));
        let events = sandbox.sweep(args).exit(0).events();
        let want: Vec<&str> = result.into_iter().collect();
        assert_eq!(events.about("a.own-0123abcd"), want, "{writer} {target:?}");
    }
}

/// If the patterns of two writers fit the same name, the process of each counts.
#[test]
fn the_pid_in_each_possible_pattern_counts() {
    let (live, dead) = (live_pid(), dead_pid());
    let config = "[[writer]]\nname = \"one\"\npatterns = [\"<t>.tmp.<n>.<digits:1>\", \"<t>.tmp.<pid>.<n>\"]\n\
                  [[writer]]\nname = \"two\"\npatterns = [\"<t>.tmp.<n>.<pid>\"]\n\
                  [defaults]\ngrace = \"100ms\"\nwriters = [\"one\", \"two\"]\n";
    for (pid, want) in [(live, "kept writer-alive"), (dead, "reaped")] {
        let temp = format!("x.tmp.{dead}.{pid}");
        let sandbox = Sandbox::new().file("../c.toml", config);
        let sandbox = sandbox
            .file("x", "whole and long")
            .file(&temp, "half")
            .aged(OLD_ENOUGH);
        let events = sandbox.sweep(["--config", "c.toml"]).exit(0).events();
        assert_eq!(events.about(&temp), [want], "{temp}");
    }
}
