//! The rows, in the order of the table.

mod checksum;
mod child;
mod depth;
mod drain;
mod enqueue;
mod extras;
mod idle;
mod latency;

use std::process::ExitCode;

use kiln::Durability;

pub use child::child;

use crate::measure::{Bench, folder, place};
use crate::raw::Sync;
use crate::{ours, raw};

type Row = fn(&mut Bench);

pub const ALL: &[(&str, Row)] = &[
    ("W1", enqueue::one_thread),
    ("W2", enqueue::eight_threads),
    ("W3", enqueue::many),
    ("W4", drain::all),
    ("W5", latency::same_process),
    ("W6", latency::across_processes),
    ("W7", depth::beside_a_million),
    ("W8", idle::nothing_to_do),
    ("W9", depth::growth),
    ("W10", idle::queues_beside),
    ("W11", extras::all),
    ("checksum", checksum::overhead),
];

/// Does the work of a row for so many jobs, for counting instructions.
pub fn count(row: &str, jobs: u64) -> ExitCode {
    let place = place(&folder());
    match row {
        "W1" => _ = ours::enqueue(&place.file(), Durability::Normal, 1, jobs),
        "W3" => _ = ours::enqueue_many(&place.file(), Durability::Normal, jobs),
        "W5" => _ = ours::steady(&place.file(), Durability::Normal, 100, jobs),
        "W4" => {
            ours::filled(&place.file(), jobs);
            ours::drain(&place.file(), ours::Drain::new(Durability::Normal, 8), jobs);
        }
        "W4-one" => {
            ours::filled(&place.file(), jobs);
            ours::drain(&place.file(), ours::Drain::new(Durability::Normal, 1).not_ahead(), jobs);
        }
        "W11-unique" => _ = extras::enqueued(&place.file(), Durability::Normal, true, jobs),
        "W11-recorded" => _ = extras::recorded(&place.file(), true, jobs),
        "raw-W1" => _ = raw::enqueue(&place.file(), Sync::Normal, jobs),
        "raw-W4" => {
            raw::filled(&place.file(), jobs);
            raw::drain(&place.file(), raw::Drain::prefetching(Sync::Normal), jobs);
        }
        "raw-W4-one" => {
            raw::filled(&place.file(), jobs);
            raw::drain_one_by_one(&place.file(), Sync::Normal, jobs);
        }
        row => {
            eprintln!("--count takes one of the rows that --help names, got {row:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
