//! The engine of this machine as a backend: text to tokens, the engine's tokens back to text.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;

use crate::chat::{ChatDelta, ChatRequest, FinishReason, Message, TokenId, Usage};
use crate::engine::{Event, GenerateRequest, SubmitError};
use crate::pool::{Lease, ModelInfo, Pool, PoolError};
use crate::text::{Detokenizer, StopMatcher};

use super::{BackendError, BackendErrorKind, ChatStream, Deadline};

/// When to ask again after a full queue.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);

/// Answers from models in this machine's memory.
#[derive(Clone)]
pub struct LocalBackend {
    pool: Pool,
}

impl LocalBackend {
    /// A backend over `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The pool behind it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Models that can be asked for without fetching: installed, or served by path.
    pub async fn models(&self) -> Vec<ModelInfo> {
        self.pool.models().await
    }

    /// Answers `request`; `Ok` once it is queued in the engine. The stream holds the model in memory
    /// until it ends or is dropped, which cancels the request.
    ///
    /// # Errors
    /// [`BackendError`], here or as the stream's last item.
    pub async fn chat(
        &self,
        request: &ChatRequest,
        deadline: Deadline,
    ) -> Result<ChatStream, BackendError> {
        let lease = self.pool.acquire(&request.model, deadline).await?;
        let (lease, prompt) = encode(lease, request.messages.clone()).await?;
        let n_prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = lease.n_ctx.saturating_sub(n_prompt_tokens);
        let events = lease.engine.submit(GenerateRequest {
            prompt,
            sampling: request.sampling.clone(),
            max_new_tokens: request.max_new_tokens.unwrap_or(room),
            stop_tokens: lease.text.end_of_generation().to_vec(),
        })?;
        let answer = Answer {
            text: AnswerText::new(lease.text.detokenizer(), request.stop.clone()),
            usage: Usage {
                prompt_tokens: n_prompt_tokens,
                completion_tokens: 0,
            },
            ready: VecDeque::new(),
            begin_by: deadline,
            running: Some(Running {
                events,
                _lease: lease,
            }),
        };
        Ok(Box::pin(stream::unfold(answer, |mut answer| async move {
            let item = answer.next().await?;
            Some((item, answer))
        })))
    }
}

/// Renders and encodes off the threads that serve connections: a long prompt takes a while.
async fn encode(
    lease: Lease,
    messages: Vec<Message>,
) -> Result<(Lease, Vec<TokenId>), BackendError> {
    let work = tokio::task::spawn_blocking(move || {
        let prompt = lease.text.encode_chat(&messages);
        prompt.map(|prompt| (lease, prompt))
    });
    let failed = |error| BackendError::new(BackendErrorKind::Failed, format!("encoding: {error}"));
    let invalid = BackendErrorKind::InvalidRequest { param: "messages" };
    work.await
        .map_err(failed)?
        .map_err(|error| BackendError::new(invalid, error.to_string()))
}

/// A request in the engine. The receiver drops first: the engine hears that it is cancelled while
/// the model is still held.
struct Running {
    events: mpsc::Receiver<Event>,
    _lease: Lease,
}

/// An answer under way.
struct Answer {
    text: AnswerText,
    usage: Usage,
    /// Deltas that are made and not yet taken.
    ready: VecDeque<ChatDelta>,
    /// Until the first event is here.
    begin_by: Deadline,
    /// `None` once the engine has nothing more to say, or nobody wants to hear it.
    running: Option<Running>,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<ChatDelta, BackendError>> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Some(Ok(delta));
            }
            let running = self.running.as_mut()?;
            let event = match receive(&mut running.events, self.begin_by.take()).await {
                Ok(event) => event,
                Err(error) => {
                    self.running = None;
                    return Some(Err(error));
                }
            };
            match event {
                Event::Token(token) => self.token(token),
                Event::Finished { reason, usage } => self.finish(reason, usage),
                Event::Failed(error) => {
                    self.running = None;
                    let kind = BackendErrorKind::Failed;
                    return Some(Err(BackendError::new(kind, error.to_string())));
                }
            }
        }
    }

    fn token(&mut self, token: TokenId) {
        self.usage.completion_tokens += 1;
        let (text, stopped) = self.text.push(token);
        self.say(text);
        if stopped {
            self.end(FinishReason::Stop, self.usage);
        }
    }

    fn finish(&mut self, reason: FinishReason, usage: Usage) {
        let (text, stopped) = self.text.finish();
        self.say(text);
        self.end(if stopped { FinishReason::Stop } else { reason }, usage);
    }

    fn say(&mut self, text: String) {
        if !text.is_empty() {
            self.ready.push_back(ChatDelta::Text(text));
        }
    }

    fn end(&mut self, reason: FinishReason, usage: Usage) {
        self.running = None;
        self.ready.push_back(ChatDelta::Finished { reason, usage });
    }
}

async fn receive(events: &mut mpsc::Receiver<Event>, by: Deadline) -> Result<Event, BackendError> {
    let event = match by {
        None => events.recv().await,
        Some(by) => tokio::time::timeout_at(by.into(), events.recv())
            .await
            .map_err(|_| {
                let text = "the deadline passed before the answer began";
                BackendError::new(BackendErrorKind::Timeout, text)
            })?,
    };
    event.ok_or_else(|| BackendError::new(BackendErrorKind::Failed, "the engine stopped"))
}

/// Tokens to text, up to a stop text.
struct AnswerText {
    detokenizer: Detokenizer,
    stop: StopMatcher,
}

impl AnswerText {
    fn new(detokenizer: Detokenizer, stop: Vec<String>) -> Self {
        Self {
            detokenizer,
            stop: StopMatcher::new(stop),
        }
    }

    /// The text that is certain after `token`, and whether a stop text ended it.
    fn push(&mut self, token: TokenId) -> (String, bool) {
        let progress = self.stop.push(&self.detokenizer.push(token));
        (progress.text, progress.matched)
    }

    /// What was held back, and whether a stop text ended it.
    fn finish(&mut self) -> (String, bool) {
        let mut progress = self.stop.push(&self.detokenizer.finish());
        if !progress.matched {
            progress.text.push_str(&self.stop.finish());
        }
        (progress.text, progress.matched)
    }
}

impl From<PoolError> for BackendError {
    fn from(error: PoolError) -> Self {
        let kind = match &error {
            PoolError::UnknownModel { .. } | PoolError::BadPath { .. } => {
                BackendErrorKind::UnknownModel
            }
            PoolError::NotEnoughMemory { .. } => BackendErrorKind::OutOfMemory,
            PoolError::LoadFailed { retry_in, .. } => BackendErrorKind::LoadFailed {
                retry_after: Some(*retry_in),
            },
            PoolError::DeadlinePassed { .. } => BackendErrorKind::Timeout,
            PoolError::ShuttingDown => BackendErrorKind::ShuttingDown,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<SubmitError> for BackendError {
    fn from(error: SubmitError) -> Self {
        let kind = match error {
            SubmitError::QueueFull { .. } => BackendErrorKind::Busy {
                retry_after: RETRY_WHEN_BUSY,
            },
            SubmitError::PromptTooLong {
                n_prompt_tokens,
                n_ctx,
            } => BackendErrorKind::PromptTooLong {
                n_prompt_tokens,
                n_ctx,
            },
            _ => BackendErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}
