//! A GGUF writer for tests: it writes what it is told, right or wrong.

mod tiny_llama;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use tiny_llama::{CHATML, TinyLlama, Vocabulary};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meta {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(Vec<u8>),
    /// The element type's id and the elements.
    Array(u32, Vec<Meta>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Any type id followed by any bytes.
    Raw(u32, Vec<u8>),
}

impl Meta {
    /// The id the file calls the value's type by.
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Str(_) => 8,
            Self::Array(..) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
            Self::Raw(id, _) => *id,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(v) => out.push(*v),
            Self::I8(v) => out.extend(v.to_le_bytes()),
            Self::U16(v) => out.extend(v.to_le_bytes()),
            Self::I16(v) => out.extend(v.to_le_bytes()),
            Self::U32(v) => out.extend(v.to_le_bytes()),
            Self::I32(v) => out.extend(v.to_le_bytes()),
            Self::F32(v) => out.extend(v.to_le_bytes()),
            Self::Bool(v) => out.push(u8::from(*v)),
            Self::Str(v) => write_string(v, out),
            Self::Array(element, values) => {
                out.extend(element.to_le_bytes());
                out.extend(u64::try_from(values.len()).unwrap().to_le_bytes());
                for value in values {
                    value.write(out);
                }
            }
            Self::U64(v) => out.extend(v.to_le_bytes()),
            Self::I64(v) => out.extend(v.to_le_bytes()),
            Self::F64(v) => out.extend(v.to_le_bytes()),
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

/// A plain value and an array of it.
macro_rules! from {
    ($($ty:ty => $variant:ident, $id:literal;)*) => {$(
        impl From<$ty> for Meta {
            fn from(value: $ty) -> Self {
                Self::$variant(value)
            }
        }
        impl From<Vec<$ty>> for Meta {
            fn from(values: Vec<$ty>) -> Self {
                Self::Array($id, values.into_iter().map(Self::$variant).collect())
            }
        }
    )*};
}

from! {
    u8 => U8, 0; i8 => I8, 1; u16 => U16, 2; i16 => I16, 3; u32 => U32, 4; i32 => I32, 5;
    f32 => F32, 6; bool => Bool, 7; u64 => U64, 10; i64 => I64, 11; f64 => F64, 12;
}

impl From<&str> for Meta {
    fn from(text: &str) -> Self {
        Self::Str(text.as_bytes().to_vec())
    }
}

impl From<Vec<String>> for Meta {
    fn from(texts: Vec<String>) -> Self {
        Self::Array(
            8,
            texts.iter().map(|text| Self::from(text.as_str())).collect(),
        )
    }
}

/// A tensor: what the header says of it, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: Vec<u8>,
    pub(crate) type_id: u32,
    pub(crate) dims: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    /// What the header says instead of the place the bytes really take.
    pub(crate) offset: Option<u64>,
}

/// A file to be.
#[derive(Clone, Debug)]
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    /// What the data is aligned to. Say so in the metadata too unless it is 32.
    pub(crate) alignment: usize,
    pub(crate) metadata: Vec<(Vec<u8>, Meta)>,
    pub(crate) tensors: Vec<Tensor>,
    /// What the header says instead of the real number of tensors.
    pub(crate) n_tensors: Option<u64>,
    /// What the header says instead of the real number of keys.
    pub(crate) n_keys: Option<u64>,
}

impl Default for GgufFile {
    fn default() -> Self {
        Self {
            version: 3,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
            n_tensors: None,
            n_keys: None,
        }
    }
}

impl GgufFile {
    /// An empty file of version 3.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a key, a second time if it is there already.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Meta>) -> Self {
        self.metadata.push((key.as_bytes().to_vec(), value.into()));
        self
    }

    /// Gives a key its only value.
    pub(crate) fn set(self, key: &str, value: impl Into<Meta>) -> Self {
        self.without(key).with(key, value)
    }

    /// Takes a key away.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(name, _)| name != key.as_bytes());
        self
    }

    /// Adds a tensor.
    pub(crate) fn tensor(mut self, name: &str, type_id: u32, dims: &[u64], bytes: Vec<u8>) -> Self {
        let name = name.as_bytes().to_vec();
        self.tensors.push(Tensor {
            name,
            type_id,
            dims: dims.to_vec(),
            bytes,
            offset: None,
        });
        self
    }

    /// Adds a tensor of F32.
    pub(crate) fn tensor_f32(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        self.tensor(
            name,
            0,
            dims,
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        )
    }

    /// The header alone: all before the padding that leads to the tensors' bytes.
    pub(crate) fn header(&self) -> Vec<u8> {
        let count = |n: usize| u64::try_from(n).unwrap();
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.n_tensors
                .unwrap_or(count(self.tensors.len()))
                .to_le_bytes(),
        );
        out.extend(
            self.n_keys
                .unwrap_or(count(self.metadata.len()))
                .to_le_bytes(),
        );
        for (key, value) in &self.metadata {
            write_string(key, &mut out);
            out.extend(value.type_id().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            write_string(&tensor.name, &mut out);
            out.extend(u32::try_from(tensor.dims.len()).unwrap().to_le_bytes());
            tensor
                .dims
                .iter()
                .for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(count(offset)).to_le_bytes());
            offset = (offset + tensor.bytes.len()).next_multiple_of(self.alignment);
        }
        out
    }

    /// The whole file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.bytes);
        }
        out
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.to_bytes()).unwrap();
    }

    /// The file cut into `n_shards`, the way llama.cpp's `gguf-split` does it: all metadata in the
    /// first, the tensors spread in order.
    pub(crate) fn split(&self, n_shards: u16) -> Vec<Self> {
        let per_shard = self.tensors.len().div_ceil(usize::from(n_shards)).max(1);
        let mut chunks = self.tensors.chunks(per_shard);
        let total = i32::try_from(self.tensors.len()).unwrap();
        (0..n_shards)
            .map(|shard| {
                let base = if shard == 0 {
                    self.metadata.clone()
                } else {
                    Vec::new()
                };
                let tensors = chunks.next().unwrap_or_default().to_vec();
                Self {
                    metadata: base,
                    tensors,
                    ..self.clone()
                }
                .set("split.no", shard)
                .set("split.count", n_shards)
                .set("split.tensors.count", total)
            })
            .collect()
    }

    /// Writes [`GgufFile::split`] as `<stem>-00001-of-000NN.gguf` and so on.
    pub(crate) fn write_shards(&self, folder: &Path, stem: &str, n_shards: u16) -> Vec<PathBuf> {
        let shards = self.split(n_shards);
        let paths = (1..=n_shards)
            .map(|number| folder.join(format!("{stem}-{number:05}-of-{n_shards:05}.gguf")));
        paths
            .zip(shards)
            .inspect(|(path, shard)| shard.write(path))
            .map(|(path, _)| path)
            .collect()
    }
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.extend(u64::try_from(text.len()).unwrap().to_le_bytes());
    out.extend(text);
}
