//! The operator's verbs: cancel, retry, delete, update.

use std::sync::Arc;

use super::handle::Kiln;
use crate::error::Result;
use crate::event::{Event, Subject};
use crate::job::{Filter, IntoChanges, Jobs, Order, Verb, Which};
use crate::life::Need;
use crate::life::operate::{cancel, delete, operate, replace, retry, update};
use crate::life::tx::Tx;
use crate::store::query;
use crate::store::sweep::Changed;

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
        let now = self.0.clock.now();
        self.operate(
            jobs.into().0,
            move |tx, id| cancel(tx, id, now),
            |Changed { job, state, .. }| Event::Cancelled { job, state },
        )
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
        let now = self.0.clock.now();
        self.operate(jobs.into().0, move |tx, id| retry(tx, id, now), |Changed { job, .. }| Event::Retried { job })
    }

    /// Deletes jobs; says how many. Executing ones are left alone.
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    pub fn delete(&self, jobs: impl Into<Jobs>) -> Result<u64> {
        self.operate(jobs.into().0, delete, |Changed { job, .. }| Event::Deleted { job })
    }

    /// Changes jobs; says how many. See [`Changes`](crate::Changes) for what can be changed; a closure is given the
    /// row as it is, and is asked again when somebody else changed it meanwhile.
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for a change that may not be stored: that job is left as it was. Else as
    /// [`cancel`](Self::cancel).
    pub fn update(&self, jobs: impl Into<Jobs>, mut changes: impl IntoChanges) -> Result<u64> {
        self.0.life.writer()?;
        let which = jobs.into().0;
        if let Some(value) = changes.by_value() {
            let (changes, now) = (value.clone().within(self.0.max_payload), self.0.clock.now());
            return self.operate(
                which,
                move |tx, id| update(tx, id, &changes, now),
                |Changed { job, .. }| Event::Updated { job },
            );
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
            let page = self.0.life.read(|conn| query::list(conn, &filter))?;
            for job in &page {
                count += u64::from(self.update_one(job.id, &mut changes)?);
            }
            match page.last() {
                Some(last) => filter.from = Some(last.id),
                None => return Ok(count),
            }
        }
    }

    /// Applies a verb to these jobs, a batch in each transaction, and tells observers of each job.
    fn operate(
        &self,
        which: Which,
        verb: impl Fn(&mut Tx<'_>, i64) -> Result<Option<Changed>> + Send + Sync + 'static,
        event: impl Fn(Changed) -> Event,
    ) -> Result<u64> {
        let (task, wanted) = (Arc::new((which, verb)), self.0.observers.any());
        let (mut count, mut from) = (0, None);
        loop {
            let task = Arc::clone(&task);
            let batch = move |tx: &mut Tx<'_>| operate(tx, &task.0, from, wanted, &task.1);
            let (changed, end) = self.0.life.call(Need::Durable, batch)?;
            count += changed.count;
            self.tell(changed.jobs, &event);
            if end.is_none() {
                return Ok(count);
            }
            from = end;
        }
    }

    fn update_one(&self, id: i64, changes: &mut impl IntoChanges) -> Result<bool> {
        loop {
            let old = self.get(id)?.filter(|job| job.state.allows(Verb::Update));
            let Some(old) = old else { return Ok(false) };
            let mut new = old.clone();
            changes.changes(&old).within(self.0.max_payload).apply(&mut new, self.0.clock.now())?;
            let job = Subject::from(&new);
            if self.0.life.call(Need::Durable, move |tx| replace(tx, &old, &new))? {
                self.0.observers.tell(|| Event::Updated { job });
                return Ok(true);
            }
        }
    }
}
