//! Checks that the documented API of the library stays small, and that a program can embed the library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::{env, io, thread};

use regex_lite::Regex;

use crate::fixture::wait_until;
use crate::sandbox::Sandbox;

/// The largest number of documented items, modules included.
const MOST_ITEMS: usize = 60;

/// Returns the names of the documented items: what `src/lib.rs` exports without `#[doc(hidden)]`.
fn documented_items() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.trim().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let hidden = Regex::new(r"#\[doc\(hidden\)\]\s+pub mod \w+;").unwrap();
    let code = hidden.replace_all(&code, "");
    let item = Regex::new(r"pub (use [^;]+;|\w+ \w+)").unwrap();
    let mut names = BTreeSet::new();
    for found in item.captures_iter(&code) {
        let Some(path) = found[1].strip_prefix("use ") else {
            names.insert(found[1].to_owned());
            continue;
        };
        assert!(!path.contains('*'), "{path}: its items cannot be counted");
        let list = path.rsplit_once('{').map_or(path, |(_, list)| list);
        for name in list.split([',', ';', '}']).map(str::trim) {
            let name = name.rsplit("::").next().unwrap_or_default();
            names.extend((!name.is_empty()).then(|| name.to_owned()));
        }
    }
    names
}

#[test]
fn the_api_is_small() {
    let items = documented_items();
    for known in ["Watcher", "Event", "mod settings", "writers", "Wall"] {
        assert!(items.contains(known), "{known} is not in {items:?}");
    }
    assert!(!items.contains("mod core"), "{items:?}");
    let number = items.len();
    assert!(number <= MOST_ITEMS, "{number} documented items: {items:?}");
}

/// Returns the program `examples/embed.rs`. `cargo test` builds it into the folder `examples`, beside the folder of
/// this program.
fn embed() -> PathBuf {
    let this = env::current_exe().unwrap();
    let program = this.ancestors().nth(2).unwrap().join("examples/embed");
    assert!(
        program.exists(),
        "{program:?} is missing; build it: cargo build --example embed"
    );
    program
}

#[test]
fn the_example_reports_a_removed_orphan() {
    let temp = "sessions.json.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp";
    let sandbox = Sandbox::new().file(temp, "");
    let (input, keep_open) = io::pipe().unwrap();
    let mut command = sandbox.program(embed());
    command.arg(sandbox.root()).arg("0.2").stdin(input);
    let result = thread::scope(|scope| {
        let running = scope.spawn(|| sandbox.finish(command));
        wait_until("the orphan is removed", || {
            !sandbox.has(temp) || running.is_finished()
        });
        drop(keep_open);
        running.join().unwrap()
    });
    result
        .exit(0)
        .stdout_has(&format!("watching [{:?}]", sandbox.root()))
        .stdout_has(&format!("removed {:?}", sandbox.path(temp)))
        .stdout_has("1 removed, 0 kept");
}
