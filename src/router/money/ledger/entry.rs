//! One entry of the ledger: a hold, and what became of it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::LedgerError;
use crate::caller::{KeyId, TeamId};
use crate::chat::Usage;
use crate::money::MicroUsd;
use crate::router::money::limit::{Account, Amounts};
use crate::router::money::window::Moment;

/// No request costs more: a provider that says so cannot be believed, and sums must stay countable.
const COST_MOST: u64 = 1_000_000_000_000_000;

/// Entries that are looked at for one deletion: holds wait no longer than that takes.
const PRUNED_AT_ONCE: i64 = 1000;

/// One attempt of a request that may cost something, as it was when its money was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct Entry {
    pub(in crate::router::money) request: String,
    pub(in crate::router::money) attempt: u32,
    pub(in crate::router::money) at: Moment,
    pub(in crate::router::money) account: Account,
    pub(in crate::router::money) provider: String,
    pub(in crate::router::money) model: String,
    pub(in crate::router::money) held: Amounts,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router::money) enum State {
    /// Money is held; nobody knows yet what becomes of it.
    Held,
    /// It cost what is written.
    Settled,
    /// It cost no more than what is written, as far as anybody knows.
    Unconfirmed,
}

impl State {
    const fn number(self) -> i64 {
        match self {
            Self::Held => 0,
            Self::Settled => 1,
            Self::Unconfirmed => 2,
        }
    }

    fn of(number: i64) -> Self {
        match number {
            0 => Self::Held,
            1 => Self::Settled,
            _ => Self::Unconfirmed,
        }
    }
}

/// What became of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct End {
    pub(in crate::router::money) state: State,
    pub(in crate::router::money) at: Moment,
    pub(in crate::router::money) spent: Amounts,
    pub(in crate::router::money) usage: Usage,
}

/// What entries add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    requests: i64,
    tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    cost: i64,
    n_unconfirmed: i64,
    unconfirmed_cost: i64,
}

impl Sums {
    fn change(&mut self, other: &Self, sign: i64) {
        let add = |place: &mut i64, value: i64| *place = place.saturating_add(sign * value);
        add(&mut self.requests, other.requests);
        add(&mut self.tokens, other.tokens);
        add(&mut self.prompt_tokens, other.prompt_tokens);
        add(&mut self.completion_tokens, other.completion_tokens);
        add(&mut self.cached_tokens, other.cached_tokens);
        add(&mut self.cost, other.cost);
        add(&mut self.n_unconfirmed, other.n_unconfirmed);
        add(&mut self.unconfirmed_cost, other.unconfirmed_cost);
    }
}

/// By what `hours` adds up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HourKey {
    hour: i64,
    team: String,
    key: String,
    provider: String,
    model: String,
}

/// What a batch changes in `hours`.
pub(super) type Changes = HashMap<HourKey, Sums>;

fn number(value: u64) -> i64 {
    i64::try_from(value.min(COST_MOST)).unwrap_or(i64::MAX)
}

fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

impl Entry {
    fn hour_key(&self) -> HourKey {
        HourKey {
            hour: self.at.hour(),
            team: team_text(&self.account).to_owned(),
            key: key_text(&self.account).to_owned(),
            provider: self.provider.clone(),
            model: self.model.clone(),
        }
    }
}

fn team_text(account: &Account) -> &str {
    account.team.as_ref().map_or("", TeamId::as_str)
}

fn key_text(account: &Account) -> &str {
    account.key.as_ref().map_or("", KeyId::as_str)
}

/// Whose an entry is, from what `key` and `team` say.
pub(super) fn account(key: &str, team: &str) -> Account {
    Account {
        key: (!key.is_empty()).then(|| KeyId::new(key)),
        team: (!team.is_empty()).then(|| TeamId::new(team)),
    }
}

