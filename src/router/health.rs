//! Which providers answer, and how fast: circuit breakers and latencies, pure; the clock is an argument.
//!
//! A breaker stands before a provider, and one before each of its models. Closed, it counts failures that follow
//! each other. At [`FAILURES_TO_OPEN`], or at once where asking again cannot help, it opens for a while that doubles
//! each time; then one request may try. A success closes it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::latest::Latest;
use crate::backend::ProviderFault;

/// Failures in a row after which nobody is sent there for a while.
const FAILURES_TO_OPEN: u32 = 3;
/// How long a breaker is open the first time.
const OPEN_FIRST: Duration = Duration::from_secs(5);
/// How long it is open at most, unless the provider itself asks for longer.
const OPEN_MOST: Duration = Duration::from_mins(5);
/// How long what a person has to mend keeps it open: a key, credit, the name of a model.
const OPEN_FOR_PEOPLE: Duration = Duration::from_mins(1);
/// A provider that asks to be left alone for longer than this is asked earlier nevertheless.
const RETRY_AFTER_MOST: Duration = Duration::from_hours(1);
/// How long the one request that may try has for it, before another may.
const PROBE_PATIENCE: Duration = Duration::from_mins(2);
/// The latest so many answers are what a model's speed is taken from.
const N_OBSERVED: usize = 64;
/// Models that are remembered; beyond it those not heard of for longest are forgotten.
const MOST_MODELS: usize = 4096;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// None passes.
    Open {
        /// Until one may try.
        for_: Duration,
        /// What opened it.
        fault: ProviderFault,
    },
    /// One is trying.
    Trying,
}

#[derive(Clone, Debug, Default)]
struct Breaker {
    /// Failures in a row.
    n_failures: u32,
    /// Times it opened without a success between.
    n_opened: u32,
    open: Option<(Instant, ProviderFault)>,
    probe: Option<Instant>,
}

impl Breaker {
    fn state(&self, now: Instant) -> BreakerState {
        match self.open {
            Some((until, fault)) if now < until => BreakerState::Open {
                for_: until - now,
                fault,
            },
            Some(_) if self.is_probed(now) => BreakerState::Trying,
            // Never opened, or its time is over: the next may try.
            _ => BreakerState::Closed,
        }
    }

    fn is_probed(&self, now: Instant) -> bool {
        self.probe.is_some_and(|since| now < since + PROBE_PATIENCE)
    }

    /// Somebody is sent there.
    fn sent(&mut self, now: Instant) {
        if self.open.is_some_and(|(until, _)| now >= until) {
            self.probe = Some(now);
        }
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    fn failed(&mut self, fault: ProviderFault, at_once: bool, now: Instant) {
        self.n_failures = self.n_failures.saturating_add(1);
        let was_trying = self.probe.take().is_some();
        if !(at_once || was_trying || self.n_failures >= FAILURES_TO_OPEN) {
            return;
        }
        let doubled = OPEN_FIRST * 2_u32.saturating_pow(self.n_opened.min(16));
        let mut wait = doubled.min(OPEN_MOST);
        if needs_people(fault) {
            wait = wait.max(OPEN_FOR_PEOPLE);
        }
        if let Some(asked) = fault.retry_after() {
            wait = wait.max(asked.min(RETRY_AFTER_MOST));
        }
        self.n_opened = self.n_opened.saturating_add(1);
        // What a provider asked for is not cut short by a later failure.
        let until = (now + wait).max(self.open.map_or(now, |(until, _)| until));
        self.open = Some((until, fault));
    }
}

fn needs_people(fault: ProviderFault) -> bool {
    matches!(
        fault,
        ProviderFault::Unauthorized | ProviderFault::NoCredit | ProviderFault::NoSuchModel
    )
}

/// Whose failure a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// Every model of the provider is struck.
    Provider,
    /// Only this model.
    Model,
    /// The request itself.
    Nobody,
}

fn blame(fault: ProviderFault) -> Blame {
    match fault {
        ProviderFault::Unreachable | ProviderFault::Unauthorized | ProviderFault::NoCredit => {
            Blame::Provider
        }
        ProviderFault::NoSuchModel
        | ProviderFault::RateLimited { .. }
        | ProviderFault::Unavailable { .. }
        | ProviderFault::Garbled
        | ProviderFault::Stalled
        | ProviderFault::BrokeOff => Blame::Model,
        ProviderFault::Refused | ProviderFault::Rejected | ProviderFault::TooLong => Blame::Nobody,
    }
}

/// How fast a model answered lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Half of the answers began within this.
    pub ttft_p50: Option<Duration>,
    /// Nine of ten began within this.
    pub ttft_p90: Option<Duration>,
    /// Tokens a second once begun, the median.
    pub tokens_per_second: Option<f64>,
    /// Answers these are taken from.
    pub n_answers: usize,
}

