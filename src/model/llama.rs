//! The network of architecture `llama`, written once: Llama 2 and 3, Mistral, CodeLlama, SmolLM2.
//! What differs between them is data in [`ModelConfig`].

use candle_core::Tensor;
use ingle_kernels::{AttentionArgs, KvShape, KvType, Matrix, Output, RopeTable, Turn};

use super::batch::Batch;
use super::config::ModelConfig;
use super::error::Error;
use super::memory::Limits;
use super::ops::{
    Embed, Gather, Linear, PagedAttention, Quantize, RmsNorm, Rope, SiluMul, WriteKv,
};
use super::weights::{Layer, Weights};
use super::workspace::{Workspace, kv_cache};
use super::{BLOCK_LEN, config};

/// Weights, buffers and cache.
#[derive(Debug)]
pub(super) struct Llama {
    config: ModelConfig,
    weights: Weights,
    workspace: Workspace,
    /// One tensor of bytes a layer: the blocks of keys, then those of values.
    kv_cache: Vec<Tensor>,
    kv_type: KvType,
    rope: RopeTable,
}

/// One step: the tokens, and the right to compute.
#[derive(Clone, Copy)]
struct Step<'a> {
    turn: &'a Turn<'a>,
    batch: &'a Batch,
    block_tables: &'a [&'a [u32]],
}

impl Step<'_> {
    fn n_tokens(&self) -> usize {
        self.batch.n_tokens()
    }
}

impl Llama {
    pub(super) fn new(
        config: &ModelConfig,
        weights: Weights,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let rope = rope_table(config, limits, weights.rope_factors.as_deref())?;
        Ok(Self {
            config: config.clone(),
            workspace: Workspace::new(config, limits)?,
            kv_cache: kv_cache(config, limits)?,
            kv_type: limits.kv_type,
            weights,
            rope,
        })
    }

    /// Computes a step and leaves the logits of `batch.logit_rows` in the returned buffer,
    /// `[n_rows, n_vocab]` and more behind them.
    pub(super) fn forward(&self, turn: &Turn<'_>, batch: &Batch) -> Result<&Tensor, Error> {
        let block_tables: Vec<&[u32]> = batch.block_tables.iter().map(Vec::as_slice).collect();
        let step = Step {
            turn,
            batch,
            block_tables: &block_tables,
        };
        let space = &self.workspace;
        space.state.inplace_op1(&Embed {
            embedding: &self.weights.embedding,
            token_ids: &batch.token_ids,
        })?;
        for (layer, cache) in self.weights.layers.iter().zip(&self.kv_cache) {
            self.attend(step, layer, cache)?;
            self.feed_forward(step, layer)?;
        }
        self.logits(step)
    }

    /// Attention over the sequence so far, added to the residual stream.
    fn attend(&self, step: Step<'_>, layer: &Layer, cache: &Tensor) -> Result<(), Error> {
        let Step { turn, batch, .. } = step;
        let space = &self.workspace;
        let shape = self.kv_shape();
        self.normalise(step, &layer.attn_norm)?;
        let projections = [
            (&layer.attn_q, &space.q),
            (&layer.attn_k, &space.k),
            (&layer.attn_v, &space.v),
        ];
        self.project(step, &space.normed, &projections, Output::Write)?;
        for (heads, n_heads) in [
            (&space.q, self.config.n_heads),
            (&space.k, self.config.n_kv_heads),
        ] {
            heads.inplace_op1(&Rope {
                turn,
                n_heads,
                head_dim: shape.head_dim,
                positions: &batch.positions,
                table: &self.rope,
            })?;
        }
        let write = WriteKv {
            turn,
            shape,
            slot_mapping: &batch.slot_mapping,
        };
        cache.inplace_op3(&space.k, &space.v, &write)?;
        let args = AttentionArgs {
            shape,
            n_heads: self.config.n_heads,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            sliding_window: self.config.sliding_window,
            positions: &batch.positions,
            cu_seqlens: &batch.cu_seqlens,
            block_tables: step.block_tables,
        };
        let attention = PagedAttention { turn, args };
        space.attended.inplace_op3(&space.q, cache, &attention)?;
        let back = [(&layer.attn_output, &space.state)];
        self.project(step, &space.attended, &back, Output::Add)
    }

