//! Reading a bundle from its first byte to its last: every one has to be what the manifest says.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::Digest;
use tar::Header;

use super::error::BundleError;
use super::layout::{self, BLOCK_BYTES, BLOCK_LEN, CopyError, END_BYTES, MANIFEST, Meter};
use super::{BundleManifest, BundledFile, MANIFEST_BYTES_MOST};
use crate::catalog::checked::Sha256;

/// An open bundle, read up to some entry.
pub(super) struct Bundle {
    path: PathBuf,
    file: File,
    pub(super) manifest: BundleManifest,
    /// What it is known by: the checksum of its manifest, which states all others.
    pub(super) sha256: Sha256,
}

/// Reads a whole bundle and checks every byte of it; gives what it holds, and the checksum of its
/// manifest. Blocks its thread.
///
/// - `tell` — hears how far it is: bytes done, and of how many
///
/// # Errors
/// [`BundleError::Refused`], [`BundleError::Io`].
pub fn verify(
    path: &Path,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<(BundleManifest, Sha256), BundleError> {
    let mut bundle = Bundle::open(path)?;
    let files: Vec<BundledFile> = bundle.manifest.files().cloned().collect();
    let total = files.iter().map(|file| file.size_bytes);
    let mut meter = Meter {
        done: 0,
        total: total.fold(0, u64::saturating_add),
        tell,
    };
    for file in &files {
        bundle.entry(file, (&mut io::sink(), path), &mut meter)?;
    }
    Ok((bundle.manifest, bundle.sha256))
}

impl Bundle {
    /// Opens a bundle and reads its manifest. The file has to be exactly as long as that says.
    ///
    /// Errors: it is none, or one that cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self, BundleError> {
        let refused = |problem: String| BundleError::Refused {
            path: path.to_owned(),
            problem,
        };
        let reading = |error| BundleError::io("reading", path, error);
        // Asked before it is opened: opening a pipe waits for a writer.
        if !fs::metadata(path).map_err(reading)?.is_file() {
            return Err(refused("it is no file".to_owned()));
        }
        let mut file = File::open(path).map_err(reading)?;
        let n_bytes = file.metadata().map_err(reading)?.len();
        let mut block = [0; BLOCK_LEN];
        let none = || {
            refused(format!(
                "it does not begin with {MANIFEST}, so it is no bundle"
            ))
        };
        match file.read_exact(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(none()),
            read => read.map_err(reading)?,
        }
        let size = Header::from_byte_slice(&block)
            .entry_size()
            .map_err(|_| none())?;
        let expected = layout::header(MANIFEST, size).map_err(|_| none())?;
        if block != *expected.as_bytes() {
            return Err(none());
        }
        if size > MANIFEST_BYTES_MOST {
            return Err(refused(format!(
                "its manifest is {size} bytes long, and more than {MANIFEST_BYTES_MOST} are not read"
            )));
        }
        let cut_off = || refused(format!("it is cut off after {n_bytes} bytes"));
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact(&mut bytes).map_err(|_| cut_off())?;
        let manifest = BundleManifest::parse(&bytes).map_err(refused)?;
        match layout::archive_bytes(&manifest, size) {
            Some(expected) if expected == n_bytes => {}
            Some(expected) => {
                let what = if n_bytes < expected {
                    "it is cut off"
                } else {
                    "more follows its end"
                };
                return Err(refused(format!(
                    "it is {n_bytes} bytes long and lists files for {expected}: {what}"
                )));
            }
            None => return Err(refused("it lists files longer than any disk".to_owned())),
        }
        let sha256 = Sha256::from_bytes(sha2::Sha256::digest(&bytes).into());
        let mut bundle = Self {
            path: path.to_owned(),
            file,
            manifest,
            sha256,
        };
        // Before anything is unpacked: what ends otherwise was tampered with as a whole.
        bundle.end(n_bytes - END_BYTES)?;
        let behind = SeekFrom::Start(BLOCK_BYTES + size);
        bundle.file.seek(behind).map_err(reading)?;
        bundle.zeros(layout::padding(size), MANIFEST)?;
        Ok(bundle)
    }

    /// Reads the next entry, which has to be `file`, into `to`.
    ///
    /// Errors: it is another, or its bytes are; `to` takes no more.
    pub(super) fn entry(
        &mut self,
        file: &BundledFile,
        (to, to_path): (&mut dyn Write, &Path),
        meter: &mut Meter<'_>,
    ) -> Result<(), BundleError> {
        self.header(file)?;
        let got = layout::copy(&mut self.file, to, file.size_bytes, meter);
        let got = got.map_err(|error| match error {
            CopyError::Reading(error) => BundleError::io("reading", &self.path, error),
            CopyError::Writing(error) => BundleError::io("writing", to_path, error),
        })?;
        if got != file.sha256 {
            return Err(self.refused(format!(
                "the sha256 of {} in it is {got}, and its manifest says {}",
                file.path, file.sha256
            )));
        }
        self.zeros(layout::padding(file.size_bytes), &file.path)
    }

    /// Passes over the next entry, which has to be `file`.
    ///
    /// Errors: it is another.
    pub(super) fn skip(&mut self, file: &BundledFile) -> Result<(), BundleError> {
        self.header(file)?;
        // The whole archive is as long as its entries: no entry is longer than a file can be.
        let offset = i64::try_from(file.size_bytes).unwrap_or(i64::MAX);
        self.file
            .seek(SeekFrom::Current(offset))
            .map_err(|error| BundleError::io("reading", &self.path, error))?;
        self.zeros(layout::padding(file.size_bytes), &file.path)
    }

    /// Reads what comes after the last entry.
    ///
    /// Errors: it is not the end of a tar.
    fn end(&mut self, start: u64) -> Result<(), BundleError> {
        self.file
            .seek(SeekFrom::Start(start))
            .map_err(|error| BundleError::io("reading", &self.path, error))?;
        self.zeros(END_BYTES, "the last file")
    }

    pub(super) fn refused(&self, problem: String) -> BundleError {
        BundleError::Refused {
            path: self.path.clone(),
            problem,
        }
    }

    fn header(&mut self, file: &BundledFile) -> Result<(), BundleError> {
        let mut block = [0; BLOCK_LEN];
        self.file
            .read_exact(&mut block)
            .map_err(|error| BundleError::io("reading", &self.path, error))?;
        let expected = layout::header(&file.path, file.size_bytes)
            .map_err(|error| self.refused(format!("it lists {:?}: {error}", file.path)))?;
        if block == *expected.as_bytes() {
            return Ok(());
        }
        let got = Header::from_byte_slice(&block);
        let name = String::from_utf8_lossy(&got.path_bytes()).into_owned();
        Err(self.refused(format!(
            "it holds {name:?} ({:?}) where its manifest lists the file {} of {} bytes",
            got.entry_type(),
            file.path,
            file.size_bytes
        )))
    }

    fn zeros(&mut self, n_bytes: u64, after: &str) -> Result<(), BundleError> {
        let mut bytes = Vec::new();
        (&mut self.file)
            .take(n_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| BundleError::io("reading", &self.path, error))?;
        if bytes.len() as u64 != n_bytes || bytes.iter().any(|byte| *byte != 0) {
            return Err(self.refused(format!("something else than zeros follows {after} in it")));
        }
        Ok(())
    }
}
