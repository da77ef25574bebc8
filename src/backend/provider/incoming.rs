//! An answer as it comes in: bytes to events, events to deltas, and one end or one error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, stream};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::facts::AnswerFacts;
use super::fault::Fault;
use super::gunzip::Gunzip;
use super::http::broken;
use super::reader::{Reader, Step};
use super::sse::{Event, Events};
use super::who::Who;
use crate::backend::{BackendError, ChatStream};
use crate::chat::ChatDelta;

/// Bytes of an answer that comes whole.
const WHOLE_MOST: usize = 32 << 20;
/// How long what an answer took is waited for once it has ended.
const AFTER_THE_END: Duration = Duration::from_secs(5);
/// How long the end of a body is waited for, so that its connection can be used again.
const TO_THE_END: Duration = Duration::from_millis(500);

/// What an answer's bytes are.
#[derive(Debug)]
enum Form {
    Events(Events),
    Whole(Vec<u8>),
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Absent once nothing more is wanted of it.
    response: Option<Response>,
    form: Form,
    gunzip: Option<Gunzip>,
    reader: Reader,
    facts: Arc<AnswerFacts>,
    who: Who,
    ready: VecDeque<ChatDelta>,
    /// Something was said, perhaps still in `ready`.
    has_begun: bool,
    /// What ends the stream once `ready` is empty.
    fault: Option<Fault>,
    /// When a report of what an ended answer took is not waited for any more.
    patience: Option<Instant>,
}

