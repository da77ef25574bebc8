//! Answers in the words of OpenAI, OpenRouter and Anthropic.

use serde_json::{Value, json};

/// Whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    OpenAi,
    OpenRouter,
    Anthropic,
}

/// The tokens of an answer of so many: the third is not in ASCII.
pub(crate) fn tokens(n_tokens: u64) -> Vec<String> {
    let token = |n: u64| match n {
        2 => "é世🙂 ".to_owned(),
        n => format!("t{n} "),
    };
    (0..n_tokens).map(token).collect()
}

/// One answer's figures.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) shape: Shape,
    pub(super) id: String,
    pub(super) model: String,
    pub(super) prompt_tokens: u64,
    pub(super) micro_usd: u64,
}

/// An event: what stands in its lines.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) name: Option<&'static str>,
    pub(super) data: String,
}

impl Event {
    fn named(name: &'static str, data: &Value) -> Self {
        Self {
            name: Some(name),
            data: data.to_string(),
        }
    }

    pub(super) fn data(data: &Value) -> Self {
        Self {
            name: None,
            data: data.to_string(),
        }
    }

    pub(super) fn text(&self) -> String {
        let name = self
            .name
            .map_or(String::new(), |name| format!("event: {name}\n"));
        format!("{name}data: {}\n\n", self.data)
    }
}

impl Facts {
    fn is_anthropics(&self) -> bool {
        self.shape == Shape::Anthropic
    }

    /// A chunk of OpenAI's and OpenRouter's.
    pub(super) fn chunk(&self, choices: &Value) -> Value {
        let mut chunk = json!({"id": self.id, "object": "chat.completion.chunk", "created": 1_760_000_000,
            "model": self.model, "choices": choices});
        if self.shape == Shape::OpenRouter {
            chunk["provider"] = json!("Scripted");
        }
        chunk
    }

    fn choice(&self, delta: &Value, reason: Option<&str>) -> Value {
        self.chunk(
            &json!([{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": null}]),
        )
    }

    /// What comes before the first token.
    pub(super) fn begin(&self) -> Vec<Event> {
        if self.is_anthropics() {
            let usage = json!({"input_tokens": self.prompt_tokens, "output_tokens": 1});
            let message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
                "content": [], "stop_reason": null, "usage": usage});
            let block = json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}});
            return vec![
                Event::named(
                    "message_start",
                    &json!({"type": "message_start", "message": message}),
                ),
                Event::named("ping", &json!({"type": "ping"})),
                Event::named("content_block_start", &block),
            ];
        }
        vec![Event::data(
            &self.choice(&json!({"role": "assistant", "content": ""}), None),
        )]
    }

    pub(super) fn token(&self, text: &str) -> Event {
        if self.is_anthropics() {
            let delta = json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}});
            return Event::named("content_block_delta", &delta);
        }
        Event::data(&self.choice(&json!({"content": text}), None))
    }

    /// The last words of an answer: its reason, then what it took.
    pub(super) fn end(&self, reason: &str, completion_tokens: u64) -> Vec<Event> {
        if self.is_anthropics() {
            let reason = match reason {
                "stop" => "end_turn",
                "tool_calls" => "tool_use",
                other => other,
            };
            let stop = json!({"type": "content_block_stop", "index": 0});
            let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
                "usage": {"output_tokens": completion_tokens}});
            return vec![
                Event::named("content_block_stop", &stop),
                Event::named("message_delta", &delta),
            ];
        }
        let mut usage = self.chunk(&json!([]));
        usage["usage"] = self.usage(completion_tokens);
        vec![
            Event::data(&self.choice(&json!({}), Some(reason))),
            Event::data(&usage),
        ]
    }

    pub(super) fn usage(&self, completion_tokens: u64) -> Value {
        let prompt_tokens = self.prompt_tokens;
        if self.is_anthropics() {
            return json!({"input_tokens": prompt_tokens, "output_tokens": completion_tokens});
        }
        let mut usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens});
        if self.shape == Shape::OpenRouter {
            usage["cost"] = json!(self.micro_usd as f64 / 1e6);
        }
        usage
    }

    /// The last event of all.
    pub(super) fn done(&self) -> Event {
        if self.is_anthropics() {
            return Event::named("message_stop", &json!({"type": "message_stop"}));
        }
        Event {
            name: None,
            data: "[DONE]".to_owned(),
        }
    }

    /// A call of the tool `weather`, its arguments in pieces.
    pub(super) fn call(&self, arguments: &[&str]) -> Vec<Event> {
        if self.is_anthropics() {
            let block = json!({"type": "content_block_start", "index": 1, "content_block":
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}});
            let piece = |text: &&str| {
                let delta = json!({"type": "content_block_delta", "index": 1,
                    "delta": {"type": "input_json_delta", "partial_json": text}});
                Event::named("content_block_delta", &delta)
            };
            let mut events = vec![Event::named("content_block_start", &block)];
            events.extend(arguments.iter().map(piece));
            return events;
        }
        let first = json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": ""}}]});
        let piece = |text: &&str| {
            let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]});
            Event::data(&self.choice(&delta, None))
        };
        let mut events = vec![Event::data(&self.choice(&first, None))];
        events.extend(arguments.iter().map(piece));
        events
    }

    /// An answer that is no stream.
    pub(super) fn whole(&self, text: &str, completion_tokens: u64) -> Value {
        let usage = self.usage(completion_tokens);
        if self.is_anthropics() {
            return json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
                "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage});
        }
        json!({"id": self.id, "object": "chat.completion", "model": self.model, "usage": usage,
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text}}]})
    }

    /// An error's body, as it stands alone.
    pub(super) fn error(&self, status: u16, message: &str) -> Value {
        match self.shape {
            Shape::OpenAi => {
                let kind = if status < 500 {
                    "invalid_request_error"
                } else {
                    "server_error"
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
            }
            Shape::OpenRouter => json!({"error": {"code": status, "message": message}}),
            Shape::Anthropic => {
                let kind = match status {
                    401 => "authentication_error",
                    402 => "billing_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    504 => "timeout_error",
                    529 => "overloaded_error",
                    400..=499 => "invalid_request_error",
                    _ => "api_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
            }
        }
    }

    /// An error inside a stream.
    pub(super) fn error_event(&self) -> Event {
        match self.shape {
            Shape::OpenAi => Event::data(&json!({"error": {"message": "the server had an error",
                "type": "server_error", "code": null}})),
            Shape::OpenRouter => {
                let mut chunk = self.chunk(&json!([{"index": 0, "delta": {"content": ""},
                    "finish_reason": "error"}]));
                chunk["error"] = json!({"code": "server_error", "message": "provider disconnected",
                    "metadata": {"error_type": "provider_unavailable"}});
                Event::data(&chunk)
            }
            Shape::Anthropic => Event::named(
                "error",
                &json!({"type": "error",
                "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            ),
        }
    }

    /// A finish that is none.
    pub(super) fn finish_error(&self) -> Event {
        if self.is_anthropics() {
            let delta =
                json!({"type": "message_delta", "delta": {"stop_reason": "error"}, "usage": {}});
            return Event::named("message_delta", &delta);
        }
        Event::data(&self.choice(&json!({"content": ""}), Some("error")))
    }
}
