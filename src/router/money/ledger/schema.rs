//! The ledger's tables, and the way from each version to the next.

use rusqlite::Connection;

use super::LedgerError;

/// What leads from version `n` to `n + 1`, in order. What stands here has been shipped: only append.
const MIGRATIONS: &[&str] = &[
    // One row a hold and what became of it; money in micro-dollars, time in milliseconds since 1970, '' for none.
    // `hours` adds up what has ended, so that rows may go and questions stay quick.
    "CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        request TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        held_at INTEGER NOT NULL,
        ended_at INTEGER,
        key TEXT NOT NULL,
        team TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        upstream TEXT,
        state INTEGER NOT NULL,
        worst INTEGER NOT NULL,
        worst_tokens INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        is_estimated INTEGER NOT NULL,
        exceeds_hold INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX entries_request ON entries (request, attempt);
    CREATE INDEX entries_open ON entries (state) WHERE state <> 1;
    CREATE TABLE hours (
        hour INTEGER NOT NULL,
        team TEXT NOT NULL,
        key TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        n_unconfirmed INTEGER NOT NULL,
        unconfirmed_cost INTEGER NOT NULL,
        PRIMARY KEY (hour, team, key, provider, model)
    ) STRICT, WITHOUT ROWID;",
];

/// The version this program writes.
pub(super) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version a file has; 0 for a new one.
pub(super) fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a file to the newest version, each step wholly or not at all.
///
/// Errors: it is of a newer program; SQLite's.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), LedgerError> {
    // Another process may be doing the same: whoever has the lock looks again.
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > newest() {
        return Err(LedgerError::Newer {
            found,
            known: newest(),
        });
    }
    for step in MIGRATIONS
        .iter()
        .skip(usize::try_from(found).unwrap_or_default())
    {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", newest())?;
    Ok(transaction.commit()?)
}
