#![no_main]

#[path = "../bodies/terms.rs"]
mod terms;

libfuzzer_sys::fuzz_target!(|data: &[u8]| terms::run(data));
