//! What the pool shows to others: ids, states, progress.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bytes::Bytes;
use super::memory::Needs;
use crate::engine::EngineSnapshot;
use crate::keep_alive::KeepAlive;

/// The one name a model is known by inside the program: a catalogue id, or the stem of a file
/// served by its path. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(Arc<str>);

impl ModelId {
    /// Wraps a name that is already canonical.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model there is, here or to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    /// The name to ask for it by.
    pub id: ModelId,
    /// What it may be called as well.
    pub aliases: Vec<String>,
    /// The first place it comes from; `None` for a file named by its path.
    pub source: Option<String>,
    /// Its file, if it is here: then it can be asked for without fetching anything.
    pub file: Option<ModelFile>,
}

/// The file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it lies; of a sharded model the first.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// A step of a load, in the usual order. Only fetching may come back to an earlier one, when a source
/// fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// A source is being asked for the file. Units: bytes.
    Fetching {
        /// The source that is tried.
        source: String,
        /// Bytes of the file that are here.
        done_bytes: u64,
        /// Size of the whole file, where the source says it.
        total_bytes: Option<u64>,
    },
    /// A source failed; the next one, if any, is tried.
    SourceFailed {
        /// The source that was tried.
        source: String,
        /// Why it failed.
        reason: String,
        /// The source that is tried next.
        next: Option<String>,
    },
    /// The fetched file's hash is being checked.
    Verifying,
    /// The file's header is read and its memory estimated.
    Opening,
    /// Memory is being made free, or held by models in use.
    WaitingForMemory,
    /// Weights are taken into use. Units: bytes.
    Weights {
        /// Bytes that are ready.
        done_bytes: u64,
        /// Bytes of all weights.
        total_bytes: u64,
    },
    /// A first short generation measures the rates.
    WarmingUp,
    /// The model answers.
    Ready,
    /// The load ended without a model.
    Failed {
        /// One sentence.
        reason: String,
    },
}

impl LoadStage {
    /// Whether nothing follows it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Ready | Self::Failed { .. })
    }

    /// The share of this stage that is done, in `0.0..=1.0`, where that is known.
    pub fn fraction(&self) -> Option<f64> {
        match self {
            Self::Fetching {
                done_bytes,
                total_bytes: Some(total),
                ..
            }
            | Self::Weights {
                done_bytes,
                total_bytes: total,
            } => Some(if *total == 0 {
                1.0
            } else {
                (*done_bytes as f64 / *total as f64).min(1.0)
            }),
            Self::Ready => Some(1.0),
            _ => None,
        }
    }
}

/// One step of one model's load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadEvent {
    /// The model that is being loaded.
    pub model: ModelId,
    /// What it came to.
    pub stage: LoadStage,
}

/// Where a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its file is fetched, verified or opened.
    Fetching,
    /// It is open and waits for memory that others hold.
    Queued,
    /// Its weights are loaded.
    Loading,
    /// It answers.
    Ready {
        /// Requests that hold it now.
        n_leases: u32,
    },
    /// It is leaving memory: those who hold it finish, nobody new begins.
    Draining {
        /// Requests that hold it still.
        n_leases: u32,
    },
    /// Its last load, or its engine, failed.
    Failed {
        /// One sentence.
        reason: String,
        /// Earlier than this it is not tried again.
        retry_in: Duration,
    },
}

/// One model the pool knows something about. Models never asked for are not listed.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// Which model.
    pub id: ModelId,
    /// Where it stands.
    pub state: ModelState,
    /// The load under way, or how the last one ended.
    pub load: Option<LoadStage>,
    /// What it holds of the memory budget.
    pub memory: Bytes,
    /// Time since it was last asked for, or given back.
    pub idle: Duration,
    /// How long it stays once nobody uses it.
    pub keep_alive: KeepAlive,
    /// When it leaves by itself, while nobody uses it.
    pub expires_in: Option<Duration>,
    /// Requests that wait for it.
    pub n_waiting: usize,
    /// While it is ready.
    pub ready: Option<ReadyStatus>,
}

/// A model in memory.
#[derive(Clone, Debug)]
pub struct ReadyStatus {
    /// Tokens of one sequence at most.
    pub n_ctx: u32,
    /// What it holds, by purpose.
    pub needs: Needs,
    /// What opening, loading and warming up took; fetching is not counted.
    pub load_time: Duration,
    /// The engine's counters.
    pub engine: EngineSnapshot,
}
