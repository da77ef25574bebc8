//! What a provider's errors mean: the same few faults, whoever says them and however.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::options::Dialect;
use crate::backend::ProviderFault;

/// No wait is longer, whatever a provider says.
const WAIT_MOST: Duration = Duration::from_hours(24);
/// Characters of a provider's own sentence that are passed on.
const SENTENCE_MOST: usize = 300;

/// A fault and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ProviderFault,
    /// Not scrubbed yet.
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(kind: ProviderFault, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(super) fn garbled(detail: impl Into<String>) -> Self {
        Self::new(ProviderFault::Garbled, detail)
    }
}

/// The fault that an answer with a status other than 200 is.
pub(super) fn of_answer(
    dialect: Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Fault {
    if status.is_redirection() {
        let detail = format!(
            "{status}: it points elsewhere, and no prompt follows; set its base URL to the address itself"
        );
        return Fault::garbled(detail);
    }
    if status.is_success() {
        return Fault::garbled(format!("{status} without an answer"));
    }
    let body = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    let error = error_object(&body);
    let said = Said::of(error);
    let wait = wait_of(headers, SystemTime::now()).or(said.wait);
    let kind = said.kind(dialect, Some(status.as_u16()), wait);
    let detail = said.shown(&status.as_u16().to_string());
    Fault { kind, detail }
}

/// The fault that an error inside an answer is.
pub(super) fn of_error(dialect: Dialect, error: &Value) -> Fault {
    let said = Said::of(error);
    let kind = said.kind(dialect, said.status, said.wait);
    let status = said.status.map(|status| status.to_string());
    let detail = said.shown(&status.unwrap_or_default());
    Fault { kind, detail }
}

/// The object that tells of the error, wherever it stands.
pub(super) fn error_object(body: &Value) -> &Value {
    let object = match body {
        // Some wrap the answer in a list.
        Value::Array(values) => values.first().unwrap_or(body),
        _ => body,
    };
    match object.get("error") {
        None | Some(Value::Null) => object,
        Some(error) => error,
    }
}

/// What an error says of itself.
struct Said {
    /// Its codes and types, the most particular first.
    words: Vec<String>,
    message: String,
    /// A status that stands inside it.
    status: Option<u16>,
    wait: Option<Duration>,
    /// Whether asking again may help, if it says so.
    retryable: Option<bool>,
    /// It shows what of the prompt was not liked.
    has_reasons: bool,
}

impl Said {
    fn of(error: &Value) -> Self {
        let places = [
            "/details/error_code",
            "/availability/code",
            "/metadata/error_type",
            "/error_type",
            "/code",
            "/type",
        ];
        let word = |place: &&str| error.pointer(place)?.as_str().map(str::to_lowercase);
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let message = text("message")
            .or_else(|| text("detail"))
            .or(error.as_str());
        let number = |place: &str| error.pointer(place).and_then(Value::as_u64);
        let written = text("code").and_then(|code| code.parse::<u64>().ok());
        let status = number("/code")
            .or_else(|| number("/http_status"))
            .or_else(|| number("/status"))
            .or(written);
        let wait = error
            .pointer("/availability/retry_after")
            .and_then(Value::as_f64);
        Self {
            words: places.iter().filter_map(word).collect(),
            message: message.unwrap_or_default().to_owned(),
            status: status.and_then(|status| u16::try_from(status).ok()),
            wait: wait.and_then(bounded),
            retryable: error
                .pointer("/availability/retryable")
                .and_then(Value::as_bool),
            has_reasons: error.pointer("/metadata/reasons").is_some()
                || error.pointer("/metadata/flagged_input").is_some(),
        }
    }

    fn kind(&self, dialect: Dialect, status: Option<u16>, wait: Option<Duration>) -> ProviderFault {
        if let Some(fault) = self.by_word(STRONG, wait) {
            return fault;
        }
        match self.retryable {
            Some(true) => return ProviderFault::Unavailable { retry_after: wait },
            Some(false) => return ProviderFault::NoSuchModel,
            None => {}
        }
        if self.has_reasons {
            return ProviderFault::Refused;
        }
        if let Some(fault) = self.by_message() {
            return fault;
        }
        let status = status.and_then(|status| by_status(dialect, status, wait));
        status
            .or_else(|| self.by_word(WEAK, wait))
            .unwrap_or(ProviderFault::Unavailable { retry_after: wait })
    }

    fn by_word(&self, table: &[(Means, &[&str])], wait: Option<Duration>) -> Option<ProviderFault> {
        self.words.iter().find_map(|word| {
            let (means, _) = table
                .iter()
                .find(|(_, words)| words.contains(&word.as_str()))?;
            Some(means(wait))
        })
    }

    /// Some say in a sentence what others have a code for.
    fn by_message(&self) -> Option<ProviderFault> {
        let message = self.message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&[
            "credit balance",
            "spend limit",
            "usage limits",
            "budget exceeded",
            "key limit exceeded",
        ]) {
            return Some(ProviderFault::NoCredit);
        }
        let is_too_long = says(&[
            "prompt is too long",
            "maximum context length",
            "context length exceeded",
        ]);
        is_too_long.then_some(ProviderFault::TooLong)
    }

    /// As `429 rate_limit_exceeded: slow down`.
    fn shown(&self, status: &str) -> String {
        let word = self.words.first().map_or("", String::as_str);
        let word = if word == status { "" } else { word };
        let code = [status, word].join(" ");
        let sentence = sentence(&self.message);
        match (code.trim(), &*sentence) {
            ("", "") => "an error without a reason".to_owned(),
            ("", sentence) => sentence.to_owned(),
            (code, "") => code.to_owned(),
            (code, sentence) => format!("{code}: {sentence}"),
        }
    }
}

