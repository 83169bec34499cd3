//! Real processes on one real file, killed at any moment, stopped, cancelled and told to stop from elsewhere.
//!
//! The other processes are this very binary, started again to run [`child`] with a role. What they do they write to a
//! log file, a line in one write; the order of its lines is the order of what happened.
//!
//! `KILN_CRASH_ROUNDS` says how many times a process is killed at random (30, or 200 with `KILN_LONG=1`),
//! `KILN_CRASH_SEED` when and which.

mod cancel;
mod child;
mod folder;
mod kills;
mod log;
mod poison;
mod rescue;
mod sidecars;
mod stop;
mod together;
mod watch;
mod workers;

use std::fmt::Display;

/// A line for the guide's page on what was injected.
pub fn report(fault: &str, times: impl Display, outcome: impl Display) {
    println!("reliability | {fault} | {times} | {outcome}");
}

/// The life of another process; nothing where this is the test itself.
#[test]
fn child() {
    child::play();
}
