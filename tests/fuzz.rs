//! The bodies of the fuzz targets, run on their seeds and on mutations of them: `fuzz/README.md` tells of the rest.
//!
//! `KILN_FUZZ_RUNS` says how many mutations of each target's seeds (1000), `KILN_FUZZ_SEED` which. What an input may cost is
//! bounded in steps of SQLite's machine and in bytes asked for, which are the same on every machine.

#[path = "../fuzz/bodies/crons.rs"]
mod crons;
#[path = "../fuzz/bodies/jobs.rs"]
mod jobs;
#[path = "../fuzz/bodies/rows.rs"]
mod rows;
#[path = "../fuzz/bodies/terms.rs"]
mod terms;
#[path = "common/work.rs"]
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

use work::Work;

/// More than that no input of a few hundred bytes may take.
const MOST: Work = Work { steps: 2_000_000, bytes: 64 * 1024 * 1024 };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {text}")))
}

/// What the fuzzer begins with, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    assert!(found.len() >= 5, "the seeds are where they are looked for");
    found
}

fn smoke(target: &str, body: fn(&[u8])) {
    work::count_steps();
    let seeds = seeds(target);
    let mut most = Work::default();
    // What is made once is no input's work.
    body(&seeds[0].1);
    for (name, data) in &seeds {
        most = most.max(survives(&format!("seed {name}"), data, body));
    }
    let runs = number("KILN_FUZZ_RUNS").unwrap_or(1000);
    let seed = number("KILN_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{target}: {} seeds, KILN_FUZZ_SEED={seed} KILN_FUZZ_RUNS={runs}", seeds.len());
    let mut dice = Rng::with_seed(seed);
    for run in 0..runs {
        let data = mutate(&seeds, &mut dice);
        most = most.max(survives(&format!("mutation {run} of KILN_FUZZ_SEED={seed}"), &data, body));
    }
    println!("{target}: the most that one took is {most:?}");
    let times = format!("{} seeds and {runs} mutations", seeds.len());
    println!("reliability | fuzz: {} | {times} | no panic, and what is promised of them holds", told(target));
}

fn told(target: &str) -> &'static str {
    match target {
        "rows" => "rows with anything in their columns",
        "terms" => "recorded values of any bytes",
        "crons" => "cron expressions of any text",
        _ => "new jobs of any arguments and words",
    }
}

/// Says what it cost.
fn survives(what: &str, data: &[u8], body: fn(&[u8])) -> Work {
    let shown = || format!("{what}, with these bytes: b\"{}\"", data.escape_ascii());
    let (survived, work) = work::measure(&shown, || catch_unwind(AssertUnwindSafe(|| body(data))));
    assert!(survived.is_ok(), "fails: {}", shown());
    assert!(work.steps <= MOST.steps && work.bytes <= MOST.bytes, "takes too much, {work:?}: {}", shown());
    work
}

/// Some seed with a few changes: bytes other, more, fewer, turned around, taken from another seed, at the edge of numbers.
fn mutate(seeds: &[(String, Vec<u8>)], dice: &mut Rng) -> Vec<u8> {
    let mut data = seeds[dice.usize(..seeds.len())].1.clone();
    for _ in 0..dice.usize(1..6) {
        let at = dice.usize(..=data.len());
        let to = (at + dice.usize(..9)).min(data.len());
        match dice.u32(..8) {
            0 => data.insert(at, dice.u8(..)),
            1 => drop(data.drain(at..to)),
            2 => data.extend_from_within(at..to),
            3 => data.truncate(at),
            4 => {
                let other = &seeds[dice.usize(..seeds.len())].1;
                let from = dice.usize(..=other.len());
                data.splice(at..to, other[from..].iter().take(dice.usize(..40)).copied());
            }
            5 => {
                let edges: [&[u8]; 8] =
                    [b"\0", b"\xff\xff\xff\xff", b"-1", b"99999999999999999999", b"\n", b"[[[[[[", b"\xc3\x28", b"*/0"];
                data.splice(at..to, edges[dice.usize(..edges.len())].iter().copied());
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << dice.u32(..8);
                }
            }
        }
    }
    data
}

#[test]
fn rows_of_any_content_are_read_and_harm_no_other_job() {
    smoke("rows", rows::run);
}

#[test]
fn recorded_values_of_any_bytes_are_decoded_or_refused_and_come_back_as_they_were() {
    smoke("terms", terms::run);
}

#[test]
fn cron_expressions_of_any_text_are_parsed_or_refused_and_their_slots_come_in_order() {
    smoke("crons", crons::run);
}

#[test]
fn jobs_of_any_arguments_and_words_are_stored_as_they_were_given_and_found_again() {
    smoke("jobs", jobs::run);
}
