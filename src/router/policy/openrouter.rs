//! What OpenRouter is told: it has providers of its own to choose from, by its own fields.

use super::question::Asked;
use crate::backend::provider::{AutoRouter, MaxPrice, ProviderPreferences, Sort};
use crate::config::router::Strategy;
use crate::money::MicroUsd;
use crate::router::names::Pattern;
use crate::router::prices::Price;

/// Tokens of an answer up to which its beginning matters more than its rate.
const SHORT_ANSWER: u32 = 128;
/// The score from which on `auto` is told to choose among the dearer models.
const HIGH_QUALITY: f64 = 0.8;

/// Dollars for a token as whole micro-dollars for a million, rounded down: a cap is a cap.
pub(super) fn per_million(per_token: f64) -> MicroUsd {
    let micros = (per_token * 1e12).min(9e18);
    // What is a whole number but for the way dollars are written as floats shall stay it.
    let near = micros.round();
    let whole = if (micros - near).abs() < 1e-3 {
        near
    } else {
        micros.floor()
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bounds were just set, and prices are not negative"
    )]
    MicroUsd(whole.max(0.0) as u64)
}

/// The acceptable models in OpenRouter's words; those of other providers are not among them.
pub(super) fn allowed_models(patterns: &[Pattern]) -> Vec<String> {
    let ours = patterns.iter().filter(|pattern| {
        let provider = pattern.provider();
        provider.is_none() || provider == Some("openrouter")
    });
    let globs = ours.flat_map(Pattern::globs).filter(|glob| *glob != "auto");
    let mut globs: Vec<String> = globs
        .map(|glob| {
            if glob.contains('/') || glob == "*" {
                glob.to_owned()
            } else {
                format!("*/{glob}")
            }
        })
        .collect();
    globs.sort();
    globs.dedup();
    globs
}

/// What OpenRouter is told about the request. `bound` are prices that a cap has made where nobody knows any.
pub(super) fn wish(
    asked: &Asked<'_>,
    is_auto: bool,
    bound: Option<Price>,
    expected_tokens: u32,
) -> ProviderPreferences {
    let preferences = &asked.preferences;
    let needs = asked.question.needs;
    let threshold = preferences.quality_threshold;
    let wants_best = asked.strategy == Strategy::QualityFirst || threshold.is_some();
    let fast = if expected_tokens <= SHORT_ANSWER {
        Sort::Latency
    } else {
        Sort::Throughput
    };
    let sort = match asked.strategy {
        _ if asked.prefers_faster => Some(fast),
        Strategy::SpeedFirst => Some(fast),
        Strategy::CostOptimized => Some(Sort::Price),
        _ if wants_best => Some(Sort::Exacto),
        _ => None,
    };
    let max_price = preferences.cost_per_token().map(|per_token| {
        let most = per_million(per_token);
        MaxPrice {
            prompt: most,
            completion: most,
        }
    });
    let bound = bound.map(|price| MaxPrice {
        prompt: MicroUsd(price.tokens.prompt.0),
        completion: MicroUsd(price.tokens.completion.0),
    });
    let tier = threshold.is_some_and(|threshold| threshold >= HIGH_QUALITY)
        || asked.strategy == Strategy::QualityFirst;
    ProviderPreferences {
        max_price: max_price.or(bound),
        sort,
        allow_fallbacks: (!asked.fallback).then_some(false),
        // What a provider does not understand it would drop in silence.
        require_parameters: (needs.tools || needs.json).then_some(true),
        auto: is_auto.then(|| AutoRouter {
            allowed_models: asked
                .acceptable
                .as_deref()
                .map(allowed_models)
                .unwrap_or_default(),
            cost_tier: tier.then_some("high"),
        }),
        ..ProviderPreferences::default()
    }
}
