//! Parses an expression. It accepts exactly what `Expression.parse` of oban-py 0.7 accepts.

use std::iter::StepBy;
use std::ops::RangeInclusive;

use super::fields::{Fields, Set};
use crate::error::Error;

pub(super) const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// What a field may hold. A name stands for its place in `names`, counted from `low`.
struct Rule {
    field: &'static str,
    low: u32,
    high: u32,
    names: &'static str,
}

const RULES: [Rule; 5] = [
    Rule { field: "minute", low: 0, high: 59, names: "" },
    Rule { field: "hour", low: 0, high: 23, names: "" },
    Rule { field: "day of month", low: 1, high: 31, names: "" },
    Rule { field: "month", low: 1, high: 12, names: "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC" },
    Rule { field: "day of week", low: 0, high: 7, names: "SUN MON TUE WED THU FRI SAT" },
];

/// What is wrong, and with which slice of the expression.
pub(super) struct Mistake<'a> {
    place: &'a str,
    message: String,
}

impl Mistake<'_> {
    /// Shows `source`, which the place is a slice of, with carets under the place.
    pub(super) fn into_error(self, source: &str) -> Error {
        // A slice of the text begins where its address says.
        let before = self.place.as_ptr().addr() - source.as_ptr().addr();
        let indent = " ".repeat(source[..before].chars().count());
        let carets = "^".repeat(self.place.chars().count().max(1));
        // One line and one column each, so that the carets meet their place.
        let shown: String = source.chars().map(|c| if is_space(c) || c.is_control() { ' ' } else { c }).collect();
        Error::invalid("cron", format!("cron: {}\n  {shown}\n  {indent}{carets}", self.message))
    }
}

pub(super) fn parse(source: &str) -> Result<Fields, Mistake<'_>> {
    let expression = NICKNAMES.iter().find(|(name, _)| *name == source).map_or(source, |(_, expression)| expression);
    if expression.starts_with('@') {
        let known = NICKNAMES.map(|(name, _)| name).join(", ");
        let message = match expression.starts_with("@every") {
            true => "every is no expression, give it as a duration: Cron::every, NewCron::every".to_owned(),
            false => format!("a nickname must be {known} or @reboot, got {source:?}"),
        };
        return Err(Mistake { place: source, message });
    }
    let texts = split(expression)?;
    let set = |field: usize| RULES[field].set(texts[field]);
    Ok(Fields {
        minutes: set(0)?,
        hours: set(1)?,
        days: set(2)?,
        months: set(3)?,
        weekdays: set(4)?.from(0).map(|day| day % 7).collect(),
        interval: texts[..2].iter().any(|text| text.contains(['*', '/'])),
    })
}

/// The texts of the five fields, split as oban-py does: at white space, with none before or after.
fn split(expression: &str) -> Result<[&str; 5], Mistake<'_>> {
    let [first, .., last] = RULES.map(|rule| rule.field);
    let words: Vec<_> = expression.split(is_space).filter(|word| !word.is_empty()).collect();
    let tally = format!("an expression is five fields, got {}", words.len());
    let end = expression.trim_end_matches(is_space).len();
    let (place, message) = if expression.starts_with(is_space) {
        (&expression[..0], format!("no space may stand before {first}"))
    } else if let Some(missing) = RULES.get(words.len()) {
        (&expression[expression.len()..], format!("{} is missing, {tally}", missing.field))
    } else if let Some(extra) = words.get(RULES.len()) {
        (*extra, format!("nothing may follow {last}, {tally}"))
    } else if end < expression.len() {
        (&expression[end..], format!("no space may follow {last}"))
    } else {
        return Ok(words.try_into().expect("BUG: neither fewer nor more than five words"));
    };
    Err(Mistake { place, message })
}

impl Rule {
    /// What a single value may be, in words.
    fn allowed(&self) -> String {
        match self.names.split_once(' ').zip(self.names.rsplit_once(' ')) {
            Some(((first, _), (_, last))) => format!("{}-{} or {first}-{last}", self.low, self.high),
            None => format!("{}-{}", self.low, self.high),
        }
    }

    fn set<'a>(&self, text: &'a str) -> Result<Set, Mistake<'a>> {
        let parts = text.split(',').map(|part| self.part(part)).collect::<Result<Vec<_>, _>>()?;
        Ok(parts.into_iter().flatten().map(|value| value as i8).collect())
    }

    /// One element of a list: `*`, `5`, `1-5`, and with a step `*/10`, `5/10`, `1-5/10`.
    fn part<'a>(&self, part: &'a str) -> Result<StepBy<RangeInclusive<u32>>, Mistake<'a>> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (part, None),
        };
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let form = || format!("be {}, a range of them (a-b), * or a step (*/n, a/n, a-b/n)", self.allowed());
        let (low, high) = match range {
            "*" => (self.low, self.high),
            _ => self.number(from).zip(self.number(to)).ok_or_else(|| self.mistake(part, &form()))?,
        };
        let high = if step.is_some() && !range.contains('-') { self.high } else { high };
        for (text, value) in [(from, low), (to, high)] {
            if !(self.low..=self.high).contains(&value) {
                return Err(self.mistake(text, &format!("be {}", self.allowed())));
            }
        }
        if low > high {
            return Err(self.mistake(range, "have its range from low to high"));
        }
        Ok((low..=high).step_by(step.unwrap_or(1) as usize))
    }

    fn step<'a>(&self, text: &'a str) -> Result<u32, Mistake<'a>> {
        let plain = self.digits(text).starts_with(|first| matches!(first, '1'..='9'));
        self.number(text).filter(|&step| plain && step < 100).ok_or_else(|| self.mistake(text, "have a step of 1-99"))
    }

    fn number(&self, text: &str) -> Option<u32> {
        let digits = self.digits(text);
        let value = digits.chars().try_fold(0_u32, |sum, c| Some(sum.saturating_mul(10).saturating_add(digit(c)?)));
        value.filter(|_| !digits.is_empty())
    }

    /// The text with every name in it replaced by its number, as oban-py does: `JANFEB` is 12.
    fn digits(&self, text: &str) -> String {
        let names = self.names.split_whitespace().zip(self.low..);
        names.fold(text.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()))
    }

    fn mistake<'a>(&self, place: &'a str, must: &str) -> Mistake<'a> {
        let got = if place.is_empty() { "nothing" } else { place };
        Mistake { place, message: format!("{} must {must}, got {got}", self.field) }
    }
}

/// White space as Python's `\s` has it: Unicode's, and the four separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// The value of a decimal digit of any script, as Python's `\d` and `int` read it.
fn digit(character: char) -> Option<u32> {
    ZEROS.iter().find_map(|zero| (character as u32).checked_sub(*zero).filter(|&value| value < 10))
}

/// The zero of every script that has decimal digits (Unicode 15, category Nd); one to nine follow it.
#[rustfmt::skip]
const ZEROS: [u32; 68] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0,
    0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620,
    0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0,
    0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x11F50,
    0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E950,
    0x1FBF0,
];
