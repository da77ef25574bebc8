//! A running Ingle, asked over HTTP instead of loading a model twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::backend::{BackendError, BackendErrorKind, ChatStream};
use crate::chat::{ChatDelta, ChatRequest, FinishReason, Usage};
use crate::config;
use crate::http::OWNED_BY;

/// A running Ingle on this machine answers at once.
const FIND_MOST: Duration = Duration::from_millis(500);

/// A running Ingle and the model it serves.
pub(super) struct Remote {
    client: reqwest::Client,
    /// `http://HOST:PORT/v1`.
    base: String,
    key: Option<String>,
    model: String,
}

impl Remote {
    /// Looks for a running Ingle at `listen` that has the model called `name`. A path is never looked
    /// for: another file may have the same stem.
    pub(super) async fn find(listen: SocketAddr, name: &str) -> Option<Self> {
        let is_name =
            |character: char| character.is_ascii_alphanumeric() || "-_.:".contains(character);
        let is_file = Path::new(name)
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        if is_file || !name.chars().all(is_name) || listen.port() == 0 {
            return None;
        }
        // Plain HTTP only, but the client wants one all the same; an error says there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        let mut remote = Self {
            client,
            base: format!("http://{}/v1", reachable(listen)),
            key: config::variable("INGLE_API_KEY"),
            model: String::new(),
        };
        let path = format!("models/{name}");
        let found = tokio::time::timeout(FIND_MOST, remote.get(&path)).await;
        let found = found.ok()?.ok()?;
        if found["owned_by"] != OWNED_BY {
            return None;
        }
        found["id"].as_str()?.clone_into(&mut remote.model);
        Some(remote)
    }

    /// The model's id there.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}/{path}", self.base));
        let answer = self.with_key(request).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Asks for an answer.
    pub(super) async fn chat(&self, request: &ChatRequest) -> anyhow::Result<ChatStream> {
        let url = format!("{}/chat/completions", self.base);
        let post = self.client.post(&url).json(&body(request));
        let answer = self.with_key(post).send().await;
        let answer =
            answer.with_context(|| format!("asking the running Ingle at {}", self.base))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let bytes = answer.bytes().await.unwrap_or_default();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let message = body["error"]["message"].as_str().map(str::to_owned);
            let message = message.unwrap_or_else(|| format!("status {status}"));
            return Err(anyhow!("the running Ingle at {}: {message}", self.base));
        }
        let lines = Lines {
            answer,
            buffer: Vec::new(),
        };
        let reader = Reader {
            lines,
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

/// The address a client on this machine uses for where a server listens.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
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

/// The lines of a response.
struct Lines {
    answer: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> reqwest::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.truncate(end);
                return Ok(Some(line));
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
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
        if let Some(message) = chunk["error"]["message"].as_str() {
            return Some(Err(self.fail(message)));
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
            };
            return Some(Ok(ChatDelta::Finished { reason, usage }));
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        (!text.is_empty()).then(|| Ok(ChatDelta::Text(text.to_owned())))
    }
}
