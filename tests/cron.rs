//! Schedules against the written rule: by example, and against a scan of every minute.
//!
//! `KILN_CRON_DRAWS` says how many schedules are drawn (300), `KILN_CRON_SEED` with which seed the first one is. With
//! `KILN_CRON_ALL_ZONES`, so many are drawn for each time zone there is.

use std::collections::BTreeSet;
use std::env;
use std::time::Duration;

use fastrand::Rng;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use kiln::{Cron, Schedule};

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::new(text.parse().unwrap(), TimeZone::get(zone).unwrap())
}

/// The next `count` runs after the local time `after`, as `2026-03-29T03:00:00+02:00`.
fn runs(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone);
    let after = schedule.zone().to_timestamp(after.parse::<DateTime>().unwrap()).unwrap();
    let shown = |run: Timestamp| run.display_with_offset(schedule.zone().to_offset(run)).to_string();
    schedule.upcoming(after).take(count).map(shown).collect()
}

#[test]
fn fixed_time_in_a_gap_runs_once_after_it() {
    let berlin = |text, count| runs(text, "Europe/Berlin", "2026-03-29T00:00:00", count);
    assert_eq!(berlin("30 2 * * *", 2), ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    assert_eq!(berlin("0,15,30 2 * * *", 2), ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]);
    assert_eq!(
        berlin("0 1-4 * * *", 3),
        ["01:00:00+01:00", "03:00:00+02:00", "04:00:00+02:00"].map(|t| format!("2026-03-29T{t}"))
    );
    assert_eq!(
        runs("0,15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00", 2),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:00:00+11:00"]
    );
}

#[test]
fn interval_in_a_gap_goes_on_after_it() {
    let berlin = |text, count| runs(text, "Europe/Berlin", "2026-03-29T01:00:00", count);
    assert_eq!(
        berlin("*/30 * * * *", 3),
        ["01:30:00+01:00", "03:00:00+02:00", "03:30:00+02:00"].map(|t| format!("2026-03-29T{t}"))
    );
    assert_eq!(berlin("20 * * * *", 2), ["2026-03-29T01:20:00+01:00", "2026-03-29T03:20:00+02:00"]);
    assert_eq!(berlin("*/15 2 * * *", 1), ["2026-03-30T02:00:00+02:00"]);
    assert_eq!(berlin("0 */2 * * *", 1), ["2026-03-29T04:00:00+02:00"]);
    assert_eq!(
        runs("*/20 * * * *", "Australia/Lord_Howe", "2026-10-04T01:40:00", 2),
        ["2026-10-04T02:40:00+11:00", "2026-10-04T03:00:00+11:00"]
    );
}

#[test]
fn fixed_time_in_an_overlap_runs_once() {
    let berlin = |text, count| runs(text, "Europe/Berlin", "2026-10-25T00:00:00", count);
    assert_eq!(berlin("30 2 * * *", 2), ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    assert_eq!(berlin("30 2-3 * * *", 2), ["2026-10-25T02:30:00+02:00", "2026-10-25T03:30:00+01:00"]);
    assert_eq!(
        runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00", 2),
        ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"]
    );
    // A process that starts within the second pass does not run the first pass's slots again.
    let berlin = schedule("30 2 * * *", "Europe/Berlin");
    let second_pass = "2026-10-25T02:10:00+01:00".parse().unwrap();
    assert_eq!(berlin.next_after(second_pass), Some("2026-10-26T02:30:00+01:00".parse().unwrap()));
}

#[test]
fn interval_in_an_overlap_runs_in_both_passes() {
    let berlin = |text, count| runs(text, "Europe/Berlin", "2026-10-25T01:45:00", count);
    assert_eq!(
        berlin("*/30 * * * *", 5),
        ["02:00:00+02:00", "02:30:00+02:00", "02:00:00+01:00", "02:30:00+01:00", "03:00:00+01:00"]
            .map(|t| format!("2026-10-25T{t}"))
    );
    assert_eq!(berlin("@hourly", 2), ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]);
    assert_eq!(berlin("0 2/12 * * *", 2), ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]);
}

