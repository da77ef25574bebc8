//! Models of others, over the network: OpenAI, OpenRouter, Anthropic and whoever speaks like OpenAI.
//!
//! A stream yields what a reader sees, then one end or one error. What keeps a connection alive never surfaces, so
//! whoever waits for a delta waits for content.

mod anthropic;
mod decimal;
mod embeddings;
mod facts;
mod fault;
mod gunzip;
mod http;
mod incoming;
mod openai;
mod openrouter;
mod options;
mod prices;
mod reader;
mod sse;
mod who;

use std::fmt;
use std::sync::Arc;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

pub use crate::secret::Secret;
pub use facts::AnswerFacts;
pub use http::ProviderHttp;
pub use options::{
    App, AutoRouter, CallOptions, Dialect, MaxPrice, ProviderOptions, ProviderPreferences,
    Retention, Sort,
};
pub use prices::{OfferedModel, Settled};

use super::{BackendError, BackendErrorKind, ChatStream};
use crate::catalog::host;
use crate::chat::ChatRequest;
use crate::egress::{Privacy, ProviderPermit};
use crate::telemetry::spans::Parent;
use fault::of_answer;
use http::{NotSent, Outgoing, error_body};
use incoming::Incoming;
use reader::Reader;
use who::Who;

/// How often a request was passed on: who answers it himself refuses one that goes round in circles.
pub const HOPS: HeaderName = HeaderName::from_static("x-ingle-hops");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const REFERER: HeaderName = HeaderName::from_static("http-referer");
const TITLE: HeaderName = HeaderName::from_static("x-openrouter-title");
const GENERATION: HeaderName = HeaderName::from_static("x-generation-id");

/// Why there is no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It has no address.
    #[error("the provider {provider} has no base URL: name one, such as http://host:8000/v1")]
    NoBaseUrl {
        /// Which.
        provider: String,
    },
    /// Its address cannot be one.
    #[error("the base URL of the provider {provider} {reason}")]
    BaseUrl {
        /// Which.
        provider: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting cannot be sent.
    #[error("the {setting} of the provider {provider} holds characters that no header can")]
    Header {
        /// Which.
        provider: String,
        /// The setting.
        setting: &'static str,
    },
}

