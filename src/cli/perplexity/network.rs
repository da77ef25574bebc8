//! A network that evaluates chunks, one after the other.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::chat::TokenId;
use crate::model::{BLOCK_LEN, Batch, KvType, Limits, Logits, Model};

/// Tokens of a step, and so rows of logits: the rows of 128 tokens already fill the processor, and
/// those of a whole chunk would take hundreds of megabytes. How a prompt is cut changes no bit.
const STEP_TOKENS: usize = 128;

/// A network and the time it took.
pub(super) struct Network {
    model: Model,
    block_table: Vec<u32>,
    /// What the steps took, all together.
    pub(super) time: Duration,
}

/// The largest step and the cache for chunks of so many tokens.
pub(super) fn limits(chunk_len: usize, kv_type: KvType) -> Limits {
    let step = STEP_TOKENS.min(chunk_len);
    Limits {
        max_batch_tokens: step,
        max_logit_rows: step,
        n_blocks: chunk_len.div_ceil(BLOCK_LEN),
        kv_type,
    }
}

/// The positions of a chunk, a step's at a time.
pub(super) fn pieces(chunk_len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..chunk_len)
        .step_by(STEP_TOKENS)
        .map(move |first| first..chunk_len.min(first + STEP_TOKENS))
}

impl Network {
    /// `model` is loaded within [`limits`].
    pub(super) fn new(model: Model) -> anyhow::Result<Self> {
        let n_blocks = u32::try_from(model.limits().n_blocks)?;
        Ok(Self {
            model,
            block_table: (0..n_blocks).collect(),
            time: Duration::ZERO,
        })
    }

    /// Computes a piece of a chunk, the one after the last that was computed unless it is the first.
    /// The logits are those of the positions in `scored`.
    ///
    /// Errors: the network does not compute.
    pub(super) fn step(
        &mut self,
        chunk: &[TokenId],
        piece: Range<usize>,
        scored: Range<usize>,
    ) -> anyhow::Result<Logits<'_>> {
        let narrow = |number: usize| u32::try_from(number);
        let first = piece.start;
        let positions = piece.clone().map(narrow).collect::<Result<Vec<_>, _>>()?;
        let rows = scored.map(|position| narrow(position - first));
        let batch = Batch {
            token_ids: chunk[piece.clone()].to_vec(),
            // Block after block, from the first: a slot is a position.
            slot_mapping: positions.clone(),
            cu_seqlens: vec![0, narrow(piece.len())?],
            block_tables: vec![self.block_table.clone()],
            logit_rows: rows.collect::<Result<_, _>>()?,
            positions,
            ..Batch::default()
        };
        let clock = Instant::now();
        let logits = self.model.forward(&batch)?;
        self.time += clock.elapsed();
        Ok(logits)
    }
}
