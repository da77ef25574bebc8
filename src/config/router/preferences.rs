//! What a request, a team or the configuration prefers.

use crate::config::document::Table;
use crate::config::router::Strategy;

/// Wishes about who answers; what is absent says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preferences {
    /// What is best where several could answer.
    pub strategy: Option<Strategy>,
    /// This machine before others.
    pub prefer_local: Option<bool>,
    /// The faster before others.
    pub prefer_faster: Option<bool>,
    /// Whether a provider may be asked at all.
    pub fallback_to_cloud: Option<bool>,
    /// Dollars that one request may cost.
    pub max_cost: Option<f64>,
    /// Dollars that a token may cost.
    pub max_cost_per_token: Option<f64>,
    /// Dollars that 1000 tokens may cost.
    pub max_cost_per_1k_tokens: Option<f64>,
    /// The least score of a model, from 0 to 1.
    pub quality_threshold: Option<f64>,
    /// The only models that may answer: names, families and globs.
    pub acceptable_models: Option<Vec<String>>,
}

impl Preferences {
    /// The keys of all.
    pub const KEYS: [&'static str; 9] = [
        "strategy",
        "prefer_local",
        "prefer_faster",
        "fallback_to_cloud",
        "max_cost",
        "max_cost_per_token",
        "max_cost_per_1k_tokens",
        "quality_threshold",
        "acceptable_models",
    ];

    /// Reads those of a table.
    pub fn read(table: &Table<'_>) -> Self {
        table.only(&Self::KEYS);
        Self::read_some(table)
    }

    /// Reads those of a table that has other keys too.
    pub fn read_some(table: &Table<'_>) -> Self {
        let dollars = |key| table.number(key, 0.0..=f64::INFINITY);
        let acceptable_models = table.texts("acceptable_models");
        if acceptable_models.as_ref().is_some_and(Vec::is_empty) {
            let problem = "it is empty, so that no model could answer: name one, or leave it out";
            table.refuse("acceptable_models", problem);
        }
        Self {
            strategy: table.parsed("strategy"),
            prefer_local: table.bool("prefer_local"),
            prefer_faster: table.bool("prefer_faster"),
            fallback_to_cloud: table.bool("fallback_to_cloud"),
            max_cost: dollars("max_cost"),
            max_cost_per_token: dollars("max_cost_per_token"),
            max_cost_per_1k_tokens: dollars("max_cost_per_1k_tokens"),
            quality_threshold: table.number("quality_threshold", 0.0..=1.0),
            acceptable_models,
        }
    }

    /// These, and where they say nothing the ones of `below`.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        let models = self.acceptable_models.as_ref();
        Self {
            strategy: self.strategy.or(below.strategy),
            prefer_local: self.prefer_local.or(below.prefer_local),
            prefer_faster: self.prefer_faster.or(below.prefer_faster),
            fallback_to_cloud: self.fallback_to_cloud.or(below.fallback_to_cloud),
            max_cost: self.max_cost.or(below.max_cost),
            max_cost_per_token: self.max_cost_per_token.or(below.max_cost_per_token),
            max_cost_per_1k_tokens: self.max_cost_per_1k_tokens.or(below.max_cost_per_1k_tokens),
            quality_threshold: self.quality_threshold.or(below.quality_threshold),
            acceptable_models: models.or(below.acceptable_models.as_ref()).cloned(),
        }
    }

    /// Dollars that a token may cost, whichever way that was said.
    pub fn cost_per_token(&self) -> Option<f64> {
        let per_1k = self.max_cost_per_1k_tokens.map(|dollars| dollars / 1000.0);
        match (self.max_cost_per_token, per_1k) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
