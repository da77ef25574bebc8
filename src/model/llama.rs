//! The network of architecture `llama`, written once: Llama 2 and 3, Mistral, CodeLlama, SmolLM2.
//! What differs between them is data in [`ModelConfig`].

use candle_core::Tensor;
use ingle_kernels::{AttentionArgs, KvShape, KvType, Output, Part, RopeTable, Turn};

use super::batch::Batch;
use super::config::ModelConfig;
use super::error::Error;
use super::memory::Limits;
use super::ops::{
    CandleLinear, Embed, Gather, Linear, PagedAttention, Quantize, RmsNorm, Rope, SiluMul, WriteKv,
};
use super::weight_matrix::WeightMatrix;
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

impl<'a> Step<'a> {
    fn n_tokens(&self) -> usize {
        self.batch.n_tokens()
    }

    /// All of the step's tokens.
    fn rows(&self) -> Rows<'a> {
        Rows {
            turn: self.turn,
            n_tokens: self.n_tokens(),
        }
    }
}

/// How many rows an operation takes, and the right to compute.
#[derive(Clone, Copy)]
struct Rows<'a> {
    turn: &'a Turn<'a>,
    n_tokens: usize,
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
        let n_heads = self.config.n_heads;
        let first_key = n_heads * shape.head_dim;
        let stride = first_key + 2 * shape.n_kv_heads * shape.head_dim;
        let projections = [&layer.attn_q, &layer.attn_k, &layer.attn_v];
        self.normalise(step, &layer.attn_norm, &projections)?;
        self.project(step, &space.normed, &projections, &space.qkv)?;
        // Keys follow queries.
        space.qkv.inplace_op1(&Rope {
            turn,
            n_heads: n_heads + shape.n_kv_heads,
            stride,
            positions: &batch.positions,
            table: &self.rope,
        })?;
        let write = WriteKv {
            turn,
            shape,
            stride,
            first_key,
            slot_mapping: &batch.slot_mapping,
        };
        cache.inplace_op2(&space.qkv, &write)?;
        let args = AttentionArgs {
            shape,
            n_heads,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            sliding_window: self.config.sliding_window,
            positions: &batch.positions,
            cu_seqlens: &batch.cu_seqlens,
            block_tables: step.block_tables,
        };
        let attention = PagedAttention { turn, args, stride };
        space.attended.inplace_op3(&space.qkv, cache, &attention)?;
        self.quantize(step.rows(), &space.attended, &[&layer.attn_output])?;
        self.add(step, &space.attended, &layer.attn_output)
    }

    /// The gated feed-forward layer, added to the residual stream.
    fn feed_forward(&self, step: Step<'_>, layer: &Layer) -> Result<(), Error> {
        let space = &self.workspace;
        let projections = [&layer.ffn_gate, &layer.ffn_up];
        self.normalise(step, &layer.ffn_norm, &projections)?;
        self.project(step, &space.normed, &projections, &space.gate_up)?;
        let product = SiluMul {
            turn: step.turn,
            n_tokens: step.n_tokens(),
            n: self.config.n_ff,
        };
        let (words, floats) = needs(&[&layer.ffn_down]);
        for (_, out) in [(words, &space.words), (floats, &space.gated)]
            .iter()
            .filter(|(is_needed, _)| *is_needed)
        {
            out.inplace_op2(&space.gate_up, &product)?;
        }
        self.add(step, &space.gated, &layer.ffn_down)
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
        let output = [&self.weights.output];
        self.apply_norm(&norm, &space.picked, &space.picked_normed, &output)?;
        let picked = Rows {
            turn: step.turn,
            n_tokens: rows.len(),
        };
        self.multiply(
            picked,
            &space.picked_normed,
            &output,
            &space.logits,
            Output::Write,
        )?;
        Ok(&space.logits)
    }

    /// Normalises the residual stream, in the forms that the matrices take.
    fn normalise(
        &self,
        step: Step<'_>,
        weight: &[f32],
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        let norm = RmsNorm {
            turn: step.turn,
            n_tokens: step.n_tokens(),
            weight,
            eps: self.config.rms_norm_eps,
        };
        let space = &self.workspace;
        self.apply_norm(&norm, &space.state, &space.normed, matrices)
    }

    /// Normalises `x` into the words, into `normed`, or into both.
    fn apply_norm(
        &self,
        norm: &RmsNorm<'_>,
        x: &Tensor,
        normed: &Tensor,
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        let (words, floats) = needs(matrices);
        if words {
            self.workspace.words.inplace_op2(x, norm)?;
        }
        if floats {
            normed.inplace_op2(x, norm)?;
        }
        Ok(())
    }

    /// Quantises `x` if one of the matrices takes it so.
    fn quantize(
        &self,
        Rows { turn, n_tokens }: Rows<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        if let Some(matrix) = matrices.iter().find(|matrix| matrix.takes_quantized()) {
            let k = matrix.k();
            let quantize = Quantize { turn, n_tokens, k };
            self.workspace.words.inplace_op2(x, &quantize)?;
        }
        Ok(())
    }

    /// Multiplies by matrices whose results stand side by side.
    fn project(
        &self,
        step: Step<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
        out: &Tensor,
    ) -> Result<(), Error> {
        self.multiply(step.rows(), x, matrices, out, Output::Write)
    }

    /// Adds a product to the residual stream.
    fn add(&self, step: Step<'_>, x: &Tensor, matrix: &WeightMatrix) -> Result<(), Error> {
        let state = &self.workspace.state;
        self.multiply(step.rows(), x, &[matrix], state, Output::Add)
    }

    /// Multiplies `x`, or the words made from it, by each matrix.
    fn multiply(
        &self,
        Rows { turn, n_tokens }: Rows<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
        out: &Tensor,
        output: Output,
    ) -> Result<(), Error> {
        let stride = matrices.iter().map(|matrix| matrix.n()).sum();
        let mut column = 0;
        let mut parts = [Vec::new(), Vec::new()];
        for &matrix in matrices {
            match matrix {
                WeightMatrix::Own(matrix) => {
                    let takes_quantized = usize::from(matrix.takes_quantized());
                    parts[takes_quantized].push(Part { matrix, column });
                }
                WeightMatrix::Candle(matrix) => {
                    let linear = CandleLinear {
                        matrix,
                        column,
                        stride,
                        n_tokens,
                        output,
                    };
                    out.inplace_op2(x, &linear)?;
                }
            }
            column += matrix.n();
        }
        for (parts, x) in parts.iter().zip([x, &self.workspace.words]) {
            if !parts.is_empty() {
                let linear = Linear {
                    turn,
                    parts,
                    stride,
                    n_tokens,
                    output,
                };
                out.inplace_op2(x, &linear)?;
            }
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

/// Whether any of the matrices takes quantised words, and whether any takes floats.
fn needs(matrices: &[&WeightMatrix]) -> (bool, bool) {
    let is_quantized = |matrix: &&WeightMatrix| matrix.takes_quantized();
    (
        matrices.iter().any(is_quantized),
        !matrices.iter().all(is_quantized),
    )
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
