//! What is measured of all requests: as Prometheus series, and as one JSON object.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::calibration::{Calibration, Calibrations};
use super::decision::{Decision, millis};
use super::health::BreakerState;
use super::latest::Latest;
use crate::telemetry::names;

/// Names of models and teams that are told apart; strangers may make up any number.
const MOST_LABELS: usize = 1000;
/// What all others are called then.
const OTHERS: &str = "other";
/// The latest so many answers of a model are what its times are taken from.
const N_TIMES: usize = 256;

/// Everything that is measured.
#[derive(Debug, Default)]
pub(super) struct Measures(Mutex<Totals>);

#[derive(Debug, Default)]
struct Totals {
    /// By provider and model.
    selected: BTreeMap<(String, String), u64>,
    /// By why who answered was asked.
    reasons: BTreeMap<String, u64>,
    /// By team. Units: micro-dollars.
    costs: BTreeMap<String, u64>,
    /// By provider and model.
    times: BTreeMap<(String, String), Times>,
    /// By model: the scores that were reported, their sum and how many.
    scores: BTreeMap<String, (f64, u64)>,
    n_local: u64,
    n_cloud: u64,
    /// Answers of providers where this machine was asked or would have been, by why.
    escalations: BTreeMap<String, u64>,
    /// By outcome.
    outcomes: BTreeMap<String, u64>,
    calibrations: Calibrations,
}

#[derive(Debug, Default)]
struct Times {
    first: Latest<u64, N_TIMES>,
    whole: Latest<u64, N_TIMES>,
}

/// What is measured, as `/v1/route/metrics` tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    model_selection_count: Vec<Selected>,
    routing_decisions: BTreeMap<String, u64>,
    /// Units: dollars.
    cost_per_team: BTreeMap<String, f64>,
    local_vs_cloud_ratio: Shares,
    response_times: Vec<ResponseTimes>,
    quality_scores: BTreeMap<String, f64>,
    escalations: u64,
    escalations_by_reason: BTreeMap<String, u64>,
    outcomes: BTreeMap<String, u64>,
    /// By model of this machine.
    prediction_ratio: BTreeMap<String, Calibration>,
    breakers: Vec<KnownBreaker>,
}

/// A breaker, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownBreaker {
    /// Before whom it stands.
    pub provider: String,
    /// Before which model; absent: before all of them.
    pub model: Option<String>,
    /// `closed`, `trying` or `open`.
    pub state: &'static str,
    /// Until it lets one try.
    pub retry_after_ms: Option<u64>,
    /// What opened it.
    pub fault: Option<&'static str>,
}

impl KnownBreaker {
    pub(super) fn new(provider: String, model: Option<String>, state: BreakerState) -> Self {
        let (state, retry_after_ms, fault) = match state {
            BreakerState::Closed => ("closed", None, None),
            BreakerState::Trying => ("trying", None, None),
            BreakerState::Open { for_, fault } => ("open", Some(millis(for_)), Some(fault.name())),
        };
        Self {
            provider,
            model,
            state,
            retry_after_ms,
            fault,
        }
    }

