//! F5: which models are in memory. One actor decides (`plan`, pure) and acts; everybody else holds
//! a [`Pool`] handle and asks it for a [`Lease`].

mod actor;
mod bytes;
mod describe;
mod error;
mod gpu;
mod lease;
mod library;
mod loader;
pub mod memory;
mod names;
mod offered;
mod outlook;
pub mod plan;
mod report;
mod status;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_kernels::Team;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::catalog::{Catalog, Store};
use crate::egress::ModelFetch;
use crate::engine::EngineOptions;
use crate::keep_alive::KeepAlive;
use crate::model::{CachePages, KvType};

use actor::{Actor, Command};
use gpu::GpuPlace;
use loader::Loader;
use names::Names;

pub use bytes::Bytes;
pub use describe::{Description, FileDescription, Requirement, Shape};
pub use error::PoolError;
pub use gpu::{GpuOptions, GpuStatus};
pub use lease::Lease;
pub use loader::{ChatModel, EmbeddingModel, LoadError, Loaded, LoadedModel};
pub use memory::Needs;
pub use offered::{FileCheck, check_file};
pub use outlook::{ModelOutlook, Standing};
pub use plan::Wish;
pub use status::{
    LoadEvent, LoadStage, ModelEntry, ModelFile, ModelId, ModelState, ModelStatus, ReadyStatus,
};

/// Commands that wait for the actor; it answers each in microseconds.
const COMMANDS_MOST: usize = 256;
/// Load events a slow listener may fall behind.
const EVENTS_MOST: usize = 256;

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
    /// Tokens of one sequence at most. `None`: the catalogue's default for the model, or 8192; never
    /// more than the model was trained for.
    pub n_ctx: Option<u32>,
    /// The form of keys and values in every model's cache.
    pub kv_type: KvType,
    /// When memory for keys and values comes from the system.
    pub cache_pages: CachePages,
    /// Bytes all models together may hold. `None`: what this machine has free, less a reserve.
    pub memory_budget_bytes: Option<u64>,
    /// The GPU that models are put on; `None`: the processor computes everything.
    pub gpu: Option<GpuOptions>,
    /// How long an idle model stays in memory where nobody says so.
    pub keep_alive: KeepAlive,
    /// Whether a request for a model that is not in memory loads it.
    pub autoload: bool,
    /// Bounds and chunk sizes of every engine; its `n_ctx` is set for each model.
    pub engine: EngineOptions,
}

/// The handle of the pool's actor. Cheap to clone; the actor ends after [`Pool::shutdown`] or with
/// the last handle.
#[derive(Clone)]
pub struct Pool {
    commands: mpsc::Sender<Command>,
    bell: Arc<Notify>,
    events: broadcast::Sender<LoadEvent>,
    names: Arc<Names>,
    loader: Arc<Loader>,
    budget: Bytes,
    gpu: Option<Arc<GpuPlace>>,
    autoload: bool,
}

/// Wakes the actor when it is dropped.
struct RingOnDrop<'a>(&'a Notify);

impl Drop for RingOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Pool {
    /// Starts the actor on the current tokio runtime.
    pub fn start(mut options: PoolOptions) -> Self {
        let host = options.memory_budget_bytes.unwrap_or_else(|| {
            // A system that does not say what it has free is not limited here.
            memory::available_bytes().map_or(u64::MAX, memory::default_budget)
        });
        let gpu = options.gpu.take().map(GpuPlace::new).map(Arc::new);
        let device = gpu.as_ref().map_or(0, |gpu| gpu.budget_bytes());
        let budget = Bytes { host, device };
        tracing::info!(%budget, "memory for models");
        let names = Arc::new(Names::new(
            Arc::clone(&options.catalog),
            Arc::clone(&options.store),
        ));
        let (keep_alive, autoload) = (options.keep_alive, options.autoload);
        let loader = Arc::new(Loader::new(Arc::clone(&names), options, gpu.clone()));
        let (commands, inbox) = mpsc::channel(COMMANDS_MOST);
        let (events, _) = broadcast::channel(EVENTS_MOST);
        let bell = Arc::new(Notify::new());
        let plan = plan::Plan::new(budget, keep_alive);
        let actor = Actor::new(
            plan,
            Arc::clone(&loader),
            inbox,
            Arc::clone(&bell),
            events.clone(),
        );
        tokio::spawn(actor.run());
        Self {
            commands,
            bell,
            events,
            names,
            loader,
            budget,
            gpu,
            autoload,
        }
    }

    /// Waits until `name` is in memory, loading it where the pool does that by itself, and holds it there.
    ///
    /// # Errors
    /// [`PoolError`]; see [`acquire_with`](Self::acquire_with).
    pub async fn acquire(&self, name: &str, deadline: Option<Instant>) -> Result<Lease, PoolError> {
        self.acquire_with(name, self.wish(), deadline).await
    }

    /// What a request wishes that says nothing.
    pub fn wish(&self) -> Wish {
        Wish {
            keep_alive: None,
            may_load: self.autoload,
        }
    }

