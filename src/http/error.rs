//! Errors as OpenAI's clients read them.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::auth::Refusal;
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};
use crate::pool::PoolError;

/// An answer that is an error: `{"error": {message, type, param, code}}`.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field of the request that is at fault.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
    /// When to ask again; absent where that would not help.
    pub(super) retry_after: Option<Duration>,
}

impl ApiError {
    /// A field that cannot be honoured.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            code: Some("invalid_value"),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// A field whose meaning is not built.
    pub(super) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::invalid(param, message)
        }
    }

    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// The same, about `new` where it was about `old`.
    pub(super) fn about(mut self, old: &str, new: &str) -> Self {
        if self.param.as_deref() == Some(old) {
            self.param = Some(new.to_owned());
        }
        self
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "unavailable_error",
            504 => "timeout_error",
            _ => "api_error",
        }
    }

    /// The body, also of an error in the middle of a stream.
    pub(super) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0);
            if let Ok(value) = HeaderValue::from_str(&format!("{seconds:.0}")) {
                headers.insert(header::RETRY_AFTER, value);
            }
        } else if self.status.is_server_error() {
            // Clients repeat such requests by themselves; here it would not help.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = match refusal {
            Refusal::MissingKey => (
                StatusCode::UNAUTHORIZED,
                "missing_api_key",
                "no API key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
            ),
            Refusal::WrongKey => (
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "the API key is not one of this server's",
            ),
            Refusal::NotAdmin => (
                StatusCode::FORBIDDEN,
                "not_an_administrator",
                "this key may not change which models there are and which are loaded, nor see what all teams sent away: use one made with --admin",
            ),
            Refusal::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "a server without API keys answers no pages of other sites, and on a loopback \
                 address no other name: ask for localhost, or start it with --api-key-file",
            ),
        };
        Self {
            code: Some(code),
            ..Self::new(status, message)
        }
    }
}

/// A provider's failure, which is not the client's: its own status where that is the client's to mend.
fn of_provider(fault: ProviderFault, message: String) -> ApiError {
    let (status, code) = match fault {
        ProviderFault::Rejected => (StatusCode::BAD_REQUEST, "provider_rejected"),
        ProviderFault::NoSuchModel => (StatusCode::NOT_FOUND, "model_not_found"),
        ProviderFault::Refused => (StatusCode::FORBIDDEN, "provider_refused"),
        ProviderFault::TooLong => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
        ProviderFault::RateLimited { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "provider_rate_limited")
        }
        ProviderFault::Unavailable { .. } | ProviderFault::Unreachable => {
            (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable")
        }
        ProviderFault::Stalled => (StatusCode::GATEWAY_TIMEOUT, "provider_timeout"),
        ProviderFault::Unauthorized => (StatusCode::BAD_GATEWAY, "provider_unauthorized"),
        ProviderFault::NoCredit => (StatusCode::BAD_GATEWAY, "provider_no_credit"),
        ProviderFault::Garbled => (StatusCode::BAD_GATEWAY, "provider_garbled"),
        ProviderFault::BrokeOff => (StatusCode::BAD_GATEWAY, "provider_broke_off"),
    };
    ApiError {
        code: Some(code),
        retry_after: fault.retry_after(),
        ..ApiError::new(status, message)
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        BackendError::from(error).into()
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        let unavailable = |code, retry_after| Self {
            code: Some(code),
            retry_after,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error.message.clone())
        };
        match error.kind {
            BackendErrorKind::UnknownModel => Self {
                param: Some("model".to_owned()),
                code: Some("model_not_found"),
                ..Self::new(StatusCode::NOT_FOUND, error.message)
            },
            BackendErrorKind::NotLoaded => Self {
                code: Some("model_not_loaded"),
                ..Self::invalid("model", error.message)
            },
            BackendErrorKind::InvalidRequest { param } => Self::invalid(param, error.message),
            BackendErrorKind::Unsupported { param } => Self::unsupported(param, error.message),
            BackendErrorKind::PromptTooLong { .. } => Self {
                code: Some("context_length_exceeded"),
                ..Self::invalid("messages", error.message)
            },
            BackendErrorKind::Busy { retry_after } => {
                unavailable("engine_overloaded", Some(retry_after))
            }
            BackendErrorKind::OutOfMemory => unavailable("insufficient_memory", None),
            BackendErrorKind::LoadFailed { retry_after } => {
                unavailable("model_load_failed", retry_after)
            }
            BackendErrorKind::ShuttingDown => {
                unavailable("shutting_down", Some(Duration::from_secs(1)))
            }
            BackendErrorKind::Timeout => Self {
                code: Some("timeout"),
                ..Self::new(StatusCode::GATEWAY_TIMEOUT, error.message)
            },
            BackendErrorKind::OverLimit { retry_after } => Self {
                code: Some("budget_exceeded"),
                retry_after,
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, error.message)
            },
            BackendErrorKind::NotAllowed => Self {
                code: Some("not_allowed"),
                ..Self::new(StatusCode::FORBIDDEN, error.message)
            },
            BackendErrorKind::Loop => Self {
                code: Some("routing_loop"),
                ..Self::new(StatusCode::LOOP_DETECTED, error.message)
            },
            BackendErrorKind::Provider(fault) => of_provider(fault, error.message),
            BackendErrorKind::Failed => Self {
                code: Some("engine_failed"),
                ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.message)
            },
        }
    }
}
