//! An answer on its way to whoever asked: watched for silence, gone on with when it breaks off, and recorded however it
//! ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::asker::Asker;
use super::attempt::Attempt;
use super::chase::Begun;
use super::continuation::{self, Continuation, Echo};
use super::decision::End;
use crate::backend::{BackendError, BackendErrorKind, ChatStream, ProviderFault};
use crate::chat::{ChatDelta, FinishReason, Said, Usage};
use crate::money::MicroUsd;

/// Times one answer is gone on with.
const MOST_CONTINUATIONS: u32 = 2;

/// An answer that has begun.
pub(super) struct Relay {
    asker: Asker,
    /// `None` once it is settled.
    attempt: Option<Attempt>,
    stream: ChatStream,
    said: Said,
    echo: Option<Echo>,
    ready: VecDeque<ChatDelta>,
    /// What the parts that broke off took.
    before: Usage,
    n_continued: u32,
    is_over: bool,
}

impl Relay {
    /// The answer of `attempt`, which has begun.
    pub(super) fn stream(asker: Asker, begun: Begun, attempt: Attempt) -> ChatStream {
        asker.record.committed(&attempt.target().to_string());
        let mut relay = Self {
            asker,
            attempt: Some(attempt),
            stream: begun.rest,
            said: Said::default(),
            echo: None,
            ready: VecDeque::new(),
            before: Usage::default(),
            n_continued: 0,
            is_over: false,
        };
        relay.take(begun.first);
        Box::pin(stream::unfold(relay, |mut relay| async move {
            let item = relay.next().await?;
            Some((item, relay))
        }))
    }

    async fn next(&mut self) -> Option<Result<ChatDelta, BackendError>> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Some(Ok(delta));
            }
            if self.is_over {
                return None;
            }
            match self.hear().await {
                Ok(delta) => self.take(delta),
                Err(error) => {
                    if let Err(error) = self.go_on(error).await {
                        self.end(&End::Failed(error.clone()), self.before);
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The next piece, unless it takes too long.
    async fn hear(&mut self) -> Result<ChatDelta, BackendError> {
        let idle = self
            .attempt
            .as_ref()
            .and_then(|one| self.asker.idle_time(one.target()));
        let now = Instant::now();
        let until = self.asker.until;
        let by = idle.map(|idle| now + idle).into_iter().chain(until).min();
        let item = match by {
            None => self.stream.next().await,
            Some(by) => match tokio::time::timeout_at(by.into(), self.stream.next()).await {
                Ok(item) => item,
                Err(_) if until.is_some_and(|until| Instant::now() >= until) => {
                    return Err(too_late());
                }
                Err(_) => return Err(silent(idle.unwrap_or_default())),
            },
        };
        item.unwrap_or_else(|| {
            let fault = BackendErrorKind::Provider(ProviderFault::BrokeOff);
            Err(BackendError::new(fault, "the answer broke off"))
        })
    }

    fn take(&mut self, delta: ChatDelta) {
        if let ChatDelta::Finished { reason, usage } = delta {
            let rest = self.echo.as_mut().map(Echo::finish).unwrap_or_default();
            self.say(ChatDelta::Text(rest));
            let mut usage = usage;
            if let Some(attempt) = self.attempt.take() {
                let is_local = attempt.target().is_local();
                let cost = attempt.finished(&usage);
                // What our own machine does is no bill, unless it has a price.
                usage.cost = Some(cost).filter(|cost| !is_local || *cost > MicroUsd::ZERO);
            }
            let usage = sum(self.before, usage);
            self.ready.push_back(ChatDelta::Finished { reason, usage });
            self.end(&End::Finished(reason), usage);
            return;
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.said(&delta);
        }
        match (delta, &mut self.echo) {
            (ChatDelta::Text(text), Some(echo)) => {
                let new = echo.pass(text);
                self.say(ChatDelta::Text(new));
            }
            (delta, _) => self.say(delta),
        }
    }

    fn say(&mut self, delta: ChatDelta) {
        if delta == ChatDelta::Text(String::new()) {
            return;
        }
        self.said.push(delta.clone());
        self.ready.push_back(delta);
    }

    /// Finds somebody who goes on with what broke off.
    ///
    /// Errors: nobody does; the failure that broke it off.
    async fn go_on(&mut self, error: BackendError) -> Result<(), BackendError> {
        let Some(attempt) = self.attempt.take() else {
            return Err(error);
        };
        let from = attempt.target().clone();
        self.before = sum(self.before, attempt.usage_so_far());
        attempt.failed(&error);
        if error.kind == BackendErrorKind::Timeout || self.n_continued >= MOST_CONTINUATIONS {
            return Err(error);
        }
        // What was held back for an echo was never said.
        self.echo = None;
        let rest = match continuation::of(&self.asker.request, &self.said) {
            Continuation::Impossible => return Err(error),
            Continuation::Complete => {
                let (reason, usage) = (FinishReason::Length, self.before);
                self.ready.push_back(ChatDelta::Finished { reason, usage });
                self.end(&End::Finished(reason), usage);
                return Ok(());
            }
            Continuation::Ask(rest) => rest,
        };
        self.n_continued += 1;
        let went_on = self.asker.go_on(*rest, &from).await;
        let Some((begun, attempt)) = went_on else {
            return Err(error);
        };
        let by = attempt.target();
        self.asker.record.committed(&by.to_string());
        // Who computes here goes on from the very text.
        self.echo = (!by.is_local()).then(|| Echo::of(&self.said.text));
        self.ready.push_back(ChatDelta::Continued {
            from: from.to_string(),
            by: by.to_string(),
        });
        self.attempt = Some(attempt);
        self.stream = begun.rest;
        self.take(begun.first);
        Ok(())
    }

    fn end(&mut self, end: &End, usage: Usage) {
        self.is_over = true;
        self.asker.ended(end, usage);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let so_far = self.attempt.as_ref().map(Attempt::usage_so_far);
        let usage = sum(self.before, so_far.unwrap_or_default());
        // Settled before the record is closed.
        self.attempt = None;
        self.end(&End::Cancelled, usage);
    }
}

fn silent(after: Duration) -> BackendError {
    let kind = BackendErrorKind::Provider(ProviderFault::Stalled);
    let seconds = after.as_secs_f64();
    BackendError::new(kind, format!("the answer fell silent for {seconds} s"))
}

pub(super) fn too_late() -> BackendError {
    let text = "the answer was not complete when its time was over";
    BackendError::new(BackendErrorKind::Timeout, text)
}

/// Both together.
fn sum(a: Usage, b: Usage) -> Usage {
    let cost = match (a.cost, b.cost) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or_default().plus(b.unwrap_or_default())),
    };
    Usage {
        prompt_tokens: a.prompt_tokens.saturating_add(b.prompt_tokens),
        completion_tokens: a.completion_tokens.saturating_add(b.completion_tokens),
        cached_tokens: a.cached_tokens.saturating_add(b.cached_tokens),
        cache_write_tokens: a.cache_write_tokens.saturating_add(b.cache_write_tokens),
        reasoning_tokens: a.reasoning_tokens.saturating_add(b.reasoning_tokens),
        cost,
        is_estimated: a.is_estimated || b.is_estimated,
    }
}
