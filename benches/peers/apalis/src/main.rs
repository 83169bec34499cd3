#[path = "../../common.rs"]
mod common;
use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use common::{cpu_secs, payload_value, rss_mb, Args, Pace, Report, Stamps};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Mail {
    to: String,
    n: u64,
}
fn mail(i: u64) -> Mail {
    Mail { to: "user@example.com".into(), n: i }
}

fn url(a: &Args) -> String {
    format!("sqlite:{}?mode=rwc", a.db())
}

/// default: what the documentation shows. setup() sets synchronous=OFF on the one pooled connection
/// that ran it; the pool's others stay at FULL.
/// FULL / NORMAL: setup() on a pool of its own, then every connection opened with that setting.
async fn open(a: &Args) -> SqlitePool {
    if a.sync() == "default" {
        let pool = SqlitePool::connect(&url(a)).await.unwrap();
        SqliteStorage::setup(&pool).await.unwrap();
        return pool;
    }
    let first = SqlitePool::connect(&url(a)).await.unwrap();
    SqliteStorage::setup(&first).await.unwrap();
    first.close().await;
    let opts = SqliteConnectOptions::new()
        .filename(a.db())
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(if a.sync() == "FULL" {
            sqlx::sqlite::SqliteSynchronous::Full
        } else {
            sqlx::sqlite::SqliteSynchronous::Normal
        })
        .pragma("cache_size", "64000")
        .pragma("temp_store", "MEMORY");
    SqlitePoolOptions::new().max_connections(a.num("pool", 4) as u32).connect_with(opts).await.unwrap()
}

fn config(a: &Args) -> Config {
    Config::default().queue("mail").batch_size(a.num("batch", 100) as usize).lock_tasks(a.str("lock", "no") == "yes")
}

fn storage(a: &Args, pool: &SqlitePool) -> SqliteStorage<Mail> {
    SqliteStorage::new(pool).with_config(config(a))
}

fn rep(a: &Args, n: u64, secs: f64, lat: Vec<u64>, extra: serde_json::Value) {
    let _ = payload_value(0);
    Report {
        peer: "apalis".into(),
        workload: a.str("label", &a.workload),
        variant: a.str("variant", ""),
        sync: if a.sync() == "default" { "OFF/mixed".into() } else { a.sync() },
        n,
        secs,
        lat,
        extra,
    }
    .print();
}

async fn handle(m: Mail, s: Data<Arc<Stamps>>) -> Result<(), BoxDynError> {
    s.started(m.n);
    Ok(())
}

/// poll: stream (update hook, same process) or interval (any process)
async fn spawn_worker(a: &Args, pool: &SqlitePool, stamps: Arc<Stamps>) {
    let conc = a.num("conc", 8) as usize;
    let every = Duration::from_millis(a.num("poll", 10));
    let b = storage(a, pool).poll_with_interval(every);
    let w = WorkerBuilder::new("w").backend(b).data(stamps).concurrency(conc).build(handle);
    tokio::spawn(async move { w.run().await.unwrap() });
}

/// The event-driven set-up of the documentation; returns the pool that pushes have to go through.
async fn spawn_hooked(a: &Args, stamps: Arc<Stamps>) -> SqlitePool {
    let (pool, listener) = SqliteStorage::connect_with_callback(&url(a)).unwrap();
    if a.sync() == "default" {
        SqliteStorage::setup(&pool).await.unwrap();
    } else {
        let first = SqlitePool::connect(&url(a)).await.unwrap();
        SqliteStorage::setup(&first).await.unwrap();
        first.close().await;
        let mut v = vec![];
        for _ in 0..10 {
            v.push(pool.acquire().await.unwrap());
        }
        for c in &mut v {
            sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA synchronous={}", a.sync()))).execute(&mut **c).await.unwrap();
        }
    }
    let conc = a.num("conc", 8) as usize;
    // as in the crate's README: the hook's stream in chunks, and an interval beside it
    use futures::StreamExt;
    let strategy = Strategy::new()
        .stream(listener.ready_chunks(config(a).batch_size))
        .interval(Duration::from_millis(a.num("poll", 500)));
    let b = storage(a, &pool).poll_with_strategy(strategy);
    let w = WorkerBuilder::new("w").backend(b).data(stamps).concurrency(conc).build(handle);
    tokio::spawn(async move { w.run().await.unwrap() });
    pool
}

async fn fill(a: &Args, pool: &SqlitePool, n: u64) {
    let mut b = storage(a, pool);
    let mut i = 0;
    while i < n {
        b.push_bulk((i..(i + 1000).min(n)).map(mail).collect()).await.unwrap();
        i += 1000;
    }
}

