//! Guides: one page for each thing to be known, with code that runs.
//!
//! | page | for |
//! | --- | --- |
//! | [life] | what becomes of a job, from its enqueue to its end |
//! | [workers] | the code that executes jobs |
//! | [enqueueing] | putting jobs on the file, also from other languages |
//! | [scheduling] | jobs that are due later or recur: cron, summer time, missed slots |
//! | [unique] | one job where many would be asked for |
//! | [queues] | how many jobs run at once, limits, pause and resume |
//! | [running] | progress, checkpoints, steps, cancelling, timeouts, stopping |
//! | [reliability] | what happens when, each line with its test |
//! | [injected] | which faults the tests inject, how often, and what came out |
//! | [transactions] | jobs along with the application's own data |
//! | [observing] | events, hooks, tracing, metrics, health |
//! | [testing] | tests of a program's own jobs, with a whole file to copy |
//! | [desktop] | an application on other people's computers |
//! | [from_oban], [from_sidekiq], [from_huey] | those who know another queue |
//!
//! Examples that run stand in the folder `examples`: `cargo run --example hello`.

#[doc = include_str!("desktop.md")]
pub mod desktop {}
#[doc = include_str!("enqueueing.md")]
pub mod enqueueing {}
#[doc = include_str!("from_huey.md")]
pub mod from_huey {}
#[doc = include_str!("from_oban.md")]
pub mod from_oban {}
#[doc = include_str!("from_sidekiq.md")]
pub mod from_sidekiq {}
#[doc = include_str!("injected.md")]
pub mod injected {}
#[doc = include_str!("life.md")]
pub mod life {}
#[doc = include_str!("observing.md")]
pub mod observing {}
#[doc = include_str!("queues.md")]
pub mod queues {}
#[doc = include_str!("reliability.md")]
pub mod reliability {}
#[doc = include_str!("running.md")]
pub mod running {}
#[doc = include_str!("scheduling.md")]
pub mod scheduling {}
#[doc = include_str!("testing.md")]
///
/// ```
#[doc = include_str!("../../tests/welcome.rs")]
/// ```
// What the feature `testing` brings can be linked to only where it is there.
#[cfg_attr(
    feature = "testing",
    doc = "
[`assert_enqueued!`]: crate::assert_enqueued
[`refute_enqueued!`]: crate::refute_enqueued
[`Drain`]: crate::testing::Drain
[`Drain::perform`]: crate::testing::Drain::perform
[`Drain::drain`]: crate::testing::Drain::drain
[`Drain::with_scheduled`]: crate::testing::Drain::with_scheduled
[`Drain::reraising`]: crate::testing::Drain::reraising
[`ManualClock`]: crate::testing::ManualClock
[`Hand`]: crate::testing::Hand
[`Scratch`]: crate::testing::Scratch
[`KilnBuilder::clock`]: crate::KilnBuilder::clock
[`KilnBuilder::seed`]: crate::KilnBuilder::seed
"
)]
#[cfg_attr(
    not(feature = "testing"),
    doc = "
[`assert_enqueued!`]: crate#features
[`refute_enqueued!`]: crate#features
[`Drain`]: crate#features
[`Drain::perform`]: crate#features
[`Drain::drain`]: crate#features
[`Drain::with_scheduled`]: crate#features
[`Drain::reraising`]: crate#features
[`ManualClock`]: crate#features
[`Hand`]: crate#features
[`Scratch`]: crate#features
[`KilnBuilder::clock`]: crate#features
[`KilnBuilder::seed`]: crate#features
"
)]
pub mod testing {}
#[doc = include_str!("transactions.md")]
pub mod transactions {}
#[doc = include_str!("unique.md")]
pub mod unique {}
#[doc = include_str!("workers.md")]
pub mod workers {}
