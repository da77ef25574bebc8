//! The cases as they befall an answer that was asked for in one piece. Those that are not here are the same.

use std::time::Duration;

use serde_json::{Value, json};

use super::answers::whole;
use super::faults::{N_TOKENS, packed};
use super::script::{Framing, Script, Step};
use super::words::{Facts, Shape, tokens};

/// Plays a case, if it is another than to who asked for a stream.
pub(super) fn play(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    silent(case)
        .or_else(|| marked(case, number, facts))
        .or_else(|| broken(case, number, facts))
        .or_else(|| odd(case, number, facts))
}

fn chunks(steps: Vec<Step>) -> Script {
    Script {
        steps,
        ..Script::new(200, "application/json", Framing::Chunked)
    }
}

/// A body whose last byte is the answer's last.
fn sent(body: &Value, n_tokens: u64) -> Script {
    let mut script = Script::json(200, body);
    script.steps.extend([Step::Told(n_tokens), Step::Reported]);
    script
}

/// Nothing comes, or nothing but white space, as providers send it that keep a connection alive.
fn silent(case: &str) -> Option<Script> {
    let steps = match case {
        "headers-then-silence" | "roles-then-silence" => vec![Step::Stall],
        "comments-forever" => {
            let one = [
                Step::Send(b"\n".to_vec()),
                Step::Wait(Duration::from_millis(50)),
            ];
            std::iter::repeat_n(one, 400).flatten().collect()
        }
        "empty-stream" => Vec::new(),
        _ => return None,
    };
    Some(chunks(steps))
}

/// A well-formed answer that its provider calls broken, or that says nothing.
fn marked(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let error = || facts.error(529, "the server had an error");
    let n_tokens = match case {
        "error-first" => return Some(Script::json(200, &error())),
        "error-after" => number,
        "finish-error" => 3,
        "finish-error-first" | "done-only" => 0,
        "done-without-finish" => N_TOKENS,
        _ => return None,
    };
    let mut body = facts.whole(&tokens(n_tokens).concat(), n_tokens);
    let reason = match case {
        "done-only" | "done-without-finish" => Value::Null,
        _ => json!("error"),
    };
    match facts.shape {
        Shape::Anthropic if case == "error-after" => body = error(),
        Shape::Anthropic => body["stop_reason"] = reason,
        _ => {
            body["choices"][0]["finish_reason"] = reason;
            if case == "error-after" {
                body["choices"][0]["error"] = error()["error"].clone();
            }
        }
    }
    if case == "done-only" {
        let nothing = match facts.shape {
            Shape::Anthropic => "content",
            _ => "choices",
        };
        body[nothing] = json!([]);
    }
    let mut script = Script::json(200, &body);
    script.steps.push(Step::Told(n_tokens));
    Some(script)
}

/// A body that ends before the answer does.
fn broken(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let last = match case {
        "cut-after" | "limit-at" | "tool-call-cut" => Some(Step::Close),
        "reset-after" => Some(Step::Reset),
        "stall-after" => Some(Step::Stall),
        "ends-after" | "malformed-after" | "malformed-first" => None,
        _ => return None,
    };
    let n_tokens = match case {
        // Of the body above, whose words and names take more room in a stream.
        "limit-at" => N_TOKENS / 2,
        _ => number,
    };
    let (mut body, at, end) = if case == "tool-call-cut" {
        let body = call(facts, "", "Paris").to_string();
        let at = body.find("Paris").map_or(0, |at| at + 2);
        (body.into_bytes(), at, at)
    } else {
        let text = tokens(n_tokens.max(1) * 2).concat();
        let body = facts.whole(&text, n_tokens * 2).to_string();
        let begin = body.find(&text).unwrap_or_default();
        let at = begin + tokens(n_tokens).concat().len();
        (body.into_bytes(), at, begin + text.len() + 1)
    };
    if case.starts_with("malformed") {
        // The text's end is missing, and the quote after it.
        body.drain(at..end);
    } else {
        body.truncate(at);
    }
    let mut steps = vec![Step::Send(body), Step::Told(n_tokens)];
    steps.extend(last);
    Some(chunks(steps))
}

