//! An answer in Anthropic's words, event by event or whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::backend::provider::facts::AnswerFacts;
use crate::backend::provider::fault::{Fault, error_object, of_error};
use crate::backend::provider::options::Dialect;
use crate::backend::provider::reader::Step;
use crate::backend::provider::sse::Event;
use crate::chat::{ChatDelta, FinishReason, ToolCallDelta, Usage};

/// Calls an answer may hold.
const CALLS_MOST: usize = 128;

/// Reads one answer.
#[derive(Debug)]
pub(in crate::backend::provider) struct Deltas {
    facts: Arc<AnswerFacts>,
    /// Calls by the number of their block.
    calls: BTreeMap<u64, Call>,
    usage: Counts,
    finish: Option<FinishReason>,
}

#[derive(Debug)]
struct Call {
    index: u32,
    /// Arguments that came with the call's beginning, until others do.
    first: Option<String>,
}

/// Counters, the last that were heard.
#[derive(Debug, Default)]
struct Counts {
    input: u32,
    cache_read: u32,
    cache_write: u32,
    output: u32,
}

impl Deltas {
    pub(in crate::backend::provider) fn new(facts: Arc<AnswerFacts>) -> Self {
        Self {
            facts,
            calls: BTreeMap::new(),
            usage: Counts::default(),
            finish: None,
        }
    }

    /// How it ended; absent: it did not.
    pub(in crate::backend::provider) fn finish(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Reads an event and puts what it says into `found`.
    pub(in crate::backend::provider) fn event(
        &mut self,
        event: &Event,
        found: &mut Vec<ChatDelta>,
    ) -> Result<Step, Fault> {
        let body: Value =
            serde_json::from_str(&event.data).map_err(|_| Fault::garbled("an event is no JSON"))?;
        let kind = body
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or(&event.name);
        let index = body.get("index").and_then(Value::as_u64).unwrap_or(0);
        match kind {
            "message_start" => self.start(body.get("message").unwrap_or(&Value::Null)),
            "content_block_start" => {
                let block = body.get("content_block").unwrap_or(&Value::Null);
                self.block(index, block, found)?;
            }
            "content_block_delta" => {
                let delta = body.get("delta").unwrap_or(&Value::Null);
                self.delta(index, delta, found);
            }
            "content_block_stop" => self.stop(index, found),
            "message_delta" => {
                self.count(body.get("usage"), true);
                let reason = body.pointer("/delta/stop_reason").and_then(Value::as_str);
                self.finish_with(reason, found)?;
            }
            "message_stop" => return Ok(Step::Ended),
            "error" => return Err(of_error(Dialect::Anthropic, error_object(&body))),
            // `ping`, and what is not known yet.
            _ => {}
        }
        Ok(Step::Goes)
    }

    /// Reads an answer that came whole.
    pub(in crate::backend::provider) fn whole(
        &mut self,
        body: &Value,
        found: &mut Vec<ChatDelta>,
    ) -> Result<(), Fault> {
        if body.get("error").is_some_and(|error| !error.is_null()) {
            return Err(of_error(Dialect::Anthropic, error_object(body)));
        }
        let Some(Value::Array(blocks)) = body.get("content") else {
            return Err(Fault::garbled("the answer has no content"));
        };
        self.start(body);
        for (index, block) in (0..).zip(blocks) {
            self.block(index, block, found)?;
            self.stop(index, found);
        }
        self.count(body.get("usage"), true);
        self.finish_with(body.get("stop_reason").and_then(Value::as_str), found)
    }

    fn start(&mut self, message: &Value) {
        let text = |name: &str| message.get(name).and_then(Value::as_str);
        self.facts.learn_generation(text("id").unwrap_or_default());
        self.facts.learn_model(text("model").unwrap_or_default());
        self.count(message.get("usage"), false);
    }

    fn block(
        &mut self,
        number: u64,
        block: &Value,
        found: &mut Vec<ChatDelta>,
    ) -> Result<(), Fault> {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => say(text("text"), ChatDelta::Text, found),
            "thinking" => say(text("thinking"), ChatDelta::Reasoning, found),
            "tool_use" => {
                let (id, name) = (text("id"), text("name"));
                if id.is_empty() || name.is_empty() {
                    return Err(Fault::garbled("it calls a tool without an id or a name"));
                }
                let n_calls = self.calls.len();
                if n_calls >= CALLS_MOST {
                    return Err(Fault::garbled(format!(
                        "it calls more than {CALLS_MOST} tools"
                    )));
                }
                let index = u32::try_from(n_calls).unwrap_or(u32::MAX);
                let input = block.get("input").unwrap_or(&Value::Null);
                let first = if input.is_object() {
                    input.clone()
                } else {
                    json!({})
                };
                let first = Some(first.to_string());
                self.calls.insert(number, Call { index, first });
                found.push(ChatDelta::ToolCall(ToolCallDelta {
                    index,
                    id: Some(id.to_owned()),
                    name: Some(name.to_owned()),
                    arguments: String::new(),
                }));
            }
            // What the provider's own tools do, and thoughts nobody may read.
            _ => {}
        }
        Ok(())
    }

