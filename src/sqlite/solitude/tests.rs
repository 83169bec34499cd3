use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::NewJob;
use crate::engine::{Demand, Member};
use crate::sqlite::ledger::{Remains, Rules};

const BASE: Duration = Duration::from_secs(1);

fn turn(company: Company) -> Turn {
    let member = Member {
        id: "r".into(),
        node: "n".into(),
        workers: Vec::new(),
        started_at: Timestamp::UNIX_EPOCH,
        max_crashes: 3,
        solitude: true,
        damaged: Arc::default(),
    };
    let demands = vec![Demand { queue: "default".into(), limit: 5, slots: 5 }];
    let turn = Turn::by_hand(Arc::new(member), Timestamp::UNIX_EPOCH, Vec::new(), demands);
    Turn { company, solitude: BASE, ..turn }
}

fn job(id: i64, crashes: i64) -> Job {
    Job { id, crashes, ..NewJob::new("w").build(Timestamp::UNIX_EPOCH, |_| ()).unwrap().job }
}

/// Seats of one process, on these files, each with how often it was woken.
fn seats<const N: usize>(files: [Option<&str>; N]) -> [(Solitude, Arc<AtomicUsize>); N] {
    let here = Arc::default();
    files.map(|file| {
        let seat = Solitude::among(Arc::clone(&here));
        let woken = Arc::new(AtomicUsize::new(0));
        let wake = Arc::clone(&woken);
        let wake = move || {
            wake.fetch_add(1, Ordering::Relaxed);
        };
        seat.enter("r", file.map(Path::new), None, Arc::new(wake));
        (seat, woken)
    })
}

fn seat() -> Solitude {
    seats([None]).map(|(seat, _)| seat).into_iter().next().unwrap()
}

/// The places of these jobs, which a claim meets in this order.
fn places(seat: &Solitude, company: Company, now: Instant, jobs: &[Job]) -> Vec<Place> {
    let turns = [turn(company), turn(Company::Nobody)];
    seat.see(&turns, now);
    let mut room = seat.room(&turns, now);
    if room.is_closed() {
        return vec![];
    }
    let mut places = Vec::new();
    for job in jobs {
        places.push(room.place(&turns[0], job));
        if room.is_closed() {
            break;
        }
    }
    places
}

#[test]
fn a_suspect_is_claimed_where_nothing_runs_and_nothing_with_it() {
    let seat = seat();
    let now = Instant::now();
    let jobs = [job(1, 1), job(2, 0), job(3, 1)];
    assert_eq!(places(&seat, Company::Nobody, now, &jobs), [Place::Alone]);
    assert_eq!(places(&seat, Company::Suspect, now, &jobs[1..]), []);
    assert_eq!(places(&seat, Company::Nobody, now, &jobs[1..]), [Place::Free, Place::None]);
    assert_eq!(places(&seat, Company::Somebody, now, &jobs[2..]), [], "what runs is to end first");
    assert_eq!(places(&seat, Company::Nobody, now, &jobs[2..]), [Place::Alone]);
}

#[test]
fn those_of_one_crash_are_let_go_where_they_cannot_be_alone_for_long() {
    let seat = seat();
    let now = Instant::now();
    let jobs = [job(1, 1), job(2, 1), job(3, 2), job(4, 0)];
    assert_eq!(places(&seat, Company::Nobody, now, &jobs), [Place::Alone]);
    let rest = &jobs[1..];
    // The first takes long.
    assert_eq!(places(&seat, Company::Somebody, now, rest), [Place::Free, Place::None]);
    assert_eq!(places(&seat, Company::Somebody, now + 9 * BASE, &rest[1..]), []);
    assert_eq!(places(&seat, Company::Somebody, now + 10 * BASE, &rest[1..]), [Place::Alone]);
    assert_eq!(places(&seat, Company::Suspect, now + 11 * BASE, &rest[2..]), []);
    assert_eq!(places(&seat, Company::Somebody, now + 20 * BASE, &rest[2..]), [Place::Free]);
    assert_eq!(places(&seat, Company::Nobody, now + 20 * BASE, &jobs), [Place::Alone], "all is as before");
}

