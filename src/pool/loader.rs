//! From a name to a running engine, in two halves: [`Loader::prepare`] fetches, opens and measures;
//! [`Loader::load`] takes the memory the plan granted. Neither knows what else is in memory.

mod chat;
mod embedding;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_kernels::Team;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, LocalModel, Manifest, Origin, Progress};
use crate::egress::ModelFetch;
use crate::engine::{self, EngineOptions, EngineSnapshot};
use crate::gguf;
use crate::model::{self, CachePages, KvType};
use crate::text::{self, TextOptions};

use super::PoolOptions;
use super::bytes::Bytes;
use super::error::PoolError;
use super::gpu::GpuPlace;
use super::memory::{Needs, Size};
use super::names::{Names, Target};
use super::plan::Ask;
use super::report::{FetchProgress, Reporter};
use super::status::{LoadStage, ModelId};

use chat::{ChatFile, ChatSize, text_options};

pub use chat::ChatModel;
pub use embedding::EmbeddingModel;
pub(super) use embedding::{EmbeddingFolder, encoder_needs};

/// A model in memory: everything a request needs of it.
pub struct Loaded {
    /// Its name.
    pub id: ModelId,
    /// What it does.
    pub model: LoadedModel,
    /// Tokens of one sequence at most.
    pub n_ctx: u32,
    /// What it holds.
    pub memory: Needs,
    /// What opening, loading and warming up took; fetching is not counted.
    pub load_time: Duration,
}

/// What a model in memory does.
pub enum LoadedModel {
    /// It writes.
    Chat(Box<ChatModel>),
    /// It makes vectors.
    Embedding(Box<EmbeddingModel>),
}

impl Loaded {
    /// The model, if it is one that writes.
    pub fn chat(&self) -> Option<&ChatModel> {
        match &self.model {
            LoadedModel::Chat(chat) => Some(chat),
            LoadedModel::Embedding(_) => None,
        }
    }

    /// How its thread does.
    pub fn snapshot(&self) -> EngineSnapshot {
        match &self.model {
            LoadedModel::Chat(chat) => chat.engine.snapshot(),
            LoadedModel::Embedding(embedding) => embedding.embedder.snapshot(),
        }
    }
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
    /// Tokens of one sequence at most.
    pub(super) n_ctx: u32,
    /// The least it runs with: of a model that writes, blocks for one context.
    pub(super) least: Size,
    wanted: Size,
    opening_took: Duration,
    file: Opened,
}

/// What is open.
enum Opened {
    Chat(Box<ChatFile>),
    Embedding(Box<EmbeddingFolder>),
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

impl Watch<'_> {
    /// Tells how far the weights are; whether to go on.
    fn weights(&self, done_bytes: u64, total_bytes: u64) -> ControlFlow<()> {
        self.reporter.tell(LoadStage::Weights {
            done_bytes,
            total_bytes,
        });
        if self.stop.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Tells that the first work begins.
    ///
    /// Errors: the load was called off.
    fn warming_up(&self) -> Result<(), LoadError> {
        if self.stop.is_cancelled() {
            return Err(LoadError::Abandoned);
        }
        self.reporter.tell(LoadStage::WarmingUp);
        Ok(())
    }
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
        let open = move || {
            if path.is_dir() {
                return self.open_embedding(id, &path);
            }
            self.open_chat(id, &path, text, n_ctx_default)
        };
        tokio::task::spawn_blocking(move || open().map(Box::new))
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

    /// The form of keys and values.
    pub(super) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// The bounds of an engine.
    pub(super) fn engine_options(&self) -> &EngineOptions {
        &self.engine
    }

    /// Which names there are.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Loads what was prepared within what was `granted`, and warms it up. Blocks its thread.
    pub(super) fn load(
        &self,
        prepared: Prepared,
        granted: Bytes,
        watch: Watch<'_>,
    ) -> Result<Loaded, LoadError> {
        let begun = Instant::now();
        let Prepared {
            id,
            n_ctx,
            least,
            wanted,
            opening_took,
            file,
        } = prepared;
        let (model, memory) = match file {
            Opened::Chat(file) => {
                let size = ChatSize {
                    least,
                    wanted,
                    granted,
                    n_ctx,
                };
                let (model, memory) = self.load_chat(&id, *file, &size, watch)?;
                (LoadedModel::Chat(Box::new(model)), memory)
            }
            Opened::Embedding(folder) => {
                let model = self.load_embedding(&id, *folder, n_ctx, watch)?;
                (LoadedModel::Embedding(Box::new(model)), least.needs)
            }
        };
        Ok(Loaded {
            id,
            model,
            n_ctx,
            memory,
            load_time: opening_took + begun.elapsed(),
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

/// A task that ended without a result: by a panic, or because the runtime is closing.
pub(super) fn panicked(error: JoinError) -> LoadError {
    let Ok(panic) = error.try_into_panic() else {
        return LoadError::Abandoned;
    };
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    LoadError::Panicked(text.unwrap_or_else(|| "no message".to_owned()))
}
