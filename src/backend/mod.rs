//! F6: whatever can answer a chat: `local` the models of this machine, `provider` those of others.

pub mod local;
pub mod provider;

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::Stream;

use crate::chat::ChatDelta;

/// The time by which an answer must have begun; `None` waits for ever.
pub type Deadline = Option<Instant>;

/// An answer as it is made. Ends after [`ChatDelta::Finished`] or the first error; dropping it
/// cancels the work behind it.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<ChatDelta, BackendError>> + Send>>;

/// Why a backend did not answer, or stopped answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendError {
    /// What kind of failure: the only part a program reads.
    pub kind: BackendErrorKind,
    /// One sentence for a person, lower case, without a trailing dot.
    pub message: String,
}

/// The kinds of [`BackendError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendErrorKind {
    /// No such model, or a name that cannot be one.
    UnknownModel,
    /// The model is not in memory, and requests load none here.
    NotLoaded,
    /// A field of the request cannot be honoured.
    InvalidRequest {
        /// The field, as the domain calls it.
        param: &'static str,
    },
    /// A field that this backend does not understand; another may.
    Unsupported {
        /// The field, as the domain calls it.
        param: &'static str,
    },
    /// The prompt does not fit the context.
    PromptTooLong {
        /// Tokens of the rendered prompt.
        n_prompt_tokens: u32,
        /// Tokens the context holds.
        n_ctx: u32,
    },
    /// The queue is full.
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The model does not fit in memory beside what is in use.
    OutOfMemory,
    /// The deadline passed before the answer began.
    Timeout,
    /// The model could not be loaded; it is tried again after a while.
    LoadFailed {
        /// When to ask again, where that helps.
        retry_after: Option<Duration>,
    },
    /// The program is shutting down.
    ShuttingDown,
    /// The engine failed while it answered.
    Failed,
    /// A provider failed.
    Provider(ProviderFault),
}

/// The ways in which a provider fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderFault {
    /// Its name does not resolve, nobody listens, or its certificate is not trusted.
    Unreachable,
    /// It does not know our key, or not for this.
    Unauthorized,
    /// Our credit or quota with it is used up: asking again does not help.
    NoCredit,
    /// It refuses this content by its rules.
    Refused,
    /// It has no such model, or none that meets what was asked for.
    NoSuchModel,
    /// The prompt is more than the model, or the provider, takes at once.
    TooLong,
    /// It asks us to come back later.
    RateLimited {
        /// When, if it says so.
        retry_after: Option<Duration>,
    },
    /// It fails by itself: overloaded, down, an error of its own.
    Unavailable {
        /// When to ask again, if it says so.
        retry_after: Option<Duration>,
    },
    /// It does not like the request, which another would hardly like better.
    Rejected,
    /// What it answered is no answer.
    Garbled,
    /// It fell silent, or was too slow.
    Stalled,
    /// The answer broke off after it had begun.
    BrokeOff,
}

impl ProviderFault {
    /// Its name in decisions, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::NoCredit => "no_credit",
            Self::Refused => "refused",
            Self::NoSuchModel => "no_such_model",
            Self::TooLong => "too_long",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Rejected => "rejected",
            Self::Garbled => "garbled",
            Self::Stalled => "stalled",
            Self::BrokeOff => "broke_off",
        }
    }

    /// Whether the same question to the same model may be answered a moment later.
    pub fn may_retry(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::RateLimited { .. }
                | Self::Unavailable { .. }
                | Self::Garbled
                | Self::Stalled
                | Self::BrokeOff
        )
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after } => retry_after,
            _ => None,
        }
    }
}

impl BackendErrorKind {
    /// Whether another backend may be asked instead: the one rule the router reads.
    pub fn may_escalate(&self) -> bool {
        !matches!(
            self,
            Self::UnknownModel
                | Self::InvalidRequest { .. }
                | Self::Provider(ProviderFault::Rejected)
        )
    }
}

impl BackendError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Whether another backend may be asked instead.
    pub fn may_escalate(&self) -> bool {
        self.kind.may_escalate()
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BackendError {}
