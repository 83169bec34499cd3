//! The operator's verbs: cancel, retry, delete, update.

use super::Kiln;
use crate::Result;
use crate::engine::Changed;
use crate::event::{Event, Subject};
use crate::job::{Filter, IntoChanges, Jobs, Order, Verb, Which};

impl Kiln {
    /// Cancels jobs; says how many. One that waits is cancelled at once. One that executes is asked to leave: at once
    /// where it runs in this process, within a second in another; it never runs again, however it ends. Finished jobs
    /// are left alone.
    ///
    /// Many jobs are changed a thousand in a transaction, and told of after it, each by an [event](Event) of its own; so
    /// it is with the verbs below.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; jobs of earlier transactions stay changed.
    pub fn cancel(&self, jobs: impl Into<Jobs>) -> Result<u64> {
        let mut told = |Changed { job, state, .. }| self.0.observers.tell(|| Event::Cancelled { job, state });
        self.0.engine.cancel(&jobs.into().0, self.0.clock.now(), self.told(&mut told))
    }

    /// Makes jobs available again, with at least one attempt left and no expiry; says how many. Available and executing
    /// ones are left alone.
    ///
    /// ```
    /// use kiln::{Filter, Kiln, NewJob, State};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let job = kiln.enqueue(NewJob::new("app.Mailer"))?;
    /// assert_eq!(kiln.cancel(job.id)?, 1);
    /// assert_eq!(kiln.retry(Filter::new().state(State::Cancelled))?, 1);
    /// assert_eq!(kiln.delete(&job)?, 1);
    /// assert!(kiln.get(job.id)?.is_none());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    pub fn retry(&self, jobs: impl Into<Jobs>) -> Result<u64> {
        let mut told = |Changed { job, .. }| self.0.observers.tell(|| Event::Retried { job });
        self.0.engine.retry(&jobs.into().0, self.0.clock.now(), self.told(&mut told))
    }

    /// Deletes jobs; says how many. Executing ones are left alone.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    pub fn delete(&self, jobs: impl Into<Jobs>) -> Result<u64> {
        let mut told = |Changed { job, .. }| self.0.observers.tell(|| Event::Deleted { job });
        self.0.engine.delete(&jobs.into().0, self.told(&mut told))
    }

    /// Changes jobs; says how many. See [`Changes`](crate::Changes) for what can be changed; a closure is given the
    /// row as it is, and is asked again when somebody else changed it meanwhile.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for a change that may not be stored: that job is left as it was. Else as
    /// [`cancel`](Self::cancel).
    pub fn update(&self, jobs: impl Into<Jobs>, mut changes: impl IntoChanges) -> Result<u64> {
        self.0.engine.may_write()?;
        let which = jobs.into().0;
        if let Some(value) = changes.by_value() {
            let mut told = |Changed { job, .. }| self.0.observers.tell(|| Event::Updated { job });
            let changes = value.clone().within(self.0.max_payload);
            return self.0.engine.update(&which, &changes, self.0.clock.now(), self.told(&mut told));
        }
        let mut count = 0;
        let mut filter = match which {
            Which::Ids(ids) => {
                for id in ids {
                    count += u64::from(self.update_one(id, &mut changes)?);
                }
                return Ok(count);
            }
            Which::Matching(filter) => Filter { order: Order::OldestFirst, from: None, limit: 500, ..filter },
        };
        loop {
            let page = self.0.engine.list(&filter)?;
            for job in &page {
                count += u64::from(self.update_one(job.id, &mut changes)?);
            }
            match page.last() {
                Some(last) => filter.from = Some(last.id),
                None => return Ok(count),
            }
        }
    }

    fn update_one(&self, id: i64, changes: &mut impl IntoChanges) -> Result<bool> {
        loop {
            let old = self.get(id)?.filter(|job| job.state.allows(Verb::Update));
            let Some(old) = old else { return Ok(false) };
            let mut new = old.clone();
            changes.changes(&old).within(self.0.max_payload).apply(&mut new, self.0.clock.now())?;
            let job = Subject::from(&new);
            if self.0.engine.replace(old, new)? {
                self.0.observers.tell(|| Event::Updated { job });
                return Ok(true);
            }
        }
    }
}
