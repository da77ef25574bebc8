//! Who is asked when, until one begins to answer: pure; the clock is an argument and nothing is done here.
//!
//! Candidates stand in lanes, in the order of the plan. At each event or wake-up [`Race::step`] says what is to be
//! done next:
//! 1. the whole deadline has passed: give up;
//! 2. a lane has used up its patience: drop it, and ask the next in its place. Who has no successor is left alone;
//! 3. a lane was found to be late, or its time for a second opinion has come: ask the next beside it;
//! 4. nobody is being asked: the next lane, else one that failed in a way that may pass, after a pause; else give up.
//!
//! The first content that arrives ends the race; the others are dropped.

use std::time::{Duration, Instant};

/// The first pause before a lane is asked again; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause of our own choosing.
const PAUSE_MOST: Duration = Duration::from_secs(8);
/// A provider that asks for a longer pause than this is not waited for.
const PAUSE_ASKED_MOST: Duration = Duration::from_mins(1);

/// What is known of a candidate before the race.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    /// How long its first content is waited for, while there is somebody else to ask.
    pub(super) patience: Option<Duration>,
    /// When the next is asked beside it, if it says nothing until then and the hedge budget allows it.
    pub(super) hedge_after: Option<Duration>,
    /// How often it may be asked again.
    pub(super) n_retries: u32,
}

/// How a lane failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// Whether somebody else may be asked.
    pub(super) may_escalate: bool,
    /// Whether the same may be asked again, and how long it wants to be left alone.
    pub(super) may_retry: bool,
    pub(super) retry_after: Option<Duration>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the candidate of this lane.
    Open { lane: usize, why: Why },
    /// Stop asking it.
    Drop { lane: usize },
    /// Nothing until an event or this moment.
    Wait { until: Option<Instant> },
    /// Nobody is left to be asked.
    Lost,
    /// The whole deadline has passed.
    TooLate,
}

/// Why a candidate is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is the first.
    First,
    /// All before it failed.
    Failed,
    /// The one before it took too long.
    Late,
    /// The one before it is foreseen to be too late.
    Foreseen,
    /// Beside the one before it, in case that is slow.
    Hedge,
    /// Once more, after a pause.
    Again,
}

impl Why {
    /// Its name in decisions, metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Foreseen => "foreseen_miss",
            Self::Hedge => "hedge",
            Self::Again => "retry",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    lane: usize,
    since: Instant,
    /// A second opinion was asked for, or cannot be.
    is_hedged: bool,
    /// It will not be in time.
    is_late: bool,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    lane: usize,
    at: Instant,
}

/// A race under way.
#[derive(Clone, Debug)]
pub(super) struct Race {
    lanes: Vec<Lane>,
    next: usize,
    running: Vec<Running>,
    /// Times each lane was asked again.
    n_retried: Vec<u32>,
    again: Vec<Again>,
    /// By when all must be over.
    until: Option<Instant>,
    /// Somebody failed so that nobody else is to be asked.
    is_final: bool,
    /// Why the next is asked.
    why_next: Why,
}

impl Race {
    pub(super) fn new(lanes: Vec<Lane>, until: Option<Instant>) -> Self {
        Self {
            n_retried: vec![0; lanes.len()],
            lanes,
            next: 0,
            running: Vec::new(),
            again: Vec::new(),
            until,
            is_final: false,
            why_next: Why::First,
        }
    }

    /// A lane failed. `jitter` in `0.0..=1.0` spreads pauses, so that those who failed together do not come back
    /// together.
    pub(super) fn failed(&mut self, lane: usize, failure: Failure, jitter: f64, now: Instant) {
        self.running.retain(|running| running.lane != lane);
        self.why_next = Why::Failed;
        if !failure.may_escalate {
            self.is_final = true;
            return;
        }
        let (Some(known), Some(n_retried)) = (self.lanes.get(lane), self.n_retried.get_mut(lane))
        else {
            return;
        };
        if !failure.may_retry || *n_retried >= known.n_retries {
            return;
        }
        let doubled = PAUSE_FIRST * 2_u32.saturating_pow((*n_retried).min(8));
        let own = doubled.min(PAUSE_MOST).mul_f64(1.0 - 0.25 * jitter);
        let pause = failure.retry_after.map_or(own, |asked| asked.max(own));
        let at = now + pause;
        let fits = self.until.is_none_or(|until| at < until);
        if pause <= PAUSE_ASKED_MOST && fits {
            *n_retried += 1;
            self.again.push(Again { lane, at });
        }
    }

