//! Getting a file from where the catalogue says, into a partial file that a later try goes on with.

mod address;
mod advice;
mod client;
mod download;
mod error;
mod http;
mod hub;
mod one_stream;
mod options;
mod package;
mod pieces;
mod retries;
mod sink;
mod spread;
mod wheel;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::egress::ModelFetch;

use super::checked::{Member, Sha256};
use super::disk;
use super::manifest::Source;
use super::pins::Pins;
use super::progress::{FetchEvent, Progress};
use super::receipt::Receipt;
use super::verify::sha256_of;

pub use client::{client_builder, no_client};
pub use error::FetchError;
pub(super) use http::shown;
pub use http::{host, innermost};
pub use options::{CaFile, HttpOptions, HubOptions, PipOptions, ProxyOptions};

/// Verified files that wait to be put into their place, in the manifest's order.
pub(super) struct Fetched {
    pub(super) files: Vec<FetchedFile>,
    /// The commit the hub said they are from.
    pub(super) commit: Option<String>,
}

/// A verified file that waits to be put into its place.
pub(super) struct FetchedFile {
    /// Where it lies. Files with the same bytes lie in the same place.
    pub(super) path: PathBuf,
    /// Where it belongs in the model's folder.
    pub(super) name: Member,
    /// Where the source had it.
    pub(super) from: String,
    pub(super) sha256: Sha256,
    pub(super) size_bytes: u64,
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
    /// Errors: the folder cannot be made, or what lies there not be sorted.
    pub(super) fn open(folder: PathBuf, lock: Arc<File>) -> Result<Self, super::Error> {
        fs::create_dir_all(&folder)
            .map_err(|error| super::Error::io("creating", &folder, error))?;
        let workplace = Self {
            folder,
            _lock: lock,
        };
        let ready = workplace.ready();
        workplace
            .take_back()
            .map_err(|error| super::Error::io("sorting", &ready, error))?;
        Ok(workplace)
    }

    /// Where verified files are gathered before they appear together.
    pub(super) fn ready(&self) -> PathBuf {
        self.folder.join("ready")
    }

    /// A process that ended while it gathered files left them moved: they are partial files again,
    /// so that nothing is asked for twice.
    fn take_back(&self) -> io::Result<()> {
        let ready = self.ready();
        let receipt = Receipt::read(&ready, "");
        for file in receipt.map(|receipt| receipt.files).unwrap_or_default() {
            match fs::rename(ready.join(file.name.as_str()), self.part(file.sha256)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        disk::remove_all(&ready)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The partial file of what has this checksum: whoever sends those bytes, they go on from there.
    pub(in crate::catalog) fn part(&self, sha256: Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.part"))
    }

    /// The file of what has this checksum while several connections write to it.
    fn pieces(&self, sha256: Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.pieces"))
    }

    /// Whether something of what has this checksum is here.
    fn has_begun(&self, sha256: Sha256) -> bool {
        self.part(sha256).exists() || self.pieces(sha256).exists()
    }

    /// Refuses early what the disk cannot hold, less what is here already.
    fn check_space_for(
        &self,
        files: impl Iterator<Item = Sha256>,
        total: u64,
    ) -> Result<(), FetchError> {
        let mut parts: Vec<PathBuf> = files
            .flat_map(|sha256| [self.part(sha256), self.pieces(sha256)])
            .collect();
        parts.sort();
        parts.dedup();
        let lengths = parts.iter().map(|part| disk::bytes_of(part));
        let here = lengths.fold(0, u64::saturating_add);
        self.check_space(total.saturating_sub(here))
    }

    /// An error of the disk, with numbers if it is full.
    fn full(&self, error: FetchError, total: u64, here: u64) -> FetchError {
        let FetchError::Io { path, source, .. } = &error else {
            return error;
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FetchError::NoSpace {
                path: self.folder.clone(),
                needed: total.saturating_sub(here),
                free: disk::free_bytes(&self.folder).unwrap_or(0),
            },
            io::ErrorKind::FileTooLarge => FetchError::TooLong {
                path: path.clone(),
                needed: total,
            },
            _ => error,
        }
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
#[derive(Clone)]
pub(super) struct Fetcher<'a> {
    pub(super) hub: &'a HubOptions,
    pub(super) http: &'a HttpOptions,
    pub(super) pip: &'a PipOptions,
    pub(super) workplace: Workplace,
    pub(super) pins: &'a Pins,
    pub(super) progress: &'a dyn Progress,
    /// Leaving the machine takes one.
    pub(super) permit: &'a ModelFetch,
}

impl Fetcher<'_> {
    /// Gets the files of one source, verified. A `file` source has nothing to get.
    pub(super) async fn fetch(&self, source: &Source) -> Result<Fetched, FetchError> {
        match source {
            Source::Hub(hub) => hub::fetch(self, hub, &source.to_string()).await,
            Source::Package(package) => package::fetch(self, package, &source.to_string()).await,
            Source::Url(files) => address::fetch(self, files, &source.to_string()).await,
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
