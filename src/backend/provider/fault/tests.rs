use reqwest::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::*;

fn status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

fn kind(dialect: Dialect, code: u16, body: &Value) -> ProviderFault {
    let body = body.to_string();
    of_answer(dialect, status(code), &HeaderMap::new(), body.as_bytes()).kind
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn words_mean_more_than_the_status_they_come_with() {
    use Dialect::{Anthropic, OpenAi, OpenRouter};
    let unavailable = ProviderFault::Unavailable { retry_after: None };
    let cases = [
        (
            OpenAi,
            429,
            json!({"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}),
            ProviderFault::NoCredit,
        ),
        (
            OpenAi,
            429,
            json!({"error": {"code": "credit_balance_exhausted"}}),
            ProviderFault::NoCredit,
        ),
        (
            OpenAi,
            429,
            json!({"error": {"code": "slow_down"}}),
            ProviderFault::RateLimited { retry_after: None },
        ),
        (
            OpenAi,
            401,
            json!({"error": {"type": "invalid_request_error", "code": "invalid_api_key"}}),
            ProviderFault::Unauthorized,
        ),
        (
            OpenAi,
            404,
            json!({"error": {"type": "invalid_request_error", "code": "model_not_found"}}),
            ProviderFault::NoSuchModel,
        ),
        (
            OpenAi,
            400,
            json!({"error": {"type": "invalid_request_error", "code": "context_length_exceeded"}}),
            ProviderFault::TooLong,
        ),
        (
            OpenAi,
            400,
            json!({"error": {"code": "content_policy_violation"}}),
            ProviderFault::Refused,
        ),
        (
            OpenAi,
            503,
            json!({"error": {"code": "server_is_overloaded"}}),
            unavailable,
        ),
        (
            Anthropic,
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "Your credit balance is too low to access the Anthropic API"}}),
            ProviderFault::NoCredit,
        ),
        (
            Anthropic,
            429,
            json!({"type": "error", "error": {"type": "rate_limit_error",
            "details": {"error_code": "enforced_spend_limit_reached"}}}),
            ProviderFault::NoCredit,
        ),
        (
            Anthropic,
            402,
            json!({"type": "error", "error": {"type": "billing_error"}}),
            ProviderFault::NoCredit,
        ),
        (
            Anthropic,
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
            ProviderFault::TooLong,
        ),
        (
            Anthropic,
            529,
            json!({"type": "error", "error": {"type": "overloaded_error"}}),
            unavailable,
        ),
        (
            OpenRouter,
            403,
            json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}}),
            ProviderFault::Refused,
        ),
        (
            OpenRouter,
            403,
            json!({"error": {"code": 403, "message": "Key limit exceeded (monthly)"}}),
            ProviderFault::NoCredit,
        ),
        (
            OpenRouter,
            404,
            json!({"error": {"code": 404, "message": "No endpoints found matching your data policy"}}),
            ProviderFault::NoSuchModel,
        ),
        (
            OpenRouter,
            503,
            json!({"error": {"error_type": "provider_unavailable", "http_status": 503,
            "availability": {"code": "capacity_exhausted", "retryable": true}}}),
            unavailable,
        ),
        (
            OpenRouter,
            503,
            json!({"error": {"availability": {"code": "something_new", "retryable": false}}}),
            ProviderFault::NoSuchModel,
        ),
        (
            OpenRouter,
            404,
            json!({"error": {"availability": {"code": "something_new", "retryable": true}}}),
            unavailable,
        ),
        (OpenAi, 418, json!("a teapot"), ProviderFault::Rejected),
        (
            OpenAi,
            500,
            json!([{"error": {"message": "wrapped"}}]),
            unavailable,
        ),
    ];
    for (dialect, code, body, expected) in cases {
        assert_eq!(
            kind(dialect, code, &body),
            expected,
            "{dialect:?} {code} {body}"
        );
    }
}

