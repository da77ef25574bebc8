//! Drives a model directly, without scheduler, sampler or server: steps as the engine makes them, the
//! greatest logit for the next token.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, bail};

use super::points::{Point, Test};
use super::random::Random;
use crate::chat::TokenId;
use crate::model::{BLOCK_LEN, Batch, Logits, Model};

/// A model and the sequences in its cache.
pub(super) struct Driver {
    model: Model,
    /// Tokens of a prompt in one step.
    n_chunk: u32,
    sequences: Vec<Sequence>,
    batch: Batch,
}

/// One sequence, alone in its blocks.
struct Sequence {
    /// Where its tokens are drawn from.
    seed: u64,
    block_table: Vec<u32>,
    /// Positions in a block.
    block_len: u32,
    /// Positions whose keys and values are in the cache.
    n_written: u32,
    last_token: TokenId,
}

impl Driver {
    /// Sequences with so many blocks each, one after the other in the cache of `model`.
    ///
    /// Errors: they are more blocks than can be counted.
    pub(super) fn new(model: Model, n_chunk: u32, blocks: &[u64]) -> anyhow::Result<Self> {
        let mut sequences = Vec::with_capacity(blocks.len());
        let block_len = u32::try_from(BLOCK_LEN)?;
        let n_slots = blocks.iter().sum::<u64>().saturating_mul(block_len.into());
        u32::try_from(n_slots).context("the cache has more slots than can be counted")?;
        let mut first = 0_u32;
        for (seed, n_blocks) in (0..).zip(blocks) {
            let end = u32::try_from(u64::from(first) + n_blocks)?;
            sequences.push(Sequence {
                seed,
                block_table: (first..end).collect(),
                block_len,
                n_written: 0,
                last_token: 0,
            });
            first = end;
        }
        Ok(Self {
            model,
            n_chunk,
            sequences,
            batch: Batch::default(),
        })
    }

    /// Brings every sequence of a point to its depth. What the points before left there stays.
    ///
    /// Errors: a step cannot be computed.
    pub(super) fn fill(&mut self, point: &Point) -> anyhow::Result<()> {
        for sequence in 0..point.n_sequences as usize {
            let begin = self.sequences[sequence].n_written;
            if begin < point.depth {
                self.prompt(sequence, begin..point.depth)?;
            }
        }
        Ok(())
    }

    /// Computes a point whose depth is filled. Units: tokens a second, all sequences together.
    ///
    /// Errors: a step cannot be computed, or the logits are no numbers.
    pub(super) fn measure(&mut self, point: &Point) -> anyhow::Result<f64> {
        let positions = point.depth..point.depth + point.n_tokens;
        let start = Instant::now();
        match point.test {
            Test::Prompt => self.prompt(0, positions)?,
            Test::Decode => {
                for position in positions {
                    self.decode(point.n_sequences as usize, position)?;
                }
            }
        }
        Ok(point.n_tokens_in_all() as f64 / start.elapsed().as_secs_f64())
    }

    /// Computes positions of one sequence in chunks; the last token's logits give the next.
    fn prompt(&mut self, sequence: usize, positions: Range<u32>) -> anyhow::Result<()> {
        let mut begin = positions.start;
        while begin < positions.end {
            let end = positions.end.min(begin.saturating_add(self.n_chunk));
            self.clear();
            self.push(sequence, begin..end, |seed, position, n_vocab| {
                let mut random = Random::new(seed << 32 | u64::from(position));
                TokenId::try_from(random.below(n_vocab)).unwrap_or_default()
            });
            if end == positions.end {
                self.batch.logit_rows.push(end - begin - 1);
            }
            self.step(sequence..sequence + 1)?;
            begin = end;
        }
        Ok(())
    }

    /// Computes one position of the first sequences.
    fn decode(&mut self, n_sequences: usize, position: u32) -> anyhow::Result<()> {
        self.clear();
        for (row, sequence) in (0..).zip(0..n_sequences) {
            let token = self.sequences[sequence].last_token;
            self.push(sequence, position..position + 1, |_, _, _| token);
            self.batch.logit_rows.push(row);
        }
        self.step(0..n_sequences)
    }

    fn clear(&mut self) {
        let batch = &mut self.batch;
        batch.token_ids.clear();
        batch.positions.clear();
        batch.slot_mapping.clear();
        batch.logit_rows.clear();
        batch.block_tables.clear();
        batch.cu_seqlens.clear();
        batch.cu_seqlens.push(0);
    }

    /// Adds positions of a sequence to the step; `token` makes one of seed, position, vocabulary.
    fn push(
        &mut self,
        sequence: usize,
        positions: Range<u32>,
        token: impl Fn(u64, u32, usize) -> TokenId,
    ) {
        let n_vocab = self.model.config().n_vocab;
        let (batch, sequence) = (&mut self.batch, &mut self.sequences[sequence]);
        for position in positions.clone() {
            let place = position as usize;
            let block = sequence.block_table[place / BLOCK_LEN];
            batch
                .token_ids
                .push(token(sequence.seed, position, n_vocab));
            batch.positions.push(position);
            // No cache has more slots than a u32 counts: `new` has seen to it.
            batch
                .slot_mapping
                .push(block * sequence.block_len + position % sequence.block_len);
        }
        let n_before = batch.cu_seqlens.last().copied().unwrap_or_default();
        batch
            .cu_seqlens
            .push(n_before + positions.end - positions.start);
        batch.block_tables.push(sequence.block_table.clone());
        sequence.n_written = sequence.n_written.max(positions.end);
    }

    /// Computes the step; its rows of logits give the sequences their next tokens.
    fn step(&mut self, sequences: Range<usize>) -> anyhow::Result<()> {
        let logits = self.model.forward(&self.batch)?;
        for (row, sequence) in (0..logits.n_rows()).zip(&mut self.sequences[sequences]) {
            match greatest(&logits, row) {
                Some(token) => sequence.last_token = token,
                None => bail!("the logits are no numbers: the model's weights are broken"),
            }
        }
        Ok(())
    }
}

/// The token with the greatest logit, the lowest among equals; none if no logit is a number.
fn greatest(logits: &Logits<'_>, row: usize) -> Option<TokenId> {
    let row = logits.row(row);
    // Sixteen at once, so that no comparison waits for the one before.
    let mut most = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (most, logit) in most.iter_mut().zip(chunk) {
            *most = if logit > most { *logit } else { *most };
        }
    }
    let most = most
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
    let place = row.iter().position(|logit| *logit == most)?;
    TokenId::try_from(place).ok()
}
