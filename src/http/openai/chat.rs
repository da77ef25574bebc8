//! `POST /v1/chat/completions`, streamed and whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::request::ChatCompletion;
use super::response::{Delta, Envelope, continued_label};
use crate::backend::{BackendError, ChatStream};
use crate::caller::Caller;
use crate::chat::{ChatDelta, ChatRequest, Said};
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::measure::{Clock, measured};
use crate::http::route::{self, Route};
use crate::http::{AppState, unix_seconds};
use crate::router::Answer;

/// The chat that a body asks for, and whether it is to be streamed.
pub(in crate::http) fn parse(body: &Value) -> Result<(ChatRequest, bool), ApiError> {
    let request = ChatCompletion::parse(body)?;
    Ok((request.chat, request.stream))
}

/// Answers a chat completion.
pub(in crate::http) async fn completions(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatCompletion::parse(&body)?;
    let meta = route::meta(&body, &headers, caller, request.stream)?;
    let envelope = Envelope::new(&request.chat.model, unix_seconds(), &state.fingerprint);
    let clock = Clock::new(&request.chat.model);
    let routed = state.router.route(request.chat, meta).await?;
    let id = routed.id().to_owned();
    let mut answer = Box::pin(routed.answer());
    if !request.stream {
        let answer = answer.await?;
        let route = Route::of(&answer, &id);
        let whole = whole(measured(answer, clock), &envelope).await?;
        return Ok(route.onto(Json(whole).into_response()));
    }
    // Until somebody answers the status is open; but no client waits for it for ever.
    let began = tokio::time::timeout(state.limits.first_content, &mut answer).await;
    let (answer, route) = match began {
        Ok(answer) => {
            let answer = answer?;
            let route = Route::of(&answer, &id);
            (measured(answer, clock), route)
        }
        Err(_) => (later(answer, clock), Route::pending(&id)),
    };
    let writer = Writer {
        answer: Some(answer),
        envelope,
        with_usage: request.include_usage,
    };
    Ok(route.onto(streamed(writer, state.limits.keep_alive)))
}

/// An answer that has not begun.
fn later(
    answer: Pin<Box<impl Future<Output = Result<Answer, BackendError>> + Send + 'static>>,
    clock: Clock,
) -> ChatStream {
    let begun = async move {
        match answer.await {
            Ok(answer) => measured(answer, clock),
            Err(error) => Box::pin(stream::iter([Err(error)])),
        }
    };
    Box::pin(stream::once(begun).flatten())
}

/// Collects an answer.
async fn whole(mut answer: ChatStream, envelope: &Envelope) -> Result<Value, ApiError> {
    let mut said = Said::default();
    let mut continued: Option<(String, String)> = None;
    while let Some(delta) = answer.next().await {
        match delta? {
            ChatDelta::Finished { reason, usage } => {
                let mut whole = envelope.completion(&said, reason, usage);
                if let Some((from, by)) = continued {
                    whole["ingle"] = continued_label(&from, &by);
                }
                return Ok(whole);
            }
            ChatDelta::Continued { from, by } => continued = Some((from, by)),
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