#[test]
fn an_error_inside_an_answer_is_read_as_one_with_a_status() {
    for (error, expected) in [
        (
            json!({"code": 429, "message": "x"}),
            ProviderFault::RateLimited { retry_after: None },
        ),
        (
            json!({"code": "429", "message": "x"}),
            ProviderFault::RateLimited { retry_after: None },
        ),
        (json!({"code": 402}), ProviderFault::NoCredit),
        (
            json!({"code": "server_error"}),
            ProviderFault::Unavailable { retry_after: None },
        ),
        (
            json!({"type": "invalid_request_error"}),
            ProviderFault::Rejected,
        ),
        (
            json!("it just died"),
            ProviderFault::Unavailable { retry_after: None },
        ),
        (json!({}), ProviderFault::Unavailable { retry_after: None }),
        (
            json!({"code": 1e300, "metadata": 5}),
            ProviderFault::Unavailable { retry_after: None },
        ),
    ] {
        assert_eq!(
            of_error(Dialect::OpenRouter, &error).kind,
            expected,
            "{error}"
        );
    }
    let wait = json!({"availability": {"retryable": true, "retry_after": 7.5}});
    let retry_after = Some(Duration::from_millis(7500));
    assert_eq!(
        of_error(Dialect::OpenRouter, &wait).kind,
        ProviderFault::Unavailable { retry_after }
    );
}

#[test]
fn a_wait_is_read_however_it_is_written() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000);
    let later = httpdate::fmt_http_date(now + Duration::from_secs(90));
    let earlier = httpdate::fmt_http_date(now - Duration::from_secs(90));
    let ms = |ms| Some(Duration::from_millis(ms));
    for (pairs, expected) in [
        (vec![], None),
        (vec![("retry-after", "3")], ms(3_000)),
        (vec![("retry-after", " 0.5 ")], ms(500)),
        (
            vec![("retry-after", "3"), ("retry-after-ms", "250")],
            ms(250),
        ),
        (vec![("retry-after", &later)], ms(90_000)),
        (vec![("retry-after", &earlier)], ms(0)),
        (vec![("retry-after", "-5")], ms(0)),
        (vec![("retry-after", "1e300")], None),
        (vec![("retry-after", "9999999")], ms(86_400_000)),
        (vec![("retry-after", "soon")], None),
        (vec![("retry-after", "NaN")], ms(0)),
        (vec![("x-ratelimit-reset", "1760000005000")], ms(5_000)),
        (vec![("x-ratelimit-reset", "12")], None),
    ] {
        assert_eq!(wait_of(&headers(&pairs), now), expected, "{pairs:?}");
    }
}

#[test]
fn a_sentence_is_short_plain_and_without_keys() {
    let key = "canary-0123456789abcdef";
    for leak in [
        "Incorrect API key provided: canary-0123456789abcdef.",
        "Incorrect API key provided: canary-0*****cdef (canary-0123)",
        "key=\"canary-0123456789abcdef\" is wrong",
        "sk-proj-abcdef is not yours",
    ] {
        let said = scrubbed(leak, Some(key));
        assert!(said.contains("[key]"), "{said}");
        for piece in ["canary-0", "0123", "sk-proj"] {
            assert!(!said.contains(piece), "{said}");
        }
    }
    assert_eq!(scrubbed("nothing to hide", Some(key)), "nothing to hide");
    assert_eq!(scrubbed("short", Some("")), "short");
    assert!(scrubbed(&"é ".repeat(5000), None).chars().count() <= SENTENCE_MOST + 1);
    let body =
        json!({"error": {"code": "rate_limit_exceeded", "message": "Slow\n\tdown,\u{7} please."}});
    let fault = of_answer(
        Dialect::OpenAi,
        status(429),
        &HeaderMap::new(),
        body.to_string().as_bytes(),
    );
    assert_eq!(fault.detail, "429 rate_limit_exceeded: Slow down, please");
    let bare = of_answer(Dialect::OpenAi, status(502), &HeaderMap::new(), b"<html>");
    assert_eq!(bare.detail, "502");
}
