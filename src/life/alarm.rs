//! The alarm of a runtime's scheduler: what wakes it before its time.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select_biased};
use parking_lot::Mutex;

use crate::job::Notice;

/// Flags under a lock, and a channel with room for one token that says "look at the state".
pub(crate) struct Alarm {
    state: Mutex<State>,
    token: Sender<()>,
    rung: Receiver<()>,
}

#[derive(Default)]
struct State {
    wake: Wake,
    /// The scheduler is to wake now.
    rung: bool,
    /// When the scheduler expects the next job to be due, in microseconds since 1970.
    planned: Option<i64>,
    /// When the alarm is to ring at the latest.
    at: Option<Instant>,
}

/// What the scheduler was woken for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wake {
    /// A turn is to be run.
    pub turn: bool,
    /// Jobs wait, and more threads may be hired for them.
    pub hire: bool,
    /// A job is due earlier than was planned for.
    pub due: bool,
    /// Another connection is about to commit something.
    pub expected: bool,
    /// Somebody asked to cancel an executing job.
    pub cancelling: bool,
    /// Cron entries were added or changed.
    pub crons: bool,
    /// Settings of queues were changed by another process.
    pub queues: bool,
    /// The place of a suspect is free.
    pub suspects: bool,
}

impl Default for Alarm {
    fn default() -> Self {
        let (token, rung) = bounded(1);
        Self { state: Mutex::default(), token, rung }
    }
}

impl Alarm {
    /// Wakes the scheduler for what `set` sets.
    pub fn ring(&self, set: impl FnOnce(&mut Wake)) {
        let mut state = self.state.lock();
        state.rung = true;
        set(&mut state.wake);
        drop(state);
        self.call();
    }

    /// Rings at this time, if not before.
    pub fn ring_by(&self, at: Instant) {
        let mut state = self.state.lock();
        let earlier = state.at.is_none_or(|before| at < before);
        if earlier {
            state.at = Some(at);
            drop(state);
            self.call();
        }
    }

