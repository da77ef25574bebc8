//! Vectors of texts, as OpenAI and everybody who speaks like it makes them.

use serde_json::{Value, json};

use super::decimal::usd;
use super::fault::{Fault, error_object, of_error};
use super::http::whole_body;
use super::options::Dialect;
use super::{CallOptions, Provider};
use crate::backend::{BackendError, BackendErrorKind};
use crate::egress::ProviderPermit;
use crate::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};

/// Bytes of an answer: some thousand vectors of some thousand numbers in decimals.
const ANSWER_MOST: usize = 256 << 20;

impl Provider {
    /// The vectors of `request`'s inputs, by `model`.
    ///
    /// # Errors
    /// [`BackendError`]: also where there are other vectors than inputs.
    pub async fn embed(
        &self,
        model: &str,
        request: &EmbedRequest,
        permit: ProviderPermit,
        call: &CallOptions,
    ) -> Result<Embeddings, BackendError> {
        if self.options.dialect == Dialect::Anthropic {
            let message = format!(
                "{} makes no vectors: ask another provider for {model}",
                self.name
            );
            let kind = BackendErrorKind::InvalidRequest { param: "model" };
            return Err(BackendError::new(kind, message));
        }
        if request.overlong == Overlong::Truncate && self.options.dialect != Dialect::Compatible {
            let message = format!(
                "{} cuts no input short: leave truncate out, or shorten the inputs",
                self.name
            );
            let kind = BackendErrorKind::Unsupported { param: "truncate" };
            return Err(BackendError::new(kind, message));
        }
        let mut body = json!({
            "model": model,
            "input": input(&request.inputs)?,
            "encoding_format": "float",
        });
        if let Some(n_dimensions) = request.dimensions {
            body["dimensions"] = json!(n_dimensions);
        }
        if request.overlong == Overlong::Truncate {
            // vLLM's and our own word for it.
            body["truncate_prompt_tokens"] = json!(-1);
        }
        if self.options.dialect == Dialect::OpenRouter {
            body["provider"] = self.provider_object(None, permit.privacy(), call)?;
        }
        let who = self.who(model);
        let response = self.post("embeddings", &body, permit, call, &who).await?;
        let read = whole_body(response, ANSWER_MOST).await;
        let read = read.and_then(|body| vectors(self.options.dialect, &body, request.inputs.len()));
        read.map_err(|fault| who.error(&fault))
    }
}

/// All inputs as texts, or all as tokens.
fn input(inputs: &[EmbedInput]) -> Result<Value, BackendError> {
    let texts: Vec<&String> = inputs
        .iter()
        .filter_map(|input| match input {
            EmbedInput::Text(text) => Some(text),
            EmbedInput::Tokens(_) => None,
        })
        .collect();
    if texts.len() == inputs.len() {
        return Ok(json!(texts));
    }
    if texts.is_empty() {
        let tokens = inputs.iter().filter_map(|input| match input {
            EmbedInput::Tokens(tokens) => Some(json!(tokens)),
            EmbedInput::Text(_) => None,
        });
        return Ok(tokens.collect());
    }
    let kind = BackendErrorKind::InvalidRequest { param: "input" };
    let message = "input mixes texts and tokens, which no provider takes: ask for each apart";
    Err(BackendError::new(kind, message))
}

/// The vectors of an answer, in the inputs' order.
fn vectors(dialect: Dialect, body: &[u8], n_inputs: usize) -> Result<Embeddings, Fault> {
    let body: Value =
        serde_json::from_slice(body).map_err(|_| Fault::garbled("the answer is no JSON"))?;
    if body.get("error").is_some_and(|error| !error.is_null()) {
        return Err(of_error(dialect, error_object(&body)));
    }
    let data = body.get("data").and_then(Value::as_array);
    let data = data.ok_or_else(|| Fault::garbled("the answer has no data"))?;
    if data.len() != n_inputs {
        let detail = format!("it sent {} vectors for {n_inputs} inputs", data.len());
        return Err(Fault::garbled(detail));
    }
    let mut vectors = vec![Vec::new(); n_inputs];
    for (place, item) in data.iter().enumerate() {
        let index = item.get("index").and_then(Value::as_u64);
        let index = index.map_or(Some(place), |index| usize::try_from(index).ok());
        let numbers = item.get("embedding").and_then(Value::as_array);
        let vector =
            numbers.and_then(|numbers| numbers.iter().map(number).collect::<Option<Vec<f32>>>());
        let (Some(index), Some(vector)) = (index, vector) else {
            return Err(Fault::garbled(format!("vector {place} is none")));
        };
        match vectors.get_mut(index) {
            Some(free) if free.is_empty() && !vector.is_empty() => *free = vector,
            _ => {
                return Err(Fault::garbled(format!(
                    "vector {place} has no place of its own"
                )));
            }
        }
    }
    let n_dimensions = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|vector| vector.len() != n_dimensions) {
        return Err(Fault::garbled("its vectors are not of one length"));
    }
    let tokens = ["/usage/prompt_tokens", "/usage/total_tokens"];
    let n_tokens = tokens
        .iter()
        .find_map(|place| body.pointer(place)?.as_u64());
    Ok(Embeddings {
        vectors,
        n_tokens: n_tokens.unwrap_or(0),
        cost: body.pointer("/usage/cost").and_then(usd),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "vectors are of single precision: what was more is not there in ours either"
)]
fn number(value: &Value) -> Option<f32> {
    let number = value.as_f64()? as f32;
    number.is_finite().then_some(number)
}
