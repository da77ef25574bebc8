//! Answers as OpenAI's clients read them: whole, and in chunks.

use serde_json::{Map, Value, json};

use crate::chat::{FinishReason, Said, ToolCallDelta, Usage};

/// What all chunks of an answer share.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    id: String,
    /// Seconds since 1970.
    created: u64,
    model: String,
    system_fingerprint: String,
}

impl Envelope {
    /// An envelope with an id of its own.
    pub(super) fn new(model: &str, created: u64, system_fingerprint: &str) -> Self {
        Self {
            id: format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
            created,
            model: model.to_owned(),
            system_fingerprint: system_fingerprint.to_owned(),
        }
    }

    fn object(&self, kind: &str, choices: Value) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(self.id));
        object.insert("object".to_owned(), json!(kind));
        object.insert("created".to_owned(), json!(self.created));
        object.insert("model".to_owned(), json!(self.model));
        object.insert(
            "system_fingerprint".to_owned(),
            json!(self.system_fingerprint),
        );
        object.insert("choices".to_owned(), choices);
        object
    }

    /// The whole answer.
    pub(super) fn completion(&self, said: &Said, reason: FinishReason, usage: Usage) -> Value {
        let content = if said.text.is_empty() && !said.tool_calls.is_empty() {
            Value::Null
        } else {
            json!(said.text)
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !said.reasoning.is_empty() {
            message["reasoning_content"] = json!(said.reasoning);
        }
        if !said.tool_calls.is_empty() {
            let calls = said.tool_calls.iter().map(|call| {
                json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            });
            message["tool_calls"] = calls.collect();
        }
        let choices = json!([{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": reason.to_string(),
        }]);
        let mut object = self.object("chat.completion", choices);
        object.insert("usage".to_owned(), usage_object(usage));
        Value::Object(object)
    }

    /// One chunk of a stream. Where usage was asked for, all chunks but the last say null.
    pub(super) fn chunk(&self, delta: &Delta<'_>, with_usage: bool) -> Value {
        let (delta, reason) = match delta {
            Delta::Role => (json!({"role": "assistant", "content": ""}), None),
            Delta::Text(text) => (json!({"content": text}), None),
            Delta::Reasoning(text) => (json!({"reasoning_content": text}), None),
            Delta::ToolCall(call) => (json!({"tool_calls": [tool_call(call)]}), None),
            Delta::Finish(reason) => (json!({}), Some(reason.to_string())),
        };
        let choices = json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason,
        }]);
        let mut object = self.object("chat.completion.chunk", choices);
        if with_usage {
            object.insert("usage".to_owned(), Value::Null);
        }
        Value::Object(object)
    }

    /// The chunk that says that another goes on.
    pub(super) fn continued_chunk(&self, from: &str, by: &str) -> Value {
        let mut object = self.object("chat.completion.chunk", json!([]));
        object.insert("ingle".to_owned(), continued_label(from, by));
        Value::Object(object)
    }

    /// The chunk after the last that says what the answer took.
    pub(super) fn usage_chunk(&self, usage: Usage) -> Value {
        let mut object = self.object("chat.completion.chunk", json!([]));
        object.insert("usage".to_owned(), usage_object(usage));
        Value::Object(object)
    }
}

/// That an answer was begun by one and gone on with by another.
pub(super) fn continued_label(from: &str, by: &str) -> Value {
    json!({"continued_from": from, "continued_by": by})
}

/// A step of a streamed answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delta<'a> {
    /// The first: who speaks.
    Role,
    Text(&'a str),
    Reasoning(&'a str),
    ToolCall(&'a ToolCallDelta),
    Finish(FinishReason),
}

/// A piece of a call; its first names the tool.
fn tool_call(call: &ToolCallDelta) -> Value {
    let mut object = json!({"index": call.index, "function": {"arguments": call.arguments}});
    if let Some(id) = &call.id {
        object["id"] = json!(id);
        object["type"] = json!("function");
    }
    if let Some(name) = &call.name {
        object["function"]["name"] = json!(name);
    }
    object
}

fn usage_object(usage: Usage) -> Value {
    let Usage {
        prompt_tokens,
        completion_tokens,
        ..
    } = usage;
    let mut object = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": u64::from(prompt_tokens) + u64::from(completion_tokens),
    });
    if usage.cached_tokens > 0 || usage.cache_write_tokens > 0 {
        object["prompt_tokens_details"] = json!({
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        });
    }
    if usage.reasoning_tokens > 0 {
        object["completion_tokens_details"] = json!({"reasoning_tokens": usage.reasoning_tokens});
    }
    if let Some(cost) = usage.cost {
        object["cost"] = json!(cost.to_usd());
    }
    object
}
