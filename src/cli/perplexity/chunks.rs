//! A text's tokens in chunks of one length, as they are evaluated.

use std::ops::Range;

use crate::chat::TokenId;
use crate::text::{Framing, SpecialTokens, Text};

/// The chunks; what is left at the end of a text is not evaluated.
#[derive(Debug)]
pub(super) struct Chunks {
    token_ids: Vec<TokenId>,
    chunk_len: usize,
}

impl Chunks {
    /// Cuts a text. Where the model wants a token in front of every text, it takes the place of each
    /// chunk's first one, as in llama.cpp's tool, so that the same tokens are scored.
    ///
    /// Errors: the text is too long, or too short for one chunk.
    pub(super) fn new(
        text: &Text,
        content: &str,
        chunk_len: usize,
        at_most: Option<usize>,
    ) -> anyhow::Result<Self> {
        let beginning = text.beginning();
        let plain = text.encode(content, SpecialTokens::AsText, Framing::Bare)?;
        let mut token_ids: Vec<TokenId> = beginning.into_iter().chain(plain).collect();
        let n_tokens = token_ids.len();
        anyhow::ensure!(
            n_tokens >= chunk_len,
            "the text has {n_tokens} tokens and a chunk takes {chunk_len}: \
             take a longer text or a smaller --ctx-chunk"
        );
        let n_chunks = (n_tokens / chunk_len).min(at_most.unwrap_or(usize::MAX));
        token_ids.truncate(n_chunks * chunk_len);
        if let Some(beginning) = beginning {
            for chunk in token_ids.chunks_exact_mut(chunk_len) {
                chunk[0] = beginning;
            }
        }
        Ok(Self {
            token_ids,
            chunk_len,
        })
    }

    pub(super) fn n_chunks(&self) -> usize {
        self.token_ids.len() / self.chunk_len
    }

    /// Tokens of each.
    pub(super) fn chunk_len(&self) -> usize {
        self.chunk_len
    }

    /// The positions whose predictions count. Before them there is too little to go by; the last
    /// one's has nothing to be held against.
    pub(super) fn scored(&self) -> Range<usize> {
        self.chunk_len / 2..self.chunk_len - 1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[TokenId]> {
        self.token_ids.chunks_exact(self.chunk_len)
    }
}
