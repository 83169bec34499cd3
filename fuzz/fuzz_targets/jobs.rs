#![no_main]

#[path = "../bodies/jobs.rs"]
mod jobs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| jobs::run(data));