#[test]
fn skipped_day_is_a_long_gap() {
    let apia = |text, count| runs(text, "Pacific/Apia", "2011-12-29T12:00:00", count);
    assert_eq!(apia("0 9 * * *", 2), ["2011-12-31T00:00:00+14:00", "2011-12-31T09:00:00+14:00"]);
    assert_eq!(apia("0 9 30 12 *", 2), ["2011-12-31T00:00:00+14:00", "2012-12-30T09:00:00+14:00"]);
    assert_eq!(apia("0 */12 * * *", 2), ["2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]);
}

#[test]
fn gap_within_a_minute_ends_there() {
    // Liberia went from -00:44:30 to UTC at the midnight that began 7 January 1972.
    let monrovia = |text| runs(text, "Africa/Monrovia", "1972-01-06T23:59:30", 1);
    assert_eq!(monrovia("0 0 * * *"), ["1972-01-07T00:44:30+00:00"]);
    assert_eq!(monrovia("* * * * *"), ["1972-01-07T00:45:00+00:00"]);
}

#[test]
fn gap_that_hides_every_slot_of_an_interval() {
    // 29 March is a Sunday only when it is the last one of the month, and then there is no second hour.
    let berlin = schedule("*/10 2 29 3 SUN", "Europe/Berlin");
    assert_eq!(berlin.next_after("2026-01-01T00:00:00Z".parse().unwrap()), None);
}

#[test]
fn rare_days() {
    let utc = |text, after: &str| schedule(text, "UTC").next_after(after.parse().unwrap()).map(|run| run.to_string());
    assert_eq!(utc("0 0 13 * FRI", "2026-01-01T00:00:00Z").unwrap(), "2026-02-13T00:00:00Z");
    assert_eq!(utc("0 0 29 2 MON", "2044-03-01T00:00:00Z").unwrap(), "2072-02-29T00:00:00Z");
    assert_eq!(utc("0 0 29 2 MON", "2072-02-29T00:00:00Z").unwrap(), "2112-02-29T00:00:00Z");
    assert_eq!(utc("0 0 30 2 *", "2026-01-01T00:00:00Z"), None);
    assert_eq!(utc("0 0 31 4,6,9,11 *", "2026-01-01T00:00:00Z"), None);
    assert_eq!(utc("* * * * *", "9999-12-30T00:00:00Z").unwrap(), "9999-12-30T00:01:00Z");
}

#[test]
fn ends_with_time_itself() {
    for text in ["* * * * *", "0 0 1 1 *", "0 0 30 2 *"] {
        for zone in ["UTC", "America/New_York", "Pacific/Kiritimati"] {
            assert_eq!(schedule(text, zone).next_after(Timestamp::MAX), None, "{text} {zone}");
            schedule(text, zone).next_after(Timestamp::MIN);
            schedule(text, zone).next_after("9999-12-01T00:00:00Z".parse().unwrap());
        }
    }
    let every = Schedule::new(Cron::every(Duration::from_secs(u64::MAX)).unwrap(), TimeZone::UTC);
    assert_eq!(every.next_after(Timestamp::UNIX_EPOCH), None);
}

#[test]
fn reboot_is_not_by_the_clock() {
    assert_eq!(schedule("@reboot", "UTC").next_after(Timestamp::UNIX_EPOCH), None);
}

#[test]
fn every_counts_from_the_epoch() {
    let every =
        |millis, zone| Schedule::new(Cron::every(Duration::from_millis(millis)).unwrap(), TimeZone::get(zone).unwrap());
    let after: Timestamp = "2026-03-29T00:59:59.999999999Z".parse().unwrap();
    for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
        assert_eq!(every(900_000, zone).next_after(after).unwrap().to_string(), "2026-03-29T01:00:00Z");
    }
    let runs: Vec<_> = every(1500, "UTC").upcoming(Timestamp::from_millisecond(-2000).unwrap()).take(3).collect();
    assert_eq!(runs.iter().map(|run| run.as_millisecond()).collect::<Vec<_>>(), [-1500, 0, 1500]);
}

/// An expression and what it means, without kiln's parser.
struct Drawn {
    text: String,
    values: [Vec<i8>; 5],
    interval: bool,
}

impl Drawn {
    fn matches_day(&self, date: Date) -> bool {
        let [.., days, months, weekdays] = &self.values;
        days.contains(&date.day())
            && months.contains(&date.month())
            && weekdays.contains(&date.weekday().to_sunday_zero_offset())
    }

    fn matches(&self, time: DateTime) -> bool {
        time.second() == 0
            && self.values[0].contains(&time.minute())
            && self.values[1].contains(&time.hour())
            && self.matches_day(time.date())
    }
}

/// One part of a field from `low` to `high`: its text, its values, and whether it has a `*` or a step.
fn draw_part(rng: &mut Rng, low: i8, high: i8) -> (String, Vec<i8>, bool) {
    let (a, b) = (rng.i8(low..=high), rng.i8(low..=high));
    let (a, b, step) = (a.min(b), a.max(b), rng.usize(1..20));
    match rng.u8(..6) {
        0 => ("*".to_owned(), (low..=high).collect(), true),
        1 => (format!("*/{step}"), (low..=high).step_by(step).collect(), true),
        2 => (format!("{a}/{step}"), (a..=high).step_by(step).collect(), true),
        3 => (format!("{a}-{b}/{step}"), (a..=b).step_by(step).collect(), true),
        4 => (format!("{a}-{b}"), (a..=b).collect(), false),
        _ => (a.to_string(), vec![a], false),
    }
}

fn draw_field(rng: &mut Rng, low: i8, high: i8, stars: bool) -> (String, Vec<i8>, bool) {
    let parts: Vec<_> =
        (0..rng.usize(1..4)).map(|_| draw_part(rng, low, high)).filter(|part| stars || !part.2).collect();
    if parts.is_empty() {
        let value = rng.i8(low..=high);
        return (value.to_string(), vec![value], false);
    }
    let text = parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>().join(",");
    (text, parts.iter().flat_map(|part| part.1.clone()).collect(), parts.iter().any(|part| part.2))
}

/// An expression. With `every_day` it matches on all days; without `stars` as well, in the hours of a change.
fn draw_expression(rng: &mut Rng, every_day: bool, stars: bool) -> Drawn {
    let last_hour = if every_day && !stars { 4 } else { 23 };
    let minute = draw_field(rng, 0, 59, stars);
    let hour = draw_field(rng, 0, last_hour, stars);
    let mut day = |low, high| match every_day {
        true => ("*".to_owned(), (low..=high).collect(), true),
        false => draw_field(rng, low, high, true),
    };
    let mut fields = [minute, hour, day(1, 31), day(1, 12), day(0, 7)];
    // Sunday is 0 and 7.
    fields[4].1.iter_mut().for_each(|weekday| *weekday %= 7);
    Drawn {
        text: fields.each_ref().map(|field| field.0.as_str()).join(" "),
        interval: fields[0].2 || fields[1].2,
        values: fields.map(|field| field.1),
    }
}

/// The rule for an interval: every instant at which the wall clock begins a minute that matches.
fn scan_instants(drawn: &Drawn, zone: &TimeZone, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
    // Since 1973 every offset is whole minutes; before, a minute may begin at any second.
    let step = if from.as_second() > 3 * 366 * 86_400 { 60 } else { 1 };
    let seconds = (from.as_second() - from.as_second().rem_euclid(step)..=to.as_second()).step_by(step as usize);
    let instants = seconds.map(|second| Timestamp::from_second(second).unwrap());
    instants.filter(|&now| now > from && now <= to && drawn.matches(zone.to_datetime(now))).collect()
}

/// The rule for a fixed time: every matching minute of the calendar, where the zone's clock first shows it or skips it.
fn scan_calendar(drawn: &Drawn, zone: &TimeZone, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
    let first = zone.to_datetime(from).date().checked_sub(3.days()).unwrap();
    let last = zone.to_datetime(to).date().checked_add(3.days()).unwrap();
    let [minutes, hours, ..] = &drawn.values;
    let days = first.series(1.day()).take_while(|date| *date <= last).filter(|&date| drawn.matches_day(date));
    let hours = days.flat_map(|date| hours.iter().map(move |&hour| (date, hour)));
    let slots = hours.flat_map(|(date, hour)| minutes.iter().map(move |&minute| date.at(hour, minute, 0, 0)));
    slots.map(|slot| first_shown(zone, slot)).filter(|&run| run > from && run <= to).collect()
}

fn first_shown(zone: &TimeZone, slot: DateTime) -> Timestamp {
    match zone.to_ambiguous_timestamp(slot).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(slot).unwrap(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(slot).unwrap(),
        AmbiguousOffset::Gap { before, after } => {
            let (mut low, mut high) = (after.to_timestamp(slot).unwrap(), before.to_timestamp(slot).unwrap());
            while high.as_second() - low.as_second() > 1 {
                let middle = Timestamp::from_second((low.as_second() + high.as_second()).div_euclid(2)).unwrap();
                if zone.to_offset(middle) == before { low = middle } else { high = middle }
            }
            high
        }
    }
}

fn scan(drawn: &Drawn, zone: &TimeZone, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
    if drawn.interval { scan_instants(drawn, zone, from, to) } else { scan_calendar(drawn, zone, from, to) }
}

const ODD_ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Europe/Dublin",
    "America/Sao_Paulo",
    "Antarctica/Troll",
    "Africa/Monrovia",
    "Pacific/Kwajalein",
    "Asia/Tehran",
    "America/St_Johns",
];

