//! From a name to a running engine, in two halves: [`Loader::prepare`] fetches, opens and measures;
//! [`Loader::load`] takes the memory the plan granted. Neither knows what else is in memory.

use std::num::TryFromIntError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_kernels::Team;

use crate::catalog::{self, FetchEvent, Manifest, Progress};
use crate::chat::Sampling;
use crate::egress::ModelFetch;
use crate::engine::{self, Engine, EngineOptions, GenerateRequest};
use crate::gguf::{self, Gguf};
use crate::model::{self, BLOCK_LEN, Limits, Memory, Model, ModelConfig};
use crate::text::{self, Text, TextOptions};

use super::PoolOptions;
use super::error::PoolError;
use super::memory::{Needs, Size, block_counts, blocks_within};
use super::names::{Names, Target};
use super::plan::Ask;
use super::report::Reporter;
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
    /// The least it runs with: blocks for one context.
    pub(super) least: Size,
    wanted: Size,
    opening_took: Duration,
}

impl Prepared {
    /// What it asks of the budget.
    pub(super) fn ask(&self) -> Ask {
        let (least, wanted) = (self.least.needs.total(), self.wanted.needs.total());
        Ask { least_bytes: least, wanted_bytes: wanted }
    }
}

/// Loads models; shared by all loads.
pub(super) struct Loader {
    names: Arc<Names>,
    fetch_permit: Option<ModelFetch>,
    team: Arc<Team>,
    n_ctx: Option<u32>,
    engine: EngineOptions,
}

impl Loader {
    pub(super) fn new(names: Arc<Names>, options: PoolOptions) -> Self {
        let PoolOptions { fetch_permit, team, n_ctx, engine, .. } = options;
        Self { names, fetch_permit, team, n_ctx, engine }
    }

    /// Fetches the model's file unless it is here, opens it and estimates its memory.
    pub(super) async fn prepare(
        self: Arc<Self>,
        id: ModelId,
        reporter: Arc<Reporter>,
    ) -> Result<Box<Prepared>, LoadError> {
        let (path, text, n_ctx_default) = match self.names.target(&id)? {
            Target::File(path) => (path, TextOptions::default(), None),
            Target::Catalog(manifest) => {
                let path = match self.names.store().installed(&manifest) {
                    Some(path) => path,
                    None => self.fetch(&manifest, &reporter).await?,
                };
                (path, text_options(&manifest), manifest.context_default)
            }
        };
        reporter.tell(LoadStage::Opening);
        let open = move || self.open(id, &path, text, n_ctx_default).map(Box::new);
        tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(panicked(error)))
    }

    async fn fetch(
        &self,
        manifest: &Manifest,
        reporter: &Arc<Reporter>,
    ) -> Result<PathBuf, LoadError> {
        let permit = self.fetch_permit.as_ref().ok_or(LoadError::Offline)?;
        let progress = FetchProgress::new(Arc::clone(reporter));
        Ok(self.names.store().fetch(manifest, permit, &progress).await?)
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
        let n_ctx = self.n_ctx.or(n_ctx_default).unwrap_or(N_CTX_DEFAULT).min(config.context_length);
        let (least, wanted) = block_counts(n_ctx, BLOCK_LEN);
        let least = self.size(&gguf, &config, least)?;
        let wanted = self.size(&gguf, &config, wanted)?;
        let opening_took = begun.elapsed();
        Ok(Prepared { id, gguf, config, text, n_ctx, least, wanted, opening_took })
    }
}
