//! Who gets memory, and who leaves for it.

use std::time::Instant;

use crate::pool::bytes::Bytes;
use crate::pool::status::ModelId;

use super::entry::State;
use super::event::{Ask, Decision, Refusal};
use super::{Plan, refuse_all};

impl Plan {
    /// Gives memory to those who queue for it, first come first; evicts the least recently used idle
    /// models if, and only if, that makes room for the first in the queue.
    pub(super) fn admit_queued(&mut self, now: Instant, out: &mut Vec<Decision>) {
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
            if self.refuse_beside_pinned(&model, ask, out) {
                continue;
            }
            for idle in self.evict_for(ask.least.saturating_sub(free)) {
                self.drain(&idle, None, now, out);
            }
            return;
        }
    }

    /// Refuses one for which pinned models leave no room: they leave for nobody, so it would wait for ever.
    fn refuse_beside_pinned(&mut self, model: &ModelId, ask: Ask, out: &mut Vec<Decision>) -> bool {
        let is_pinned = self.entries.iter().filter(|(_, entry)| entry.is_pinned());
        let (mut pinned, mut held) = (Vec::new(), Bytes::default());
        for (id, entry) in is_pinned {
            held += entry.held_bytes();
            pinned.push(id.clone());
        }
        let free = self.budget.saturating_sub(held);
        if ask.least.fits(free) {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(model) {
            let refusal = Refusal::PinnedInTheWay {
                least: ask.least,
                free,
                pinned,
            };
            refuse_all(model, entry, &refusal, out);
            entry.state = State::Absent;
        }
        out.push(Decision::Discard(model.clone()));
        true
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

    /// Idle models to evict, least recently used first, so that what is `short` becomes free; none that
    /// those used later make needless. Models that are leaving already count; empty when they suffice, or
    /// when nothing would.
    fn evict_for(&self, short: Bytes) -> Vec<ModelId> {
        let mut coming = Bytes::default();
        let mut idle = Vec::new();
        for (id, entry) in &self.entries {
            match entry.state {
                State::Draining { bytes, .. } | State::Cancelling { bytes } => coming += bytes,
                State::Ready {
                    bytes, n_leases: 0, ..
                } if !entry.is_pinned() => idle.push((entry.last_used, id, bytes)),
                _ => {}
            }
        }
        idle.sort_unstable();
        let mut evicted = Vec::new();
        for (_, id, bytes) in idle {
            // One that holds none of what is still short stays.
            if bytes.helps(short.saturating_sub(coming)) {
                coming += bytes;
                evicted.push((id.clone(), bytes));
            }
        }
        if !short.fits(coming) {
            return Vec::new();
        }
        // A small one was taken first that is not missed beside a large one taken last.
        evicted.retain(|(_, bytes)| {
            let without = coming.saturating_sub(*bytes);
            let is_needless = short.fits(without);
            if is_needless {
                coming = without;
            }
            !is_needless
        });
        evicted.into_iter().map(|(id, _)| id).collect()
    }
}
