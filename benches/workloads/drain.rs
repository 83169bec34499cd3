//! W4: how quickly jobs that do nothing are worked off.

use std::path::Path;

use kiln::Durability;

use crate::measure::{Bench, Run, Target, Unit, cpus, rates, turns};
use crate::ours::Drain;
use crate::raw::Sync;
use crate::{ours, raw};

fn compare(bench: &mut Bench, what: &str, jobs: u64, how: Drain, by_raw: impl Fn(&Path) -> Run, least: f64) {
    let (ours, raw) = turns(
        bench.turns(),
        || {
            let place = bench.fresh();
            ours::filled(&place.file(), jobs);
            ours::drain(&place.file(), how, jobs)
        },
        || {
            let place = bench.fresh();
            raw::filled(&place.file(), jobs);
            by_raw(&place.file())
        },
    );
    bench.row("W4", what, Unit::Rate, &rates(&ours), &rates(&raw), Target::AtLeast(least));
    bench.row("", "  CPU a job", Unit::Micros, &cpus(&ours), &cpus(&raw), Target::None);
}

pub fn all(bench: &mut Bench) {
    let jobs = bench.jobs(100_000);
    // Acks ride in both: it is the same work.
    for (durability, name) in [(Durability::Full, "default durability"), (Durability::Normal, "NORMAL")] {
        let how = raw::Drain::prefetching(Sync::Normal);
        let what = format!("drain, limit 8, {name}");
        compare(bench, &what, jobs, Drain::new(durability, 8), |path| raw::drain(path, how, jobs), 0.75);
    }
    let jobs = bench.jobs(40_000);
    let how = raw::Drain::at_most_eight(Sync::Normal);
    let ours = Drain::new(Durability::Normal, 8).not_ahead();
    compare(bench, "at most 8 claimed, NORMAL", jobs, ours, |path| raw::drain(path, how, jobs), 1.0);
    one_by_one(bench);
}

fn one_by_one(bench: &mut Bench) {
    let levels =
        [(Durability::Normal, Sync::Normal, "NORMAL", 10_000), (Durability::Strict, Sync::Full, "FULL", 3_000)];
    for (durability, sync, level, jobs) in levels {
        let jobs = bench.jobs(jobs);
        let what = format!("limit 1, one job a commit, {level}");
        let ours = Drain::new(durability, 1).not_ahead();
        compare(bench, &what, jobs, ours, |path| raw::drain_one_by_one(path, sync, jobs), 0.85);
    }
}
