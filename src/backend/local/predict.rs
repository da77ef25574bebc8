//! When a request would be answered here, before anything is loaded or queued for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::LocalBackend;
use crate::backend::BackendError;
use crate::chat::{BYTES_PER_TOKEN, ChatRequest};
use crate::engine::predict::Prediction;
use crate::pool::{ModelId, ModelOutlook};

/// Tokens the chat template adds to each message.
const TOKENS_PER_MESSAGE: f64 = 6.0;
/// Requests after which a request counts half.
const HALF_LIFE: f64 = 16.0;
/// Models whose texts are remembered.
const MODELS_MOST: usize = 256;

/// What is foreseen of a request.
#[derive(Clone, Debug)]
pub struct Foresight {
    /// The model by its one name.
    pub model: ModelId,
    /// Tokens its prompt will have, as far as its length tells: nothing is encoded for this.
    pub n_prompt_tokens: u32,
    /// When it would be answered; absent where nobody can know.
    pub prediction: Option<Prediction>,
    /// What that rests on: where the model stands, its engine's queue, and how right predictions were.
    pub outlook: ModelOutlook,
}

/// How many bytes a token has in the texts each model was given.
#[derive(Clone, Debug, Default)]
pub(super) struct TextLengths(Arc<Mutex<BTreeMap<ModelId, Counted>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    n_bytes: f64,
    n_tokens: f64,
}

impl TextLengths {
    /// Counts a prompt that was encoded.
    pub(super) fn count(&self, model: &ModelId, request: &ChatRequest, n_tokens: u32) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS_MOST && !models.contains_key(model) {
            return;
        }
        let counted = models.entry(model.clone()).or_default();
        let fade = (-1.0 / HALF_LIFE).exp2();
        let framing = TOKENS_PER_MESSAGE * request.messages.len() as f64;
        counted.n_bytes = counted.n_bytes * fade + text_bytes(request);
        counted.n_tokens = counted.n_tokens * fade + (f64::from(n_tokens) - framing).max(1.0);
    }

    /// Tokens a prompt will have.
    pub(super) fn estimate(&self, model: &ModelId, request: &ChatRequest) -> u32 {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many bytes as a short text count for the general.
        let counted = models.get(model).copied().unwrap_or_default();
        let per_token =
            (counted.n_bytes + 64.0 * BYTES_PER_TOKEN as f64) / (counted.n_tokens + 64.0);
        let framing = TOKENS_PER_MESSAGE * request.messages.len() as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; a length is not negative"
        )]
        {
            (text_bytes(request) / per_token + framing).ceil() as u32
        }
    }
}

fn text_bytes(request: &ChatRequest) -> f64 {
    let texts = request.messages.iter().flat_map(|message| &message.content);
    let bytes: usize = texts
        .map(|part| match part {
            crate::chat::ContentPart::Text(text) => text.len(),
            crate::chat::ContentPart::Image(_) => 0,
        })
        .sum();
    bytes as f64
}

impl LocalBackend {
    /// When `request` would be answered here if it came now. Loads nothing, queues nothing and encodes
    /// nothing; takes less than a millisecond, but for a model's first time, when its file is looked at.
    ///
    /// # Errors
    /// [`BackendError`] for a model that is not known.
    pub async fn predict(&self, request: &ChatRequest) -> Result<Foresight, BackendError> {
        self.predict_by(&request.model, request).await
    }

    /// As [`predict`](Self::predict), by the model of another name.
    ///
    /// # Errors
    /// As for [`predict`](Self::predict).
    pub async fn predict_by(
        &self,
        name: &str,
        request: &ChatRequest,
    ) -> Result<Foresight, BackendError> {
        let model = self.pool.canonical(name)?;
        let outlook = self.pool.outlook(model.as_str()).await?;
        let n_prompt_tokens = self.text_lengths.estimate(&model, request);
        let max_new_tokens = request.max_new_tokens.unwrap_or(u32::MAX);
        Ok(Foresight {
            prediction: outlook.predict(n_prompt_tokens, max_new_tokens),
            model,
            n_prompt_tokens,
            outlook,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};

    fn request(n_bytes: usize) -> ChatRequest {
        let text = "x".repeat(n_bytes);
        ChatRequest::new("m", vec![Message::text(Role::User, text)])
    }

    #[test]
    fn a_models_texts_tell_how_many_bytes_its_tokens_have() {
        let (lengths, model) = (TextLengths::default(), ModelId::new("m"));
        assert_eq!(lengths.estimate(&model, &request(4000)), 1006);
        for _ in 0..20 {
            lengths.count(&model, &request(3000), 1006);
        }
        let n_tokens = lengths.estimate(&model, &request(6000));
        assert!((1980..=2020).contains(&n_tokens), "{n_tokens}");
        let other = ModelId::new("other");
        assert_eq!(lengths.estimate(&other, &request(4000)), 1006);
    }
}
