//! Money that is held for one attempt, and its three ends.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::ledger::{Command, End, Entry, LedgerError, State, tokens};
use super::limit::Amounts;
use super::window::Moment;
use super::{Money, OutOfBounds};
use crate::chat::Usage;
use crate::money::MicroUsd;

/// Money and tokens held for one attempt of a request. Dropped, the worst case counts, unconfirmed: nobody knows what became
/// of it.
#[derive(Debug)]
#[must_use = "dropped, the worst case counts as spent"]
pub struct Hold {
    money: Money,
    entry: Arc<Entry>,
    /// What becomes of it when it is dropped.
    if_dropped: IfDropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfDropped {
    /// Its request has not left yet.
    Release,
    /// It has, and may cost anything up to what is held.
    Unconfirmed,
    /// It has ended.
    Nothing,
}

impl Hold {
    pub(super) fn new(money: Money, entry: Arc<Entry>) -> Self {
        Self {
            money,
            entry,
            if_dropped: IfDropped::Release,
        }
    }

    /// From now on its request may be on its way.
    pub(super) fn armed(mut self) -> Self {
        self.if_dropped = IfDropped::Unconfirmed;
        self
    }

    /// What it may cost.
    pub fn worst(&self) -> MicroUsd {
        self.entry.held.money
    }

    /// By which name the provider knows the attempt: with it an unconfirmed cost can be asked for later, also after the
    /// process was killed.
    pub fn set_upstream(&self, name: &str) {
        self.money.send(Command::Upstream {
            entry: Arc::clone(&self.entry),
            name: name.to_owned(),
        });
    }

    /// It cost `cost`, and took `usage`. More than was held is booked in full, and told.
    pub fn settle(self, cost: MicroUsd, usage: &Usage) -> Settled {
        self.end(State::Settled, cost, tokens(usage), usage)
    }

    /// Nobody will say what it cost; it was no less than `at_least`, for what is known of `usage`. The worst case counts.
    pub fn settle_unconfirmed(self, at_least: MicroUsd, usage: &Usage) -> Settled {
        let cost = self.entry.held.money.max(at_least);
        let n_tokens = self.entry.held.tokens.max(tokens(usage));
        self.end(State::Unconfirmed, cost, n_tokens, usage)
    }

    /// Nothing of it left the machine, or the provider has said that it costs nothing and did nothing.
    pub fn release(mut self) {
        self.let_go();
    }

    fn let_go(&mut self) {
        self.if_dropped = IfDropped::Nothing;
        let (entry, nothing) = (Arc::clone(&self.entry), Amounts::default());
        self.money.settle_in_memory(&entry, &nothing);
        self.money.send(Command::Release { entry });
    }

    fn end(mut self, state: State, cost: MicroUsd, n_tokens: u64, usage: &Usage) -> Settled {
        let (done, is_done) = oneshot::channel();
        let over = self.end_once(state, (cost, n_tokens), usage, Some(done));
        Settled { over, is_done }
    }

    fn end_once(
        &mut self,
        state: State,
        (cost, n_tokens): (MicroUsd, u64),
        usage: &Usage,
        done: Option<oneshot::Sender<Result<(), LedgerError>>>,
    ) -> Option<OutOfBounds> {
        self.if_dropped = IfDropped::Nothing;
        let held = &self.entry.held;
        let spent = Amounts {
            requests: held.requests,
            tokens: n_tokens,
            money: cost,
        };
        let over = (cost > held.money).then_some(OutOfBounds {
            held: held.money,
            cost,
        });
        if let Some(over) = &over {
            let (provider, model) = (&self.entry.provider, &self.entry.model);
            tracing::warn!(provider, model, "{over}");
        }
        self.money.settle_in_memory(&self.entry, &spent);
        self.money.send(Command::End {
            entry: Arc::clone(&self.entry),
            end: End {
                state,
                at: Moment::now(),
                spent,
                usage: *usage,
            },
            done,
        });
        over
    }
}

/// A hold that has ended.
#[derive(Debug)]
pub struct Settled {
    /// What was wrong with the worst case, if anything was.
    pub over: Option<OutOfBounds>,
    is_done: oneshot::Receiver<Result<(), LedgerError>>,
}

impl Settled {
    /// Waits until that outlives the process: who is told the end of an answer only then, is told nothing the ledger does
    /// not know.
    ///
    /// # Errors
    /// [`LedgerError`]: it is tried again, but a process killed now would leave the hold unconfirmed.
    pub async fn written(self) -> Result<(), LedgerError> {
        match self.is_done.await {
            Ok(written) => written,
            Err(_) => Err(LedgerError::Closed),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        match self.if_dropped {
            IfDropped::Nothing => {}
            IfDropped::Release => self.let_go(),
            IfDropped::Unconfirmed => {
                let (cost, n_tokens) = (self.entry.held.money, self.entry.held.tokens);
                self.end_once(
                    State::Unconfirmed,
                    (cost, n_tokens),
                    &Usage::default(),
                    None,
                );
            }
        }
    }
}
