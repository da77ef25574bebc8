//! The engine of this machine as a backend: text to tokens, the engine's tokens back to text.

mod embed;
mod predict;

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;

use crate::chat::{ChatDelta, ChatRequest, FinishReason, TokenId, Usage};
use crate::engine::{Event, GenerateRequest, Place, SubmitError};
use crate::pool::{ChatModel, Lease, Loaded, ModelEntry, Pool, PoolError, Wish};
use crate::text::{self, Detokenizer, StopMatcher, StopProgress};

use self::predict::TextLengths;
use super::{BackendError, BackendErrorKind, ChatStream, Deadline};

pub use self::predict::Foresight;

/// When to ask again after a full queue.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);

/// Answers from models in this machine's memory.
#[derive(Clone)]
pub struct LocalBackend {
    pool: Pool,
    text_lengths: TextLengths,
}

impl LocalBackend {
    /// A backend over `pool`.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            text_lengths: TextLengths::default(),
        }
    }

    /// The pool behind it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Models that can be asked for without fetching: installed, or served by path.
    pub async fn models(&self) -> Vec<ModelEntry> {
        let mut models = self.pool.models().await;
        models.retain(|model| model.file.is_some());
        models
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
        Ok(self.chat_in_line(request, deadline).await?.0)
    }

    /// [`chat`](Self::chat), and the request's place in the engine's queue, which says at any time how much longer it
    /// will take to its first token.
    ///
    /// # Errors
    /// As for [`chat`](Self::chat).
    pub async fn chat_in_line(
        &self,
        request: &ChatRequest,
        deadline: Deadline,
    ) -> Result<(ChatStream, Place), BackendError> {
        refuse_what_is_not_built(request)?;
        let stop =
            StopMatcher::new(request.stop.clone()).map_err(|error| invalid("stop", &error))?;
        let wish = Wish {
            keep_alive: request.keep_alive,
            ..self.pool.wish()
        };
        let lease = self.pool.acquire_with(&request.model, wish, deadline);
        let lease = lease.await?;
        writer(&lease)?;
        let (lease, prompt) = encode(lease, request).await?;
        let n_prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        self.text_lengths.count(&lease.id, request, n_prompt_tokens);
        let model = writer(&lease)?;
        let (events, place) = model.engine.submit_in_line(GenerateRequest {
            prompt,
            sampling: request.sampling.clone(),
            // The context's end is the engine's to know.
            max_new_tokens: request.max_new_tokens.unwrap_or(u32::MAX),
            stop_tokens: model.text.end_of_generation().to_vec(),
        })?;
        let text = AnswerText {
            detokenizer: if request.continue_final {
                model.text.detokenizer_within()
            } else {
                model.text.detokenizer()
            },
            stop,
        };
        let answer = Answer {
            usage: Usage {
                prompt_tokens: n_prompt_tokens,
                ..Usage::default()
            },
            ready: VecDeque::new(),
            begin_by: deadline,
            running: Some(Running {
                events,
                text,
                _lease: lease,
            }),
        };
        let answer = stream::unfold(answer, |mut answer| async move {
            let item = answer.next().await?;
            Some((item, answer))
        });
        Ok((Box::pin(answer), place))
    }
}

/// What no model here understands yet; a provider may.
fn refuse_what_is_not_built(request: &ChatRequest) -> Result<(), BackendError> {
    let not_built = request.not_of_text();
    not_built.first().map_or(Ok(()), |param| {
        let kind = BackendErrorKind::Unsupported { param };
        let message = format!("{param} is not supported yet by the models of this machine");
        Err(BackendError::new(kind, message))
    })
}

/// The model, which has to be one that writes.
fn writer(loaded: &Loaded) -> Result<&ChatModel, BackendError> {
    loaded.chat().ok_or_else(|| {
        let kind = BackendErrorKind::InvalidRequest { param: "model" };
        let id = &loaded.id;
        let message = format!("{id} makes vectors of texts and cannot chat: ask it for embeddings");
        BackendError::new(kind, message)
    })
}

