//! F2: the network: a batch of tokens in, logits out. The only floor that knows the tensor library.
//!
//! Knows nothing of requests: a sequence is a row of a batch and a table of cache blocks.

mod batch;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod inputs;
mod llama;
mod memory;
#[cfg(all(feature = "metal", not(feature = "cuda")))]
mod metal;
#[cfg(not(any(feature = "cuda", feature = "metal")))]
mod no_gpu;
mod ops;
mod rope;
mod stage;
mod vector;
mod weight_matrix;
mod weights;
mod workspace;

use std::sync::Arc;

use candle_core::{Storage, Tensor};
pub use ingle_kernels::KvType;
use ingle_kernels::Team;

pub use batch::Batch;
pub use config::{ModelConfig, Rope};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use device::{Device, Form, Gpu, Placement};
pub use error::Error;
pub use memory::{Limits, Memory};

use crate::gguf::Gguf;
use llama::Llama;
use weights::Weights;

/// Tokens in a block of the KV cache.
pub const BLOCK_LEN: usize = 32;

/// Whether [`Model::load`] leaves quantised products to the tensor library, which has vector kernels for
/// processors that Ingle's do not know.
pub const BY_CANDLE: bool = cfg!(target_arch = "aarch64");

/// A network in memory, with its cache.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    limits: Limits,
    team: Arc<Team>,
    llama: Llama,
    /// The last step's logits on the host.
    logits: Vec<f32>,
}

/// The logits of a step.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    n_vocab: usize,
}

impl Model {
    /// Loads the network of `gguf`, whose shape is `config`, for steps within `limits`, to where
    /// `placement` has it. On the processor, quantised weights are packed into memory of their own;
    /// `progress` hears of bytes done and in all.
    ///
    /// # Errors
    /// A tensor is missing, unknown, or of another shape or type than the network needs; a GPU's memory
    /// is not enough, or its driver fails.
    pub fn load(
        gguf: &Gguf,
        config: &ModelConfig,
        limits: Limits,
        placement: &Placement,
        team: Arc<Team>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let mut placement = placement.clone();
        if BY_CANDLE && placement.form == Form::AsInFile {
            placement.form = Form::ForCandle;
        }
        let weights = Weights::take(gguf, config, &placement, &team, progress)?;
        Ok(Self {
            llama: Llama::new(config, weights, &limits, &placement)?,
            config: config.clone(),
            limits,
            team,
            logits: Vec::new(),
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The largest step and the size of the cache.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Computes one step, writing the tokens' keys and values into the cache.
    ///
    /// A token's logits depend on its sequence only: they have the same bits in any batch, in any
    /// chunk of its prompt, on any number of threads.
    ///
    /// # Errors
    /// [`Error::Batch`] for a batch that cannot be; [`Error::Compute`] otherwise. The cache keeps what
    /// it held, except in the slots the batch names.
    pub fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, Error> {
        batch.check(&self.config, &self.limits)?;
        let buffer = self.llama.forward(&self.team, batch)?;
        copy_to_host(
            buffer,
            batch.logit_rows.len() * self.config.n_vocab,
            &mut self.logits,
        )?;
        Ok(Logits {
            values: &self.logits,
            n_vocab: self.config.n_vocab,
        })
    }
}

/// The first `n_values` of a buffer, in place of what `host` held.
fn copy_to_host(buffer: &Tensor, n_values: usize, host: &mut Vec<f32>) -> Result<(), Error> {
    let (storage, layout) = buffer.storage_and_layout();
    let start = layout.start_offset();
    let range = start..start + n_values;
    match &*storage {
        Storage::Cpu(storage) => {
            host.clear();
            host.extend_from_slice(&storage.as_slice()?[range]);
        }
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => {
            host.resize(n_values, 0.0);
            let values = storage.as_cuda_slice::<f32>()?.slice(range);
            // Waits for the step: what went wrong in it is known here at the latest.
            storage.device.memcpy_dtoh(&values, host)?;
        }
        _ => {
            return Err(
                candle_core::Error::msg("the logits are on no device that is built").into(),
            );
        }
    }
    Ok(())
}

impl<'a> Logits<'a> {
    /// Rows: one for each of the batch's `logit_rows`.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_vocab
    }

    /// A row, `[n_vocab]`.
    ///
    /// Panics: when there is no such row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.n_vocab..(index + 1) * self.n_vocab]
    }
}
