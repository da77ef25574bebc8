//! The thread that writes the ledger: whatever has come in while it wrote is the next transaction.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use super::disk::{self, Progress};
use super::entry::{self, Changes, End, Entry, Pruned, State};
use super::{LedgerError, Moment};
use crate::chat::Usage;
use crate::money::MicroUsd;
use crate::router::money::limit::{Account, Amounts};

/// Commands of one transaction at most.
const BATCH_MOST: usize = 1024;
/// From so many waiting commands on every new hold waits until it is written: that bounds the queue by the requests
/// under way.
const BEHIND_FROM: usize = 16_384;
/// After how long what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often what is left at the end is tried.
const LAST_TRIES: u32 = 5;

/// How long what nobody waits for is kept for company: a transaction costs about as much for one as for many.
const LINGER: Duration = Duration::from_millis(5);

type Done<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What there is to write.
#[derive(Debug)]
pub(in crate::router::money) enum Command {
    /// Money is held.
    Hold {
        /// For what.
        entry: Arc<Entry>,
        /// Told once it is committed.
        done: Option<Done<()>>,
    },
    /// By which name a provider knows an attempt.
    Upstream {
        /// The attempt.
        entry: Arc<Entry>,
        /// The name.
        name: String,
    },
    /// What became of a hold.
    End {
        /// The hold.
        entry: Arc<Entry>,
        /// Its end.
        end: End,
        /// Told once it is committed.
        done: Option<Done<()>>,
    },
    /// Nothing came of a hold.
    Release {
        /// The hold.
        entry: Arc<Entry>,
    },
    /// What an unconfirmed attempt has really cost.
    TrueUp {
        /// Of which request.
        request: String,
        /// Which attempt.
        attempt: u32,
        /// What is billed.
        cost: MicroUsd,
        /// What it took, where that is known.
        usage: Option<Usage>,
        /// When that was learned.
        at: Moment,
        /// Told what was wrong before; nothing where there was nothing to correct.
        done: Done<Option<Corrected>>,
    },
    /// Old entries that have settled may go.
    Prune {
        /// Those from before this moment.
        before: Moment,
        /// And after this number.
        after: i64,
        /// Told how many went.
        done: Done<Pruned>,
    },
    /// Tells once everything before it is committed.
    Flush(oneshot::Sender<()>),
}

impl Command {
    /// Whether somebody does nothing until it is committed.
    fn is_waited_for(&self) -> bool {
        match self {
            Self::Hold { done, .. } | Self::End { done, .. } => {
                done.as_ref().is_some_and(|done| !done.is_closed())
            }
            Self::Upstream { .. } | Self::Release { .. } => false,
            Self::TrueUp { .. } | Self::Prune { .. } | Self::Flush(_) => true,
        }
    }
}

