//! GGUF model files: checked as a whole when opened, then read in place; and written.
//!
//! GGUF is a header (keys with values, a directory of tensors) followed by the tensors' bytes.
//! Files come from strangers, so nothing reaches the floors above that was not checked: every length
//! against the file, every number for overflow, every tensor's place. No input makes the reader
//! panic, and what it allocates is bounded by what the file really holds.
//!
//! The files are mapped, not read. Should something shorten a file while it is open, touching the
//! lost part ends the process (`SIGBUS`), as for every program that maps files; should something
//! write to it, the bytes change under the reader, which can then compute nonsense, though never
//! read outside the mapping. Replace model files by renaming a new one into place.
//!
//! The module depends on nothing else of Ingle but the kernels: the fuzz targets include it alone.

mod error;
mod header;
mod metadata;
mod reader;
mod shards;
mod source;
mod tensor;
mod tensor_type;
mod value;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::Error;
pub use header::HeaderError;
pub(crate) use header::{is_control, printable};
pub use metadata::{Metadata, Strings};
pub use reader::What;
pub use source::{TensorBytes, map_file};
pub use tensor::TensorInfo;
pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};
pub use writer::{NewTensor, Writer};

use header::Header;
use shards::Split;
use source::Source;

/// A model file, or all shards of one, that has passed every check.
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Places in `tensors`, by ascending name.
    by_name: Vec<usize>,
    /// At least one.
    shards: Vec<Shard>,
    path: PathBuf,
}

/// One file of a model.
pub struct Shard {
    path: PathBuf,
    source: Arc<Source>,
}

impl Shard {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub fn n_bytes(&self) -> u64 {
        self.source.len() as u64
    }
}

impl Gguf {
    /// Opens a model: one file, or the first of its shards and with it the others beside it.
    ///
    /// # Errors
    /// The file cannot be read, is none, is no GGUF of version 2 or 3, contradicts itself, or is a
    /// shard that is not the first or whose siblings are missing.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::assemble(path, Source::map(path)?, Source::map)
    }

    /// Checks a whole file that is in memory. `path` is what errors call it; shards are refused.
    ///
    /// # Errors
    /// As for [`Gguf::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let no_siblings = |sibling: &Path| {
            Err(Error::Io {
                path: sibling.into(),
                source: io::ErrorKind::NotFound.into(),
            })
        };
        Self::assemble(path, Source::Owned(bytes), no_siblings)
    }

    /// The first file, and what `load` makes of the names of the others.
    fn assemble(
        path: &Path,
        source: Source,
        load: impl Fn(&Path) -> Result<Source, Error>,
    ) -> Result<Self, Error> {
        let source = Arc::new(source);
        let Header {
            version,
            alignment,
            metadata,
            mut tensors,
        } = parse(path, &source)?;
        let mut shards = vec![Shard {
            path: path.into(),
            source,
        }];
        if let Some(split) = Split::of(path, &metadata)? {
            if split.number != 1 {
                let first = split.sibling(path, 1)?;
                let Split { number, count, .. } = split;
                return Err(Error::NotFirstShard {
                    path: path.into(),
                    number,
                    count,
                    first,
                });
            }
            for number in 2..=split.count {
                let sibling = split.sibling(path, number)?;
                let (shard, more) = load_shard(&sibling, Split { number, ..split }, &load)?;
                tensors.extend(more.into_iter().map(|tensor| tensor.in_shard(shards.len())));
                shards.push(shard);
            }
            check_total(path, split, tensors.len())?;
        }
        let by_name = index(&tensors).map_err(|problem| Error::Header {
            path: path.into(),
            problem,
        })?;
        let path = path.into();
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
            by_name,
            shards,
            path,
        })
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the tensors of the first file are aligned to, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The keys and their values; those of the first file where there are several.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor, in the order of the directory, shard after shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let name_of = |idx: &usize| self.tensors.get(*idx).map(|tensor| tensor.name.as_str());
        let place = self
            .by_name
            .binary_search_by(|idx| name_of(idx).cmp(&Some(name)))
            .ok()?;
        self.tensors.get(*self.by_name.get(place)?)
    }

    /// The bytes of a tensor, in place.
    pub fn bytes(&self, tensor: &TensorInfo) -> TensorBytes {
        tensor.data().clone()
    }

    /// The files of the model in order, at least one.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::n_bytes).sum()
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the operating system to read the files ahead, before they are gone through once.
    /// Does nothing where that cannot be asked for.
    ///
    /// # Errors
    /// What the operating system says. The files can be read all the same.
    pub fn advise_sequential(&self) -> io::Result<()> {
        #[cfg(unix)]
        for shard in &self.shards {
            shard.source.advise(memmap2::Advice::Sequential)?;
            shard.source.advise(memmap2::Advice::WillNeed)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({} tensors)",
            self.path.display(),
            self.tensors.len()
        )
    }
}

fn parse(path: &Path, source: &Arc<Source>) -> Result<Header, Error> {
    Header::parse(source).map_err(|problem| Error::Header {
        path: path.into(),
        problem,
    })
}

/// One of the later shards, which has to say of itself what its name says.
fn load_shard(
    path: &Path,
    expected: Split,
    load: impl Fn(&Path) -> Result<Source, Error>,
) -> Result<(Shard, Vec<TensorInfo>), Error> {
    let missing = || Error::MissingShard {
        path: path.into(),
        count: expected.count,
    };
    let source = load(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => missing(),
        other => other,
    })?;
    let source = Arc::new(source);
    let Header {
        metadata, tensors, ..
    } = parse(path, &source)?;
    match Split::of(path, &metadata)? {
        Some(got) if (got.number, got.count) == (expected.number, expected.count) => {}
        got => {
            let said = got.map_or("a whole model".into(), |Split { number, count, .. }| {
                format!("shard {number} of {count}")
            });
            let Split { number, count, .. } = expected;
            let reason = format!("is named shard {number} of {count} but says it is {said}");
            return Err(Error::Shards {
                path: path.into(),
                reason,
            });
        }
    }
    Ok((
        Shard {
            path: path.into(),
            source,
        },
        tensors,
    ))
}

fn check_total(path: &Path, split: Split, n_tensors: usize) -> Result<(), Error> {
    match split.n_tensors {
        Some(expected) if expected != n_tensors as u64 => {
            let reason = format!(
                "announces {expected} tensors in {} files, which hold {n_tensors}",
                split.count
            );
            Err(Error::Shards {
                path: path.into(),
                reason,
            })
        }
        _ => Ok(()),
    }
}

/// Places of the tensors by ascending name.
fn index(tensors: &[TensorInfo]) -> Result<Vec<usize>, HeaderError> {
    let name = |idx: usize| tensors.get(idx).map(|tensor| tensor.name.as_str());
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_unstable_by_key(|idx| name(*idx));
    let twice = by_name
        .windows(2)
        .find(|pair| name(pair[0]) == name(pair[1]));
    match twice.and_then(|pair| name(pair[0])) {
        Some(tensor) => Err(HeaderError::DuplicateTensor {
            tensor: printable(tensor),
        }),
        None => Ok(by_name),
    }
}
