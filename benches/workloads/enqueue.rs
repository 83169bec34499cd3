//! W1 to W3: how quickly jobs are stored.

use kiln::Durability;

use crate::figures::median;
use crate::measure::{Bench, Target, Unit, cpus, parts, rates, turns};
use crate::raw::{Group, Many, Sync};
use crate::{ours, raw};

const LEVELS: [(Durability, Sync, &str); 2] =
    [(Durability::Full, Sync::Full, "FULL"), (Durability::Normal, Sync::Normal, "NORMAL")];

pub fn one_thread(bench: &mut Bench) {
    for (durability, sync, level) in LEVELS {
        let (jobs, least) = match sync {
            Sync::Full => (bench.jobs(3_000), 0.95),
            Sync::Normal => (bench.jobs(20_000), 0.90),
        };
        let (ours, raw) = turns(
            bench.turns(),
            || ours::enqueue(&bench.fresh().file(), durability, 1, jobs),
            || raw::enqueue(&bench.fresh().file(), sync, jobs),
        );
        let what = format!("single enqueue, 1 thread, {level}");
        bench.row("W1", &what, Unit::Rate, &rates(&ours), &rates(&raw), Target::AtLeast(least));
        bench.row("", "  CPU a job", Unit::Micros, &cpus(&ours), &cpus(&raw), Target::None);
    }
}

pub fn eight_threads(bench: &mut Bench) {
    for (durability, sync, level) in LEVELS {
        let jobs = match sync {
            Sync::Full => bench.jobs(16_000),
            Sync::Normal => bench.jobs(40_000),
        };
        let (ours, raw) = turns(
            bench.turns(),
            || ours::enqueue(&bench.fresh().file(), durability, 8, jobs),
            || {
                let run = |how| raw::enqueue_shared(&bench.fresh().file(), sync, how, 8, jobs);
                (run(Group::WriterThread), run(Group::LeaderAndFollowers))
            },
        );
        let (thread, leader): (Vec<_>, Vec<_>) = raw.into_iter().unzip();
        let quicker = |a: &[f64], b: &[f64]| median(a) >= median(b);
        let (thread_rates, leader_rates) = (rates(&thread), rates(&leader));
        let by_thread = quicker(&thread_rates, &leader_rates);
        let (best, other) = if by_thread { (&thread, &leader_rates) } else { (&leader, &thread_rates) };
        let (best_is, other_is) = if by_thread {
            ("writer thread", "leader and followers")
        } else {
            ("leader and followers", "writer thread")
        };
        let what = format!("8 threads, {level}, raw: {best_is}");
        bench.row("W2", &what, Unit::Rate, &rates(&ours), &rates(best), Target::AtLeast(1.0));
        bench.row("", &format!("  raw: {other_is}"), Unit::Rate, &rates(&ours), other, Target::None);
        let longest = (parts(&ours, 1.0), parts(best, 1.0));
        bench.row("W2", "  longest call", Unit::Micros, &longest.0, &longest.1, Target::Within(10_000.0));
        bench.row("", "  99 % of calls within", Unit::Micros, &parts(&ours, 0.99), &parts(best, 0.99), Target::None);
    }
}

pub fn many(bench: &mut Bench) {
    for (durability, sync, level) in LEVELS {
        let jobs = bench.jobs(100_000);
        let (ours, raw) = turns(
            bench.turns(),
            || ours::enqueue_many(&bench.fresh().file(), durability, jobs),
            || {
                let run = |how| raw::enqueue_many(&bench.fresh().file(), sync, how, jobs);
                (run(Many::Loop), run(Many::Array))
            },
        );
        let (by_loop, array): (Vec<_>, Vec<_>) = raw.into_iter().unzip();
        let what = format!("enqueue_many by 1000, {level}");
        bench.row("W3", &what, Unit::Rate, &rates(&ours), &rates(&by_loop), Target::AtLeast(1.2));
        bench.row("", "  CPU a job", Unit::Micros, &cpus(&ours), &cpus(&by_loop), Target::None);
        bench.row("", "  raw: all in one statement", Unit::Rate, &rates(&ours), &rates(&array), Target::None);
    }
}
