//! A cron expression, as it was written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use sha2::{Digest, Sha256};

use super::fields::Fields;
use super::parse::parse;
use crate::error::{Error, Result};

/// When a job recurs: a cron expression, `@reboot`, or a fixed distance.
///
/// A `Cron` is parsed with [`FromStr`] and shown as it was written. Two `Cron`s are equal if they were written alike:
/// `@daily` does not equal `0 0 * * *`, because their [`name`](Self::name)s differ too.
///
/// An expression is five fields between white space:
///
/// | field        | allowed             |
/// | ------------ | ------------------- |
/// | minute       | `0-59`              |
/// | hour         | `0-23`              |
/// | day of month | `1-31`              |
/// | month        | `1-12`, `JAN-DEC`   |
/// | day of week  | `0-7`, `SUN-SAT`    |
///
/// A field is `*` (all), a number, a range `1-5`, a step `*/10`, `5/10` (from 5 to the end) or `1-30/10` with a
/// distance of 1 to 99, or a list of these between commas. Names are upper case; 0 and 7 are both Sunday. A range
/// never wraps: `FRI-MON` is refused.
///
/// **Day of month and day of week must both match** (classic cron takes either): `0 0 13 * FRI` is Friday the 13th.
///
/// A nickname stands for an expression: `@hourly` (`0 * * * *`), `@daily` and `@midnight` (`0 0 * * *`), `@weekly`
/// (`0 0 * * 0`), `@monthly` (`0 0 1 * *`), `@yearly` and `@annually` (`0 0 1 1 *`).
///
/// This accepts and refuses what oban-py 0.7 does (`Expression.parse`), including decimal digits of any script and
/// names written together (`SUNMON` is `01`). In addition it accepts `@reboot`, as Oban does (`Oban.Cron.Expression`).
///
/// # Errors
///
/// A wrong expression is [invalid](Error::is_invalid), field `cron`. The message names the field, the value and what is
/// allowed, and points at the place.
///
/// ```
/// use kiln::Cron;
///
/// let weekdays: Cron = "0 9 * * MON-FRI".parse()?;
/// assert_eq!(weekdays.to_string(), "0 9 * * MON-FRI");
///
/// let error = "0 25 * * *".parse::<Cron>().unwrap_err();
/// assert_eq!(error.to_string(), "cron: hour must be 0-23, got 25\n  0 25 * * *\n    ^^");
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    source: String,
    pub(super) kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Clock(Fields),
    Every(Duration),
    Reboot,
}

