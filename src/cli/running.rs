//! A running Ingle on this machine, asked over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::Value;

use crate::config;
use crate::http::SERVER;

/// A running Ingle on this machine answers at once.
const FIND_MOST: Duration = Duration::from_millis(500);

/// A running Ingle.
pub(super) struct Running {
    client: reqwest::Client,
    /// `http://HOST:PORT`.
    base: String,
    key: Option<String>,
}

impl Running {
    /// Looks for a running Ingle at `listen`. Somebody else there is none.
    pub(super) async fn find(listen: SocketAddr) -> Option<Self> {
        if listen.port() == 0 {
            return None;
        }
        let running = Self::at(listen, config::variable("INGLE_API_KEY")).ok()?;
        let asked = running.request(Method::GET, "/health/live").send();
        let answer = tokio::time::timeout(FIND_MOST, asked).await.ok()?.ok()?;
        let server = answer.headers().get(header::SERVER)?;
        // One of another version speaks the same verbs.
        let (name, _) = SERVER.split_once('/')?;
        server
            .to_str()
            .ok()?
            .strip_prefix(name)?
            .starts_with('/')
            .then_some(running)
    }

    /// The Ingle that is known to run at `listen`.
    ///
    /// Errors: HTTP cannot be spoken at all.
    pub(super) fn at(listen: SocketAddr, key: Option<String>) -> anyhow::Result<Self> {
        // Plain HTTP only, but the client wants one all the same; an error says there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            client,
            base: format!("http://{}", reachable(listen)),
            key,
        })
    }

    /// As [`find`](Self::find), for what cannot do without.
    ///
    /// Errors: there is none.
    pub(super) async fn expect(listen: SocketAddr) -> anyhow::Result<Self> {
        let found = Self::find(listen).await;
        found
            .ok_or_else(|| anyhow!("no Ingle is running at {listen}: start one with `ingle serve`"))
    }

    /// A request, with the key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request.
    ///
    /// Errors: it cannot be reached; it answers with an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await;
        let answer =
            answer.with_context(|| format!("asking the running Ingle at {}", self.base))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = error_message(&body).unwrap_or_else(|| format!("status {status}"));
        Err(anyhow!("the running Ingle at {}: {message}", self.base))
    }

    /// Sends a request without a body and reads the answer, which is JSON.
    ///
    /// Errors: as for [`send`](Self::send).
    pub(super) async fn json(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let answer = self.send(self.request(method, path)).await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

/// What an error object says.
pub(super) fn error_message(body: &Value) -> Option<String> {
    body["error"]["message"].as_str().map(str::to_owned)
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

/// A name as a part of a path, where it can be one: a slash is escaped.
pub(super) fn path_part(name: &str) -> Option<String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.:+@/".contains(character);
    // Neither nothing nor dots alone.
    let is_name = |part: &str| part.chars().any(|character| character != '.');
    let is_path_part = name.chars().all(fits) && name.split('/').all(is_name);
    is_path_part.then(|| name.replace('/', "%2F"))
}

/// The lines of a response.
pub(super) struct Lines {
    answer: Response,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn new(answer: Response) -> Self {
        Self {
            answer,
            buffer: Vec::new(),
        }
    }

    /// The next one; `None` at the end.
    pub(super) async fn next(&mut self) -> reqwest::Result<Option<Vec<u8>>> {
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