#[derive(Clone, Debug, Default)]
struct Observed {
    ttft: Latest<Duration, N_OBSERVED>,
    rates: Latest<f64, N_OBSERVED>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    breaker: Breaker,
    observed: Observed,
    heard: Option<Instant>,
}

/// All providers, as their answers showed them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    providers: HashMap<String, Breaker>,
    models: HashMap<(String, String), Model>,
}

impl Health {
    /// Where the breakers before a model stand: the provider's if that is not closed, else the model's.
    pub fn state(&self, provider: &str, model: &str, now: Instant) -> BreakerState {
        let closed = BreakerState::Closed;
        let whole = self.providers.get(provider).map(|b| b.state(now));
        match whole.unwrap_or(closed) {
            BreakerState::Closed => self
                .models
                .get(&key(provider, model))
                .map_or(closed, |one| one.breaker.state(now)),
            other => other,
        }
    }

    /// A request is sent to a model.
    pub fn sent(&mut self, provider: &str, model: &str, now: Instant) {
        if let Some(breaker) = self.providers.get_mut(provider) {
            breaker.sent(now);
        }
        self.model(provider, model, now).breaker.sent(now);
    }

    /// An answer began, `ttft` after it was asked for.
    pub fn began(&mut self, provider: &str, model: &str, ttft: Duration, now: Instant) {
        if let Some(breaker) = self.providers.get_mut(provider) {
            breaker.succeeded();
        }
        let model = self.model(provider, model, now);
        model.observed.ttft.push(ttft);
    }

    /// An answer came to its end, `n_tokens` in `took` after its first.
    pub fn finished(
        &mut self,
        provider: &str,
        model: &str,
        (n_tokens, took): (u32, Duration),
        now: Instant,
    ) {
        let model = self.model(provider, model, now);
        model.breaker.succeeded();
        if n_tokens > 1 && !took.is_zero() {
            let rate = f64::from(n_tokens - 1) / took.as_secs_f64();
            model.observed.rates.push(rate);
        }
    }

    /// An answer failed.
    pub fn failed(&mut self, provider: &str, model: &str, fault: ProviderFault, now: Instant) {
        let at_once = needs_people(fault) || matches!(fault, ProviderFault::RateLimited { .. });
        match blame(fault) {
            Blame::Nobody => {
                // It answered.
                if let Some(breaker) = self.providers.get_mut(provider) {
                    breaker.succeeded();
                }
                self.model(provider, model, now).breaker.succeeded();
            }
            Blame::Provider => {
                let breaker = self.providers.entry(provider.to_owned()).or_default();
                breaker.failed(fault, at_once, now);
            }
            Blame::Model => {
                let model = self.model(provider, model, now);
                model.breaker.failed(fault, at_once, now);
            }
        }
    }

    /// A request that was sent was given up before anything was known of it.
    pub fn given_up(&mut self, provider: &str, model: &str) {
        if let Some(breaker) = self.providers.get_mut(provider) {
            breaker.probe = None;
        }
        if let Some(model) = self.models.get_mut(&key(provider, model)) {
            model.breaker.probe = None;
        }
    }

    /// How fast a model answered lately.
    pub fn latency(&self, provider: &str, model: &str) -> Latency {
        let Some(model) = self.models.get(&key(provider, model)) else {
            return Latency::default();
        };
        let ttft = model.observed.ttft.sorted();
        Latency {
            ttft_p50: ttft.at(50),
            ttft_p90: ttft.at(90),
            tokens_per_second: model.observed.rates.sorted().at(50),
            n_answers: ttft.len(),
        }
    }

    /// Every breaker that was ever needed: the provider, the model where it is only that one's, and its state.
    pub fn breakers(&self, now: Instant) -> BTreeMap<(String, Option<String>), BreakerState> {
        let providers = self.providers.iter();
        let providers = providers.map(|(name, breaker)| ((name.clone(), None), breaker.state(now)));
        let models = self.models.iter().map(|((provider, name), model)| {
            let state = model.breaker.state(now);
            ((provider.clone(), Some(name.clone())), state)
        });
        providers.chain(models).collect()
    }

    fn model(&mut self, provider: &str, model: &str, now: Instant) -> &mut Model {
        let key = key(provider, model);
        if !self.models.contains_key(&key) && self.models.len() >= MOST_MODELS {
            let oldest = self.models.iter().min_by_key(|(_, model)| model.heard);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.models.remove(&oldest);
            }
        }
        let model = self.models.entry(key).or_default();
        model.heard = Some(now);
        model
    }
}

