//! What becomes known of an answer while it comes in, for whoever settles what it cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::chat::{BYTES_PER_TOKEN, ChatDelta, ChatRequest, Usage};

/// What is known of an answer: shared with the stream, so that it is there also when that was dropped.
#[derive(Debug, Default)]
pub struct AnswerFacts {
    known: Mutex<Known>,
    /// Tokens of the prompt, guessed.
    prompt_tokens: u32,
    /// Bytes that were answered so far.
    said_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    generation: Option<String>,
    model: Option<String>,
    upstream: Option<String>,
    usage: Option<Usage>,
}

impl AnswerFacts {
    pub(super) fn of(request: &ChatRequest) -> Self {
        Self {
            prompt_tokens: request.prompt_size().about,
            ..Self::default()
        }
    }

    /// The provider's name for this answer, by which its cost can be asked for later.
    pub fn generation(&self) -> Option<String> {
        self.known().generation.clone()
    }

    /// The model that really answers.
    pub fn model(&self) -> Option<String> {
        self.known().model.clone()
    }

    /// Who computes it behind the provider, if that says so.
    pub fn upstream(&self) -> Option<String> {
        self.known().upstream.clone()
    }

    /// What was taken so far: what the provider reported, and where it did not a guess from the texts.
    pub fn usage(&self) -> Usage {
        let reported = self.known().usage;
        let guess = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        let said = self.said_bytes.load(Ordering::Relaxed);
        let said = guess(said.div_ceil(BYTES_PER_TOKEN));
        match reported {
            // A provider that counts nothing for a text did not count.
            Some(usage) if usage.completion_tokens > 0 || said == 0 => usage,
            Some(usage) => Usage {
                prompt_tokens: usage.prompt_tokens.max(self.prompt_tokens),
                completion_tokens: said,
                is_estimated: true,
                ..usage
            },
            None => Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: said,
                is_estimated: true,
                ..Usage::default()
            },
        }
    }

    pub(super) fn learn_generation(&self, id: &str) {
        learn(&mut self.known().generation, id);
    }

    pub(super) fn learn_model(&self, name: &str) {
        learn(&mut self.known().model, name);
    }

    pub(super) fn learn_upstream(&self, name: &str) {
        learn(&mut self.known().upstream, name);
    }

    pub(super) fn learn_usage(&self, usage: Usage) {
        self.known().usage = Some(usage);
    }

    pub(super) fn saw(&self, delta: &ChatDelta) {
        let n_bytes = match delta {
            ChatDelta::Text(text) | ChatDelta::Reasoning(text) => text.len(),
            ChatDelta::ToolCall(piece) => {
                piece.arguments.len() + piece.name.as_ref().map_or(0, String::len)
            }
            ChatDelta::Finished { .. } | ChatDelta::Continued { .. } => 0,
        };
        self.said_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the first name there is; what is too long for one is none.
fn learn(place: &mut Option<String>, name: &str) {
    if place.is_none() && !name.is_empty() && name.len() <= 256 {
        *place = Some(name.to_owned());
    }
}
