//! What the plan knows of one model.

use std::collections::VecDeque;
use std::time::Instant;

use crate::keep_alive::KeepAlive;
use crate::pool::bytes::Bytes;

use super::event::{Ask, WaiterId};

/// Where a model stands. Bytes count against the budget from `Loading` until `Unloaded`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Fetching,
    Queued {
        ask: Ask,
        ticket: u64,
    },
    Loading {
        bytes: Bytes,
    },
    /// Its fetch or load was called off, and has not ended yet.
    Cancelling {
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
pub(super) struct Entry {
    pub(super) state: State,
    /// First come, first served.
    pub(super) waiters: VecDeque<WaiterId>,
    pub(super) last_used: Instant,
    /// How long it stays once nobody uses it: what the last one who said so wanted.
    pub(super) keep_alive: KeepAlive,
    /// Failures in a row.
    pub(super) n_failures: u32,
}

impl Entry {
    pub(super) fn new(now: Instant, keep_alive: KeepAlive) -> Self {
        Self {
            state: State::Absent,
            waiters: VecDeque::new(),
            last_used: now,
            keep_alive,
            n_failures: 0,
        }
    }

    pub(super) fn held_bytes(&self) -> Bytes {
        match self.state {
            State::Loading { bytes }
            | State::Cancelling { bytes }
            | State::Ready { bytes, .. }
            | State::Draining { bytes, .. } => bytes,
            State::Absent | State::Fetching | State::Queued { .. } | State::Failed { .. } => {
                Bytes::default()
            }
        }
    }

    /// Whether it is in memory, or on its way, to stay there whatever others need.
    pub(super) fn is_pinned(&self) -> bool {
        let stays = matches!(self.state, State::Loading { .. } | State::Ready { .. });
        stays && self.keep_alive == KeepAlive::Pinned
    }

    /// When it leaves by itself, if nobody uses it until then.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        match (&self.state, self.keep_alive) {
            (State::Ready { n_leases: 0, .. }, KeepAlive::For(time)) => {
                // Longer than a clock can say is for ever.
                self.last_used.checked_add(time)
            }
            _ => None,
        }
    }
}
