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
use crate::price::{Long, Price, Rate, Tokens};

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
    /// All of that as a price that is never too low: where it depends on the hour, the dearest.
    pub price: Option<Price>,
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

    /// Whether it tells afterwards what an answer took.
    pub fn keeps_accounts(&self) -> bool {
        self.options.dialect == Dialect::OpenRouter
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
        if !self.keeps_accounts() {
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
    let pricing = model.get("pricing").unwrap_or(&Value::Null);
    let said = Said::read(pricing);
    let request = pricing.get("request").and_then(usd);
    Some(OfferedModel {
        id: model.get("id")?.as_str()?.to_owned(),
        // OpenRouter's, Anthropic's and vLLM's words for it.
        n_ctx: ["/context_length", "/max_input_tokens", "/max_model_len"]
            .into_iter()
            .find_map(count),
        max_new_tokens: count("/top_provider/max_completion_tokens"),
        prompt: said.prompt,
        completion: said.completion,
        cache_read: said.cache_read,
        cache_write: said.cache_write,
        request,
        price: price(pricing, request.unwrap_or_default()),
        expires: model
            .get("expiration_date")
            .and_then(Value::as_str)
            .map(str::to_owned),
    })
}

/// What tokens cost, as far as it is said. Units: micro-dollars per million tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    prompt: Option<MicroUsd>,
    completion: Option<MicroUsd>,
    cache_read: Option<MicroUsd>,
    cache_write: Option<MicroUsd>,
    cache_write_long: Option<MicroUsd>,
}

impl Said {
    fn read(pricing: &Value) -> Self {
        let per_token = |name: &str| usd_per_token(pricing.get(name)?);
        Self {
            prompt: per_token("prompt"),
            // Thoughts are part of an answer.
            completion: per_token("completion").max(per_token("internal_reasoning")),
            cache_read: per_token("input_cache_read"),
            cache_write: per_token("input_cache_write"),
            cache_write_long: per_token("input_cache_write_1h"),
        }
    }

    /// The dearer of both.
    fn or_dearer(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.max(other.prompt),
            completion: self.completion.max(other.completion),
            cache_read: self.cache_read.max(other.cache_read),
            cache_write: self.cache_write.max(other.cache_write),
            cache_write_long: self.cache_write_long.max(other.cache_write_long),
        }
    }

    /// None where prompt or answer have no price, which is not the same as none to pay.
    fn tokens(self) -> Option<Tokens> {
        let (prompt, completion) = (self.prompt?, self.completion?);
        let cache_write = self.cache_write.unwrap_or(prompt);
        Some(Tokens {
            prompt: Rate(prompt.0),
            completion: Rate(completion.0),
            cached_read: Rate(self.cache_read.unwrap_or(prompt).0),
            cache_write: Rate(cache_write.0),
            cache_write_long: Rate(self.cache_write_long.unwrap_or(cache_write).0),
        })
    }
}

/// A model's price with what holds for long prompts and at certain hours.
fn price(pricing: &Value, per_request: MicroUsd) -> Option<Price> {
    let mut always = Said::read(pricing);
    // What is not there has no price; what holds at times only cannot give it one.
    always.tokens()?;
    let mut long: Option<(u32, Said)> = None;
    let overrides = pricing.get("overrides").and_then(Value::as_array);
    for one in overrides.into_iter().flatten() {
        let said = Said::read(one);
        match one.get("min_prompt_tokens").and_then(Value::as_u64) {
            None => always = always.or_dearer(said),
            Some(least) => {
                let from = u32::try_from(least.saturating_sub(1)).unwrap_or(u32::MAX);
                let (first, dearest) = long.unwrap_or((from, said));
                long = Some((first.min(from), dearest.or_dearer(said)));
            }
        }
    }
    let long = long.and_then(|(from, said)| {
        let tokens = always.or_dearer(said).tokens()?;
        Some(Long { from, tokens })
    });
    Some(Price {
        tokens: always.tokens()?,
        long,
        per_request,
        ..Price::FREE
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn price_of(pricing: &Value) -> Option<Price> {
        offered(&json!({"id": "m", "pricing": pricing}))
            .unwrap()
            .price
    }

    #[test]
    fn a_price_is_never_lower_than_what_may_be_billed() {
        let price = price_of(&json!({
            "prompt": "0.000002", "completion": "0.000008", "internal_reasoning": "0.00001",
            "input_cache_write": "0.0000025", "input_cache_write_1h": "0.000004", "request": "0.001",
            "overrides": [
                {"min_prompt_tokens": 200_000, "prompt": "0.000004", "completion": "0.000012"},
                {"min_prompt_tokens": 100_000, "prompt": "0.000003"},
                {"utc_start": "0800", "utc_end": "1600", "prompt": "0.0000022"},
            ],
        }))
        .unwrap();
        // Into the cache for an hour, and thoughts; a request costs 1000 besides.
        assert_eq!(price.worst(1000, 100), MicroUsd(1000 + 4000 + 1000));
        assert_eq!(price.tokens.prompt, Rate(2_200_000));
        let long = price.long.unwrap();
        assert_eq!((long.from, long.tokens.prompt), (99_999, Rate(4_000_000)));
        assert_eq!(long.tokens.completion, Rate(12_000_000));
        assert_eq!(long.tokens.cache_write_long, Rate(4_000_000));
    }

    #[test]
    fn what_has_no_price_is_not_free() {
        for pricing in [
            json!(null),
            json!({"prompt": "-1", "completion": "-1"}),
            json!({"prompt": "0.1"}),
            json!({"prompt": "x", "completion": "0"}),
            json!({"completion": "0", "overrides": [{"utc_start": "0000", "prompt": "0"}]}),
        ] {
            assert_eq!(price_of(&pricing), None, "{pricing}");
        }
        let free = price_of(&json!({"prompt": "0", "completion": "0"})).unwrap();
        assert!(free.is_free());
    }
}
