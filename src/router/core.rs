//! What all requests share: who can be asked, what is known of them, and what was decided.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::continuation::continues_a_prefix;
use super::decision::{Decisions, Record};
use super::health::{BreakerState, Health, Latency};
use super::locals::Locals;
use super::measure::{KnownBreaker, Measures};
use super::money::{Account, Moment, Money};
use super::names::{Names, Target};
use super::policy::{self, Breaker, Facts, LocalModel, Plan, Question, Snapshot};
use super::prices::Prices;
use super::quality::Quality;
use crate::backend::local::LocalBackend;
use crate::backend::provider::{Dialect, Provider};
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};
use crate::chat::ChatRequest;
use crate::config::router::RouterSettings;
use crate::egress::{Egress, Privacy, ProviderPermit, Purpose, Records};
use crate::engine::predict::{Deadlines, Shown};
use crate::money::MicroUsd;

/// Hedges that may be saved up.
const HEDGES_MOST: f64 = 10.0;
/// What may change while the router is at work; a request keeps those it came under.
pub(super) struct Rules {
    pub(super) settings: RouterSettings,
    pub(super) names: Names,
    pub(super) quality: Quality,
}

/// Everything the router knows and has.
pub(super) struct Core {
    pub(super) local: LocalBackend,
    /// Those of requests that come from now on.
    pub(super) rules: RwLock<Arc<Rules>>,
    pub(super) prices: Prices,
    pub(super) money: Money,
    pub(super) egress: Egress,
    pub(super) records: Records,
    pub(super) offline: bool,
    pub(super) providers: BTreeMap<String, Provider>,
    pub(super) decisions: Decisions,
    pub(super) measures: Measures,
    pub(super) locals: Locals,
    pub(super) health: Mutex<Health>,
    /// Requests that may still be sent to two at once.
    pub(super) hedges: Mutex<f64>,
}

