//! W5 and W6: how long a job waits for a free thread, in one process and across two.

use kiln::Durability;

use super::child;
use crate::measure::{Bench, Target, Unit, parts, turns};
use crate::raw::Sync;
use crate::{ours, raw};

pub fn same_process(bench: &mut Bench) {
    const RATE: u64 = 500;
    let jobs = bench.jobs(600);
    let levels = [(Durability::Full, Sync::Full, "FULL"), (Durability::Normal, Sync::Normal, "NORMAL")];
    let levels = if bench.full { &levels[..] } else { &levels[..1] };
    for (durability, sync, level) in levels {
        let (ours, raw) = turns(
            bench.turns(),
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
    let levels = [("FULL", false), ("NORMAL", true)];
    let levels = if bench.full { &levels[..] } else { &levels[..1] };
    for (level, normal) in levels {
        let (ours, raw) = turns(
            bench.turns(),
            || child::kiln_to_another(&bench.fresh().file(), *normal, RATE, jobs),
            || child::raw_to_another(&bench.fresh().file(), *normal, RATE, jobs),
        );
        let what = |part| format!("50/s to another process, {part} within, {level}");
        let target = Target::AtMost(1.0);
        bench.row("W6", &what("50 %"), Unit::Micros, &parts(&ours, 0.5), &parts(&raw, 0.5), target);
        bench.row("", &what("99 %"), Unit::Micros, &parts(&ours, 0.99), &parts(&raw, 0.99), Target::None);
    }
}
