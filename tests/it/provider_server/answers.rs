//! What is answered to a request: by its path, and by the model's name.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::faults;
use super::script::{Framing, Script, Step};
use super::words::{Event, Facts, Shape, tokens};
use super::{Billed, Recorded, Seen};

/// An answer, and what is billed as it leaves.
pub(super) struct Planned {
    pub(super) script: Script,
    /// The generation, and what each of its tokens is billed.
    pub(super) bill: Option<(String, Price)>,
}

/// What an answer of so many tokens is billed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    prompt_tokens: u64,
    /// For all tokens; absent: 1 for each of the prompt and 2 for each of the answer.
    whole: Option<(u64, u64)>,
}

impl Price {
    pub(super) fn bill(self, told: u64, was_reported: bool) -> Billed {
        let micro_usd = match self.whole {
            Some((micro_usd, n_tokens)) => (micro_usd * told).div_ceil(n_tokens.max(1)),
            None => self.prompt_tokens + 2 * told,
        };
        Billed {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: told,
            micro_usd,
            was_reported,
        }
    }
}

pub(super) fn answer(request: &Recorded, seen: &Seen) -> Planned {
    let free = |script| Planned { script, bill: None };
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let shape = match path {
        path if path.starts_with("/api/v1") => Shape::OpenRouter,
        path if path.ends_with("/messages") => Shape::Anthropic,
        _ => Shape::OpenAi,
    };
    if path.ends_with("/models") {
        return free(Script::json(200, &models()));
    }
    if path.ends_with("/generation") {
        return free(generation(query, seen));
    }
    if path.ends_with("/embeddings") {
        return free(embeddings(&request.body, shape));
    }
    if !path.ends_with("/chat/completions") && !path.ends_with("/messages") {
        return free(Script::json(
            404,
            &json!({"error": {"message": format!("no {path}")}}),
        ));
    }
    chat(request, shape, seen)
}

fn chat(request: &Recorded, shape: Shape, seen: &Seen) -> Planned {
    let name = request.model();
    let number = seen.n_generations.fetch_add(1, Ordering::SeqCst);
    let said = request.body["messages"].to_string();
    let prompt_tokens = (said.len() as u64).div_ceil(4);
    let mut words = name.split(':');
    let (n_tokens, micro_usd) = match words.next() {
        Some("say") => {
            let mut numbers = words.map(|word| word.parse().ok());
            (
                numbers.next().flatten().unwrap_or(8),
                numbers.next().flatten(),
            )
        }
        _ => (8, None),
    };
    let price = Price {
        prompt_tokens,
        whole: micro_usd.map(|micro_usd| (micro_usd, n_tokens)),
    };
    let facts = Facts {
        shape,
        id: format!("gen-{number}"),
        model: name.to_owned(),
        prompt_tokens,
        micro_usd: price.bill(n_tokens, true).micro_usd,
    };
    let is_stream = request.body["stream"] == true;
    let mut script = match name.split_once("fault:") {
        Some((_, fault)) if is_stream => faults::play(fault, &facts),
        Some((_, fault)) => faults::play_whole(fault, &facts),
        None if is_stream => spoken(&facts, n_tokens),
        None => whole(&facts, n_tokens),
    };
    if shape == Shape::OpenRouter {
        script = script.with_header("x-generation-id", &facts.id);
    }
    Planned {
        script,
        bill: Some((facts.id, price)),
    }
}

/// A stream of so many tokens that ends well.
pub(super) fn spoken(facts: &Facts, n_tokens: u64) -> Script {
    let mut script = begun(facts, n_tokens);
    end(&mut script, facts, n_tokens);
    script
}

/// A stream that has so far said so many tokens.
pub(super) fn begun(facts: &Facts, n_tokens: u64) -> Script {
    let mut script = Script::new(200, "text/event-stream; charset=utf-8", Framing::Chunked);
    if facts.shape == Shape::OpenRouter {
        script
            .steps
            .push(Step::Send(b": OPENROUTER PROCESSING\n\n".to_vec()));
    }
    say(&mut script, facts.begin());
    for (n, token) in (1..).zip(tokens(n_tokens)) {
        say(&mut script, [facts.token(&token)]);
        script.steps.push(Step::Told(n));
    }
    script
}

