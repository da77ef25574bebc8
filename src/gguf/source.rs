//! Where a file's bytes are: mapped from disk, or in a buffer.

use std::fs::{self, File, FileType};
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::Error;

/// The bytes of one file.
pub(super) enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Source {
    /// Maps a regular file. A folder, a device or a pipe is refused before it is opened, because
    /// opening a pipe waits for a writer.
    pub(super) fn map(path: &Path) -> Result<Self, Error> {
        let io_error = |source| Error::Io {
            path: path.into(),
            source,
        };
        refuse_special(path, fs::metadata(path).map_err(io_error)?.file_type())?;
        let file = File::open(path).map_err(io_error)?;
        // Asked again of the open file: the name may have changed hands in between.
        let facts = file.metadata().map_err(io_error)?;
        refuse_special(path, facts.file_type())?;
        if facts.len() == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        #[expect(
            unsafe_code,
            reason = "a mapping is what lets a model be read without a copy"
        )]
        // SAFETY: the mapping is read-only and lives in `Source`, which gives out borrows only.
        // That nobody shortens or rewrites the file meanwhile cannot be checked; the module's
        // documentation says what happens then.
        let mapping = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Ok(Self::Mapped(mapping))
    }

    /// Gives memory back that holds a part of a mapped file; it is read from disk again if need be.
    #[cfg(unix)]
    fn release(&self, range: &Range<usize>) -> io::Result<()> {
        let Self::Mapped(mapping) = self else {
            return Ok(());
        };
        #[expect(unsafe_code, reason = "the advice loses what was written to a mapping")]
        // SAFETY: nothing was ever written to this mapping: what it loses is in the file.
        unsafe {
            mapping.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                range.start,
                range.len(),
            )
        }
    }

    /// Tells the operating system how a mapped file is going to be read.
    #[cfg(unix)]
    pub(super) fn advise(&self, advice: memmap2::Advice) -> io::Result<()> {
        match self {
            Self::Mapped(mapping) => mapping.advise(advice),
            Self::Owned(_) => Ok(()),
        }
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Owned(bytes) => bytes,
        }
    }
}

fn refuse_special(path: &Path, file_type: FileType) -> Result<(), Error> {
    if file_type.is_file() {
        return Ok(());
    }
    Err(Error::NotAFile {
        path: path.into(),
        kind: kind(file_type),
    })
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a named pipe";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
        if file_type.is_socket() {
            return "a socket";
        }
    }
    "something else"
}

/// The bytes of a whole file of whatever kind, mapped: a model's folder holds others beside GGUF files.
///
/// # Errors
/// The file cannot be opened, or is no regular file.
pub fn map_file(path: &Path) -> Result<TensorBytes, Error> {
    let source = Arc::new(Source::map(path)?);
    let range = 0..source.len();
    Ok(TensorBytes::new(source, range))
}

/// The bytes of a tensor, in place. Holding them keeps the file mapped.
#[derive(Clone)]
pub struct TensorBytes {
    source: Arc<Source>,
    range: Range<usize>,
}

impl TensorBytes {
    /// `range` has to lie in `source`; nothing is left of it where it does not.
    pub(super) fn new(source: Arc<Source>, range: Range<usize>) -> Self {
        Self { source, range }
    }

    /// Gives the memory back that holds these bytes, once they were copied elsewhere. They can be read
    /// all the same, from disk.
    ///
    /// # Errors
    /// What the operating system says. The bytes can be read all the same.
    pub fn release(&self) -> io::Result<()> {
        #[cfg(unix)]
        self.source.release(&self.range)?;
        Ok(())
    }

    /// Where in its file the tensor stands.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.source.get(self.range.clone()).unwrap_or_default()
    }
}