    /// The gated feed-forward layer, added to the residual stream.
    fn feed_forward(&self, step: Step<'_>, layer: &Layer) -> Result<(), Error> {
        let space = &self.workspace;
        self.normalise(step, &layer.ffn_norm)?;
        let projections = [(&layer.ffn_gate, &space.gate), (&layer.ffn_up, &space.up)];
        self.project(step, &space.normed, &projections, Output::Write)?;
        let product = SiluMul {
            turn: step.turn,
            n_values: step.n_tokens() * self.config.n_ff,
        };
        space.gated.inplace_op3(&space.gate, &space.up, &product)?;
        let back = [(&layer.ffn_down, &space.state)];
        self.project(step, &space.gated, &back, Output::Add)
    }

    /// The logits of the rows that are wanted.
    fn logits(&self, step: Step<'_>) -> Result<&Tensor, Error> {
        let space = &self.workspace;
        let rows = &step.batch.logit_rows;
        if rows.is_empty() {
            return Ok(&space.logits);
        }
        let pick = Gather {
            rows,
            row_len: self.config.n_embd,
            n_rows: step.n_tokens(),
        };
        space.picked.inplace_op2(&space.state, &pick)?;
        let norm = RmsNorm {
            turn: step.turn,
            n_tokens: rows.len(),
            weight: &self.weights.output_norm,
            eps: self.config.rms_norm_eps,
        };
        space.picked_normed.inplace_op2(&space.picked, &norm)?;
        let out = [(&self.weights.output, &space.logits)];
        self.multiply(
            step.turn,
            rows.len(),
            &space.picked_normed,
            &out,
            Output::Write,
        )?;
        Ok(&space.logits)
    }

    /// Normalises the residual stream into `normed`.
    fn normalise(&self, step: Step<'_>, weight: &[f32]) -> Result<(), Error> {
        let norm = RmsNorm {
            turn: step.turn,
            n_tokens: step.n_tokens(),
            weight,
            eps: self.config.rms_norm_eps,
        };
        let space = &self.workspace;
        Ok(space.normed.inplace_op2(&space.state, &norm)?)
    }

    fn project(
        &self,
        step: Step<'_>,
        x: &Tensor,
        to: &[(&Matrix, &Tensor)],
        output: Output,
    ) -> Result<(), Error> {
        self.multiply(step.turn, step.n_tokens(), x, to, output)
    }

    /// Multiplies `x` by each matrix, quantising it once for all that take it so.
    fn multiply(
        &self,
        turn: &Turn<'_>,
        n_tokens: usize,
        x: &Tensor,
        to: &[(&Matrix, &Tensor)],
        output: Output,
    ) -> Result<(), Error> {
        let words = &self.workspace.words;
        if let Some((matrix, _)) = to.iter().find(|(matrix, _)| matrix.takes_quantized()) {
            let k = matrix.k();
            words.inplace_op2(x, &Quantize { turn, n_tokens, k })?;
        }
        for (matrix, out) in to {
            let x = if matrix.takes_quantized() { words } else { x };
            let linear = Linear {
                turn,
                matrix,
                n_tokens,
                output,
            };
            out.inplace_op2(x, &linear)?;
        }
        Ok(())
    }

    fn kv_shape(&self) -> KvShape {
        KvShape {
            n_kv_heads: self.config.n_kv_heads,
            head_dim: self.config.head_dim,
            block_len: BLOCK_LEN,
            kv_type: self.kv_type,
        }
    }
}

fn rope_table(
    config: &ModelConfig,
    limits: &Limits,
    factors: Option<&[f32]>,
) -> Result<RopeTable, Error> {
    let config::Rope { base, dim, scale } = config.rope;
    let factors: Vec<f32> = match factors {
        Some(factors) => factors.iter().map(|factor| factor * scale).collect(),
        None => vec![scale; dim / 2],
    };
    if let Some(factor) = factors
        .iter()
        .find(|factor| **factor <= 0.0 || factor.is_nan())
    {
        return Err(Error::Key {
            key: "rope_freqs.weight".to_owned(),
            value: factor.to_string(),
            must_be: "above 0".to_owned(),
        });
    }
    let n_positions = limits.n_positions(config);
    RopeTable::new(config.head_dim, dim, base, Some(&factors), n_positions).map_err(|problem| {
        Error::Matrix {
            name: "rope_freqs.weight".to_owned(),
            problem,
        }
    })
}