/// The right end of a stream.
pub(super) fn end(script: &mut Script, facts: &Facts, n_tokens: u64) {
    say(script, facts.end("stop", n_tokens));
    script.steps.push(Step::Reported);
    say(script, [facts.done()]);
}

pub(super) fn say(script: &mut Script, events: impl IntoIterator<Item = Event>) {
    let texts = events.into_iter().map(|event| event.text().into_bytes());
    script.steps.extend(texts.map(Step::Send));
}

/// The same in one piece.
pub(super) fn whole(facts: &Facts, n_tokens: u64) -> Script {
    let body = facts.whole(&tokens(n_tokens).concat(), n_tokens);
    let mut script = Script::json(200, &body);
    script.steps.extend([Step::Told(n_tokens), Step::Reported]);
    script
}

/// Prices as OpenRouter has them: dollars a token, in decimals.
fn models() -> Value {
    json!({"data": [
        {"id": "openai/gpt-4", "context_length": 8192,
            "pricing": {"prompt": "0.00003", "completion": "0.00006", "request": "0"}},
        {"id": "anthropic/claude-3-opus", "context_length": 200_000, "pricing": {"prompt": "0.000015",
            "completion": "0.000075", "input_cache_read": "0.0000015", "input_cache_write": "0.00001875"},
            "top_provider": {"max_completion_tokens": 4096}},
        {"id": "free/model:free", "context_length": 4096, "pricing": {"prompt": "0", "completion": "0"}},
        {"id": "strange/price", "pricing": {"prompt": "-1", "completion": "-1"}},
        {"id": "no/price"},
    ]})
}

fn generation(query: &str, seen: &Seen) -> Script {
    let id = query.strip_prefix("id=").unwrap_or_default();
    let bills = seen.bills.lock().unwrap();
    let Some(bill) = bills.get(id) else {
        let error =
            json!({"error": {"code": 404, "message": format!("generation {id} not found")}});
        return Script::json(404, &error);
    };
    let body = json!({"data": {"id": id, "total_cost": bill.micro_usd as f64 / 1e6, "cancelled": !bill.was_reported,
        "native_tokens_prompt": bill.prompt_tokens, "native_tokens_completion": bill.completion_tokens,
        "native_tokens_cached": 0, "native_tokens_reasoning": 0, "model": "m"}});
    Script::json(200, &body)
}

/// Vectors of three numbers for five tokens, which OpenRouter bills 3 micro-dollars; the model's name picks faults.
fn embeddings(body: &Value, shape: Shape) -> Script {
    let n_inputs = body["input"].as_array().map_or(1, Vec::len);
    let name = body["model"].as_str().unwrap_or_default();
    let vector =
        |n: usize| json!({"object": "embedding", "index": n, "embedding": [n as f64, 0.5, -1.0]});
    let mut data: Vec<Value> = (0..n_inputs).map(vector).collect();
    match name {
        "fault:too-few" => drop(data.pop()),
        "fault:reversed" => data.reverse(),
        "fault:ragged" => data[0]["embedding"] = json!([1.0]),
        "fault:words" => data[0]["embedding"] = json!(["a"]),
        "fault:status-429" => {
            let error = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
            return Script::json(429, &error).with_header("retry-after", "2");
        }
        _ => {}
    }
    let mut usage = json!({"prompt_tokens": 5, "total_tokens": 5});
    if shape == Shape::OpenRouter {
        usage["cost"] = json!(0.000_003);
    }
    if name == "fault:usage-missing" {
        usage = Value::Null;
    }
    let answer = json!({"object": "list", "model": name, "data": data, "usage": usage});
    Script::json(200, &answer)
}
