//! The pure decision: what the pool does next. Owns no model, reads no clock, does no I/O.
//!
//! [`Plan::decide`] takes one [`Event`] and answers with [`Decision`]s; the actor carries them out
//! and reports back with further events. An acquire is decided so:
//!
//! 1. closing: refuse;
//! 2. ready: serve;
//! 3. on its way in (fetching, queued for memory, loading): join the others who wait;
//! 4. on its way out (draining, or its load called off): join; it is loaded again once it has left;
//! 5. failed not long ago: refuse with the reason;
//! 6. absent, and whoever asks may not have it loaded: refuse;
//! 7. else: prepare (fetch, open, measure), then admit within the memory budget, then load.
//!
//! Deliberately absent: evicting a model in use or a pinned one, overtaking in the queue for memory,
//! a second load of one model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bytes::Bytes;
use super::status::{ModelId, ModelState};
use crate::keep_alive::KeepAlive;

mod entry;
mod event;
mod leave;
mod room;

use entry::{Entry, State};

use leave::{leave_at_once, restart};

pub use event::{Ask, Decision, Event, Refusal, WaiterId, Wish};

/// Wait after the first failure; doubles with each further one.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
pub const BACK_OFF_MOST: Duration = Duration::from_mins(1);
/// An engine that ran so long before it failed starts the back-off anew.
pub const STABLE_AFTER: Duration = Duration::from_mins(1);

/// What the pool knows of every model, and the budget they share.
#[derive(Clone, Debug)]
pub struct Plan {
    budget: Bytes,
    /// How long an idle model stays where nobody says so.
    keep_alive: KeepAlive,
    entries: BTreeMap<ModelId, Entry>,
    next_ticket: u64,
    closing: bool,
}

impl Plan {
    /// A pool with nothing in it that may hold `budget`; idle models stay for `keep_alive` unless whoever
    /// asks for one says otherwise.
    pub fn new(budget: Bytes, keep_alive: KeepAlive) -> Self {
        Self {
            budget,
            keep_alive,
            entries: BTreeMap::new(),
            next_ticket: 0,
            closing: false,
        }
    }

    /// Takes in one event and says what to do, in order.
    ///
    /// Events about a model in a state where they make no sense (a release nobody holds) are
    /// ignored: they are bugs of the actor and tests look for them.
    pub fn decide(&mut self, event: Event, now: Instant) -> Vec<Decision> {
        let mut out = Vec::new();
        match event {
            Event::Acquire {
                waiter,
                model,
                wish,
            } => {
                self.acquire((waiter, wish), model, now, &mut out);
            }
            Event::Cancelled(waiter) => self.cancelled(waiter, &mut out),
            Event::Prepared(model, ask) => self.prepared(model, ask, &mut out),
            Event::Loaded(model, bytes) => self.loaded(model, bytes, now, &mut out),
            Event::LoadFailed(model, reason) => self.failed(&model, reason, now, &mut out),
            Event::Released(model) => self.released(model, now, &mut out),
            Event::EngineFailed(model, reason) => {
                self.drain(&model, Some(reason), now, &mut out);
            }
            Event::Unload(model) => self.unload(&model, now, &mut out),
            Event::Keep(model, keep_alive) => self.keep(&model, keep_alive),
            Event::Tick => {}
            Event::Unloaded(model) => self.unloaded(model, now, &mut out),
            Event::Shutdown => self.shutdown(now, &mut out),
        }
        // First, so that who waits may get what then becomes free.
        self.expire(now, &mut out);
        self.admit_queued(now, &mut out);
        self.entries
            .retain(|_, entry| entry.state != State::Absent || !entry.waiters.is_empty());
        out
    }

    /// What all models together may hold.
    pub fn budget(&self) -> Bytes {
        self.budget
    }

    /// What models hold now, or will once their load ends.
    pub fn held_bytes(&self) -> Bytes {
        self.entries.values().map(Entry::held_bytes).sum()
    }