#[test]
fn jobs_that_do_not_end_hold_up_a_suspect_and_the_others_for_so_long_and_no_longer() {
    let seat = seat();
    let now = Instant::now();
    let jobs = [job(1, 1), job(2, 0)];
    assert_eq!(places(&seat, Company::Somebody, now, &jobs), [Place::None]);
    assert_eq!(places(&seat, Company::Somebody, now + BASE / 2, &jobs), []);
    assert_eq!(places(&seat, Company::Somebody, now + BASE, &jobs), [Place::Free, Place::Free]);
}

#[test]
fn where_nobody_is_to_be_alone_nobody_waits() {
    let seat = seat();
    let turns = [Turn { solitude: Duration::ZERO, ..turn(Company::Somebody) }];
    seat.see(&turns, Instant::now());
    let mut room = seat.room(&turns, Instant::now());
    assert_eq!(room.place(&turns[0], &job(1, 9)), Place::Free);
}

#[test]
fn a_suspect_of_one_handle_is_alone_in_the_process_and_who_was_refused_is_told_of_its_end() {
    let [(one, _), (other, woken)] = seats([Some("a"), Some("b")]);
    let now = Instant::now();
    assert_eq!(places(&one, Company::Nobody, now, &[job(1, 1)]), [Place::Alone]);
    assert_eq!(places(&other, Company::Nobody, now, &[job(1, 0)]), []);
    let turns = [turn(Company::Nobody)];
    assert_eq!(other.room(&turns, now).until(), Some(now + BASE), "it is no longer refused then");
    assert_eq!(places(&one, Company::Suspect, now, &[job(2, 0)]), []);
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    one.see(&turns, now);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(places(&other, Company::Nobody, now, &[job(1, 0)]), [Place::Free]);
}

#[test]
fn a_suspect_waits_for_what_runs_by_another_handle_which_begins_nothing_more_until_then() {
    let [(one, told), (other, _)] = seats([Some("a"), None]);
    let now = Instant::now();
    assert_eq!(places(&other, Company::Nobody, now, &[job(1, 0)]), [Place::Free]);
    assert_eq!(places(&one, Company::Nobody, now, &[job(1, 1)]), [Place::None]);
    assert_eq!(places(&other, Company::Somebody, now, &[job(2, 0)]), []);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert_eq!(places(&other, Company::Nobody, now, &[job(2, 0)]), [], "the suspect is the next");
    assert!(told.load(Ordering::Relaxed) > 0);
    assert_eq!(places(&one, Company::Nobody, now, &[job(1, 1)]), [Place::Alone]);
    // Who takes long lets others begin beside it, whichever handle they are of.
    assert_eq!(places(&other, Company::Nobody, now + BASE, &[job(2, 0)]), [Place::Free]);
    // And who does not end waits for nobody's sake for ever.
    assert_eq!(places(&one, Company::Nobody, now + BASE, &[job(3, 2)]), [Place::None]);
    assert_eq!(places(&other, Company::Somebody, now + 10 * BASE, &[job(3, 0)]), []);
    assert_eq!(places(&other, Company::Somebody, now + 11 * BASE, &[job(3, 0)]), [Place::Free]);
    assert_eq!(places(&one, Company::Nobody, now + 11 * BASE, &[job(3, 2)]), [Place::Alone], "beside the others");
}

