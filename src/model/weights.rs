//! The matrices of a network, found in a file by their names and checked.

use std::collections::HashSet;
use std::sync::Arc;

use ingle_kernels::Matrix;

use super::config::ModelConfig;
use super::error::Error;
use crate::gguf::{Gguf, TensorBytes, TensorInfo};

/// Tensors that say nothing the network does not know already.
const REDUNDANT: [&str; 2] = [".attn_rot_embd.weight", "rope.inv_freq"];
/// The distance at which reading a file's bytes touches every page.
const PAGE_BYTES: usize = 4096;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 4 << 20;

/// All weights.
#[derive(Debug)]
pub(super) struct Weights {
    /// `[n_vocab, n_embd]`.
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    /// `[n_embd]`.
    pub(super) output_norm: Vec<f32>,
    /// `[n_vocab, n_embd]`; the embedding where the file has no other.
    pub(super) output: Matrix,
    /// Divisors of the rotary frequencies.
    pub(super) rope_factors: Option<Vec<f32>>,
}

/// The weights of one layer, each `[n_out, n_in]`.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attn_norm: Vec<f32>,
    pub(super) attn_q: Matrix,
    pub(super) attn_k: Matrix,
    pub(super) attn_v: Matrix,
    pub(super) attn_output: Matrix,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) ffn_gate: Matrix,
    pub(super) ffn_up: Matrix,
    pub(super) ffn_down: Matrix,
}

impl Weights {
    /// Finds every tensor of the network; the matrices stay where they are in the file.
    pub(super) fn find(gguf: &Gguf, config: &ModelConfig) -> Result<Self, Error> {
        let mut finder = Finder {
            gguf,
            found: HashSet::new(),
        };
        let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
        let embedding = finder.matrix("token_embd.weight", n_embd, n_vocab)?;
        // Not allocated by the file's word: a missing layer ends it before a lie costs memory.
        let mut layers = Vec::new();
        for layer in 0..config.n_layers {
            layers.push(finder.layer(layer, config)?);
        }
        let output_norm = finder.vector("output_norm.weight", n_embd)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => finder.matrix("output.weight", n_embd, n_vocab)?,
            None => embedding.clone(),
        };
        let rope_factors = match gguf.tensor("rope_freqs.weight") {
            Some(_) => Some(finder.vector("rope_freqs.weight", config.rope.dim / 2)?),
            None => None,
        };
        finder.refuse_unknown()?;
        Ok(Self {
            embedding,
            layers,
            output_norm,
            output,
            rope_factors,
        })
    }
}

/// Takes tensors out of a file and remembers which.
struct Finder<'a> {
    gguf: &'a Gguf,
    found: HashSet<&'a str>,
}

impl<'a> Finder<'a> {
    fn layer(&mut self, layer: usize, config: &ModelConfig) -> Result<Layer, Error> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (n_embd, n_ff) = (config.n_embd, config.n_ff);
        let n_q = config.n_heads * config.head_dim;
        let n_kv = config.n_kv_heads * config.head_dim;
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm"), n_embd)?,
            attn_q: self.matrix(&name("attn_q"), n_embd, n_q)?,
            attn_k: self.matrix(&name("attn_k"), n_embd, n_kv)?,
            attn_v: self.matrix(&name("attn_v"), n_embd, n_kv)?,
            attn_output: self.matrix(&name("attn_output"), n_q, n_embd)?,
            ffn_norm: self.vector(&name("ffn_norm"), n_embd)?,
            ffn_gate: self.matrix(&name("ffn_gate"), n_embd, n_ff)?,
            ffn_up: self.matrix(&name("ffn_up"), n_embd, n_ff)?,
            ffn_down: self.matrix(&name("ffn_down"), n_ff, n_embd)?,
        })
    }

    fn tensor(&mut self, name: &str, expected: &[usize]) -> Result<&'a TensorInfo, Error> {
        let missing = || Error::MissingTensor {
            name: name.to_owned(),
        };
        let tensor = self.gguf.tensor(name).ok_or_else(missing)?;
        let expected: Vec<u64> = expected.iter().map(|dim| *dim as u64).collect();
        if tensor.dims != expected {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                got: tensor.dims.clone(),
                expected,
            });
        }
        self.found.insert(tensor.name.as_str());
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, k: usize, n: usize) -> Result<Matrix, Error> {
        let tensor = self.tensor(name, &[k, n])?;
        self.open(tensor, n, k)
    }

    /// A tensor of one dimension, whatever its type, as floats.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name, &[len])?;
        let mut values = vec![0.0; len];
        let row = self.open(tensor, 1, len)?;
        row.dequantize_row(0, &mut values)
            .map_err(|problem| Error::Matrix {
                name: name.to_owned(),
                problem,
            })?;
        Ok(values)
    }

    fn open(&self, tensor: &TensorInfo, n: usize, k: usize) -> Result<Matrix, Error> {
        let name = || tensor.name.clone();
        let weight_type = tensor.ty.weight_type().ok_or_else(|| Error::TensorType {
            name: name(),
            ty: tensor.ty.name(),
        })?;
        let source: Arc<TensorBytes> = Arc::new(self.gguf.bytes(tensor));
        Matrix::new(weight_type, n, k, source).map_err(|problem| Error::Matrix {
            name: name(),
            problem,
        })
    }

    /// A tensor nobody asked for would have changed the answer: a bias, an expert, an adapter.
    fn refuse_unknown(&self) -> Result<(), Error> {
        let is_unknown = |tensor: &&TensorInfo| {
            !self.found.contains(tensor.name.as_str())
                && !REDUNDANT.iter().any(|end| tensor.name.ends_with(end))
        };
        match self.gguf.tensors().iter().find(is_unknown) {
            Some(tensor) => Err(Error::Unsupported {
                what: format!(
                    "tensor {}, which is no part of a llama network",
                    tensor.name
                ),
            }),
            None => Ok(()),
        }
    }
}

/// Reads every page of the weights once, so that the first answer does not wait for the disk.
pub(super) fn read_ahead(gguf: &Gguf, progress: &mut dyn FnMut(u64, u64)) {
    let total = gguf.tensors().iter().map(TensorInfo::n_bytes).sum();
    if let Err(error) = gguf.advise_sequential() {
        tracing::debug!(%error, "the system takes no advice about the file");
    }
    let (mut done, mut reported) = (0, 0);
    progress(0, total);
    for tensor in gguf.tensors() {
        for page in gguf.bytes(tensor).chunks(PAGE_BYTES) {
            std::hint::black_box(page.first().copied());
            done += page.len() as u64;
            if done - reported >= REPORT_BYTES {
                progress(done, total);
                reported = done;
            }
        }
    }
    progress(total, total);
}
