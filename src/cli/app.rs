//! The parts of the program, put together from a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use ingle_kernels::team::default_threads;
use ingle_kernels::{Isa, Team};

use super::fetch_bar::FetchBar;
use super::gpu::Choice;
use crate::backend::local::LocalBackend;
use crate::catalog::{CaFile, Catalog, HttpOptions, HubOptions, Store, StoreOptions};
use crate::config::{self, Config};
use crate::egress::Egress;
use crate::engine::EngineOptions;
use crate::model::{BY_CANDLE, CachePages, KvType};
use crate::pool::{GpuOptions, Pool, PoolOptions};

/// Prompt tokens of one step where layers lie on a GPU, which fewer do not fill.
const GPU_PREFILL_CHUNK_TOKENS: usize = 512;

/// Everything that answers.
pub(super) struct App {
    pub(super) backend: LocalBackend,
    /// Why no GPU is used although one was looked for.
    pub(super) gpu_not_used: Option<String>,
    /// What computes, as `system_fingerprint` says it.
    pub(super) fingerprint: String,
}

/// The catalogue and the store of `config`.
pub(super) fn library(config: &Config) -> anyhow::Result<(Arc<Catalog>, Arc<Store>)> {
    let catalog = Catalog::load_with(Some(&config.home), config.models.as_deref())?;
    let options = StoreOptions {
        hub: HubOptions::from_variables(config::variable),
        http: http_options(config),
        model_folders: config.model_folders.clone(),
        ..StoreOptions::default()
    };
    let store = Store::with_options(&config.home, options)?;
    Ok((Arc::new(catalog), Arc::new(store)))
}

/// How files come over HTTP.
pub(super) fn http_options(config: &Config) -> HttpOptions {
    let mut options = HttpOptions::from_variables(config::variable);
    options.connections = config.pull_connections;
    if let Some(path) = &config.ca_file {
        options.ca_file = Some(CaFile {
            named_by: "ca_file (INGLE_CA_FILE)".to_owned(),
            path: path.clone(),
        });
    }
    options
}

/// The threads that compute, and by which instructions.
pub(super) fn team(config: &Config) -> anyhow::Result<(Arc<Team>, Isa)> {
    let isa = match &config.isa {
        Some(name) => Isa::named(name)?,
        None => Isa::detect(),
    };
    if config.isa.is_none() && isa == Isa::Scalar {
        let instead = if BY_CANDLE {
            "candle multiplies, with more memory and bits that may depend on the batch"
        } else {
            "plain Rust computes, many times slower"
        };
        tracing::warn!("Ingle has no vector kernels for this processor: {instead}");
    }
    let n_threads = config.threads.unwrap_or_else(default_threads);
    Ok((Team::new(n_threads, isa), isa))
}

/// The file behind a path or a name of the catalogue; one that is not here is fetched.
pub(super) async fn model_file(model: &str, config: &Config) -> anyhow::Result<PathBuf> {
    let (catalog, store) = library(config)?;
    let path = PathBuf::from(model);
    let is_gguf = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if is_gguf {
        return Ok(path);
    }
    if let Some(model) = store.local(model)? {
        model.facts()?;
        return Ok(model.path);
    }
    let manifest = match catalog.find(model) {
        Err(_) if path.is_file() => return Ok(path),
        found => found?,
    };
    if let Some(path) = store.installed(manifest) {
        return Ok(path);
    }
    let permit = Egress::new(config.offline).model_fetch()?;
    Ok(store.fetch(manifest, &permit, &FetchBar::stderr()).await?)
}

impl App {
    /// Starts the threads and the pool; nothing is loaded yet.
    pub(super) fn start(config: &Config, gpu: Option<Choice>) -> anyhow::Result<Self> {
        let (catalog, store) = library(config)?;
        let (team, isa) = team(config)?;
        tracing::info!(isa = isa.name(), threads = team.n_threads(), "computing");
        let kv_type = kv_type(config);
        let (gpu, gpu_not_used) = match gpu {
            None => (None, None),
            Some(Choice::NotUsed(reason)) => (None, Some(reason)),
            Some(Choice::Used(gpu)) => {
                tracing::info!(gpu = gpu.ordinal, name = gpu.name, "models go to a GPU");
                let options = GpuOptions {
                    gpu,
                    n_layers: config.gpu_layers,
                    memory_budget_bytes: config.gpu_memory_bytes.map(Into::into),
                    is_deterministic: config.deterministic,
                };
                (Some(options), None)
            }
        };
        let on = Computing {
            isa,
            kv_type,
            gpu: gpu.as_ref().map(|options| options.gpu.backend()),
            is_deterministic: config.deterministic,
        };
        let pool = Pool::start(PoolOptions {
            catalog,
            store,
            fetch_permit: Egress::new(config.offline).model_fetch().ok(),
            team,
            n_ctx: config.ctx.map(Into::into),
            kv_type,
            cache_pages: if config.preallocate {
                CachePages::AtOnce
            } else {
                CachePages::AsWritten
            },
            memory_budget_bytes: config.memory_bytes.map(Into::into),
            gpu,
            keep_alive: config.keep_alive.unwrap_or_default(),
            autoload: config.autoload,
            engine: engine_options(config, on.gpu.is_some()),
        });
        Ok(Self {
            backend: LocalBackend::new(pool),
            gpu_not_used,
            fingerprint: on.fingerprint(),
        })
    }
}

/// The bounds of every engine.
fn engine_options(config: &Config, is_on_gpu: bool) -> EngineOptions {
    let defaults = EngineOptions::default();
    EngineOptions {
        max_running: config.max_running.get(),
        max_waiting: config.max_waiting,
        prefill_chunk_tokens: if is_on_gpu {
            GPU_PREFILL_CHUNK_TOKENS
        } else {
            defaults.prefill_chunk_tokens
        },
        ..defaults
    }
}

/// The form of keys and values, as the network knows it.
pub(super) fn kv_type(config: &Config) -> KvType {
    match config.kv_type {
        config::KvType::F16 => KvType::F16,
        config::KvType::Int8 => KvType::Int8,
    }
}

/// What an answer's bits depend on beside the model.
struct Computing {
    isa: Isa,
    kv_type: KvType,
    /// What stands behind the GPU that models go to.
    gpu: Option<&'static str>,
    is_deterministic: bool,
}

impl Computing {
    /// The version, the instructions, the cache's form, and what multiplies where.
    fn fingerprint(&self) -> String {
        let (version, isa) = (env!("CARGO_PKG_VERSION"), self.isa.name());
        let products = if BY_CANDLE { "-candle" } else { "" };
        let gpu = match (self.gpu, self.is_deterministic) {
            (None, _) => String::new(),
            (Some(backend), false) => format!("-{backend}"),
            (Some(backend), true) => format!("-{backend}-deterministic"),
        };
        let kv = match self.kv_type {
            KvType::F16 => "",
            KvType::Int8 => "-kv-int8",
        };
        format!("ingle-{version}-{isa}{products}{gpu}{kv}")
    }
}
