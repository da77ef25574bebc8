//! A running Ingle, asked over HTTP instead of loading a model twice.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use super::running::{Lines, Running, error_message, path_part};
use crate::backend::{BackendError, BackendErrorKind, ChatStream};
use crate::chat::{ChatDelta, ChatRequest, FinishReason, Usage};
use crate::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};

/// A running Ingle and the model it serves.
pub(super) struct Remote {
    running: Running,
    model: String,
}

impl Remote {
    /// Looks for a running Ingle at `listen` that has the model called `name`. A path is never looked
    /// for: another file may have the same stem.
    pub(super) async fn find(listen: SocketAddr, name: &str) -> Option<Self> {
        let is_file = Path::new(name)
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        let name = path_part(name).filter(|_| !is_file)?;
        let running = Running::find(listen).await?;
        let path = format!("/v1/models/{name}");
        let found = running.json(Method::GET, &path).await.ok()?;
        let model = found["id"].as_str()?.to_owned();
        Some(Self { running, model })
    }

    /// The model's id there.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Asks for an answer.
    pub(super) async fn chat(&self, request: &ChatRequest) -> anyhow::Result<ChatStream> {
        let post = self.running.request(Method::POST, "/v1/chat/completions");
        let answer = self.running.send(post.json(&body(request))).await?;
        let reader = Reader {
            lines: Lines::new(answer),
            reason: None,
            done: false,
        };
        Ok(stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            Some((item, reader))
        })
        .boxed())
    }
}

impl Remote {
    /// Asks for vectors.
    pub(super) async fn embed(&self, request: &EmbedRequest) -> anyhow::Result<Embeddings> {
        let input = |input: &EmbedInput| match input {
            EmbedInput::Text(text) => json!(text),
            EmbedInput::Tokens(ids) => json!(ids),
        };
        let body = json!({
            "model": request.model,
            "input": request.inputs.iter().map(input).collect::<Vec<_>>(),
            "truncate": request.overlong == Overlong::Truncate,
            "dimensions": request.dimensions,
            "encoding_format": "base64",
        });
        let post = self.running.request(Method::POST, "/v1/embeddings");
        let answer = self.running.send(post.json(&body)).await?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let vectors = answer["data"].as_array().map_or(&[][..], Vec::as_slice);
        let vectors = vectors.iter().map(|item| vector(&item["embedding"]));
        let vectors: Vec<Vec<f32>> = vectors
            .collect::<Option<_>>()
            .filter(|vectors: &Vec<_>| vectors.len() == request.inputs.len())
            .context("the running Ingle answers with something else than the vectors asked for")?;
        Ok(Embeddings {
            vectors,
            n_tokens: answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0),
            cost: None,
        })
    }
}

/// A vector from the base64 of its bytes.
fn vector(text: &Value) -> Option<Vec<f32>> {
    let bytes = STANDARD.decode(text.as_str()?).ok()?;
    let (numbers, rest) = bytes.as_chunks();
    let numbers = numbers.iter().copied().map(f32::from_le_bytes);
    rest.is_empty().then(|| numbers.collect())
}

fn body(request: &ChatRequest) -> Value {
    let sampling = &request.sampling;
    let messages: Vec<Value> = request
        .messages
        .iter()
        .map(|message| json!({"role": message.role.as_str(), "content": message.to_text()}))
        .collect();
    json!({
        "model": request.model,
        "messages": messages,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "max_tokens": request.max_new_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
}

/// Turns a stream of chunks into deltas.
struct Reader {
    lines: Lines,
    reason: Option<FinishReason>,
    done: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<ChatDelta, BackendError>> {
        while !self.done {
            let line = match self.lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Some(Err(self.fail("the answer broke off"))),
                Err(error) => {
                    return Some(Err(self.fail(&format!("the answer broke off: {error}"))));
                }
            };
            // Comments and empty lines keep the connection alive.
            let Some(data) = line.strip_prefix(b"data: ") else {
                continue;
            };
            let chunk: Value = serde_json::from_slice(data).unwrap_or_default();
            if let Some(delta) = self.delta(&chunk) {
                return Some(delta);
            }
        }
        None
    }

    fn fail(&mut self, message: &str) -> BackendError {
        self.done = true;
        BackendError::new(BackendErrorKind::Failed, message)
    }

    fn delta(&mut self, chunk: &Value) -> Option<Result<ChatDelta, BackendError>> {
        if let Some(message) = error_message(chunk) {
            return Some(Err(self.fail(&message)));
        }
        let choice = &chunk["choices"][0];
        match choice["finish_reason"].as_str() {
            Some("stop") => self.reason = Some(FinishReason::Stop),
            Some(_) => self.reason = Some(FinishReason::Length),
            None => {}
        }
        if let (Some(reason), true) = (self.reason, chunk["usage"].is_object()) {
            self.done = true;
            let count = |name: &str| {
                let count = chunk["usage"][name].as_u64().unwrap_or(0);
                u32::try_from(count).unwrap_or(u32::MAX)
            };
            let usage = Usage {
                prompt_tokens: count("prompt_tokens"),
                completion_tokens: count("completion_tokens"),
                ..Usage::default()
            };
            return Some(Ok(ChatDelta::Finished { reason, usage }));
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        (!text.is_empty()).then(|| Ok(ChatDelta::Text(text.to_owned())))
    }
}
