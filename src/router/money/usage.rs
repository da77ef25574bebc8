//! What was used, by whom, of what: read from the ledger, of a running server too.

use std::path::Path;
use std::str::FromStr;

use rusqlite::{Connection, params};

use super::Money;
use super::ledger::{self, FILE_NAME, LedgerError};
use super::window::Moment;
use crate::money::MicroUsd;

/// Rows of one answer at most.
const ROWS_MOST: usize = 10_000;

/// By what usage is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Teams.
    Team,
    /// Keys.
    Key,
    /// Models, with who has them: `openai:gpt-4`.
    Model,
    /// Providers.
    Provider,
    /// Days, in UTC.
    Day,
}

/// A text that names nothing usage is added up by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is nothing usage is added up by: there are team, key, model, provider and day")]
pub struct NoBy {
    /// What was read.
    pub text: String,
}

impl By {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Team,
        Self::Key,
        Self::Model,
        Self::Provider,
        Self::Day,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Key => "key",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Day => "day",
        }
    }

    /// What it is called in the tables.
    fn column(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Key => "key",
            Self::Model => "provider || ':' || model",
            Self::Provider => "provider",
            Self::Day => "date(hour * 3600, 'unixepoch')",
        }
    }
}

impl FromStr for By {
    type Err = NoBy;

    fn from_str(text: &str) -> Result<Self, NoBy> {
        let found = Self::ALL.into_iter().find(|by| by.name() == text);
        found.ok_or_else(|| NoBy {
            text: text.to_owned(),
        })
    }
}

/// A question about what was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuestion {
    /// Of this team only.
    pub team: Option<String>,
    /// Of this key only.
    pub key: Option<String>,
    /// From the hour on in which this lies.
    pub from: Moment,
    /// Up to the end of the hour before which this lies.
    pub to: Moment,
    /// By what it is added up.
    pub by: By,
}

/// What one used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// Its name; empty for what belongs to none.
    pub name: String,
    /// Requests.
    pub n_requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Of those, tokens a provider had in its cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// What it cost, unconfirmed costs at their worst.
    pub cost: MicroUsd,
    /// Attempts whose cost nobody has confirmed.
    pub n_unconfirmed: u64,
    /// And what is booked for them.
    pub unconfirmed_cost: MicroUsd,
    /// Attempts under way.
    pub n_held: u64,
    /// And what is held for them.
    pub held: MicroUsd,
}

impl UsageRow {
    /// Adds what another used.
    pub fn add(&mut self, other: &Self) {
        self.n_requests += other.n_requests;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost = self.cost.plus(other.cost);
        self.n_unconfirmed += other.n_unconfirmed;
        self.unconfirmed_cost = self.unconfirmed_cost.plus(other.unconfirmed_cost);
        self.n_held += other.n_held;
        self.held = self.held.plus(other.held);
    }
}

/// What the ledger of the folder `home` says; nothing where there is none. What costs most comes first, days in order.
///
/// # Errors
/// [`LedgerError`].
pub fn usage(home: &Path, question: &UsageQuestion) -> Result<Vec<UsageRow>, LedgerError> {
    match ledger::read_only(&home.join(FILE_NAME))? {
        Some(connection) => rows(&connection, question),
        None => Ok(Vec::new()),
    }
}

impl Money {
    /// What was used so far.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn usage(&self, question: UsageQuestion) -> Result<Vec<UsageRow>, LedgerError> {
        let Some(path) = self.ledger_path().await? else {
            return Ok(Vec::new());
        };
        let read = move || usage(path.parent().unwrap_or(&path), &question);
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|_| LedgerError::Closed)?
    }
}

fn rows(connection: &Connection, question: &UsageQuestion) -> Result<Vec<UsageRow>, LedgerError> {
    let (by, order) = match question.by {
        By::Day => (By::Day.column(), "1"),
        by => (by.column(), "cost DESC, 1"),
    };
    // Only words of this file are put together here.
    let sql = format!(
        "WITH used AS (
            SELECT hour, team, key, provider, model, requests, prompt_tokens, cached_tokens, completion_tokens, cost,
                n_unconfirmed, unconfirmed_cost, 0 AS n_held, 0 AS held FROM hours
            UNION ALL
            SELECT held_at / 3600000, team, key, provider, model, 0, 0, 0, 0, 0, 0, 0, 1, worst FROM entries
                WHERE state = 0)
         SELECT {by}, sum(requests), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(cost) AS cost,
            sum(n_unconfirmed), sum(unconfirmed_cost), sum(n_held), sum(held) FROM used
         WHERE hour >= ?1 AND hour < ?2 AND (?3 IS NULL OR team = ?3) AND (?4 IS NULL OR key = ?4)
         GROUP BY 1 ORDER BY {order} LIMIT {ROWS_MOST}"
    );
    let to = question.to.as_millis().saturating_add(3_599_999);
    let mut select = connection.prepare(&sql)?;
    let rows = select.query_map(
        params![
            question.from.hour(),
            to / 3_600_000,
            question.team,
            question.key
        ],
        |row| {
            let natural = |index| {
                let value: i64 = row.get(index)?;
                Ok::<_, rusqlite::Error>(u64::try_from(value).unwrap_or(0))
            };
            Ok(UsageRow {
                name: row.get(0)?,
                n_requests: natural(1)?,
                prompt_tokens: natural(2)?,
                cached_tokens: natural(3)?,
                completion_tokens: natural(4)?,
                cost: MicroUsd(natural(5)?),
                n_unconfirmed: natural(6)?,
                unconfirmed_cost: MicroUsd(natural(7)?),
                n_held: natural(8)?,
                held: MicroUsd(natural(9)?),
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}
