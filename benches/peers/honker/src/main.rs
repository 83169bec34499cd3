#[path = "../../common.rs"]
mod common;
use common::*;
use honker::{Database, EnqueueOpts, Queue, QueueOpts};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(a: &Args) -> Database {
    let db = Database::open(a.db()).unwrap();
    if a.sync() != "default" {
        db.with_conn(|c| c.execute_batch(&format!("PRAGMA synchronous={}", a.sync())).unwrap());
    }
    db
}

fn queue(db: &Database) -> Queue {
    db.queue("default", QueueOpts::default())
}

fn rep(a: &Args, n: u64, secs: f64, lat: Vec<u64>, extra: serde_json::Value) {
    Report {
        peer: "honker".into(),
        workload: a.str("label", &a.workload),
        variant: a.str("variant", ""),
        sync: if a.sync() == "default" { "NORMAL".into() } else { a.sync() },
        n,
        secs,
        lat,
        extra,
    }
    .print();
}

fn fill(db: &Database, q: &Queue, from: u64, n: u64) {
    let tx = db.transaction().unwrap();
    for i in from..from + n {
        q.enqueue_tx(&tx, &payload_value(i), EnqueueOpts::default()).unwrap();
    }
    tx.commit().unwrap();
}

/// `conc` threads that wait for the next job and ack it.
fn wakers(db: &Database, conc: u64, stamps: &Arc<Stamps>) {
    for t in 0..conc {
        let (q, stamps) = (queue(db), stamps.clone());
        std::thread::spawn(move || {
            let w = q.claim_waker();
            let me = format!("w{t}");
            while let Ok(Some(job)) = w.next(&me) {
                let v: serde_json::Value = job.payload_as().unwrap();
                stamps.started(v["n"].as_u64().unwrap());
                job.ack().unwrap();
            }
        });
    }
}

fn main() {
    let a = Args::parse();
    match a.workload.as_str() {
        "enqueue_one" | "enqueue_one_mt" => {
            let n = a.num("n", 20_000);
            let threads = a.num("threads", 1);
            let db = open(&a);
            let per = n / threads;
            let t0 = Instant::now();
            let hs: Vec<_> = (0..threads)
                .map(|t| {
                    let q = queue(&db);
                    std::thread::spawn(move || {
                        let mut lat = Vec::with_capacity(per as usize);
                        for i in t * per..(t + 1) * per {
                            let s = Instant::now();
                            q.enqueue(&payload_value(i), EnqueueOpts::default()).unwrap();
                            lat.push(s.elapsed().as_nanos() as u64);
                        }
                        lat
                    })
                })
                .collect();
            let lat: Vec<u64> = hs.into_iter().flat_map(|h| h.join().unwrap()).collect();
            rep(&a, per * threads, t0.elapsed().as_secs_f64(), lat, serde_json::json!({}));
        }
        "enqueue_batch" => {
            let n = a.num("n", 100_000);
            let db = open(&a);
            let q = queue(&db);
            let mut lat = vec![];
            let t0 = Instant::now();
            let mut i = 0;
            while i < n {
                let s = Instant::now();
                fill(&db, &q, i, 1000);
                lat.push(s.elapsed().as_nanos() as u64);
                i += 1000;
            }
            rep(&a, n, t0.elapsed().as_secs_f64(), lat, serde_json::json!({}));
        }
        "drain" => {
            let n = a.num("n", 100_000);
            let conc = a.num("conc", 8);
            let batch = a.num("batch", 100) as i64;
            let db = open(&a);
            let q = queue(&db);
            let mut i = 0;
            while i < n {
                fill(&db, &q, i, 1000);
                i += 1000;
            }
            db.with_conn(|c| {
                let _ = c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            });
            let stamps = Arc::new(Stamps::new(n));
            let (c0, t0) = (cpu_secs(), Instant::now());
            let limit = Duration::from_secs(a.num("limit", 60));
            let hs: Vec<_> = (0..conc)
                .map(|t| {
                    let (q, stamps) = (queue(&db), stamps.clone());
                    std::thread::spawn(move || {
                        let me = format!("w{t}");
                        while t0.elapsed() < limit {
                            let jobs = q.claim_batch(&me, batch).unwrap();
                            if jobs.is_empty() {
                                break;
                            }
                            for j in &jobs {
                                let v: serde_json::Value = j.payload_as().unwrap();
                                stamps.started(v["n"].as_u64().unwrap());
                            }
                            if batch == 1 {
                                jobs[0].ack().unwrap();
                            } else {
                                let ids: Vec<i64> = jobs.iter().map(|j| j.id).collect();
                                assert_eq!(q.ack_batch(&ids, &me).unwrap() as usize, ids.len());
                            }
                        }
                    })
                })
                .collect();
            for h in hs {
                h.join().unwrap();
            }
            let secs = t0.elapsed().as_secs_f64();
            let (done, seen) = (stamps.done.load(Ordering::Relaxed), stamps.seen());
            rep(
                &a,
                seen,
                secs,
                vec![],
                serde_json::json!({"drain_cpu_s": cpu_secs() - c0, "conc": conc, "batch": batch, "twice": done - seen}),
            );
        }
        "steady" => {
            let rate = a.num("rate", 500);
            let n = rate * a.num("secs", 10);
            let stamps = Arc::new(Stamps::new(n));
            let db = open(&a);
            wakers(&db, a.num("conc", 8), &stamps);
            let q = queue(&db);
            std::thread::sleep(Duration::from_millis(300));
            let c0 = cpu_secs();
            let pace = Pace::new(rate);
            let t0 = Instant::now();
            for i in 0..n {
                pace.wait(i);
                stamps.enqueued(i);
                q.enqueue(&payload_value(i), EnqueueOpts::default()).unwrap();
            }
            wait_count(n, Duration::from_secs(5), Duration::from_millis(5), || stamps.seen());
            let secs = t0.elapsed().as_secs_f64();
            rep(&a, stamps.seen(), secs, stamps.lat(), serde_json::json!({"steady_cpu_s": cpu_secs() - c0}));
            std::process::exit(0);
        }
        "steady_worker" => {
            let n = a.num("n", 500);
            let stamps = Arc::new(Stamps::new(n));
            let db = open(&a);
            wakers(&db, 8, &stamps);
            std::thread::sleep(Duration::from_millis(300));
            println!("ready");
            wait_count(n, Duration::from_secs(25), Duration::from_millis(20), || stamps.seen());
            stamps.dump(&a.str("out", "run.txt"), &stamps.run);
            std::process::exit(0);
        }
        "steady_enq" => {
            let n = a.num("n", 500);
            let stamps = Stamps::new(n);
            let db = open(&a);
            let q = queue(&db);
            let pace = Pace::new(a.num("rate", 50));
            for i in 0..n {
                pace.wait(i);
                stamps.enqueued(i);
                q.enqueue(&payload_value(i), EnqueueOpts::default()).unwrap();
            }
            stamps.dump(&a.str("out", "enq.txt"), &stamps.enq);
            std::process::exit(0);
        }
        "idle" => {
            let db = open(&a);
            wakers(&db, 8, &Arc::new(Stamps::new(1)));
            std::thread::sleep(Duration::from_secs(1));
            let c0 = cpu_secs();
            let secs = a.num("secs", 10);
            std::thread::sleep(Duration::from_secs(secs));
            let cpu = cpu_secs() - c0;
            rep(&a, 0, secs as f64, vec![], serde_json::json!({"idle_cpu_s": (cpu * 1e4).round() / 1e4, "rss_mb": rss_mb()}));
            std::process::exit(0);
        }
        w => panic!("unknown workload {w}"),
    }
}
