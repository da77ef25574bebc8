//! What a provider says things cost: its models' prices, and afterwards what one answer really took.

use reqwest::Method;
use serde_json::Value;

use super::Provider;
use super::decimal::{usd, usd_per_token};
use super::fault::Fault;
use super::http::{Outgoing, whole_body};
use super::options::Dialect;
use super::who::Who;
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};
use crate::chat::Usage;
use crate::egress::ProviderPermit;
use crate::money::MicroUsd;

/// Bytes of a list of models: OpenRouter's has some 300 models and 1 MB.
const MODELS_MOST: usize = 64 << 20;
/// Bytes of one answer's account.
const ACCOUNT_MOST: usize = 1 << 20;

/// A model a provider has, and its prices. Units: micro-dollars per million tokens, rounded up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedModel {
    /// Its name there.
    pub id: String,
    /// Tokens of prompt and answer together, if it says so.
    pub n_ctx: Option<u32>,
    /// Tokens of an answer, if it says so.
    pub max_new_tokens: Option<u32>,
    /// Of the prompt; absent: it has no price, which is not the same as none to pay.
    pub prompt: Option<MicroUsd>,
    /// Of the answer.
    pub completion: Option<MicroUsd>,
    /// Of what of the prompt was in its cache.
    pub cache_read: Option<MicroUsd>,
    /// Of what of the prompt it put there.
    pub cache_write: Option<MicroUsd>,
    /// For each request. Units: micro-dollars.
    pub request: Option<MicroUsd>,
    /// When it ends, as the provider writes it.
    pub expires: Option<String>,
}

/// What an answer took, by the provider's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What it was charged.
    pub cost: MicroUsd,
    /// What it took, with that cost.
    pub usage: Usage,
}

impl Provider {
    /// The models a provider has, with prices where it tells them.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn prices(&self, permit: ProviderPermit) -> Result<Vec<OfferedModel>, BackendError> {
        let who = self.who("its list of models");
        let body = self.get("models", None, permit, MODELS_MOST, &who).await?;
        let models = body.get("data").and_then(Value::as_array);
        let models = models.ok_or_else(|| who.error(&Fault::garbled("the list has no data")))?;
        Ok(models.iter().filter_map(offered).collect())
    }

    /// What the answer `id` took; absent: the provider does not know it (yet), or keeps no such accounts.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn generation(
        &self,
        id: &str,
        permit: ProviderPermit,
    ) -> Result<Option<Settled>, BackendError> {
        if self.options.dialect != Dialect::OpenRouter {
            return Ok(None);
        }
        let who = self.who("an account");
        let body = self.get("generation", Some(("id", id)), permit, ACCOUNT_MOST, &who);
        match body.await {
            Ok(body) => Ok(body.get("data").and_then(settled)),
            Err(BackendError {
                kind: BackendErrorKind::Provider(ProviderFault::NoSuchModel),
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(
        &self,
        path: &str,
        query: Option<(&str, &str)>,
        permit: ProviderPermit,
        most: usize,
        who: &Who,
    ) -> Result<Value, BackendError> {
        let mut url = self.url(path);
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let outgoing = Outgoing {
            method: Method::GET,
            url,
            headers: self.headers.clone(),
            body: Vec::new(),
        };
        let response = self.send(outgoing, permit, who).await?;
        let body = whole_body(response, most).await;
        let body = body.and_then(|body| {
            serde_json::from_slice(&body).map_err(|_| Fault::garbled("the answer is no JSON"))
        });
        body.map_err(|fault| who.error(&fault))
    }
}

fn offered(model: &Value) -> Option<OfferedModel> {
    let count = |place: &str| u32::try_from(model.pointer(place)?.as_u64()?).ok();
    let per_token = |name: &str| usd_per_token(model.get("pricing")?.get(name)?);
    Some(OfferedModel {
        id: model.get("id")?.as_str()?.to_owned(),
        // OpenRouter's, Anthropic's and vLLM's words for it.
        n_ctx: ["/context_length", "/max_input_tokens", "/max_model_len"]
            .into_iter()
            .find_map(count),
        max_new_tokens: count("/top_provider/max_completion_tokens"),
        prompt: per_token("prompt"),
        completion: per_token("completion"),
        cache_read: per_token("input_cache_read"),
        cache_write: per_token("input_cache_write"),
        request: model.pointer("/pricing/request").and_then(usd),
        expires: model
            .get("expiration_date")
            .and_then(Value::as_str)
            .map(str::to_owned),
    })
}

fn settled(account: &Value) -> Option<Settled> {
    let cost = usd(account.get("total_cost")?)?;
    let count = |name: &str| {
        let count = account.get(name).and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let usage = Usage {
        prompt_tokens: count("native_tokens_prompt"),
        completion_tokens: count("native_tokens_completion"),
        cached_tokens: count("native_tokens_cached"),
        reasoning_tokens: count("native_tokens_reasoning"),
        cost: Some(cost),
        ..Usage::default()
    };
    Some(Settled { cost, usage })
}
