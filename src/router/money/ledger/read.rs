//! What the ledger remembers: read beside the writer, by a connection that cannot write.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::entry::{self, Opened, State, account};
use super::{BUSY_MOST, LedgerError, schema};
use crate::limit::Per;
use crate::money::MicroUsd;
use crate::router::money::limit::{Account, Amounts};
use crate::router::money::window::Moment;

/// What one had spent by the time the ledger was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct Recalled {
    pub(in crate::router::money) account: Account,
    pub(in crate::router::money) at: Moment,
    pub(in crate::router::money) spent: Amounts,
}

/// Opens the ledger at `path` to read it; none where there is none yet.
///
/// Errors: it is of a newer program, or no ledger.
pub(in crate::router::money) fn connect(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MOST)?;
    match schema::version(&connection)? {
        0 => Ok(None),
        found if found > schema::newest() => Err(LedgerError::Newer {
            found,
            known: schema::newest(),
        }),
        _ => Ok(Some(connection)),
    }
}

fn read(row: &rusqlite::Row, at: Moment) -> Result<Recalled, rusqlite::Error> {
    let (key, team): (String, String) = (row.get(1)?, row.get(2)?);
    let natural =
        |index| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0));
    Ok(Recalled {
        account: account(&key, &team),
        at,
        spent: Amounts {
            requests: natural(3)?,
            tokens: natural(4)?,
            money: MicroUsd(natural(5)?),
        },
    })
}

/// What was spent since the beginning of the month that `now` lies in and of the one before, by the hour.
pub(in crate::router::money) fn by_hour(
    connection: &Connection,
    now: Moment,
) -> Result<Vec<Recalled>, LedgerError> {
    let this_month = Per::Month.start(now);
    let last_month = Per::Month.start(Moment::from_millis(this_month.as_millis() - 1));
    let mut select = connection.prepare(
        "SELECT hour, key, team, sum(requests), sum(tokens), sum(cost) FROM hours WHERE hour >= ?1
         GROUP BY hour, key, team ORDER BY hour",
    )?;
    let rows = select.query_map([last_month.hour()], |row| {
        read(row, Moment::of_hour(row.get(0)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What was spent since `from`, entry by entry.
pub(in crate::router::money) fn since(
    connection: &Connection,
    from: Moment,
) -> Result<Vec<Recalled>, LedgerError> {
    let mut select = connection.prepare(
        "SELECT held_at, key, team, attempt = 0, tokens, cost FROM entries WHERE state <> 0 ORDER BY id DESC",
    )?;
    let mut rows = select.query([])?;
    let mut found = Vec::new();
    // Entries are in order, but for a clock that jumped.
    while let Some(row) = rows.next()? {
        let at = Moment::from_millis(row.get(0)?);
        if at < from {
            break;
        }
        found.push(read(row, at)?);
    }
    found.reverse();
    Ok(found)
}

/// What `provider` has not confirmed since, the oldest first.
pub(in crate::router::money) fn unconfirmed(
    connection: &Connection,
    provider: &str,
    since: Moment,
) -> Result<Vec<Opened>, LedgerError> {
    let mut all = entry::open(connection, State::Unconfirmed, None)?;
    all.retain(|opened| opened.entry.provider == provider && opened.entry.at >= since);
    Ok(all)
}
