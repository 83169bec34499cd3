//! W5 and W6: how long a job waits for a free thread, in one process and across two.

use kiln::Durability;

use super::child::Other;
use crate::measure::{Bench, Run, Target, Unit, pace, parts, turns, wall};
use crate::raw::Sync;
use crate::{ours, raw};

pub fn same_process(bench: &mut Bench) {
    const RATE: u64 = 500;
    let jobs = bench.jobs(600);
    let levels = [(Durability::Full, Sync::Full, "FULL"), (Durability::Normal, Sync::Normal, "NORMAL")];
    let levels = if bench.full { &levels[..] } else { &levels[..1] };
    for (durability, sync, level) in levels {
        let (ours, raw) = turns(
            bench.rounds(5),
            || ours::steady(&bench.fresh().file(), *durability, RATE, jobs),
            || {
                let by_thread = raw::steady(&bench.fresh().file(), *sync, RATE, jobs);
                (by_thread, raw::steady_direct(&bench.fresh().file(), *sync, RATE, jobs))
            },
        );
        let (by_thread, direct): (Vec<_>, Vec<_>) = raw.into_iter().unzip();
        for (part, name, most) in [(0.5, "50 %", 0.8), (0.99, "99 %", 1.0)] {
            let what = format!("500/s, call to start, {name} within, {level}");
            let ours = parts(&ours, part);
            bench.row("W5", &what, Unit::Micros, &ours, &parts(&by_thread, part), Target::AtMost(most));
            bench.row("", "  raw: no thread between", Unit::Micros, &ours, &parts(&direct, part), Target::None);
        }
    }
}

pub fn across_processes(bench: &mut Bench) {
    const RATE: u64 = 50;
    let jobs = bench.jobs(100);
    let levels = [(Durability::Full, Sync::Full, "FULL", false), (Durability::Normal, Sync::Normal, "NORMAL", true)];
    let levels = if bench.full { &levels[..] } else { &levels[..1] };
    for (durability, sync, level, normal) in levels {
        let (ours, raw) = turns(
            bench.rounds(3),
            || {
                let place = bench.fresh();
                let kiln = ours::open(&place.file(), *durability, &ours::Tally::new(0));
                let mut other = Other::start("kiln works", &place.file(), jobs, *normal);
                other.line();
                let mut called = Vec::new();
                pace(RATE, jobs, |n| {
                    called.push(wall());
                    kiln.enqueue(ours::mail(n)).expect("an enqueue");
                });
                waits(&mut other, &called)
            },
            || {
                let place = bench.fresh();
                let mut other = Other::start("raw works", &place.file(), jobs, *normal);
                let port = other.line().parse().expect("a port");
                let mut called = Vec::new();
                raw::enqueue_for_another(&place.file(), *sync, port, RATE, jobs, |_| called.push(wall()));
                waits(&mut other, &called)
            },
        );
        let what = |part| format!("50/s to another process, {part} within, {level}");
        let target = Target::AtMost(1.0);
        bench.row("W6", &what("50 %"), Unit::Micros, &parts(&ours, 0.5), &parts(&raw, 0.5), target);
        bench.row("", &what("99 %"), Unit::Micros, &parts(&ours, 0.99), &parts(&raw, 0.99), Target::None);
    }
}

fn waits(other: &mut Other, called: &[u64]) -> Run {
    let begun = called.iter().map(|_| other.line().parse::<f64>().expect("a time")).collect::<Vec<_>>();
    Run::of(called.iter().zip(begun).map(|(called, begun)| (begun - *called as f64) / 1000.0).collect())
}