impl Cron {
    /// A job every `distance`, in any time zone.
    ///
    /// The slots lie at whole multiples of the distance from the Unix epoch, so that every process agrees on them
    /// without asking: `every` 15 minutes is at :00, :15, :30 and :45 UTC. A distance that does not divide a day drifts
    /// over the clock, and summer time does not touch it.
    ///
    /// Such a `Cron` shows itself as `@every 90s` or `@every 1500ms`. This text is not an expression: it cannot be
    /// parsed (oban-py has no such thing).
    ///
    /// # Errors
    ///
    /// [Invalid](Error::is_invalid), field `cron`, unless the distance is a whole number of milliseconds, one at least.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use kiln::Cron;
    ///
    /// assert_eq!(Cron::every(Duration::from_secs(90))?.to_string(), "@every 90s");
    /// assert!(Cron::every(Duration::ZERO).is_err());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn every(distance: Duration) -> Result<Self> {
        let millis = distance.as_millis();
        if distance.is_zero() || !distance.subsec_nanos().is_multiple_of(1_000_000) {
            let message = format!("cron: every must be a whole number of milliseconds, at least 1, got {distance:?}");
            return Err(Error::invalid("cron", message));
        }
        let source = if millis.is_multiple_of(1000) {
            format!("@every {}s", millis / 1000)
        } else {
            format!("@every {millis}ms")
        };
        Ok(Self { source, kind: Kind::Every(distance) })
    }

    /// Reads the text of any [`Cron`], including [`every`](Self::every).
    pub(crate) fn read(shown: &str) -> Result<Self> {
        let distance = shown.strip_prefix("@every ").and_then(|distance| {
            let seconds = || distance.strip_suffix('s')?.parse().ok().map(Duration::from_secs);
            let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
            distance.strip_suffix("ms").map_or_else(seconds, millis)
        });
        distance.map_or_else(|| shown.parse(), Self::every)
    }

    /// Whether this is `@reboot`: once when a runtime starts, and never by the clock.
    ///
    /// ```
    /// use kiln::Cron;
    ///
    /// assert!("@reboot".parse::<Cron>()?.is_reboot());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn is_reboot(&self) -> bool {
        self.kind == Kind::Reboot
    }

    /// Whether a wall clock showing `time` is in a minute of the expression. Seconds do not count.
    ///
    /// This is oban-py's `Expression.is_now`. It ignores summer time, which [`Schedule`](crate::Schedule) handles. It
    /// is always false for [`every`](Self::every) and `@reboot`, which do not go by a wall clock.
    ///
    /// ```
    /// use jiff::civil::date;
    /// use kiln::Cron;
    ///
    /// let friday_the_13th: Cron = "0 0 13 * FRI".parse()?;
    /// assert!(friday_the_13th.matches(date(2026, 3, 13).at(0, 0, 59, 0)));
    /// assert!(!friday_the_13th.matches(date(2026, 3, 20).at(0, 0, 0, 0)));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn matches(&self, time: DateTime) -> bool {
        matches!(&self.kind, Kind::Clock(fields) if fields.matches(time))
    }

    /// The values of the five fields, ascending: minute, hour, day of month, month, and day of week from 0, Sunday,
    /// to 6. `None` for [`every`](Self::every) and `@reboot`.
    ///
    /// ```
    /// use kiln::Cron;
    ///
    /// let [minutes, hours, .., weekdays] = "*/20 9 * * FRI-7".parse::<Cron>()?.fields().unwrap();
    /// assert_eq!(minutes, [0, 20, 40]);
    /// assert_eq!(hours, [9]);
    /// assert_eq!(weekdays, [0, 5, 6]);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn fields(&self) -> Option<[Vec<i8>; 5]> {
        if let Kind::Clock(fields) = &self.kind { Some(fields.values()) } else { None }
    }

    /// The stable name of one cron entry: eight hexadecimal digits that go into a job's `meta.cron_name`.
    ///
    /// The same expression, worker and time zone give the same name in every process and every version, and the one
    /// that oban-py gives (`cron_hash` in `oban/_scheduler.py`): the start of a SHA-256 over the expression as it was
    /// written, the worker's name, and the time zone's name where the entry itself has one.
    ///
    /// ```
    /// use kiln::Cron;
    ///
    /// let daily: Cron = "@daily".parse()?;
    /// assert_eq!(daily.name("app.Worker", None), "bde5273e");
    /// assert_eq!(daily.name("app.Worker", Some("America/New_York")), "0a39abc5");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    pub fn name(&self, worker: &str, timezone: Option<&str>) -> String {
        let options = match timezone {
            Some(timezone) => serde_json::json!({ "timezone": timezone }),
            None => serde_json::json!({}),
        };
        let hash = Sha256::digest(format!("{}:{worker}:{options}", self.source));
        hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(source: &str) -> Result<Self> {
        let kind = if source == "@reboot" {
            Kind::Reboot
        } else {
            Kind::Clock(parse(source).map_err(|mistake| mistake.into_error(source))?)
        };
        Ok(Self { source: source.to_owned(), kind })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.source)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wants_whole_milliseconds() {
        let shown = |distance| Cron::every(distance).map(|cron| cron.to_string()).map_err(|error| error.to_string());
        assert_eq!(shown(Duration::from_secs(3600)).unwrap(), "@every 3600s");
        assert_eq!(shown(Duration::from_millis(1500)).unwrap(), "@every 1500ms");
        let message = "cron: every must be a whole number of milliseconds, at least 1, got";
        assert_eq!(shown(Duration::ZERO).unwrap_err(), format!("{message} 0ns"));
        assert_eq!(shown(Duration::from_micros(1500)).unwrap_err(), format!("{message} 1.5ms"));
        assert!("@every 3600s".parse::<Cron>().is_err());
    }

    #[test]
    fn name_is_the_reference_s() {
        let name = |source: &str, worker, timezone| source.parse::<Cron>().unwrap().name(worker, timezone);
        assert_eq!(name("0 9 * * MON-FRI", "MyApp.Workers.Daily", None), "115d2aa8");
        assert_eq!(name("* * * * *", "w\u{e9}", Some("Etc/UTC")), "03c09ce2");
        assert_eq!(name("@hourly", "send_email", Some("America/New_York")), "5c72658d");
    }

    #[test]
    fn equal_as_written() {
        let cron = |source: &str| source.parse::<Cron>().unwrap();
        assert_eq!(cron("@daily"), cron("@daily"));
        assert_ne!(cron("@daily"), cron("0 0 * * *"));
        assert_eq!(format!("{:?}", cron("@daily")), "Cron(\"@daily\")");
        assert_eq!(format!("{:>8}", cron("@daily")), "  @daily");
    }
}
