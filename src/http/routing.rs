//! What a request says about who shall answer it: the object `ingle` in its body, and `x-ingle-…` headers.

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::config::document::{Node, Problem, Reading};
use crate::http::error::ApiError;
use crate::router::request::Wishes;

/// The object in the body.
const OBJECT: &str = "ingle";
/// The headers, and what they are called in the object.
const HEADERS: [(&str, &str); 4] = [
    ("x-ingle-team", "team"),
    ("x-ingle-task", "task"),
    ("x-ingle-deadline-ms", "deadline_ms"),
    ("x-ingle-privacy", "privacy"),
];

/// Reads what the request says; its body goes before its headers, and the stricter privacy holds.
///
/// Errors: 400, naming the field or the header.
pub(in crate::http) fn parse_wishes(body: &Value, headers: &HeaderMap) -> Result<Wishes, ApiError> {
    let of_body = match body.get(OBJECT).filter(|object| !object.is_null()) {
        Some(object) => read(object, OBJECT).map_err(|problem| about_field(&problem))?,
        None => Wishes::default(),
    };
    let mut object = Map::new();
    for (header, key) in HEADERS {
        let Some(value) = headers.get(header) else {
            continue;
        };
        let text = value.to_str().map_err(|_| {
            let message = format!("{header}: it has characters that no header may have");
            ApiError::invalid(header, message)
        })?;
        let value = match text.trim() {
            "" => continue,
            // Where it is no number, the sentence shows the text.
            text if key == "deadline_ms" => text.parse::<u64>().map_or(json!(text), Value::from),
            text => json!(text),
        };
        object.insert(key.to_owned(), value);
    }
    let of_headers = read(&Value::Object(object), "").map_err(|problem| {
        let named = HEADERS.iter().find(|(_, key)| *key == problem.key);
        let header = named.map_or("", |(header, _)| header);
        ApiError::invalid(header, format!("{header}: {}", problem.problem))
    })?;
    Ok(of_body.over(of_headers))
}

fn about_field(problem: &Problem) -> ApiError {
    ApiError::invalid(&*problem.key, problem.to_string())
}

/// Errors: the first problem.
fn read(object: &Value, path: &str) -> Result<Wishes, Problem> {
    let node = Node::from_json(object);
    let reading = Reading::new("");
    let wishes = Wishes::read(&reading.table(&node, path));
    reading
        .finish(wishes)
        .map_err(|mut problems| problems.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::router::Strategy;
    use crate::egress::Privacy;

    fn parse(body: &Value, headers: &[(&'static str, &str)]) -> Result<Wishes, ApiError> {
        let headers = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HeaderName::from_static(name), value)
        });
        parse_wishes(body, &headers.collect())
    }

    #[test]
    fn a_request_that_says_nothing_wishes_nothing() {
        for body in [json!({}), json!({"ingle": null}), json!({"ingle": {}})] {
            assert_eq!(parse(&body, &[]).unwrap(), Wishes::default());
        }
        assert_eq!(
            parse(&json!({}), &[("x-ingle-team", " ")]).unwrap(),
            Wishes::default()
        );
    }

    #[test]
    fn body_and_headers_say_the_same_and_the_body_goes_first() {
        let body = json!({"ingle": {
            "team": "marketing-team", "deadline_ms": 1500, "privacy": "zdr_only",
            "strategy": "prefer_quality", "enable_fallback": false,
            "preferences": {"max_cost_per_1k_tokens": 0.001, "quality_threshold": 0.8,
                "acceptable_models": ["gpt-3.5", "local:*"]},
        }});
        let headers = [
            ("x-ingle-team", "other"),
            ("x-ingle-task", "debugging"),
            ("x-ingle-deadline-ms", "99"),
            ("x-ingle-privacy", "any"),
        ];
        let wishes = parse(&body, &headers).unwrap();
        assert_eq!(wishes.team.as_deref(), Some("marketing-team"));
        assert_eq!(wishes.task.as_deref(), Some("debugging"));
        assert_eq!(wishes.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(wishes.privacy, Some(Privacy::ZdrOnly));
        assert_eq!(wishes.enable_fallback, Some(false));
        let preferences = &wishes.preferences;
        assert_eq!(preferences.strategy, Some(Strategy::QualityFirst));
        assert_eq!(preferences.cost_per_token(), Some(0.000_001));
        assert_eq!(preferences.acceptable_models.as_ref().unwrap().len(), 2);
        // A header may tighten what the body says, as a proxy does.
        let wishes = parse(&body, &[("x-ingle-privacy", "local_only")]).unwrap();
        assert_eq!(wishes.privacy, Some(Privacy::LocalOnly));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param, says) in [
            (json!({"ingle": 5}), "ingle", "must be a table, not 5"),
            (
                json!({"ingle": {"taem": "x"}}),
                "ingle.taem",
                "did you mean team?",
            ),
            (
                json!({"ingle": {"team": ""}}),
                "ingle.team",
                "a name of 1 to 128",
            ),
            (
                json!({"ingle": {"team": "a\nb"}}),
                "ingle.team",
                "a name of 1 to 128",
            ),
            (
                json!({"ingle": {"deadline_ms": 0}}),
                "ingle.deadline_ms",
                "a whole number from 1",
            ),
            (
                json!({"ingle": {"privacy": "secret"}}),
                "ingle.privacy",
                "no privacy class",
            ),
            (
                json!({"ingle": {"preferences": {"quality_threshold": 95}}}),
                "ingle.preferences.quality_threshold",
                "a number from 0 to 1, not 95",
            ),
            (
                json!({"ingle": {"preferences": {"max_cost": -1}}}),
                "ingle.preferences.max_cost",
                "a number from 0 on, not -1",
            ),
            (
                json!({"ingle": {"preferences": {"acceptable_models": []}}}),
                "ingle.preferences.acceptable_models",
                "it is empty",
            ),
        ] {
            let error = parse(&body, &[]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.starts_with(param), "{}", error.message);
            assert!(error.message.contains(says), "{}", error.message);
        }
        for (header, value, says) in [
            ("x-ingle-deadline-ms", "soon", "not the text \"soon\""),
            ("x-ingle-deadline-ms", "-5", "not the text \"-5\""),
            ("x-ingle-privacy", "none", "\"none\" is no privacy class"),
            ("x-ingle-task", "\u{e9}", "characters that no header"),
        ] {
            let error = parse(&json!({}), &[(header, value)]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(header));
            assert!(error.message.contains(says), "{}", error.message);
        }
    }
}