/// Writes a new hold.
///
/// Errors: there is an entry of this request and attempt.
pub(super) fn insert(connection: &Connection, entry: &Entry) -> Result<(), LedgerError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO entries (request, attempt, held_at, key, team, provider, model, state, worst, worst_tokens,
            cost, tokens, prompt_tokens, completion_tokens, cached_tokens, is_estimated, exceeds_hold)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, 0, 0, 0, 0, 0, 0, 0)",
    )?;
    let inserted = insert.execute(params![
        entry.request,
        entry.attempt,
        entry.at.as_millis(),
        key_text(&entry.account),
        team_text(&entry.account),
        entry.provider,
        entry.model,
        number(entry.held.money.0),
        number(entry.held.tokens),
    ]);
    match inserted {
        Ok(_) => Ok(()),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(LedgerError::Twice {
                request: entry.request.clone(),
                attempt: entry.attempt,
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes what became of a hold, unless that is written already. An unconfirmed entry may still be settled.
pub(super) fn end(
    connection: &Connection,
    entry: &Entry,
    end: &End,
    changes: &mut Changes,
) -> Result<bool, LedgerError> {
    let before = if let Some(found) = find(connection, &entry.request, entry.attempt)? {
        found
    } else {
        // The hold was never written: nobody had to wait for it.
        insert(connection, entry)?;
        (State::Held, Sums::default())
    };
    let is_news = match before.0 {
        State::Held => true,
        State::Unconfirmed => end.state == State::Settled,
        State::Settled => false,
    };
    if !is_news {
        return Ok(false);
    }
    let cost = number(end.spent.money.0);
    let is_unconfirmed = end.state == State::Unconfirmed;
    let after = Sums {
        requests: number(end.spent.requests),
        tokens: number(end.spent.tokens),
        prompt_tokens: i64::from(end.usage.prompt_tokens),
        completion_tokens: i64::from(end.usage.completion_tokens),
        cached_tokens: i64::from(end.usage.cached_tokens),
        cost,
        n_unconfirmed: i64::from(is_unconfirmed),
        unconfirmed_cost: if is_unconfirmed { cost } else { 0 },
    };
    let mut update = connection.prepare_cached(
        "UPDATE entries SET ended_at = ?3, state = ?4, cost = ?5, tokens = ?6, prompt_tokens = ?7,
            completion_tokens = ?8, cached_tokens = ?9, is_estimated = ?10, exceeds_hold = ?5 > worst
         WHERE request = ?1 AND attempt = ?2",
    )?;
    update.execute(params![
        entry.request,
        entry.attempt,
        end.at.as_millis(),
        end.state.number(),
        cost,
        after.tokens,
        after.prompt_tokens,
        after.completion_tokens,
        after.cached_tokens,
        end.usage.is_estimated,
    ])?;
    let sums = changes.entry(entry.hour_key()).or_default();
    sums.change(&before.1, -1);
    sums.change(&after, 1);
    Ok(true)
}

/// The state of an entry, and what it has added to `hours`.
fn find(
    connection: &Connection,
    request: &str,
    attempt: u32,
) -> Result<Option<(State, Sums)>, LedgerError> {
    let mut select = connection.prepare_cached(
        "SELECT state, cost, tokens, prompt_tokens, completion_tokens, cached_tokens FROM entries
         WHERE request = ?1 AND attempt = ?2",
    )?;
    let read = |row: &Row| {
        let state = State::of(row.get(0)?);
        if state == State::Held {
            return Ok((state, Sums::default()));
        }
        let is_unconfirmed = state == State::Unconfirmed;
        let cost = row.get(1)?;
        let sums = Sums {
            requests: i64::from(attempt == 0),
            tokens: row.get(2)?,
            prompt_tokens: row.get(3)?,
            completion_tokens: row.get(4)?,
            cached_tokens: row.get(5)?,
            cost,
            n_unconfirmed: i64::from(is_unconfirmed),
            unconfirmed_cost: if is_unconfirmed { cost } else { 0 },
        };
        Ok((state, sums))
    };
    Ok(select
        .query_row(params![request, attempt], read)
        .optional()?)
}

/// Forgets a hold of which nothing came.
pub(super) fn remove(connection: &Connection, entry: &Entry) -> Result<(), LedgerError> {
    let mut delete = connection
        .prepare_cached("DELETE FROM entries WHERE request = ?1 AND attempt = ?2 AND state = 0")?;
    delete.execute(params![entry.request, entry.attempt])?;
    Ok(())
}

/// Old entries, one batch after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct Pruned {
    /// Entries that were deleted.
    pub(in crate::router::money) n_deleted: u64,
    /// The number after which to go on; none where no older ones are left.
    pub(in crate::router::money) go_on_after: Option<i64>,
}

/// Deletes entries after the number `after` that were made before the moment `before` and have settled: their sums stay in
/// `hours`. What is not settled stays, however old.
pub(super) fn prune(
    connection: &Connection,
    before: Moment,
    after: i64,
) -> Result<Pruned, LedgerError> {
    let mut select = connection
        .prepare_cached("SELECT id, held_at FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = select.query(params![after, PRUNED_AT_ONCE])?;
    let (mut last, mut n_seen) = (after, 0);
    // Entries are in order, but for a clock that jumped.
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? >= before.as_millis() {
            break;
        }
        last = row.get(0)?;
        n_seen += 1;
    }
    drop(rows);
    let mut delete = connection.prepare_cached(
        "DELETE FROM entries WHERE id > ?1 AND id <= ?2 AND state = ?3 AND held_at < ?4",
    )?;
    let settled = State::Settled.number();
    let n_deleted = delete.execute(params![after, last, settled, before.as_millis()])?;
    Ok(Pruned {
        n_deleted: n_deleted as u64,
        go_on_after: (n_seen == PRUNED_AT_ONCE).then_some(last),
    })
}

/// Writes by which name a provider knows an attempt.
pub(super) fn set_upstream(
    connection: &Connection,
    entry: &Entry,
    upstream: &str,
) -> Result<(), LedgerError> {
    let mut update = connection
        .prepare_cached("UPDATE entries SET upstream = ?3 WHERE request = ?1 AND attempt = ?2")?;
    update.execute(params![entry.request, entry.attempt, upstream])?;
    Ok(())
}

/// What is written of an attempt and has no certain end.
pub(super) fn open(
    connection: &Connection,
    state: State,
    request: Option<(&str, u32)>,
) -> Result<Vec<Opened>, LedgerError> {
    let mut select = connection.prepare_cached(
        "SELECT request, attempt, held_at, key, team, provider, model, worst, worst_tokens, cost, tokens, upstream,
            prompt_tokens, completion_tokens, cached_tokens, is_estimated
         FROM entries WHERE state = ?1 AND (?2 IS NULL OR (request = ?2 AND attempt = ?3)) ORDER BY id",
    )?;
    let (text, attempt) = request.unzip();
    let rows = select.query_map(params![state.number(), text, attempt], read_opened)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An entry without a certain end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct Opened {
    pub(in crate::router::money) entry: Entry,
    /// What is booked for it.
    pub(in crate::router::money) spent: Amounts,
    /// By which name the provider knows it.
    pub(in crate::router::money) upstream: Option<String>,
    pub(in crate::router::money) usage: Usage,
}

fn read_opened(row: &Row) -> Result<Opened, rusqlite::Error> {
    let (key, team): (String, String) = (row.get(3)?, row.get(4)?);
    let attempt: u32 = row.get(1)?;
    let requests = u64::from(attempt == 0);
    let amounts = |money: usize, tokens: usize| {
        Ok::<_, rusqlite::Error>(Amounts {
            requests,
            tokens: natural(row.get(tokens)?),
            money: MicroUsd(natural(row.get(money)?)),
        })
    };
    Ok(Opened {
        entry: Entry {
            request: row.get(0)?,
            attempt,
            at: Moment::from_millis(row.get(2)?),
            account: account(&key, &team),
            provider: row.get(5)?,
            model: row.get(6)?,
            held: amounts(7, 8)?,
        },
        spent: amounts(9, 10)?,
        upstream: row.get(11)?,
        usage: Usage {
            prompt_tokens: row.get(12)?,
            completion_tokens: row.get(13)?,
            cached_tokens: row.get(14)?,
            is_estimated: row.get(15)?,
            ..Usage::default()
        },
    })
}

/// Adds what a batch has changed to `hours`.
pub(super) fn add_up(connection: &Connection, changes: Changes) -> Result<(), LedgerError> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO hours VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET requests = requests + ?6, tokens = tokens + ?7,
            prompt_tokens = prompt_tokens + ?8, completion_tokens = completion_tokens + ?9,
            cached_tokens = cached_tokens + ?10, cost = cost + ?11, n_unconfirmed = n_unconfirmed + ?12,
            unconfirmed_cost = unconfirmed_cost + ?13",
    )?;
    for (key, sums) in changes {
        upsert.execute(params![
            key.hour,
            key.team,
            key.key,
            key.provider,
            key.model,
            sums.requests,
            sums.tokens,
            sums.prompt_tokens,
            sums.completion_tokens,
            sums.cached_tokens,
            sums.cost,
            sums.n_unconfirmed,
            sums.unconfirmed_cost,
        ])?;
    }
    Ok(())
}
