//! One chat, and what it took.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::LoadArgs;

/// What an answer took.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// From the request to its end.
    pub(super) whole: Duration,
    /// To the first word of a stream.
    pub(super) first: Option<Duration>,
    /// From a word of a stream to the next.
    pub(super) gaps: Vec<Duration>,
}

/// How one server is asked.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    body: Vec<u8>,
    is_stream: bool,
}

/// The value for a server: its own, or the one for all.
fn of(values: &[String], i: usize) -> Option<&String> {
    values.get(i).or_else(|| values.first())
}

impl Client {
    pub(super) fn new(args: &LoadArgs, i: usize) -> anyhow::Result<Self> {
        let url = args.urls.get(i).map_or("", String::as_str);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(key) = of(&args.key, i) {
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {key}"))?,
            );
        }
        // Whoever comes first makes the choice for the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(usize::MAX)
            .build()
            .with_context(|| format!("{url} cannot be asked"))?;
        let mut body = json!({
            "model": of(&args.model, i),
            "messages": [{"role": "user", "content": "x".repeat(args.prompt_bytes)}],
            "max_tokens": args.max_tokens,
            "stream": args.stream,
        });
        if args.stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        Ok(Self {
            http,
            url: format!("{}/chat/completions", url.trim_end_matches('/')),
            body: serde_json::to_vec(&body)?,
            is_stream: args.stream,
        })
    }

    /// Asks once.
    ///
    /// Errors: one sentence.
    pub(super) async fn ask(&self) -> Result<Taken, String> {
        let began = Instant::now();
        let sent = self.http.post(&self.url).body(self.body.clone()).send();
        let response = sent.await.map_err(|error| error.to_string())?;
        let status = response.status();
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            let begin: String = body.chars().take(200).collect();
            return Err(format!("{status}: {begin}"));
        }
        if self.is_stream {
            return streamed(response, began).await;
        }
        let body: Value = response.json().await.map_err(|error| error.to_string())?;
        if body["choices"][0]["message"]["content"].is_null() {
            return Err("an answer without content".to_owned());
        }
        Ok(Taken {
            whole: began.elapsed(),
            ..Taken::default()
        })
    }
}

async fn streamed(response: reqwest::Response, began: Instant) -> Result<Taken, String> {
    let mut taken = Taken::default();
    let (mut last, mut is_done) = (began, false);
    let mut body = response.bytes_stream();
    // A word's event may be cut in two, so what is looked for is its first half's end.
    let mut line = Vec::new();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| error.to_string())?;
        let now = Instant::now();
        for byte in bytes {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if line.starts_with(b"data: [DONE]") {
                is_done = true;
            } else if contains(&line, br#""content":""#) && !contains(&line, br#""content":"""#) {
                let gap = now.duration_since(last);
                match taken.first {
                    None => taken.first = Some(gap),
                    Some(_) => taken.gaps.push(gap),
                }
                last = now;
            } else if contains(&line, br#""error""#) {
                return Err(String::from_utf8_lossy(&line).into_owned());
            }
            line.clear();
        }
    }
    if !is_done || taken.first.is_none() {
        return Err("a stream without words or without an end".to_owned());
    }
    taken.whole = began.elapsed();
    Ok(taken)
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
