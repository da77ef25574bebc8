//! The one who asked: its channel and its patience.
//!
//! The law of back-pressure: a channel holds [`event_queue_len`] tokens and, beyond them, one place
//! that only the end of the answer takes, so the end can always be said. With the token places full
//! the sequence pauses; it goes on when half of them are free, so that a slow reader does not make
//! it stop and go at every token. Paused for longer than the bound, it is given up.
//!
//! [`event_queue_len`]: super::EngineOptions::event_queue_len

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::error::EngineError;
use super::event::{Event, Timings};
use super::predict::Prediction;
use crate::chat::{FinishReason, Usage};

/// Whoever holds the other end of a request's channel.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) events: mpsc::Sender<Event>,
    submitted: Instant,
    /// What was predicted when it came, as the queue alone had it.
    foretold: Option<Prediction>,
    started: Option<Instant>,
    prefilled: Option<Instant>,
    paused: Option<Instant>,
}

/// What a reader does.
#[derive(Debug)]
pub(super) enum Reader {
    /// It went away.
    Gone,
    /// It has room for the next token.
    Ready,
    /// It has none for now.
    Full,
    /// It had none for too long.
    TooSlow(EngineError),
}

/// A channel for `n_tokens` tokens and an end.
pub(super) fn channel(n_tokens: usize) -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(
        n_tokens
            .saturating_add(1)
            .min(tokio::sync::Semaphore::MAX_PERMITS),
    )
}

impl Client {
    /// A client that has heard nothing.
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        submitted: Instant,
        foretold: Option<Prediction>,
    ) -> Self {
        Self {
            events,
            submitted,
            foretold,
            started: None,
            prefilled: None,
            paused: None,
        }
    }

    /// Looks at its channel at `now`; a reader may pause the sequence for at most `patience`.
    pub(super) fn look(&mut self, now: Instant, patience: Duration) -> Reader {
        if self.events.is_closed() {
            return Reader::Gone;
        }
        let n_places = self.events.max_capacity() - 1;
        let n_free = self.events.capacity().saturating_sub(1);
        let n_needed = if self.paused.is_some() {
            n_places.div_ceil(2)
        } else {
            1
        };
        if n_free >= n_needed {
            self.paused = None;
            return Reader::Ready;
        }
        let waited = now.duration_since(*self.paused.get_or_insert(now));
        if waited <= patience {
            return Reader::Full;
        }
        Reader::TooSlow(EngineError::SlowReader {
            waited,
            n_unread: n_places - n_free,
        })
    }

    /// What was predicted when it came, and the seconds since.
    pub(super) fn foretold(&self, now: Instant) -> Option<(Prediction, f64)> {
        let waited = now.saturating_duration_since(self.submitted);
        Some((self.foretold?, waited.as_secs_f64()))
    }

    /// A step with its tokens begins; whether it is the first.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let is_first = self.started.is_none();
        self.started.get_or_insert(now);
        is_first
    }

    /// A token is drawn, or its prompt is evaluated.
    pub(super) fn progress(&mut self, now: Instant) {
        self.prefilled.get_or_insert(now);
    }

    /// Whether its first token, or the end of its prompt, is still to come.
    pub(super) fn is_prefilling(&self) -> bool {
        self.prefilled.is_none()
    }

    /// The event of a good end at `now`.
    pub(super) fn finished(&self, reason: FinishReason, usage: Usage, now: Instant) -> Event {
        let started = self.started.unwrap_or(now);
        let prefilled = self.prefilled.unwrap_or(now);
        let timings = Timings {
            queue: started.duration_since(self.submitted),
            prefill: prefilled.duration_since(started),
            decode: now.duration_since(prefilled),
        };
        Event::Finished {
            reason,
            usage,
            timings,
            vector: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[test]
    fn pauses_when_full_goes_on_when_half_empty_and_always_hears_the_end() {
        let (events, mut receiver) = channel(4);
        let now = Instant::now();
        let mut client = Client::new(events, now, None);
        for token in 0..4 {
            assert!(matches!(client.look(now, PATIENCE), Reader::Ready));
            client.events.try_send(Event::Token(token)).unwrap();
        }
        assert!(matches!(client.look(now, PATIENCE), Reader::Full));
        receiver.try_recv().unwrap();
        assert!(matches!(client.look(now, PATIENCE), Reader::Full));
        receiver.try_recv().unwrap();
        assert!(matches!(client.look(now, PATIENCE), Reader::Ready));

        client.events.try_send(Event::Token(4)).unwrap();
        client.events.try_send(Event::Token(5)).unwrap();
        assert!(matches!(client.look(now, PATIENCE), Reader::Full));
        client
            .events
            .try_send(Event::Failed(EngineError::Stopped))
            .unwrap();
    }

    #[test]
    fn is_too_slow_after_its_patience_and_gone_when_dropped() {
        let (events, receiver) = channel(1);
        let now = Instant::now();
        let mut client = Client::new(events, now, None);
        client.events.try_send(Event::Token(0)).unwrap();
        assert!(matches!(client.look(now, PATIENCE), Reader::Full));
        assert!(matches!(
            client.look(now + PATIENCE, PATIENCE),
            Reader::Full
        ));
        let late = client.look(now + PATIENCE * 2, PATIENCE);
        let Reader::TooSlow(EngineError::SlowReader {
            waited,
            n_unread: 1,
        }) = late
        else {
            panic!("{late:?}");
        };
        assert_eq!(waited, PATIENCE * 2);
        drop(receiver);
        assert!(matches!(client.look(now, PATIENCE), Reader::Gone));
    }

    #[test]
    fn its_time_is_queue_then_prefill_then_decode() {
        let (events, _receiver) = channel(1);
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut client = Client::new(events, begin, None);
        client.start(after(1));
        client.start(after(2));
        client.progress(after(4));
        client.progress(after(5));
        let Event::Finished { timings, .. } =
            client.finished(FinishReason::Stop, Usage::default(), after(10))
        else {
            panic!("not finished");
        };
        let seconds = [timings.queue, timings.prefill, timings.decode].map(|t| t.as_secs());
        assert_eq!(seconds, [1, 3, 6]);
    }
}
