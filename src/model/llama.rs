//! The network of architecture `llama`, written once: Llama 2 and 3, Mistral, CodeLlama, SmolLM2.
//! What differs between them is data in [`ModelConfig`]. Its layers stand in [`Stage`]s, one a device.

use std::time::Duration;

use candle_core::{Storage, Tensor};
use ingle_kernels::Team;

use super::batch::Batch;
use super::config::ModelConfig;
use super::device::{Device, Placement};
use super::error::Error;
use super::logits::TopLogits;
use super::memory::Limits;
use super::stage::{Begin, Ends, Stage};
use super::vector::Vector;
use super::weight_matrix::WeightMatrix;
use super::weights::Weights;

/// The network: its layers, and what stands before and behind them.
#[derive(Debug)]
pub(super) struct Llama {
    n_embd: usize,
    /// One, or one on the processor and one on a GPU.
    stages: Vec<Stage>,
    /// `[n_vocab, n_embd]`, on the first stage's device.
    embedding: WeightMatrix,
    /// `[n_embd]`, on the last stage's device, and so is the output, `[n_vocab, n_embd]`.
    output_norm: Vector,
    output: WeightMatrix,
}

impl Llama {
    pub(super) fn new(
        config: &ModelConfig,
        weights: Weights,
        limits: &Limits,
        placement: &Placement,
    ) -> Result<Self, Error> {
        let Weights {
            embedding,
            mut layers,
            output_norm,
            output,
            rope_factors,
        } = weights;
        let factors = rope_factors.as_deref();
        let device_layers = layers.split_off(placement.first_device_layer(layers.len()));
        let mut stages = Vec::new();
        for (device, layers) in [
            (Device::Cpu, layers),
            (placement.device.clone(), device_layers),
        ] {
            let on = (device, placement.cache_pages);
            if !layers.is_empty() {
                stages.push(Stage::new(config, layers, limits, factors, on)?);
            }
        }
        Ok(Self {
            n_embd: config.n_embd,
            stages,
            embedding,
            output_norm,
            output,
        })
    }

    /// Computes a step: see [`Self::logits`].
    pub(super) fn forward(&mut self, team: &Team, batch: &Batch) -> Result<(), Error> {
        let n_values = batch.n_tokens() * self.n_embd;
        let n_stages = self.stages.len();
        for index in 0..n_stages {
            let (before, rest) = self.stages.split_at_mut(index);
            let Some(stage) = rest.first_mut() else {
                continue;
            };
            let before = before
                .last()
                .map(|stage| stage.state().storage_and_layout());
            let begin = match &before {
                None => Begin::Embedding(&self.embedding),
                Some((storage, layout)) => {
                    let Storage::Cpu(storage) = &**storage else {
                        return Err(candle_core::Error::msg("a stage follows one on a GPU").into());
                    };
                    let start = layout.start_offset();
                    Begin::State(&storage.as_slice()?[start..start + n_values])
                }
            };
            let is_last = index + 1 == n_stages;
            let end = is_last.then_some((&self.output_norm, &self.output));
            let wants_states = is_last && !batch.state_rows.is_empty();
            let ends = Ends {
                begin,
                end,
                wants_states,
            };
            stage.forward(team, batch, ends)?;
        }
        Ok(())
    }

    /// How long the last step waited for its turn of the team.
    pub(super) fn waited(&self) -> Duration {
        self.stages.iter().map(Stage::waited).sum()
    }

    /// The logits of the last step's `logit_rows`: `[n_rows, n_vocab]` and more behind them.
    pub(super) fn logits(&self) -> Result<&Tensor, Error> {
        Ok(self.last()?.logits())
    }

    /// The states of the last step's tokens, if it had `state_rows`: `[n_tokens, n_embd]` and more
    /// behind them.
    pub(super) fn states(&self) -> Result<&Tensor, Error> {
        Ok(self.last()?.normed())
    }

    fn last(&self) -> Result<&Stage, Error> {
        let last = self.stages.last();
        Ok(last.ok_or_else(|| candle_core::Error::msg("the network has no layer"))?)
    }

    /// The greatest logits of the last step's first rows, where they lie on a GPU that finds them.
    ///
    /// Errors: the GPU's.
    pub(super) fn top_logits(&mut self, n_rows: usize) -> Result<Option<Vec<TopLogits>>, Error> {
        match self.stages.last_mut() {
            Some(last) => last.top_logits(n_rows),
            None => Ok(None),
        }
    }
}
