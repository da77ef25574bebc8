//! The right to use a model that is in memory.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::loader::Loaded;

/// A model held in memory. Dropping it gives it back; the pool takes no model out of memory while a
/// lease on it is out.
pub struct Lease {
    // Fields drop in this order: when the actor counts the lease as given back, it no longer keeps
    // the model alive.
    loaded: Arc<Loaded>,
    _ticket: Ticket,
}

impl Lease {
    pub(super) fn new(loaded: Arc<Loaded>, ticket: Ticket) -> Self {
        Self {
            loaded,
            _ticket: ticket,
        }
    }
}

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

/// Tells the actor when it is dropped: without waiting, from any thread, never lost.
pub(super) struct Ticket {
    n_released: Arc<AtomicU32>,
    bell: Arc<Notify>,
}

impl Ticket {
    pub(super) fn new(n_released: Arc<AtomicU32>, bell: Arc<Notify>) -> Self {
        Self { n_released, bell }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Release: what was done under the lease happens before the actor frees the model.
        self.n_released.fetch_add(1, Ordering::Release);
        self.bell.notify_one();
    }
}
