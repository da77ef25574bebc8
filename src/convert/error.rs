//! Why a model cannot be converted, one sentence each.

use std::io;
use std::path::{Path, PathBuf};

use ingle_kernels::encode::RecodeError;

use crate::gguf::{self, HeaderError, printable};

/// Why a folder or file is not turned into a GGUF file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{} is missing: {needed}", .path.display())]
    Missing { path: PathBuf, needed: &'static str },
    #[error("{} is no regular file", .path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is {n_bytes} bytes long: more than {limit} are refused", .path.display())]
    TooLong {
        path: PathBuf,
        n_bytes: u64,
        limit: u64,
    },
    #[error("{} {problem}", .path.display())]
    Content { path: PathBuf, problem: String },
    #[error("tensor {tensor} {problem}")]
    Tensor { tensor: String, problem: String },
    #[error("tensor {tensor}: {problem}")]
    Recode {
        tensor: String,
        problem: RecodeError,
    },
    #[error(
        "tensor {tensor} is {ty} already, and quantising it again loses more than once: take the \
         model in F32, F16, BF16 or Q8_0, or say --allow-requantize"
    )]
    Quantized { tensor: String, ty: &'static str },
    #[error("{} is what is read: name another file to write", .path.display())]
    Itself { path: PathBuf },
    #[error("{} is being written by another run: wait for it, or name another file", .path.display())]
    Busy { path: PathBuf },
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(super) fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content {
            path: path.into(),
            problem: problem.into(),
        }
    }

    pub(super) fn tensor(name: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            tensor: printable(name),
            problem: problem.into(),
        }
    }

    /// Names the file an error of the operating system is about.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }
}
