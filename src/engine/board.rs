//! Where an engine's thread posts what it has before it, and whoever asks reads it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::predict::{
    Calibration, Outlook, OutputLengths, Prediction, SequenceLoad, StepCost, TrafficMeter,
    predict_queued,
};
use super::scheduler::{Scheduler, StepLimits};

/// The load of an engine, in the open.
#[derive(Debug)]
pub(super) struct Board {
    limits: StepLimits,
    n_ctx: u32,
    begun: Instant,
    state: Mutex<State>,
}

/// What the thread knows besides its queue.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) lengths: OutputLengths,
    pub(super) traffic: TrafficMeter,
    pub(super) calibration: Calibration,
}

#[derive(Debug)]
struct State {
    next_ticket: u64,
    /// Submitted since the thread last looked, oldest first.
    incoming: VecDeque<SequenceLoad>,
    running: Vec<SequenceLoad>,
    waiting: Vec<SequenceLoad>,
    n_free_blocks: usize,
    /// When the step under way began, if there is one.
    step_begun: Instant,
    cost: Option<StepCost>,
    turn_wait: Duration,
    learned: Learned,
}

/// A request's place in an engine's queue. It holds nothing: neither the model nor the request.
#[derive(Clone, Debug)]
pub struct Place {
    board: Arc<Board>,
    ticket: u64,
}

impl Place {
    /// How much longer the request will take, from now; absent once it is gone. With its first token out, that takes
    /// no time any more.
    pub fn predict(&self) -> Option<Prediction> {
        predict_queued(&self.board.outlook(Instant::now()), self.ticket)
    }
}

impl Board {
    /// Nobody is there yet.
    pub(super) fn new(limits: StepLimits, n_ctx: u32, n_blocks: usize) -> Self {
        let now = Instant::now();
        let state = State {
            next_ticket: 0,
            incoming: VecDeque::new(),
            running: Vec::new(),
            waiting: Vec::new(),
            n_free_blocks: n_blocks,
            step_begun: now,
            cost: None,
            turn_wait: Duration::ZERO,
            learned: Learned::default(),
        };
        Self {
            limits,
            n_ctx,
            begun: now,
            state: Mutex::new(state),
        }
    }

    /// Gives a request its ticket and sends it with that, so that tickets are in the order of the queue; `None`
    /// if it could not be sent.
    pub(super) fn enter(
        self: &Arc<Self>,
        (n_prompt_tokens, max_new_tokens): (u32, u32),
        now: Instant,
        send: impl FnOnce(u64) -> bool,
    ) -> Option<Place> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        if !send(ticket) {
            return None;
        }
        if state.n_live() == 0 {
            // It had nothing to do until now.
            state.step_begun = now;
        }
        state.next_ticket += 1;
        let room = self.n_ctx.saturating_sub(n_prompt_tokens);
        let load = SequenceLoad::new(ticket, n_prompt_tokens, max_new_tokens.min(room));
        state.incoming.push_back(load);
        drop(state);
        Some(Place {
            board: Arc::clone(self),
            ticket,
        })
    }

    /// A step begins, or there is none to do; the thread has taken in all before `next_ticket`.
    pub(super) fn post(
        &self,
        scheduler: &Scheduler,
        next_ticket: u64,
        (cost, turn_wait): (Option<StepCost>, Duration),
        now: Instant,
    ) {
        let mut state = self.lock();
        let State {
            running, waiting, ..
        } = &mut *state;
        scheduler.post(running, waiting);
        state.n_free_blocks = scheduler.n_free_blocks();
        state.step_begun = now;
        state.cost = cost;
        state.turn_wait = turn_wait;
        while state
            .incoming
            .front()
            .is_some_and(|load| load.ticket < next_ticket)
        {
            state.incoming.pop_front();
        }
    }

    /// Notes what can be learned from what happened, at a moment in seconds.
    pub(super) fn learn(&self, now: Instant, note: impl FnOnce(&mut Learned, f64)) {
        let seconds = self.seconds(now);
        note(&mut self.lock().learned, seconds);
    }

    /// All of it at `now`.
    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        let state = self.lock();
        let age = now.saturating_duration_since(state.step_begun);
        Outlook {
            limits: self.limits,
            n_ctx: self.n_ctx,
            n_free_blocks: state.n_free_blocks,
            running: state.running.clone(),
            waiting: state.waiting.clone(),
            incoming: state.incoming.iter().copied().collect(),
            step_age: (state.n_live() > 0).then_some(age),
            cost: state.cost,
            turn_wait: state.turn_wait.as_secs_f64(),
            lengths: state.learned.lengths.clone(),
            traffic: state.learned.traffic.traffic(self.seconds(now)),
            calibration: state.learned.calibration.clone(),
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.begun).as_secs_f64()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain figures: whoever panicked with the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn n_live(&self) -> usize {
        self.running.len() + self.waiting.len() + self.incoming.len()
    }
}
