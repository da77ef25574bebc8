//! What can be wrong with a vocabulary, a template or a conversation, one sentence each.

use crate::gguf;

/// Why text cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the model file is absent or of the wrong type.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
}