    /// Waits until `name` is in memory, loading it if need be and wished, and holds it there.
    ///
    /// `name` is a catalogue id or alias, or the stem of a file that was
    /// [registered](Self::register). A path is not a name: clients from afar choose names too.
    /// Dropping the future gives up the place in the queue and leaves the load going.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn acquire_with(
        &self,
        name: &str,
        wish: Wish,
        deadline: Option<Instant>,
    ) -> Result<Lease, PoolError> {
        let model = self.names.canonical(name)?;
        // Dropped after the receiver, so that the actor, once woken, sees that it is gone.
        let _ring = RingOnDrop(&self.bell);
        let (reply, answer) = oneshot::channel();
        let acquire = Command::Acquire {
            model: model.clone(),
            wish,
            reply,
        };
        let wait = async {
            self.commands
                .send(acquire)
                .await
                .map_err(|_| PoolError::ShuttingDown)?;
            answer.await.unwrap_or(Err(PoolError::ShuttingDown))
        };
        match deadline {
            None => wait.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), wait)
                .await
                .unwrap_or(Err(PoolError::DeadlinePassed { model })),
        }
    }

    /// Makes the GGUF file at `path` (of a sharded model: the first) known under its file stem, or the
    /// folder with a `config.json` under its name. A catalogue model of that name is hidden by it.
    ///
    /// # Errors
    /// [`PoolError::BadPath`] when there is no such file, or another one has that stem.
    pub fn register(&self, path: &Path) -> Result<ModelId, PoolError> {
        self.names.register(path)
    }

    /// The id of `name_or_path`; a path is [registered](Self::register) first. What ends in `.gguf`
    /// or is not a known name but a file that exists is a path.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`], [`PoolError::BadPath`].
    pub fn resolve(&self, name_or_path: &str) -> Result<ModelId, PoolError> {
        self.names.resolve(name_or_path)
    }

    /// The id behind a catalogue id, an alias or the stem of a registered file.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`].
    pub fn canonical(&self, name: &str) -> Result<ModelId, PoolError> {
        self.names.canonical(name)
    }

    /// Loads `name_or_path`, as [`resolve`](Self::resolve) understands it, and returns its id.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn preload(&self, name_or_path: &str) -> Result<ModelId, PoolError> {
        let model = self.resolve(name_or_path)?;
        let lease = self.acquire_with(model.as_str(), Wish::default(), None);
        Ok(lease.await?.id.clone())
    }

    /// Sets how long `name` stays in memory once nobody uses it. True when it is in memory, or on its way
    /// there: of others nothing is remembered.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`], [`PoolError::ShuttingDown`].
    pub async fn keep(&self, name: &str, keep_alive: KeepAlive) -> Result<bool, PoolError> {
        let model = self.names.canonical(name)?;
        let keep = |reply| Command::Keep {
            model,
            keep_alive,
            reply,
        };
        self.ask(keep).await.ok_or(PoolError::ShuttingDown)
    }

    /// Takes `name` out of memory once nobody holds it, and waits for that; a load under way is called off,
    /// a failed one forgotten. False when there was nothing of that.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`], [`PoolError::ShuttingDown`].
    pub async fn unload(&self, name: &str) -> Result<bool, PoolError> {
        let model = self.names.canonical(name)?;
        self.ask(|reply| Command::Unload { model, reply })
            .await
            .ok_or(PoolError::ShuttingDown)
    }

    /// Every model the pool holds, loads or has failed to load, by id.
    pub async fn status(&self) -> Vec<ModelStatus> {
        self.ask(|reply| Command::Status { reply })
            .await
            .unwrap_or_default()
    }

    /// What is foreseen of `name` for whoever would ask it something now. Loads nothing, and is no use of it.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`], [`PoolError::ShuttingDown`].
    pub async fn outlook(&self, name: &str) -> Result<ModelOutlook, PoolError> {
        let model = self.names.canonical(name)?;
        let of = |model: ModelId, file_bytes| {
            self.ask(move |reply| Command::Outlook {
                model,
                file_bytes,
                reply,
            })
        };
        let outlook = of(model.clone(), None).await;
        let outlook = outlook.ok_or(PoolError::ShuttingDown)?;
        if outlook.standing != Standing::Absent || outlook.load.is_some() {
            return Ok(outlook);
        }
        // It was never loaded: the size of its file says something of it, if it is here.
        let names = Arc::clone(&self.names);
        let file = model.clone();
        let file_bytes = tokio::task::spawn_blocking(move || names.file_bytes(&file)).await;
        let outlook = of(model, file_bytes.ok().flatten()).await;
        outlook.ok_or(PoolError::ShuttingDown)
    }

    /// What all models together may hold.
    pub fn budget(&self) -> Bytes {
        self.budget
    }

    /// How the GPU does; `None` where the processor computes everything.
    pub fn gpu(&self) -> Option<GpuStatus> {
        self.gpu.as_ref().map(|gpu| gpu.status())
    }

    /// The steps of all loads from now on. A receiver that lags loses the oldest.
    pub fn load_events(&self) -> broadcast::Receiver<LoadEvent> {
        self.events.subscribe()
    }

    /// Refuses new requests, waits for leases up to `bound`, then lets go of every model; those
    /// still held live until their lease is dropped. Returns the number of leases still out.
    pub async fn shutdown(&self, bound: Duration) -> u32 {
        self.ask(|reply| Command::Shutdown { bound, reply })
            .await
            .unwrap_or(0)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
