//! Cron expressions, and when they are due.
//!
//! A [`Cron`] is what was written: `0 9 * * MON-FRI`, `@hourly`, every ninety seconds. A [`Schedule`] applies it in a
//! time zone and gives instants. Expressions follow oban-py's `oban/_scheduler.py`. oban-py looks at the clock every
//! minute; here, the change to and from summer time follows a written rule: see [`Schedule`].

mod expression;
mod fields;
mod parse;
mod schedule;
#[cfg(test)]
mod tests;

pub use expression::Cron;
pub use schedule::Schedule;