    fn delta(&mut self, number: u64, delta: &Value, found: &mut Vec<ChatDelta>) {
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text_delta" => say(text("text"), ChatDelta::Text, found),
            "thinking_delta" => say(text("thinking"), ChatDelta::Reasoning, found),
            "input_json_delta" => {
                let piece = text("partial_json");
                let Some(call) = self.calls.get_mut(&number) else {
                    // Of a tool the provider calls itself.
                    return;
                };
                if !piece.is_empty() {
                    call.first = None;
                    found.push(more(call.index, piece.to_owned()));
                }
            }
            _ => {}
        }
    }

    /// A call without arguments is one with none, which are written too.
    fn stop(&mut self, number: u64, found: &mut Vec<ChatDelta>) {
        if let Some(call) = self.calls.get_mut(&number)
            && let Some(arguments) = call.first.take()
        {
            found.push(more(call.index, arguments));
        }
    }

    fn finish_with(
        &mut self,
        reason: Option<&str>,
        found: &mut Vec<ChatDelta>,
    ) -> Result<(), Fault> {
        let Some(reason) = reason else { return Ok(()) };
        // Not everybody says of each block that it ended.
        let open: Vec<u64> = self.calls.keys().copied().collect();
        for number in open {
            self.stop(number, found);
        }
        self.finish = Some(match reason {
            "end_turn" | "stop_sequence" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" | "pause_turn" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Fault::garbled(format!("it ended for the reason {other:?}")));
            }
        });
        Ok(())
    }

    /// Takes counters in. Those of the beginning do not know the answer yet.
    fn count(&mut self, usage: Option<&Value>, is_last: bool) {
        let Some(usage) = usage.filter(|usage| usage.is_object()) else {
            return;
        };
        let number = |name: &str| {
            let number = usage.get(name).and_then(Value::as_u64)?;
            Some(u32::try_from(number).unwrap_or(u32::MAX))
        };
        let counts = &mut self.usage;
        counts.input = number("input_tokens").unwrap_or(counts.input);
        counts.cache_read = number("cache_read_input_tokens").unwrap_or(counts.cache_read);
        counts.cache_write = number("cache_creation_input_tokens").unwrap_or(counts.cache_write);
        if is_last {
            counts.output = number("output_tokens").unwrap_or(counts.output);
        }
        let cached = counts.cache_read.saturating_add(counts.cache_write);
        self.facts.learn_usage(Usage {
            prompt_tokens: counts.input.saturating_add(cached),
            completion_tokens: counts.output,
            cached_tokens: counts.cache_read,
            cache_write_tokens: counts.cache_write,
            reasoning_tokens: 0,
            cost: None,
            is_estimated: !is_last,
        });
    }
}

fn say(text: &str, as_what: fn(String) -> ChatDelta, found: &mut Vec<ChatDelta>) {
    if !text.is_empty() {
        found.push(as_what(text.to_owned()));
    }
}

fn more(index: u32, arguments: String) -> ChatDelta {
    ChatDelta::ToolCall(ToolCallDelta {
        index,
        arguments,
        ..ToolCallDelta::default()
    })
}
