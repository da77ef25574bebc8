//! F2: the network: a batch of tokens in, logits out. The only floor that knows the tensor library.
//!
//! Knows nothing of requests: a sequence is a row of a batch and a table of cache blocks.

mod batch;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod encoder;
mod error;
mod inputs;
mod llama;
mod logits;
mod memory;
#[cfg(all(feature = "metal", not(feature = "cuda")))]
mod metal;
#[cfg(not(any(feature = "cuda", feature = "metal")))]
mod no_gpu;
mod ops;
mod pooling;
mod rope;
mod stage;
mod vector;
mod weight_matrix;
mod weights;
mod workspace;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{Storage, Tensor};
pub use ingle_kernels::KvType;
use ingle_kernels::Team;

pub use batch::Batch;
pub use config::{ModelConfig, Rope};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use device::{CachePages, Device, Form, Gpu, Placement};
pub use encoder::{ENCODER_STEP_TOKENS, Encoder, EncoderConfig, EncoderFile, Shorter};
pub use error::Error;
pub use logits::{LogitRow, Logits, Seen, TopLogits};
pub use memory::{Limits, Memory};
pub use pooling::{Pooler, Pooling, Readout, shorten};

use crate::gguf::Gguf;
use llama::Llama;
use weights::Weights;

/// Hears of weights taken, and of all there are, in bytes; whether to go on.
pub type LoadProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Nobody watches a load: it goes on to its end.
pub fn unwatched(_done_bytes: u64, _total_bytes: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

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
    /// Its states on the host.
    states: Vec<f32>,
}

impl Model {
    /// Loads the network of `gguf`, whose shape is `config`, for steps within `limits`, to where
    /// `placement` has it. On the processor, quantised weights are packed into memory of their own;
    /// `progress` hears of bytes done and in all, and may end it.
    ///
    /// # Errors
    /// A tensor is missing, unknown, or of another shape or type than the network needs; a GPU's memory
    /// is not enough, or its driver fails; [`Error::CalledOff`] where `progress` ends it.
    pub fn load(
        gguf: &Gguf,
        config: &ModelConfig,
        limits: Limits,
        placement: &Placement,
        team: Arc<Team>,
        progress: &mut LoadProgress<'_>,
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
            states: Vec::new(),
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
    /// [`Error::Batch`] for a batch that cannot be; [`Error::Gpu`], [`Error::GpuMemory`] and
    /// [`Error::Compute`] otherwise. The cache keeps what it held, except in the slots the batch names.
    pub fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, Error> {
        batch.check(&self.config, &self.limits)?;
        self.llama.forward(&self.team, batch)?;
        self.copy_rows(0..batch.logit_rows.len())?;
        Ok(Logits::new(&self.logits, self.config.n_vocab))
    }

    /// Computes one step and shows the logits of each of `batch.logit_rows`, in order: where they lie on
    /// a GPU with kernels of ours, first the greatest of them, and the whole row if that is wanted.
    ///
    /// # Errors
    /// As for [`Model::forward`].
    pub fn forward_rows(
        &mut self,
        batch: &Batch,
        see: &mut dyn FnMut(LogitRow<'_>) -> Seen,
    ) -> Result<(), Error> {
        batch.check(&self.config, &self.limits)?;
        self.llama.forward(&self.team, batch)?;
        let (n_rows, n_vocab) = (batch.logit_rows.len(), self.config.n_vocab);
        let Some(rows) = self.llama.top_logits(n_rows)? else {
            self.copy_rows(0..n_rows)?;
            for row in self.logits.chunks_exact(n_vocab) {
                see(LogitRow::Whole(row));
            }
            return Ok(());
        };
        for (index, top) in rows.iter().enumerate() {
            if see(LogitRow::Top(top)) == Seen::TheWholeIsNeeded {
                self.copy_rows(index..index + 1)?;
                see(LogitRow::Whole(&self.logits));
            }
        }
        Ok(())
    }

    /// How long the last step waited for its turn of the team.
    pub fn waited(&self) -> Duration {
        self.llama.waited()
    }

    /// Shows the states behind the last norm of each of `batch.state_rows`, in order; `batch` is the one
    /// that was computed last.
    ///
    /// # Errors
    /// As for [`Model::forward`].
    pub fn states(&mut self, batch: &Batch, see: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let n_embd = self.config.n_embd;
        let rows = batch.state_rows.iter().map(|row| *row as usize);
        let (Some(first), Some(last)) = (rows.clone().min(), rows.clone().max()) else {
            return Ok(());
        };
        let values = first * n_embd..(last + 1) * n_embd;
        copy_to_host(self.llama.states()?, values, &mut self.states)?;
        for row in rows {
            see(&self.states[(row - first) * n_embd..][..n_embd]);
        }
        Ok(())
    }

    /// Copies rows of the last step's logits to the host.
    fn copy_rows(&mut self, rows: std::ops::Range<usize>) -> Result<(), Error> {
        let n_vocab = self.config.n_vocab;
        let values = rows.start * n_vocab..rows.end * n_vocab;
        copy_to_host(self.llama.logits()?, values, &mut self.logits)
    }
}

/// Some values of a buffer, in place of what `host` held.
fn copy_to_host(
    buffer: &Tensor,
    values: std::ops::Range<usize>,
    host: &mut Vec<f32>,
) -> Result<(), Error> {
    let (storage, layout) = buffer.storage_and_layout();
    let start = layout.start_offset();
    let range = start + values.start..start + values.end;
    match &*storage {
        Storage::Cpu(storage) => {
            host.clear();
            host.extend_from_slice(&storage.as_slice()?[range]);
        }
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => {
            host.resize(values.len(), 0.0);
            let values = storage.as_cuda_slice::<f32>()?.slice(range);
            // Waits for the step: what went wrong in it is known here at the latest.
            storage.device.memcpy_dtoh(&values, host)?;
        }
        _ => *host = buffer.narrow(0, values.start, values.len())?.to_vec1()?,
    }
    Ok(())
}
