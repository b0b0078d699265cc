#![no_main]

#[path = "../../tests/fuzzed/globs.rs"]
mod globs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| globs::check(data));
