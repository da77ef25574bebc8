//! What a request says about who may answer it: an object `ingle` in its body, or headers.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, wrong_type};
use crate::backend::provider::HOPS;
use crate::caller::Caller;
use crate::config::router::{Preferences, Strategy};
use crate::router::Meta;

const TEAM: HeaderName = HeaderName::from_static("x-ingle-team");
const TASK: HeaderName = HeaderName::from_static("x-ingle-task");
const DEADLINE: HeaderName = HeaderName::from_static("x-ingle-deadline-ms");
const PRIVACY: HeaderName = HeaderName::from_static("x-ingle-privacy");

/// The fields of `ingle`.
const KEYS: [&str; 6] = [
    "team",
    "task",
    "deadline_ms",
    "privacy",
    "preferences",
    "enable_fallback",
];

/// Reads both; what the body says goes before what a header says, but for privacy, of which the stricter counts.
///
/// Errors: 400, naming the field or header and its value.
pub(super) fn parse(body: &Value, headers: &HeaderMap, caller: Caller) -> Result<Meta, ApiError> {
    let mut meta = Meta::of(caller);
    read_headers(headers, &mut meta)?;
    let said = Fields::of(body, "")?.get("ingle");
    let Some(said) = said else {
        return Ok(meta);
    };
    let fields = Fields::of(said, "ingle")?;
    only(&fields, &KEYS)?;
    let text = |name| Ok::<_, ApiError>(fields.str(name)?.map(str::to_owned));
    meta.team = text("team")?.or(meta.team);
    meta.task = text("task")?.or(meta.task);
    if let Some(milliseconds) = fields.u32("deadline_ms", 1)? {
        meta.deadline = Some(Duration::from_millis(milliseconds.into()));
    }
    if let Some(privacy) = fields.str("privacy")? {
        let name = fields.name("privacy");
        let privacy = privacy.parse().map_err(|error| invalid(&name, &error))?;
        meta.privacy = meta.privacy.tightened(privacy);
    }
    meta.enable_fallback = fields.bool("enable_fallback")?;
    if let Some(preferences) = fields.get("preferences") {
        let path = fields.name("preferences");
        meta.preferences = read_preferences(&Fields::of(preferences, &path)?)?;
    }
    Ok(meta)
}

fn read_headers(headers: &HeaderMap, meta: &mut Meta) -> Result<(), ApiError> {
    let text = |name: &HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::trim).filter(|value| !value.is_empty())
    };
    meta.team = text(&TEAM).map(str::to_owned);
    meta.task = text(&TASK).map(str::to_owned);
    if let Some(deadline) = text(&DEADLINE) {
        let milliseconds = deadline.parse::<u32>().ok().filter(|ms| *ms > 0);
        let Some(milliseconds) = milliseconds else {
            let message = format!("{DEADLINE} is {deadline:?}: it must be whole milliseconds");
            return Err(ApiError::invalid(DEADLINE.as_str(), message));
        };
        meta.deadline = Some(Duration::from_millis(milliseconds.into()));
    }
    if let Some(privacy) = text(&PRIVACY) {
        let parsed = privacy.parse();
        meta.privacy = parsed.map_err(|error| invalid(PRIVACY.as_str(), &error))?;
    }
    meta.n_hops = text(&HOPS).and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(())
}

fn read_preferences(fields: &Fields<'_>) -> Result<Preferences, ApiError> {
    only(fields, &Preferences::KEYS)?;
    let strategy = fields.str("strategy")?.map(str::parse::<Strategy>);
    let strategy = strategy.transpose();
    let strategy = strategy.map_err(|error| invalid(&fields.name("strategy"), &error))?;
    let dollars = |name| fields.number(name, 0.0, f64::MAX);
    let models = match fields.list("acceptable_models")? {
        None => None,
        Some([]) => {
            let name = fields.name("acceptable_models");
            let message = format!("{name} is empty, so that no model could answer");
            return Err(ApiError::invalid(name, message));
        }
        Some(models) => {
            let text = |(i, model): (usize, &Value)| {
                let name = format!("{}[{i}]", fields.name("acceptable_models"));
                let text = model.as_str().map(str::to_owned);
                text.ok_or_else(|| wrong_type(&name, "a string", model))
            };
            let models = models.iter().enumerate().map(text);
            Some(models.collect::<Result<_, _>>()?)
        }
    };
    Ok(Preferences {
        strategy,
        prefer_local: fields.bool("prefer_local")?,
        prefer_faster: fields.bool("prefer_faster")?,
        fallback_to_cloud: fields.bool("fallback_to_cloud")?,
        max_cost: dollars("max_cost")?,
        max_cost_per_token: dollars("max_cost_per_token")?,
        max_cost_per_1k_tokens: dollars("max_cost_per_1k_tokens")?,
        quality_threshold: fields.number("quality_threshold", 0.0, 1.0)?,
        acceptable_models: models,
    })
}

/// Refuses keys that mean nothing: a wish that is not understood would be a wish that is not heeded.
fn only(fields: &Fields<'_>, known: &[&str]) -> Result<(), ApiError> {
    match fields.keys().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => {
            let name = fields.name(key);
            let message = format!("{name} means nothing here: there are {}", known.join(", "));
            Err(ApiError::invalid(name, message))
        }
    }
}

fn invalid(name: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::invalid(name, format!("{name}: {error}"))
}