/// What was booked and is now booked instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router::money) struct Corrected {
    pub(in crate::router::money) account: Account,
    pub(in crate::router::money) at: Moment,
    pub(in crate::router::money) was: Amounts,
    pub(in crate::router::money) is: Amounts,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: VecDeque<Command>,
    /// Whether somebody waits for one of them.
    is_urgent: bool,
    is_closed: bool,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Queue {
    /// Starts the threads that write and that have the disk keep it; `lock` is held as long as one writes.
    ///
    /// Errors: the system's.
    pub(super) fn start(
        connection: Connection,
        path: &Path,
        lock: Option<File>,
    ) -> std::io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let progress = Arc::new(Progress::default());
        let disk = disk::start(path, Arc::clone(&progress))?;
        let writer = Writer {
            connection,
            queue: Arc::clone(&queue),
            progress,
            _lock: lock,
        };
        // Where there is no thread, the writer is dropped and the other one ends.
        let thread = std::thread::Builder::new().name("ledger".to_owned());
        let writer = thread.spawn(move || writer.run())?;
        let mut threads = queue.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.extend([writer, disk]);
        drop(threads);
        Ok(queue)
    }

    pub(super) fn push(&self, command: Command) {
        let mut waiting = self.lock();
        // Dropped, it tells whoever waits for it.
        if waiting.is_closed {
            return;
        }
        waiting.is_urgent |= command.is_waited_for();
        waiting.commands.push_back(command);
        // The writer knows of those before it.
        let is_news = waiting.is_urgent || waiting.commands.len() == 1;
        drop(waiting);
        if is_news {
            self.news.notify_one();
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.lock().commands.len() >= BEHIND_FROM
    }

    /// Takes nothing more; what waits is still written.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }

    /// Takes nothing more, and waits until what waits is on the disk.
    pub(super) fn finish(&self) {
        self.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Waits for commands, for so long at most, and adds them to `batch`; whether the queue is closed and empty.
    fn take(&self, batch: &mut Vec<Command>, most: Option<Duration>) -> bool {
        let mut waiting = self.lock();
        let is_idle = |waiting: &mut Waiting| waiting.commands.is_empty() && !waiting.is_closed;
        waiting = match most {
            None => self.news.wait_while(waiting, is_idle),
            Some(most) => {
                let waited = self.news.wait_timeout_while(waiting, most, is_idle);
                waited
                    .map(|(waiting, _)| waiting)
                    .map_err(|error| PoisonError::new(error.into_inner().0))
            }
        }
        .unwrap_or_else(PoisonError::into_inner);
        let may_linger = |waiting: &mut Waiting| {
            !waiting.is_urgent && !waiting.is_closed && waiting.commands.len() < BATCH_MOST
        };
        let lingered = self.news.wait_timeout_while(waiting, LINGER, may_linger);
        let mut waiting = lingered.unwrap_or_else(PoisonError::into_inner).0;
        let n = waiting.commands.len().min(BATCH_MOST);
        batch.extend(waiting.commands.drain(..n));
        waiting.is_urgent = waiting.commands.iter().any(Command::is_waited_for);
        waiting.is_closed && waiting.commands.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    connection: Connection,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    _lock: Option<File>,
}

impl Drop for Writer {
    /// Also where it panicked: nobody shall wait for it.
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.is_closed = true;
        waiting.commands.clear();
        self.progress.end();
    }
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut n_tries = 0;
        loop {
            let most = (!batch.is_empty()).then_some(RETRY_AFTER);
            let is_last = self.queue.take(&mut batch, most);
            match write(&mut self.connection, &batch) {
                Ok(outcomes) => {
                    n_tries = 0;
                    self.progress.n_committed.fetch_add(1, Ordering::Release);
                    for (command, outcome) in batch.drain(..).zip(outcomes) {
                        answer(command, outcome);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, n_waiting = batch.len(), "the ledger is not written");
                    n_tries += 1;
                    batch = batch
                        .into_iter()
                        .filter_map(|command| kept(command, &error))
                        .collect();
                    if is_last {
                        std::thread::sleep(RETRY_AFTER);
                    }
                }
            }
            if is_last && (batch.is_empty() || n_tries >= LAST_TRIES) {
                return;
            }
        }
    }
}

/// What came of a command.
#[derive(Debug)]
enum Outcome {
    Done,
    Corrected(Option<Corrected>),
    Pruned(Pruned),
    Refused(LedgerError),
}

/// Writes all, or nothing.
fn write(connection: &mut Connection, batch: &[Command]) -> Result<Vec<Outcome>, LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut changes = Changes::new();
    let mut outcomes = Vec::with_capacity(batch.len());
    for command in batch {
        let outcome = match apply(&transaction, command, &mut changes) {
            Ok(outcome) => outcome,
            Err(error) if is_its_own(&error) => Outcome::Refused(error),
            Err(error) => return Err(error),
        };
        outcomes.push(outcome);
    }
    entry::add_up(&transaction, changes)?;
    transaction.commit()?;
    Ok(outcomes)
}

/// Whether an error is about one command only: the others may go on.
fn is_its_own(error: &LedgerError) -> bool {
    match error {
        LedgerError::Twice { .. } => true,
        LedgerError::Sqlite(error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
        ),
        _ => false,
    }
}

