//! `/mcp`: the models of this node as tools and resources of the Model Context Protocol, over streamable
//! HTTP. The SDK speaks the protocol; here are the bounds around it and what the tools do.

mod errors;
mod progress;
mod resources;
mod schemas;
mod server;
mod sessions;
mod tools;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::AppState;
use super::auth::Refusal;
use super::body::JsonBody;
use super::error::ApiError;
use super::limits::Limits;
use crate::caller::Caller;
use crate::pool::Pool;
use server::Models;
use sessions::Sessions;

/// What answers at `/mcp`. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mcp {
    service: StreamableHttpService<Models, Sessions>,
    sessions: Arc<Sessions>,
    ended: CancellationToken,
}

impl Mcp {
    pub(super) fn new(pool: Pool, limits: &Limits) -> Self {
        let ended = CancellationToken::new();
        let sessions = Arc::new(Sessions::default());
        // Who may ask, by which name and from which page, is decided before a request comes here.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_json_response(true)
            .with_sse_keep_alive(Some(limits.keep_alive))
            .with_max_request_body_bytes(limits.body_bytes)
            .with_cancellation_token(ended.clone());
        let models = Models::new(pool);
        let make = move || Ok(models.clone());
        Self {
            service: StreamableHttpService::new(make, Arc::clone(&sessions), config),
            sessions,
            ended,
        }
    }

    /// Ends every session, and what is done for it.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }
}

/// The one tool that changes nothing.
const LIST_TOOL: &str = "list_models";

/// Answers one message, or streams what a session is told.
pub(super) async fn answer(State(state): State<AppState>, request: Request) -> Response {
    let mcp = &state.mcp;
    let method = request.method().clone();
    if method != Method::POST {
        let answer = mcp.service.handle(request).await.map(Body::new);
        let mut answer = until(answer, state.draining.clone());
        if method == Method::DELETE && answer.status() == StatusCode::ACCEPTED {
            // It has ended by now: clients take a 202 for trouble.
            *answer.status_mut() = StatusCode::NO_CONTENT;
        }
        return errors::in_our_words(answer, &method);
    }
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let message = match JsonBody::from_request(whole, &state).await {
        Ok(JsonBody(message)) => message,
        Err(error) => return errors::unreadable(error).into_response(),
    };
    let may_change = parts
        .extensions
        .get::<Caller>()
        .is_some_and(|caller| caller.is_admin);
    let is_change = message["method"] == "tools/call" && message["params"]["name"] != LIST_TOOL;
    if is_change && !may_change {
        return ApiError::from(Refusal::NotAdmin).into_response();
    }
    if let Err(error) = errors::check(&message) {
        return error.into_response();
    }
    if message["method"] == "initialize" && !mcp.sessions.have_room().await {
        return errors::too_many_sessions(&message).into_response();
    }
    // Written anew: what the SDK reads is what was checked.
    let request = Request::from_parts(parts, Body::from(message.to_string()));
    let answer = mcp.service.handle(request).await.map(Body::new);
    errors::in_our_words(answer, &method)
}

/// A stream nobody waits for an answer on ends as soon as the server drains.
fn until(answer: Response, draining: CancellationToken) -> Response {
    let (parts, body) = answer.into_parts();
    let stream = body.into_data_stream();
    let stream = stream.take_until(async move { draining.cancelled().await });
    Response::from_parts(parts, Body::from_stream(stream))
}
