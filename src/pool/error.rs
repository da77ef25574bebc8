//! Why a model could not be had.

use std::path::PathBuf;
use std::time::Duration;

use super::ModelId;

/// Why [`Pool::acquire`](super::Pool::acquire) gave no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No catalogue entry, installed model or served file has this name.
    #[error("{hint}")]
    UnknownModel {
        /// The name as it was asked for.
        name: String,
        /// One sentence that names the closest names there are.
        hint: String,
    },
    /// A path that cannot be served.
    #[error("{}: {reason}", path.display())]
    BadPath {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model cannot fit, even with nothing else loaded.
    #[error(
        "{model} needs {} ({} for weights, {} for the KV cache of one context of {n_ctx} tokens, \
         {} of workspace), and the budget for models is {budget}: choose a smaller context or model",
        needed.total(), needed.weights, needed.kv, needed.workspace
    )]
    NotEnoughMemory {
        /// The model asked for.
        model: ModelId,
        /// What it needs at least.
        needed: super::memory::Needs,
        /// The context that was counted with.
        n_ctx: u32,
        /// What all models together may hold.
        budget: super::Bytes,
    },
    /// The model does not fit beside those that are pinned.
    #[error(
        "{model} needs {needed}, and {} leave {free} of the budget for models: unload or unpin one of them",
        pinned_names(pinned)
    )]
    PinnedInTheWay {
        /// The model asked for.
        model: ModelId,
        /// What it needs at least.
        needed: super::Bytes,
        /// What pinned models leave of the budget.
        free: super::Bytes,
        /// Which they are.
        pinned: Vec<ModelId>,
    },
    /// The model is not in memory, and requests do not load any here.
    #[error("{model} is not loaded, and this server loads no model by itself: load it first")]
    NotLoaded {
        /// The model asked for.
        model: ModelId,
    },
    /// Somebody called the load off.
    #[error("the load of {model} was called off: ask again")]
    Cancelled {
        /// The model asked for.
        model: ModelId,
    },
    /// No source gave the file, or none may be asked.
    #[error("{model} was not fetched: {reason}")]
    Fetch {
        /// The model asked for.
        model: ModelId,
        /// One sentence.
        reason: String,
    },
    /// The file of a model cannot be described, or removed.
    #[error("{model}: {reason}")]
    File {
        /// The model asked for.
        model: ModelId,
        /// One sentence.
        reason: String,
    },
    /// The load ended without a model.
    #[error("{model} could not be loaded: {reason}")]
    LoadFailed {
        /// The model asked for.
        model: ModelId,
        /// One sentence.
        reason: String,
        /// It is not tried again earlier than this.
        retry_in: Duration,
    },
    /// The deadline passed first; the load goes on.
    #[error("{model} was not in memory by the deadline; it is still loading")]
    DeadlinePassed {
        /// The model asked for.
        model: ModelId,
    },
    /// The pool is closing.
    #[error("shutting down")]
    ShuttingDown,
}

fn pinned_names(pinned: &[ModelId]) -> String {
    let names: Vec<String> = pinned.iter().map(|id| format!("{id} (pinned)")).collect();
    names.join(" and ")
}

/// Bytes as a person reads them, with one decimal: `4.7 GB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_a_person_counts() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_661_211_808, "4.7 GB"),
            (123_456_000_000_000, "123456.0 GB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }
}