/// A whole answer, strangely sent.
fn odd(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let mut value = facts.whole(&tokens(N_TOKENS).concat(), N_TOKENS);
    let body = value.to_string().into_bytes();
    let pieces = |n_bytes: usize, wait: Duration| {
        let each = body.chunks(n_bytes);
        let steps = each.flat_map(|piece| [Step::Send(piece.to_vec()), Step::Wait(wait)]);
        chunks(
            steps
                .chain([Step::Told(N_TOKENS), Step::Reported])
                .collect(),
        )
    };
    let text = |text: String| {
        chunks(vec![
            Step::Send(text.into_bytes()),
            Step::Told(N_TOKENS),
            Step::Reported,
        ])
    };
    Some(match case {
        "finish-without-done" | "usage-twice" | "usage-first" | "done-twice" | "choices-empty" => {
            whole(facts, N_TOKENS)
        }
        "latency" => Script {
            latency: Duration::from_millis(number),
            ..whole(facts, N_TOKENS)
        },
        "usage-missing" => {
            value.as_object_mut()?.remove("usage");
            sent(&value, N_TOKENS)
        }
        "usage-zero" => {
            value["usage"] = facts.usage(0);
            sent(&value, N_TOKENS)
        }
        "wrong-type" => Script::whole(200, "text/plain", body),
        "slow-close" => {
            let mut script = whole(facts, N_TOKENS);
            script.steps.push(Step::Stall);
            script
        }
        "split-utf8" => pieces(1, Duration::ZERO),
        "drip-bytes" => pieces(1, Duration::from_micros(200)),
        "drip-tokens" => pieces(body.len().div_ceil(16), Duration::from_millis(number)),
        "split-lines" => pieces(7, Duration::ZERO),
        "crlf" => text(format!("{value:#}").replace('\n', "\r\n")),
        "multi-line" => text(format!("{value:#}")),
        "comments" => text(format!("\n\n\n{value}\n")),
        "gzip" => sent_packed(&packed(&body)),
        "gzip-broken" => {
            let mut packed = packed(&body);
            packed.truncate(30);
            packed.extend([0xff; 64]);
            Script::whole(200, "application/json", packed).with_header("content-encoding", "gzip")
        }
        "brotli" => whole(facts, N_TOKENS).with_header("content-encoding", "br"),
        "long-line" => sent(&facts.whole(&"x".repeat(10 << 20), 1), 1),
        "tool-call" => sent(&call(facts, "t0 ", "Paris"), 9),
        "tool-call-at-once" => sent(&call(facts, "", ""), 3),
        "no-content-type" => Script {
            headers: Vec::new(),
            ..whole(facts, N_TOKENS)
        },
        _ => return None,
    })
}

fn sent_packed(packed: &[u8]) -> Script {
    let mut steps: Vec<Step> = packed.chunks(9).map(|c| Step::Send(c.to_vec())).collect();
    steps.extend([Step::Told(N_TOKENS), Step::Reported]);
    chunks(steps).with_header("content-encoding", "gzip")
}

/// A call of the tool `weather`, for a city or for none.
fn call(facts: &Facts, text: &str, city: &str) -> Value {
    let mut body = facts.whole(text, 9);
    let input = match city {
        "" => json!({}),
        city => json!({"city": city}),
    };
    if facts.shape == Shape::Anthropic {
        let tool = json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": input});
        let said = body["content"].as_array().cloned().unwrap_or_default();
        let said = said.into_iter().filter(|block| block["text"] != "");
        body["content"] = said.chain([tool]).collect();
        body["stop_reason"] = json!("tool_use");
    } else {
        let function = json!({"name": "weather", "arguments": input.to_string()});
        let call = json!({"id": "call_1", "type": "function", "function": function});
        body["choices"][0]["message"]["tool_calls"] = json!([call]);
        body["choices"][0]["finish_reason"] = json!("tool_calls");
    }
    body
}

#[test]
fn who_asks_for_one_piece_gets_no_events_and_the_whole_answer_where_it_is_one() {
    let good = |fault: &str| {
        let good = [
            "latency-200",
            "done-without-finish",
            "finish-without-done",
            "usage-missing",
            "usage-zero",
            "usage-twice",
            "usage-first",
            "done-twice",
            "choices-empty",
            "slow-close",
            "whole",
            "split-utf8",
            "split-lines",
            "crlf",
            "multi-line",
            "comments",
            "drip-bytes",
            "drip-tokens-100",
            "no-content-type",
            // Read by who ignores their headers.
            "wrong-type",
            "brotli",
        ];
        good.contains(&fault)
    };
    for shape in [Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic] {
        let facts = Facts {
            shape,
            id: "gen-1".to_owned(),
            model: "m".to_owned(),
            prompt_tokens: 3,
            micro_usd: 1,
        };
        for fault in super::script::FAULTS {
            let body = super::faults::play_whole(fault, &facts).body();
            let text = String::from_utf8_lossy(&body);
            assert!(!text.contains("data:"), "{fault}: {text}");
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let said = match shape {
                Shape::Anthropic => &value["content"][0]["text"],
                _ => &value["choices"][0]["message"]["content"],
            };
            let is_marked = text.contains("error");
            let is_whole = said.as_str() == Some(&tokens(N_TOKENS).concat()) && !is_marked;
            assert_eq!(is_whole, good(fault), "{fault}, {shape:?}: {text}");
        }
    }
}