    /// A lane that is being asked will not be in time.
    pub(super) fn foreseen(&mut self, lane: usize) {
        let running = self.running.iter_mut().find(|one| one.lane == lane);
        if let Some(running) = running {
            running.is_late = true;
        }
    }

    /// Whether a lane is being asked.
    #[cfg(test)]
    fn is_running(&self, lane: usize) -> bool {
        self.running.iter().any(|running| running.lane == lane)
    }

    /// What is to be done now; asked again until it says [`Step::Wait`] or an end. `may_hedge` takes one from the
    /// hedge budget, if there is one.
    pub(super) fn step(&mut self, now: Instant, may_hedge: impl FnOnce() -> bool) -> Step {
        if self.until.is_some_and(|until| now >= until) {
            return Step::TooLate;
        }
        if self.is_final {
            return if self.running.is_empty() {
                Step::Lost
            } else {
                self.wait()
            };
        }
        if let Some(step) = self.impatient(now) {
            return step;
        }
        if let Some(step) = self.beside(now, may_hedge) {
            return step;
        }
        if !self.running.is_empty() {
            return self.wait();
        }
        if self.next < self.lanes.len() {
            return self.open_next(self.why_next, now);
        }
        self.once_more(now)
    }

    /// Drops who has used up its patience, where somebody can be asked in its place.
    fn impatient(&mut self, now: Instant) -> Option<Step> {
        if self.next >= self.lanes.len() {
            return None;
        }
        let out_of_patience = |running: &&Running| {
            let patience = self.lanes.get(running.lane).and_then(|lane| lane.patience);
            patience.is_some_and(|patience| now >= running.since + patience)
        };
        let lane = self.running.iter().find(out_of_patience)?.lane;
        self.running.retain(|running| running.lane != lane);
        self.why_next = Why::Late;
        Some(Step::Drop { lane })
    }

    /// Asks the next beside one that is late, or that has been silent for a while.
    fn beside(&mut self, now: Instant, may_hedge: impl FnOnce() -> bool) -> Option<Step> {
        if self.next >= self.lanes.len() {
            return None;
        }
        if let Some(late) = self
            .running
            .iter_mut()
            .find(|one| one.is_late && !one.is_hedged)
        {
            late.is_hedged = true;
            return Some(self.open_next(Why::Foreseen, now));
        }
        let [only] = self.running.as_mut_slice() else {
            return None;
        };
        let after = self
            .lanes
            .get(only.lane)
            .and_then(|lane| lane.hedge_after)?;
        if only.is_hedged || now < only.since + after {
            return None;
        }
        only.is_hedged = true;
        may_hedge().then(|| self.open_next(Why::Hedge, now))
    }

    fn open_next(&mut self, why: Why, now: Instant) -> Step {
        let lane = self.next;
        self.next += 1;
        self.open(lane, why, now)
    }

    fn open(&mut self, lane: usize, why: Why, now: Instant) -> Step {
        self.running.push(Running {
            lane,
            since: now,
            is_hedged: false,
            is_late: false,
        });
        Step::Open { lane, why }
    }

    fn once_more(&mut self, now: Instant) -> Step {
        let Some((i, first)) = (self.again.iter().copied().enumerate()).min_by_key(|(_, a)| a.at)
        else {
            return Step::Lost;
        };
        if now < first.at {
            return Step::Wait {
                until: Some(self.until.map_or(first.at, |until| until.min(first.at))),
            };
        }
        self.again.swap_remove(i);
        self.open(first.lane, Why::Again, now)
    }

    /// Until the next moment at which there may be something to do.
    fn wait(&self) -> Step {
        let has_next = self.next < self.lanes.len() && !self.is_final;
        let moments = self.running.iter().flat_map(|running| {
            let lane = self.lanes.get(running.lane).copied().unwrap_or_default();
            let hedge = lane.hedge_after.filter(|_| !running.is_hedged);
            let both = [lane.patience, hedge];
            both.into_iter()
                .flatten()
                .map(|after| running.since + after)
        });
        let first = moments.filter(|_| has_next).min();
        Step::Wait {
            until: first.into_iter().chain(self.until).min(),
        }
    }
}

#[cfg(test)]
mod tests;
