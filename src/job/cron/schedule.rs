//! The instants at which a cron expression is due, also when the clock is changed.

use std::iter;
use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::expression::{Cron, Kind};
use super::fields::Fields;

/// How far ahead a slot is looked for: 41 years.
///
/// 29 February falls on a given weekday every 28 years, or 40 where a century without a leap day lies between.
const HORIZON: SignedDuration = SignedDuration::from_hours(41 * 366 * 24);

const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);

/// A [`Cron`] in a time zone: the instants at which it is due.
///
/// A *slot* is the start of a minute on the zone's wall clock that the expression matches. A wall clock is set forward
/// and back, for summer time or by decree, so that a slot may never be shown (a gap) or be shown twice (an overlap).
/// A fixed time then runs once, an interval goes by what the clock shows:
/// [the guide](crate::guide::scheduling#summer-time) has the rule.
///
/// [`Cron::every`] goes by instants alone: no clock, no zone, no rule.
///
/// ```
/// use jiff::{Timestamp, tz::TimeZone};
/// use kiln::Schedule;
///
/// let schedule = Schedule::new("30 2 * * *".parse()?, TimeZone::get("Europe/Berlin")?);
/// let before: Timestamp = "2026-03-28T12:00:00Z".parse()?;
/// let runs: Vec<_> = schedule.upcoming(before).take(2).map(|run| run.to_string()).collect();
///
/// // On the 29th, the clock goes from 02:00 to 03:00.
/// assert_eq!(runs, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// The instants of `cron` by the wall clock of `zone`.
    ///
    /// ```
    /// use jiff::tz::TimeZone;
    /// use kiln::Schedule;
    ///
    /// let schedule = Schedule::new("@daily".parse()?, TimeZone::UTC);
    /// assert_eq!(schedule.next_after("2026-05-01T08:30:00Z".parse()?), Some("2026-05-02T00:00:00Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(cron: Cron, zone: TimeZone) -> Self {
        Self { cron, zone }
    }

    /// The expression.
    ///
    /// ```
    /// use jiff::tz::TimeZone;
    /// use kiln::Schedule;
    ///
    /// let schedule = Schedule::new("@reboot".parse()?, TimeZone::UTC);
    /// assert!(schedule.cron().is_reboot());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn cron(&self) -> &Cron {
        &self.cron
    }

    /// The time zone.
    ///
    /// ```
    /// use jiff::tz::TimeZone;
    /// use kiln::Schedule;
    ///
    /// let schedule = Schedule::new("@daily".parse()?, TimeZone::get("Asia/Kathmandu")?);
    /// assert_eq!(schedule.zone().iana_name(), Some("Asia/Kathmandu"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first instant after `after`, itself excluded, at which this is due.
    ///
    /// `None` if there is none within 41 years: for a day that never comes (`0 0 30 2 *`), or beyond the year 9999.
    /// That is more than 29 February and a weekday need to meet again (28 years, 40 around 1900 and 2100). It is always
    /// `None` for `@reboot`, which is due when a runtime starts, and only the runtime knows that.
    ///
    /// The search goes by field, not by minute. It mostly takes less than a microsecond, and some tens of microseconds
    /// for `None`.
    ///
    /// ```
    /// use jiff::{Timestamp, tz::TimeZone};
    /// use kiln::Schedule;
    ///
    /// let after: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    /// let next = |text: &str| Ok::<_, kiln::Error>(Schedule::new(text.parse()?, TimeZone::UTC).next_after(after));
    ///
    /// assert_eq!(next("0 0 29 2 *")?, Some("2028-02-29T00:00:00Z".parse()?));
    /// assert_eq!(next("0 0 30 2 *")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.cron.kind {
            Kind::Clock(fields) => self.next_on_clock(fields, after),
            Kind::Every(distance) => next_multiple(*distance, after),
            Kind::Reboot => None,
        }
    }

    /// The instants after `after` at which this is due, in order: [`next_after`](Self::next_after) again and again.
    ///
    /// ```
    /// use jiff::{Timestamp, tz::TimeZone};
    /// use kiln::Schedule;
    ///
    /// let schedule = Schedule::new("0 */8 * * *".parse()?, TimeZone::UTC);
    /// let runs: Vec<_> = schedule.upcoming(Timestamp::UNIX_EPOCH).take(3).map(|run| run.as_second() / 3600).collect();
    /// assert_eq!(runs, [8, 16, 24]);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn upcoming(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        iter::successors(self.next_after(after), |&run| self.next_after(run))
    }

    /// The last instant after `after` and up to `until` at which this is due.
    ///
    /// This is a binary search: a year of missed seconds takes hardly longer than a minute of them.
    pub(crate) fn last_until(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let due_after = |instant| self.next_after(instant).filter(|due| *due <= until);
        let mut last = due_after(after)?;
        let mut none_after = until;
        while last < none_after {
            let middle = last.checked_add(none_after.duration_since(last) / 2).ok()?;
            match due_after(middle) {
                Some(due) => last = due,
                None => none_after = middle,
            }
        }
        Some(last)
    }

    /// Looks through the spans of time in which the offset from UTC stays the same, one after the other.
    ///
    /// Within a span the wall clock runs as time does. An interval has all slots that the clock shows in the span. For
    /// a fixed time there are two differences. If the span began with a gap, the slots in the gap are due as the span
    /// begins. If the span began with an overlap, its slots were already due in the span before. Both follow from where
    /// on the clock the slots of the span begin: for a fixed time, at the time that the clock would show without the
    /// change.
    fn next_on_clock(&self, fields: &Fields, after: Timestamp) -> Option<Timestamp> {
        let horizon = after.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let mut offset = self.zone.to_offset(after);
        let mut begin = after;
        let mut from = full_minute(offset.to_datetime(after).checked_add(NANOSECOND).ok()?)?;
        if !fields.interval {
            from = from.max(full_minute(self.unchanged_clock(after))?);
        }
        let changes = self.zone.following(after).map(|change| (change.timestamp(), change.offset()));
        for (end, next_offset) in changes.chain(iter::once((horizon, offset))) {
            let end = end.min(horizon);
            if let Some(slot) = fields.first(from, offset.to_datetime(end)) {
                return offset.to_timestamp(slot).ok().map(|due| due.max(begin));
            }
            if end == horizon {
                break;
            }
            let clock = if fields.interval { next_offset } else { offset };
            from = full_minute(clock.to_datetime(end))?;
            (begin, offset) = (end, next_offset);
        }
        None
    }

    /// What the clock would have shown at its latest change up to `instant`, without that change.
    fn unchanged_clock(&self, instant: Timestamp) -> DateTime {
        let latest = self.zone.preceding(instant.checked_add(NANOSECOND).unwrap_or(instant)).next();
        let before = latest.as_ref().and_then(|change| change.timestamp().checked_sub(NANOSECOND).ok());
        match latest.zip(before) {
            Some((change, before)) => self.zone.to_offset(before).to_datetime(change.timestamp()),
            None => DateTime::MIN,
        }
    }
}

/// The first full minute not before `time`.
fn full_minute(time: DateTime) -> Option<DateTime> {
    let begun = time.date().to_datetime(Time::constant(time.hour(), time.minute(), 0, 0));
    if begun == time { Some(time) } else { begun.checked_add(SignedDuration::from_mins(1)).ok() }
}

/// The first multiple of `distance` from the Unix epoch after `after`.
fn next_multiple(distance: Duration, after: Timestamp) -> Option<Timestamp> {
    let distance = distance.as_nanos().cast_signed();
    let passed = after.as_nanosecond().div_euclid(distance);
    Timestamp::from_nanosecond((passed + 1) * distance).ok()
}