fn draw_zone<'z>(rng: &mut Rng, all: &'z [String]) -> &'z str {
    if rng.bool() { ODD_ZONES[rng.usize(..ODD_ZONES.len())] } else { &all[rng.usize(..all.len())] }
}

/// A second between 1870 and 2120, in half of the draws shortly before a change of the clock.
fn draw_instant(rng: &mut Rng, zone: &TimeZone) -> Timestamp {
    let any = Timestamp::from_second(rng.i64(-100 * 31_556_952..150 * 31_556_952)).unwrap();
    match zone.following(any).next() {
        Some(change) if rng.bool() => change.timestamp() - SignedDuration::from_secs(rng.i64(0..36 * 3600)),
        _ => any,
    }
}

fn compare_with_scan(seed: u64, zone: &str) {
    let mut rng = Rng::with_seed(seed);
    let told = format!("in {zone}, KILN_CRON_SEED={seed}");
    let zone = TimeZone::get(zone).unwrap();
    let from = draw_instant(&mut rng, &zone);
    let stars = rng.bool();
    let sparse = rng.u8(..4) == 0;
    let drawn = draw_expression(&mut rng, !sparse, stars);
    // Intervals are scanned by the minute: two days. Fixed times by the calendar: years, where they are rare.
    let days = if sparse && !drawn.interval { 400 * 41 } else { 2 };
    let to = from + SignedDuration::from_hours(24 * days);
    let told = format!("`{}` from {from} to {to} {told} KILN_CRON_DRAWS=1", drawn.text);

    let schedule = Schedule::new(drawn.text.parse().unwrap(), zone.clone());
    let expected: Vec<_> = scan(&drawn, &zone, from, to).into_iter().take(2000).collect();
    let mut run = from;
    for &next in &expected {
        assert_eq!(schedule.next_after(run), Some(next), "after {run}: {told}");
        let between = run + SignedDuration::from_nanos(rng.i64(0..(next.as_nanosecond() - run.as_nanosecond()) as i64));
        assert_eq!(schedule.next_after(between), Some(next), "after {between}: {told}");
        run = next;
    }
    if expected.len() < 2000 {
        assert!(schedule.next_after(run).is_none_or(|next| next > to), "after {run}: {told}");
    }
}

