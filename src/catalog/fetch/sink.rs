//! Writing a partial file on a thread of its own, so that a slow disk does not hold up the server.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Workplace;
use super::error::FetchError;

/// Chunks that wait for the disk.
const QUEUE_LEN: usize = 16;

/// What becomes of the bytes behind the place where a sink begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// They are cut off.
    Cut,
    /// They stay: others write there.
    Keep,
}

/// An open partial file. Dropped, it keeps what it was given so far, and the lock until that is
/// written.
pub(super) struct Sink {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<Result<(), FetchError>>,
}

impl Sink {
    /// Opens the file at `path`, keeps its first `start` bytes and goes on behind them.
    pub(super) fn open(workplace: &Workplace, path: &Path, start: u64, behind: Behind) -> Self {
        Self::telling(workplace, path, start, behind, |_| {})
    }

    /// The same, and tells the length of what was written each time it was.
    pub(super) fn telling(
        workplace: &Workplace,
        path: &Path,
        start: u64,
        behind: Behind,
        mut written: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let (chunks, inbox) = mpsc::channel(QUEUE_LEN);
        let (workplace, path) = (workplace.clone(), path.to_owned());
        let writer = tokio::task::spawn_blocking(move || {
            let _held = workplace;
            let writing = |error| FetchError::io("writing", &path, error);
            let mut file = open(&path, start, behind).map_err(writing)?;
            write_all(&mut file, inbox, &mut written).map_err(writing)
        });
        Self { chunks, writer }
    }

    /// Hands a chunk over; waits while the disk is behind.
    ///
    /// Errors: what became of an earlier chunk.
    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<(), FetchError> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        let failed = ended((&mut self.writer).await);
        Err(failed
            .err()
            .unwrap_or_else(|| FetchError::Store("the writer ended early".to_owned())))
    }

    /// Waits until all is on the disk.
    ///
    /// Errors: it could not be written.
    pub(super) async fn close(self) -> Result<(), FetchError> {
        let Self { chunks, writer } = self;
        drop(chunks);
        ended(writer.await)
    }
}

fn ended(
    outcome: Result<Result<(), FetchError>, tokio::task::JoinError>,
) -> Result<(), FetchError> {
    outcome.unwrap_or_else(|error| Err(FetchError::Store(format!("the writer ended: {error}"))))
}

fn open(path: &Path, start: u64, behind: Behind) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if behind == Behind::Cut {
        file.set_len(start)?;
    }
    file.seek(SeekFrom::Start(start))?;
    Ok(file)
}

fn write_all(
    file: &mut File,
    mut inbox: mpsc::Receiver<Bytes>,
    written: &mut impl FnMut(u64),
) -> io::Result<()> {
    while let Some(chunk) = inbox.blocking_recv() {
        file.write_all(&chunk)?;
        written(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
    }
    file.sync_all()
}
