//! What an engine says to the one who asked.

use std::time::Duration;

use super::error::EngineError;
use crate::chat::{FinishReason, TokenId, Usage};

/// One step of an answer. After `Finished` or `Failed` nothing follows.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next token. A stop token ends the answer and is not sent.
    Token(TokenId),
    /// The end.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took; the stop token is counted.
        usage: Usage,
        /// Where the time went.
        timings: Timings,
        /// The vector of the prompt, where one was asked for.
        vector: Option<Vec<f32>>,
    },
    /// The request was given up.
    Failed(EngineError),
}

impl Event {
    /// The same, with the vector of the prompt if it is an end.
    pub(super) fn with_vector(self, made: Option<Vec<f32>>) -> Self {
        match self {
            Self::Finished {
                reason,
                usage,
                timings,
                ..
            } => Self::Finished {
                reason,
                usage,
                timings,
                vector: made,
            },
            other => other,
        }
    }
}

/// Where the time of one request went, by the engine's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the begin of its first step.
    pub queue: Duration,
    /// From there to its first token, or to the end of its prompt if none was wanted.
    pub prefill: Duration,
    /// From there to its last token.
    pub decode: Duration,
}
