//! F5: which models are in memory. One actor decides (`plan`, pure) and acts; everybody else holds a
//! [`Pool`] handle and asks it for a [`Lease`].

pub mod error;
pub mod loader;
pub mod memory;
pub mod plan;
mod status;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_kernels::Team;
use tokio::sync::broadcast;

use crate::catalog::{Catalog, Store};
use crate::egress::ModelFetch;
use crate::engine::EngineOptions;

pub use error::PoolError;
pub use loader::Loaded;
pub use status::{LoadEvent, LoadStage, ModelId, ModelInfo, ModelState, ModelStatus};

/// What a pool needs to begin.
pub struct PoolOptions {
    /// Which models exist.
    pub catalog: Arc<Catalog>,
    /// Where their files lie.
    pub store: Arc<Store>,
    /// The permit to fetch files that are not here; `None` refuses to (offline).
    pub fetch_permit: Option<ModelFetch>,
    /// The threads all models share.
    pub team: Arc<Team>,
    /// Tokens of one sequence at most. `None`: the model's own, at most 8192.
    pub n_ctx: Option<u32>,
    /// Bytes all models together may hold. `None`: what this machine has free, less a reserve.
    pub memory_budget_bytes: Option<u64>,
    /// Bounds and chunk sizes of every engine.
    pub engine: EngineOptions,
}

/// The handle of the pool's actor. Cheap to clone; the actor ends after [`Pool::shutdown`] or with
/// the last handle.
#[derive(Clone)]
pub struct Pool {}

/// A model held in memory. Dropping it gives it back.
pub struct Lease {
    loaded: Arc<Loaded>,
}

impl Deref for Lease {
    type Target = Loaded;
    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl Pool {
    /// Starts the actor on the current tokio runtime.
    pub fn start(options: PoolOptions) -> Self {
        todo!()
    }

    /// Waits until `name` is in memory, loading it if need be, and holds it there.
    ///
    /// `name` is a catalogue id or alias, an installed model, or the stem of a file that was
    /// [registered](Self::register). A path is not a name: clients from afar choose names too.
    /// Dropping the future gives up the place in the queue and leaves the load going.
    ///
    /// Errors: [`PoolError`].
    pub async fn acquire(&self, name: &str, deadline: Option<Instant>) -> Result<Lease, PoolError> {
        todo!()
    }

    /// Makes the GGUF file at `path` known under its file stem.
    ///
    /// Errors: [`PoolError::BadPath`] when there is no such file, or its name is taken.
    pub fn register(&self, path: &Path) -> Result<ModelId, PoolError> {
        todo!()
    }

    /// Loads `name_or_path` and returns its id; a path is [registered](Self::register) first.
    ///
    /// Errors: [`PoolError`].
    pub async fn preload(&self, name_or_path: &str) -> Result<ModelId, PoolError> {
        todo!()
    }

    /// Takes `name` out of memory once nobody holds it. True when it was in memory.
    ///
    /// Errors: [`PoolError::UnknownModel`], [`PoolError::ShuttingDown`].
    pub async fn unload(&self, name: &str) -> Result<bool, PoolError> {
        todo!()
    }

    /// Every model the pool was asked for, by id.
    pub async fn status(&self) -> Vec<ModelStatus> {
        todo!()
    }

    /// Models that can be asked for without fetching: installed, served by path, in memory.
    pub async fn models(&self) -> Vec<ModelInfo> {
        todo!()
    }

    /// The steps of all loads from now on. A receiver that lags loses the oldest.
    pub fn load_events(&self) -> broadcast::Receiver<LoadEvent> {
        todo!()
    }

    /// Refuses new requests, waits for leases up to `bound`, then frees every model nobody holds.
    /// Returns the number of leases that were still out.
    pub async fn shutdown(&self, bound: Duration) -> u32 {
        todo!()
    }
}