#[test]
fn no_run_more_or_less_than_a_scan_finds() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = number("KILN_CRON_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    println!("KILN_CRON_SEED={first}");
    let zones: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    for seed in first..first + number("KILN_CRON_DRAWS").unwrap_or(300) {
        compare_with_scan(seed, draw_zone(&mut Rng::with_seed(!seed), &zones));
    }
    if let Some(each) = number("KILN_CRON_ALL_ZONES") {
        println!("{each} schedules in each of {} zones", zones.len());
        for (n, zone) in zones.iter().enumerate() {
            (0..each).for_each(|draw| compare_with_scan(first + n as u64 * each + draw, zone));
        }
    }
}

#[test]
fn a_program_can_ask_for_the_next_runs() {
    let berlin = schedule("0 9 * * MON-FRI", "Europe/Berlin");
    let friday: Timestamp = "2026-03-27T12:00:00Z".parse().unwrap();
    let next: Vec<String> = berlin.upcoming(friday).take(2).map(|run| run.to_string()).collect();
    assert_eq!(next, ["2026-03-30T07:00:00Z", "2026-03-31T07:00:00Z"]);
    assert_eq!(berlin.next_after(friday).unwrap().to_string(), next[0]);
    assert_eq!(schedule("0 0 30 2 *", "UTC").upcoming(friday).next(), None);
}
