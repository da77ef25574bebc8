//! A model as Hugging Face has it: a folder of `config.json`, a tokenizer and safetensors.
//!
//! Source: what llama.cpp's `convert_hf_to_gguf.py` makes of such folders.

mod about;
mod config;
mod names;
mod shards;
mod special;
mod vocabulary;

use std::path::{Path, PathBuf};

use super::Error;
use super::mix::Network;
use crate::gguf::{TensorType, Value, ValueType, Writer};
use config::Config;
use shards::{Shards, Stored};
use vocabulary::Vocabulary;

/// A folder whose files have been read, but for the weights.
pub(super) struct Folder {
    path: PathBuf,
    config: Config,
    vocabulary: Vocabulary,
    shards: Shards,
    tensors: Vec<Tensor>,
}

/// A tensor of the file to be.
pub(super) struct Tensor {
    pub(super) name: String,
    /// What its weights are in.
    pub(super) ty: TensorType,
    /// What it is in if it is not quantised.
    pub(super) plain: TensorType,
    pub(super) dims: Vec<u64>,
    data: Data,
}

/// Where weights come from.
enum Data {
    Stored {
        at: Stored,
        /// Of how many heads the two halves of each lie apart here and alternate in the file to be.
        n_heads: Option<usize>,
    },
    Made(Vec<u8>),
}

impl Folder {
    /// Reads everything but the weights, and checks that the weights are there.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let config = Config::read(&path.join("config.json"))?;
        let vocabulary = Vocabulary::read(path, &config)?;
        let shards = Shards::open(path)?;
        let f32 = f32_type()?;
        let mut tensors = Vec::new();
        for stored in shards.tensors() {
            let Some(target) = names::target(&stored.name, &config)? else {
                continue;
            };
            let shape: Vec<u64> = stored.shape.iter().map(|dim| *dim as u64).collect();
            if shape != target.shape {
                let problem = format!(
                    "has shape {shape:?} where config.json makes it {:?}",
                    target.shape
                );
                return Err(Error::tensor(&stored.name, problem));
            }
            let dims: Vec<u64> = shape.into_iter().rev().collect();
            let ty = stored.tensor_type()?;
            let is_matrix = super::mix::is_quantized(&target.name, &dims);
            tensors.push(Tensor {
                name: target.name,
                ty,
                plain: if is_matrix { ty } else { f32 },
                dims,
                data: Data::Stored {
                    at: stored.clone(),
                    n_heads: target.n_heads,
                },
            });
        }
        names::check_complete(&config, tensors.iter().map(|tensor| &*tensor.name))?;
        if let Some(factors) = config.rope_factors() {
            tensors.push(Tensor {
                name: "rope_freqs.weight".to_owned(),
                ty: f32,
                plain: f32,
                dims: vec![factors.len() as u64],
                data: Data::Made(factors.iter().flat_map(|f| f.to_le_bytes()).collect()),
            });
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            config,
            vocabulary,
            shards,
            tensors,
        })
    }

    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Writes every key but those of the quantisation.
    pub(super) fn write_keys(&self, writer: &mut Writer) -> Result<(), Error> {
        let n_weights = self.tensors.iter().map(Tensor::n_weights).sum();
        writer.key("general.architecture", Value::Str(b"llama"));
        about::write(&self.path, n_weights, writer)?;
        self.config.write(writer);
        self.vocabulary.write(writer);
        Ok(())
    }

    /// What the mix of types depends on.
    pub(super) fn network(&self) -> Network {
        Network {
            n_layers: self.config.n_layers(),
            n_heads: self.config.n_heads(),
            n_kv_heads: self.config.n_kv_heads(),
            has_importance: false,
            has_output: false,
        }
    }

    /// Bytes of all files of weights.
    pub(super) fn n_bytes(&self) -> u64 {
        self.shards.n_bytes()
    }

    /// Reads rows of a tensor, in the order of the file to be.
    pub(super) fn read(
        &self,
        tensor: &Tensor,
        rows: std::ops::Range<usize>,
        row_bytes: usize,
        out: &mut [u8],
    ) -> Result<(), Error> {
        match &tensor.data {
            Data::Made(bytes) => {
                let range = rows.start * row_bytes..rows.end * row_bytes;
                out.copy_from_slice(bytes.get(range).unwrap_or_default());
                Ok(())
            }
            Data::Stored { at, n_heads: None } => {
                self.shards.read(at, (rows.start * row_bytes) as u64, out)
            }
            Data::Stored {
                at,
                n_heads: Some(n_heads),
            } => {
                // A bias is one row of as many values as its matrix has rows.
                let is_bias = tensor.dims.len() == 1;
                let n_rows = tensor
                    .dims
                    .last()
                    .map_or(1, |n| usize::try_from(*n).unwrap_or(1));
                let piece = if is_bias {
                    row_bytes / n_rows
                } else {
                    row_bytes
                };
                let pieces = if is_bias { 0..n_rows } else { rows };
                let head = n_rows / n_heads;
                for (row, out) in pieces.zip(out.chunks_exact_mut(piece)) {
                    let (start, within) = (row / head * head, row % head);
                    let row = start + within % 2 * (head / 2) + within / 2;
                    self.shards.read(at, (row * piece) as u64, out)?;
                }
                Ok(())
            }
        }
    }
}

impl Tensor {
    fn n_weights(&self) -> u64 {
        self.dims.iter().product()
    }
}

fn f32_type() -> Result<TensorType, Error> {
    tensor_type("F32")
}

fn tensor_type(name: &'static str) -> Result<TensorType, Error> {
    let ty = TensorType::from_name(name);
    ty.ok_or_else(|| Error::tensor(name, "has a type that is not known"))
}

/// An array of texts.
fn write_texts<'a>(writer: &mut Writer, key: &str, texts: impl Iterator<Item = &'a [u8]>) {
    writer.array(key, ValueType::Str, texts.map(Value::Str));
}