#[test]
fn a_suspect_that_is_gone_and_a_handle_that_is_gone_hold_up_nobody() {
    let [(one, _), (other, woken), (third, _)] = seats([Some("a"); 3]);
    let now = Instant::now();
    let jobs = [job(1, 0)];
    assert_eq!(places(&third, Company::Nobody, now, &jobs), [Place::Free]);
    assert_eq!(places(&one, Company::Nobody, now, &[job(2, 1)]), [Place::None]);
    assert_eq!(places(&other, Company::Nobody, now, &jobs), []);
    third.see(&[turn(Company::Nobody)], now);
    assert_eq!(woken.swap(0, Ordering::Relaxed), 1);
    assert_eq!(places(&other, Company::Nobody, now, &jobs), []);
    one.see(&[Turn { demands: Vec::new(), ..turn(Company::Nobody) }], now);
    assert_eq!(woken.swap(0, Ordering::Relaxed), 1, "nobody asks for its queue");
    assert_eq!(places(&other, Company::Nobody, now, &jobs), [Place::Free]);

    other.see(&[turn(Company::Nobody)], now);
    assert_eq!(places(&one, Company::Nobody, now, &[job(2, 1)]), [Place::Alone]);
    assert_eq!(places(&other, Company::Nobody, now, &jobs), []);
    one.leave("r");
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(places(&other, Company::Nobody, now, &jobs), [Place::Free]);
}

#[test]
fn what_was_not_committed_is_not_there() {
    let [(one, _), (other, woken)] = seats([Some("a"), Some("a")]);
    let now = Instant::now();
    assert_eq!(places(&one, Company::Nobody, now, &[job(1, 1)]), [Place::Alone]);
    assert_eq!(places(&other, Company::Nobody, now, &[job(2, 0)]), []);
    one.undo();
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(places(&other, Company::Nobody, now, &[job(2, 0)]), [Place::Free]);
}

/// A ledger in a file, and whether it tells all of the process for this attempt.
fn ledger(path: &Path) -> Arc<Ledger> {
    let rules = Rules { max_crashes: 3, solitude: true };
    let make = |content: &[u8]| {
        std::fs::write(path, content).unwrap();
        Ok(std::fs::File::options().read(true).write(true).open(path).unwrap())
    };
    Arc::new(Ledger::new(rules, make).unwrap())
}

#[test]
fn a_sidecar_says_when_its_rows_do_not_tell_all_of_the_process_and_who_is_alone_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let here = Arc::default();
    let [one, twin, other] = [(); 3].map(|()| Solitude::among(Arc::clone(&here)));
    let [a, twins, b] = ["a", "twin", "b"].map(|name| folder.path().join(name));
    let fence = Fence { id: 1, attempt: 1, attempted_at: 7 };
    let tells_all = |path: &Path| Remains::read(path).unwrap().tells_all(fence);
    let enter = |seat: &Solitude, file: &str, sidecar: &Path| {
        seat.enter("r", Some(Path::new(file)), Some(ledger(sidecar)), Arc::new(|| ()));
    };
    enter(&one, "jobs", &a);
    enter(&twin, "jobs", &twins);
    assert!(tells_all(&a) && tells_all(&twins), "all of one file");
    enter(&other, "other", &b);
    assert!(!tells_all(&a) && !tells_all(&twins) && !tells_all(&b));

    let now = Instant::now();
    let turns = [turn(Company::Nobody)];
    let claim = |seat: &Solitude, now: Instant, company: Company, suspect: &Job| {
        seat.see(&[turn(company)], now);
        let mut room = seat.room(&turns, now);
        assert_eq!(room.place(&turns[0], suspect), Place::Alone);
        room.mark(fence);
    };
    claim(&one, now, Company::Nobody, &job(1, 1));
    assert!(tells_all(&a));
    assert_eq!(places(&other, Company::Nobody, now + BASE, &[job(1, 0)]), [Place::Free]);
    assert!(!tells_all(&a), "before anything else begins");

    one.see(&turns, now);
    other.see(&turns, now);
    one.stray(true);
    claim(&one, now, Company::Nobody, &job(1, 1));
    assert!(!tells_all(&a), "a thread that nobody waits for runs as well");
    one.see(&turns, now);
    one.stray(false);
    claim(&one, now, Company::Nobody, &job(1, 1));
    assert!(tells_all(&a));
}
