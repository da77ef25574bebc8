//! How a bundle's bytes lie: what is listed decides every byte that is not a file's own.

use std::io::{self, Read, Write};

use sha2::Digest;
use tar::{EntryType, Header};

use super::{BundleManifest, BundledFile};
use crate::catalog::checked::{CarriedName, Sha256};

/// A tar is made of blocks of so many bytes.
pub(super) const BLOCK_BYTES: u64 = BLOCK_LEN as u64;
/// The same, as the length of a piece of memory.
pub(super) const BLOCK_LEN: usize = 512;
/// It ends with two blocks of zeros.
pub(super) const END_BYTES: u64 = 2 * BLOCK_BYTES;
/// The first entry.
pub(super) const MANIFEST: &str = "manifest.json";
/// What is copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The header of an entry: the same bytes for the same path and length, whoever writes it and when.
///
/// Errors: the path is too long for a tar.
pub(super) fn header(path: &str, size_bytes: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(path)?;
    header.set_size(size_bytes);
    header.set_mode(if path.starts_with("bin/") {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// The path of one of the files of a model that is no model of the catalogue.
///
/// - `number` — which one, from 1
pub(super) fn file_path(name: &CarriedName, number: usize, n_files: usize) -> String {
    if n_files == 1 {
        return format!("files/{name}.gguf");
    }
    format!("files/{name}-{number:05}-of-{n_files:05}.gguf")
}

/// The zeros between an entry's end and the next block.
pub(super) fn padding(size_bytes: u64) -> u64 {
    size_bytes.wrapping_neg() % BLOCK_BYTES
}

/// The length of the whole archive; `None` where no file could be so long.
///
/// - `manifest_bytes` — the length of the manifest
pub(super) fn archive_bytes(manifest: &BundleManifest, manifest_bytes: u64) -> Option<u64> {
    let listed = manifest.files().map(|file: &BundledFile| file.size_bytes);
    let sizes = std::iter::once(manifest_bytes).chain(listed);
    let mut total = END_BYTES;
    for size in sizes {
        let entry = size.checked_add(padding(size))?.checked_add(BLOCK_BYTES)?;
        total = total.checked_add(entry)?;
    }
    Some(total)
}

/// How far a copy is: bytes done, and of how many.
pub(super) struct Meter<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) tell: &'a mut dyn FnMut(u64, u64),
}

impl Meter<'_> {
    pub(super) fn add(&mut self, n_bytes: u64) {
        self.done = self.done.saturating_add(n_bytes);
        (self.tell)(self.done, self.total);
    }
}

/// How a copy went wrong.
pub(super) enum CopyError {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies exactly `size_bytes` in bounded memory and gives their checksum.
pub(super) fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    size_bytes: u64,
    meter: &mut Meter<'_>,
) -> Result<Sha256, CopyError> {
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let part = chunk.get_mut(..wanted).unwrap_or_default();
        let n_bytes = match from.read(part) {
            Ok(0) => return Err(CopyError::Reading(io::ErrorKind::UnexpectedEof.into())),
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Reading(error)),
        };
        let part = part.get(..n_bytes).unwrap_or_default();
        hasher.update(part);
        to.write_all(part).map_err(CopyError::Writing)?;
        let n_bytes = n_bytes as u64;
        left -= n_bytes;
        meter.add(n_bytes);
    }
    Ok(Sha256::from_bytes(hasher.finalize().into()))
}
