//! What clients wait for, measured: time to the first token, time between tokens, whole requests.

use std::time::Instant;

use futures_util::{StreamExt, stream};

use crate::backend::ChatStream;
use crate::router::Answer;
use crate::telemetry::names;

/// Passes an answer on and measures it with a clock that began with the request. Who answers labels the figures; a
/// model of this machine by its name alone. Text that arrives together counts as one step between tokens.
pub(super) fn measured(answer: Answer, mut clock: Clock) -> ChatStream {
    clock.by(&answer.target);
    Box::pin(stream::unfold(
        (answer.stream, clock),
        |(mut answer, mut clock)| async move {
            let item = answer.next().await?;
            match &item {
                Ok(delta) if delta.is_content() => clock.text(),
                Ok(_) => clock.outcome = "finished",
                Err(_) => clock.outcome = "failed",
            }
            Some((item, (answer, clock)))
        },
    ))
}

/// Writes its last figures when it is dropped, on whatever path.
pub(super) struct Clock {
    model: String,
    began: Instant,
    last: Option<Instant>,
    outcome: &'static str,
}

impl Clock {
    /// Begins now; a request that comes to no end was cancelled.
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            began: Instant::now(),
            last: None,
            outcome: "cancelled",
        }
    }

    /// How the request ended.
    pub(super) fn end(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    /// Who answers.
    pub(super) fn by(&mut self, target: &str) {
        let model = target.strip_prefix("local:");
        model.unwrap_or(target).clone_into(&mut self.model);
    }

    fn text(&mut self) {
        let now = Instant::now();
        let (name, since) = match self.last {
            None => (names::TIME_TO_FIRST_TOKEN, self.began),
            Some(last) => (names::INTER_TOKEN, last),
        };
        let seconds = now.duration_since(since).as_secs_f64();
        metrics::histogram!(name, "model" => self.model.clone()).record(seconds);
        self.last = Some(now);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        let labels = [
            ("model", self.model.clone()),
            ("outcome", self.outcome.to_owned()),
        ];
        metrics::histogram!(names::REQUEST_DURATION, &labels).record(seconds);
    }
}
