//! The body of a request as JSON, with errors that say what is wrong with it.

use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::error::ApiError;

/// The longest body that is read. A prompt may be 16 MiB of text, escaped.
const BODY_MOST_BYTES: usize = 32 << 20;

/// A request's body, parsed.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, ApiError> {
        check_type(&request)?;
        let body = Limited::new(request.into_body(), BODY_MOST_BYTES);
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(unreadable(&*error)),
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

fn unreadable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            let most = BODY_MOST_BYTES >> 20;
            let message = format!("the body is longer than {most} MiB");
            return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        if error.is::<tower_http::timeout::TimeoutError>() {
            let message = "the body stopped coming: send it without long pauses";
            return ApiError::new(StatusCode::REQUEST_TIMEOUT, message);
        }
        cause = error.source();
    }
    ApiError::new(
        StatusCode::BAD_REQUEST,
        format!("the body broke off: {error}"),
    )
}
