//! Messages to and fro: each line a request to the running Ingle, each message of its answer a line.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};

use super::events::Messages;
use super::lines::{Line, Message, Output};
use super::upstream::{self, Refusal, Unsent, Upstream, error};
use crate::cli::running::Running;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
/// Requests that are answered at once.
const REQUESTS_MOST: usize = 256;

/// One client on stdio.
pub(super) struct Bridge {
    upstream: Upstream,
    output: Output,
    /// What opened the session, to open another one.
    opening: Option<Message>,
    requests: JoinSet<()>,
    /// Requests that belong to no session, by id: to cancel one is to leave it.
    alone: HashMap<String, AbortHandle>,
    is_lost: Arc<AtomicBool>,
}

impl Bridge {
    pub(super) fn new(running: Running, output: Output) -> Self {
        Self {
            upstream: Upstream::new(running),
            output,
            opening: None,
            requests: JoinSet::new(),
            alone: HashMap::new(),
            is_lost: Arc::default(),
        }
    }

    /// Whether the running Ingle did not answer the last time.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Whether nobody reads the answers any more.
    pub(super) fn is_unread(&self) -> bool {
        self.output.is_closed()
    }

    /// Takes a line. Gives the message back where whoever should answer has gone.
    pub(super) async fn take(&mut self, line: Line) -> Option<Message> {
        let message = match read(line) {
            Ok(message) => message,
            Err(refusal) => {
                self.output.write(&refusal).await;
                return None;
            }
        };
        match self.pass(&message).await {
            Ok(()) => None,
            Err(Unsent::Gone) => Some(message),
            Err(Unsent::Refused(refusal)) => {
                self.refuse(&message, &refusal).await;
                None
            }
        }
    }

    /// Takes a message once more; if that fails too, it is answered with the reason.
    pub(super) async fn retake(&mut self, message: Message) {
        match self.pass(&message).await {
            Ok(()) => {}
            Err(Unsent::Gone) => self.refuse(&message, &Refusal::new(GONE)).await,
            Err(Unsent::Refused(refusal)) => self.refuse(&message, &refusal).await,
        }
    }

    /// Goes on with another Ingle, in a session like the last one.
    pub(super) async fn reconnect(&mut self, running: Running) {
        self.upstream = Upstream::new(running);
        self.is_lost.store(false, Ordering::Release);
        let Some(opening) = self.opening.clone() else {
            return;
        };
        // What fails here fails again with the next message, and is told then.
        if self.open(&opening).await.is_ok() {
            let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
            let _ = self.upstream.post(&told.into()).send().await;
        }
    }

    /// Waits for the answers under way, up to `most`, and ends the session.
    pub(super) async fn finish(mut self, most: Duration) {
        let all = async { while self.requests.join_next().await.is_some() {} };
        // Later ones are of no use to a client that has gone.
        let _ = tokio::time::timeout(most, all).await;
        self.requests.abort_all();
        self.upstream.end().await;
    }

    async fn pass(&mut self, message: &Message) -> Result<(), Unsent> {
        while self.requests.try_join_next().is_some() {}
        self.alone.retain(|_, request| !request.is_finished());
        let Some(id) = request_id(message).cloned() else {
            return self.notify(message).await;
        };
        if self.requests.len() >= REQUESTS_MOST {
            let text = format!("{REQUESTS_MOST} requests are being answered already");
            return Err(Unsent::Refused(Refusal::new(text)));
        }
        if message.value["method"] == "initialize" {
            let answer = self.open(message).await?;
            self.opening = Some(message.clone());
            self.output.write(&answer).await;
            return Ok(());
        }
        let post = self.upstream.post(message);
        let output = self.output.clone();
        if upstream::own_version(&message.value).is_none() {
            // In a session order counts: it has to be there before what comes next.
            let answer = post.send().await?;
            self.requests.spawn(pass_back(id, answer, output));
            return Ok(());
        }
        let (key, is_lost) = (id.to_string(), Arc::clone(&self.is_lost));
        let request = self.requests.spawn(async move {
            let refusal = match post.send().await {
                Ok(answer) => return pass_back(id, answer, output).await,
                Err(Unsent::Refused(refusal)) => refusal,
                Err(Unsent::Gone) => {
                    is_lost.store(true, Ordering::Release);
                    Refusal::new(GONE)
                }
            };
            output.write(&refusal.answer(&id)).await;
        });
        self.alone.insert(key, request);
        Ok(())
    }

    /// Opens a session. The answer is the server's.
    async fn open(&mut self, message: &Message) -> Result<Message, Unsent> {
        let answer = self.upstream.post(message).send().await?;
        let session = upstream::session(&answer);
        let answer = upstream::answer_to(&message.value["id"], answer).await;
        let answer = answer.ok_or(Unsent::Gone)?;
        self.upstream.agree(session, &answer.value);
        Ok(answer)
    }

    async fn notify(&mut self, message: &Message) -> Result<(), Unsent> {
        if message.value["method"] == "notifications/cancelled" {
            let id = message.value["params"]["requestId"].to_string();
            if let Some(request) = self.alone.remove(&id) {
                request.abort();
                return Ok(());
            }
        }
        self.upstream.post(message).send().await.map(|_| ())
    }

    /// Says why a message was not passed on. A notification has no answer.
    async fn refuse(&self, message: &Message, refusal: &Refusal) {
        if let Some(id) = request_id(message) {
            self.output.write(&refusal.answer(id)).await;
        } else {
            tracing::warn!(reason = %refusal, "a notification was not passed on");
        }
    }
}

const GONE: &str = "the running Ingle ended before it answered: ask again";

/// The messages of an answer, as they come.
async fn pass_back(id: Value, answer: Response, output: Output) {
    let mut messages = Messages::of(answer);
    while let Some(message) = messages.next().await {
        output.write(&message).await;
        if upstream::is_answer_to(&id, &message.value) {
            return;
        }
    }
    output.write(&Refusal::new(GONE).answer(&id)).await;
}

/// The id of a request; of a notification or an answer there is none.
fn request_id(message: &Message) -> Option<&Value> {
    let message = &message.value;
    message
        .get("id")
        .filter(|_| message.get("method").is_some())
}

/// The message of a line.
///
/// Errors: what is answered to a line that holds none.
fn read(line: Line) -> Result<Message, Message> {
    let Line::Whole(line) = line else {
        let text = "the line is longer than a message may be";
        return Err(error(None, INVALID_REQUEST, text));
    };
    let message = Message::read(&line).map_err(|problem| {
        let text = format!("the line is not valid JSON: {problem}");
        error(None, PARSE_ERROR, &text)
    })?;
    if message.value.is_object() {
        return Ok(message);
    }
    let text = "a line must hold one JSON-RPC message, an object";
    Err(error(None, INVALID_REQUEST, text))
}
