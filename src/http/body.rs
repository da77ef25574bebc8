//! The body of a request as JSON, with errors that say what is wrong with it.

use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::AppState;
use super::error::ApiError;
use super::limits::Limits;

/// A request's body, parsed.
pub(super) struct JsonBody(pub(super) Value);

/// A request's body, parsed; an empty object where there is none.
pub(super) struct OptionalJsonBody(pub(super) Value);

impl FromRequest<AppState> for OptionalJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, state: &AppState) -> Result<Self, ApiError> {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH);
        let is_none = length.is_none_or(|length| length == "0");
        if is_none && !headers.contains_key(header::TRANSFER_ENCODING) {
            return Ok(Self(json!({})));
        }
        let JsonBody(value) = JsonBody::from_request(request, state).await?;
        Ok(Self(value))
    }
}

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, state: &AppState) -> Result<Self, ApiError> {
        check_type(&request)?;
        let limits = &state.limits;
        let body = Limited::new(request.into_body(), limits.body_bytes);
        let bytes = match tokio::time::timeout(limits.body_time, body.collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(unreadable(&*error, limits)),
            Err(_) => return Err(too_slow()),
        };
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("the body is not valid JSON: {error}");
            ApiError {
                code: Some("invalid_json"),
                ..ApiError::new(StatusCode::BAD_REQUEST, message)
            }
        })?;
        Ok(Self(value))
    }
}

/// A page of another site can post plain text without asking first, but not JSON.
fn check_type(request: &Request<Body>) -> Result<(), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("the content type is {essence:?}: it must be application/json");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

fn too_slow() -> ApiError {
    let message = "the body stopped coming: send it without long pauses";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
}

fn unreadable(error: &(dyn std::error::Error + 'static), limits: &Limits) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            let most = limits.body_bytes;
            let message = format!("the body is longer than {most} bytes");
            return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        if error.is::<tower_http::timeout::TimeoutError>() {
            return too_slow();
        }
        cause = error.source();
    }
    ApiError::new(
        StatusCode::BAD_REQUEST,
        format!("the body broke off: {error}"),
    )
}