type Means = fn(Option<Duration>) -> ProviderFault;

/// Words that mean more than the status they come with.
const STRONG: &[(Means, &[&str])] = &[
    (
        |_| ProviderFault::NoCredit,
        &[
            "billing_error",
            "billing_hard_limit_reached",
            "credit_balance_exhausted",
            "enforced_spend_limit_reached",
            "insufficient_quota",
            "payment_required",
        ],
    ),
    (
        |_| ProviderFault::Unauthorized,
        &[
            "authentication",
            "authentication_error",
            "invalid_api_key",
            "permission_error",
        ],
    ),
    (
        |_| ProviderFault::Refused,
        &[
            "content_filter",
            "content_policy_violation",
            "moderation",
            "refusal",
        ],
    ),
    (
        |_| ProviderFault::NoSuchModel,
        &[
            "constraint_filtered",
            "free_variant_ended",
            "model_deprecated",
            "model_not_found",
            "no_endpoints",
            "privacy_restricted",
            "region_restricted",
            "wrong_endpoint",
        ],
    ),
    (
        |_| ProviderFault::TooLong,
        &[
            "context_length_exceeded",
            "payload_too_large",
            "request_too_large",
            "string_too_long",
            "token_limit_exceeded",
        ],
    ),
    (
        |retry_after| ProviderFault::RateLimited { retry_after },
        &["rate_limit_error", "rate_limit_exceeded", "slow_down"],
    ),
    (
        |retry_after| ProviderFault::Unavailable { retry_after },
        &[
            "capacity_exhausted",
            "model_unavailable_upstream",
            "overloaded_error",
            "provider_overloaded",
            "provider_unavailable",
            "server_is_overloaded",
            "temporarily_unavailable",
        ],
    ),
];

/// Words that say no more than a status would.
const WEAK: &[(Means, &[&str])] = &[
    (
        |_| ProviderFault::Rejected,
        &[
            "image_download_failed",
            "image_not_found",
            "image_too_large",
            "image_too_small",
            "invalid_image",
            "invalid_prompt",
            "invalid_request",
            "invalid_request_error",
            "max_tokens_exceeded",
            "precondition_failed",
            "unprocessable",
            "unsupported_image_format",
        ],
    ),
    (|_| ProviderFault::Unauthorized, &["permission_denied"]),
    (
        |_| ProviderFault::NoSuchModel,
        &["not_found", "not_found_error"],
    ),
];

fn by_status(dialect: Dialect, status: u16, wait: Option<Duration>) -> Option<ProviderFault> {
    Some(match status {
        402 => ProviderFault::NoCredit,
        // OpenRouter's guardrails and moderation; elsewhere a key that may not do this.
        403 if dialect == Dialect::OpenRouter => ProviderFault::Refused,
        401 | 403 => ProviderFault::Unauthorized,
        404 | 410 => ProviderFault::NoSuchModel,
        413 => ProviderFault::TooLong,
        429 => ProviderFault::RateLimited { retry_after: wait },
        408 | 409 | 425 | 500..=599 => ProviderFault::Unavailable { retry_after: wait },
        400..=499 => ProviderFault::Rejected,
        _ => return None,
    })
}

/// When to ask again, as headers say it.
fn wait_of(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    if let Some(wait) = number("retry-after-ms") {
        return bounded(wait / 1000.0);
    }
    if let Some(after) = text(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = after.parse::<f64>() {
            return bounded(seconds);
        }
        let until = httpdate::parse_http_date(after).ok()?;
        let wait = until.duration_since(now).unwrap_or_default();
        return Some(wait.min(WAIT_MOST));
    }
    // OpenRouter's own limit tells when it ends, in milliseconds since 1970.
    let ends_ms = number("x-ratelimit-reset").filter(|ms| *ms > 1e12)?;
    let now_ms = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?
        .as_secs_f64()
        * 1000.0;
    bounded((ends_ms - now_ms).max(0.0) / 1000.0)
}

fn bounded(seconds: f64) -> Option<Duration> {
    let wait = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    Some(wait.min(WAIT_MOST))
}

/// A provider's own words, as the end of a sentence.
fn sentence(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let joined = words.join(" ");
    joined.trim_end_matches('.').to_owned()
}

/// A text without anything of a key in it, and not too long.
pub(super) fn scrubbed(text: &str, key: Option<&str>) -> String {
    // Cut first: what follows takes time for each word.
    let text: String = text.chars().take(4 * SENTENCE_MOST).collect();
    let clean: Vec<&str> = text
        .split(' ')
        .map(|word| if is_of_key(word, key) { "[key]" } else { word })
        .collect();
    let clean = clean.join(" ");
    match clean.char_indices().nth(SENTENCE_MOST) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// Whether a word looks like a key, or holds a piece of ours.
fn is_of_key(word: &str, key: Option<&str>) -> bool {
    const PIECE: usize = 8;
    let looks = ["sk-", "sk_", "Bearer"]
        .iter()
        .any(|mark| word.contains(mark));
    let holds = key.is_some_and(|key| {
        let key = key.as_bytes();
        let word = word.as_bytes();
        if key.len() <= PIECE {
            return word.windows(key.len().max(1)).any(|piece| piece == key);
        }
        key.windows(PIECE)
            .any(|piece| word.windows(PIECE).any(|part| part == piece))
    });
    looks || holds
}

#[cfg(test)]
mod tests;
