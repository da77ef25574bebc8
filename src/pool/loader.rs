//! From a name to a running engine, in two halves: [`Loader::prepare`] fetches, opens and measures;
//! [`Loader::load`] takes the memory the plan granted. Neither knows what else is in memory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_kernels::Team;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, LocalModel, Manifest, Origin, Progress};
use crate::chat::Sampling;
use crate::egress::ModelFetch;
use crate::engine::{self, Engine, EngineOptions, GenerateRequest};
use crate::gguf::{self, Gguf};
use crate::model::{
    self, BLOCK_LEN, CachePages, KvType, Limits, Memory, Model, ModelConfig, Placement,
};
use crate::text::{self, Text, TextOptions};

use super::PoolOptions;
use super::bytes::Bytes;
use super::error::PoolError;
use super::gpu::GpuPlace;
use super::memory::{CONTEXTS_WANTED, Needs, Size, block_counts, blocks_within};
use super::names::{Names, Target};
use super::plan::Ask;
use super::report::{FetchProgress, Reporter};
use super::status::{LoadStage, ModelId};

/// Tokens of one sequence at most, unless the configuration or the catalogue says otherwise.
const N_CTX_DEFAULT: u32 = 8192;
/// Tokens of the prompt, and of the answer, that measure the rates.
const WARM_UP_PROMPT_TOKENS: u32 = 32;
const WARM_UP_NEW_TOKENS: u32 = 4;

/// A model in memory: everything a request needs of it.
pub struct Loaded {
    /// Its name.
    pub id: ModelId,
    /// Token ids in, token ids out.
    pub engine: Engine,
    /// Text to token ids and back.
    pub text: Text,
    /// Its shape.
    pub config: ModelConfig,
    /// Tokens of one sequence at most.
    pub n_ctx: u32,
    /// What it holds.
    pub memory: Needs,
    /// What opening, loading and warming up took; fetching is not counted.
    pub load_time: Duration,
}

/// Why a load ended without a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not here and nothing may be fetched.
    #[error("its file is not here, and nothing is fetched in offline mode")]
    Offline,
    /// No source gave the file.
    #[error(transparent)]
    Fetch(#[from] catalog::Error),
    /// The file is no sound GGUF file.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// The network is of a kind, or holds numbers, that cannot be computed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The file's vocabulary or chat template cannot be used.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The engine could not do a first short generation.
    #[error("warming up: {0}")]
    WarmUp(String),
    /// The file in a folder, or the imported one, cannot be used now.
    #[error("{0}")]
    NotOffered(String),
    /// The name stands for nothing any more.
    #[error(transparent)]
    Name(#[from] PoolError),
    /// A bug: the loading code panicked.
    #[error("loading panicked, which is a bug: {0}")]
    Panicked(String),
    /// The program is ending.
    #[error("the load was given up")]
    Abandoned,
}

/// A file that is open and measured, waiting for memory.
pub(super) struct Prepared {
    id: ModelId,
    gguf: Gguf,
    config: ModelConfig,
    text: TextOptions,
    /// Tokens of one sequence at most.
    pub(super) n_ctx: u32,
    /// How many of its last layers go to the GPU.
    n_device_layers: usize,
    /// The least it runs with: blocks for one context.
    pub(super) least: Size,
    wanted: Size,
    opening_took: Duration,
}

impl Prepared {
    /// What it asks of the budget.
    pub(super) fn ask(&self) -> Ask {
        Ask {
            least: self.least.needs.total(),
            wanted: self.wanted.needs.total(),
        }
    }
}

/// Who looks on while a model is loaded.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    /// Hears where it stands.
    pub(super) reporter: &'a Reporter,
    /// Calls it off.
    pub(super) stop: &'a CancellationToken,
}

/// Loads models; shared by all loads.
pub(super) struct Loader {
    names: Arc<Names>,
    fetch_permit: Option<ModelFetch>,
    team: Arc<Team>,
    n_ctx: Option<u32>,
    kv_type: KvType,
    cache_pages: CachePages,
    engine: EngineOptions,
    gpu: Option<Arc<GpuPlace>>,
}

impl Loader {
    pub(super) fn new(names: Arc<Names>, options: PoolOptions, gpu: Option<Arc<GpuPlace>>) -> Self {
        let PoolOptions {
            fetch_permit,
            team,
            n_ctx,
            kv_type,
            cache_pages,
            engine,
            ..
        } = options;
        Self {
            names,
            fetch_permit,
            team,
            n_ctx,
            kv_type,
            cache_pages,
            engine,
            gpu,
        }
    }

