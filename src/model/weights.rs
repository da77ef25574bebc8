//! The matrices of a network, found in a file by their names and checked.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytemuck::cast_slice;
use ingle_kernels::{Matrix, ShapeError, Team, WeightType};

use super::LoadProgress;
use super::config::ModelConfig;
use super::device::{Device, Form, Placement};
use super::error::Error;
use super::vector::Vector;
use super::weight_matrix::{LibraryMatrix, WeightMatrix};
use crate::gguf::{Gguf, TensorInfo};

/// Tensors that say nothing the network does not know already.
const REDUNDANT: [&str; 2] = [".attn_rot_embd.weight", "rope.inv_freq"];

/// All weights.
#[derive(Debug)]
pub(super) struct Weights {
    /// `[n_vocab, n_embd]`.
    pub(super) embedding: WeightMatrix,
    pub(super) layers: Vec<Layer>,
    /// `[n_embd]`.
    pub(super) output_norm: Vector,
    /// `[n_vocab, n_embd]`; the embedding where the file has no other.
    pub(super) output: WeightMatrix,
    /// Divisors of the rotary frequencies.
    pub(super) rope_factors: Option<Vec<f32>>,
}

/// The weights of one layer, each `[n_out, n_in]`.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attn_norm: Vector,
    pub(super) attn_q: WeightMatrix,
    pub(super) attn_k: WeightMatrix,
    pub(super) attn_v: WeightMatrix,
    pub(super) attn_output: WeightMatrix,
    pub(super) ffn_norm: Vector,
    pub(super) ffn_gate: WeightMatrix,
    pub(super) ffn_up: WeightMatrix,
    pub(super) ffn_down: WeightMatrix,
}

