//! The values of the five fields, and the next minute that matches them.

use jiff::civil::{Date, DateTime, Time};

/// The values of one field; all of them are below 64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    fn has(self, value: i8) -> bool {
        self.0 >> value & 1 == 1
    }

    /// The values from `low` on, ascending.
    pub(super) fn from(self, low: i8) -> impl Iterator<Item = i8> {
        (low..64).filter(move |&value| self.has(value))
    }
}

impl FromIterator<i8> for Set {
    fn from_iter<I: IntoIterator<Item = i8>>(values: I) -> Self {
        Self(values.into_iter().fold(0, |bits, value| bits | 1 << value))
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minutes: Set,
    pub(super) hours: Set,
    pub(super) days: Set,
    pub(super) months: Set,
    /// From 0, Sunday, to 6.
    pub(super) weekdays: Set,
    /// Whether the minute or the hour recurs (`*` or a step), which decides what a change of the clock does.
    pub(super) interval: bool,
}

impl Fields {
    pub(super) fn values(&self) -> [Vec<i8>; 5] {
        [self.minutes, self.hours, self.days, self.months, self.weekdays].map(|set| set.from(0).collect())
    }

    pub(super) fn matches(&self, time: DateTime) -> bool {
        self.on(time.date()) && self.hours.has(time.hour()) && self.minutes.has(time.minute())
    }

    /// The first minute from `from`, itself the start of a minute, to before `until`.
    pub(super) fn first(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let today = from.date();
        let slot = match self.time_from(from.hour(), from.minute()) {
            Some(time) if self.on(today) => today.to_datetime(time),
            _ => self.date_from(today.tomorrow().ok()?, until.date())?.to_datetime(self.time_from(0, 0)?),
        };
        (slot < until).then_some(slot)
    }

    fn on(&self, date: Date) -> bool {
        self.months.has(date.month()) && self.days.has(date.day()) && self.on_weekday(date)
    }

    fn on_weekday(&self, date: Date) -> bool {
        self.weekdays.has(date.weekday().to_sunday_zero_offset())
    }

    fn date_from(&self, mut from: Date, last: Date) -> Option<Date> {
        while from <= last {
            if self.months.has(from.month()) {
                // The first day that the month does not have ends the month.
                let mut dates =
                    self.days.from(from.day()).map_while(|day| Date::new(from.year(), from.month(), day).ok());
                if let Some(date) = dates.find(|&date| self.on_weekday(date)) {
                    return Some(date);
                }
            }
            from = from.last_of_month().tomorrow().ok()?;
        }
        None
    }

    fn time_from(&self, hour: i8, minute: i8) -> Option<Time> {
        let in_hour = |hour, low| self.minutes.from(low).next().map(|minute| Time::constant(hour, minute, 0, 0));
        let this_hour = if self.hours.has(hour) { in_hour(hour, minute) } else { None };
        this_hour.or_else(|| in_hour(self.hours.from(hour + 1).next()?, 0))
    }
}
