//! The workers that a runtime knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::running::{Control, Running};
use super::worker::{IntoOutcome, Worker};
use crate::error::{Error, Result};
use crate::job::{Failure, Job, Outcome};

/// The workers a runtime knows, by name.
#[derive(Clone, Default)]
pub(crate) struct Registry(HashMap<String, Arc<dyn Entry>>);

/// A worker without its types.
pub(crate) trait Entry: Send + Sync {
    fn process(&self, job: &Arc<Job>, control: &Control) -> Result<Outcome, Failure>;
    fn backoff(&self, job: &Job) -> Option<Duration>;
    fn timeout(&self, job: &Job) -> Option<Duration>;
}

impl Registry {
    pub fn add<W: Worker>(&mut self, worker: W) -> Result<()> {
        self.insert(W::NAME, Arc::new(Typed(worker)))
    }

    pub fn add_fn<A, R, F>(&mut self, name: &str, process: F) -> Result<()>
    where
        A: DeserializeOwned + 'static,
        R: IntoOutcome,
        F: Fn(&Running<A>) -> R + Send + Sync + 'static,
    {
        let entry = move |job: &Arc<Job>, control: &Control| process(&running(job, control)?).into_outcome();
        self.insert(name, Arc::new(entry))
    }

    fn insert(&mut self, name: &str, entry: Arc<dyn Entry>) -> Result<()> {
        Error::if_blank("worker", name)?;
        match self.0.insert(name.to_owned(), entry) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("worker", format!("worker {name:?} was given twice; names must differ"))),
        }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<dyn Entry>> {
        self.0.get(name)
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

fn running<A: DeserializeOwned>(job: &Arc<Job>, control: &Control) -> Result<Running<A>, Failure> {
    // What serde says may quote the arguments: logs have the first line only.
    let args =
        job.args.decode().map_err(|error| format!("args cannot be decoded for worker {:?}:\n{error}", job.worker))?;
    Ok(Running::new(args, Arc::clone(job), control.clone()))
}

struct Typed<W>(W);

impl<W: Worker> Entry for Typed<W> {
    fn process(&self, job: &Arc<Job>, control: &Control) -> Result<Outcome, Failure> {
        self.0.process(&running(job, control)?)
    }

    fn backoff(&self, job: &Job) -> Option<Duration> {
        self.0.backoff(job)
    }

    fn timeout(&self, job: &Job) -> Option<Duration> {
        self.0.timeout(job)
    }
}

/// A closure has neither a backoff nor a timeout of its own.
impl<F: Fn(&Arc<Job>, &Control) -> Result<Outcome, Failure> + Send + Sync> Entry for F {
    fn process(&self, job: &Arc<Job>, control: &Control) -> Result<Outcome, Failure> {
        self(job, control)
    }

    fn backoff(&self, _: &Job) -> Option<Duration> {
        None
    }

    fn timeout(&self, _: &Job) -> Option<Duration> {
        None
    }
}
