//! The domain: what an embedding is, in no dialect's words.

use crate::chat::{PromptSize, TokenId};
use crate::keep_alive::KeepAlive;
use crate::money::MicroUsd;

/// A valid request for vectors of texts: every dialect's parser ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model as the client named it.
    pub model: String,
    /// What the vectors are of, at least one.
    pub inputs: Vec<EmbedInput>,
    /// What happens to an input that is too long for the model.
    pub overlong: Overlong,
    /// Numbers of a vector; absent: as many as the model makes.
    pub dimensions: Option<u32>,
    /// How long the model stays in memory afterwards; absent: as it was told before.
    pub keep_alive: Option<KeepAlive>,
}

impl EmbedRequest {
    /// How long all its inputs are together.
    pub fn size(&self) -> PromptSize {
        let texts = self.inputs.iter().filter_map(|input| match input {
            EmbedInput::Text(text) => Some(text.as_str()),
            EmbedInput::Tokens(_) => None,
        });
        let tokens = self.inputs.iter().map(|input| match input {
            EmbedInput::Text(_) => 0,
            EmbedInput::Tokens(tokens) => tokens.len() as u64,
        });
        PromptSize::of_texts(texts, tokens.sum())
    }
}

/// What a vector is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbedInput {
    /// Plain text; the tokens that the model wants around it are added.
    Text(String),
    /// Tokens, which the model sees as they are.
    Tokens(Vec<TokenId>),
}

/// What happens to an input that is too long for the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// The request is refused: nothing is cut off silently.
    #[default]
    Refuse,
    /// Its end is cut off.
    Truncate,
}

/// The vectors of a request's inputs, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// One an input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs, as the model saw them; 0 where a provider does not say.
    pub n_tokens: u64,
    /// What a provider charged for them, where it says so.
    pub cost: Option<MicroUsd>,
}
