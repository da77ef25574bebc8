//! Sequences as a replay moves them.

use super::super::super::sequence::n_blocks_for;
use super::super::outlook::SequenceLoad;

/// A sequence that waits, or whose prompt is computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) ticket: u64,
    pub(super) n_pending: u32,
    pub(super) n_computed: u32,
    /// Tokens it will still draw.
    pub(super) n_left: u32,
    pub(super) n_blocks: u32,
    /// It has drawn none.
    pub(super) is_new: bool,
}

impl Live {
    pub(super) fn new(load: &SequenceLoad, n_left: u32) -> Self {
        Self {
            ticket: load.ticket,
            n_pending: load.n_pending,
            n_computed: load.n_computed,
            n_left,
            n_blocks: load.n_blocks,
            is_new: load.n_generated == 0,
        }
    }

    pub(super) fn n_blocks_wanted(&self) -> u32 {
        let n_tokens = self.n_computed + self.n_pending;
        blocks_for(n_tokens.saturating_add(self.n_left.min(1)))
    }
}

/// A sequence that gets a token a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decode {
    pub(super) ticket: u64,
    /// The step after which it is through.
    pub(super) end: u32,
    /// The step it began in, and the tokens it had in the cache then.
    pub(super) begun: (u32, u32),
    /// Blocks that are counted as its own.
    pub(super) n_blocks: u32,
}

impl Decode {
    pub(super) fn n_computed(&self, step: u32) -> u32 {
        self.begun.1.saturating_add(step - self.begun.0)
    }

    pub(super) fn n_lacking(&self, step: u32) -> u32 {
        blocks_for(self.n_computed(step)).saturating_sub(self.n_blocks)
    }
}

fn blocks_for(n_tokens: u32) -> u32 {
    u32::try_from(n_blocks_for(n_tokens)).unwrap_or(u32::MAX)
}

pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
