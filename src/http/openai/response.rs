//! Answers as OpenAI's clients read them: whole, and in chunks.

use serde_json::{Map, Value, json};

use crate::chat::{FinishReason, Usage};

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
    pub(super) fn completion(&self, text: &str, reason: FinishReason, usage: Usage) -> Value {
        let choices = json!([{
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": null},
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

    /// The chunk after the last that says what the answer took.
    pub(super) fn usage_chunk(&self, usage: Usage) -> Value {
        let mut object = self.object("chat.completion.chunk", json!([]));
        object.insert("usage".to_owned(), usage_object(usage));
        Value::Object(object)
    }
}

/// A step of a streamed answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delta<'a> {
    /// The first: who speaks.
    Role,
    Text(&'a str),
    Finish(FinishReason),
}

fn usage_object(usage: Usage) -> Value {
    let Usage {
        prompt_tokens,
        completion_tokens,
    } = usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": u64::from(prompt_tokens) + u64::from(completion_tokens),
    })
}
