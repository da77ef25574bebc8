//! Why a bundle was not written or not installed, one sentence each.

use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::error::Error;

/// Why a bundle was not written or not installed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The catalogue or the store says no.
    #[error(transparent)]
    Catalog(#[from] Error),
    /// The file is no bundle, or not the bundle it says it is.
    #[error("{} is refused: {problem}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in one clause.
        problem: String,
    },
    /// A model cannot go into a bundle.
    #[error("{name} cannot go into a bundle: {problem}")]
    NotCarried {
        /// The model.
        name: String,
        /// Why, in one clause that says what to do.
        problem: String,
    },
    /// Something is in the way.
    #[error("{} {problem}", .path.display())]
    InTheWay {
        /// What.
        path: PathBuf,
        /// What it is and what to do.
        problem: String,
    },
    /// A file was changed while it was copied.
    #[error(
        "{} is not what it was: its sha256 is {got} and should be {expected}; remove the model and get \
         it again", .path.display()
    )]
    Changed {
        /// The model's file.
        path: PathBuf,
        /// What the receipt says.
        expected: String,
        /// What the file has.
        got: String,
    },
    /// The disk is too full.
    #[error("{needed} bytes are needed in {}, and {free} are free", .path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that are going to be written.
        needed: u64,
        /// Bytes that can be written.
        free: u64,
    },
    /// The disk would not have it.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, e.g. `writing`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BundleError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io {
            doing,
            path,
            source,
        }
    }
}
