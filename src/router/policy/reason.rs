//! Why a candidate is one, why it stands where it stands, and why it may not answer.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::LocalState;
use crate::config::router::Strategy;
use crate::egress::Privacy;

/// What made a target a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Why {
    /// The client named this provider and model.
    Asked,
    /// The client named a model that is found there.
    Named,
    /// It is the model that was named, at another provider.
    Elsewhere,
    /// The team prefers it.
    Team {
        /// Counted from 0.
        place: usize,
    },
    /// It is one of the models preferred on this machine.
    LocalPreference {
        /// Counted from 0.
        place: usize,
    },
    /// The chain of fallbacks names it.
    Chain {
        /// Counted from 0.
        place: usize,
    },
    /// It is in the list of acceptable models.
    Acceptable,
    /// It is a model of this machine.
    Here,
}

/// Why a candidate stands where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[expect(missing_docs, reason = "fields are what their names say")]
pub enum Reason {
    /// What made it a candidate.
    Source(Why),
    /// The strategy that ordered it, and what it was ordered by.
    Ordered { strategy: Strategy, by: String },
    /// It is expected to miss the deadline.
    Late { predicted_ms: u64, deadline_ms: u64 },
    /// It cannot take the request now.
    Full { why: String },
    /// It is not in memory yet.
    NotReady { state: LocalState },
    /// It failed before and is asked to see whether it works again.
    Probe,
    /// Its answer is kept short so that it costs no more than it may.
    Shortened {
        max_tokens: u32,
        because: &'static str,
    },
    /// The provider it belongs to is the team's first.
    PrimaryProvider,
    /// It comes after those that were asked for.
    Fallback,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(Why::Asked) => write!(f, "named by the request"),
            Self::Source(Why::Named) => write!(f, "has the model that was named"),
            Self::Source(Why::Elsewhere) => write!(f, "has the same model"),
            Self::Source(Why::Team { place }) => write!(f, "choice {} of the team", place + 1),
            Self::Source(Why::LocalPreference { place }) => {
                write!(f, "choice {} of this machine", place + 1)
            }
            Self::Source(Why::Chain { place }) => write!(f, "link {} of the chain", place + 1),
            Self::Source(Why::Acceptable) => write!(f, "in the list of acceptable models"),
            Self::Source(Why::Here) => write!(f, "a model of this machine"),
            Self::Ordered { strategy, by } => write!(f, "{strategy} by {by}"),
            Self::Late {
                predicted_ms,
                deadline_ms,
            } => write!(
                f,
                "first content expected after {predicted_ms} ms, deadline {deadline_ms} ms"
            ),
            Self::Full { why } => write!(f, "{why}"),
            Self::NotReady { state } => write!(f, "not in memory ({state:?})"),
            Self::Probe => write!(f, "tried again after failures"),
            Self::Shortened {
                max_tokens,
                because,
            } => write!(f, "at most {max_tokens} tokens because of {because}"),
            Self::PrimaryProvider => write!(f, "the team's first provider"),
            Self::Fallback => write!(f, "a fallback"),
        }
    }
}

/// Why a candidate may not answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
#[expect(missing_docs, reason = "fields are what their names say")]
pub enum Exclusion {
    /// No provider of this name is configured.
    NotConfigured { provider: String },
    /// Nothing leaves this machine.
    Offline,
    /// The prompt may not go there.
    Privacy { class: &'static str },
    /// The list of acceptable models does not have it.
    NotAcceptable,
    /// Providers that were not named may not be asked.
    NoCloud,
    /// Another may not answer than the one that was chosen.
    NoFallback,
    /// The engine does not know the model.
    UnknownHere,
    /// The model is not on this machine.
    NotHere,
    /// It could not be loaded.
    LoadFailed,
    /// The conversation does not fit.
    ContextTooLong { tokens: u32, holds: u32 },
    /// The answer that is asked for is longer than it makes.
    OutputTooLong { tokens: u32, makes: u32 },
    /// It lacks what the request needs.
    Lacks { what: &'static str },
    /// Nobody knows what it costs, and there is a limit.
    Unpriced { limit: &'static str },
    /// Tokens cost more than they may. Units: dollars for a token.
    TooDear { costs: f64, most: f64 },
    /// The request costs more than it may. Units: dollars.
    OverMaxCost { worst: f64, most: f64 },
    /// The request costs more than is left. Units: dollars.
    OverBudget { worst: f64, left: f64 },
    /// Its score is too low.
    QualityBelow { score: f64, threshold: f64 },
    /// It has no score, and one is asked for.
    Unscored { threshold: f64 },
    /// It failed too often just now.
    BreakerOpen { retry_after_ms: u64 },
}

impl Exclusion {
    /// Its name in decisions and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConfigured { .. } => "not_configured",
            Self::Offline => "offline",
            Self::Privacy { .. } => "privacy",
            Self::NotAcceptable => "not_acceptable",
            Self::NoCloud => "no_cloud",
            Self::NoFallback => "no_fallback",
            Self::UnknownHere => "unknown_here",
            Self::NotHere => "not_here",
            Self::LoadFailed => "load_failed",
            Self::ContextTooLong { .. } => "context_too_long",
            Self::OutputTooLong { .. } => "output_too_long",
            Self::Lacks { .. } => "lacks",
            Self::Unpriced { .. } => "unpriced",
            Self::TooDear { .. } => "too_dear",
            Self::OverMaxCost { .. } => "over_max_cost",
            Self::OverBudget { .. } => "over_budget",
            Self::QualityBelow { .. } => "quality_below",
            Self::Unscored { .. } => "unscored",
            Self::BreakerOpen { .. } => "breaker_open",
        }
    }

    pub(super) fn privacy(privacy: Privacy) -> Self {
        Self::Privacy {
            class: privacy.name(),
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured { provider } => {
                write!(f, "there is no provider {provider}: give it a key")
            }
            Self::Offline => write!(f, "nothing leaves this machine in offline mode"),
            Self::Privacy { class } => write!(f, "a {class} request may not go there"),
            Self::NotAcceptable => write!(f, "not in acceptable_models"),
            Self::NoCloud => write!(f, "fallback_to_cloud is false"),
            Self::NoFallback => write!(f, "fallback is off"),
            Self::UnknownHere => write!(f, "this machine does not know the model"),
            Self::NotHere => write!(f, "the model is not on this machine: pull it"),
            Self::LoadFailed => write!(f, "the model could not be loaded"),
            Self::ContextTooLong { tokens, holds } => {
                write!(f, "{tokens} tokens do not fit the context of {holds}")
            }
            Self::OutputTooLong { tokens, makes } => {
                write!(f, "max_tokens is {tokens} and it makes {makes} at most")
            }
            Self::Lacks { what } => write!(f, "it cannot do {what}"),
            Self::Unpriced { limit } => write!(f, "its price is not known and {limit} is set"),
            Self::TooDear { costs, most } => {
                write!(f, "${costs} a token is more than the ${most} allowed")
            }
            Self::OverMaxCost { worst, most } => {
                write!(f, "it may cost ${worst}, more than max_cost ${most}")
            }
            Self::OverBudget { worst, left } => {
                write!(f, "it may cost ${worst}, more than the ${left} left")
            }
            Self::QualityBelow { score, threshold } => {
                write!(f, "its score {score} is below the threshold {threshold}")
            }
            Self::Unscored { threshold } => {
                write!(f, "it has no score and the threshold is {threshold}")
            }
            Self::BreakerOpen { retry_after_ms } => {
                write!(f, "it failed too often: tried again in {retry_after_ms} ms")
            }
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
