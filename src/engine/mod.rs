//! Tokens in, tokens out: one OS thread per model, continuous batching, sampling.
//!
//! A step is four calls: [`scheduler`] says what is computed, [`batch`] lays it out, [`network`]
//! computes it, [`sampler`] draws from it; [`run`] is the loop around them. Everything but `run` is
//! pure. Knows nothing of text, JSON or HTTP.

mod batch;
mod blocks;
mod client;
mod embedder;
mod error;
mod event;
mod network;
mod options;
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

pub use embedder::{Embedder, Vectors};
pub use error::{EngineError, SubmitError};
pub use event::{Event, Timings};
pub use options::EngineOptions;
pub use request::GenerateRequest;
pub use snapshot::EngineSnapshot;

use self::network::Network;
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
        let scheduler = Scheduler::new(options.step_limits_on(&limits), count(limits.n_blocks));
        let figures = EngineSnapshot {
            n_blocks: limits.n_blocks,
            n_free_blocks: limits.n_blocks,
            ..EngineSnapshot::default()
        };
        let shared = Arc::new(Shared::new(max_live, figures));
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
            Arc::clone(&shared),
        );
        let thread = thread::Builder::new()
            .name(format!("engine {name}").replace('\0', " "))
            .spawn(move || runner.run())
            .map_err(|error| EngineError::Thread(Arc::new(error)))?;
        Ok(Self {
            shared,
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
        self.queue(request, Some(readout))
    }

    fn queue(
        &self,
        request: GenerateRequest,
        readout: Option<Readout>,
    ) -> Result<mpsc::Receiver<Event>, SubmitError> {
        request.check(self.n_vocab, self.n_ctx)?;
        let submitted = Instant::now();
        self.shared.enter(submitted)?;
        let (events, receiver) = client::channel(self.event_queue_len);
        let submission = Submission {
            request,
            events,
            submitted,
            readout,
        };
        // As many places as requests are let in: it is never full.
        if let Some(queue) = &self.submissions
            && queue.try_send(submission).is_ok()
        {
            return Ok(receiver);
        }
        self.shared.leave(1);
        Err(SubmitError::Stopped {
            reason: EngineError::Stopped.to_string(),
        })
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
