//! The pure decision: what the pool does next. Owns no model, reads no clock, does no I/O.
//!
//! [`Plan::decide`] takes one [`Event`] and answers with [`Decision`]s; the actor carries them out
//! and reports back with further events. An acquire is decided so:
//!
//! 1. closing: refuse;
//! 2. ready: serve;
//! 3. on its way in (fetching, queued for memory, loading): join the others who wait;
//! 4. on its way out (draining): join; it is loaded again once it has left;
//! 5. failed not long ago: refuse with the reason;
//! 6. else: prepare (fetch, open, measure), then admit within the memory budget, then load.
//!
//! Deliberately absent: evicting a model in use, overtaking in the queue for memory, a second load
//! of one model.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::bytes::Bytes;
use super::status::{ModelId, ModelState};

mod event;

pub use event::{Ask, Decision, Event, Refusal, WaiterId};

/// Wait after the first failure; doubles with each further one.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
pub const BACK_OFF_MOST: Duration = Duration::from_mins(1);
/// An engine that ran so long before it failed starts the back-off anew.
pub const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Where a model stands. Bytes count against the budget from `Loading` until `Unloaded`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Fetching,
    Queued {
        ask: Ask,
        ticket: u64,
    },
    Loading {
        bytes: Bytes,
    },
    Ready {
        bytes: Bytes,
        n_leases: u32,
        since: Instant,
    },
    /// `failure` says why the engine stopped, if that is why it leaves.
    Draining {
        bytes: Bytes,
        n_leases: u32,
        failure: Option<String>,
    },
    Failed {
        retry_at: Instant,
        reason: String,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    state: State,
    /// First come, first served.
    waiters: VecDeque<WaiterId>,
    last_used: Instant,
    /// Failures in a row.
    n_failures: u32,
}

impl Entry {
    fn held_bytes(&self) -> Bytes {
        match self.state {
            State::Loading { bytes }
            | State::Ready { bytes, .. }
            | State::Draining { bytes, .. } => bytes,
            State::Absent | State::Fetching | State::Queued { .. } | State::Failed { .. } => {
                Bytes::default()
            }
        }
    }
}

/// What the pool knows of every model, and the budget they share.
#[derive(Clone, Debug)]
pub struct Plan {
    budget: Bytes,
    entries: BTreeMap<ModelId, Entry>,
    next_ticket: u64,
    closing: bool,
}

