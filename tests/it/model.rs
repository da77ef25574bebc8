//! The network: against candle's own, against the formula in double precision, and against itself.

mod files;
mod oracle;
mod placed;
mod reference;
mod same_bits;

use std::path::Path;
use std::sync::Arc;

use ingle::gguf::Gguf;
use ingle::model::{
    BLOCK_LEN, Batch, Error, Form, KvType, Limits, Model, ModelConfig, Placement, unwatched,
};
use ingle_kernels::{Isa, Team};

use crate::gguf_file::{GgufFile, TinyLlama};

/// A model and what the cache's blocks are lent to.
pub(crate) struct Bench {
    model: Model,
    free: Vec<u32>,
}

/// A sequence: its tokens, how many of them are in the cache, and where.
#[derive(Clone, Default)]
struct Sequence {
    tokens: Vec<u32>,
    n_cached: usize,
    blocks: Vec<u32>,
}

const LIMITS: Limits = Limits {
    max_batch_tokens: 256,
    max_logit_rows: 256,
    n_blocks: 40,
    kv_type: KvType::F16,
};

fn team(n_threads: usize) -> Arc<Team> {
    Team::new(n_threads.try_into().unwrap(), Isa::detect())
}

fn load(gguf: &Gguf, limits: Limits, team: Arc<Team>) -> Result<Model, Error> {
    let config = ModelConfig::from_gguf(gguf)?;
    let placement = Placement::default();
    Model::load(gguf, &config, limits, &placement, team, &mut unwatched)
}

fn open(bytes: Vec<u8>) -> Gguf {
    Gguf::from_bytes(Path::new("test.gguf"), bytes).unwrap()
}

fn load_file(file: &GgufFile) -> Result<Model, Error> {
    load(&open(file.to_bytes()), LIMITS, team(1))
}

impl Bench {
    pub(crate) fn new(gguf: &Gguf, n_threads: usize) -> Self {
        Self::with_kv(gguf, n_threads, KvType::F16)
    }

    fn with_kv(gguf: &Gguf, n_threads: usize, kv_type: KvType) -> Self {
        let limits = Limits { kv_type, ..LIMITS };
        Self::of(load(gguf, limits, team(n_threads)).unwrap())
    }

    /// With the tensor library's own products.
    fn for_candle(gguf: &Gguf) -> Self {
        let config = ModelConfig::from_gguf(gguf).unwrap();
        let placement = Placement::on_cpu(Form::ForCandle);
        let model = Model::load(gguf, &config, LIMITS, &placement, team(1), &mut unwatched);
        Self::of(model.unwrap())
    }

    fn of(model: Model) -> Self {
        // Taken from the end: a sequence's blocks do not lie in order.
        let n_blocks = u32::try_from(LIMITS.n_blocks).unwrap();
        let free = (0..n_blocks).map(|i| i * 7 % n_blocks).rev().collect();
        Self { model, free }
    }

    fn tiny(tiny: &TinyLlama, n_threads: usize) -> Self {
        Self::new(&open(tiny.to_bytes()), n_threads)
    }

    fn sequence(&mut self, tokens: &[u32]) -> Sequence {
        let n_blocks = tokens.len().div_ceil(BLOCK_LEN);
        Sequence {
            tokens: tokens.to_vec(),
            n_cached: 0,
            blocks: self.free.split_off(self.free.len() - n_blocks),
        }
    }

    fn release(&mut self, sequence: Sequence) {
        self.free.extend(sequence.blocks);
    }

    /// Computes so many tokens of each sequence in one step; the logits of all of them, in order.
    fn step(&mut self, rows: &mut [(&mut Sequence, usize)]) -> Vec<Vec<f32>> {
        let mut batch = Batch {
            cu_seqlens: vec![0],
            ..Batch::default()
        };
        for (sequence, n_tokens) in rows.iter_mut() {
            let first = sequence.n_cached;
            for position in first..first + *n_tokens {
                let block = sequence.blocks[position / BLOCK_LEN];
                let slot = block as usize * BLOCK_LEN + position % BLOCK_LEN;
                batch.token_ids.push(sequence.tokens[position]);
                batch.positions.push(u32::try_from(position).unwrap());
                batch.slot_mapping.push(u32::try_from(slot).unwrap());
            }
            sequence.n_cached += *n_tokens;
            let end = u32::try_from(batch.token_ids.len()).unwrap();
            batch.cu_seqlens.push(end);
            batch.block_tables.push(sequence.blocks.clone());
        }
        batch.logit_rows = (0..u32::try_from(batch.token_ids.len()).unwrap()).collect();
        let logits = self.model.forward(&batch).unwrap();
        (0..logits.n_rows())
            .map(|row| logits.row(row).to_vec())
            .collect()
    }

    /// The logits of every position, computed in chunks of the given sizes.
    pub(crate) fn logits(&mut self, tokens: &[u32], chunks: &[usize]) -> Vec<Vec<f32>> {
        let mut sequence = self.sequence(tokens);
        let mut logits = Vec::new();
        for &chunk in chunks {
            logits.extend(self.step(&mut [(&mut sequence, chunk)]));
        }
        assert_eq!(logits.len(), tokens.len());
        self.release(sequence);
        logits
    }
}

/// So many tokens below `n_vocab`, the same for the same seed.
fn tokens(seed: u32, n: usize, n_vocab: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % n_vocab
    };
    (0..n).map(|_| next()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The highest value's place, and its distance to the next.
fn best(logits: &[f32]) -> (usize, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0], logits[order[0]] - logits[order[1]])
}
