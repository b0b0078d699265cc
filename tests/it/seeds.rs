//! The seeds of the fuzzer also pass through its checks in every run of the tests.

use std::fs;
use std::path::Path;

#[path = "../fuzzed/globs.rs"]
mod globs;
#[path = "../fuzzed/journal.rs"]
mod journal;
#[path = "../fuzzed/names.rs"]
mod names;

/// Runs `check`, which asserts, on each seed.
fn each(what: &str, check: impl Fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzzed/seeds");
    let mut some = false;
    for seed in fs::read_dir(seeds.join(what)).unwrap() {
        let seed = seed.unwrap().path();
        println!("{}", seed.display());
        check(&fs::read(&seed).unwrap());
        some = true;
    }
    assert!(some, "no seed for {what}");
}

#[test]
fn names() {
    each("names", names::check);
}

#[test]
fn globs() {
    each("globs", globs::check);
}

#[test]
fn journal() {
    each("journal", journal::check);
}
