//! Control of a runtime's queues while it runs: pause and resume, scale, start and stop.

use super::lifecycle::Runtime;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::job::{QueuePlan, Queues, Scaled, validate_queue_limit};

/// Control of its queues, for this runtime alone; [`Kiln`](crate::Kiln) has the same verbs for all runtimes on the
/// file. What is said here holds as long as the runtime exists, also before it is started and after it was stopped and
/// started again.
impl Runtime {
    /// Pauses a queue, or all that this runtime runs: it claims nothing more of it. Running jobs go on; claimed jobs
    /// that no thread has begun are given back, untouched.
    ///
    /// ```
    /// # use kiln::{Kiln, NewJob, Running, State};
    /// # let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("media", 4).worker_fn("shrink", |_: &Running<()>| ()).start()?;
    /// runtime.pause("media")?;
    /// let job = kiln.enqueue(NewJob::new("shrink").args(()).queue("media"))?;
    /// assert_eq!(kiln.get(job.id)?.unwrap().state, State::Available);
    ///
    /// runtime.resume("media")?;
    /// assert_eq!(kiln.wait(job.id, std::time::Duration::MAX)?.unwrap().state, State::Completed);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for a queue that this runtime does not run. Another error means that
    /// [`check`](crate::Kiln::check) could not be told: what was said holds all the same.
    pub fn pause(&self, queues: impl Into<Queues>) -> Result<()> {
        let queues = queues.into();
        self.control(|plans| each(plans, &queues, |plan| plan.paused = true))?;
        self.tell(Event::Paused { queues, for_all: false });
        Ok(())
    }

    /// Ends a [pause](Self::pause) that was for this runtime alone. One for all runtimes is left as it is.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self, queues: impl Into<Queues>) -> Result<()> {
        let queues = queues.into();
        self.control(|plans| each(plans, &queues, |plan| plan.paused = false))?;
        self.tell(Event::Resumed { queues, for_all: false });
        Ok(())
    }

    /// Runs at most `limit` jobs of a queue at once, or of each of its queues. With more running, those above the limit
    /// end as always. Of this limit and one for [all runtimes](crate::Kiln::scale), the one that was set last holds.
    ///
    /// ```
    /// # use kiln::{Kiln, Running};
    /// # let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("media", 4).worker_fn("shrink", |_: &Running<()>| ()).start()?;
    /// runtime.scale("media", 1)?; // on battery
    /// assert_eq!(kiln.check("media")?[0].limit, 1);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause); [`is_invalid`](Error::is_invalid) also for a limit of 0.
    pub fn scale(&self, queues: impl Into<Queues>, limit: usize) -> Result<()> {
        let queues = queues.into();
        validate_queue_limit(&queues, limit)?;
        let settings = self.kiln.life().queue_settings()?;
        self.control(|plans| {
            each(plans, &queues, |plan| {
                plan.scaled = Some(Scaled { limit, over: settings.of(&plan.queue).scaled_at });
            })
        })?;
        self.tell(Event::Scaled { queues, limit: Some(limit), for_all: false });
        Ok(())
    }

    /// Runs one more queue, with at most `limit` of its jobs at once. One that was [stopped for
    /// all](crate::Kiln::stop_queue) begins when that is over.
    ///
    /// ```
    /// # use kiln::{Kiln, NewJob, Running};
    /// # let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().worker_fn("greet", |_: &Running<()>| ()).start()?;
    /// runtime.start_queue("party", 2)?;
    /// let job = kiln.enqueue(NewJob::new("greet").args(()).queue("party"))?;
    /// kiln.wait(job.id, std::time::Duration::MAX)?;
    ///
    /// runtime.stop_queue("party")?;
    /// assert!(kiln.check("party")?.is_empty());
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](Error::is_invalid) for a blank name, a limit of 0, and a queue that it runs already:
    /// [`scale`](Self::scale) that one. Else as [`pause`](Self::pause).
    pub fn start_queue(&self, queue: impl Into<String>, limit: usize) -> Result<()> {
        let queue = queue.into();
        Error::if_blank("queue", &queue)?;
        validate_queue_limit(&queue, limit)?;
        self.control(|plans| {
            if plans.iter().any(|plan| plan.queue == queue && !plan.stopped) {
                let message = format!("queue {queue:?} is run by this runtime already; scale it to change its limit");
                return Err(Error::invalid("queue", message));
            }
            plans.retain(|plan| plan.queue != queue);
            plans.push(QueuePlan::new(queue.clone(), limit));
            Ok(())
        })?;
        self.tell(Event::QueueStarted { queues: queue.into(), limit: Some(limit), for_all: false });
        Ok(())
    }

    /// Runs a queue no more, or none at all: claims nothing more of it, and gives back what no thread has begun. It does
    /// not wait: running jobs go on to their end.
    ///
    /// This goes as well for a queue that [every runtime](crate::Kiln::start_queue) runs.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn stop_queue(&self, queues: impl Into<Queues>) -> Result<()> {
        let queues = queues.into();
        self.control(|plans| each(plans, &queues, |plan| plan.stopped = true))?;
        self.tell(Event::QueueStopped { queues, for_all: false });
        Ok(())
    }

    /// Changes the plans, and what runs with them.
    fn control(&self, change: impl FnOnce(&mut Vec<QueuePlan>) -> Result<()>) -> Result<()> {
        // Not by the phase: a stop that waits for its jobs must not make others wait.
        let Some(shared) = self.shared.lock().upgrade() else {
            // What every runtime on the file runs, this runtime will run as well. It is read without the lock of the plans:
            // a turn of a database in memory may need that lock while it holds the connection.
            let settings = self.kiln.life().queue_settings()?;
            let mut plans = self.plans.lock();
            settings.apply_to(&mut plans);
            return change(&mut plans);
        };
        shared.mailbox.plan(change)?;
        // If this fails, the scheduler tries again.
        let announced = self.kiln.life().announce(&shared.mailbox);
        // What was given back is to be written, also if the announcement could not be.
        shared.turn();
        announced
    }

    fn tell(&self, event: Event) {
        self.kiln.observers().tell(|| event);
    }
}

/// Changes the plans of these queues. One that is named has to be there.
fn each(plans: &mut [QueuePlan], queues: &Queues, change: impl FnMut(&mut QueuePlan)) -> Result<()> {
    let there: Vec<&str> = plans.iter().filter(|plan| !plan.stopped).map(|plan| plan.queue.as_str()).collect();
    if let Queues::One(queue) = queues
        && !there.contains(&queue.as_str())
    {
        let message = format!("queue {queue:?} is not run by this runtime; it runs {there:?}");
        return Err(Error::invalid("queue", message));
    }
    plans.iter_mut().filter(|plan| !plan.stopped && queues.include(&plan.queue)).for_each(change);
    Ok(())
}