async fn open_rows(pool: &SqlitePool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM Jobs WHERE status IN ('Queued','Running')").fetch_one(pool).await.unwrap()
}

#[tokio::main]
async fn main() {
    let a = Args::parse();
    match a.workload.as_str() {
        "enqueue_one" | "enqueue_one_mt" => {
            let n = a.num("n", 20_000);
            let threads = a.num("threads", 1);
            let pool = open(&a).await;
            let per = n / threads;
            let t0 = Instant::now();
            let hs: Vec<_> = (0..threads)
                .map(|t| {
                    let mut b = storage(&a, &pool);
                    tokio::spawn(async move {
                        let mut lat = Vec::with_capacity(per as usize);
                        for i in t * per..(t + 1) * per {
                            let s = Instant::now();
                            b.push(mail(i)).await.unwrap();
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
        }
        "enqueue_batch" => {
            let n = a.num("n", 100_000);
            let pool = open(&a).await;
            let mut b = storage(&a, &pool);
            let mut lat = vec![];
            let t0 = Instant::now();
            let mut i = 0;
            while i < n {
                let s = Instant::now();
                b.push_bulk((i..i + 1000).map(mail).collect()).await.unwrap();
                lat.push(s.elapsed().as_nanos() as u64);
                i += 1000;
            }
            rep(&a, n, t0.elapsed().as_secs_f64(), lat, serde_json::json!({}));
        }
        "drain" => {
            let n = a.num("n", 100_000);
            let mut pool = open(&a).await;
            fill(&a, &pool, n).await;
            if a.num("reopen", 0) == 1 {
                // as after a restart on a filled file: setup()'s PRAGMA optimize now takes statistics
                pool.close().await;
                pool = open(&a).await;
            }
            let stamps = Arc::new(Stamps::new(n));
            let (c0, t0) = (cpu_secs(), Instant::now());
            spawn_worker(&a, &pool, stamps.clone()).await;
            let limit = Duration::from_secs(a.num("limit", 60));
            while stamps.done.load(Ordering::Relaxed) < n && t0.elapsed() < limit {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            while open_rows(&pool).await > 0 && t0.elapsed() < limit {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            let (done, seen) = (stamps.done.load(Ordering::Relaxed), stamps.seen());
            rep(
                &a,
                seen,
                secs,
                vec![],
                serde_json::json!({"drain_cpu_s": cpu_secs() - c0, "conc": a.num("conc", 8), "twice": done - seen, "open_rows": open_rows(&pool).await}),
            );
            std::process::exit(0);
        }
        "steady" => {
            let rate = a.num("rate", 500);
            let n = rate * a.num("secs", 10);
            let stamps = Arc::new(Stamps::new(n));
            let pool = spawn_hooked(&a, stamps.clone()).await;
            let mut b = storage(&a, &pool);
            tokio::time::sleep(Duration::from_millis(300)).await;
            let c0 = cpu_secs();
            let pace = Pace::new(rate);
            let t0 = Instant::now();
            for i in 0..n {
                tokio::time::sleep_until(pace.due(i).into()).await;
                stamps.enqueued(i);
                b.push(mail(i)).await.unwrap();
            }
            let end = Instant::now() + Duration::from_secs(10);
            while stamps.seen() < n && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            rep(&a, stamps.seen(), secs, stamps.lat(), serde_json::json!({"steady_cpu_s": cpu_secs() - c0}));
            std::process::exit(0);
        }
        "steady_worker" => {
            let n = a.num("n", 500);
            let stamps = Arc::new(Stamps::new(n));
            let pool = open(&a).await;
            spawn_worker(&a, &pool, stamps.clone()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            println!("ready");
            let t0 = Instant::now();
            while stamps.seen() < n && t0.elapsed() < Duration::from_secs(25) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stamps.dump(&a.str("out", "run.txt"), &stamps.run);
            std::process::exit(0);
        }
        "steady_enq" => {
            let n = a.num("n", 500);
            let stamps = Stamps::new(n);
            let pool = open(&a).await;
            let mut b = storage(&a, &pool);
            let pace = Pace::new(a.num("rate", 50));
            for i in 0..n {
                tokio::time::sleep_until(pace.due(i).into()).await;
                stamps.enqueued(i);
                b.push(mail(i)).await.unwrap();
            }
            stamps.dump(&a.str("out", "enq.txt"), &stamps.enq);
            std::process::exit(0);
        }
        "idle" => {
            let stamps = Arc::new(Stamps::new(1));
            if a.str("mode", "hook") == "hook" {
                spawn_hooked(&a, stamps).await;
            } else {
                let pool = open(&a).await;
                spawn_worker(&a, &pool, stamps).await;
            }
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
