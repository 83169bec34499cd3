//! What a running job keeps about itself: how far it is, and what it need not do again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::job::{Fence, Job, Json, Note, Progress};
use crate::kiln::Kiln;
use crate::presence::Window;

/// Progress is written four times a second at the most.
const PACE: Duration = Duration::from_millis(250);

/// Where reports of progress go that are not written at once.
pub(crate) trait Reports: Send + Sync {
    /// This reporter has something to write when its time comes.
    fn remind(&self, reporter: &Arc<Reporter>);
}

/// Writes one job's progress, not too often.
pub(crate) struct Reporter {
    kiln: Kiln,
    job: Arc<Job>,
    fence: Fence,
    state: Mutex<Reported>,
}

#[derive(Default)]
struct Reported {
    unwritten: Option<Progress>,
    written_at: Option<Instant>,
}

impl Reporter {
    pub fn new(kiln: Kiln, job: Arc<Job>, fence: Fence) -> Self {
        Self { kiln, job, fence, state: Mutex::default() }
    }

    /// Takes a report; `true` when somebody has to write it later.
    pub fn report(&self, progress: Progress) -> bool {
        let mut state = self.state.lock();
        let waits = state.unwritten.replace(progress).is_some();
        let now = Instant::now();
        if state.written_at.is_some_and(|at| now < at + PACE) {
            return !waits;
        }
        drop(state);
        self.write();
        false
    }

    /// When there is something to write.
    pub fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.unwritten.as_ref()?;
        Some(state.written_at.map_or_else(Instant::now, |at| at + PACE))
    }

    /// Writes what is unwritten. That it cannot be is no reason to fail the job.
    pub fn write(&self) {
        let mut state = self.state.lock();
        let Some(progress) = state.unwritten.take() else { return };
        state.written_at = Some(Instant::now());
        drop(state);
        let text = serde_json::to_string(&progress).unwrap_or_default();
        if let Ok(true) = self.kiln.note(self.fence, Note::Progress(text)) {
            self.kiln.observers().tell(|| {
                let note = self.job.shown(&progress.note).into_owned();
                Event::Progressed { job: (&*self.job).into(), progress: Progress { note, ..progress } }
            });
        }
    }
}

/// What an attempt left for the next: a value, and the results of steps by name.
pub(super) struct Memory {
    kiln: Kiln,
    fence: Fence,
    /// There is no row to keep it in.
    rowless: bool,
    /// The time in which a crash counts begins anew with each checkpoint.
    window: Option<Arc<Mutex<Window>>>,
    stored: Mutex<Option<Map<String, Value>>>,
}

const VALUE: &str = "value";
const STEPS: &str = "steps";

impl Memory {
    pub fn new(kiln: Kiln, fence: Fence, rowless: bool, window: Option<Arc<Mutex<Window>>>) -> Self {
        Self { kiln, fence, rowless, window, stored: Mutex::new(rowless.then(Map::new)) }
    }

    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.with(|stored| stored.get(VALUE).cloned().map(|value| read("the checkpoint", value)).transpose())
    }

    pub fn keep<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let value = written("checkpoint", value)?;
        self.change(|stored| drop(stored.insert(VALUE.into(), value)))
    }

    pub fn step<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.with(|stored| {
            let result = stored.get(STEPS).and_then(|steps| steps.get(name)).cloned();
            result.map(|value| read(&format!("the result of step {name:?}"), value)).transpose()
        })
    }

    pub fn keep_step<T: Serialize + ?Sized>(&self, name: &str, result: &T) -> Result<()> {
        let result = written("step", result)?;
        self.change(|stored| {
            let steps = stored.entry(STEPS).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(steps) = steps {
                steps.insert(name.to_owned(), result);
            }
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Map<String, Value>) -> Result<T>) -> Result<T> {
        let mut stored = self.stored.lock();
        if stored.is_none() {
            let text = self.kiln.notes(self.fence.id)?.checkpoint;
            *stored = Some(text.map(|text| Json::raw(text).map()).unwrap_or_default());
        }
        look(stored.get_or_insert_default())
    }

    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        let mut new = self.with(|stored| Ok(stored.clone()))?;
        change(&mut new);
        let text = Value::Object(new.clone()).to_string();
        if !self.rowless && !self.kiln.note(self.fence, Note::Checkpoint(text))? {
            return Err(Error::lost(self.fence));
        }
        self.window.iter().for_each(|window| window.lock().checkpoint(Instant::now()));
        *self.stored.lock() = Some(new);
        Ok(())
    }
}

fn written<T: Serialize + ?Sized>(field: &'static str, value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::invalid(field, "it cannot be written as JSON").because(error))
}

fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|error| Error::malformed(format!("{what} of an earlier attempt cannot be read")).because(error))
}
