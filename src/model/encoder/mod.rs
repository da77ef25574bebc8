//! Networks of the BERT family, by candle's own: whole texts in, their vectors out.
//!
//! The library computes on rayon's threads. An encoder has a pool of them of its own, as many as the
//! team has, and works only in a turn of the team, whose workers sleep meanwhile: no more threads
//! compute than were asked for, and none of them is born where no encoder is loaded.

mod config;
mod document;
mod weights;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use ingle_kernels::Team;
use rayon::ThreadPool;

pub use config::{EncoderConfig, Shorter};

use super::LoadProgress;
use super::error::Error;
use super::memory::Memory;
use super::pooling::Pooler;
use crate::chat::TokenId;
use crate::gguf::{self, TensorBytes};

/// The tensors of a folder.
const WEIGHTS: &str = "model.safetensors";
/// Tokens of a step, padding included: enough for the products to be quick, and short enough for who
/// waits for the next turn of the team. A single input may be longer.
pub const ENCODER_STEP_TOKENS: usize = 512;

/// A folder's network, open and checked, not yet loaded.
pub struct EncoderFile {
    config: EncoderConfig,
    path: PathBuf,
    weights: TensorBytes,
    /// What stands before the tensors' names.
    prefix: &'static str,
    weight_type: &'static str,
}

impl EncoderFile {
    /// Opens a folder as sentence-transformers writes it.
    ///
    /// # Errors
    /// A file is missing or unsound, the network is of another kind, or a tensor does not fit it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = EncoderConfig::from_folder(folder)?;
        let path = folder.join(WEIGHTS);
        let weights = gguf::map_file(&path)?;
        let tensors = tensors(&path, &weights)?;
        let (prefix, weight_type) = weights::check(&tensors, &config)?;
        drop(tensors);
        Ok(Self {
            config,
            path,
            weights,
            prefix,
            weight_type,
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The length of the file with the tensors.
    pub fn file_bytes(&self) -> u64 {
        self.weights.len() as u64
    }

    /// Values of all tensors that the network needs.
    pub fn n_parameters(&self) -> u64 {
        weights::n_values(&self.config) as u64
    }

    /// The type of the embedding.
    pub fn weight_type(&self) -> &'static str {
        self.weight_type
    }

    /// What it takes for inputs of at most `n_positions` tokens.
    pub fn memory(&self, n_positions: usize) -> Memory {
        let config = &self.config;
        let bytes = |n_values: usize| (n_values as u64).saturating_mul(4);
        let n_tokens = ENCODER_STEP_TOKENS.max(n_positions);
        // The states and what they are multiplied to; the scores, scaled, masked and as shares; the inside
        // of the feed-forward layer. The library makes each anew and frees it at the end of its layer.
        let states = config.n_embd.saturating_mul(10);
        let scores = config.n_heads.saturating_mul(n_positions).saturating_mul(4);
        let inside = config.n_ff.saturating_mul(3);
        let each = states.saturating_add(scores).saturating_add(inside);
        Memory {
            weights_bytes: bytes(weights::n_values(config)),
            kv_bytes: 0,
            workspace_bytes: bytes(each.saturating_mul(n_tokens)),
        }
    }
}

fn tensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<SliceSafetensors<'a>, Error> {
    SliceSafetensors::new(bytes).map_err(|error| Error::Folder {
        path: path.to_owned(),
        problem: format!("it is no sound safetensors file: {error}"),
    })
}

/// An encoder in memory.
pub struct Encoder {
    config: EncoderConfig,
    network: BertModel,
    team: Arc<Team>,
    threads: ThreadPool,
}