    /// Lets the scheduler look at the state.
    fn call(&self) {
        match self.token.try_send(()) {
            // The token is there already: the scheduler will look.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Notes when the scheduler expects the next job to be due, in microseconds since 1970.
    pub fn plan(&self, due: Option<i64>) {
        self.state.lock().planned = due;
    }

    /// Wakes the scheduler if a notice is about something that it looks after.
    pub fn notify(&self, notice: &Notice) {
        let mut state = self.state.lock();
        let due = notice.due.is_some_and(|due| state.planned.is_none_or(|planned| due < planned));
        let wake = &mut state.wake;
        let cancelling = !notice.cancelling.is_empty();
        if due || cancelling || notice.expected || notice.crons {
            wake.due |= due;
            wake.cancelling |= cancelling;
            wake.expected |= notice.expected;
            wake.crons |= notice.crons;
            drop(state);
            self.ring(|_| ());
        }
    }

    /// Waits for a ring, for a signal of a free place, or for the time; says what the alarm was rung for.
    pub fn wait(&self, until: Instant, suspects: &Receiver<()>) -> Wake {
        loop {
            let earliest = |state: &State| state.at.map_or(until, |at| at.min(until));
            let timeout = earliest(&self.state.lock()).saturating_duration_since(Instant::now());
            let is_free = select_biased! {
                recv(self.rung) -> _ => false,
                recv(suspects) -> _ => true,
                default(timeout) => false,
            };
            let mut state = self.state.lock();
            // A token alone says that there is another time to wait for.
            if state.rung || is_free || earliest(&state) <= Instant::now() {
                (state.rung, state.at) = (false, None);
                let mut wake = std::mem::take(&mut state.wake);
                wake.suspects |= is_free;
                return wake;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    fn far() -> Instant {
        Instant::now() + LONG
    }

    /// What the alarm was rung for; the time is up at once.
    fn rung(alarm: &Alarm) -> Wake {
        let (_other, signals) = bounded(1);
        alarm.wait(Instant::now(), &signals)
    }

    fn names(wake: Wake) -> Vec<&'static str> {
        let Wake { turn, hire, due, expected, cancelling, crons, queues, suspects } = wake;
        let all = [turn, hire, due, expected, cancelling, crons, queues, suspects];
        let names = ["turn", "hire", "due", "expected", "cancelling", "crons", "queues", "suspects"];
        names.into_iter().zip(all).filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }

    #[test]
    fn many_rings_wake_once_and_all_that_they_set_is_there() {
        let alarm = Alarm::default();
        let (_other, signals) = bounded(1);
        alarm.ring(|wake| wake.turn = true);
        alarm.ring(|wake| wake.crons = true);
        alarm.ring(|_| ());
        assert_eq!(names(alarm.wait(far(), &signals)), ["turn", "crons"]);
        assert!(names(rung(&alarm)).is_empty(), "it was heeded");
    }

    #[test]
    fn a_ring_while_the_one_before_is_heeded_is_not_lost() {
        let alarm = Alarm::default();
        let (_other, signals) = bounded(1);
        for _ in 0..3 {
            alarm.ring(|wake| wake.turn = true);
            assert_eq!(names(alarm.wait(far(), &signals)), ["turn"]);
            // The scheduler is at work now.
            alarm.ring(|wake| wake.hire = true);
            alarm.ring(|wake| wake.queues = true);
            assert_eq!(names(alarm.wait(far(), &signals)), ["hire", "queues"]);
        }
    }

    #[test]
    fn rings_of_many_threads_all_arrive() {
        let alarm = Arc::new(Alarm::default());
        let (other, signals) = bounded(1);
        let sets: [fn(&mut Wake); 4] =
            [|it| it.turn = true, |it| it.hire = true, |it| it.due = true, |it| it.crons = true];
        for _ in 0..200 {
            let ringers = sets.map(|set| {
                let alarm = Arc::clone(&alarm);
                thread::spawn(move || alarm.ring(set))
            });
            let mut seen = Vec::new();
            while seen.len() < 4 {
                let wake = names(alarm.wait(far(), &signals));
                assert!(seen.iter().all(|name| !wake.contains(name)), "each is told once");
                seen.extend(wake);
            }
            ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        }
        drop(other);
    }

    #[test]
    fn a_signal_that_the_place_is_free_wakes_for_suspects() {
        let alarm = Alarm::default();
        let (other, signals) = bounded(1);
        other.send(()).unwrap();
        assert_eq!(names(alarm.wait(far(), &signals)), ["suspects"]);
        other.send(()).unwrap();
        alarm.ring(|wake| wake.due = true);
        let both = [alarm.wait(far(), &signals), alarm.wait(far(), &signals)];
        assert_eq!(both.map(names), [vec!["due"], vec!["suspects"]]);
    }

    #[test]
    fn it_rings_by_the_earliest_of_the_times_it_was_given_and_not_before() {
        let alarm = Arc::new(Alarm::default());
        let (_other, signals) = bounded(1);
        let started = Instant::now();
        let soon = started + Duration::from_millis(30);
        alarm.ring_by(started + LONG);
        let ringer = Arc::clone(&alarm);
        // Before the alarm is waited for, or meanwhile.
        let ringer = thread::spawn(move || {
            ringer.ring_by(soon);
            ringer.ring_by(started + LONG);
        });
        assert!(names(alarm.wait(far(), &signals)).is_empty());
        let now = Instant::now();
        assert!(soon <= now && now < started + LONG);
        ringer.join().unwrap();
        let state = alarm.state.lock();
        assert_eq!(state.at, None, "the scheduler says itself until when it rests from now on");
    }

    #[test]
    fn a_ring_comes_before_the_time_and_does_not_leave_it_behind() {
        let alarm = Alarm::default();
        let (_other, signals) = bounded(1);
        alarm.ring_by(Instant::now() + LONG);
        alarm.ring(|wake| wake.hire = true);
        assert_eq!(names(alarm.wait(far(), &signals)), ["hire"]);
        assert!(alarm.state.lock().at.is_none());
        let until = Instant::now() + Duration::from_millis(1);
        assert!(names(alarm.wait(until, &signals)).is_empty());
        assert!(Instant::now() >= until);
    }

    #[test]
    fn a_notice_wakes_for_what_the_scheduler_looks_after_and_for_nothing_else() {
        let alarm = Alarm::default();
        let due = |micros| Notice { due: Some(micros), ..Notice::default() };
        let told = |notice: Notice| {
            alarm.notify(&notice);
            let called = alarm.state.lock().rung;
            (called, names(rung(&alarm)))
        };
        assert_eq!(told(due(50)), (true, vec!["due"]), "nothing is planned");
        alarm.plan(Some(40));
        assert_eq!(told(due(40)), (false, vec![]), "that was planned for");
        assert_eq!(told(due(39)), (true, vec!["due"]));
        let all = Notice { cancelling: vec![1], crons: true, expected: true, ..due(39) };
        assert_eq!(told(all), (true, vec!["due", "expected", "cancelling", "crons"]));
        let mut notice = Notice { all_queues: true, queues_changed: true, ..Notice::default() };
        notice.add_queue("q");
        notice.add_due(Timestamp::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(told(notice), (false, vec![]), "others see to these");
    }
}
