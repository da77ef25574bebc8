//! The ledger: what was held, what it came to, and for whom, in a file that outlives the process.
//!
//! One thread writes, many commands a transaction. What is committed survives the process being killed; the disk is told
//! every 50 ms to keep it (`disk`), so that a power cut takes at most what came after.

mod disk;
mod entry;
mod read;
mod schema;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

pub(super) use entry::{End, Entry, State};
pub(super) use read::{by_hour, connect as read_only, since, unconfirmed};
use writer::Queue;
pub(super) use writer::{Command, tokens};

use super::window::Moment;

/// The file in the home folder.
pub const FILE_NAME: &str = "ledger.sqlite";
/// Who holds this one writes the ledger alone.
const LOCK_NAME: &str = "ledger.lock";
/// How long one process waits for another's transaction.
const BUSY_MOST: Duration = Duration::from_secs(5);

/// Why the ledger does not keep what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// What SQLite or the system says.
    #[error("the ledger: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The folder or a file of it cannot be used.
    #[error("the ledger {path} cannot be used: {source}")]
    File {
        /// Where it is.
        path: String,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// It was written by a later version of the program.
    #[error(
        "the ledger has version {found} and this program knows {known}: use the newer program, or another home folder"
    )]
    Newer {
        /// What is in the file.
        found: i64,
        /// What this program writes.
        known: i64,
    },
    /// Another server keeps its budgets in it.
    #[error(
        "another server writes the ledger {path}, so budgets cannot be kept: give this one a home folder of its own"
    )]
    Shared {
        /// Where it is.
        path: String,
    },
    /// The same attempt again.
    #[error("attempt {attempt} of request {request} is in the ledger already")]
    Twice {
        /// Which request.
        request: String,
        /// Which attempt.
        attempt: u32,
    },
    /// It was closed.
    #[error("the ledger is closed: the server is shutting down")]
    Closed,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// The open ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    queue: Arc<Queue>,
    path: PathBuf,
}

/// Whether the ledger must be this process's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Budgets are kept: they are exact only if nobody else spends.
    Alone,
    /// Nothing is limited: others may write too.
    Shared,
}

impl Ledger {
    /// Opens the ledger of the folder `home`, makes it where there is none, and books what a process that ended before it
    /// could has left held: at the worst case, unconfirmed.
    ///
    /// Errors: [`LedgerError`].
    pub(super) fn open(home: &Path, sharing: Sharing, now: Moment) -> Result<Self, LedgerError> {
        let path = home.join(FILE_NAME);
        let unusable = |source: std::io::Error| LedgerError::File {
            path: path.display().to_string(),
            source: Arc::new(source),
        };
        std::fs::create_dir_all(home).map_err(unusable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.join(LOCK_NAME))
            .map_err(unusable)?;
        let lock = match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) if sharing == Sharing::Shared => None,
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::Shared {
                    path: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        };
        let mut connection = connect(&path)?;
        schema::migrate(&mut connection)?;
        if lock.is_some() {
            writer::confirm_nothing(&mut connection, now)?;
        }
        let queue = Queue::start(connection, &path, lock).map_err(unusable)?;
        Ok(Self { queue, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Has a command carried out some time soon.
    pub(super) fn send(&self, command: Command) {
        self.queue.push(command);
    }

    /// Whether more waits to be written than should.
    pub(super) fn is_behind(&self) -> bool {
        self.queue.is_behind()
    }

    /// Waits until everything sent so far is committed.
    pub(super) async fn flush(&self) -> Result<(), LedgerError> {
        let (done, is_done) = oneshot::channel();
        self.send(Command::Flush(done));
        is_done.await.map_err(|_| LedgerError::Closed)
    }

    /// Writes what is left, and ends; returns when it is on the disk.
    pub(super) async fn close(&self) {
        let queue = Arc::clone(&self.queue);
        // A thread that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || queue.finish()).await;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MOST)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A commit does not wait for the disk, a checkpoint does: both are done by `disk`.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}
