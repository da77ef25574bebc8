//! The cases, by name: how a provider fails, and how it merely looks as if it did.

use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::answers::{begun, end, say, spoken, whole};
use super::script::{Framing, Script, Step};
use super::words::{Event, Facts, Shape, tokens};

/// Tokens of an answer that would have been whole.
pub(super) const N_TOKENS: u64 = 8;

/// Plays a case to who asked for a stream.
pub(super) fn play(name: &str, facts: &Facts) -> Script {
    let (case, number) = numbered(name);
    let played = before_an_answer(case, number, facts)
        .or_else(|| broken_answer(case, number, facts))
        .or_else(|| odd_answer(case, number, facts));
    played.unwrap_or_else(|| {
        let message = format!("the script has no case {name}");
        Script::json(418, &facts.error(418, &message))
    })
}

/// Plays a case to who did not: the same fault of an answer in one piece.
pub(super) fn play_whole(name: &str, facts: &Facts) -> Script {
    let (case, number) = numbered(name);
    super::whole::play(case, number, facts).unwrap_or_else(|| play(name, facts))
}

fn numbered(name: &str) -> (&str, u64) {
    match name.rsplit_once('-') {
        Some((case, number)) if number.parse::<u64>().is_ok() => {
            (case, number.parse().unwrap_or(0))
        }
        _ => (name, 0),
    }
}

/// Nothing of an answer ever leaves.
fn before_an_answer(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let limited = || Script::json(429, &facts.error(429, "Rate limit reached for requests."));
    let events = || Script::new(200, "text/event-stream", Framing::Chunked);
    let mut script = match case {
        "silence" => Script {
            status: None,
            ..events()
        },
        "headers-then-silence" | "comments-forever" => events(),
        "roles-then-silence" => begun(facts, 0),
        "status" => {
            let status = u16::try_from(number).unwrap_or(500);
            Script::json(
                status,
                &facts.error(status, &format!("a scripted {status}.")),
            )
        }
        "retry-after" => limited().with_header("retry-after", &number.to_string()),
        "retry-date" => {
            let at = SystemTime::now() + Duration::from_secs(number);
            limited().with_header("retry-after", &httpdate::fmt_http_date(at))
        }
        "retry-ms" => limited().with_header("retry-after-ms", &number.to_string()),
        "quota" => quota(facts),
        "too-long" => too_long(facts),
        "guardrail" => {
            let mut error = facts.error(403, "your input was flagged");
            error["error"]["metadata"] =
                serde_json::json!({"reasons": ["violence"], "flagged_input": "…"});
            Script::json(403, &error)
        }
        "redirect" => {
            Script::whole(302, "text/html", "moved").with_header("location", "/v1/elsewhere")
        }
        "html" => Script::whole(200, "text/html", "<html><body>Sign in</body></html>"),
        "wrong-type" => Script::whole(200, "text/plain", spoken(facts, N_TOKENS).body()),
        "empty-body" => Script::whole(200, "application/json", ""),
        "invalid-json" => Script::whole(200, "application/json", "{\"choices\": nothing}"),
        "truncated-json" => {
            let mut body = whole(facts, N_TOKENS).body();
            body.truncate(body.len() / 2);
            Script::whole(200, "application/json", body)
        }
        "close-at-once" => Script {
            status: None,
            framing: Framing::Close,
            ..events()
        },
        _ => return None,
    };
    match case {
        "headers-then-silence" | "roles-then-silence" => script.steps.push(Step::Stall),
        "comments-forever" => {
            for _ in 0..400 {
                script
                    .steps
                    .push(Step::Send(b": OPENROUTER PROCESSING\n\n".to_vec()));
                script.steps.push(Step::Wait(Duration::from_millis(50)));
            }
        }
        _ => {}
    }
    Some(script)
}

fn quota(facts: &Facts) -> Script {
    let mut error = facts.error(429, "You exceeded your current quota.");
    match facts.shape {
        Shape::OpenAi => error["error"]["code"] = "insufficient_quota".into(),
        Shape::OpenRouter => return Script::json(402, &facts.error(402, "Insufficient credits")),
        Shape::Anthropic => {
            error["error"]["details"] =
                serde_json::json!({"error_code": "enforced_spend_limit_reached"});
        }
    }
    Script::json(429, &error)
}

