//! A [`Unique`] as a cron entry stores it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Field, Unique};
use crate::job::State;
use crate::{Error, Result};

/// A [`Unique`] as JSON; what is left out is the default.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    fields: Vec<Field>,
    keys: Vec<String>,
    /// In microseconds.
    period: Option<u64>,
    states: Vec<String>,
    timestamp: Stamp,
    replace: BTreeMap<String, Vec<Field>>,
    /// In microseconds.
    delay: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stamp {
    #[default]
    InsertedAt,
    ScheduledAt,
}

impl Default for Written {
    fn default() -> Self {
        let Unique { fields, states, .. } = Unique::default();
        Self {
            fields,
            keys: Vec::new(),
            period: None,
            states: states.iter().map(|state| state.to_string()).collect(),
            timestamp: Stamp::default(),
            replace: BTreeMap::new(),
            delay: None,
        }
    }
}

impl Unique {
    /// As a cron entry stores it.
    pub(in crate::job) fn write(&self) -> String {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let names = |states: &[State]| states.iter().map(|state| state.to_string()).collect();
        let mut replace: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        for (state, fields) in &self.replace {
            replace.entry(state.to_string()).or_default().extend(fields);
        }
        let written = Written {
            fields: self.fields.clone(),
            keys: self.keys.clone(),
            period: self.period.map(micros),
            states: names(&self.states),
            timestamp: if self.by_schedule { Stamp::ScheduledAt } else { Stamp::InsertedAt },
            replace,
            delay: self.delay.map(micros),
        };
        serde_json::to_string(&written).expect("BUG: lists and names are JSON")
    }

    /// What [`write`](Self::write) wrote, or another program.
    pub(in crate::job) fn read(text: &str) -> Result<Unique> {
        let state = |name: &String| match State::from_name(name) {
            State::Unknown => Err(Error::invalid("unique", format!("unique has a state that is none: {name:?}"))),
            state => Ok(state),
        };
        let written: Written = serde_json::from_str(text).map_err(|error| {
            Error::invalid("unique", "unique of a cron entry is not the JSON that was expected").because(error)
        })?;
        let unique = Unique {
            states: written.states.iter().map(state).collect::<Result<_>>()?,
            replace: written
                .replace
                .into_iter()
                .map(|(name, fields)| Ok((state(&name)?, fields)))
                .collect::<Result<_>>()?,
            fields: written.fields,
            keys: written.keys,
            period: written.period.map(Duration::from_micros),
            by_schedule: matches!(written.timestamp, Stamp::ScheduledAt),
            delay: written.delay.map(Duration::from_micros),
        };
        unique.validate().map(|()| unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let minute = Duration::from_secs(60);
        let uniques = [
            Unique::new(),
            Unique::new().by([Field::Meta, Field::Args]).keys(["id"]).within(minute).by_schedule(),
            Unique::new().states(State::ALL).replace(State::Executing, [Field::Tags, Field::MaxAttempts]),
            Unique::new().debounce(minute),
            Unique::new().throttle(minute),
        ];
        for unique in uniques {
            assert_eq!(Unique::read(&unique.write()).unwrap(), unique);
        }
        assert_eq!(Unique::read("{}").unwrap(), Unique::new(), "what is left out is the default");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in
            ["", "5", r#"{"fields":["id"]}"#, r#"{"states":["done"]}"#, r#"{"states":["executing"]}"#, r#"{"x":1}"#]
        {
            assert_eq!(Unique::read(text).unwrap_err().field(), Some("unique"), "{text}");
        }
    }
}
