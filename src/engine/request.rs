//! What an engine is asked.

use crate::chat::{Sampling, TokenId};

/// A prompt and how to go on from it.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// At least one token, beginning-of-sequence included where the model wants it.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most so many tokens; the context's end ends the answer too. 0 evaluates the prompt only.
    pub max_new_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<TokenId>,
}