impl Core {
    /// The rules for a request that comes now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read();
        Arc::clone(&rules.unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules for all requests that come from now on.
    pub(super) fn set_rules(&self, rules: Rules) {
        let mut held = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(rules);
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hedges(&self) -> MutexGuard<'_, f64> {
        self.hedges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came: its share of a hedge is saved.
    pub(super) fn save_hedge(&self, rules: &Rules) {
        let mut saved = self.hedges();
        *saved = (*saved + rules.settings.hedge_budget).min(HEDGES_MOST);
    }

    /// Takes one from the hedge budget, if there is one.
    pub(super) fn take_hedge(&self) -> bool {
        let mut saved = self.hedges();
        let is_there = *saved >= 1.0;
        if is_there {
            *saved -= 1.0;
        }
        is_there
    }

    /// The provider of this name.
    ///
    /// Errors: there is none.
    pub(super) fn provider(&self, name: &str) -> Result<&Provider, BackendError> {
        self.providers.get(name).ok_or_else(|| no_provider(name))
    }

    /// The permit to send something of a class to the provider of this name.
    ///
    /// Errors: there is no such provider, or it may not go there.
    pub(super) fn permit(
        &self,
        rules: &Rules,
        provider: &str,
        privacy: Privacy,
        purpose: Purpose,
    ) -> Result<ProviderPermit, BackendError> {
        let settings = rules.settings.providers.get(provider);
        let settings = settings.ok_or_else(|| no_provider(provider))?;
        self.egress
            .provider(privacy, provider, settings.keeping, purpose)
            .map_err(|error| BackendError::new(BackendErrorKind::NotAllowed, error.to_string()))
    }

    /// The permit to ask a provider for something that says nothing of any prompt.
    ///
    /// Errors: as for [`Self::permit`].
    pub(super) fn permit_without_prompt(
        &self,
        provider: &str,
        request: &str,
        why: &str,
    ) -> Result<ProviderPermit, BackendError> {
        let purpose = Purpose {
            request_id: request.to_owned(),
            team: None,
            why: format!("{why}: no prompt is sent"),
        };
        self.permit(&self.rules(), provider, Privacy::Any, purpose)
    }

    /// How fast a target answered lately.
    pub(super) fn latency(&self, target: &Target) -> Latency {
        self.health().latency(&target.provider, &target.model)
    }

    /// The breakers of all providers there are, as they stand now.
    pub(super) fn breakers(&self) -> Vec<KnownBreaker> {
        let untried = self.providers.keys();
        let untried = untried.map(|name| ((name.clone(), None), BreakerState::Closed));
        let mut all: BTreeMap<_, _> = untried.collect();
        all.extend(self.health().breakers(Instant::now()));
        let all = all.into_iter();
        all.map(|((provider, model), state)| KnownBreaker::new(provider, model, state))
            .collect()
    }

    /// A target was silent for all the time it had.
    pub(super) fn stalled(&self, target: &Target) {
        if !target.is_local() {
            let (fault, now) = (ProviderFault::Stalled, Instant::now());
            self.health()
                .failed(&target.provider, &target.model, fault, now);
        }
    }

    /// Decides who may answer `question` under `rules`. Of a `request` it is foreseen when models of this machine would
    /// answer it.
    pub(super) async fn plan(
        &self,
        rules: &Rules,
        question: &Question,
        request: Option<&ChatRequest>,
        account: &Account,
        is_streamed: bool,
    ) -> Plan {
        let deadlines = local_deadlines(&rules.settings, question, is_streamed);
        let (locals, is_fresh) = self
            .locals
            .for_request(&self.local, request, &deadlines)
            .await;
        let plan = self.plan_with(rules, question, account, &locals);
        if plan.unknown.is_none() || is_fresh {
            return plan;
        }
        // Its file may just have come.
        self.locals.forget();
        let (locals, _) = self
            .locals
            .for_request(&self.local, request, &deadlines)
            .await;
        self.plan_with(rules, question, account, &locals)
    }

    fn plan_with(
        &self,
        rules: &Rules,
        question: &Question,
        account: &Account,
        locals: &[LocalModel],
    ) -> Plan {
        let facts = |target: &Target| self.facts(target);
        let remaining = self.money.remaining(account, Moment::now());
        let snapshot = Snapshot {
            settings: &rules.settings,
            names: &rules.names,
            quality: &rules.quality,
            locals,
            facts: &facts,
            budget_left: remaining.money.map(|left| MicroUsd(left.remaining())),
            offline: self.offline,
        };
        policy::plan(question, &snapshot)
    }

    fn facts(&self, target: &Target) -> Facts {
        if target.is_local() {
            return Facts {
                price: self.prices.of(&target.provider, &target.model),
                context: self.locals.context(&target.model),
                tools: Some(false),
                images: Some(false),
                json: Some(false),
                prefix: Some(true),
                calibration: self.measures.calibration(&target.model),
                vectors: Some(true),
                ..Facts::default()
            };
        }
        let about = self.prices.about(&target.provider, &target.model);
        let dialect = self.providers.get(&target.provider).map(Provider::dialect);
        let (state, latency) = {
            let health = self.health();
            let (provider, model) = (&target.provider, &target.model);
            (
                health.state(provider, model, Instant::now()),
                health.latency(provider, model),
            )
        };
        Facts {
            price: about.map(|about| about.price),
            context: about.and_then(|about| about.context),
            max_output: about.and_then(|about| about.max_output),
            vectors: dialect.map(|dialect| dialect != Dialect::Anthropic),
            prefix: dialect.map(|dialect| continues_a_prefix(dialect, &target.model)),
            breaker: match state {
                BreakerState::Closed => Breaker::Closed,
                BreakerState::Open { for_, .. } => Breaker::Open { retry_after: for_ },
                BreakerState::Trying => Breaker::Open {
                    retry_after: Duration::from_secs(1),
                },
            },
            first: latency.ttft_p50,
            per_token: latency
                .tokens_per_second
                .map(|rate| Duration::from_secs_f64(1.0 / rate)),
            ..Facts::default()
        }
    }

    /// A request is over: it is measured and logged.
    pub(super) fn ended(&self, record: &Record) {
        let decision = record.now();
        self.measures.ended(&decision);
        if !tracing::enabled!(target: "ingle::decision", tracing::Level::INFO) {
            return;
        }
        match serde_json::to_string(&decision) {
            Ok(decision) => tracing::info!(target: "ingle::decision", decision, "decided"),
            Err(error) => tracing::warn!(%error, "a decision could not be written"),
        }
    }
}

/// What a model of this machine must keep: the deadline, and of its first content what is configured for it.
fn no_provider(name: &str) -> BackendError {
    let message = format!("there is no provider {name}");
    BackendError::new(BackendErrorKind::UnknownModel, message)
}

fn local_deadlines(settings: &RouterSettings, question: &Question, is_streamed: bool) -> Deadlines {
    let deadline = question.deadline_under(settings);
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let first = deadline.filter(|_| is_streamed);
    Deadlines {
        ttft: seconds(first.into_iter().chain(settings.local_timeout).min()),
        total: seconds(deadline.filter(|_| !is_streamed)),
        elsewhere: (0.0, 0.0),
        shown: if is_streamed {
            Shown::AsItComes
        } else {
            Shown::Whole
        },
    }
}