fn apply(
    connection: &Connection,
    command: &Command,
    changes: &mut Changes,
) -> Result<Outcome, LedgerError> {
    match command {
        Command::Hold { entry, .. } => entry::insert(connection, entry)?,
        Command::Upstream { entry, name } => entry::set_upstream(connection, entry, name)?,
        Command::End { entry, end, .. } => {
            entry::end(connection, entry, end, changes)?;
        }
        Command::Release { entry } => entry::remove(connection, entry)?,
        Command::TrueUp {
            request,
            attempt,
            cost,
            usage,
            at,
            ..
        } => {
            let found = entry::open(
                connection,
                State::Unconfirmed,
                Some((request.as_str(), *attempt)),
            )?;
            let Some(opened) = found.into_iter().next() else {
                return Ok(Outcome::Corrected(None));
            };
            let usage = usage.unwrap_or(opened.usage);
            let spent = Amounts {
                money: *cost,
                tokens: tokens(&usage),
                ..opened.spent
            };
            let end = End {
                state: State::Settled,
                at: *at,
                spent,
                usage,
            };
            entry::end(connection, &opened.entry, &end, changes)?;
            return Ok(Outcome::Corrected(Some(Corrected {
                account: opened.entry.account,
                at: opened.entry.at,
                was: opened.spent,
                is: spent,
            })));
        }
        Command::Prune { before, after, .. } => {
            return Ok(Outcome::Pruned(entry::prune(connection, *before, *after)?));
        }
        Command::Flush(_) => {}
    }
    Ok(Outcome::Done)
}

/// Tokens that count against a limit.
pub(in crate::router::money) fn tokens(usage: &Usage) -> u64 {
    u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens)
}

/// Tells who waits; who does not any more need not know.
fn answer(command: Command, outcome: Outcome) {
    match (command, outcome) {
        (Command::Hold { done, .. } | Command::End { done, .. }, outcome) => {
            let told = match outcome {
                Outcome::Refused(error) => Err(error),
                _ => Ok(()),
            };
            match (done, told) {
                (Some(done), told) => {
                    let _ = done.send(told);
                }
                (None, Err(error)) => tracing::error!(%error, "an entry is not in the ledger"),
                (None, Ok(())) => {}
            }
        }
        (Command::TrueUp { done, .. }, Outcome::Corrected(corrected)) => {
            let _ = done.send(Ok(corrected));
        }
        (Command::TrueUp { done, .. }, Outcome::Refused(error)) => {
            let _ = done.send(Err(error));
        }
        (Command::Prune { done, .. }, Outcome::Pruned(pruned)) => {
            let _ = done.send(Ok(pruned));
        }
        (Command::Prune { done, .. }, Outcome::Refused(error)) => {
            let _ = done.send(Err(error));
        }
        (Command::Flush(done), _) => {
            let _ = done.send(());
        }
        (_, Outcome::Refused(error)) => tracing::error!(%error, "an entry is not in the ledger"),
        _ => {}
    }
}

/// What is to be tried again when nothing could be written: who waits is told, what has happened stays.
fn kept(command: Command, error: &LedgerError) -> Option<Command> {
    match command {
        Command::Hold {
            done: Some(done), ..
        } => {
            let _ = done.send(Err(error.clone()));
            None
        }
        Command::TrueUp { done, .. } => {
            let _ = done.send(Err(error.clone()));
            None
        }
        Command::Prune { done, .. } => {
            let _ = done.send(Err(error.clone()));
            None
        }
        Command::End { entry, end, done } => {
            if let Some(done) = done {
                let _ = done.send(Err(error.clone()));
            }
            let done = None;
            Some(Command::End { entry, end, done })
        }
        other => Some(other),
    }
}

/// Books what was left held: at the worst case, unconfirmed.
pub(super) fn confirm_nothing(connection: &mut Connection, now: Moment) -> Result<(), LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut changes = Changes::new();
    let left = entry::open(&transaction, State::Held, None)?;
    for opened in &left {
        let end = End {
            state: State::Unconfirmed,
            at: now,
            spent: opened.entry.held,
            usage: Usage::default(),
        };
        entry::end(&transaction, &opened.entry, &end, &mut changes)?;
    }
    entry::add_up(&transaction, changes)?;
    transaction.commit()?;
    if !left.is_empty() {
        let n = left.len();
        tracing::warn!(
            n,
            "requests of an earlier run have no known end: booked at their worst case"
        );
    }
    Ok(())
}
