//! `POST /v1/chat/completions`, streamed and whole.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::request::ChatCompletion;
use super::response::{Delta, Envelope};
use crate::backend::ChatStream;
use crate::chat::{ChatDelta, Said};
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::measure::measured;
use crate::http::{AppState, unix_seconds};

/// Answers a chat completion.
pub(in crate::http) async fn completions(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatCompletion::parse(&body)?;
    let envelope = Envelope::new(&request.chat.model, unix_seconds(), &state.fingerprint);
    let answer = state.backend.chat(&request.chat, None).await?;
    // Known by now, and one label however the client called it.
    let id = state.backend.pool().canonical(&request.chat.model);
    let answer = measured(answer, id.as_ref().map_or("", |id| id.as_str()));
    if request.stream {
        let writer = Writer {
            answer: Some(answer),
            envelope,
            with_usage: request.include_usage,
        };
        return Ok(streamed(writer, state.limits.keep_alive));
    }
    let whole = whole(answer, &envelope).await?;
    Ok(Json(whole).into_response())
}

/// Collects an answer.
async fn whole(mut answer: ChatStream, envelope: &Envelope) -> Result<Value, ApiError> {
    let mut said = Said::default();
    while let Some(delta) = answer.next().await {
        match delta? {
            ChatDelta::Finished { reason, usage } => {
                return Ok(envelope.completion(&said, reason, usage));
            }
            more => said.push(more),
        }
    }
    Err(cut_off())
}

/// A stream that ends with neither an end nor an error is a bug; nobody is told it was an answer.
fn cut_off() -> ApiError {
    let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "the answer broke off")
}

/// Sends an answer as it comes. Dropping the response, as a client that leaves does, cancels it.
fn streamed(writer: Writer, keep_alive: Duration) -> Response {
    let first = event(&writer.envelope.chunk(&Delta::Role, writer.with_usage));
    let rest = stream::unfold(writer, |mut writer| async move {
        let events = writer.next().await?;
        Some((stream::iter(events), writer))
    });
    let events = stream::iter([first]).chain(rest.flatten());
    let events = events.map(Ok::<Event, Infallible>);
    let keep_alive = KeepAlive::new().interval(keep_alive).text("still here");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx would hold the chunks back.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

fn event(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// Turns deltas into events.
struct Writer {
    /// `None` once the end or an error was sent.
    answer: Option<ChatStream>,
    envelope: Envelope,
    with_usage: bool,
}

impl Writer {
    /// The events of the next delta; `None` after the last.
    async fn next(&mut self) -> Option<Vec<Event>> {
        let delta = self.answer.as_mut()?.next().await;
        let chunk = |delta: &Delta<'_>| event(&self.envelope.chunk(delta, self.with_usage));
        Some(match delta {
            Some(Ok(ChatDelta::Text(text))) => vec![chunk(&Delta::Text(&text))],
            Some(Ok(ChatDelta::Reasoning(text))) => vec![chunk(&Delta::Reasoning(&text))],
            Some(Ok(ChatDelta::ToolCall(call))) => vec![chunk(&Delta::ToolCall(&call))],
            Some(Ok(ChatDelta::Continued { from, by })) => {
                vec![event(&self.envelope.continued_chunk(&from, &by))]
            }
            Some(Ok(ChatDelta::Finished { reason, usage })) => {
                let mut events = vec![chunk(&Delta::Finish(reason))];
                if self.with_usage {
                    events.push(event(&self.envelope.usage_chunk(usage)));
                }
                events.push(Event::default().data("[DONE]"));
                self.answer = None;
                events
            }
            // The status is sent already: clients look for an `error` in the data. No [DONE] follows.
            Some(Err(error)) => {
                self.answer = None;
                vec![event(&ApiError::from(error).body())]
            }
            None => {
                self.answer = None;
                vec![event(&cut_off().body())]
            }
        })
    }
}
