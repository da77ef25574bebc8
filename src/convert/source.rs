//! What a model is read from: a folder, or a GGUF file.

use std::ops::Range;
use std::path::Path;

use super::Error;
use super::folder::{self, Folder};
use super::mix::Network;
use crate::gguf::{Gguf, TensorInfo, TensorType, Value, Writer};

/// Keys that the new file has of its own, or that say how several files make one.
const LEFT_OUT: [&str; 5] = [
    "general.quantization_version",
    "general.file_type",
    "split.no",
    "split.count",
    "split.tensors.count",
];

/// A model to be converted.
pub struct Source(Kind);

enum Kind {
    Folder(Box<Folder>),
    File(Gguf),
}

/// A tensor of it.
#[derive(Clone, Copy)]
pub(super) enum Tensor<'a> {
    Folder(&'a folder::Tensor),
    File(&'a TensorInfo),
}

impl Source {
    /// Opens a folder or a GGUF file and checks everything but the weights.
    ///
    /// # Errors
    /// It cannot be read, contradicts itself, or is of a kind that cannot be converted.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Ok(Self(Kind::Folder(Box::new(Folder::open(path)?))));
        }
        let gguf = Gguf::open(path)?;
        // Only hints how the file will be read.
        let _ = gguf.advise_sequential();
        Ok(Self(Kind::File(gguf)))
    }

    /// Bytes of the files of weights.
    pub fn n_bytes(&self) -> u64 {
        match &self.0 {
            Kind::Folder(folder) => folder.n_bytes(),
            Kind::File(gguf) => gguf.file_bytes(),
        }
    }

    /// Whether `path` leads to a file that is read.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let Kind::File(gguf) = &self.0 else {
            return false;
        };
        let there = path.canonicalize().ok();
        let same = |shard: &Path| there.is_some() && shard.canonicalize().ok() == there;
        gguf.shards().iter().any(|shard| same(shard.path()))
    }

    pub(super) fn tensors(&self) -> Vec<Tensor<'_>> {
        match &self.0 {
            Kind::Folder(folder) => folder.tensors().iter().map(Tensor::Folder).collect(),
            Kind::File(gguf) => gguf.tensors().iter().map(Tensor::File).collect(),
        }
    }

    /// What the mix of types depends on.
    pub(super) fn network(&self) -> Result<Network, Error> {
        let gguf = match &self.0 {
            Kind::Folder(folder) => return Ok(folder.network()),
            Kind::File(gguf) => gguf,
        };
        let metadata = gguf.metadata();
        let wrong = |problem: String| Error::content(gguf.path(), problem);
        let architecture = metadata.architecture()?;
        if architecture != "llama" {
            let name = crate::gguf::printable(architecture);
            return Err(wrong(format!(
                "is a {name} model: only the Llama family can be quantised"
            )));
        }
        if metadata
            .opt_u32("llama.expert_count")?
            .is_some_and(|n| n > 0)
        {
            return Err(wrong(
                "is a mixture of experts, which cannot be quantised here".to_owned(),
            ));
        }
        let n_heads = metadata.u32("llama.attention.head_count")?;
        let n_kv_heads = metadata.opt_u32("llama.attention.head_count_kv")?;
        Ok(Network {
            n_layers: metadata.u32("llama.block_count")? as usize,
            n_heads: n_heads as usize,
            n_kv_heads: n_kv_heads.unwrap_or(n_heads) as usize,
            has_importance: false,
            has_output: false,
        })
    }

    /// Writes every key but those of the quantisation.
    pub(super) fn write_keys(&self, writer: &mut Writer) -> Result<(), Error> {
        let gguf = match &self.0 {
            Kind::Folder(folder) => return folder.write_keys(writer),
            Kind::File(gguf) => gguf,
        };
        let metadata = gguf.metadata();
        for key in metadata.keys().filter(|key| !LEFT_OUT.contains(key)) {
            match metadata.value(key)? {
                // Tensors of the new file are aligned as a file that does not say it has them.
                Some(_) if key == "general.alignment" => {}
                Some(Value::Array(array)) => writer.array(key, array.element_type(), array.iter()),
                Some(value) => writer.key(key, value),
                None => {}
            }
        }
        Ok(())
    }

    /// Reads rows of a tensor, in the order of the file to be.
    pub(super) fn read(
        &self,
        tensor: &Tensor<'_>,
        rows: Range<usize>,
        row_bytes: usize,
        out: &mut [u8],
    ) -> Result<(), Error> {
        match (&self.0, tensor) {
            (Kind::Folder(folder), Tensor::Folder(tensor)) => {
                folder.read(tensor, rows, row_bytes, out)
            }
            (Kind::File(gguf), Tensor::File(tensor)) => {
                let bytes = gguf.bytes(tensor);
                out.copy_from_slice(&bytes[rows.start * row_bytes..rows.end * row_bytes]);
                // What was read is not needed again; where memory is short the system takes it anyway.
                let _ = bytes.release();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Tensor<'a> {
    pub(super) fn name(&self) -> &'a str {
        match self {
            Self::Folder(tensor) => &tensor.name,
            Self::File(tensor) => &tensor.name,
        }
    }

    /// The contiguous length first.
    pub(super) fn dims(&self) -> &'a [u64] {
        match self {
            Self::Folder(tensor) => &tensor.dims,
            Self::File(tensor) => &tensor.dims,
        }
    }

    /// What its weights are in.
    pub(super) fn ty(&self) -> TensorType {
        match self {
            Self::Folder(tensor) => tensor.ty,
            Self::File(tensor) => tensor.ty,
        }
    }

    /// What it is in if it is not quantised.
    pub(super) fn plain(&self) -> TensorType {
        match self {
            Self::Folder(tensor) => tensor.plain,
            Self::File(tensor) => tensor.ty,
        }
    }
}
