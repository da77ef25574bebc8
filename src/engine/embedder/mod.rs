//! Texts' tokens in, their vectors out: one OS thread per model, like an engine's, that computes what
//! waits in steps of about equally long inputs.

mod queue;
mod run;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::oneshot;

use self::run::{Runner, Submission};
use super::error::{EngineError, SubmitError};
use super::options::EngineOptions;
use super::sequence::count;
use super::shared::Shared;
use super::snapshot::EngineSnapshot;
use crate::chat::TokenId;
use crate::model::{ENCODER_STEP_TOKENS, Encoder};

/// One vector an input, in their order.
pub type Vectors = Vec<Vec<f32>>;

/// Something that computes vectors: an [`Encoder`]. The loop knows no more of it than this, so that its
/// own tests can make it fail.
trait Encode: Send {
    /// Tokens in the vocabulary.
    fn n_vocab(&self) -> usize;

    /// The vectors of inputs that are computed together.
    fn encode(&mut self, inputs: &[&[TokenId]])
    -> Result<Vectors, Arc<dyn StdError + Send + Sync>>;
}

impl Encode for Encoder {
    fn n_vocab(&self) -> usize {
        self.config().n_vocab
    }

    fn encode(
        &mut self,
        inputs: &[&[TokenId]],
    ) -> Result<Vectors, Arc<dyn StdError + Send + Sync>> {
        Encoder::encode(self, inputs).map_err(|error| Arc::new(error) as _)
    }
}

/// A model that makes vectors. Dropping it ends every request with [`EngineError::Stopped`], after the
/// step under way, and waits for its thread.
pub struct Embedder {
    shared: Arc<Shared>,
    n_tokens_most: u32,
    n_vocab: usize,
    /// `None` once dropping: the thread ends when nobody can submit.
    submissions: Option<SyncSender<Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedder {
    /// Starts the thread that runs `encoder` for inputs of at most `n_tokens_most` tokens; `name` names
    /// it. Of `options` only the bounds of what runs and waits concern it.
    ///
    /// # Errors
    /// [`EngineError::Thread`] when there is no thread.
    pub fn start(
        encoder: Encoder,
        name: &str,
        n_tokens_most: u32,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let n_positions = count(encoder.config().n_positions);
        Self::start_on(encoder, name, n_tokens_most.min(n_positions), options)
    }

    fn start_on<N: Encode + 'static>(
        network: N,
        name: &str,
        n_tokens_most: u32,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let n_vocab = network.n_vocab();
        let max_live = options.max_running.saturating_add(options.max_waiting);
        let shared = Arc::new(Shared::new(max_live, EngineSnapshot::default()));
        let (submissions, receiver) = sync_channel(max_live);
        let runner = Runner::new(network, ENCODER_STEP_TOKENS, receiver, Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name(format!("embedder {name}").replace('\0', " "))
            .spawn(move || runner.run())
            .map_err(|error| EngineError::Thread(Arc::new(error)))?;
        Ok(Self {
            shared,
            n_tokens_most,
            n_vocab,
            submissions: Some(submissions),
            thread: Some(thread),
        })
    }

    /// Queues a request for the vectors of `inputs`. Dropping the receiver cancels it at the next step.
    ///
    /// # Errors
    /// [`SubmitError`]: the request can never be answered, or not now.
    pub fn submit(
        &self,
        inputs: Vec<Vec<TokenId>>,
    ) -> Result<oneshot::Receiver<Result<Vectors, EngineError>>, SubmitError> {
        self.check(&inputs)?;
        self.shared.enter(Instant::now())?;
        let (reply, receiver) = oneshot::channel();
        // As many places as requests are let in: it is never full.
        if let Some(queue) = &self.submissions
            && queue.try_send(Submission { inputs, reply }).is_ok()
        {
            return Ok(receiver);
        }
        self.shared.leave(1);
        Err(SubmitError::Stopped {
            reason: EngineError::Stopped.to_string(),
        })
    }

    fn check(&self, inputs: &[Vec<TokenId>]) -> Result<(), SubmitError> {
        if inputs.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let n_vocab = self.n_vocab;
        for tokens in inputs {
            let n_prompt_tokens = count(tokens.len());
            if n_prompt_tokens == 0 {
                return Err(SubmitError::EmptyPrompt);
            }
            if n_prompt_tokens > self.n_tokens_most {
                return Err(SubmitError::PromptTooLong {
                    n_prompt_tokens,
                    n_ctx: self.n_tokens_most,
                });
            }
            if let Some(token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
                let token = *token;
                return Err(SubmitError::TokenOutOfRange { token, n_vocab });
            }
        }
        Ok(())
    }

    /// How it does. Cheap, and never waits for a step.
    pub fn snapshot(&self) -> EngineSnapshot {
        self.shared.snapshot(Instant::now())
    }

    /// Tokens of an input at most.
    pub fn n_tokens_most(&self) -> u32 {
        self.n_tokens_most
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            // The loop catches its panics: there is no error to pass on.
            let _ = thread.join();
        }
    }
}
