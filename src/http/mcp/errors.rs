//! What cannot be a message, or is answered outside of one: as JSON-RPC errors, in our words.

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::ErrorCode;
use serde_json::{Value, json};

use crate::http::error::ApiError;
use crate::http::fields::shown;

/// A JSON-RPC error that is the whole answer.
pub(super) struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    code: ErrorCode,
    message: String,
    /// Of the request it answers, where that could be read.
    id: Option<Value>,
}

impl Refusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            code,
            message: message.into(),
            id: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({
            "jsonrpc": "2.0",
            "error": {"code": self.code.0, "message": self.message},
        });
        if let Some(id) = self.id {
            body["id"] = id;
        }
        (self.status, self.headers, Json(body)).into_response()
    }
}

/// A body that is no JSON, too long, too slow or of another type.
pub(super) fn unreadable(error: ApiError) -> Refusal {
    let is_json = error.code != Some("invalid_json");
    let code = if is_json {
        ErrorCode::INVALID_REQUEST
    } else {
        ErrorCode::PARSE_ERROR
    };
    Refusal::new(error.status, code, error.message)
}

/// Whether a value has the shape of one request, notification or response.
///
/// Errors: what it lacks.
#[expect(
    clippy::result_large_err,
    reason = "made once a request that is refused"
)]
pub(super) fn check(message: &Value) -> Result<(), Refusal> {
    let invalid = |text: String| {
        let mut refusal = Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::INVALID_REQUEST, text);
        refusal.id = message.get("id").filter(|id| is_id(id)).cloned();
        refusal
    };
    let fields = match message {
        Value::Object(fields) => fields,
        Value::Array(_) => {
            let text = "a batch of messages: the protocol has none any more, send one at a time";
            return Err(invalid(text.to_owned()));
        }
        other => {
            let text = format!("a message must be a JSON object, not {}", shown(other));
            return Err(invalid(text));
        }
    };
    if fields.get("jsonrpc").is_none_or(|version| version != "2.0") {
        return Err(invalid(
            "a message must have \"jsonrpc\": \"2.0\"".to_owned(),
        ));
    }
    if let Some(id) = fields.get("id").filter(|id| !is_id(id)) {
        let text = format!("id must be a string or a whole number, not {}", shown(id));
        return Err(invalid(text));
    }
    let is_answer = fields.contains_key("result") || fields.contains_key("error");
    match fields.get("method") {
        Some(Value::String(_)) => {}
        Some(other) => {
            let text = format!("method must be a string, not {}", shown(other));
            return Err(invalid(text));
        }
        None if is_answer => {}
        None => return Err(invalid("a message must name its method".to_owned())),
    }
    match fields.get("params") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(other) => Err(invalid(format!(
            "params must be an object, not {}",
            shown(other)
        ))),
    }
}

fn is_id(id: &Value) -> bool {
    id.is_string() || id.is_i64()
}

/// No session can be opened now.
pub(super) fn too_many_sessions(message: &Value) -> Refusal {
    let text = "every session is in use: end one with DELETE, or try later";
    let code = ErrorCode::INTERNAL_ERROR;
    Refusal {
        id: message.get("id").cloned(),
        ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, text)
    }
}

/// The SDK's refusals in plain text as JSON-RPC errors; everything else as it is.
pub(super) fn in_our_words(answer: Response, method: &Method) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind == "application/json");
    if status.is_success() || is_json {
        return answer;
    }
    let text = match status {
        StatusCode::BAD_REQUEST => {
            "no session, or a protocol version nobody knows: send initialize first, and then its \
             mcp-session-id with every request"
        }
        StatusCode::NOT_FOUND => "there is no such session, or it has ended: send initialize again",
        StatusCode::METHOD_NOT_ALLOWED => "nothing is streamed outside of a session",
        StatusCode::NOT_ACCEPTABLE if *method == Method::GET => {
            "the client must accept text/event-stream"
        }
        StatusCode::NOT_ACCEPTABLE => {
            "the client must accept both application/json and text/event-stream"
        }
        _ => "the message could not be answered",
    };
    let mut refusal = Refusal::new(status, ErrorCode::INVALID_REQUEST, text);
    if let Some(allow) = answer.headers().get(header::ALLOW) {
        refusal.headers.insert(header::ALLOW, allow.clone());
    }
    refusal.into_response()
}
