//! Decides who answers a request: which candidates there are, which of them may not, and in which order the others are
//! tried. Pure: everything it knows is in its arguments, and all it does is in its answer, with reasons.

mod cost;
mod filter;
mod gather;
mod openrouter;
mod question;
mod rank;
mod reason;
mod snapshot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use crate::backend::provider::ProviderPreferences;
use crate::config::router::Strategy;
use crate::egress::Privacy;
use crate::money::MicroUsd;
use crate::router::calibration::Calibration;
use crate::router::names::Target;
use crate::router::prices::Price;

pub use question::{Needs, Question};
pub use reason::{Exclusion, Reason, Why};
pub use snapshot::{Breaker, Facts, FactsOf, LocalModel, LocalState, Snapshot};

/// Who may answer, the best first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// For which team.
    pub team: Option<String>,
    /// How far the prompt may go, once key, team, request and configuration have had their say.
    pub privacy: Privacy,
    /// Time to the first content.
    #[serde(rename = "deadline_ms", serialize_with = "whole_millis")]
    pub deadline: Option<Duration>,
    /// Those that may answer in the order in which they are tried, then those that may not.
    pub candidates: Vec<Candidate>,
    /// By what they were ordered.
    pub strategy: Strategy,
    /// Who said so.
    pub strategy_by: &'static str,
    /// Whether another may answer where the first does not.
    pub fallback: bool,
    /// Why somebody else comes before a model of this machine that would have been the first.
    pub escalation: Option<&'static str>,
    /// Why there is nobody at all: nobody knows the model.
    pub unknown: Option<String>,
}

impl Plan {
    /// Those that may answer, in the order in which they are tried.
    pub fn allowed(&self) -> impl Iterator<Item = &Candidate> {
        let candidates = self.candidates.iter();
        candidates.filter(|candidate| candidate.excluded.is_none())
    }

    /// One sentence on why nobody may answer.
    pub fn refusal(&self) -> String {
        if let Some(unknown) = &self.unknown {
            return unknown.clone();
        }
        let reasons = self.candidates.iter().filter_map(|candidate| {
            let excluded = candidate.excluded.as_ref()?;
            Some(format!("{}: {excluded}", candidate.target))
        });
        let reasons: Vec<String> = reasons.take(MOST_TOLD).collect();
        if reasons.is_empty() {
            return "there is no model to ask: load one, or configure a provider".to_owned();
        }
        format!("no model may answer this request ({})", reasons.join("; "))
    }
}

/// Candidates of which a refusal tells.
const MOST_TOLD: usize = 8;

/// A model that may answer, or may not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Whose model, and which.
    pub target: Target,
    /// The temperature where the request gives none.
    pub temperature: Option<f32>,
    /// Tokens of the answer at most. Always there for a provider.
    pub max_tokens: Option<u32>,
    /// Why it is one, and why it stands where it stands.
    pub why: Vec<Reason>,
    /// Time to its first content.
    #[serde(rename = "predicted_ttft_ms", serialize_with = "whole_millis")]
    pub predicted_ttft: Option<Duration>,
    /// Time to its end.
    #[serde(rename = "predicted_total_ms", serialize_with = "whole_millis")]
    pub predicted_total: Option<Duration>,
    /// How right such predictions were lately.
    pub calibration: Option<Calibration>,
    /// What it was judged by: its price, or at OpenRouter, where nobody knows one, a cap that holds there.
    #[serde(skip)]
    pub price: Option<Price>,
    /// What it is likely to cost; absent where nobody knows.
    #[serde(rename = "predicted_cost_usd", serialize_with = "dollars")]
    pub predicted_cost: Option<MicroUsd>,
    /// What it costs at most; absent where nobody knows.
    #[serde(rename = "worst_cost_usd", serialize_with = "dollars")]
    pub worst_cost: Option<MicroUsd>,
    /// Its score.
    pub quality: Option<f64>,
    /// What OpenRouter is to be told.
    pub openrouter: Option<ProviderPreferences>,
    /// Why it may not answer.
    pub excluded: Option<Exclusion>,
}

impl Candidate {
    /// All reasons in one sentence.
    pub fn says(&self) -> String {
        let why = self.why.iter().map(ToString::to_string);
        let mut parts: Vec<String> = why.collect();
        parts.extend(
            self.excluded
                .iter()
                .map(|excluded| format!("excluded: {excluded}")),
        );
        parts.join("; ")
    }
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn dollars<S: serde::Serializer>(amount: &Option<MicroUsd>, to: S) -> Result<S::Ok, S::Error> {
    amount.map(MicroUsd::to_usd).serialize(to)
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn whole_millis<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(reason::millis).serialize(to)
}

/// Decides who answers `question` as things stand in `snapshot`.
pub fn plan(question: &Question, snapshot: &Snapshot<'_>) -> Plan {
    let asked = question::Asked::new(question, snapshot);
    let gathered = gather::gather(&asked);
    let unknown = gathered.unknown;
    let candidates = gathered.found.into_iter();
    let judged: Vec<rank::Judged> = candidates
        .map(|found| filter::judge(found, &asked))
        .collect();
    let (candidates, escalation) = rank::rank(judged, &asked);
    Plan {
        team: question.team.as_ref().map(|team| team.name.clone()),
        privacy: question.privacy_under(snapshot.settings),
        deadline: question.deadline_under(snapshot.settings),
        candidates,
        strategy: asked.strategy,
        strategy_by: asked.strategy_by,
        fallback: asked.fallback,
        escalation,
        unknown,
    }
}
