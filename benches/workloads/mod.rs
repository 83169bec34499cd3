//! The rows, in the order of the table.

mod drain;
mod enqueue;

use std::path::PathBuf;
use std::process::ExitCode;

use kiln::Durability;

use crate::measure::{Bench, place};
use crate::ours;

type Row = fn(&mut Bench);

pub const ALL: &[(&str, Row)] =
    &[("W1", enqueue::one_thread), ("W2", enqueue::eight_threads), ("W3", enqueue::many), ("W4", drain::all)];

/// Does the work of a row for so many jobs, for counting instructions.
pub fn count(row: &str, jobs: u64) -> ExitCode {
    let folder = std::env::var_os("KILN_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let place = place(&folder);
    match row {
        "W1" => _ = ours::enqueue(&place.file(), Durability::Normal, 1, jobs),
        "W4" => {
            ours::filled(&place.file(), jobs);
            ours::drain(&place.file(), ours::Drain::new(Durability::Normal, 8), jobs);
        }
        row => {
            eprintln!("--count takes W1 or W4, got {row:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// In a process that a row started: does what it is asked to, and says that it was.
pub fn child() -> bool {
    false
}
