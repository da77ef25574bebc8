//! Checksums of files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::Digest;

use super::checked::Sha256;
use super::error::Error;

const CHUNK_BYTES: usize = 1 << 20;

/// The checksum of a file of anybody's. Blocks its thread.
///
/// - `tell` — hears how far it is: bytes done, and of how many
///
/// # Errors
/// [`Error::Io`].
pub fn sha256_file(path: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<Sha256, Error> {
    let total = fs::metadata(path).map(|meta| meta.len());
    let total = total.map_err(|error| Error::io("reading", path, error))?;
    let got = hash(path, &mut |done| tell(done, total));
    got.map_err(|error| Error::io("reading", path, error))
}

/// The checksum of a file, as it is on the disk. Blocks its thread.
pub(super) fn sha256_of(path: &Path) -> io::Result<Sha256> {
    hash(path, &mut |_| {})
}

fn hash(path: &Path, tell: &mut dyn FnMut(u64)) -> io::Result<Sha256> {
    let mut done = 0;
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n_bytes = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(chunk.get(..n_bytes).unwrap_or_default());
        done += n_bytes as u64;
        tell(done);
    }
    Ok(Sha256::from_bytes(hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_of(&path).unwrap().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