    /// Its state as the series has it: 0 closed, 1 trying, 2 open.
    pub fn level(&self) -> u8 {
        match self.state {
            "closed" => 0,
            "trying" => 1,
            _ => 2,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Selected {
    model: String,
    provider: String,
    count: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Shares {
    local: u64,
    cloud: u64,
    /// Of all answers, those of this machine; absent before the first.
    local_share: Option<f64>,
}

/// Units: milliseconds, of the latest answers.
#[derive(Clone, Debug, Serialize)]
struct ResponseTimes {
    model: String,
    provider: String,
    first_content_p50_ms: Option<u64>,
    first_content_p99_ms: Option<u64>,
    whole_p50_ms: Option<u64>,
    whole_p99_ms: Option<u64>,
}

impl Measures {
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is over.
    pub(super) fn ended(&self, decision: &Decision) {
        let mut totals = self.lock();
        let outcome = decision.outcome.unwrap_or("cancelled");
        count(&mut totals.outcomes, outcome);
        let team = decision.team.as_deref().unwrap_or("none");
        let team = known(&totals.costs, team);
        let spent = totals.costs.entry(team.clone()).or_default();
        *spent = spent.saturating_add(decision.cost_micro_usd);
        metrics::counter!(names::COST, "team" => team).increment(decision.cost_micro_usd);
        let Some(served_by) = &decision.served_by else {
            metrics::counter!(names::ROUTED, "reason" => "none", "outcome" => outcome).increment(1);
            return;
        };
        let (provider, model) = served_by.split_once(':').unwrap_or(("local", served_by));
        let mut key = (provider.to_owned(), model.to_owned());
        if !totals.selected.contains_key(&key) && totals.selected.len() >= MOST_LABELS {
            OTHERS.clone_into(&mut key.1);
        }
        *totals.selected.entry(key.clone()).or_default() += 1;
        let labels = [("provider", key.0.clone()), ("model", key.1.clone())];
        metrics::counter!(names::SELECTED, &labels).increment(1);
        let answered = decision
            .attempts
            .iter()
            .rev()
            .find(|one| one.target == *served_by);
        let reason = answered.map_or("first", |one| one.why);
        count(&mut totals.reasons, reason);
        metrics::counter!(names::ROUTED, "reason" => reason, "outcome" => outcome).increment(1);
        if provider == "local" {
            totals.n_local += 1;
        } else {
            totals.n_cloud += 1;
        }
        let share = totals.n_local as f64 / (totals.n_local + totals.n_cloud) as f64;
        metrics::gauge!(names::LOCAL_SHARE).set(share);
        if let Some(why) = decision.escalated {
            count(&mut totals.escalations, why);
            metrics::counter!(names::ESCALATIONS, "reason" => why).increment(1);
        }
        let times = totals.times.entry(key).or_default();
        for (place, time, name) in [
            (
                &mut times.first,
                decision.first_content_ms,
                names::ROUTED_FIRST,
            ),
            (&mut times.whole, decision.total_ms, names::ROUTED_WHOLE),
        ] {
            let Some(time) = time else { continue };
            place.push(time);
            metrics::histogram!(name, &labels).record(time as f64 / 1000.0);
        }
    }

    /// Somebody says how good an answer of `model` was, from 0 to 1.
    pub(super) fn scored(&self, model: &str, score: f64) {
        let mut totals = self.lock();
        let model = known(&totals.scores, model);
        let (sum, n) = totals.scores.entry(model.clone()).or_default();
        *sum += score;
        *n += 1;
        metrics::histogram!(names::QUALITY, "model" => model).record(score);
    }

    /// The first content of a model of this machine came after `actual` where `predicted` was foretold; returns how they
    /// compare.
    pub(super) fn came(&self, model: &str, predicted: Duration, actual: Duration) -> f64 {
        let ratio = self.lock().calibrations.came(model, predicted, actual);
        metrics::histogram!(names::PREDICTION_RATIO, "model" => model.to_owned()).record(ratio);
        ratio
    }

    /// How right predictions for a model of this machine were, once anything is known.
    pub(super) fn calibration(&self, model: &str) -> Option<Calibration> {
        self.lock().calibrations.of(model)
    }

    /// Everything so far, and the breakers as they stand.
    pub(super) fn now(&self, breakers: Vec<KnownBreaker>) -> Measured {
        let totals = self.lock();
        let selected = totals
            .selected
            .iter()
            .map(|((provider, model), count)| Selected {
                model: model.clone(),
                provider: provider.clone(),
                count: *count,
            });
        let times = totals.times.iter().map(|((provider, model), times)| {
            let (first, whole) = (times.first.sorted(), times.whole.sorted());
            ResponseTimes {
                model: model.clone(),
                provider: provider.clone(),
                first_content_p50_ms: first.at(50),
                first_content_p99_ms: first.at(99),
                whole_p50_ms: whole.at(50),
                whole_p99_ms: whole.at(99),
            }
        });
        let n = totals.n_local + totals.n_cloud;
        let dollars = |(team, micro): (&String, &u64)| (team.clone(), *micro as f64 / 1e6);
        let mean = |(model, (sum, n)): (&String, &(f64, u64))| (model.clone(), sum / *n as f64);
        Measured {
            model_selection_count: selected.collect(),
            routing_decisions: totals.reasons.clone(),
            cost_per_team: totals.costs.iter().map(dollars).collect(),
            local_vs_cloud_ratio: Shares {
                local: totals.n_local,
                cloud: totals.n_cloud,
                local_share: (n > 0).then(|| totals.n_local as f64 / n as f64),
            },
            response_times: times.collect(),
            quality_scores: totals.scores.iter().map(mean).collect(),
            escalations: totals.escalations.values().sum(),
            escalations_by_reason: totals.escalations.clone(),
            prediction_ratio: totals.calibrations.all(),
            breakers,
            outcomes: totals.outcomes.clone(),
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}

/// The name, or the one for all that are too many.
fn known<T>(names: &BTreeMap<String, T>, name: &str) -> String {
    if names.contains_key(name) || names.len() < MOST_LABELS {
        name.to_owned()
    } else {
        OTHERS.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::backend::ProviderFault;
    use crate::chat::{FinishReason, Usage};
    use crate::money::MicroUsd;
    use crate::router::decision::{Asking, End, Record};

    const MS: Duration = Duration::from_millis(1);

    fn decision(team: Option<&str>, targets: &[&str]) -> Decision {
        let asking = Asking {
            team: team.map(str::to_owned),
            ..Asking::default()
        };
        let record = Record::new(asking, Arc::default());
        for (i, target) in targets.iter().enumerate() {
            let why = if i == 0 { "first" } else { "failed" };
            let attempt = record.asked(target, why);
            if i + 1 == targets.len() {
                record.committed(target);
                record.cost(attempt, MicroUsd(2_000_000), true);
            }
        }
        record.finished(&End::Finished(FinishReason::Stop), Usage::default());
        record.now()
    }

    #[test]
    fn the_series_of_the_chain_before_ingle_are_all_there() {
        let measures = Measures::default();
        measures.ended(&decision(Some("marketing"), &["local:m"]));
        measures.ended(&decision(Some("marketing"), &["local:m", "openai:gpt-4"]));
        measures.ended(&decision(None, &[]));
        measures.scored("gpt-4", 0.5);
        measures.scored("gpt-4", 1.0);
        assert_eq!(measures.came("m", MS * 100, MS * 150), 1.5);
        let open = BreakerState::Open {
            for_: MS * 5000,
            fault: ProviderFault::NoCredit,
        };
        let breaker = KnownBreaker::new("openai".to_owned(), None, open);
        assert_eq!(breaker.level(), 2);
        let told = serde_json::to_value(measures.now(vec![breaker])).unwrap();
        let selected = json!([
            {"model": "m", "provider": "local", "count": 1},
            {"model": "gpt-4", "provider": "openai", "count": 1},
        ]);
        assert_eq!(told["model_selection_count"], selected);
        assert_eq!(told["routing_decisions"], json!({"first": 1, "failed": 1}));
        assert_eq!(told["cost_per_team"]["marketing"], 4.0);
        assert_eq!(told["local_vs_cloud_ratio"]["local_share"], 0.5);
        assert_eq!(told["quality_scores"]["gpt-4"], 0.75);
        assert_eq!(told["escalations"], 1);
        assert_eq!(told["escalations_by_reason"], json!({"failed": 1}));
        assert_eq!(told["prediction_ratio"]["m"]["ratio_p50"], 1.5);
        let breaker = json!({"provider": "openai", "model": null, "state": "open",
            "retry_after_ms": 5000, "fault": "no_credit"});
        assert_eq!(told["breakers"], json!([breaker]));
        assert_eq!(told["outcomes"]["stop"], 3);
        assert_eq!(told["response_times"][0]["model"], "m");
        assert!(told["response_times"][0]["whole_p50_ms"].is_u64());
    }

    #[test]
    fn names_that_strangers_make_up_are_not_all_told_apart() {
        let measures = Measures::default();
        for n in 0..MOST_LABELS + 10 {
            measures.ended(&decision(
                Some(&format!("t{n}")),
                &[&format!("openai:m{n}")],
            ));
        }
        let totals = measures.lock();
        assert_eq!(totals.costs.len(), MOST_LABELS + 1);
        assert_eq!(totals.selected.len(), MOST_LABELS + 1);
    }
}