impl Weights {
    /// Takes every tensor of the network out of the file to where `placement` has it; `progress` hears of bytes done
    /// and in all, and may end it.
    pub(super) fn take(
        gguf: &Gguf,
        config: &ModelConfig,
        placement: &Placement,
        team: &Team,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self, Error> {
        if let Err(error) = gguf.advise_sequential() {
            tracing::debug!(%error, "the system takes no advice about the file");
        }
        let mut finder = Finder {
            gguf,
            placement,
            device: Device::Cpu,
            team,
            found: HashSet::new(),
            done: 0,
            total: gguf.tensors().iter().map(TensorInfo::n_bytes).sum(),
            progress,
        };
        let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
        let first_device_layer = placement.first_device_layer(config.n_layers);
        let place = |finder: &mut Finder<'_, '_>, is_on_device: bool| {
            finder.device = if is_on_device {
                placement.device.clone()
            } else {
                Device::Cpu
            };
        };
        place(&mut finder, first_device_layer == 0);
        let embedding = finder.matrix("token_embd.weight", n_embd, n_vocab)?;
        // Not allocated by the file's word: a missing layer ends it before a lie costs memory.
        let mut layers = Vec::new();
        for layer in 0..config.n_layers {
            place(&mut finder, layer >= first_device_layer);
            layers.push(finder.layer(layer, config)?);
        }
        place(&mut finder, first_device_layer < config.n_layers);
        let output_norm = finder.vector("output_norm.weight", n_embd)?;
        let is_split = !(finder.device.is_cpu() || first_device_layer == 0);
        let output = match gguf.tensor("output.weight") {
            Some(_) => finder.matrix("output.weight", n_embd, n_vocab)?,
            // The embedding is on the processor, the output is not.
            None if is_split => finder.matrix("token_embd.weight", n_embd, n_vocab)?,
            None => embedding.clone(),
        };
        let rope_factors = match gguf.tensor("rope_freqs.weight") {
            Some(_) => Some(finder.values("rope_freqs.weight", config.rope.dim / 2)?),
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
struct Finder<'a, 'b> {
    gguf: &'a Gguf,
    placement: &'b Placement,
    /// Where the next tensors go.
    device: Device,
    team: &'b Team,
    found: HashSet<&'a str>,
    /// Bytes taken so far.
    done: u64,
    total: u64,
    progress: &'b mut LoadProgress<'b>,
}

impl<'a> Finder<'a, '_> {
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

    fn matrix(&mut self, name: &str, k: usize, n: usize) -> Result<WeightMatrix, Error> {
        let tensor = self.tensor(name, &[k, n])?;
        let bytes = self.gguf.bytes(tensor);
        let matrix = self.take_rows(tensor, (n, k), &bytes)?;
        // They were copied: the file's pages would be a second copy.
        if let Err(error) = bytes.release() {
            tracing::debug!(%error, name, "the file's pages stay in memory");
        }
        self.took(tensor)?;
        Ok(matrix)
    }

    /// Copies a matrix's rows into the form that is wanted.
    fn take_rows(
        &self,
        tensor: &TensorInfo,
        (n, k): (usize, usize),
        rows: &[u8],
    ) -> Result<WeightMatrix, Error> {
        let decoded;
        let (mut weight_type, mut rows) = (weight_type(tensor)?, rows);
        let Placement {
            form,
            is_deterministic,
            ..
        } = *self.placement;
        // With floats our own kernels multiply well enough on every processor.
        let for_candle = form == Form::ForCandle && weight_type.takes_quantized();
        if for_candle || !self.device.is_cpu() {
            let device = self.device.candle();
            let matrix = LibraryMatrix::new(weight_type, (n, k), rows, &device, is_deterministic)?;
            return Ok(WeightMatrix::Library(matrix));
        }
        match form {
            Form::AsInFile | Form::ForCandle => {}
            Form::Decoded => {
                decoded =
                    decode(weight_type, k, rows).map_err(|problem| no_matrix(tensor, problem))?;
                (weight_type, rows) = (WeightType::F32, cast_slice(&decoded));
            }
        }
        // A turn for each: other models go on answering while this one is packed.
        let turn = self.team.take_turn();
        Matrix::new(&turn, weight_type, n, k, rows)
            .map(WeightMatrix::Own)
            .map_err(|problem| no_matrix(tensor, problem))
    }

    /// A tensor of one dimension where the next tensors go.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vector, Error> {
        Ok(Vector::new(self.values(name, len)?, &self.device)?)
    }

    /// A tensor of one dimension, whatever its type, as floats.
    fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name, &[len])?;
        let mut values = vec![0.0; len];
        weight_type(tensor)?
            .dequantize(&self.gguf.bytes(tensor), &mut values)
            .map_err(|problem| no_matrix(tensor, problem))?;
        self.took(tensor)?;
        Ok(values)
    }

    fn took(&mut self, tensor: &TensorInfo) -> Result<(), Error> {
        self.done += tensor.n_bytes();
        match (self.progress)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::CalledOff),
        }
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

/// The kind of a tensor's weights.
fn weight_type(tensor: &TensorInfo) -> Result<WeightType, Error> {
    tensor.ty.weight_type().ok_or_else(|| Error::TensorType {
        name: tensor.name.clone(),
        ty: tensor.ty.name(),
    })
}

/// Decodes rows of `k` weights each to floats, as a file holds them.
fn decode(weight_type: WeightType, k: usize, rows: &[u8]) -> Result<Vec<u32>, ShapeError> {
    let row_bytes = weight_type.row_bytes(k).unwrap_or_default().max(1);
    let mut floats = vec![0.0_f32; k];
    let mut words = Vec::with_capacity(rows.len() / row_bytes * k);
    for row in rows.chunks(row_bytes) {
        weight_type.dequantize(row, &mut floats)?;
        words.extend(floats.iter().map(|float| float.to_bits().to_le()));
    }
    Ok(words)
}

fn no_matrix(tensor: &TensorInfo, problem: ShapeError) -> Error {
    Error::Matrix {
        name: tensor.name.clone(),
        problem,
    }
}