fn too_long(facts: &Facts) -> Script {
    let message = match facts.shape {
        Shape::Anthropic => "prompt is too long: 210000 tokens > 200000 maximum",
        _ => {
            "This model's maximum context length is 8192 tokens. However, you requested 10000 tokens"
        }
    };
    let mut error = facts.error(400, message);
    if facts.shape == Shape::OpenAi {
        error["error"]["code"] = "context_length_exceeded".into();
    }
    Script::json(400, &error)
}

/// An answer that is not complete.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn broken_answer(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let first = case.ends_with("-first");
    let mut script = begun(facts, if first { 0 } else { number });
    match case {
        "empty-stream" => script.steps.clear(),
        "done-only" => {
            script.steps.clear();
            say(&mut script, [facts.done()]);
        }
        "error-first" => {
            script.steps.clear();
            say(&mut script, [facts.error_event()]);
        }
        "error-after" => {
            say(&mut script, [facts.error_event()]);
            end(&mut script, facts, number);
        }
        "finish-error" | "finish-error-first" => {
            if !first {
                say(
                    &mut script,
                    tokens(3).iter().map(|token| facts.token(token)),
                );
            }
            say(&mut script, [facts.finish_error(), facts.done()]);
        }
        "cut-after" => script.steps.push(Step::Close),
        "reset-after" => script.steps.push(Step::Reset),
        "ends-after" => {}
        "stall-after" => script.steps.push(Step::Stall),
        "malformed-after" | "malformed-first" => {
            script
                .steps
                .push(Step::Send(b"data: {\"choices\": [{\"del\n\n".to_vec()));
            say(
                &mut script,
                tokens(3).iter().map(|token| facts.token(token)),
            );
            end(&mut script, facts, number + 3);
        }
        "done-without-finish" => {
            script = begun(facts, N_TOKENS);
            say(&mut script, [facts.done()]);
        }
        "long-line" => {
            let long = facts.token(&"x".repeat(10 << 20));
            say(&mut script, [long]);
            end(&mut script, facts, 1);
        }
        "limit-at" => {
            let mut body = spoken(facts, N_TOKENS).body();
            body.truncate(usize::try_from(number).unwrap_or(usize::MAX));
            script.steps = vec![Step::Send(body), Step::Close];
        }
        "tool-call-cut" => {
            say(&mut script, facts.call(&["{\"city\"", ": \"Pa"]));
            script.steps.push(Step::Close);
        }
        "gzip-broken" => {
            let mut packed = packed(&spoken(facts, N_TOKENS).body());
            packed.truncate(30);
            packed.extend([0xff; 64]);
            script = script.with_header("content-encoding", "gzip");
            script.steps = vec![Step::Send(packed)];
        }
        "brotli" => script = script.with_header("content-encoding", "br"),
        "whole-error" => {
            let mut body = whole_value(facts);
            if facts.shape == Shape::Anthropic {
                body = facts.error(529, "Overloaded");
            } else {
                body["choices"][0]["finish_reason"] = "error".into();
                body["choices"][0]["error"] =
                    serde_json::json!({"code": 502, "message": "it died"});
            }
            return Some(Script::json(200, &body));
        }
        _ => return None,
    }
    Some(script)
}

fn whole_value(facts: &Facts) -> serde_json::Value {
    facts.whole(&tokens(N_TOKENS).concat(), N_TOKENS)
}