impl Encoder {
    /// Loads the network, decoded to single precision; `progress` hears of bytes done and in all, and
    /// may end it.
    ///
    /// # Errors
    /// The library refuses a tensor, or there are no threads; [`Error::CalledOff`].
    pub fn load(
        file: &EncoderFile,
        team: Arc<Team>,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self, Error> {
        let EncoderFile {
            config,
            path,
            weights,
            prefix,
            ..
        } = file;
        let n_bytes = file.memory(1).weights_bytes;
        if progress(0, n_bytes) == ControlFlow::Break(()) {
            return Err(Error::CalledOff);
        }
        tensors(path, weights)?;
        let all = VarBuilder::from_slice_safetensors(weights, DType::F32, &Device::Cpu)?;
        let all = match prefix.strip_suffix('.') {
            Some(prefix) => all.pp(prefix),
            None => all,
        };
        let network = BertModel::load(all, &config.for_library())?;
        // Copied: its pages are the system's again, whether or not it takes them.
        let _ = weights.release();
        if progress(n_bytes, n_bytes) == ControlFlow::Break(()) {
            return Err(Error::CalledOff);
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(team.n_threads())
            .thread_name(|index| format!("encoder {index}"))
            .build();
        Ok(Self {
            config: config.clone(),
            network,
            team,
            threads: threads.map_err(|error| Error::Threads(error.to_string()))?,
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The vectors of `inputs`, padded to the longest of them and computed in a turn of the team. An
    /// input's vector depends on it alone, up to the order of sums.
    ///
    /// # Errors
    /// [`Error::Batch`] for inputs that cannot be; [`Error::Vector`] where a vector is no number;
    /// [`Error::Compute`].
    pub fn encode(&self, inputs: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, Error> {
        let longest = self.check(inputs)?;
        let n_embd = self.config.n_embd;
        let states = {
            let _turn = self.team.take_turn();
            self.threads.install(|| self.states(inputs, longest))?
        };
        let rows = states.chunks_exact(longest * n_embd);
        rows.zip(inputs)
            .map(|(states, input)| {
                let mut pooler = Pooler::new(self.config.readout);
                let tokens = states.chunks_exact(n_embd).take(input.len());
                tokens.for_each(|state| pooler.add(state));
                pooler.finish()
            })
            .collect()
    }

    /// The states of all tokens, padding included: `[n_inputs, longest, n_embd]`.
    fn states(&self, inputs: &[&[TokenId]], longest: usize) -> Result<Vec<f32>, Error> {
        let shape = (inputs.len(), longest);
        let padded = |of: &dyn Fn(&[TokenId], usize) -> u32| {
            let positions = |input| (0..longest).map(move |position| of(input, position));
            let values = inputs.iter().copied().flat_map(positions).collect();
            Tensor::from_vec::<_, u32>(values, shape, &Device::Cpu)
        };
        let token_ids = padded(&|input, position| input.get(position).copied().unwrap_or(0))?;
        let mask = padded(&|input, position| u32::from(position < input.len()))?;
        let token_types = token_ids.zeros_like()?;
        let states = self
            .network
            .forward(&token_ids, &token_types, Some(&mask))?;
        Ok(states.flatten_all()?.to_vec1()?)
    }

    /// The longest input's length.
    fn check(&self, inputs: &[&[TokenId]]) -> Result<usize, Error> {
        let wrong = |what, got, must_be: String| Error::Batch { what, got, must_be };
        let n_positions = self.config.n_positions;
        let mut longest = 0;
        for input in inputs {
            let n_tokens = input.len();
            if !(1..=n_positions).contains(&n_tokens) {
                let must_be = format!("between 1 and {n_positions}");
                return Err(wrong("the length of an input", n_tokens, must_be));
            }
            let n_vocab = self.config.n_vocab;
            if let Some(token) = input.iter().find(|token| **token as usize >= n_vocab) {
                return Err(wrong(
                    "a token",
                    *token as usize,
                    format!("below {n_vocab}"),
                ));
            }
            longest = longest.max(n_tokens);
        }
        if longest == 0 {
            return Err(wrong("the number of inputs", 0, "at least 1".to_owned()));
        }
        Ok(longest)
    }
}
