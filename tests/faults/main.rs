//! Faults that are really injected: writes, syncs and locks that fail, power cuts, full disks, rude neighbours, clocks
//! that jump, rows that somebody edited by hand.
//!
//! Each test prints lines of the form `reliability | fault | how often | what came out`, of which the page on
//! reliability is made. `KILN_LONG=1` runs the long loops, `KILN_FAULTS_SEED` repeats a draw.

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod hostile;
mod huge;
mod limits;
mod neighbours;
mod power;
mod running;
mod space;
mod story;
mod time;
mod vfs;
mod writes;

use std::env;
use std::fmt::Display;

/// Whether the long loops are wanted.
fn long() -> bool {
    env::var_os("KILN_LONG").is_some_and(|long| long != "0")
}

/// A draw to repeat, or a new one; printed, so that it can be repeated.
fn seed() -> u64 {
    let seed = env::var("KILN_FAULTS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("KILN_FAULTS_SEED={seed}");
    seed
}

/// The line that a child of a test has said for the page on reliability, once more.
fn repeat_report(said: &str) {
    let line = said.lines().find_map(|line| line.split_once("reliability | ")).expect("the test has run there");
    println!("reliability | {}", line.1);
}

/// A line for the page on reliability.
fn report(fault: impl Display, times: impl Display, outcome: impl Display) {
    println!("reliability | {fault} | {times} | {outcome}");
}