/// A whole answer, strangely sent.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn odd_answer(case: &str, number: u64, facts: &Facts) -> Option<Script> {
    let mut script = spoken(facts, N_TOKENS);
    let body = script.body();
    let resent = |change: fn(&str) -> String| {
        let text = String::from_utf8_lossy(&body);
        vec![
            Step::Send(change(&text).into_bytes()),
            Step::Told(N_TOKENS),
            Step::Reported,
        ]
    };
    match case {
        "latency" => script.latency = Duration::from_millis(number),
        "usage-missing" | "usage-zero" | "usage-twice" | "usage-first" => {
            script = usages(case, facts);
        }
        "finish-without-done" => {
            script.steps.pop();
        }
        "done-twice" => say(&mut script, [facts.done(), facts.done()]),
        "choices-empty" => {
            let empty = match facts.shape {
                Shape::Anthropic => Event::data(&serde_json::json!({"type": "something_new"})),
                _ => Event::data(&facts.chunk(&serde_json::json!([]))),
            };
            script
                .steps
                .insert(0, Step::Send(empty.text().into_bytes()));
            script
                .steps
                .insert(4, Step::Send(empty.text().into_bytes()));
        }
        "slow-close" => script.steps.push(Step::Stall),
        "whole" => script = whole(facts, N_TOKENS),
        "split-utf8" | "drip-bytes" => {
            let wait = Duration::from_micros(if case == "drip-bytes" { 200 } else { 0 });
            let bytes = body
                .into_iter()
                .flat_map(|byte| [Step::Send(vec![byte]), Step::Wait(wait)]);
            script.steps = bytes
                .chain([Step::Told(N_TOKENS), Step::Reported])
                .collect();
        }
        "split-lines" => {
            let chunks = body.chunks(7).map(|chunk| Step::Send(chunk.to_vec()));
            script.steps = chunks
                .chain([Step::Told(N_TOKENS), Step::Reported])
                .collect();
        }
        "crlf" => script.steps = resent(|text| text.replace('\n', "\r\n")),
        "multi-line" => {
            // Between two fields of an object, where a line's end changes nothing.
            script.steps = resent(|text| text.replace(",\"", ",\ndata: \""));
        }
        "comments" => {
            script.steps =
                resent(|text| text.replace("data:", ": OPENROUTER PROCESSING\n:\ndata:"));
        }
        "gzip" => {
            script = script.with_header("content-encoding", "gzip");
            let packed = packed(&body);
            script.steps = packed
                .chunks(9)
                .map(|chunk| Step::Send(chunk.to_vec()))
                .collect();
            script.steps.extend([Step::Told(N_TOKENS), Step::Reported]);
        }
        "drip-tokens" => {
            let wait = Step::Wait(Duration::from_millis(number));
            let steps = std::mem::take(&mut script.steps);
            script.steps = steps
                .into_iter()
                .flat_map(|step| [step, wait.clone()])
                .collect();
        }
        "tool-call" => {
            script = begun(facts, 1);
            say(&mut script, facts.call(&["{\"city\"", ": \"Par", "is\"}"]));
            say(&mut script, facts.end("tool_calls", 9));
            script.steps.extend([Step::Told(9), Step::Reported]);
            say(&mut script, [facts.done()]);
        }
        "tool-call-at-once" => {
            script = begun(facts, 0);
            say(&mut script, facts.call(&[]));
            say(&mut script, facts.end("tool_calls", 3));
            say(&mut script, [facts.done()]);
        }
        "no-content-type" => script.headers.clear(),
        _ => return None,
    }
    Some(script)
}

/// What an answer took, told late, wrongly, twice or not at all.
fn usages(case: &str, facts: &Facts) -> Script {
    let mut script = begun(facts, N_TOKENS);
    let is_anthropics = facts.shape == Shape::Anthropic;
    let told = if case == "usage-zero" { 0 } else { N_TOKENS };
    let mut last = facts.end("stop", told);
    match (case, is_anthropics) {
        ("usage-missing", false) => drop(last.pop()),
        ("usage-missing", true) => {
            let event = &mut last[1];
            event.data = event.data.replace("\"output_tokens\":8", "");
        }
        ("usage-twice", false) => last.extend(last.last().cloned()),
        ("usage-twice", true) => last.push(last[1].clone()),
        ("usage-first", false) => last.swap(0, 1),
        _ => {}
    }
    say(&mut script, last);
    script.steps.push(Step::Reported);
    say(&mut script, [facts.done()]);
    script
}

pub(super) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
