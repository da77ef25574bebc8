//! `--logits OUT`: the logits of every scored position, for other programs to compare with.
//!
//! All numbers are little-endian:
//!
//! | bytes | hold |
//! |---|---|
//! | 8 | `INGLELOG` |
//! | 5 × 4 | u32: version 1, tokens of the vocabulary, chunks, tokens of a chunk, first scored position |
//! | chunks × tokens × 4 | u32: the token ids, chunk after chunk, as they were evaluated |
//! | rows × vocabulary × 4 | f32: logits of the positions from the first scored to the last but one of each chunk |
//!
//! The row of a position is what predicts the token after it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::chunks::Chunks;

const MAGIC: &[u8; 8] = b"INGLELOG";
const VERSION: u32 = 1;

/// A file under way. It gets its name once it is whole, and is removed if it never is.
pub(super) struct LogitsFile {
    out: BufWriter<File>,
    path: PathBuf,
    partial: PathBuf,
}

impl LogitsFile {
    /// Begins a file with all that is known before the first step.
    ///
    /// Errors: the file cannot be written.
    pub(super) fn begin(path: &Path, n_vocab: usize, chunks: &Chunks) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial)
            .with_context(|| format!("{} cannot be written", partial.display()))?;
        let mut this = Self {
            out: BufWriter::new(file),
            path: path.to_owned(),
            partial,
        };
        this.write(MAGIC)?;
        let sizes = [
            n_vocab,
            chunks.n_chunks(),
            chunks.chunk_len(),
            chunks.scored().start,
        ];
        this.write(&VERSION.to_le_bytes())?;
        for size in sizes {
            this.write(&u32::try_from(size)?.to_le_bytes())?;
        }
        for token in chunks.iter().flatten() {
            this.write(&token.to_le_bytes())?;
        }
        Ok(this)
    }

    /// Adds a position's logits.
    ///
    /// Errors: the file cannot be written.
    pub(super) fn row(&mut self, logits: &[f32]) -> anyhow::Result<()> {
        for logit in logits {
            self.write(&logit.to_le_bytes())?;
        }
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// Errors: the file cannot be written.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let named = self
            .out
            .flush()
            .and_then(|()| fs::rename(&self.partial, &self.path));
        named.with_context(|| format!("{} cannot be written", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out
            .write_all(bytes)
            .with_context(|| format!("{} cannot be written", self.partial.display()))
    }
}

impl Drop for LogitsFile {
    fn drop(&mut self) {
        // After `finish` there is none.
        let _ = fs::remove_file(&self.partial);
    }
}
