//! An answer in OpenAI's words, chunk by chunk or whole.

use std::sync::Arc;

use serde_json::Value;

use super::calls::Calls;
use crate::backend::provider::decimal::usd;
use crate::backend::provider::facts::AnswerFacts;
use crate::backend::provider::fault::{Fault, error_object, of_error};
use crate::backend::provider::options::Dialect;
use crate::backend::provider::reader::Step;
use crate::backend::provider::sse::Event;
use crate::chat::{ChatDelta, FinishReason, Usage};

/// Reads one answer.
#[derive(Debug)]
pub(in crate::backend::provider) struct Deltas {
    dialect: Dialect,
    facts: Arc<AnswerFacts>,
    calls: Calls,
    finish: Option<FinishReason>,
}

impl Deltas {
    pub(in crate::backend::provider) fn new(dialect: Dialect, facts: Arc<AnswerFacts>) -> Self {
        Self {
            dialect,
            facts,
            calls: Calls::default(),
            finish: None,
        }
    }

    /// Reads an event and puts what it says into `found`.
    pub(in crate::backend::provider) fn event(
        &mut self,
        event: &Event,
        found: &mut Vec<ChatDelta>,
    ) -> Result<Step, Fault> {
        if event.data.trim() == "[DONE]" {
            return Ok(Step::Ended);
        }
        let chunk: Value =
            serde_json::from_str(&event.data).map_err(|_| Fault::garbled("an event is no JSON"))?;
        if event.name == "error" {
            return Err(of_error(self.dialect, error_object(&chunk)));
        }
        self.piece(&chunk, "delta", found)?;
        Ok(Step::Goes)
    }

    /// Reads an answer that came whole.
    pub(in crate::backend::provider) fn whole(
        &mut self,
        body: &Value,
        found: &mut Vec<ChatDelta>,
    ) -> Result<(), Fault> {
        if body.get("choices").is_none() && body.get("error").is_none() {
            return Err(Fault::garbled("the answer has no choices"));
        }
        self.piece(body, "message", found)
    }

    /// How it ended; absent: it did not.
    pub(in crate::backend::provider) fn finish(&self) -> Option<FinishReason> {
        self.finish
    }

    /// A chunk whose news stand in `place`.
    fn piece(
        &mut self,
        chunk: &Value,
        place: &str,
        found: &mut Vec<ChatDelta>,
    ) -> Result<(), Fault> {
        let text = |name: &str| chunk.get(name).and_then(Value::as_str);
        for (name, learn) in [
            (
                "id",
                AnswerFacts::learn_generation as fn(&AnswerFacts, &str),
            ),
            ("model", AnswerFacts::learn_model),
            ("provider", AnswerFacts::learn_upstream),
        ] {
            if let Some(text) = text(name) {
                learn(&self.facts, text);
            }
        }
        if let Some(usage) = chunk.get("usage").and_then(usage_of) {
            self.facts.learn_usage(usage);
        }
        let is_error = text("object") == Some("error");
        if is_error || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(of_error(self.dialect, error_object(chunk)));
        }
        let Some(choice) = choice_of(chunk) else {
            return Ok(());
        };
        if let Some(error) = choice.get("error").filter(|error| !error.is_null()) {
            return Err(of_error(self.dialect, error));
        }
        if let (Some(news), None) = (choice.get(place), self.finish) {
            self.news(news, found)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.calls.end()?;
            self.finish = Some(self.reason(reason)?);
        }
        Ok(())
    }

    fn news(&mut self, news: &Value, found: &mut Vec<ChatDelta>) -> Result<(), Fault> {
        let text = |name: &str| news.get(name).map(text_of).filter(|text| !text.is_empty());
        if let Some(thought) = text("reasoning_content").or_else(|| text("reasoning")) {
            found.push(ChatDelta::Reasoning(thought));
        }
        if let Some(said) = text("content").or_else(|| text("refusal")) {
            found.push(ChatDelta::Text(said));
        }
        if let Some(Value::Array(pieces)) = news.get("tool_calls") {
            for piece in pieces {
                found.extend(self.calls.piece(piece)?.map(ChatDelta::ToolCall));
            }
        }
        Ok(())
    }

    fn reason(&self, reason: &str) -> Result<FinishReason, Fault> {
        Ok(match reason {
            "stop" | "eos" | "end_turn" | "stop_sequence" | "complete" if self.calls.is_empty() => {
                FinishReason::Stop
            }
            // Some say of calls, too, that they stop.
            "tool_calls" | "function_call" | "tool_use" | "stop" | "eos" | "end_turn"
            | "stop_sequence" | "complete" => FinishReason::ToolCalls,
            "length" | "max_tokens" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Fault::garbled(format!("it ended for the reason {other:?}")));
            }
        })
    }
}

/// The choice that was asked for: others are nobody's.
fn choice_of(chunk: &Value) -> Option<&Value> {
    let choices = chunk.get("choices")?.as_array()?;
    let is_first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
    choices.iter().find(is_first)
}

/// A text, or the texts of a list of parts.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect()
        }
        _ => String::new(),
    }
}

/// What an answer took; absent: nobody counted.
fn usage_of(usage: &Value) -> Option<Usage> {
    let number = |place: &str| {
        let number = usage.pointer(place).and_then(Value::as_f64)?;
        // Floats become what they are next to: none is negative or too great.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float stays within the bounds of its type"
        )]
        Some(number as u32)
    };
    let prompt_tokens = number("/prompt_tokens");
    let completion_tokens = number("/completion_tokens");
    let cost = usage.get("cost").and_then(usd);
    if prompt_tokens.is_none() && completion_tokens.is_none() && cost.is_none() {
        return None;
    }
    Some(Usage {
        prompt_tokens: prompt_tokens.unwrap_or(0),
        completion_tokens: completion_tokens.unwrap_or(0),
        cached_tokens: number("/prompt_tokens_details/cached_tokens").unwrap_or(0),
        cache_write_tokens: number("/prompt_tokens_details/cache_write_tokens").unwrap_or(0),
        reasoning_tokens: number("/completion_tokens_details/reasoning_tokens").unwrap_or(0),
        cost,
        is_estimated: false,
    })
}
