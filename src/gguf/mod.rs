//! GGUF files: validated once, then read in place.

mod error;
mod metadata;
mod tensor_type;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use error::Error;
pub use metadata::{Metadata, Strings};
pub use tensor_type::TensorType;

/// A validated model file (or the shards of one), mapped into memory.
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Opens one file, or the first of several shards together with the others.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(_path: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// The key-value part of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, _name: &str) -> Option<&TensorInfo> {
        todo!()
    }

    /// The bytes of a tensor, in place.
    pub fn bytes(&self, _tensor: &TensorInfo) -> TensorBytes {
        todo!()
    }

    /// Bytes of all files of the model together.
    pub fn file_bytes(&self) -> u64 {
        todo!()
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        todo!()
    }
}

/// What the file says of a tensor.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// How its numbers are stored.
    pub ty: TensorType,
    /// Lengths in GGUF's order: `dims[0]` is the contiguous one.
    pub dims: Vec<u64>,
}

/// The bytes of a tensor. Keeps the file mapped.
#[derive(Clone)]
pub struct TensorBytes {
    source: Arc<[u8]>,
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.source
    }
}
