//! A seed draws verbs, deaths, late acks and jumps of the clock; the real engine, in memory and on a file, is held to a
//! model after every step.
//!
//! `KILN_SIMULATION_STEPS` says how many steps (10,000 unless said otherwise), `KILN_SIMULATION_SEED` which draw. A
//! failure prints the seed that repeats it at once, the step, and what went before.

#[path = "../common/mod.rs"]
mod common;
mod crons;
mod life;
mod model;
mod operator;
mod process;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use world::World;

/// Many small worlds rather than a large one: each ends, and what can end must.
const STEPS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {text}")))
}

/// What went wrong, and how to see it again.
#[derive(Debug, PartialEq)]
struct Trouble {
    replay: String,
    step: u64,
    message: String,
    told: Vec<String>,
}

/// A world from its beginning to its end; how often what was drawn.
fn live(seed: u64, steps: u64, meddle: impl Fn(&World, u64)) -> Result<BTreeMap<&'static str, u64>, Box<Trouble>> {
    let mut world = World::new(seed);
    let mut at = 0;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for step in 0..steps {
            at = step;
            world.step();
            meddle(&world, step);
            world.check();
        }
        at = steps;
        world.settle();
    }));
    let Err(panic) = lived else { return Ok(world.tally) };
    let text = panic.downcast_ref::<String>().cloned();
    let message = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    let replay = format!("KILN_SIMULATION_SEED={seed} KILN_SIMULATION_STEPS={steps} cargo test --test simulation");
    Err(Box::new(Trouble { replay, step: at, message, told: world.told.into() }))
}

#[test]
fn whatever_is_drawn_the_engine_does_what_the_model_does() {
    let steps = number("KILN_SIMULATION_STEPS").unwrap_or(10_000);
    let seed = number("KILN_SIMULATION_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("KILN_SIMULATION_SEED={seed} KILN_SIMULATION_STEPS={steps}");
    let mut drawn: BTreeMap<&str, u64> = BTreeMap::new();
    // The first world is drawn from the seed itself, so that each can be drawn again alone.
    let mut seeds = Rng::with_seed(seed);
    for world in 0..steps.div_ceil(STEPS) {
        let seed = if world == 0 { seed } else { seeds.u64(..) };
        let tally = live(seed, STEPS.min(steps - world * STEPS), |_, _| {}).unwrap_or_else(|trouble| {
            let Trouble { replay, step, message, told } = *trouble;
            panic!("step {step}: {message}\nto see it again: {replay}\nbefore it:\n{}", told.join("\n"))
        });
        tally.into_iter().for_each(|(what, times)| *drawn.entry(what).or_default() += times);
    }
    println!("drawn in {steps} steps: {drawn:?}");
    let times = |what: &str| drawn.get(what).copied().unwrap_or(0);
    for (fault, what, outcome) in [
        ("a process dies among others", "deaths", "its jobs run again, nobody else's do"),
        ("an ack of an attempt that was lost or is over", "stale acks", "it changes nothing"),
        ("the clock is set back", "clock set back", "no two attempts look the same, no cron slot is fired twice"),
        (
            "the clock jumps forward by hours, as after a sleep",
            "sleeps",
            "no job is lost, none stuck, none of a living owner rescued",
        ),
        ("attempts are rescued by their age alone", "rescues by age", "late acks change nothing"),
    ] {
        println!("reliability | simulation: {fault} | {} in {steps} steps | {outcome}", times(what));
        assert!(steps < 10_000 || times(what) > 0, "a draw of {steps} steps without this: {what}");
    }
}

#[test]
fn a_failure_tells_the_draw_that_fails_again_at_the_same_step() {
    // Somebody else completes a job behind everybody's back.
    let meddle = |world: &World, step: u64| {
        if step >= 40 {
            world.spoil();
        }
    };
    let fails = |seed| live(seed, 200, meddle).expect_err("it is noticed that a job has changed");
    let first = fails(7);
    let (_, seed) = first.replay.split_once("SEED=").unwrap();
    let seed: u64 = seed.split(' ').next().unwrap().parse().unwrap();
    let again = fails(seed);
    assert!(first.step >= 40 && first.message.contains("job"), "{first:?}");
    assert_eq!((again.step, again.told.len()), (first.step, first.told.len()));
    assert_eq!(again.told, first.told);
}
