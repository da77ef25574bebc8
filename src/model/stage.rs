//! The layers of a network that lie on one device, with the buffers and caches they need there.

mod products;

use std::time::{Duration, Instant};

use candle_core::Tensor;
use ingle_kernels::{AttentionArgs, KvShape, Output, RopeTable, Team};

use super::BLOCK_LEN;
use super::batch::Batch;
use super::config::ModelConfig;
#[cfg(feature = "cuda")]
use super::cuda::StepMemory;
use super::device::{CachePages, Device};
use super::error::Error;
use super::inputs::Inputs;
use super::logits::TopLogits;
use super::memory::Limits;
use super::ops::{
    Embed, Gather, PagedAttention, Place, RmsNorm, Rope, SiluMul, TakeRows, WriteKv, run, run_on,
    run_on_two,
};
use super::rope::rope_table;
use super::vector::Vector;
use super::weight_matrix::WeightMatrix;
use super::weights::Layer;
use super::workspace::{Workspace, kv_cache};

/// Layers that follow each other on one device.
#[derive(Debug)]
pub(super) struct Stage {
    config: ModelConfig,
    limits: Limits,
    device: Device,
    layers: Vec<Layer>,
    workspace: Workspace,
    /// One tensor of bytes a layer: the blocks of keys, then those of values.
    kv_cache: Vec<Tensor>,
    rope: RopeTable,
    /// How long the last step waited for its turn.
    waited: Duration,
    /// The table's values on the GPU.
    #[cfg(feature = "cuda")]
    turns: Vector,
    #[cfg(feature = "cuda")]
    step_memory: Option<StepMemory>,
}

/// What stands before a stage's first layer, and behind its last.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) begin: Begin<'a>,
    /// Behind the last stage: the norm, and the matrix of the logits.
    pub(super) end: Option<(&'a Vector, &'a WeightMatrix)>,
    /// Whether the normalised states of all tokens are wanted there, too.
    pub(super) wants_states: bool,
}

/// What a stage begins with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// The tokens' rows of the embedding.
    Embedding(&'a WeightMatrix),
    /// What an earlier stage computed on the processor.
    State(&'a [f32]),
}

/// One step: the tokens, and the right to compute.
#[derive(Clone, Copy)]
struct Step<'a> {
    place: Place<'a>,
    args: AttentionArgs<'a>,
    inputs: Inputs<'a>,
}

impl<'a> Step<'a> {
    /// All of the step's tokens.
    fn rows(&self) -> Rows<'a> {
        Rows {
            place: self.place,
            n_tokens: self.inputs.token_ids.host.len(),
        }
    }
}

/// How many rows an operation takes, and the right to compute.
#[derive(Clone, Copy)]
struct Rows<'a> {
    place: Place<'a>,
    n_tokens: usize,
}

impl Stage {
    pub(super) fn new(
        config: &ModelConfig,
        layers: Vec<Layer>,
        limits: &Limits,
        rope_factors: Option<&[f32]>,
        (device, pages): (Device, CachePages),
    ) -> Result<Self, Error> {
        let rope = rope_table(config, limits, rope_factors)?;
        let on = device.candle();
        let caches = layers
            .iter()
            .map(|_| kv_cache(config, limits, &device, pages));
        Ok(Self {
            config: config.clone(),
            limits: *limits,
            workspace: Workspace::new(config, limits, &on)?,
            kv_cache: caches.collect::<Result<_, _>>()?,
            layers,
            #[cfg(feature = "cuda")]
            turns: if device.is_cpu() {
                // The table itself is read.
                Vector::new(Vec::new(), &device)?
            } else {
                Vector::new(rope.values().to_vec(), &device)?
            },
            rope,
            waited: Duration::ZERO,
            #[cfg(feature = "cuda")]
            step_memory: match &device {
                Device::Cpu | Device::Library(_) => None,
                Device::Cuda(gpu) => Some(StepMemory::new(gpu, limits.max_logit_rows)?),
            },
            device,
        })
    }

