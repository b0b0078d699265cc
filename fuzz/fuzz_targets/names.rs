#![no_main]

#[path = "../../tests/fuzzed/names.rs"]
mod names;

libfuzzer_sys::fuzz_target!(|data: &[u8]| names::check(data));
