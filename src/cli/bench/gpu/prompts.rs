//! Sequences to compute, and their steps.

use crate::chat::TokenId;
use crate::cli::bench::random::Random;
use crate::model::{BLOCK_LEN, Batch, Model};

/// Sequences with blocks of their own, as far as they are computed.
pub(super) struct Sequences {
    tokens: Vec<Vec<TokenId>>,
    n_computed: Vec<usize>,
    blocks: Vec<Vec<u32>>,
}

impl Sequences {
    /// Random tokens of these lengths.
    pub(super) fn new(lengths: &[usize], n_vocab: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut next_block = 0_u32;
        let mut sequences = Self {
            tokens: Vec::new(),
            n_computed: vec![0; lengths.len()],
            blocks: Vec::new(),
        };
        for len in lengths {
            let token = |random: &mut Random| u32::try_from(random.below(n_vocab)).unwrap_or(0);
            sequences
                .tokens
                .push((0..*len).map(|_| token(&mut random)).collect());
            // From the last: a sequence's blocks do not lie in order.
            let n_blocks = u32::try_from(len.div_ceil(BLOCK_LEN)).unwrap_or(0);
            let mut blocks: Vec<u32> = (next_block..next_block + n_blocks).collect();
            blocks.reverse();
            next_block += n_blocks;
            sequences.blocks.push(blocks);
        }
        sequences
    }

    /// Goes on with these sequences by so many tokens each, and returns the logits of each one's last.
    ///
    /// Errors: the model does not compute.
    pub(super) fn step(
        &mut self,
        model: &mut Model,
        parts: &[(usize, usize)],
    ) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut batch = Batch {
            cu_seqlens: vec![0],
            ..Batch::default()
        };
        for &(sequence, n) in parts {
            let begin = self.n_computed[sequence];
            self.n_computed[sequence] = begin + n;
            let blocks = &self.blocks[sequence];
            for position in begin..begin + n {
                batch.token_ids.push(self.tokens[sequence][position]);
                batch.positions.push(u32::try_from(position)?);
                let offset = u32::try_from(position % BLOCK_LEN)?;
                let slot = blocks[position / BLOCK_LEN] * u32::try_from(BLOCK_LEN)? + offset;
                batch.slot_mapping.push(slot);
            }
            let end = u32::try_from(batch.token_ids.len())?;
            batch.cu_seqlens.push(end);
            batch.logit_rows.push(end - 1);
            batch.block_tables.push(blocks.clone());
        }
        let logits = model.forward(&batch)?;
        Ok((0..logits.n_rows())
            .map(|row| logits.row(row).to_vec())
            .collect())
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.n_computed.fill(0);
    }
}
