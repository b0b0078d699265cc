//! The configuration is read by code of the binary, so its source is compiled here unchanged.

#![no_main]

#[macro_use]
#[path = "../../src/rule.rs"]
mod rule;

#[path = "../../tests/fuzzed/config.rs"]
mod config;

#[allow(dead_code, unused_imports)] // only the parser is used
#[path = "../../src/cli"]
mod cli {
    mod choices;
    pub(crate) mod config;
    mod exit;
    mod output {
        pub(super) mod duration;
        pub(crate) mod shell;
        pub(super) mod size;
        pub(super) mod text;
    }
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| config::check(text));
