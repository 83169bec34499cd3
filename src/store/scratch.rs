//! A database in memory, for tests.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// A connection as one that writes is set up, with the tables.
pub(crate) fn memory() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.set_prepared_statement_cache_capacity(128);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
    rusqlite::vtab::array::load_module(&conn).unwrap();
    conn.execute_batch(include_str!("../file/schema/1.sql")).unwrap();
    conn.execute("INSERT INTO kiln_schema (version, min_reader, min_writer, written_by) VALUES (1, 1, 1, 'test')", [])
        .unwrap();
    conn
}
