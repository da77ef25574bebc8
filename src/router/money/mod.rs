//! Money: held before a request may leave, settled when it has ended, never more than allowed.
//!
//! What may be spent is decided in memory (`budget`), at once for everybody it concerns; what was decided is in the ledger
//! before the request leaves.

mod budget;
mod hold;
mod ledger;
mod limit;
mod over;
mod usage;
mod window;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

pub use budget::Budgets;
pub use hold::{Hold, Settled};
pub use ledger::{FILE_NAME, LedgerError};
pub use limit::{Account, Amounts};
pub use over::{Left, OverLimit, Remaining};
pub use usage::{By, NoBy, UsageQuestion, UsageRow, usage};
pub use window::Moment;

pub use crate::limit::{Limit, Measure, Per, Scope, Whom};

use crate::chat::Usage;
use crate::money::MicroUsd;
use ledger::{Command, Entry, Ledger, Sharing};

/// What a process may have counted by the minute that the next one should know.
const MINUTES_RECALLED: Duration = Duration::from_mins(90);

/// Between one piece of what is deleted and the next others write.
const PRUNE_PAUSE: Duration = Duration::from_millis(10);

/// What money is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The request.
    pub request: String,
    /// Which attempt of it, counted from 0. Only the first counts as a request.
    pub attempt: u32,
    /// Whose model.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// What it may cost at most.
    pub worst: MicroUsd,
    /// Tokens of prompt and answer at most.
    pub tokens: u64,
}

/// Why no money is held.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotHeld {
    /// There is not enough left.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// What was held could not be written down, so nothing may leave.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A bill above what was held: what was thought to be the worst case was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cost} were billed where {held} were held: the price or the count of tokens is wrong")]
pub struct OutOfBounds {
    /// What was held.
    pub held: MicroUsd,
    /// What was billed.
    pub cost: MicroUsd,
}

/// An attempt whose cost nobody has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The request.
    pub request: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// Whose model.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// By which name the provider knows it.
    pub upstream: Option<String>,
    /// What is booked for it.
    pub booked: MicroUsd,
    /// When it was made.
    pub at: Moment,
}

/// Limits, what is used of them, and the ledger. Clones share all.
#[derive(Clone, Debug)]
pub struct Money(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    budgets: Mutex<Budgets>,
    ledger: Option<Ledger>,
}

impl Money {
    /// Opens the ledger of the folder `home`; what it says was spent counts. Reads files: not for a thread that others wait
    /// for.
    ///
    /// # Errors
    /// [`LedgerError`]; without any limit only where the ledger is of a newer program or broken.
    pub fn open(
        home: &Path,
        limits: impl IntoIterator<Item = Limit>,
        now: Moment,
    ) -> Result<Self, LedgerError> {
        let mut budgets = Budgets::new(limits);
        let sharing = if budgets.has_limits() {
            Sharing::Alone
        } else {
            Sharing::Shared
        };
        let ledger = Ledger::open(home, sharing, now)?;
        if let Some(connection) = ledger::read_only(ledger.path())? {
            for spent in ledger::by_hour(&connection, now)? {
                budgets.recall(
                    &spent.account,
                    spent.at,
                    &spent.spent,
                    &[Per::Day, Per::Month],
                );
            }
            for spent in ledger::since(&connection, now.before(MINUTES_RECALLED))? {
                budgets.recall(&spent.account, spent.at, &spent.spent, &[Per::Minute]);
            }
        }
        Ok(Self(Arc::new(Inner {
            budgets: Mutex::new(budgets),
            ledger: Some(ledger),
        })))
    }

    /// Limits that hold as long as the process lives, and no ledger.
    pub fn unrecorded(limits: impl IntoIterator<Item = Limit>) -> Self {
        Self(Arc::new(Inner {
            budgets: Mutex::new(Budgets::new(limits)),
            ledger: None,
        }))
    }

