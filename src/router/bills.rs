//! What answers have cost that ended without a bill: providers that keep accounts are asked for it afterwards, also after
//! the process that asked for the answer was killed.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::money::{Moment, Unconfirmed};

/// When a provider is asked for a bill that it did not send: it takes a while until it knows.
const BILL_AFTER: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_mins(1),
];
/// The same of bills of an earlier process, which it should know by now.
const OLD_BILLS_AFTER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(5),
    Duration::from_mins(30),
];
/// Bills of an earlier process that are asked for at most, the latest.
const OLD_BILLS_MOST: usize = 1000;
/// Older ones no provider knows any more.
const OLD_BILLS_SINCE: Duration = Duration::from_hours(30 * 24);
/// Time for one bill.
const BILL_PATIENCE: Duration = Duration::from_secs(20);

/// What came of asking for a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bill {
    /// It is booked, or nobody can be asked for it.
    Done,
    /// The provider does not know it, yet or any more.
    Unknown,
    /// The provider could not be asked.
    Failed,
}

impl Core {
    /// Asks a provider, in a while, what an answer has cost that ended without a bill.
    pub(super) fn ask_for_bill(
        self: &Arc<Self>,
        provider: &str,
        (request, attempt): (String, u32),
        generation: String,
    ) {
        let Some(reached) = self.providers.get(provider) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if !reached.keeps_accounts() {
            return;
        }
        let (core, provider) = (Arc::clone(self), provider.to_owned());
        runtime.spawn(async move {
            for wait in BILL_AFTER {
                tokio::time::sleep(wait).await;
                let attempt = (&*request, attempt);
                if core.true_up(&provider, attempt, &generation).await == Bill::Done {
                    return;
                }
            }
            tracing::info!(provider, request, "no bill came: the worst case stands");
        });
    }

    /// Asks `provider` what those answers have cost that an earlier process asked for before the moment `before` and has
    /// no bill of.
    pub(super) async fn ask_for_old_bills(&self, provider: &str, before: Moment) {
        for wait in OLD_BILLS_AFTER {
            tokio::time::sleep(wait).await;
            let since = before.before(OLD_BILLS_SINCE);
            let unconfirmed = match self.money.unconfirmed(provider, since).await {
                Ok(unconfirmed) => unconfirmed,
                Err(error) => {
                    tracing::warn!(%error, "what was not confirmed cannot be read");
                    return;
                }
            };
            let mut asked: Vec<Unconfirmed> = unconfirmed;
            asked.retain(|one| one.at < before && one.upstream.is_some());
            if asked.is_empty() {
                return;
            }
            asked.reverse();
            asked.truncate(OLD_BILLS_MOST);
            let mut n_booked = 0_usize;
            for one in &asked {
                let generation = one.upstream.as_deref().unwrap_or_default();
                let attempt = (&*one.request, one.attempt);
                match self.true_up(provider, attempt, generation).await {
                    Bill::Done => n_booked += 1,
                    Bill::Unknown => {}
                    // Whoever does not answer now is asked for the others later.
                    Bill::Failed => break,
                }
            }
            tracing::info!(provider, n_booked, "bills of an earlier run were asked for");
        }
    }

    /// Asks for a bill, and books it.
    async fn true_up(
        &self,
        provider: &str,
        (request, attempt): (&str, u32),
        generation: &str,
    ) -> Bill {
        let Some(reached) = self.providers.get(provider) else {
            return Bill::Done;
        };
        // The provider knows this answer already.
        let Ok(permit) = self.permit_without_prompt(provider, request, "the bill of an answer")
        else {
            return Bill::Done;
        };
        let asked = reached.generation(generation, permit);
        let settled = match tokio::time::timeout(BILL_PATIENCE, asked).await {
            Ok(Ok(Some(settled))) => settled,
            Ok(Ok(None)) => return Bill::Unknown,
            Ok(Err(error)) => {
                tracing::debug!(%error, request, "no bill yet");
                return Bill::Failed;
            }
            Err(_) => return Bill::Failed,
        };
        let (cost, usage) = (settled.cost, Some(settled.usage));
        match self.money.true_up(request, attempt, cost, usage).await {
            Ok(_) => Bill::Done,
            Err(error) => {
                tracing::warn!(%error, request, "a bill could not be booked");
                Bill::Failed
            }
        }
    }
}
