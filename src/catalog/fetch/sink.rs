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

/// An open partial file. Dropped, it keeps what it was given so far, and the lock until that is
/// written.
pub(super) struct Sink {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<Result<(), FetchError>>,
}

impl Sink {
    /// Opens the file at `path`, keeps its first `start` bytes and goes on behind them.
    pub(super) fn open(workplace: &Workplace, path: &Path, start: u64) -> Self {
        let (chunks, inbox) = mpsc::channel(QUEUE_LEN);
        let (workplace, path) = (workplace.clone(), path.to_owned());
        let writer = tokio::task::spawn_blocking(move || {
            let _held = workplace;
            write_all(&path, start, inbox).map_err(|error| FetchError::io("writing", &path, error))
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

fn write_all(path: &Path, start: u64, mut inbox: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    while let Some(chunk) = inbox.blocking_recv() {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}