    /// Fetches the model's file unless it is here, opens it and estimates its memory.
    pub(super) async fn prepare(
        self: Arc<Self>,
        id: ModelId,
        reporter: Arc<Reporter>,
    ) -> Result<Box<Prepared>, LoadError> {
        let (path, text, n_ctx_default) = match self.names.target(&id)? {
            Target::File(path) => (path, TextOptions::default(), None),
            Target::Local(model) => {
                self.names.check(&model).map_err(LoadError::NotOffered)?;
                let text = self.text_of_local(&model);
                (model.path, text, None)
            }
            Target::Catalog(manifest) => {
                let path = self.fetch(&manifest, &reporter).await?;
                (path, text_options(&manifest), manifest.context_default)
            }
        };
        reporter.tell(LoadStage::Opening);
        let open = move || self.open(id, &path, text, n_ctx_default).map(Box::new);
        tokio::task::spawn_blocking(open)
            .await
            .unwrap_or_else(|error| Err(panicked(error)))
    }

    /// What the catalogue knows better than the file of a model that is used where it lies: a chat
    /// template, where the file has none.
    fn text_of_local(&self, model: &LocalModel) -> TextOptions {
        let template_of = match &model.origin {
            Origin::Import(import) => import.template_of.as_deref(),
            Origin::Folder(_) => None,
        };
        let manifest = template_of.and_then(|id| self.names.manifest(id));
        manifest.map(text_options).unwrap_or_default()
    }

    async fn fetch(
        &self,
        manifest: &Manifest,
        reporter: &Arc<Reporter>,
    ) -> Result<PathBuf, LoadError> {
        let progress = FetchProgress::new(|stage| reporter.tell(stage));
        self.fetch_file(manifest, &progress).await
    }

    /// The model's file, fetched unless it is here.
    pub(super) async fn fetch_file(
        &self,
        manifest: &Manifest,
        progress: &dyn Progress,
    ) -> Result<PathBuf, LoadError> {
        let store = self.names.store();
        if let Some(path) = store.installed(manifest) {
            return Ok(path);
        }
        let permit = self.fetch_permit.as_ref().ok_or(LoadError::Offline)?;
        Ok(store.fetch(manifest, permit, progress).await?)
    }

    fn open(
        &self,
        id: ModelId,
        path: &Path,
        text: TextOptions,
        n_ctx_default: Option<u32>,
    ) -> Result<Prepared, LoadError> {
        let begun = Instant::now();
        let gguf = Gguf::open(path)?;
        let config = ModelConfig::from_gguf(&gguf)?;
        let n_ctx = self.n_ctx(&config, n_ctx_default);
        let (least, _) = block_counts(n_ctx, BLOCK_LEN, 1);
        let size =
            |n_blocks, n_layers| self.size(&gguf, &config, (n_blocks, self.kv_type), n_layers);
        let n_device_layers = self.n_device_layers(&config, |n_layers| {
            size(least, n_layers).needs.total().device
        });
        // A GPU computes many requests at once, and has the memory for them or is small anyway.
        let n_contexts = if n_device_layers > 0 {
            CONTEXTS_WANTED.max(self.engine.max_running / 2)
        } else {
            CONTEXTS_WANTED
        };
        let (_, wanted) = block_counts(n_ctx, BLOCK_LEN, n_contexts);
        let (least, wanted) = (size(least, n_device_layers), size(wanted, n_device_layers));
        let opening_took = begun.elapsed();
        Ok(Prepared {
            id,
            gguf,
            config,
            text,
            n_ctx,
            n_device_layers,
            least,
            wanted,
            opening_took,
        })
    }

    /// Tokens of one sequence at most.
    pub(super) fn n_ctx(&self, config: &ModelConfig, n_ctx_default: Option<u32>) -> u32 {
        let n_ctx = self.n_ctx.or(n_ctx_default).unwrap_or(N_CTX_DEFAULT);
        n_ctx.min(config.context_length)
    }

    /// The form of keys and values.
    pub(super) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Which names there are.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// How many of the last layers go to the GPU, where so many take so many bytes of its memory.
    pub(super) fn n_device_layers(
        &self,
        config: &ModelConfig,
        device_bytes: impl Fn(usize) -> u64,
    ) -> usize {
        let gpu = self.gpu.as_ref();
        gpu.map_or(0, |gpu| gpu.n_layers(config.n_layers, device_bytes))
    }

    /// What the model needs with a cache of so many blocks of that form, and so many layers on the GPU.
    pub(super) fn size(
        &self,
        gguf: &Gguf,
        config: &ModelConfig,
        (n_blocks, kv_type): (usize, KvType),
        n_device_layers: usize,
    ) -> Size {
        let limits = Limits {
            kv_type,
            ..self.limits(n_blocks)
        };
        let (host, device) = Memory::estimate_split(gguf, config, &limits, n_device_layers);
        let is_unified = self.gpu.as_ref().is_some_and(|gpu| gpu.is_unified());
        let both = |host: u64, device: u64| {
            if is_unified {
                Bytes::on_host(host.saturating_add(device))
            } else {
                Bytes { host, device }
            }
        };
        Size {
            n_blocks,
            needs: Needs {
                weights: both(host.weights_bytes, device.weights_bytes),
                kv: both(host.kv_bytes, device.kv_bytes),
                workspace: both(
                    host.workspace_bytes
                        .saturating_add(text_bytes(config.n_vocab)),
                    device.workspace_bytes,
                ),
            },
        }
    }

