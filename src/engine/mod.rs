//! Tokens in, tokens out: one OS thread per model, continuous batching, sampling.
//!
//! Knows nothing of text, JSON or HTTP.

mod error;
mod event;
mod request;

use std::time::Duration;

use tokio::sync::mpsc;

pub use error::{EngineError, SubmitError};
pub use event::{Event, Timings};
pub use request::GenerateRequest;

use crate::model::Model;

/// The floor's error by the name every floor uses.
pub type Error = EngineError;

/// Bounds of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens one sequence may hold, answer included; absent: what the model was trained for.
    /// Never more than the model's blocks hold.
    pub n_ctx: Option<u32>,
    /// Sequences computed together; never more than the model's limits allow.
    pub max_running: usize,
    /// Requests that may wait while `max_running` run.
    pub max_waiting: usize,
    /// Prompt tokens per step, all sequences together: more is faster for the prompt, slower for
    /// those who decode beside it. Never more than the model's limits allow.
    pub prefill_chunk_tokens: usize,
    /// Events a request's channel holds before its sequence pauses.
    pub event_queue_len: usize,
    /// A sequence paused for so long is given up.
    pub reader_timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            n_ctx: None,
            max_running: 16,
            max_waiting: 256,
            prefill_chunk_tokens: 128,
            event_queue_len: 256,
            reader_timeout: Duration::from_secs(30),
        }
    }
}

/// An engine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineSnapshot {
    /// Requests that wait for their first step, or wait again after they gave their blocks back.
    pub n_waiting: usize,
    /// Sequences in memory, the paused ones included.
    pub n_running: usize,
    /// Sequences that wait for their reader.
    pub n_paused: usize,
    /// Cache blocks nobody holds.
    pub n_free_blocks: usize,
    /// Cache blocks.
    pub n_blocks: usize,
    /// Prompt tokens evaluated per second of the steps that evaluate any, the decodes beside them
    /// included; absent until measured. Older steps fade, half of their weight every 10 busy seconds.
    pub prefill_tokens_per_second: Option<f64>,
    /// Tokens one sequence gains per second of the steps that decode, the prompts beside it
    /// included; absent until measured. Fades like the other.
    pub decode_tokens_per_second: Option<f64>,
    /// Since the engine last began or ended a step; absent while it has nothing to do. Old means stuck.
    pub last_step_age: Option<Duration>,
    /// Prompt tokens of all requests whose prompt was evaluated.
    pub n_prompt_total: u64,
    /// Tokens generated.
    pub n_generated_total: u64,
    /// Steps computed.
    pub n_steps_total: u64,
    /// Times a sequence gave its blocks back to be computed again later.
    pub n_preempted_total: u64,
    /// Requests that finished.
    pub n_finished_total: u64,
    /// Requests whose receiver went away first.
    pub n_cancelled_total: u64,
    /// Requests that failed.
    pub n_failed_total: u64,
    /// Why the engine will not answer any more; absent while it will.
    pub failed: Option<String>,
}

/// A model that answers. Dropping it stops its thread and waits for it.
pub struct Engine {}

impl Engine {
    /// Starts the thread that runs `model`; `name` names it.
    ///
    /// # Errors
    /// [`EngineError::Option`] for a bound of 0, [`EngineError::Thread`] when there is no thread.
    pub fn start(model: Model, name: &str, options: EngineOptions) -> Result<Self, EngineError> {
        todo!()
    }

    /// Queues a request. Its events arrive in order; dropping the receiver cancels it.
    ///
    /// # Errors
    /// [`SubmitError`]: the request can never be answered, or not now.
    pub fn submit(&self, request: GenerateRequest) -> Result<mpsc::Receiver<Event>, SubmitError> {
        todo!()
    }

    /// How it goes.
    pub fn snapshot(&self) -> EngineSnapshot {
        todo!()
    }

    /// Tokens one sequence may hold, answer included.
    pub fn n_ctx(&self) -> u32 {
        todo!()
    }
}
