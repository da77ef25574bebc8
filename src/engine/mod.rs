//! Tokens in, tokens out: one OS thread per model, continuous batching, sampling.
//!
//! A step is four calls: [`scheduler`] says what is computed, [`batch`] lays it out, [`network`]
//! computes it, [`sampler`] draws from it; [`run`] is the loop around them. Everything but `run` is
//! pure. Knows nothing of text, JSON or HTTP.

mod batch;
mod blocks;
mod board;
mod client;
mod embedder;
mod error;
mod event;
mod network;
mod options;
pub mod predict;
mod rate;
mod request;
mod run;
mod sampler;
mod scheduler;
mod sequence;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::mpsc;

pub use board::Place;
pub use embedder::{Embedder, Vectors};
pub use error::{EngineError, SubmitError};
pub use event::{Event, Timings};
pub use options::EngineOptions;
pub use request::GenerateRequest;
pub use snapshot::EngineSnapshot;

use self::board::Board;
use self::network::Network;
use self::predict::{Outlook, predict_raw};
use self::run::{RunOptions, Runner, Submission};
use self::scheduler::Scheduler;
use self::sequence::count;
use self::shared::Shared;
use crate::chat::{Sampling, TokenId};
use crate::model::{Model, Readout};

/// The floor's error by the name every floor uses.
pub type Error = EngineError;

/// A model that answers. Dropping it ends every request with [`EngineError::Stopped`], after the
/// step under way, and waits for its thread.
pub struct Engine {
    shared: Arc<Shared>,
    board: Arc<Board>,
    n_ctx: u32,
    n_vocab: usize,
    event_queue_len: usize,
    /// `None` once dropping: the thread ends when nobody can submit.
    submissions: Option<SyncSender<Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread that runs `model`; `name` names it.
    ///
    /// # Errors
    /// [`EngineError::Option`] for a bound of 0, [`EngineError::Thread`] when there is no thread.
    pub fn start(model: Model, name: &str, options: EngineOptions) -> Result<Self, EngineError> {
        Self::start_on(model, name, &options)
    }

    fn start_on<N: Network + 'static>(
        network: N,
        name: &str,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let limits = network.limits();
        options.check(&limits)?;
        let n_ctx = options.n_ctx_on(&limits);
        let max_live = options.max_live_on(&limits);
        let step_limits = options.step_limits_on(&limits);
        let scheduler = Scheduler::new(step_limits, count(limits.n_blocks));
        let figures = EngineSnapshot {
            n_blocks: limits.n_blocks,
            n_free_blocks: limits.n_blocks,
            ..EngineSnapshot::default()
        };
        let shared = Arc::new(Shared::new(max_live, figures));
        let board = Arc::new(Board::new(step_limits, n_ctx, limits.n_blocks));
        let (submissions, receiver) = sync_channel(max_live);
        let run_options = RunOptions {
            n_ctx,
            reader_timeout: options.reader_timeout,
        };
        let runner = Runner::new(
            network,
            scheduler,
            run_options,
            receiver,
            (Arc::clone(&shared), Arc::clone(&board)),
        );
        let thread = thread::Builder::new()
            .name(format!("engine {name}").replace('\0', " "))
            .spawn(move || runner.run())
            .map_err(|error| EngineError::Thread(Arc::new(error)))?;
        Ok(Self {
            shared,
            board,
            n_ctx,
            n_vocab: limits.n_vocab,
            event_queue_len: options.event_queue_len,
            submissions: Some(submissions),
            thread: Some(thread),
        })
    }

    /// Queues a request. Its events arrive in order; dropping the receiver cancels it at the next
    /// step, wherever it stands. A receiver that is not read pauses it, and is given up after
    /// [`EngineOptions::reader_timeout`].
    ///
    /// # Errors
    /// [`SubmitError`]: the request can never be answered, or not now.
    pub fn submit(&self, request: GenerateRequest) -> Result<mpsc::Receiver<Event>, SubmitError> {
        Ok(self.queue(request, None)?.0)
    }

    /// [`Engine::submit`], and the request's place in the queue.
    ///
    /// # Errors
    /// As for [`Engine::submit`].
    pub fn submit_in_line(
        &self,
        request: GenerateRequest,
    ) -> Result<(mpsc::Receiver<Event>, Place), SubmitError> {
        self.queue(request, None)
    }

    /// Queues tokens whose vector is wanted: it comes with [`Event::Finished`], and nothing before it.
    ///
    /// # Errors
    /// As for [`Engine::submit`].
    pub fn embed(
        &self,
        tokens: Vec<TokenId>,
        readout: Readout,
    ) -> Result<mpsc::Receiver<Event>, SubmitError> {
        let request = GenerateRequest {
            prompt: tokens,
            sampling: Sampling::default(),
            max_new_tokens: 0,
            stop_tokens: Vec::new(),
        };
        Ok(self.queue(request, Some(readout))?.0)
    }

    fn queue(
        &self,
        request: GenerateRequest,
        readout: Option<Readout>,
    ) -> Result<(mpsc::Receiver<Event>, Place), SubmitError> {
        request.check(self.n_vocab, self.n_ctx)?;
        let submitted = Instant::now();
        self.shared.enter(submitted)?;
        let (events, receiver) = client::channel(self.event_queue_len);
        let size = (count(request.prompt.len()), request.max_new_tokens);
        let foretold = (readout.is_none() && size.1 > 0)
            .then(|| predict_raw(&self.board.outlook(submitted), size.0, size.1))
            .flatten();
        // As many places as requests are let in: it is never full.
        let send = |ticket| {
            let submission = Submission {
                request,
                events,
                submitted,
                ticket,
                foretold,
                readout,
            };
            let queue = self.submissions.as_ref();
            queue.is_some_and(|queue| queue.try_send(submission).is_ok())
        };
        if let Some(place) = self.board.enter(size, submitted, send) {
            return Ok((receiver, place));
        }
        self.shared.leave(1);
        Err(SubmitError::Stopped {
            reason: EngineError::Stopped.to_string(),
        })
    }

    /// What it has before it, for [`predict::predict`]. Cheap, and never waits for a step.
    pub fn outlook(&self) -> Outlook {
        self.board.outlook(Instant::now())
    }

    /// How it does. Cheap, and never waits for a step.
    pub fn snapshot(&self) -> EngineSnapshot {
        self.shared.snapshot(Instant::now())
    }

    /// Tokens one sequence may hold, answer included.
    pub fn n_ctx(&self) -> u32 {
        self.n_ctx
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            // The loop catches its panics: there is no error to pass on.
            let _ = thread.join();
        }
    }
}
