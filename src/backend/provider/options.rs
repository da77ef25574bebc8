//! How a provider is reached, and what it is asked for besides the answer.

use serde::Serialize;

pub use crate::config::router::Dialect;
use crate::config::router::ProviderSettings;
use crate::money::MicroUsd;
use crate::secret::Secret;
use crate::telemetry::spans::Parent;

/// A provider as the configuration has it.
#[derive(Clone, Debug)]
pub struct ProviderOptions {
    /// Its name in models' names, permits, logs and errors.
    pub name: String,
    /// Its words.
    pub dialect: Dialect,
    /// Its address, with or without `/v1` at the end; absent: the dialect's own.
    pub base_url: Option<String>,
    /// What it knows us by.
    pub key: Option<Secret>,
    /// The app that OpenRouter shows requests under: its address and title.
    pub app: Option<App>,
    /// Of OpenRouter: what its own providers may do with a prompt.
    pub retention: Retention,
    /// Of OpenRouter: which of its own providers are preferred. A call's preferences only narrow it.
    pub preferences: ProviderPreferences,
    /// Tokens of an answer where a request names no limit and the provider wants one.
    pub max_new_tokens: u32,
}

impl ProviderOptions {
    /// A provider of which nothing else is said.
    pub fn new(name: impl Into<String>, dialect: Dialect) -> Self {
        Self {
            name: name.into(),
            dialect,
            base_url: None,
            key: None,
            app: None,
            retention: Retention::Never,
            preferences: ProviderPreferences::default(),
            max_new_tokens: 4096,
        }
    }

    /// A provider as `settings` have it, whose answers have `max_new_tokens` where a request says nothing.
    pub fn of(settings: &ProviderSettings, max_new_tokens: u32) -> Self {
        Self {
            base_url: Some(settings.base_url.clone()),
            key: settings.api_key.clone(),
            retention: if settings.zdr {
                Retention::Never
            } else {
                Retention::AsTheAccountSays
            },
            max_new_tokens,
            ..Self::new(settings.name.clone(), settings.dialect)
        }
    }
}

/// An app, as OpenRouter shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its address.
    pub url: String,
    /// Its name.
    pub title: String,
}

/// What the providers behind a provider may do with a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Keep nothing and learn nothing from it: those that would are passed over.
    #[default]
    Never,
    /// As the account's own settings say. A request of a stricter class still asks for [`Self::Never`].
    AsTheAccountSays,
}

/// Which of OpenRouter's own providers may answer, and which are tried first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderPreferences {
    /// No dearer than this.
    pub max_price: Option<MaxPrice>,
    /// By what they are ordered.
    pub sort: Option<Sort>,
    /// Whether others answer when the preferred one fails.
    pub allow_fallbacks: Option<bool>,
    /// Whether one must understand every field that is sent.
    pub require_parameters: Option<bool>,
    /// These in this order.
    pub order: Vec<String>,
    /// These alone.
    pub only: Vec<String>,
    /// Not these.
    pub ignore: Vec<String>,
    /// Of `openrouter/auto`: what it may choose from.
    pub auto: Option<AutoRouter>,
}

/// What `openrouter/auto` may choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AutoRouter {
    /// Globs of models; empty: all.
    pub allowed_models: Vec<String>,
    /// How dear they may be, in OpenRouter's word.
    pub cost_tier: Option<&'static str>,
}

/// The highest prices. Units: money per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MaxPrice {
    /// Of a million tokens of the prompt.
    #[serde(serialize_with = "dollars")]
    pub prompt: MicroUsd,
    /// Of a million tokens of the answer.
    #[serde(serialize_with = "dollars")]
    pub completion: MicroUsd,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn dollars<S: serde::Serializer>(amount: &MicroUsd, to: S) -> Result<S::Ok, S::Error> {
    amount.to_usd().serialize(to)
}

/// By what OpenRouter orders its own providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "OpenRouter's own words")]
pub enum Sort {
    Price,
    Throughput,
    Latency,
    Exacto,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Exacto => "exacto",
        }
    }
}

/// What one call adds to a provider's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Of OpenRouter: narrower preferences.
    pub preferences: ProviderPreferences,
    /// Of OpenRouter: models to try where the first cannot answer.
    pub fallback_models: Vec<String>,
    /// How often the request was passed on before it came here: a compatible provider may be an Ingle, perhaps
    /// this one.
    pub n_hops: u32,
    /// The span that its own shall stand under, for a compatible provider too.
    pub parent: Option<Parent>,
}
