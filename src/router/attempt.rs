//! One candidate that is asked: what is held for it, what is told of it, and what it cost. However it ends, also by being
//! dropped, its money is settled, its health is known, and the record says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::decision::Record;
use super::money::{Hold, Moment, NotHeld, Order};
use super::names::Target;
use super::prices::Price;
use crate::backend::provider::AnswerFacts;
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};
use crate::chat::{BYTES_PER_TOKEN, ChatDelta, PromptSize, Usage};
use crate::money::MicroUsd;
use crate::telemetry::spans::Parent;

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing left the machine yet.
    Held,
    /// It may be on its way.
    Sent,
    /// It answers.
    Answering,
    /// It is over.
    Over,
}

/// A candidate that is asked.
pub(super) struct Attempt {
    core: Arc<Core>,
    record: Record,
    number: usize,
    target: Target,
    why: &'static str,
    price: Option<Price>,
    predicted: Option<Duration>,
    hold: Option<Hold>,
    about: Option<Arc<AnswerFacts>>,
    dropped: Vec<&'static str>,
    phase: Phase,
    began: Instant,
    first: Option<Instant>,
    /// Of an answer of this machine: tokens of the prompt, guessed, and bytes said.
    prompt_tokens: u32,
    said_bytes: u64,
}

impl Attempt {
    /// Holds what the attempt may cost; only then it may be sent.
    ///
    /// # Errors
    /// There is not that much left, or it could not be written down.
    pub(super) async fn hold(
        core: &Arc<Core>,
        record: &Record,
        (target, why): (&Target, &'static str),
        bounds: Bounds<'_>,
    ) -> Result<Self, BackendError> {
        let number = record.asked(&target.to_string(), why);
        let price = bounds.price;
        let worst = price.map_or(MicroUsd::ZERO, |price| {
            price.worst(bounds.prompt.at_most, bounds.max_tokens)
        });
        let tokens = u64::from(bounds.prompt.at_most) + u64::from(bounds.max_tokens);
        let order = Order {
            request: record.id().to_string(),
            attempt: u32::try_from(number).unwrap_or(u32::MAX),
            provider: target.provider.clone(),
            model: target.model.clone(),
            worst,
            tokens,
        };
        let held = core.money.hold(bounds.account, order, Moment::now()).await;
        let hold = held.map_err(|error| {
            let error = not_held(&error);
            record.attempt_ended(number, "failed", Some(&error));
            error
        })?;
        Ok(Self {
            core: Arc::clone(core),
            record: record.clone(),
            number,
            target: target.clone(),
            why,
            price,
            predicted: bounds.predicted,
            hold: Some(hold),
            about: None,
            dropped: Vec::new(),
            phase: Phase::Held,
            began: Instant::now(),
            first: None,
            prompt_tokens: bounds.prompt.about,
            said_bytes: 0,
        })
    }

    /// Who is asked.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Why it is asked.
    pub(super) fn why(&self) -> &'static str {
        self.why
    }

    /// From now on the request may be on its way.
    pub(super) fn sent(&mut self) {
        self.phase = Phase::Sent;
        if !self.target.is_local() {
            let (provider, model) = (&self.target.provider, &self.target.model);
            self.core.health().sent(provider, model, Instant::now());
            if let Some(provider) = self.core.providers.get(provider) {
                self.record.trace().sent_to(self.number, &provider.host());
            }
        }
    }

    /// Under which span who is asked shall put its own.
    pub(super) fn parent(&self) -> Option<Parent> {
        self.record.trace().parent_for(self.number)
    }

    /// Fields of the request that are not said to this provider, because it has no words for them.
    pub(super) fn drops(&mut self, fields: Vec<&'static str>) {
        self.record.drops(self.number, fields.clone());
        self.dropped = fields;
    }

    /// Fields of the request that were not said.
    pub(super) fn dropped(&self) -> &[&'static str] {
        &self.dropped
    }

    /// What can be known of the answer.
    pub(super) fn about(&mut self, facts: Arc<AnswerFacts>) {
        self.about = Some(facts);
    }

    /// The first content is here, or the end of an answer that has none; vectors come all at once.
    pub(super) fn answers(&mut self, first: Option<&ChatDelta>) {
        let now = Instant::now();
        self.phase = Phase::Answering;
        self.first = Some(now);
        let is_empty = first.is_none_or(|first| matches!(first, ChatDelta::Finished { .. }));
        let predicted = self
            .predicted
            .filter(|_| self.target.is_local() && !is_empty);
        let ratio = predicted.map(|predicted| {
            let (measures, model) = (&self.core.measures, &self.target.model);
            measures.came(model, predicted, now - self.began)
        });
        self.record.began_to_answer(self.number, ratio);
        if let Some(first) = first {
            self.said(first);
        }
        self.tell_upstream();
        if !self.target.is_local() {
            let (provider, model) = (&self.target.provider, &self.target.model);
            let ttft = now - self.began;
            self.core.health().began(provider, model, ttft, now);
        }
    }

    /// More was said.
    pub(super) fn said(&mut self, delta: &ChatDelta) {
        if let ChatDelta::Text(text) | ChatDelta::Reasoning(text) = delta {
            self.said_bytes += text.len() as u64;
        }
    }

