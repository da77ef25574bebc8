//! Who answers, told: before anybody is asked, on every answer, and afterwards.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::body::JsonBody;
use super::error::ApiError;
use super::fields::Fields;
use super::{AppState, openai, routing};
use crate::backend::provider::HOPS;
use crate::caller::Caller;
use crate::router::decision::Decision;
use crate::router::{Answer, Embedded, Meta};
use crate::telemetry::spans::Parent;

/// On every answer: who gives it, and by what it is asked about.
const ROUTE: HeaderName = HeaderName::from_static("x-ingle-route");
/// On answers whose provider has no words for some fields of the request: these.
const DROPPED: HeaderName = HeaderName::from_static("x-ingle-dropped");

/// What a request says about who may answer it.
///
/// Errors: 400, naming the field or header and its value.
pub(super) fn meta(
    body: &Value,
    headers: &HeaderMap,
    caller: Caller,
    is_streamed: bool,
) -> Result<Meta, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|text| text.to_str().ok());
    let n_hops = text(HOPS.as_str()).and_then(|n| n.parse().ok());
    let parent = text("traceparent");
    Ok(Meta {
        parent: parent.and_then(|parent| Parent::read(parent, text("tracestate"))),
        wishes: routing::parse_wishes(body, headers)?,
        is_streamed,
        n_hops: n_hops.unwrap_or(0),
        ..Meta::of(caller)
    })
}

/// The label of an answer.
pub(super) struct Route {
    label: String,
    dropped: Vec<&'static str>,
}

impl Route {
    /// Of an answer that has begun.
    pub(super) fn of(answer: &Answer, id: &str) -> Self {
        let Answer { target, why, .. } = answer;
        Self {
            label: format!("{target}; why={why}; id={id}"),
            dropped: answer.dropped.clone(),
        }
    }

    /// Of vectors.
    pub(super) fn of_vectors(made: &Embedded) -> Self {
        let Embedded {
            target, why, id, ..
        } = made;
        Self {
            label: format!("{target}; why={why}; id={id}"),
            dropped: Vec::new(),
        }
    }

    /// Of an answer of which nobody knows yet who gives it.
    pub(super) fn pending(id: &str) -> Self {
        Self {
            label: format!("pending; id={id}"),
            dropped: Vec::new(),
        }
    }

    /// Writes it on a response.
    pub(super) fn onto(self, mut response: Response) -> Response {
        // Names of models come from strangers: what no header can carry is left out.
        let printable: String = self
            .label
            .chars()
            .filter(|c| matches!(c, ' '..='~'))
            .collect();
        if let Ok(value) = HeaderValue::from_str(&printable) {
            response.headers_mut().insert(ROUTE, value);
        }
        if let Ok(dropped) = HeaderValue::from_str(&self.dropped.join(", "))
            && !self.dropped.is_empty()
        {
            response.headers_mut().insert(DROPPED, dropped);
        }
        response
    }
}

/// `POST /v1/route/plan`: who would answer this chat completion, and why nobody else.
pub(super) async fn plan(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let (chat, is_streamed) = openai::chat::parse(&body)?;
    let meta = meta(&body, &headers, caller, is_streamed)?;
    let plan = state.router.plan(&chat, &meta).await?;
    Ok(Json(serde_json::to_value(plan).unwrap_or_default()))
}

/// `GET /v1/route/explain/{id}`: what was decided about a request, and what came of it.
pub(super) async fn explain(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Decision>, ApiError> {
    let found = state
        .router
        .decision(&id)
        .filter(|decision| may_see(&caller, decision));
    found.map(Json).ok_or_else(|| ApiError {
        code: Some("decision_not_found"),
        ..ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "there is no decision {id:?}: the latest 2048 are kept, by the id in x-ingle-route"
            ),
        )
    })
}

/// A team's decisions are its own.
fn may_see(caller: &Caller, decision: &Decision) -> bool {
    let team = caller.team.as_ref().map(ToString::to_string);
    caller.is_admin || (team.is_some() && team == decision.team)
}

/// `GET /v1/route/metrics`: what is measured of all requests.
pub(super) async fn measured(State(state): State<AppState>) -> Json<Value> {
    let measured = serde_json::to_value(state.router.measured());
    Json(measured.unwrap_or_default())
}

/// `POST /v1/route/feedback`: how good an answer was: `{"id": "rt_…", "score": 0.9}`.
pub(super) async fn feedback(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of(&body, "")?;
    let id = openai::required(fields.str("id")?, "id", "the id in x-ingle-route")?;
    let score = fields.float("score", 0.0, 1.0)?;
    let score = openai::required(score, "score", "how good the answer was, from 0 to 1")?;
    let decision = state
        .router
        .decision(id)
        .filter(|decision| may_see(&caller, decision));
    let Some(decision) = decision else {
        let message = format!("id is {id:?}: there is no such decision");
        return Err(ApiError::invalid("id", message));
    };
    state.router.scored(&decision, f64::from(score));
    Ok(Json(json!({"id": id, "score": score})))
}
