//! What can go wrong between tokens in and tokens out.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use crate::chat::TokenId;

/// Why an engine did not start, or why it gave a request up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// An option no engine can run with.
    #[error("engine option {name} is {value}: it must be at least 1")]
    Option {
        /// The field of [`EngineOptions`](super::EngineOptions), or of the model's limits.
        name: &'static str,
        /// What it was set to.
        value: usize,
    },
    /// The operating system gave no thread.
    #[error("no thread for the engine: {0}")]
    Thread(Arc<std::io::Error>),
    /// The network could not compute the step this request was part of.
    #[error("the model could not compute a step: {0}")]
    Forward(Arc<dyn StdError + Send + Sync>),
    /// A logit is not a number that can be compared.
    #[error(
        "the logits at position {position} hold {value} for token {token}: \
         the model file may be damaged"
    )]
    Logits {
        /// Position in the context whose token was to be drawn.
        position: u32,
        /// The first token with such a logit.
        token: TokenId,
        /// NaN or infinity.
        value: f32,
    },
    /// Every token is forbidden, so none can be drawn.
    #[error("no token may follow at position {position}: all are masked")]
    NoTokenLeft {
        /// Position in the context whose token was to be drawn.
        position: u32,
    },
    /// The receiver held no room for longer than [`EngineOptions::reader_timeout`]
    /// (super::EngineOptions::reader_timeout).
    #[error("the answer was not read for {waited:?} with {n_unread} tokens unread: cancelled")]
    SlowReader {
        /// How long the sequence was paused.
        waited: Duration,
        /// Tokens that wait in the channel.
        n_unread: usize,
    },
    /// The engine was dropped while the request ran or waited.
    #[error("the engine was stopped")]
    Stopped,
    /// The engine's thread panicked; nothing runs on it any more.
    #[error("the engine failed: {reason}")]
    Failed {
        /// The panic's message.
        reason: Arc<str>,
    },
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing to answer.
    #[error("the prompt is empty: it needs at least one token")]
    EmptyPrompt,
    /// The prompt, with room for one token if any is wanted, exceeds the context.
    #[error(
        "the prompt of {n_prompt_tokens} tokens exceeds the available context size of {n_ctx} \
         tokens: shorten it or load the model with a larger context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        n_prompt_tokens: u32,
        /// Tokens a sequence may hold, answer included.
        n_ctx: u32,
    },
    /// A prompt token the model does not know.
    #[error("prompt token {token} is outside the vocabulary of {n_vocab} tokens")]
    TokenOutOfRange {
        /// The first such token.
        token: TokenId,
        /// Size of the model's vocabulary.
        n_vocab: usize,
    },
    /// A sampling value without a meaning.
    #[error("{name} is {value}: it must be {must_be}")]
    Sampling {
        /// The field of [`Sampling`](crate::chat::Sampling).
        name: &'static str,
        /// What it was set to.
        value: f32,
        /// The values that have a meaning.
        must_be: &'static str,
    },
    /// All places are taken: ask again later.
    #[error("the engine is busy: {n_waiting} requests wait already, try again later")]
    QueueFull {
        /// Requests that wait.
        n_waiting: usize,
    },
    /// The engine takes no requests any more.
    #[error("the engine takes no requests: {reason}")]
    Stopped {
        /// Why not.
        reason: String,
    },
}
