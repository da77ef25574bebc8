//! One sequence: a prompt, what was generated after it, and how far the cache has come.

use super::blocks::Block;
use super::predict::SequenceLoad;
use super::request::GenerateRequest;
use super::sampler::Sampler;
use crate::chat::{FinishReason, TokenId, Usage};
use crate::model::{BLOCK_LEN, Pooler};

/// A sequence's number. Later ones are greater, so it is its age too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SeqId(pub(super) u64);

/// The state of one sequence between steps.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sequence {
    pub(super) id: SeqId,
    /// The prompt, then what was generated.
    tokens: Vec<TokenId>,
    n_prompt: u32,
    /// It ends when it holds so many tokens.
    max_tokens: u32,
    stop_tokens: Vec<TokenId>,
    /// Tokens whose keys and values are in the cache.
    pub(super) n_computed: u32,
    /// The blocks they lie in, in order; there may be room for more.
    pub(super) block_table: Vec<Block>,
    pub(super) sampler: Sampler,
    /// Its reader has no room: it is skipped.
    pub(super) paused: bool,
    /// What makes a vector of its prompt, where one is wanted; it sees every token computed.
    pub(super) pooler: Option<Pooler>,
}

impl Sequence {
    /// A sequence that has computed nothing. `seed` is used when the request names none.
    pub(super) fn new(id: SeqId, request: GenerateRequest, n_ctx: u32, seed: u64) -> Self {
        let GenerateRequest {
            prompt,
            sampling,
            max_new_tokens,
            stop_tokens,
        } = request;
        let n_prompt = count(prompt.len());
        Self {
            id,
            n_prompt,
            max_tokens: n_prompt
                .saturating_add(max_new_tokens)
                .min(n_ctx)
                .max(n_prompt),
            sampler: Sampler::new(&sampling, seed, &prompt, &stop_tokens),
            tokens: prompt,
            stop_tokens,
            n_computed: 0,
            block_table: Vec::new(),
            paused: false,
            pooler: None,
        }
    }

    /// Prompt and generated tokens.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// How many they are.
    pub(super) fn n_tokens(&self) -> u32 {
        count(self.tokens.len())
    }

    /// How many of them are generated.
    pub(super) fn n_generated(&self) -> u32 {
        self.n_tokens() - self.n_prompt
    }

    /// Tokens that are not in the cache yet: 1 while decoding, more while evaluating a prompt.
    pub(super) fn n_pending(&self) -> u32 {
        self.n_tokens() - self.n_computed
    }

    /// True when a token is to be drawn after the last one.
    pub(super) fn wants_token(&self) -> bool {
        self.n_tokens() < self.max_tokens
    }

    /// True when nothing is left to compute and nothing to draw: the prompt alone was asked for.
    pub(super) fn is_evaluated(&self) -> bool {
        self.n_pending() == 0 && !self.wants_token()
    }

    /// Blocks it needs to draw its next token and to compute the one after.
    pub(super) fn n_blocks_wanted(&self) -> usize {
        n_blocks_for(self.n_tokens().saturating_add(1).min(self.max_tokens))
    }

    /// Tokens the blocks it holds have room for.
    pub(super) fn n_slots(&self) -> usize {
        self.block_table.len() * BLOCK_LEN
    }

    /// Adds a drawn token; says why the sequence ends with it, if it does.
    pub(super) fn accept(&mut self, token: TokenId) -> Option<FinishReason> {
        self.tokens.push(token);
        self.sampler.observe(token);
        if self.stop_tokens.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.wants_token() {
            None
        } else {
            Some(FinishReason::Length)
        }
    }

    /// As far as it will take time.
    pub(super) fn load(&self) -> SequenceLoad {
        SequenceLoad {
            ticket: self.id.0,
            n_pending: self.n_pending(),
            n_computed: self.n_computed,
            n_generated: self.n_generated(),
            n_new_most: self.max_tokens - self.n_tokens().min(self.max_tokens),
            n_blocks: count(self.block_table.len()),
        }
    }

    /// What it took so far.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.n_prompt,
            completion_tokens: self.n_generated(),
            ..Usage::default()
        }
    }
}

/// Blocks that hold `n_tokens`.
pub(super) fn n_blocks_for(n_tokens: u32) -> usize {
    (n_tokens as usize).div_ceil(BLOCK_LEN)
}

/// A length that the context bounds far below `u32::MAX`.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Sampling;

    fn sequence(n_prompt: u32, max_new_tokens: u32, n_ctx: u32) -> Sequence {
        let request = GenerateRequest {
            prompt: (0..n_prompt).collect(),
            sampling: Sampling::default(),
            max_new_tokens,
            stop_tokens: vec![7],
        };
        Sequence::new(SeqId(0), request, n_ctx, 0)
    }

    #[test]
    fn ends_at_the_asked_length_at_the_contexts_end_and_at_a_stop_token() {
        let mut asked = sequence(3, 2, 100);
        assert_eq!(asked.accept(9), None);
        assert_eq!(asked.accept(9), Some(FinishReason::Length));
        assert_eq!(
            asked.usage(),
            Usage {
                prompt_tokens: 3,
                completion_tokens: 2,
                ..Usage::default()
            }
        );

        let mut full = sequence(3, u32::MAX, 5);
        assert_eq!(full.accept(9), None);
        assert_eq!(full.accept(9), Some(FinishReason::Length));

        let mut stopped = sequence(3, 50, 100);
        assert_eq!(stopped.accept(9), None);
        assert_eq!(stopped.accept(7), Some(FinishReason::Stop));
        assert_eq!(stopped.usage().completion_tokens, 2);
    }

    #[test]
    fn a_prompt_alone_wants_no_token_and_no_room_for_one() {
        let mut sequence = sequence(32, 0, 100);
        assert!(!sequence.wants_token());
        assert_eq!(sequence.n_blocks_wanted(), 1);
        sequence.n_computed = 32;
        assert!(sequence.is_evaluated());
    }
}
