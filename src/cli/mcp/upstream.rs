//! `/mcp` of a running Ingle, as a client of the protocol asks it.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::events::Messages;
use super::lines::Message;
use crate::cli::running::Running;

const INTERNAL_ERROR: i64 = -32603;
const PATH: &str = "/mcp";
const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// Where a message of the revisions without sessions names its revision.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Ending a session is a courtesy.
const END_MOST: Duration = Duration::from_millis(500);

/// Why a message got no answer.
pub(super) enum Unsent {
    /// Nobody listens there any more, or the session is not known.
    Gone,
    /// It was refused.
    Refused(Refusal),
}

/// Why a request comes to nothing.
pub(super) struct Refusal {
    code: i64,
    /// One sentence.
    text: String,
}

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            code: INTERNAL_ERROR,
            text: text.into(),
        }
    }

    /// It, as the answer to the request with this id.
    pub(super) fn answer(&self, id: &Value) -> Message {
        error(Some(id), self.code, &self.text)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A running Ingle, and the session with it.
pub(super) struct Upstream {
    running: Running,
    session: Option<String>,
    version: Option<String>,
}

impl Upstream {
    pub(super) fn new(running: Running) -> Self {
        Self {
            running,
            session: None,
            version: None,
        }
    }

    /// Remembers what the answer to `initialize` agrees on.
    pub(super) fn agree(&mut self, session: Option<String>, answer: &Value) {
        self.session = session;
        let version = answer["result"]["protocolVersion"].as_str();
        self.version = version.map(ToOwned::to_owned);
    }

    /// A message, ready to be sent.
    pub(super) fn post(&self, message: &Message) -> Post {
        let mut request = self
            .running
            .request(Method::POST, PATH)
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::CONTENT_TYPE, "application/json")
            .body(message.text().to_owned());
        let message = &message.value;
        if let Some(version) = own_version(message) {
            request = request.header(VERSION, version);
            for (name, value) in named(message) {
                request = request.header(name, value);
            }
        } else if message["method"] != "initialize" {
            if let Some(session) = &self.session {
                request = request.header(SESSION, session);
            }
            if let Some(version) = &self.version {
                request = request.header(VERSION, version);
            }
        }
        Post { request }
    }

    /// Ends the session.
    pub(super) async fn end(&self) {
        if let Some(session) = &self.session {
            let request = self.running.request(Method::DELETE, PATH);
            let request = request.header(SESSION, session).send();
            // It ends by itself as well, later.
            let _ = tokio::time::timeout(END_MOST, request).await;
        }
    }
}

/// A message on its way.
pub(super) struct Post {
    request: reqwest::RequestBuilder,
}

impl Post {
    /// Sends it and waits until its answer begins.
    ///
    /// Errors: [`Unsent`].
    pub(super) async fn send(self) -> Result<Response, Unsent> {
        let answer = self.request.send().await.map_err(|error| {
            if error.is_builder() {
                Unsent::Refused(Refusal::new("the message cannot be sent"))
            } else {
                Unsent::Gone
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_message = body["jsonrpc"] == "2.0";
        if status == StatusCode::NOT_FOUND && is_message && body.get("id").is_none() {
            return Err(Unsent::Gone);
        }
        let said = body["error"]["message"].as_str();
        let text = said.map_or_else(|| format!("status {status}"), ToOwned::to_owned);
        let code = body["error"]["code"].as_i64().unwrap_or(INTERNAL_ERROR);
        Err(Unsent::Refused(Refusal { code, text }))
    }
}

/// The session that an answer to `initialize` opens.
pub(super) fn session(answer: &Response) -> Option<String> {
    let session = answer.headers().get(SESSION)?;
    session.to_str().ok().map(ToOwned::to_owned)
}

/// The answer to the request with this id among the messages.
pub(super) async fn answer_to(id: &Value, answer: Response) -> Option<Message> {
    let mut messages = Messages::of(answer);
    loop {
        let message = messages.next().await?;
        if is_answer_to(id, &message.value) {
            return Some(message);
        }
    }
}

pub(super) fn is_answer_to(id: &Value, message: &Value) -> bool {
    message.get("method").is_none() && message.get("id") == Some(id)
}

/// The revision that a message names itself: then it belongs to no session.
pub(super) fn own_version(message: &Value) -> Option<&str> {
    message["params"]["_meta"][META_VERSION].as_str()
}

/// What such a message is about, once more as headers.
fn named(message: &Value) -> Vec<(&'static str, &str)> {
    let mut headers = Vec::new();
    let method = message["method"].as_str();
    headers.extend(method.map(|method| ("mcp-method", method)));
    let params = &message["params"];
    let name = params["name"].as_str().or_else(|| params["uri"].as_str());
    headers.extend(name.map(|name| ("mcp-name", name)));
    headers
}

/// An error as the answer to a request.
pub(super) fn error(id: Option<&Value>, code: i64, text: &str) -> Message {
    let mut message = json!({"jsonrpc": "2.0", "error": {"code": code, "message": text}});
    if let Some(id) = id {
        message["id"] = id.clone();
    }
    message.into()
}