/// Renders and encodes off the threads that serve connections: a long prompt takes a while.
async fn encode(
    lease: Lease,
    request: &ChatRequest,
) -> Result<(Lease, Vec<TokenId>), BackendError> {
    let (messages, continues) = (request.messages.clone(), request.continue_final);
    let work = tokio::task::spawn_blocking(move || {
        let text = &writer(&lease)?.text;
        let encoded = if continues {
            text.encode_continuation(&messages)
        } else {
            text.encode_chat(&messages)
        };
        let prompt = encoded.map_err(|error| invalid("messages", &error))?;
        Ok((lease, prompt))
    });
    let failed = |error| BackendError::new(BackendErrorKind::Failed, format!("encoding: {error}"));
    work.await.map_err(failed)?
}

fn invalid(param: &'static str, error: &text::Error) -> BackendError {
    BackendError::new(
        BackendErrorKind::InvalidRequest { param },
        error.to_string(),
    )
}

/// A request in the engine. The receiver drops first: the engine hears that it is cancelled while
/// the model is still held.
struct Running {
    events: mpsc::Receiver<Event>,
    text: AnswerText,
    _lease: Lease,
}

/// An answer under way.
struct Answer {
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
                Event::Token(token) => {
                    self.usage.completion_tokens += 1;
                    let progress = running.text.push(token);
                    self.say(progress.text);
                    if progress.matched {
                        self.end(FinishReason::Stop, self.usage);
                    }
                }
                Event::Finished { reason, usage, .. } => {
                    let rest = self.running.take()?.text.finish();
                    self.say(rest.text);
                    self.end(
                        if rest.matched {
                            FinishReason::Stop
                        } else {
                            reason
                        },
                        usage,
                    );
                }
                Event::Failed(error) => {
                    self.running = None;
                    let kind = BackendErrorKind::Failed;
                    return Some(Err(BackendError::new(kind, error.to_string())));
                }
            }
        }
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
    /// The text that is certain after `token`.
    fn push(&mut self, token: TokenId) -> StopProgress {
        self.stop.push(&self.detokenizer.push(token))
    }

    /// What was held back.
    fn finish(mut self) -> StopProgress {
        let mut progress = self.stop.push(&self.detokenizer.finish());
        if !progress.matched {
            progress.text.push_str(&self.stop.finish());
        }
        progress
    }
}

impl From<PoolError> for BackendError {
    fn from(error: PoolError) -> Self {
        let kind = match &error {
            PoolError::UnknownModel { .. } | PoolError::BadPath { .. } => {
                BackendErrorKind::UnknownModel
            }
            PoolError::NotEnoughMemory { .. } | PoolError::PinnedInTheWay { .. } => {
                BackendErrorKind::OutOfMemory
            }
            PoolError::LoadFailed { retry_in, .. } => BackendErrorKind::LoadFailed {
                retry_after: Some(*retry_in),
            },
            PoolError::DeadlinePassed { .. } => BackendErrorKind::Timeout,
            PoolError::NotLoaded { .. } => BackendErrorKind::NotLoaded,
            PoolError::Cancelled { .. } => BackendErrorKind::LoadFailed {
                retry_after: Some(RETRY_WHEN_BUSY),
            },
            PoolError::Fetch { .. } => BackendErrorKind::LoadFailed { retry_after: None },
            PoolError::File { .. } => BackendErrorKind::InvalidRequest { param: "model" },
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
            SubmitError::Sampling { name, .. } => BackendErrorKind::InvalidRequest { param: name },
            SubmitError::EmptyPrompt => BackendErrorKind::InvalidRequest { param: "messages" },
            SubmitError::TokenOutOfRange { .. } | SubmitError::Stopped { .. } => {
                BackendErrorKind::Failed
            }
        };
        Self::new(kind, error.to_string())
    }
}
