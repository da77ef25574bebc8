//! How models leave: leases run out, time runs out, somebody wants them out, the pool closes.

use std::time::Instant;

use crate::keep_alive::KeepAlive;
use crate::pool::bytes::Bytes;
use crate::pool::status::ModelId;

use super::entry::{Entry, State};
use super::event::{Decision, Refusal};
use super::{Plan, STABLE_AFTER, refuse_all, set_failed};

impl Plan {
    /// When [`Event::Tick`](super::Event::Tick) is due: the next idle model's time is up then.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.entries.values().filter_map(Entry::expires_at).min()
    }

    /// Lets models go whose time is up.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Decision>) {
        let is_due = |entry: &Entry| entry.expires_at().is_some_and(|at| at <= now);
        let due = self.entries.iter().filter(|(_, entry)| is_due(entry));
        let due: Vec<ModelId> = due.map(|(id, _)| id.clone()).collect();
        for model in due {
            self.drain(&model, None, now, out);
        }
    }

    pub(super) fn keep(&mut self, model: &ModelId, keep_alive: KeepAlive) {
        if let Some(entry) = self.entries.get_mut(model) {
            entry.keep_alive = keep_alive;
        }
    }

    pub(super) fn released(&mut self, model: ModelId, now: Instant, out: &mut Vec<Decision>) {
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

    /// Whoever waits for a load that is called off is told so; a failure is forgotten.
    pub(super) fn unload(&mut self, model: &ModelId, now: Instant, out: &mut Vec<Decision>) {
        let Some(entry) = self.entries.get_mut(model) else {
            return;
        };
        match entry.state {
            State::Fetching | State::Loading { .. } => {
                refuse_all(model, entry, &Refusal::Cancelled, out);
                let bytes = entry.held_bytes();
                entry.state = State::Cancelling { bytes };
                out.push(Decision::Cancel(model.clone()));
            }
            State::Queued { .. } => {
                refuse_all(model, entry, &Refusal::Cancelled, out);
                entry.state = State::Absent;
                out.push(Decision::Discard(model.clone()));
            }
            State::Failed { .. } => {
                entry.state = State::Absent;
                entry.n_failures = 0;
            }
            State::Ready { .. } => self.drain(model, None, now, out),
            State::Absent | State::Cancelling { .. } | State::Draining { .. } => {}
        }
    }

    /// Lets a ready model run out of leases; nobody new gets one.
    pub(super) fn drain(
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

    pub(super) fn unloaded(&mut self, model: ModelId, now: Instant, out: &mut Vec<Decision>) {
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
        } else {
            restart(model, entry, out);
        }
    }

    pub(super) fn shutdown(&mut self, now: Instant, out: &mut Vec<Decision>) {
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
}

/// A model that has left is loaded again where somebody came for it meanwhile.
pub(super) fn restart(model: ModelId, entry: &mut Entry, out: &mut Vec<Decision>) {
    if entry.waiters.is_empty() {
        entry.state = State::Absent;
    } else {
        entry.state = State::Fetching;
        out.push(Decision::Prepare(model));
    }
}

/// A load that was called off ended in memory all the same: it leaves at once.
pub(super) fn leave_at_once(
    model: ModelId,
    entry: &mut Entry,
    bytes: Bytes,
    out: &mut Vec<Decision>,
) {
    entry.state = State::Draining {
        bytes,
        n_leases: 0,
        failure: None,
    };
    out.push(Decision::Unload(model));
}
