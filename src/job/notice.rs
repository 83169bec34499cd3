//! What a transaction changed that other runtimes want to know.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::row::Job;
use super::state::State;

/// What a transaction changed that other runtimes want to know, in this process and in others.
///
/// A notice makes things prompt. A runtime that misses a notice finds the same in the file, only later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// Queues with new available jobs.
    pub queues: Vec<String>,
    /// Any queue may have new available jobs.
    pub all_queues: bool,
    /// The earliest time at which a job becomes due, in microseconds since 1970.
    pub due: Option<i64>,
    /// Executing jobs that somebody asked to cancel.
    pub cancelling: Vec<i64>,
    /// Cron entries were added or changed.
    #[serde(default)]
    pub crons: bool,
    /// The transaction is not committed yet, and may never be.
    #[serde(default)]
    pub expected: bool,
    /// Settings of queues for all runtimes were changed.
    pub queues_changed: bool,
}

impl Notice {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        let nothing_else = self.due.is_none() && self.cancelling.is_empty() && !self.queues_changed && !self.crons;
        nothing_else && self.queues.is_empty() && !self.all_queues
    }

    /// Adds that the queue has a new available job.
    pub fn add_queue(&mut self, queue: &str) {
        if !self.concerns(queue) {
            self.queues.push(queue.to_owned());
        }
    }

    /// Whether the queue may have new available jobs.
    pub fn concerns(&self, queue: &str) -> bool {
        self.all_queues || self.queues.iter().any(|other| other == queue)
    }

    /// Adds that a job is due at this time.
    pub fn add_due(&mut self, at: Timestamp) {
        self.due = self.due.into_iter().chain([at.as_microsecond()]).min();
    }

    /// Adds that a job was stored as it is now.
    pub fn add_job(&mut self, job: &Job) {
        match job.state {
            State::Available => self.add_queue(&job.queue),
            State::Scheduled | State::Retryable => self.add_due(job.scheduled_at),
            _ => {}
        }
    }

    /// Adds all that another notice tells.
    pub fn merge(&mut self, other: Notice) {
        other.queues.iter().for_each(|queue| self.add_queue(queue));
        self.all_queues |= other.all_queues;
        self.due = self.due.into_iter().chain(other.due).min();
        self.cancelling.extend(other.cancelling);
        self.crons |= other.crons;
        self.expected |= other.expected;
        self.queues_changed |= other.queues_changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_notice_tells_what_either_told() {
        let mut notice = Notice::default();
        assert!(notice.is_empty());
        notice.add_queue("a");
        notice.add_queue("a");
        notice.add_due(Timestamp::from_microsecond(7).unwrap());
        notice.merge(Notice { queues: vec!["a".into(), "b".into()], due: Some(5), crons: true, ..Notice::default() });
        let expected = Notice { queues: vec!["a".into(), "b".into()], due: Some(5), crons: true, ..Notice::default() };
        assert_eq!(notice, expected);
        assert!(notice.concerns("b") && !notice.concerns("c"));
        notice.merge(Notice { all_queues: true, ..Notice::default() });
        assert!(notice.concerns("c") && !notice.is_empty());
    }
}
