#[path = "../../common.rs"]
mod common;
use common::{cpu_secs, rss_mb, Args, Pace, Report, Stamps};
use fang::async_trait;
use fang::asynk::async_queue::{AsyncQueue, AsyncQueueable};
use fang::asynk::async_runnable::AsyncRunnable;
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{typetag, FangError, RetentionMode, SleepParams};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

static STAMPS: OnceLock<Arc<Stamps>> = OnceLock::new();

#[derive(fang::Serialize, fang::Deserialize)]
#[serde(crate = "fang::serde")]
struct Mail {
    to: String,
    n: u64,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Mail {
    async fn run(&self, _q: &dyn AsyncQueueable) -> Result<(), FangError> {
        STAMPS.get().unwrap().started(self.n);
        Ok(())
    }
}

fn mail(i: u64) -> Mail {
    Mail { to: "user@example.com".into(), n: i }
}

/// The library brings a migration for the table; the columns and indexes below are the ones it expects.
async fn open(a: &Args) -> (AsyncQueue, sqlx::SqlitePool) {
    let url = format!("sqlite://{}?mode=rwc", a.db());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    if a.str("journal", "default") == "wal" {
        sqlx::query("PRAGMA journal_mode=WAL").execute(&pool).await.unwrap();
    }
    for sql in [
        "CREATE TABLE IF NOT EXISTS fang_tasks(id BLOB NOT NULL PRIMARY KEY, metadata TEXT NOT NULL, error_message TEXT,
         state TEXT CHECK (state IN ('new','in_progress','failed','finished','retried')) NOT NULL DEFAULT 'new',
         task_type TEXT NOT NULL DEFAULT 'common', uniq_hash CHAR(64), retries INTEGER NOT NULL DEFAULT 0,
         scheduled_at INTEGER NOT NULL DEFAULT (unixepoch('now')), created_at INTEGER NOT NULL DEFAULT (unixepoch('now')),
         updated_at INTEGER NOT NULL DEFAULT (unixepoch('now')))",
        "CREATE INDEX IF NOT EXISTS fang_tasks_state_index ON fang_tasks(state)",
        "CREATE INDEX IF NOT EXISTS fang_tasks_type_index ON fang_tasks(task_type)",
        "CREATE INDEX IF NOT EXISTS fang_tasks_scheduled_at_index ON fang_tasks(scheduled_at)",
        "CREATE INDEX IF NOT EXISTS fang_tasks_uniq_hash ON fang_tasks(uniq_hash)",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let mut q = AsyncQueue::builder().uri(url).max_pool_size(a.num("pool", 4) as u32).build();
    q.connect().await.unwrap();
    (q, pool)
}

async fn journal(pool: &sqlx::SqlitePool) -> String {
    sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap()
}

fn rep(a: &Args, n: u64, secs: f64, lat: Vec<u64>, mut extra: serde_json::Value, journal: String) {
    extra["journal"] = journal.into();
    Report {
        peer: "fang".into(),
        workload: a.str("label", &a.workload),
        variant: a.str("variant", ""),
        sync: "FULL".into(),
        n,
        secs,
        lat,
        extra,
    }
    .print();
}

async fn workers(a: &Args, q: &AsyncQueue) {
    let sleep = Duration::from_millis(a.num("sleep", 5000));
    let keep = a.str("keep", "no") == "yes";
    let mut pool: AsyncWorkerPool<AsyncQueue> = AsyncWorkerPool::builder()
        .number_of_workers(a.num("conc", 8) as u32)
        .queue(q.clone())
        .retention_mode(if keep { RetentionMode::KeepAll } else { RetentionMode::RemoveAll })
        .sleep_params(
            SleepParams::builder()
                .sleep_period(sleep)
                .max_sleep_period(sleep)
                .min_sleep_period(sleep)
                .sleep_step(sleep)
                .build(),
        )
        .build();
    pool.start().await;
}

#[tokio::main]
async fn main() {
    let a = Args::parse();
    match a.workload.as_str() {
        "enqueue_one" | "enqueue_one_mt" => {
            let n = a.num("n", 20_000);
            let threads = a.num("threads", 1);
            let (q, pool) = open(&a).await;
            let per = n / threads;
            let t0 = Instant::now();
            let hs: Vec<_> = (0..threads)
                .map(|t| {
                    let q = q.clone();
                    tokio::spawn(async move {
                        let mut lat = Vec::with_capacity(per as usize);
                        for i in t * per..(t + 1) * per {
                            let s = Instant::now();
                            q.insert_task(&mail(i)).await.unwrap();
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
            let secs = t0.elapsed().as_secs_f64();
            rep(&a, per * threads, secs, lat, serde_json::json!({}), journal(&pool).await);
        }
        "drain" => {
            let n = a.num("n", 10_000);
            let (q, pool) = open(&a).await;
            // no bulk call: fill the table directly, as one transaction
            let mut tx = pool.begin().await.unwrap();
            for i in 0..n {
                let meta = serde_json::to_string(&(Box::new(mail(i)) as Box<dyn AsyncRunnable>)).unwrap();
                sqlx::query("INSERT INTO fang_tasks(id,metadata,task_type) VALUES(randomblob(16),?1,'common')")
                    .bind(meta)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            let stamps = Arc::new(Stamps::new(n));
            let _ = STAMPS.set(stamps.clone());
            let (c0, t0) = (cpu_secs(), Instant::now());
            workers(&a, &q).await;
            let limit = Duration::from_secs(a.num("limit", 15));
            while stamps.seen() < n && t0.elapsed() < limit {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            let (done, seen) = (stamps.done.load(Ordering::Relaxed), stamps.seen());
            rep(
                &a,
                seen,
                secs,
                vec![],
                serde_json::json!({"drain_cpu_s": cpu_secs() - c0, "conc": a.num("conc", 8), "twice": done - seen}),
                journal(&pool).await,
            );
        }
        "steady" => {
            let rate = a.num("rate", 500);
            let n = rate * a.num("secs", 10);
            let stamps = Arc::new(Stamps::new(n));
            let _ = STAMPS.set(stamps.clone());
            let (q, pool) = open(&a).await;
            workers(&a, &q).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let c0 = cpu_secs();
            let pace = Pace::new(rate);
            let t0 = Instant::now();
            for i in 0..n {
                tokio::time::sleep_until(pace.due(i).into()).await;
                stamps.enqueued(i);
                q.insert_task(&mail(i)).await.unwrap();
            }
            let end = Instant::now() + Duration::from_secs(10);
            while stamps.seen() < n && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let secs = t0.elapsed().as_secs_f64();
            let (done, seen) = (stamps.done.load(Ordering::Relaxed), stamps.seen());
            rep(
                &a,
                seen,
                secs,
                stamps.lat(),
                serde_json::json!({"steady_cpu_s": cpu_secs() - c0, "twice": done - seen}),
                journal(&pool).await,
            );
        }
        "steady_worker" => {
            let n = a.num("n", 500);
            let stamps = Arc::new(Stamps::new(n));
            let _ = STAMPS.set(stamps.clone());
            let (q, _pool) = open(&a).await;
            workers(&a, &q).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            println!("ready");
            let t0 = Instant::now();
            while stamps.seen() < n && t0.elapsed() < Duration::from_secs(25) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stamps.dump(&a.str("out", "run.txt"), &stamps.run);
        }
        "steady_enq" => {
            let n = a.num("n", 500);
            let stamps = Stamps::new(n);
            let (q, _pool) = open(&a).await;
            let pace = Pace::new(a.num("rate", 50));
            for i in 0..n {
                tokio::time::sleep_until(pace.due(i).into()).await;
                stamps.enqueued(i);
                q.insert_task(&mail(i)).await.unwrap();
            }
            stamps.dump(&a.str("out", "enq.txt"), &stamps.enq);
        }
        "idle" => {
            let _ = STAMPS.set(Arc::new(Stamps::new(1)));
            let (q, pool) = open(&a).await;
            workers(&a, &q).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let c0 = cpu_secs();
            let secs = a.num("secs", 10);
            tokio::time::sleep(Duration::from_secs(secs)).await;
            let cpu = cpu_secs() - c0;
            let extra = serde_json::json!({"idle_cpu_s": (cpu * 1e4).round() / 1e4, "rss_mb": rss_mb()});
            rep(&a, 0, secs as f64, vec![], extra, journal(&pool).await);
        }
        w => panic!("unknown workload {w}"),
    }
    std::process::exit(0);
}
