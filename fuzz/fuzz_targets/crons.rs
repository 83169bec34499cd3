#![no_main]

#[path = "../bodies/crons.rs"]
mod crons;

libfuzzer_sys::fuzz_target!(|data: &[u8]| crons::run(data));