impl Plan {
    /// A pool with nothing in it that may hold `budget`.
    pub fn new(budget: Bytes) -> Self {
        Self {
            budget,
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
            Event::Acquire { waiter, model } => self.acquire(waiter, model, now, &mut out),
            Event::Cancelled(waiter) => self.cancelled(waiter, &mut out),
            Event::Prepared(model, ask) => self.prepared(model, ask, &mut out),
            Event::Loaded(model, bytes) => self.loaded(model, bytes, now, &mut out),
            Event::LoadFailed(model, reason) => self.failed(&model, reason, now, &mut out),
            Event::Released(model) => self.released(model, now, &mut out),
            Event::EngineFailed(model, reason) => {
                self.drain(&model, Some(reason), now, &mut out);
            }
            Event::Unload(model) => self.drain(&model, None, now, &mut out),
            Event::Unloaded(model) => self.unloaded(model, now, &mut out),
            Event::Shutdown => self.shutdown(now, &mut out),
        }
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

    /// Every known model: its state, the bytes it holds, and when it was last used.
    pub fn states(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&ModelId, ModelState, Bytes, Instant)> {
        self.entries.iter().filter_map(move |(id, entry)| {
            let state = match &entry.state {
                State::Absent => return None,
                State::Fetching => ModelState::Fetching,
                State::Queued { .. } => ModelState::Queued,
                State::Loading { .. } => ModelState::Loading,
                State::Ready { n_leases, .. } => ModelState::Ready {
                    n_leases: *n_leases,
                },
                State::Draining { n_leases, .. } => ModelState::Draining {
                    n_leases: *n_leases,
                },
                State::Failed { retry_at, reason } => ModelState::Failed {
                    reason: reason.clone(),
                    retry_in: retry_at.saturating_duration_since(now),
                },
            };
            Some((id, state, entry.held_bytes(), entry.last_used))
        })
    }

    fn acquire(&mut self, waiter: WaiterId, model: ModelId, now: Instant, out: &mut Vec<Decision>) {
        if self.closing {
            out.push(Decision::Refuse(waiter, model, Refusal::ShuttingDown)); // 1
            return;
        }
        let entry = self.entries.entry(model.clone()).or_insert_with(|| Entry {
            state: State::Absent,
            waiters: VecDeque::new(),
            last_used: now,
            n_failures: 0,
        });
        entry.last_used = now;
        match &mut entry.state {
            State::Ready { n_leases, .. } => {
                *n_leases += 1;
                out.push(Decision::Serve(waiter, model)); // 2
            }
            State::Fetching
            | State::Queued { .. }
            | State::Loading { .. }
            | State::Draining { .. } => entry.waiters.push_back(waiter), // 3, 4
            State::Failed { retry_at, reason } if now < *retry_at => {
                let retry_in = retry_at.saturating_duration_since(now);
                let refusal = Refusal::Failed {
                    reason: reason.clone(),
                    retry_in,
                };
                out.push(Decision::Refuse(waiter, model, refusal)); // 5
            }
            State::Absent | State::Failed { .. } => {
                entry.waiters.push_back(waiter);
                entry.state = State::Fetching;
                out.push(Decision::Prepare(model)); // 6
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
        if entry.state != State::Fetching {
            return;
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
        if !matches!(entry.state, State::Loading { .. }) {
            return;
        }
        entry.last_used = now;
        if closing {
            entry.state = State::Draining {
                bytes,
                n_leases: 0,
                failure: None,
            };
            out.push(Decision::Unload(model));
            return;
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
        if !matches!(entry.state, State::Fetching | State::Loading { .. }) {
            return;
        }
        entry.n_failures += 1;
        set_failed(model, entry, reason, now, out);
    }

    fn released(&mut self, model: ModelId, now: Instant, out: &mut Vec<Decision>) {
        let Some(entry) = self.entries.get_mut(&model) else {
            return;
        };
        entry.last_used = now;
        match &mut entry.state {
            State::Ready { n_leases, .. } => *n_leases = n_leases.saturating_sub(1),
            State::Draining {
                n_leases: n_leases @ 1..,
                ..
            } => {
                *n_leases -= 1;
                if *n_leases == 0 {
                    out.push(Decision::Unload(model));
                }
            }
            _ => {}
        }
    }

    /// Lets a ready model run out of leases; nobody new gets one.
    fn drain(
        &mut self,
        model: &ModelId,
        failure: Option<String>,
        now: Instant,
        out: &mut Vec<Decision>,
    ) {
        let Some(entry) = self.entries.get_mut(model) else {
            return;
        };
        let State::Ready {
            bytes,
            n_leases,
            since,
        } = entry.state
        else {
            return;
        };
        if failure.is_some() {
            let stable = now.saturating_duration_since(since) >= STABLE_AFTER;
            entry.n_failures = if stable { 1 } else { entry.n_failures + 1 };
        }
        entry.state = State::Draining {
            bytes,
            n_leases,
            failure,
        };
        if n_leases == 0 {
            out.push(Decision::Unload(model.clone()));
        }
    }

    fn unloaded(&mut self, model: ModelId, now: Instant, out: &mut Vec<Decision>) {
        let Some(entry) = self.entries.get_mut(&model) else {
            return;
        };
        let State::Draining {
            n_leases: 0,
            failure,
            ..
        } = &mut entry.state
        else {
            return;
        };
        if let Some(reason) = failure.take() {
            set_failed(&model, entry, reason, now, out);
        } else if entry.waiters.is_empty() {
            entry.state = State::Absent;
        } else {
            entry.state = State::Fetching;
            out.push(Decision::Prepare(model));
        }
    }

    fn shutdown(&mut self, now: Instant, out: &mut Vec<Decision>) {
        self.closing = true;
        let models: Vec<ModelId> = self.entries.keys().cloned().collect();
        for model in models {
            self.drain(&model, None, now, out);
            let Some(entry) = self.entries.get_mut(&model) else {
                continue;
            };
            refuse_all(&model, entry, &Refusal::ShuttingDown, out);
            if matches!(entry.state, State::Queued { .. }) {
                entry.state = State::Absent;
                out.push(Decision::Discard(model));
            }
        }
    }

    /// Gives memory to those who queue for it, first come first; evicts the least recently used idle
    /// models if, and only if, that makes room for the first in the queue.
    fn admit_queued(&mut self, now: Instant, out: &mut Vec<Decision>) {
        while let Some((model, ask)) = self.first_queued() {
            let free = self.budget.saturating_sub(self.held_bytes());
            if ask.least.fits(free) {
                let bytes = ask.wanted.min(free);
                if let Some(entry) = self.entries.get_mut(&model) {
                    entry.state = State::Loading { bytes };
                }
                out.push(Decision::Load(model, bytes));
                continue;
            }
            for idle in self.evict_for(ask.least.saturating_sub(free)) {
                self.drain(&idle, None, now, out);
            }
            return;
        }
    }

    fn first_queued(&self) -> Option<(ModelId, Ask)> {
        let queued = self
            .entries
            .iter()
            .filter_map(|(id, entry)| match entry.state {
                State::Queued { ask, ticket } => Some((ticket, id, ask)),
                _ => None,
            });
        queued
            .min_by_key(|(ticket, ..)| *ticket)
            .map(|(_, id, ask)| (id.clone(), ask))
    }

    /// Idle models to evict, least recently used first, so that what is `short` becomes free. Models
    /// that are leaving already count; empty when they suffice, or when nothing would.
    fn evict_for(&self, short: Bytes) -> Vec<ModelId> {
        let mut coming = Bytes::default();
        let mut idle = Vec::new();
        for (id, entry) in &self.entries {
            match entry.state {
                State::Draining { bytes, .. } => coming += bytes,
                State::Ready {
                    bytes, n_leases: 0, ..
                } => idle.push((entry.last_used, id, bytes)),
                _ => {}
            }
        }
        idle.sort_unstable();
        let mut evicted = Vec::new();
        for (_, id, bytes) in idle {
            // One that holds none of what is still short stays.
            if bytes.helps(short.saturating_sub(coming)) {
                coming += bytes;
                evicted.push(id.clone());
            }
        }
        if short.fits(coming) {
            evicted
        } else {
            Vec::new()
        }
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
mod tests;
#[cfg(test)]
mod walk;
