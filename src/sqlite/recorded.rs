//! What many jobs recorded, for the one statement that stores it.

use std::cell::RefCell;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// Metas by their jobs' ids, which follow each other.
#[derive(Default)]
struct Metas {
    first: i64,
    texts: Vec<String>,
}

thread_local! {
    static METAS: RefCell<Metas> = RefCell::default();
}

/// The function that gives a job's meta by its id; NULL, which no meta may be, where there is none.
pub(super) fn teach(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("kiln_recorded", 1, flags, |call| {
        let id: i64 = call.get(0)?;
        METAS.with_borrow_mut(|metas| {
            let at = id.checked_sub(metas.first).and_then(|at| usize::try_from(at).ok());
            Ok(at.and_then(|at| metas.texts.get_mut(at)).map(std::mem::take))
        })
    })
}

/// Runs a statement of this thread that asks for metas.
pub(super) fn with_metas<T>(first: i64, texts: Vec<String>, run: impl FnOnce() -> T) -> T {
    METAS.set(Metas { first, texts });
    let result = run();
    METAS.take();
    result
}
