//! Cron expressions: parsed or refused, shown as they were written, and due again and again, each time later.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use kiln::{Cron, Schedule};

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"];

/// Lines: the expression, then the number of a zone, then a second since 1970; what is missing is 0.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let expression = lines.next().unwrap_or_default();
    let mut number = || lines.next().and_then(|line| line.trim().parse::<i64>().ok()).unwrap_or(0);
    let zone = ZONES[number().rem_euclid(ZONES.len() as i64) as usize];
    let start = Timestamp::from_second(number()).unwrap_or(Timestamp::UNIX_EPOCH);
    let cron = match expression.parse::<Cron>() {
        Ok(cron) => cron,
        Err(error) => {
            assert_eq!(error.field(), Some("cron"), "{error}");
            return;
        }
    };
    assert_eq!(cron.to_string(), expression, "it is shown as it was written");
    assert_eq!(cron.to_string().parse::<Cron>().unwrap(), cron);
    fields_are_in_their_ranges(&cron);
    let Ok(zone) = TimeZone::get(zone) else { return };
    slots_come_one_after_the_other(&Schedule::new(cron.clone(), zone), start);
    let utc = Schedule::new(cron.clone(), TimeZone::UTC);
    slots_come_one_after_the_other(&utc, start);
    if let Some(slot) = utc.next_after(start) {
        assert!(cron.matches(Offset::UTC.to_datetime(slot)), "{slot} is no slot of {expression:?}");
    }
}

fn fields_are_in_their_ranges(cron: &Cron) {
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
    for (values, (least, most)) in cron.fields().into_iter().flatten().zip(ranges) {
        assert!(!values.is_empty() && values.is_sorted(), "{cron}: {values:?}");
        assert!(values.iter().all(|value| (least..=most).contains(value)), "{cron}: {values:?}");
    }
}

fn slots_come_one_after_the_other(schedule: &Schedule, start: Timestamp) {
    let mut last = start;
    for slot in schedule.upcoming(start).take(6) {
        assert!(slot > last, "{slot} after {last}, of {:?}", schedule.cron());
        last = slot;
    }
}