    /// The answer came to its end.
    pub(super) fn finished(mut self, usage: &Usage) -> MicroUsd {
        self.phase = Phase::Over;
        if !self.target.is_local() {
            let (provider, model) = (&self.target.provider, &self.target.model);
            let now = Instant::now();
            let took = self.first.map_or(Duration::ZERO, |first| now - first);
            let tokens = (usage.completion_tokens, took);
            self.core.health().finished(provider, model, tokens, now);
        }
        let cost = self.settle(usage);
        self.record.attempt_ended(self.number, "answered", None);
        cost
    }

    /// It failed.
    pub(super) fn failed(mut self, error: &BackendError) {
        let was = std::mem::replace(&mut self.phase, Phase::Over);
        if let BackendErrorKind::Provider(fault) = error.kind {
            let (provider, model) = (&self.target.provider, &self.target.model);
            self.core
                .health()
                .failed(provider, model, fault, Instant::now());
            if was != Phase::Answering && costs_nothing(fault) {
                self.release();
            }
        } else {
            if !self.target.is_local() {
                let (provider, model) = (&self.target.provider, &self.target.model);
                self.core.health().given_up(provider, model);
            }
            if was != Phase::Answering {
                // Our own engine, or nothing was sent.
                self.release();
            }
        }
        let usage = self.usage_so_far();
        self.settle(&usage);
        self.record
            .attempt_ended(self.number, "failed", Some(error));
    }

    /// What was taken so far.
    pub(super) fn usage_so_far(&self) -> Usage {
        if let Some(about) = &self.about {
            return about.usage();
        }
        let tokens = self.said_bytes.div_ceil(BYTES_PER_TOKEN);
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            is_estimated: true,
            ..Usage::default()
        }
    }

    /// Nothing is to be paid; that it was asked counts nevertheless.
    fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.settle(MicroUsd::ZERO, &Usage::default());
            self.record.cost(self.number, MicroUsd::ZERO, true);
        }
    }

    /// Books what it cost, or, where nobody says, the most it may have. Returns what is booked.
    fn settle(&mut self, usage: &Usage) -> MicroUsd {
        self.tell_upstream();
        if let Some(model) = self.about.as_ref().and_then(|about| about.model()) {
            self.record.answered_by(self.number, &model);
        }
        let Some(hold) = self.hold.take() else {
            return MicroUsd::ZERO;
        };
        self.record.trace().used(self.number, usage);
        let of_tokens = usage
            .cost
            .or_else(|| self.price.map(|price| price.cost(usage)));
        if self.target.is_local() {
            let time = self.price.map(|price| price.of_time(self.began.elapsed()));
            let cost = of_tokens.unwrap_or_default().plus(time.unwrap_or_default());
            hold.settle(cost, usage);
            self.record.cost(self.number, cost, true);
            return cost;
        }
        if let Some(cost) = of_tokens.filter(|_| !usage.is_estimated) {
            hold.settle(cost, usage);
            self.record.cost(self.number, cost, true);
            cost
        } else {
            let cost = of_tokens.unwrap_or_default().max(hold.worst());
            hold.settle_unconfirmed(of_tokens.unwrap_or_default(), usage);
            self.record.cost(self.number, cost, false);
            self.ask_for_the_bill();
            cost
        }
    }

    /// Writes down by which name the provider knows the answer, so that the bill can be asked for even after a crash.
    fn tell_upstream(&self) {
        let generation = self.about.as_ref().and_then(|about| about.generation());
        if let (Some(generation), Some(hold)) = (generation, &self.hold) {
            hold.set_upstream(&generation);
        }
    }

    fn ask_for_the_bill(&self) {
        let generation = self.about.as_ref().and_then(|about| about.generation());
        if let Some(generation) = generation {
            let attempt = u32::try_from(self.number).unwrap_or(u32::MAX);
            let request = self.record.id().to_string();
            self.core
                .ask_for_bill(&self.target.provider, (request, attempt), generation);
        }
    }
}

impl Drop for Attempt {
    /// Another was faster, or whoever asked has left.
    fn drop(&mut self) {
        let was = std::mem::replace(&mut self.phase, Phase::Over);
        if was == Phase::Over {
            return;
        }
        if !self.target.is_local() {
            let (provider, model) = (&self.target.provider, &self.target.model);
            self.core.health().given_up(provider, model);
        }
        if was == Phase::Held {
            self.release();
        } else {
            let usage = self.usage_so_far();
            self.settle(&usage);
        }
        let outcome = if was == Phase::Answering {
            "cancelled"
        } else {
            "dropped"
        };
        self.record.attempt_ended(self.number, outcome, None);
    }
}

/// What an attempt may take.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) account: &'a super::money::Account,
    pub(super) prompt: PromptSize,
    pub(super) max_tokens: u32,
    /// What it costs.
    pub(super) price: Option<Price>,
    /// When its first content is expected.
    pub(super) predicted: Option<Duration>,
}

/// Whether a provider that fails so bills nothing.
fn costs_nothing(fault: ProviderFault) -> bool {
    matches!(
        fault,
        ProviderFault::Unreachable
            | ProviderFault::Unauthorized
            | ProviderFault::NoCredit
            | ProviderFault::Refused
            | ProviderFault::NoSuchModel
            | ProviderFault::RateLimited { .. }
            | ProviderFault::Unavailable { .. }
            | ProviderFault::Rejected
            | ProviderFault::TooLong
    )
}

fn not_held(error: &NotHeld) -> BackendError {
    let kind = match error {
        NotHeld::OverLimit(over) => BackendErrorKind::OverLimit {
            retry_after: over.retry_after(),
        },
        NotHeld::Ledger(_) => BackendErrorKind::Failed,
    };
    BackendError::new(kind, error.to_string())
}
