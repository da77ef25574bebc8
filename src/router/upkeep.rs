//! What the router does beside answering: it asks OpenRouter for its prices every day, and for bills that did not come
//! before an earlier process ended; and it lets the ledger forget what is old.

use std::time::Duration;

use futures_util::future::{join, join_all};

use super::Router;
use super::core::Core;
use super::money::Moment;
use super::prices::ModelFacts;
use crate::backend::provider::{Dialect, OfferedModel, Provider};
use crate::backend::{BackendError, BackendErrorKind};

/// How long prices hold.
const PRICES_EVERY: Duration = Duration::from_hours(24);
/// When they are asked for again where they did not come; it doubles each time.
const PRICES_AGAIN_FIRST: Duration = Duration::from_mins(1);
const PRICES_AGAIN_MOST: Duration = Duration::from_hours(4);
/// How often the ledger forgets what is old.
const PRUNE_EVERY: Duration = Duration::from_hours(24);
/// Time for a list of prices.
const PRICES_PATIENCE: Duration = Duration::from_mins(1);

impl Router {
    /// Runs for as long as it is not dropped; to be run once a process, beside all requests. Nobody can be asked offline.
    /// The ledger keeps what was settled for so long.
    pub async fn keep_up(self, keep: Duration) {
        let (core, began) = (self.core, Moment::now());
        let mut each = Vec::new();
        for (name, provider) in &core.providers {
            if provider.dialect() == Dialect::OpenRouter {
                let old_bills = core.ask_for_old_bills(name, began);
                each.push(join(core.keep_prices(provider), old_bills));
            }
        }
        join(core.prune(keep), join_all(each)).await;
    }
}

impl Core {
    async fn prune(&self, keep: Duration) {
        loop {
            match self.money.prune(Moment::now().before(keep)).await {
                Ok(0) => {}
                Ok(n_deleted) => tracing::info!(n_deleted, "old entries of the ledger went"),
                Err(error) => tracing::warn!(%error, "old entries of the ledger stay"),
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        }
    }

    /// Asks for prices again and again. Where they do not come, those that are known hold.
    async fn keep_prices(&self, provider: &Provider) {
        let name = provider.name();
        let (mut pause, mut is_told) = (PRICES_AGAIN_FIRST, false);
        loop {
            match self.ask_for_prices(provider).await {
                Ok(n_models) => {
                    tracing::debug!(provider = name, n_models, "prices came");
                    (pause, is_told) = (PRICES_AGAIN_FIRST, false);
                    tokio::time::sleep(PRICES_EVERY).await;
                    continue;
                }
                Err(error) if is_told => tracing::debug!(%error, "no prices came"),
                Err(error) => tracing::warn!(
                    %error,
                    "the prices of {name} did not come: those that are known hold until they do"
                ),
            }
            is_told = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PRICES_AGAIN_MOST);
        }
    }

    /// How many models have a price.
    async fn ask_for_prices(&self, provider: &Provider) -> Result<usize, BackendError> {
        let name = provider.name();
        let failed = |kind, message: String| BackendError::new(kind, message);
        let permit = self.permit_without_prompt(name, "prices", "its list of prices")?;
        let asked = tokio::time::timeout(PRICES_PATIENCE, provider.prices(permit));
        let offered = asked.await.map_err(|_| {
            let message = format!("{name} did not send its list of models in time");
            failed(BackendErrorKind::Timeout, message)
        })??;
        let models: Vec<_> = offered.iter().filter_map(priced).collect();
        let n_models = models.len();
        if n_models == 0 {
            let message = format!("{name} names no price in its list of models");
            return Err(failed(BackendErrorKind::Failed, message));
        }
        self.prices.tell(name, models);
        Ok(n_models)
    }
}

/// What is known of a model that has a price.
fn priced(offered: &OfferedModel) -> Option<(String, ModelFacts)> {
    let facts = ModelFacts {
        price: offered.price?,
        context: offered.n_ctx,
        max_output: offered.max_new_tokens,
    };
    Some((offered.id.clone(), facts))
}