    /// The residual stream.
    pub(super) fn state(&self) -> &Tensor {
        &self.workspace.state
    }

    /// The states behind the last norm, where the last step wanted them.
    pub(super) fn normed(&self) -> &Tensor {
        &self.workspace.normed
    }

    /// The logits of the last step.
    pub(super) fn logits(&self) -> &Tensor {
        &self.workspace.logits
    }

    /// The greatest of its first rows, where a GPU finds them.
    #[cfg(feature = "cuda")]
    pub(super) fn top_logits(&mut self, n_rows: usize) -> Result<Option<Vec<TopLogits>>, Error> {
        let (Device::Cuda(gpu), Some(memory)) = (&self.device, &mut self.step_memory) else {
            return Ok(None);
        };
        let shape = [n_rows, self.config.n_vocab];
        memory
            .top_logits(gpu, &self.workspace.logits, shape)
            .map(Some)
    }

    /// Nothing finds them.
    #[cfg(not(feature = "cuda"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "a GPU finds them"
    )]
    pub(super) fn top_logits(&mut self, _: usize) -> Result<Option<Vec<TopLogits>>, Error> {
        Ok(None)
    }

    /// How long the last step waited for its turn of the team.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// Computes a step: on the processor in a turn of `team`, on a GPU as soon as it comes to it.
    pub(super) fn forward(
        &mut self,
        team: &Team,
        batch: &Batch,
        ends: Ends<'_>,
    ) -> Result<(), Error> {
        let block_tables: Vec<&[u32]> = batch.block_tables.iter().map(Vec::as_slice).collect();
        let shape = self.kv_shape();
        let args = AttentionArgs {
            shape,
            n_heads: self.config.n_heads,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            sliding_window: self.config.sliding_window,
            positions: &batch.positions,
            cu_seqlens: &batch.cu_seqlens,
            block_tables: &block_tables,
        };
        match self.device.clone() {
            Device::Cpu => {
                let asked = Instant::now();
                let turn = team.take_turn();
                self.waited = asked.elapsed();
                self.compute(
                    &Step {
                        place: Place::Cpu(&turn),
                        args,
                        inputs: Inputs::on_host(batch),
                    },
                    ends,
                )
            }
            Device::Library(_) => {
                let (place, inputs) = (Place::Library, Inputs::on_host(batch));
                self.compute(
                    &Step {
                        place,
                        args,
                        inputs,
                    },
                    ends,
                )
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                let Some(mut memory) = self.step_memory.take() else {
                    return Err(candle_core::Error::msg("the stage has no memory for steps").into());
                };
                let inputs = memory.upload(&gpu, batch, &args, self.limits.n_blocks);
                let done = inputs.and_then(|inputs| {
                    let place = Place::Cuda(gpu.launcher());
                    self.compute(
                        &Step {
                            place,
                            args,
                            inputs,
                        },
                        ends,
                    )
                });
                self.step_memory = Some(memory);
                done?;
                if batch.logit_rows.is_empty() {
                    // Nothing is read of it: what went wrong, and what it took, is known here.
                    gpu.wait()?;
                }
                Ok(())
            }
        }
    }

    fn compute(&self, step: &Step<'_>, ends: Ends<'_>) -> Result<(), Error> {
        let space = &self.workspace;
        let place = step.place;
        match ends.begin {
            Begin::State(values) => run(&space.state, &TakeRows { place, values })?,
            Begin::Embedding(embedding) => {
                let token_ids = step.inputs.token_ids;
                run(
                    &space.state,
                    &Embed {
                        place,
                        embedding,
                        token_ids,
                    },
                )?;
            }
        }
        for (layer, cache) in self.layers.iter().zip(&self.kv_cache) {
            self.attend(step, layer, cache)?;
            self.feed_forward(step, layer)?;
        }
        let Some((norm, matrix)) = ends.end else {
            return Ok(());
        };
        if ends.wants_states {
            run_on(&space.normed, &space.state, &self.norm(step.rows(), norm))?;
        }
        self.compute_logits(step, norm, matrix)
    }

    /// Attention over the sequence so far, added to the residual stream.
    fn attend(&self, step: &Step<'_>, layer: &Layer, cache: &Tensor) -> Result<(), Error> {
        let Step {
            place,
            args,
            inputs,
        } = *step;
        let space = &self.workspace;
        let shape = args.shape;
        let first_key = args.n_heads * shape.head_dim;
        let stride = first_key + 2 * shape.n_kv_heads * shape.head_dim;
        let projections = [&layer.attn_q, &layer.attn_k, &layer.attn_v];
        self.normalise(step, &layer.attn_norm, &projections)?;
        self.project(step, &space.normed, &projections, &space.qkv)?;
        // Keys follow queries.
        run(
            &space.qkv,
            &Rope {
                place,
                n_heads: args.n_heads + shape.n_kv_heads,
                head_dim: shape.head_dim,
                stride,
                positions: inputs.positions,
                table: &self.rope,
                #[cfg(feature = "cuda")]
                turns: &self.turns,
            },
        )?;
        let write = WriteKv {
            place,
            shape,
            stride,
            first_key,
            slot_mapping: inputs.slot_mapping,
        };
        run_on(cache, &space.qkv, &write)?;
        let attention = PagedAttention {
            place,
            args,
            stride,
            #[cfg(feature = "cuda")]
            on_gpu: inputs.attention,
        };
        run_on_two(&space.attended, [&space.qkv, cache], &attention)?;
        self.quantize(step.rows(), &space.attended, &[&layer.attn_output])?;
        self.add(step, &space.attended, &layer.attn_output)
    }

    /// The gated feed-forward layer, added to the residual stream.
    fn feed_forward(&self, step: &Step<'_>, layer: &Layer) -> Result<(), Error> {
        let space = &self.workspace;
        let projections = [&layer.ffn_gate, &layer.ffn_up];
        self.normalise(step, &layer.ffn_norm, &projections)?;
        self.project(step, &space.normed, &projections, &space.gate_up)?;
        let rows = step.rows();
        let product = SiluMul {
            place: rows.place,
            n_tokens: rows.n_tokens,
            n: self.config.n_ff,
        };
        let down = [&layer.ffn_down];
        self.make(rows, &product, &space.gate_up, &space.gated, &down)?;
        self.add(step, &space.gated, &layer.ffn_down)
    }

    /// The logits of the rows that are wanted.
    fn compute_logits(
        &self,
        step: &Step<'_>,
        norm: &Vector,
        output: &WeightMatrix,
    ) -> Result<(), Error> {
        let space = &self.workspace;
        let rows = step.inputs.logit_rows;
        if rows.host.is_empty() {
            return Ok(());
        }
        let pick = Gather {
            place: step.place,
            rows,
            row_len: self.config.n_embd,
            n_rows: step.rows().n_tokens,
        };
        run_on(&space.picked, &space.state, &pick)?;
        let picked = Rows {
            place: step.place,
            n_tokens: rows.host.len(),
        };
        let norm = self.norm(picked, norm);
        let (from, to) = (&space.picked, &space.picked_normed);
        self.make(picked, &norm, from, to, &[output])?;
        self.multiply(picked, to, &[output], &space.logits, Output::Write)
    }

    fn norm<'a>(&self, Rows { place, n_tokens }: Rows<'a>, weight: &'a Vector) -> RmsNorm<'a> {
        RmsNorm {
            place,
            n_tokens,
            weight,
            eps: self.config.rms_norm_eps,
        }
    }

    /// Normalises the residual stream, in the forms that the matrices take.
    fn normalise(
        &self,
        step: &Step<'_>,
        weight: &Vector,
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        let norm = self.norm(step.rows(), weight);
        let space = &self.workspace;
        self.make(step.rows(), &norm, &space.state, &space.normed, matrices)
    }

    fn kv_shape(&self) -> KvShape {
        KvShape {
            n_kv_heads: self.config.n_kv_heads,
            head_dim: self.config.head_dim,
            block_len: BLOCK_LEN,
            kv_type: self.limits.kv_type,
        }
    }
}