    /// Every known model, by id.
    pub fn known(&self, now: Instant) -> impl Iterator<Item = Known<'_>> {
        let is_known = |(_, entry): &(&ModelId, &Entry)| entry.state != State::Absent;
        let known = self.entries.iter().filter(is_known);
        known.map(move |(id, entry)| Known {
            id,
            state: state(entry, now),
            memory: entry.held_bytes(),
            idle: now.saturating_duration_since(entry.last_used),
            keep_alive: entry.keep_alive,
            expires_in: entry
                .expires_at()
                .map(|at| at.saturating_duration_since(now)),
            n_waiting: entry.waiters.len(),
        })
    }

    /// Where a model stands; `None` of one that is neither here nor on its way.
    pub fn state(&self, model: &ModelId, now: Instant) -> Option<ModelState> {
        let entry = self.entries.get(model)?;
        (entry.state != State::Absent).then(|| state(entry, now))
    }

    fn acquire(
        &mut self,
        (waiter, wish): (WaiterId, Wish),
        model: ModelId,
        now: Instant,
        out: &mut Vec<Decision>,
    ) {
        if self.closing {
            out.push(Decision::Refuse(waiter, model, Refusal::ShuttingDown)); // 1
            return;
        }
        let default = self.keep_alive;
        let entry = self.entries.entry(model.clone());
        let entry = entry.or_insert_with(|| Entry::new(now, default));
        entry.last_used = now;
        entry.keep_alive = wish.keep_alive.unwrap_or(entry.keep_alive);
        match &mut entry.state {
            State::Ready { n_leases, .. } => {
                *n_leases += 1;
                out.push(Decision::Serve(waiter, model)); // 2
            }
            State::Fetching
            | State::Queued { .. }
            | State::Loading { .. }
            | State::Cancelling { .. }
            | State::Draining { .. } => entry.waiters.push_back(waiter), // 3, 4
            State::Failed { retry_at, reason } if now < *retry_at => {
                let retry_in = retry_at.saturating_duration_since(now);
                let refusal = Refusal::Failed {
                    reason: reason.clone(),
                    retry_in,
                };
                out.push(Decision::Refuse(waiter, model, refusal)); // 5
            }
            State::Absent | State::Failed { .. } if !wish.may_load => {
                out.push(Decision::Refuse(waiter, model, Refusal::NotLoaded)); // 6
            }
            State::Absent | State::Failed { .. } => {
                entry.waiters.push_back(waiter);
                entry.state = State::Fetching;
                out.push(Decision::Prepare(model)); // 7
            }
        }
    }

    /// A load under way goes on without its waiters; one that only queues for memory does not.
    fn cancelled(&mut self, waiter: WaiterId, out: &mut Vec<Decision>) {
        for (model, entry) in &mut self.entries {
            let n_before = entry.waiters.len();
            entry.waiters.retain(|&w| w != waiter);
            if entry.waiters.len() == n_before {
                continue;
            }
            if entry.waiters.is_empty() && matches!(entry.state, State::Queued { .. }) {
                entry.state = State::Absent;
                out.push(Decision::Discard(model.clone()));
            }
            return;
        }
    }

    fn prepared(&mut self, model: ModelId, ask: Ask, out: &mut Vec<Decision>) {
        let (budget, closing, ticket) = (self.budget, self.closing, self.next_ticket);
        let Some(entry) = self.entries.get_mut(&model) else {
            return;
        };
        match entry.state {
            State::Fetching => {}
            State::Cancelling { .. } => {
                out.push(Decision::Discard(model.clone()));
                restart(model, entry, out);
                return;
            }
            _ => return,
        }
        if closing || !ask.least.fits(budget) {
            let refusal = Refusal::NotEnoughMemory {
                least: ask.least,
                budget,
            };
            refuse_all(&model, entry, &refusal, out);
            entry.state = State::Absent;
            out.push(Decision::Discard(model));
            return;
        }
        entry.state = State::Queued { ask, ticket };
        self.next_ticket += 1;
    }

    fn loaded(&mut self, model: ModelId, bytes: Bytes, now: Instant, out: &mut Vec<Decision>) {
        let closing = self.closing;
        let Some(entry) = self.entries.get_mut(&model) else {
            return;
        };
        entry.last_used = now;
        match entry.state {
            State::Loading { .. } if !closing => {}
            State::Loading { .. } | State::Cancelling { .. } => {
                leave_at_once(model, entry, bytes, out);
                return;
            }
            _ => return,
        }
        let mut n_leases = 0;
        while let Some(waiter) = entry.waiters.pop_front() {
            n_leases += 1;
            out.push(Decision::Serve(waiter, model.clone()));
        }
        entry.state = State::Ready {
            bytes,
            n_leases,
            since: now,
        };
    }

    fn failed(&mut self, model: &ModelId, reason: String, now: Instant, out: &mut Vec<Decision>) {
        let Some(entry) = self.entries.get_mut(model) else {
            return;
        };
        match entry.state {
            State::Fetching | State::Loading { .. } => {
                entry.n_failures += 1;
                set_failed(model, entry, reason, now, out);
            }
            // Called off, as was wanted.
            State::Cancelling { .. } => restart(model.clone(), entry, out),
            _ => {}
        }
    }
}

/// One model as the plan sees it.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Which model.
    pub id: &'a ModelId,
    /// Where it stands.
    pub state: ModelState,
    /// What it holds of the budget.
    pub memory: Bytes,
    /// Since it was last asked for, or given back.
    pub idle: Duration,
    /// How long it stays once nobody uses it.
    pub keep_alive: KeepAlive,
    /// When it leaves by itself, while nobody uses it.
    pub expires_in: Option<Duration>,
    /// Who waits for it.
    pub n_waiting: usize,
}

/// An entry's state as others see it. Only of one that is not absent.
fn state(entry: &Entry, now: Instant) -> ModelState {
    match &entry.state {
        State::Absent | State::Fetching => ModelState::Fetching,
        State::Queued { .. } => ModelState::Queued,
        State::Loading { .. } => ModelState::Loading,
        State::Ready { n_leases, .. } => ModelState::Ready {
            n_leases: *n_leases,
        },
        State::Cancelling { .. } => ModelState::Draining { n_leases: 0 },
        State::Draining { n_leases, .. } => ModelState::Draining {
            n_leases: *n_leases,
        },
        State::Failed { retry_at, reason } => ModelState::Failed {
            reason: reason.clone(),
            retry_in: retry_at.saturating_duration_since(now),
        },
    }
}

fn refuse_all(model: &ModelId, entry: &mut Entry, refusal: &Refusal, out: &mut Vec<Decision>) {
    for waiter in entry.waiters.drain(..) {
        out.push(Decision::Refuse(waiter, model.clone(), refusal.clone()));
    }
}

fn set_failed(
    model: &ModelId,
    entry: &mut Entry,
    reason: String,
    now: Instant,
    out: &mut Vec<Decision>,
) {
    let retry_in = back_off(entry.n_failures);
    let refusal = Refusal::Failed {
        reason: reason.clone(),
        retry_in,
    };
    refuse_all(model, entry, &refusal, out);
    entry.state = State::Failed {
        retry_at: now + retry_in,
        reason,
    };
}

/// How long to wait after the `n`th failure in a row.
fn back_off(n_failures: u32) -> Duration {
    let doublings = n_failures.saturating_sub(1).min(16);
    (BACK_OFF_FIRST * (1 << doublings)).min(BACK_OFF_MOST)
}

#[cfg(test)]
mod stay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