/// An answer under way.
pub struct Answer {
    /// What is said.
    pub stream: ChatStream,
    /// What is known of it, also once the stream is dropped.
    pub about: Arc<AnswerFacts>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// A provider.
#[derive(Debug)]
pub struct Provider {
    options: ProviderOptions,
    name: Arc<str>,
    base: Url,
    headers: HeaderMap,
    http: ProviderHttp,
}

impl Provider {
    /// A provider that is reached through `http`.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub fn new(options: ProviderOptions, http: &ProviderHttp) -> Result<Self, ProviderError> {
        Ok(Self {
            base: base_url(&options)?,
            headers: headers(&options)?,
            name: options.name.as_str().into(),
            options,
            http: http.clone(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its words.
    pub fn dialect(&self) -> Dialect {
        self.options.dialect
    }

    /// Its host, and the port where that is not the usual one.
    pub fn host(&self) -> String {
        host(&self.base)
    }

    /// Asks `model` for an answer. Dropping the stream cancels it.
    ///
    /// # Errors
    /// [`BackendError`]: [`BackendErrorKind::Provider`] and [`BackendErrorKind::InvalidRequest`].
    pub async fn chat(
        &self,
        model: &str,
        request: &ChatRequest,
        permit: ProviderPermit,
    ) -> Result<Answer, BackendError> {
        self.chat_with(model, request, permit, &CallOptions::default())
            .await
    }

    /// The same with options of this call.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub async fn chat_with(
        &self,
        model: &str,
        request: &ChatRequest,
        permit: ProviderPermit,
        call: &CallOptions,
    ) -> Result<Answer, BackendError> {
        let (path, body) = if self.options.dialect == Dialect::Anthropic {
            ("messages", anthropic::body(&self.options, model, request))
        } else {
            let body = openai::body(&self.options, model, request, permit.privacy(), call);
            ("chat/completions", body)
        };
        let body = body.map_err(|(param, message)| {
            BackendError::new(BackendErrorKind::InvalidRequest { param }, message)
        })?;
        let who = self.who(model);
        let response = self.post(path, &body, permit, call, &who).await?;
        let facts = Arc::new(AnswerFacts::of(request));
        let generation = response.headers().get(GENERATION);
        if let Some(generation) = generation.and_then(|id| id.to_str().ok()) {
            facts.learn_generation(generation);
        }
        let reader = match self.options.dialect {
            Dialect::Anthropic => Reader::Anthropic(anthropic::Deltas::new(facts.clone())),
            dialect => Reader::OpenAi(openai::Deltas::new(dialect, facts.clone())),
        };
        let incoming = Incoming::new(response, reader, facts.clone(), who)?;
        Ok(Answer {
            stream: incoming.into_stream(),
            about: facts,
        })
    }

    /// What of `request` is not said to this provider, because it has no words for it.
    pub fn dropped(&self, request: &ChatRequest) -> Vec<&'static str> {
        match self.options.dialect {
            Dialect::Anthropic => anthropic::dropped(request),
            dialect => openai::dropped(dialect, request),
        }
    }

    /// What is said to OpenRouter of the providers behind it.
    fn provider_object(
        &self,
        asked: Option<&Value>,
        privacy: Privacy,
        call: &CallOptions,
    ) -> Result<Value, BackendError> {
        let preferences = [&call.preferences, &self.options.preferences];
        let object =
            openrouter::provider_object(asked, preferences, self.options.retention, privacy);
        object.map_err(|message| {
            let kind = BackendErrorKind::InvalidRequest { param: "provider" };
            BackendError::new(kind, message)
        })
    }

    /// Posts JSON and waits for an answer of status 200.
    async fn post(
        &self,
        path: &str,
        body: &Value,
        permit: ProviderPermit,
        call: &CallOptions,
        who: &Who,
    ) -> Result<Response, BackendError> {
        let mut headers = self.headers.clone();
        if self.options.dialect == Dialect::Compatible {
            headers.insert(HOPS, call.n_hops.saturating_add(1).into());
            let parent = call.parent.iter().flat_map(Parent::headers);
            headers.extend(parent.filter_map(|(name, value)| {
                Some((
                    name.parse::<HeaderName>().ok()?,
                    value.parse::<HeaderValue>().ok()?,
                ))
            }));
        }
        let outgoing = Outgoing {
            method: Method::POST,
            url: self.url(path),
            headers,
            body: serde_json::to_vec(body).unwrap_or_default(),
        };
        self.send(outgoing, permit, who).await
    }

    async fn send(
        &self,
        outgoing: Outgoing,
        permit: ProviderPermit,
        who: &Who,
    ) -> Result<Response, BackendError> {
        if permit.provider() != &*self.name {
            let message = format!(
                "a permit for {} is none for {}",
                permit.provider(),
                self.name
            );
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
        let sent = self.http.send(outgoing, permit).await;
        let response = sent.map_err(|error| match error {
            NotSent::Fault(fault) => who.error(&fault),
            NotSent::Log(error) => {
                let message = format!("nothing was sent to {}: {error}", self.name);
                BackendError::new(BackendErrorKind::Failed, message)
            }
        })?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = error_body(response).await;
        Err(who.error(&of_answer(self.options.dialect, status, &headers, &body)))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        // Fails only for addresses without a host, which `base_url` refuses.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    fn who(&self, model: &str) -> Who {
        Who {
            provider: self.name.clone(),
            model: model.to_owned(),
            key: self.options.key.clone(),
        }
    }
}

/// A provider's address, with `/v1` at its end where it has no path.
fn base_url(options: &ProviderOptions) -> Result<Url, ProviderError> {
    let provider = || options.name.clone();
    let given = options.base_url.as_deref().or(options.dialect.base_url());
    let given = given.ok_or_else(|| ProviderError::NoBaseUrl {
        provider: provider(),
    })?;
    let wrong = |reason: String| ProviderError::BaseUrl {
        provider: provider(),
        reason,
    };
    let mut url =
        Url::parse(given.trim()).map_err(|error| wrong(format!("is {given:?}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong(format!(
            "is {given:?}: it begins with http:// or https://"
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "holds a name or a password: the key has a setting of its own".to_owned(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(format!("is {given:?}: it ends before any ? or #")));
    }
    // Anthropic's own clients put it behind whatever address they are given.
    let path = url.path().trim_end_matches('/').to_owned();
    let wants_version = options.dialect == Dialect::Anthropic && !path.ends_with("/v1");
    if path.is_empty() || wants_version {
        url.set_path(&format!("{path}/v1"));
    }
    Ok(url)
}

/// What stands above everything that is sent.
fn headers(options: &ProviderOptions) -> Result<HeaderMap, ProviderError> {
    let header = |setting: &'static str, text: &str| {
        HeaderValue::from_str(text).map_err(|_| ProviderError::Header {
            provider: options.name.clone(),
            setting,
        })
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("text/event-stream, application/json"),
    );
    if let Some(key) = &options.key {
        let key = key.reveal().trim();
        let (name, text) = match options.dialect {
            Dialect::Anthropic => (API_KEY, key.to_owned()),
            _ => (AUTHORIZATION, format!("Bearer {key}")),
        };
        let mut value = header("key", &text)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    match options.dialect {
        Dialect::Anthropic => {
            headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
        }
        Dialect::OpenRouter => {
            if let Some(app) = &options.app {
                headers.insert(REFERER, header("app's address", &app.url)?);
                headers.insert(TITLE, header("app's title", &app.title)?);
            }
        }
        Dialect::OpenAi | Dialect::Compatible => {}
    }
    Ok(headers)
}
