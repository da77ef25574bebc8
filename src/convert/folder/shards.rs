//! The files of weights: their headers read and checked, the weights themselves only when asked for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::super::{Error, files};
use super::tensor_type;
use crate::gguf::{TensorType, printable};

/// The longest header the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The bytes before the header, which say how long it is.
const PREFIX_BYTES: u64 = 8;
const INDEX: &str = "model.safetensors.index.json";
const NEEDED: &str = "the folder has no safetensors, or not all of them";

/// All files of a folder.
pub(super) struct Shards {
    shards: Vec<Shard>,
    tensors: Vec<Stored>,
}

struct Shard {
    path: PathBuf,
    file: File,
    n_bytes: u64,
}

/// A tensor and where it is.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) name: String,
    /// The contiguous length last.
    pub(super) shape: Vec<usize>,
    dtype: Dtype,
    shard_idx: usize,
    /// From the start of its file.
    offset: u64,
}

/// The list of which tensor is in which file.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Shards {
    /// Errors: a file is missing or contradicts itself, or the index contradicts the files.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let index_path = folder.join(INDEX);
        let index: Option<Index> = files::opt_json(&index_path)?;
        let names = match &index {
            Some(index) => listed(&index_path, index)?,
            None => found(folder)?,
        };
        if names.is_empty() {
            let path = folder.join("model.safetensors");
            return Err(Error::Missing {
                path,
                needed: NEEDED,
            });
        }
        let (mut shards, mut tensors) = (Vec::new(), Vec::new());
        for name in names {
            let path = folder.join(name);
            let (shard, more) = header(path, shards.len())?;
            shards.push(shard);
            tensors.extend(more);
        }
        let mut there = HashSet::new();
        for tensor in &tensors {
            if !there.insert(&*tensor.name) {
                return Err(Error::tensor(&tensor.name, "is in two files"));
            }
        }
        if let Some(index) = &index
            && let Some(missing) = index
                .weight_map
                .keys()
                .find(|name| !there.contains(&***name))
        {
            return Err(Error::tensor(
                missing,
                format!("is named by {INDEX} and in none of its files"),
            ));
        }
        Ok(Self { shards, tensors })
    }

    pub(super) fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.n_bytes).sum()
    }

    /// Reads bytes of a tensor, from its `start`th.
    ///
    /// Errors: what the operating system says, the file having been shortened among it.
    pub(super) fn read(&self, tensor: &Stored, start: u64, out: &mut [u8]) -> Result<(), Error> {
        let Some(shard) = self.shards.get(tensor.shard_idx) else {
            return Ok(());
        };
        let mut file = &shard.file;
        let place = SeekFrom::Start(tensor.offset + start);
        let read = file.seek(place).and_then(|_| file.read_exact(out));
        read.map_err(Error::io(&shard.path))
    }
}

impl Stored {
    /// Its type, if it is one of floats that can be read.
    pub(super) fn tensor_type(&self) -> Result<TensorType, Error> {
        match self.dtype {
            Dtype::F32 => tensor_type("F32"),
            Dtype::F16 => tensor_type("F16"),
            Dtype::BF16 => tensor_type("BF16"),
            other => {
                let problem = format!("is in {other:?}: F32, F16 and BF16 can be converted");
                Err(Error::tensor(&self.name, problem))
            }
        }
    }
}

/// The files the index names, each a plain name in the same folder.
fn listed(path: &Path, index: &Index) -> Result<Vec<String>, Error> {
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let is_plain = |name: &str| {
        let is_name = !name.contains(['/', '\\', ':', '\0']) && !name.starts_with('.');
        is_name && name.ends_with(".safetensors")
    };
    match names.iter().find(|name| !is_plain(name)) {
        Some(name) => {
            let name = printable(name);
            let problem = format!("names the file {name:?}: a .safetensors beside it is needed");
            Err(Error::content(path, problem))
        }
        None => Ok(names.into_iter().cloned().collect()),
    }
}

/// The files there are.
fn found(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a file, and reads and checks its header.
fn header(path: PathBuf, shard_idx: usize) -> Result<(Shard, Vec<Stored>), Error> {
    let mut file = files::open(&path, NEEDED)?;
    let n_bytes = file.metadata().map_err(Error::io(&path))?.len();
    let wrong = |problem: String| Error::content(&path, problem);
    let mut prefix = [0; 8];
    if n_bytes < PREFIX_BYTES {
        return Err(wrong(format!(
            "is {n_bytes} bytes long: this is no safetensors file"
        )));
    }
    file.read_exact(&mut prefix).map_err(Error::io(&path))?;
    let header_bytes = u64::from_le_bytes(prefix);
    let room = n_bytes - PREFIX_BYTES;
    if header_bytes > room.min(MAX_HEADER_BYTES) {
        return Err(wrong(format!(
            "claims a header of {header_bytes} bytes, but holds {room}: this is no safetensors file, \
             or not all of one"
        )));
    }
    let mut header = vec![0; usize::try_from(header_bytes).unwrap_or_default()];
    file.read_exact(&mut header).map_err(Error::io(&path))?;
    // Checks that tensors lie one after the other and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|problem| wrong(format!("has a header that cannot be used: {problem}")))?;
    let (expected, got) = (metadata.data_len() as u64, room - header_bytes);
    if expected != got {
        return Err(wrong(format!(
            "holds {got} bytes of tensors where its header makes it {expected}"
        )));
    }
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if info.shape.contains(&0) || info.shape.is_empty() {
            return Err(Error::tensor(&name, format!("has shape {:?}", info.shape)));
        }
        tensors.push(Stored {
            shape: info.shape.clone(),
            dtype: info.dtype,
            shard_idx,
            offset: PREFIX_BYTES + header_bytes + info.data_offsets.0 as u64,
            name,
        });
    }
    let shard = Shard {
        path,
        file,
        n_bytes,
    };
    Ok((shard, tensors))
}
