//! The operator's hand on queues, for all runtimes on the file, and how those are doing.

use super::handle::Kiln;
use crate::error::Result;
use crate::event::Event;
use crate::job::{self, Control, QueueCheck, Queues};
use crate::report::Health;

/// Control of queues, for all runtimes on the file, in this process and in others; see
/// [the guide](crate::guide::queues). [`Runtime`](crate::Runtime) has the same verbs for itself alone.
impl Kiln {
    /// Pauses a queue, or all, for all runtimes on the file and those to come: they claim nothing more of it. Running
    /// jobs go on; claimed jobs that no thread has begun are given back, untouched.
    ///
    /// The runtimes of this handle have heeded it when it returns, others do within milliseconds.
    ///
    /// ```
    /// use kiln::{Kiln, Queues};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("media", 4).queue("mail", 1).start()?;
    /// kiln.pause(Queues::All)?;
    /// kiln.resume("mail")?;
    /// let paused: Vec<String> = kiln.check(Queues::All)?.into_iter().filter(|q| q.paused()).map(|q| q.queue).collect();
    /// assert_eq!(paused, ["media"]);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`is_invalid`](crate::Error::is_invalid) for a blank name. Else as [`cancel`](Self::cancel).
    pub fn pause(&self, queues: impl Into<Queues>) -> Result<()> {
        self.set_queues(queues.into(), Control::Pause, |queues| Event::Paused { queues, for_all: true })
    }

    /// Ends a [pause](Self::pause) that was for all runtimes. A runtime that [paused](crate::Runtime::pause) the queue
    /// for itself leaves it paused.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self, queues: impl Into<Queues>) -> Result<()> {
        self.set_queues(queues.into(), Control::Resume, |queues| Event::Resumed { queues, for_all: true })
    }

    /// Lets each runtime on the file, and each to come, run at most `limit` jobs of a queue at once, or of each of its
    /// queues. `None` gives them the limits back that they were built with. Of this limit and one that a runtime was
    /// [given for itself](crate::Runtime::scale), the one that was set last holds.
    ///
    /// ```
    /// use kiln::Kiln;
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("media", 4).start()?;
    /// kiln.scale("media", 2)?;
    /// assert_eq!(kiln.check("media")?[0].limit, 2);
    /// kiln.scale("media", None)?;
    /// assert_eq!(kiln.check("media")?[0].limit, 4);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause); [`is_invalid`](crate::Error::is_invalid) also for a limit of 0.
    pub fn scale(&self, queues: impl Into<Queues>, limit: impl Into<Option<usize>>) -> Result<()> {
        let (queues, limit) = (queues.into(), limit.into());
        limit.map_or(Ok(()), |limit| job::validate_queue_limit(&queues, limit))?;
        self.set_queues(queues, Control::Scale(limit), |queues| Event::Scaled { queues, limit, for_all: true })
    }

    /// Lets every runtime on the file, and each to come, run a queue, whether it was built with it or not, with at most
    /// `limit` of its jobs at once. The limit is set as by [`scale`](Self::scale); a [pause](Self::pause) stays.
    ///
    /// `None` ends a [stop](Self::stop_queue), and a start as well: the queue is run by those runtimes that were built
    /// with it, or [started it](crate::Runtime::start_queue) for themselves. Only this can be said of
    /// [`Queues::All`].
    ///
    /// A runtime that does not know the workers of the queue's jobs leaves them to others.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().worker_fn("greet", |_: &Running<()>| ()).start()?;
    /// kiln.start_queue("party", 2)?;
    /// let job = kiln.enqueue(NewJob::new("greet").queue("party"))?;
    /// kiln.wait(job.id, std::time::Duration::MAX)?;
    ///
    /// kiln.start_queue("party", None)?;
    /// assert!(kiln.check("party")?.is_empty(), "nobody was built with it");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause); [`is_invalid`](crate::Error::is_invalid) also for a limit of 0, and for a limit for
    /// all queues.
    pub fn start_queue(&self, queues: impl Into<Queues>, limit: impl Into<Option<usize>>) -> Result<()> {
        let (queues, limit) = (queues.into(), limit.into());
        limit.map_or(Ok(()), |limit| job::validate_queue_start(&queues, limit))?;
        self.set_queues(queues, Control::Start(limit), |queues| Event::QueueStarted { queues, limit, for_all: true })
    }

    /// Lets no runtime on the file, and none to come, run a queue, or any at all, until it is
    /// [started](Self::start_queue): they claim nothing more of it. It does not wait: running jobs go on to their end.
    ///
    /// A [paused](Self::pause) queue is still one that a runtime runs, and [`check`](Self::check) tells of it; a stopped
    /// one is not, as if no runtime had been built with it.
    ///
    /// ```
    /// use kiln::Kiln;
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("media", 4).start()?;
    /// kiln.stop_queue("media")?;
    /// assert!(kiln.check("media")?.is_empty());
    ///
    /// kiln.start_queue("media", None)?;
    /// assert_eq!(kiln.check("media")?[0].limit, 4);
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn stop_queue(&self, queues: impl Into<Queues>) -> Result<()> {
        self.set_queues(queues.into(), Control::Stop, |queues| Event::QueueStopped { queues, for_all: true })
    }

    /// How each live runtime on the file runs a queue, or all of its queues: limit, pause, running jobs, and the
    /// jobs that wait as suspects; by queue.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn check(&self, queues: impl Into<Queues>) -> Result<Vec<QueueCheck>> {
        self.0.life.check(&queues.into())
    }

    /// How the file and the runtimes on it are doing.
    ///
    /// ```
    /// use kiln::{Kiln, NewJob, Running};
    ///
    /// let kiln = Kiln::in_memory()?;
    /// let runtime = kiln.runtime().queue("mail", 1).worker_fn("app.Mailer", |_: &Running<()>| ()).start()?;
    /// kiln.enqueue(NewJob::new("app.Printer"))?;
    ///
    /// let health = kiln.health()?;
    /// assert_eq!(health.unknown_workers["app.Printer"], 1);
    /// assert_eq!(health.runtimes[0].workers, ["app.Mailer"]);
    /// assert!(health.runtimes[0].pulse.as_ref().is_some_and(|pulse| pulse.claiming));
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn health(&self) -> Result<Health> {
        self.0.life.health()
    }

    fn set_queues(&self, queues: Queues, control: Control, event: impl FnOnce(Queues) -> Event) -> Result<()> {
        queues.validate()?;
        self.0.life.set_queues(&queues, control, self.0.clock.now())?;
        self.0.observers.tell(|| event(queues));
        Ok(())
    }
}