impl Incoming {
    /// Begins to read an answer of status 200.
    ///
    /// Errors: it is in no form that can be read.
    pub(super) fn new(
        response: Response,
        reader: Reader,
        facts: Arc<AnswerFacts>,
        who: Who,
    ) -> Result<Self, BackendError> {
        let text = |name: HeaderName| {
            response
                .headers()
                .get(name)?
                .to_str()
                .ok()
                .map(str::to_lowercase)
        };
        let kind = text(CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let form = match kind {
            "" | "text/event-stream" => Form::Events(Events::default()),
            kind if kind == "application/json" || kind.ends_with("+json") => {
                Form::Whole(Vec::new())
            }
            other => {
                let other: String = other.chars().take(40).collect();
                let fault = Fault::garbled(format!("it sent {other}, which is no answer"));
                return Err(who.error(&fault));
            }
        };
        let encoding = text(CONTENT_ENCODING).unwrap_or_default();
        let gunzip = match encoding.trim() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Gunzip::new()),
            other => {
                let other: String = other.chars().take(40).collect();
                let fault = Fault::garbled(format!(
                    "it packed the answer as {other}, which was not asked for"
                ));
                return Err(who.error(&fault));
            }
        };
        Ok(Self {
            response: Some(response),
            form,
            gunzip,
            reader,
            facts,
            who,
            ready: VecDeque::new(),
            has_begun: false,
            fault: None,
            patience: None,
        })
    }

    /// The deltas.
    pub(super) fn into_stream(self) -> ChatStream {
        Box::pin(stream::unfold(Some(self), |incoming| async move {
            let mut incoming = incoming?;
            let next = incoming.next().await;
            let goes_on = !matches!(next, Err(_) | Ok(ChatDelta::Finished { .. }));
            Some((next, goes_on.then_some(incoming)))
        }))
    }

    async fn next(&mut self) -> Result<ChatDelta, BackendError> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Ok(delta);
            }
            if let Some(fault) = self.fault.take() {
                return Err(if self.has_begun {
                    self.who.broke_off(&fault)
                } else {
                    self.who.error(&fault)
                });
            }
            if self.response.is_none() {
                return self.end();
            }
            match self.chunk().await {
                Ok(Some(chunk)) => self.take(&chunk),
                Ok(None) => self.take_end(),
                Err(fault) => self.fail(fault),
            }
        }
    }

    /// The next bytes; none at their end, and none where the answer has ended and no more came in time.
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        let next = response.chunk();
        let next = match self.patience {
            None => next.await,
            Some(until) => match timeout_at(until, next).await {
                Ok(next) => next,
                Err(_) => return Ok(None),
            },
        };
        let bytes = next.map_err(|error| Fault::garbled(broken(&error)))?;
        let Some(bytes) = bytes else { return Ok(None) };
        match &mut self.gunzip {
            None => Ok(Some(bytes.to_vec())),
            Some(gunzip) => {
                let unpacked = gunzip.push(&bytes);
                let unpacked = unpacked
                    .map_err(|error| Fault::garbled(format!("its gzip is broken: {error}")))?;
                Ok(Some(unpacked))
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut events = Vec::new();
        let read = match &mut self.form {
            Form::Events(form) => form
                .push(bytes, &mut events)
                .map_err(|error| Fault::garbled(error.to_string())),
            Form::Whole(body) if body.len() + bytes.len() > WHOLE_MOST => Err(Fault::garbled(
                format!("the answer is longer than {} MiB", WHOLE_MOST >> 20),
            )),
            Form::Whole(body) => {
                body.extend_from_slice(bytes);
                Ok(())
            }
        };
        for event in events {
            if !self.take_event(&event) {
                return;
            }
        }
        if let Err(fault) = read {
            self.fail(fault);
        }
    }

    /// Whether more may follow.
    fn take_event(&mut self, event: &Event) -> bool {
        let mut found = Vec::new();
        let read = self.reader.event(event, &mut found);
        self.found(found);
        match read {
            Ok(Step::Goes) => {
                if self.reader.finish().is_some() && self.patience.is_none() {
                    self.patience = Some(Instant::now() + AFTER_THE_END);
                }
                true
            }
            Ok(Step::Ended) => {
                self.let_go();
                false
            }
            Err(fault) => {
                self.fail(fault);
                false
            }
        }
    }

    fn take_end(&mut self) {
        self.response = None;
        let read = match &mut self.form {
            Form::Events(events) => {
                // What is cut off here decides nothing: whether the answer ended does.
                if let Some(event) = std::mem::take(events).end()
                    && serde_json::from_str::<Value>(&event.data).is_ok()
                {
                    self.take_event(&event);
                }
                Ok(())
            }
            Form::Whole(body) => {
                let body = std::mem::take(body);
                match serde_json::from_slice(&body) {
                    Ok(body) => {
                        let mut found = Vec::new();
                        let read = self.reader.whole(&body, &mut found);
                        self.found(found);
                        read
                    }
                    Err(_) => Err(Fault::garbled("the answer is no JSON")),
                }
            }
        };
        if let Err(fault) = read {
            self.fail(fault);
        }
    }

    fn found(&mut self, deltas: Vec<ChatDelta>) {
        for delta in deltas {
            self.facts.saw(&delta);
            self.has_begun = true;
            self.ready.push_back(delta);
        }
    }

    /// Ends with an error, unless all there is to say was said.
    fn fail(&mut self, fault: Fault) {
        self.response = None;
        if self.reader.finish().is_none() {
            self.fault = Some(fault);
        }
    }

    fn end(&self) -> Result<ChatDelta, BackendError> {
        let usage = self.facts.usage();
        match self.reader.finish() {
            Some(reason) => Ok(ChatDelta::Finished { reason, usage }),
            None if self.has_begun => Err(self.who.broke_off(&Fault::garbled(
                "it ended without saying that it was complete",
            ))),
            None => Err(self.who.error(&Fault::garbled("the answer is empty"))),
        }
    }

    /// Reads what is left of a body that says nothing more, so that its connection can be used again.
    fn let_go(&mut self) {
        let Some(mut response) = self.response.take() else {
            return;
        };
        if let Some(Ok(None) | Err(_)) = response.chunk().now_or_never() {
            return;
        }
        tokio::spawn(async move {
            let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
            let _ = timeout(TO_THE_END, rest).await;
        });
    }
}