fn key(provider: &str, model: &str) -> (String, String) {
    (provider.to_owned(), model.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DOWN: ProviderFault = ProviderFault::Unavailable { retry_after: None };

    fn is_open(health: &Health, provider: &str, model: &str, now: Instant) -> bool {
        health.state(provider, model, now) != BreakerState::Closed
    }

    #[test]
    fn three_failures_in_a_row_open_a_models_breaker_and_a_success_closes_it() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.failed("p", "m", DOWN, now);
        health.failed("p", "m", DOWN, now);
        health.finished("p", "m", (2, SECOND), now);
        health.failed("p", "m", DOWN, now);
        health.failed("p", "m", DOWN, now);
        assert!(!is_open(&health, "p", "m", now));
        health.failed("p", "m", DOWN, now);
        assert!(is_open(&health, "p", "m", now));
        assert!(!is_open(&health, "p", "other", now));
        now += OPEN_FIRST;
        assert!(!is_open(&health, "p", "m", now));
        // One tries, and nobody else meanwhile.
        health.sent("p", "m", now);
        assert_eq!(health.state("p", "m", now), BreakerState::Trying);
        health.finished("p", "m", (2, SECOND), now);
        assert!(!is_open(&health, "p", "m", now));
    }

    #[test]
    fn a_failed_try_opens_it_for_twice_as_long_up_to_a_bound() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for _ in 0..3 {
            health.failed("p", "m", DOWN, now);
        }
        let mut expected = OPEN_FIRST;
        for _ in 0..10 {
            now += expected;
            assert!(!is_open(&health, "p", "m", now));
            health.sent("p", "m", now);
            health.failed("p", "m", DOWN, now);
            expected = (expected * 2).min(OPEN_MOST);
            let state = health.state("p", "m", now);
            let open = BreakerState::Open {
                for_: expected,
                fault: DOWN,
            };
            assert_eq!(state, open);
        }
    }

    #[test]
    fn what_strikes_the_whole_provider_opens_it_for_all_models() {
        let now = Instant::now();
        for fault in [ProviderFault::Unauthorized, ProviderFault::NoCredit] {
            let mut health = Health::default();
            health.failed("p", "m", fault, now);
            assert!(is_open(&health, "p", "other", now), "{fault:?}");
            assert!(!is_open(&health, "q", "m", now));
            let breakers = health.breakers(now);
            assert!(matches!(
                breakers[&("p".to_owned(), None)],
                BreakerState::Open { .. }
            ));
        }
        let mut health = Health::default();
        for _ in 0..3 {
            health.failed("p", "m", ProviderFault::Unreachable, now);
        }
        assert!(is_open(&health, "p", "other", now));
    }

    #[test]
    fn a_provider_that_asks_for_time_gets_it_once_and_within_bounds() {
        let now = Instant::now();
        for (asked, expected) in [(1, 5), (120, 120), (1_000_000, 3600)] {
            let mut health = Health::default();
            let retry_after = Some(Duration::from_secs(asked));
            health.failed("p", "m", ProviderFault::RateLimited { retry_after }, now);
            let last = now + Duration::from_secs(expected);
            assert!(
                is_open(&health, "p", "m", last.checked_sub(SECOND).unwrap()),
                "{asked}"
            );
            assert!(!is_open(&health, "p", "m", last), "{asked}");
        }
    }

    #[test]
    fn what_is_the_requests_fault_opens_nothing() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..10 {
            health.failed("p", "m", ProviderFault::Rejected, now);
            health.failed("p", "m", ProviderFault::Refused, now);
        }
        assert!(!is_open(&health, "p", "m", now));
    }

    #[test]
    fn a_try_that_was_given_up_leaves_the_next_one_in() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.failed("p", "m", ProviderFault::NoCredit, now);
        now += OPEN_FOR_PEOPLE;
        health.sent("p", "m", now);
        assert!(is_open(&health, "p", "m", now));
        health.given_up("p", "m");
        assert!(!is_open(&health, "p", "m", now));
        health.sent("p", "m", now);
        // Nor does one that never comes back shut everybody out.
        assert!(!is_open(&health, "p", "m", now + PROBE_PATIENCE));
    }

    #[test]
    fn speeds_are_those_of_the_latest_answers() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.latency("p", "m"), Latency::default());
        for n in 1..=100 {
            health.began("p", "m", SECOND * n, now);
            health.finished("p", "m", (11, SECOND), now);
        }
        let latency = health.latency("p", "m");
        assert_eq!(latency.n_answers, N_OBSERVED);
        assert_eq!(latency.ttft_p50, Some(SECOND * 68));
        assert_eq!(latency.ttft_p90, Some(SECOND * 94));
        assert_eq!(latency.tokens_per_second, Some(10.0));
    }

    #[test]
    fn models_that_strangers_make_up_are_not_remembered_for_ever() {
        let (mut health, now) = (Health::default(), Instant::now());
        for n in 0..MOST_MODELS + 10 {
            health.failed(
                "p",
                &n.to_string(),
                DOWN,
                now + Duration::from_millis(n as u64),
            );
        }
        assert_eq!(health.models.len(), MOST_MODELS);
    }
}
