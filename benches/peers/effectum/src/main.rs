#[path = "../../common.rs"]
mod common;
use common::*;
use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn check_conn(a: &Args) -> rusqlite::Connection {
    let c = rusqlite::Connection::open(a.db()).unwrap();
    c.busy_timeout(Duration::from_secs(10)).unwrap();
    c
}

/// effectum asks for "PRAGMA journal = wal", which is no pragma: the file stays in DELETE mode
/// unless something else put it in WAL mode first. `--journal wal` does that.
async fn open(a: &Args) -> Queue {
    if a.str("journal", "default") == "wal" {
        let c = check_conn(a);
        let _: String = c.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0)).unwrap();
    }
    Queue::new(Path::new(&a.db())).await.unwrap()
}

fn job(i: u64) -> Job {
    Job::builder("mail").json_payload(&payload_value(i)).unwrap().build()
}

fn rep(a: &Args, n: u64, secs: f64, lat: Vec<u64>, mut extra: serde_json::Value) {
    let jm: String = check_conn(a).query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap();
    extra["journal"] = jm.into();
    Report {
        peer: "effectum".into(),
        workload: a.str("label", &a.workload),
        variant: a.str("variant", ""),
        sync: "NORMAL".into(),
        n,
        secs,
        lat,
        extra,
    }
    .print();
}

async fn worker(a: &Args, q: &Queue, stamps: Arc<Stamps>) -> Worker {
    let runner = JobRunner::builder("mail", |job: RunningJob, s: Arc<StampsCtx>| async move {
        let v: serde_json::Value = job.json_payload()?;
        s.0.started(v["n"].as_u64().unwrap());
        Ok::<_, effectum::Error>(())
    })
    .build();
    let conc = a.num("conc", 8) as u16;
    Worker::builder(q, Arc::new(StampsCtx(stamps)))
        .max_concurrency(conc)
        .min_concurrency(a.num("min", conc as u64) as u16)
        .jobs([runner])
        .build()
        .await
        .unwrap()
}

pub struct StampsCtx(Arc<Stamps>);
impl std::fmt::Debug for StampsCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stamps")
    }
}

async fn fill(q: &Queue, n: u64) {
    let mut i = 0;
    while i < n {
        q.add_jobs((i..(i + 1000).min(n)).map(job).collect()).await.unwrap();
        i += 1000;
    }
}

#[tokio::main]
async fn main() {
    let a = Args::parse();
    match a.workload.as_str() {
        "enqueue_one" | "enqueue_one_mt" => {
            let n = a.num("n", 20_000);
            let threads = a.num("threads", 1);
            let q = Arc::new(open(&a).await);
            let per = n / threads;
            let t0 = Instant::now();
            let hs: Vec<_> = (0..threads)
                .map(|t| {
                    let q = q.clone();
                    tokio::spawn(async move {
                        let mut lat = Vec::with_capacity(per as usize);
                        for i in t * per..(t + 1) * per {
                            let s = Instant::now();
                            q.add_job(job(i)).await.unwrap();
                            lat.push(s.elapsed().as_nanos() as u64);
                        }
                        lat
                    })
                })
                .collect();
            let mut lat = vec![];
            for h in hs {
                lat.extend(h.await.unwrap());
            }
            rep(&a, per * threads, t0.elapsed().as_secs_f64(), lat, serde_json::json!({}));
            std::process::exit(0);
        }
        "enqueue_batch" => {
            let n = a.num("n", 100_000);
            let q = open(&a).await;
            let mut lat = vec![];
            let t0 = Instant::now();
            let mut i = 0;
            while i < n {
                let s = Instant::now();
                q.add_jobs((i..i + 1000).map(job).collect()).await.unwrap();
                lat.push(s.elapsed().as_nanos() as u64);
                i += 1000;
            }
            rep(&a, n, t0.elapsed().as_secs_f64(), lat, serde_json::json!({}));
            std::process::exit(0);
        }
        "drain" => {
            let n = a.num("n", 100_000);
            let q = open(&a).await;
            fill(&q, n).await;
            let stamps = Arc::new(Stamps::new(n));
            let c = check_conn(&a);
            let (c0, t0) = (cpu_secs(), Instant::now());
            let w = worker(&a, &q, stamps.clone()).await;
            let limit = Duration::from_secs(a.num("limit", 60));
            while stamps.done.load(Ordering::Relaxed) < n && t0.elapsed() < limit {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            loop {
                let k: i64 = c
                    .query_row("SELECT count(*) FROM active_jobs WHERE active_worker_id IS NOT NULL", [], |r| r.get(0))
                    .unwrap();
                if k == 0 || t0.elapsed() > limit {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            let (done, seen) = (stamps.done.load(Ordering::Relaxed), stamps.seen());
            rep(
                &a,
                seen,
                secs,
                vec![],
                serde_json::json!({"drain_cpu_s": cpu_secs() - c0, "conc": a.num("conc", 8), "twice": done - seen}),
            );
            drop(w);
            std::process::exit(0);
        }
        "steady" => {
            let rate = a.num("rate", 500);
            let n = rate * a.num("secs", 10);
            let stamps = Arc::new(Stamps::new(n));
            let q = open(&a).await;
            let _w = worker(&a, &q, stamps.clone()).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let c0 = cpu_secs();
            let pace = Pace::new(rate);
            let t0 = Instant::now();
            for i in 0..n {
                tokio::time::sleep_until(pace.due(i).into()).await;
                stamps.enqueued(i);
                q.add_job(job(i)).await.unwrap();
            }
            let end = Instant::now() + Duration::from_secs(5);
            while stamps.seen() < n && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            rep(&a, stamps.seen(), secs, stamps.lat(), serde_json::json!({"steady_cpu_s": cpu_secs() - c0}));
            std::process::exit(0);
        }
        "idle" => {
            let q = open(&a).await;
            let _w = worker(&a, &q, Arc::new(Stamps::new(1))).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let c0 = cpu_secs();
            let secs = a.num("secs", 10);
            tokio::time::sleep(Duration::from_secs(secs)).await;
            let cpu = cpu_secs() - c0;
            rep(&a, 0, secs as f64, vec![], serde_json::json!({"idle_cpu_s": (cpu * 1e4).round() / 1e4, "rss_mb": rss_mb()}));
            std::process::exit(0);
        }
        w => panic!("unknown workload {w}"),
    }
}