    /// Holds what `order` may cost, in everything that is limited for `account`. When this returns, the request may leave:
    /// where money or anything that lasts a day is limited, the hold outlives the process.
    ///
    /// Dropped before, nothing is held.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub async fn hold(
        &self,
        account: &Account,
        order: Order,
        now: Moment,
    ) -> Result<Hold, NotHeld> {
        let held = Amounts {
            requests: u64::from(order.attempt == 0),
            tokens: order.tokens,
            money: order.worst,
        };
        let is_lasting = {
            let mut budgets = self.budgets();
            budgets.hold(account, &held, now)?;
            budgets.is_lasting(account)
        };
        let entry = Arc::new(Entry {
            request: order.request,
            attempt: order.attempt,
            at: now,
            account: account.clone(),
            provider: order.provider,
            model: order.model,
            held,
        });
        let hold = Hold::new(self.clone(), Arc::clone(&entry));
        let Some(ledger) = &self.0.ledger else {
            return Ok(hold.armed());
        };
        if !is_lasting && !ledger.is_behind() {
            ledger.send(Command::Hold { entry, done: None });
            return Ok(hold.armed());
        }
        let (done, is_done) = oneshot::channel();
        let done = Some(done);
        ledger.send(Command::Hold { entry, done });
        is_done.await.map_err(|_| LedgerError::Closed)??;
        Ok(hold.armed())
    }

    /// What is left of the tightest limits for `account`; of money none where no money is limited.
    pub fn remaining(&self, account: &Account, now: Moment) -> Remaining {
        self.budgets().remaining(account, now)
    }

    /// Everything one has spent or holds in the window that `now` lies in.
    pub fn used(&self, scope: &Scope, per: Per, now: Moment) -> Amounts {
        self.budgets().used(scope, per, now)
    }

    /// Other limits from now on; what is used stays used.
    pub fn set_limits(&self, limits: impl IntoIterator<Item = Limit>) {
        self.budgets().set_limits(limits);
    }

    /// Books what an unconfirmed attempt has really cost in place of its worst case; whether there was one.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is changed.
    pub async fn true_up(
        &self,
        request: &str,
        attempt: u32,
        cost: MicroUsd,
        usage: Option<Usage>,
    ) -> Result<bool, LedgerError> {
        let Some(ledger) = &self.0.ledger else {
            return Ok(false);
        };
        let (done, is_done) = oneshot::channel();
        ledger.send(Command::TrueUp {
            request: request.to_owned(),
            attempt,
            cost,
            usage,
            at: Moment::now(),
            done,
        });
        let corrected = is_done.await.map_err(|_| LedgerError::Closed)??;
        if let Some(change) = &corrected {
            let mut budgets = self.budgets();
            budgets.correct(&change.account, change.at, &change.was, &change.is);
        }
        Ok(corrected.is_some())
    }

    /// The attempts at `provider` since a moment whose cost nobody has confirmed, the oldest first. Reads the file.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unconfirmed(
        &self,
        provider: &str,
        since: Moment,
    ) -> Result<Vec<Unconfirmed>, LedgerError> {
        let Some(path) = self.ledger_path().await? else {
            return Ok(Vec::new());
        };
        let provider = provider.to_owned();
        let read = move || {
            let Some(connection) = ledger::read_only(&path)? else {
                return Ok(Vec::new());
            };
            ledger::unconfirmed(&connection, &provider, since)
        };
        let opened = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| LedgerError::Closed)??;
        let unconfirmed = opened.into_iter().map(|opened| Unconfirmed {
            request: opened.entry.request,
            attempt: opened.entry.attempt,
            provider: opened.entry.provider,
            model: opened.entry.model,
            upstream: opened.upstream,
            booked: opened.spent.money,
            at: opened.entry.at,
        });
        Ok(unconfirmed.collect())
    }

    /// Deletes what was settled of attempts from before `before`, piece by piece; sums by the hour stay, and so does what
    /// nobody has confirmed. Returns how many went.
    ///
    /// # Errors
    /// [`LedgerError`]: what went so far is gone.
    pub async fn prune(&self, before: Moment) -> Result<u64, LedgerError> {
        let Some(ledger) = &self.0.ledger else {
            return Ok(0);
        };
        let (mut after, mut n_deleted) = (0, 0);
        loop {
            let (done, is_done) = oneshot::channel();
            ledger.send(Command::Prune {
                before,
                after,
                done,
            });
            let pruned = is_done.await.map_err(|_| LedgerError::Closed)??;
            n_deleted += pruned.n_deleted;
            match pruned.go_on_after {
                Some(last) => after = last,
                None => return Ok(n_deleted),
            }
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
    }

    /// Where the ledger is, once everything so far is in it.
    async fn ledger_path(&self) -> Result<Option<PathBuf>, LedgerError> {
        let Some(ledger) = &self.0.ledger else {
            return Ok(None);
        };
        ledger.flush().await?;
        Ok(Some(ledger.path().to_owned()))
    }

    /// Writes what is left; after it nothing is held any more.
    pub async fn close(&self) {
        if let Some(ledger) = &self.0.ledger {
            ledger.close().await;
        }
    }

    fn settle_in_memory(&self, entry: &Entry, spent: &Amounts) {
        let mut budgets = self.budgets();
        budgets.settle(&entry.account, entry.at, &entry.held, spent);
    }

    fn send(&self, command: Command) {
        if let Some(ledger) = &self.0.ledger {
            ledger.send(command);
        }
    }

    fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.0
            .budgets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
