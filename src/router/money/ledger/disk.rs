//! Has the disk keep what was committed, beside the writer: neither a slow disk nor a checkpoint makes a hold wait.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::LedgerError;

/// How long what was committed may stay in the system's memory only.
const KEPT_WITHIN: Duration = Duration::from_millis(50);
/// After so many transactions the log is put into the file.
const CHECKPOINT_AFTER: u64 = 500;
/// From this length on writers wait until it is empty: without a pause it never would be.
const TRUNCATE_FROM_BYTES: u64 = 64 << 20;

/// What the writer and the disk's thread know of each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Transactions committed.
    pub(super) n_committed: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// The last transaction is committed.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }
}

/// Starts the thread.
///
/// Errors: the log is not there; the system has no thread to spare.
pub(super) fn start(path: &Path, progress: Arc<Progress>) -> std::io::Result<JoinHandle<()>> {
    let log = log_path(path);
    // No lock of SQLite's is on the log: opening and closing it takes none away.
    let file = File::open(&log)?;
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("ledger-disk".to_owned())
        .spawn(move || run(&path, &file, &progress))
}

fn log_path(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn run(path: &Path, log: &File, progress: &Progress) {
    let (mut connection, mut n_kept, mut n_put) = (None, 0, 0);
    loop {
        std::thread::sleep(KEPT_WITHIN);
        let is_over = progress.is_over.load(Ordering::Acquire);
        let n_committed = progress.n_committed.load(Ordering::Acquire);
        if n_committed != n_kept {
            match log.sync_data() {
                Ok(()) => n_kept = n_committed,
                Err(error) => tracing::error!(%error, "the disk does not keep the ledger"),
            }
        }
        if n_committed - n_put >= CHECKPOINT_AFTER {
            n_put = n_committed;
            if let Err(error) = checkpoint(path, log, &mut connection) {
                tracing::warn!(%error, "the ledger's log is not put into its file");
            }
        }
        if is_over {
            return;
        }
    }
}

fn checkpoint(
    path: &Path,
    log: &File,
    connection: &mut Option<Connection>,
) -> Result<(), LedgerError> {
    let length = log.metadata().map_or(0, |about| about.len());
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(super::connect(path)?),
    };
    let run = |mode: &str| {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        connection.query_row(&sql, [], |_| Ok(()))
    };
    run("PASSIVE")?;
    if length >= TRUNCATE_FROM_BYTES {
        run("TRUNCATE")?;
    }
    Ok(())
}
