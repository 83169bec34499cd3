//! An order and the job that ships it are one transaction, and so are the shipping and the job's completion.

use std::path::Path;
use std::time::Duration;

use kiln::rusqlite::{Connection, TransactionBehavior};
use kiln::{Failure, Filter, Kiln, NewJob, Outcome, Running};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ship {
    order: i64,
}

fn connect(path: &Path) -> Result<Connection, kiln::rusqlite::Error> {
    let app = Connection::open(path)?;
    app.busy_timeout(Duration::from_secs(10))?;
    Ok(app)
}

fn ship(path: &Path, job: &Running<Ship>) -> Result<Outcome, Failure> {
    let mut app = connect(path)?;
    let tx = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("UPDATE orders SET shipped = shipped + 1 WHERE id = ?1", [job.args.order])?;
    let done = job.complete_in(&tx)?;
    tx.commit()?;
    Ok(done)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let kiln = Kiln::open(&path)?;
    let mut app = connect(&path)?;
    app.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, shipped INTEGER DEFAULT 0)")?;

    let tx = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("INSERT INTO orders (item) VALUES ('coffee')", [])?;
    kiln.enqueue_in(&tx, NewJob::new("ship").args(Ship { order: tx.last_insert_rowid() }))?;
    tx.rollback()?;
    println!("after a rollback: {} jobs", kiln.count(Filter::new())?.total());

    let tx = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("INSERT INTO orders (item) VALUES ('tea')", [])?;
    let job = kiln.enqueue_in(&tx, NewJob::new("ship").args(Ship { order: tx.last_insert_rowid() }))?;
    tx.commit()?;
    println!("after a commit: {} job", kiln.count(Filter::new())?.total());

    let runtime = kiln.runtime().worker_fn("ship", move |job: &Running<Ship>| ship(&path, job)).start()?;
    if let Some(job) = kiln.wait(job.id, Duration::from_secs(30))? {
        let shipped: i64 = app.query_row("SELECT shipped FROM orders", [], |row| row.get(0))?;
        println!("the job is {}, shipped {shipped} time", job.state);
    }
    runtime.stop();
    Ok(())
}