    /// Where so many of the last layers go.
    fn placement(&self, n_device_layers: usize) -> Result<Placement, LoadError> {
        let Some(gpu) = self.gpu.as_ref().filter(|_| n_device_layers > 0) else {
            return Ok(Placement {
                cache_pages: self.cache_pages,
                ..Placement::default()
            });
        };
        Ok(Placement {
            cache_pages: self.cache_pages,
            device: gpu.open()?,
            n_device_layers,
            is_deterministic: gpu.is_deterministic(),
            ..Placement::default()
        })
    }

    pub(super) fn limits(&self, n_blocks: usize) -> Limits {
        let EngineOptions {
            max_running,
            prefill_chunk_tokens,
            ..
        } = self.engine;
        // A step holds one chunk of prompt and one token of every other sequence.
        let max_batch_tokens = prefill_chunk_tokens.saturating_add(max_running);
        Limits {
            max_batch_tokens,
            max_logit_rows: max_running,
            n_blocks,
            kv_type: self.kv_type,
        }
    }

    /// Loads what was prepared within what was `granted`, and warms it up. Blocks its thread.
    pub(super) fn load(
        &self,
        prepared: Prepared,
        granted: Bytes,
        watch: Watch<'_>,
    ) -> Result<Loaded, LoadError> {
        let begun = Instant::now();
        let Watch { reporter, stop } = watch;
        let Prepared {
            id,
            gguf,
            config,
            text,
            n_ctx,
            n_device_layers,
            least,
            wanted,
            opening_took,
        } = prepared;
        let n_blocks = blocks_within(least, wanted, granted);
        let cache = (n_blocks, self.kv_type);
        let memory = self.size(&gguf, &config, cache, n_device_layers).needs;
        let placement = self.placement(n_device_layers)?;
        let mut progress = |done_bytes, total_bytes| {
            reporter.tell(LoadStage::Weights {
                done_bytes,
                total_bytes,
            });
            if stop.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let team = Arc::clone(&self.team);
        let model = Model::load(
            &gguf,
            &config,
            self.limits(n_blocks),
            &placement,
            team,
            &mut progress,
        );
        let model = model.inspect_err(|error| {
            if let Some(gpu) = &self.gpu {
                gpu.fail(error);
            }
        })?;
        let text = Text::from_gguf(gguf.metadata(), &text)?;
        let options = EngineOptions {
            n_ctx: Some(n_ctx),
            ..self.engine
        };
        let engine = Engine::start(model, id.as_str(), options)?;
        if stop.is_cancelled() {
            return Err(LoadError::Abandoned);
        }
        reporter.tell(LoadStage::WarmingUp);
        warm_up(&engine, n_ctx, config.n_vocab)?;
        let load_time = opening_took + begun.elapsed();
        Ok(Loaded {
            id,
            engine,
            text,
            config,
            n_ctx,
            memory,
            load_time,
        })
    }
}

/// What the texts of a vocabulary take, and what joins them, once they are taken out of the file.
///
/// Source: measured by `benches/models.py memory`: 8.5 MB for the 49,152 tokens of SmolLM2.
pub(super) fn text_bytes(n_vocab: usize) -> u64 {
    const PER_TOKEN: u64 = 170;
    (n_vocab as u64).saturating_mul(PER_TOKEN)
}

/// A first short generation: touches every weight once and measures the rates. Blocks its thread.
fn warm_up(engine: &Engine, n_ctx: u32, n_vocab: usize) -> Result<(), LoadError> {
    let n_vocab = u32::try_from(n_vocab).unwrap_or(u32::MAX).max(1);
    let n_prompt = WARM_UP_PROMPT_TOKENS.min(n_ctx / 2).max(1);
    let failed = |error: &dyn std::fmt::Display| LoadError::WarmUp(error.to_string());
    let mut events = engine
        .submit(GenerateRequest {
            prompt: (0..n_prompt).map(|n| n % n_vocab).collect(),
            sampling: Sampling {
                temperature: 0.0,
                ..Sampling::default()
            },
            max_new_tokens: WARM_UP_NEW_TOKENS.min(n_ctx - n_prompt),
            stop_tokens: Vec::new(),
        })
        .map_err(|error| failed(&error))?;
    loop {
        match events.blocking_recv() {
            Some(engine::Event::Token(_)) => {}
            Some(engine::Event::Finished { .. }) => return Ok(()),
            Some(engine::Event::Failed(error)) => return Err(failed(&error)),
            None => return Err(failed(&"the engine stopped")),
        }
    }
}

fn text_options(manifest: &Manifest) -> TextOptions {
    TextOptions {
        chat_template: manifest.chat_template.clone(),
        template_name: manifest.template_name.clone(),
        stop_tokens: manifest.stop_tokens.clone(),
    }
}

/// A task that ended without a result: by a panic, or because the runtime is closing.
pub(super) fn panicked(error: JoinError) -> LoadError {
    let Ok(panic) = error.try_into_panic() else {
        return LoadError::Abandoned;
    };
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    LoadError::Panicked(text.unwrap_or_else(|| "no message".to_owned()))
}
