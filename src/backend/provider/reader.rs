//! Whichever dialect an answer is in.

use serde_json::Value;

use super::fault::Fault;
use super::sse::Event;
use super::{anthropic, openai};
use crate::chat::{ChatDelta, FinishReason};

/// Whether more may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Goes,
    Ended,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) enum Reader {
    OpenAi(openai::Deltas),
    Anthropic(anthropic::Deltas),
}

impl Reader {
    /// Reads an event and puts what it says into `found`.
    pub(super) fn event(
        &mut self,
        event: &Event,
        found: &mut Vec<ChatDelta>,
    ) -> Result<Step, Fault> {
        match self {
            Self::OpenAi(deltas) => deltas.event(event, found),
            Self::Anthropic(deltas) => deltas.event(event, found),
        }
    }

    /// Reads an answer that came whole.
    pub(super) fn whole(&mut self, body: &Value, found: &mut Vec<ChatDelta>) -> Result<(), Fault> {
        match self {
            Self::OpenAi(deltas) => deltas.whole(body, found),
            Self::Anthropic(deltas) => deltas.whole(body, found),
        }
    }

    /// How it ended; absent: it did not.
    pub(super) fn finish(&self) -> Option<FinishReason> {
        match self {
            Self::OpenAi(deltas) => deltas.finish(),
            Self::Anthropic(deltas) => deltas.finish(),
        }
    }
}
