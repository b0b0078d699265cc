//! What reads the configuration is a part of the binary, so its source is built in here, as it is.

#![no_main]

#[macro_use]
#[path = "../../src/rule.rs"]
mod rule;

#[path = "../../tests/fuzzed/config.rs"]
mod config;

#[allow(dead_code, unused_imports)] // all but the reading
#[path = "../../src/cli"]
mod cli {
    mod choices;
    pub(crate) mod config_file;
    mod duration;
    pub(crate) mod shell;
    mod size;
    mod text;
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| config::check(text));
