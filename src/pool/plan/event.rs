//! What happens to the pool, and what it decides to do.

use std::time::Duration;

use crate::keep_alive::KeepAlive;
use crate::pool::bytes::Bytes;
use crate::pool::status::ModelId;

/// One who waits for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// What a prepared model asks of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Below this it cannot run.
    pub least: Bytes,
    /// With this it runs as configured.
    pub wanted: Bytes,
}

/// What whoever asks for a model says beside its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How long it shall stay once nobody uses it; `None` leaves that as it is.
    pub keep_alive: Option<KeepAlive>,
    /// Whether it may be loaded for this.
    pub may_load: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            keep_alive: None,
            may_load: true,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to use a model.
    Acquire {
        /// Who.
        waiter: WaiterId,
        /// Which.
        model: ModelId,
        /// How.
        wish: Wish,
    },
    /// A waiter left without an answer.
    Cancelled(WaiterId),
    /// A model's file is here and open, and its memory is estimated.
    Prepared(ModelId, Ask),
    /// A model is in memory and holds so many bytes.
    Loaded(ModelId, Bytes),
    /// Preparing or loading failed, for the reason given.
    LoadFailed(ModelId, String),
    /// A lease was given back.
    Released(ModelId),
    /// A ready model's engine stopped by itself, for the reason given.
    EngineFailed(ModelId, String),
    /// Somebody wants a model out of memory, or its load called off, or its failure forgotten.
    Unload(ModelId),
    /// A model shall stay so long once nobody uses it.
    Keep(ModelId, KeepAlive),
    /// Time went by; due at [`Plan::next_expiry`](super::Plan::next_expiry).
    Tick,
    /// A model's memory is free again.
    Unloaded(ModelId),
    /// No more leases.
    Shutdown,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Fetch, open and measure.
    Prepare(ModelId),
    /// Load what was prepared, within so many bytes.
    Load(ModelId, Bytes),
    /// End what is under way for it, the sooner the better; its end is told as that of any.
    Cancel(ModelId),
    /// Drop what was prepared.
    Discard(ModelId),
    /// Give the waiter a lease.
    Serve(WaiterId, ModelId),
    /// Tell the waiter no.
    Refuse(WaiterId, ModelId, Refusal),
    /// Free the model's memory; nobody holds it.
    Unload(ModelId),
}

/// Why a waiter got no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not fit even alone.
    NotEnoughMemory {
        /// What it needs at least.
        least: Bytes,
        /// What all models together may hold.
        budget: Bytes,
    },
    /// It does not fit beside models that are pinned.
    PinnedInTheWay {
        /// What it needs at least.
        least: Bytes,
        /// What they leave of the budget.
        free: Bytes,
        /// Which they are.
        pinned: Vec<ModelId>,
    },
    /// It is not in memory, and was not to be loaded for this.
    NotLoaded,
    /// Somebody called the load off.
    Cancelled,
    /// The last load, or the engine, failed.
    Failed {
        /// Why.
        reason: String,
        /// It is not tried again earlier.
        retry_in: Duration,
    },
    /// The pool is closing.
    ShuttingDown,
}
