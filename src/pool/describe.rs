//! What a model is and what it would ask of this machine, read from its file without loading it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::error::PoolError;
use super::loader::{EmbeddingFolder, LoadError, Loader, encoder_needs, text_bytes};
use super::memory::{Needs, block_counts};
use super::names::Target;
use super::status::ModelId;
use crate::catalog::{Manifest, Network};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{BLOCK_LEN, EncoderConfig, KvType, Limits, Memory, ModelConfig, Rope};

/// Contexts whose needs are told, in tokens; longer ones than the model was trained for are left out.
const CONTEXTS: [u32; 3] = [2048, 8192, 32_768];

/// What is known of a model.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub id: ModelId,
    /// What it may be called as well.
    pub aliases: Vec<String>,
    /// Where it comes from, in the order they are tried; empty for a file named by its path.
    pub sources: Vec<String>,
    /// The terms it may be used under, where the catalogue knows them.
    pub license: Option<String>,
    /// Its file, if it is here.
    pub file: Option<FileDescription>,
    /// What it takes as far as that is known without its file, by context and form of the cache; as it would
    /// be loaded first. Of one whose file is here: exactly.
    pub requirements: Vec<Requirement>,
}

/// What a model's file says.
#[derive(Clone, Debug)]
pub struct FileDescription {
    /// Where it lies; of a sharded model the first.
    pub path: PathBuf,
    /// Length of all its files.
    pub size_bytes: u64,
    /// The kind of network.
    pub architecture: String,
    /// What the file calls the model.
    pub name: Option<String>,
    /// Weights.
    pub n_parameters: u64,
    /// The type that most of them are of.
    pub weight_type: &'static str,
    /// Its shape.
    pub shape: Shape,
    /// Tokens of one sequence at most, as it would be loaded.
    pub n_ctx: u32,
}

/// The sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of context it was trained for.
    pub context_length: usize,
    /// Transformer layers.
    pub n_layers: usize,
    /// Values in a token's state.
    pub n_embd: usize,
    /// Values inside the feed-forward layer.
    pub n_ff: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
}

impl From<&ModelConfig> for Shape {
    fn from(config: &ModelConfig) -> Self {
        Self {
            context_length: config.context_length as usize,
            n_layers: config.n_layers,
            n_embd: config.n_embd,
            n_ff: config.n_ff,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            n_vocab: config.n_vocab,
        }
    }
}

impl From<&EncoderConfig> for Shape {
    fn from(config: &EncoderConfig) -> Self {
        Self {
            context_length: config.n_positions,
            n_layers: config.n_layers,
            n_embd: config.n_embd,
            n_ff: config.n_ff,
            n_heads: config.n_heads,
            n_kv_heads: config.n_heads,
            head_dim: config.n_embd / config.n_heads.max(1),
            n_vocab: config.n_vocab,
        }
    }
}

/// What a model takes with one context in its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Tokens of the context.
    pub n_ctx: u32,
    /// The form of keys and values.
    pub kv_type: KvType,
    /// What it then takes.
    pub needs: Needs,
}

impl Requirement {
    /// All of it.
    pub fn total(&self) -> Bytes {
        self.needs.total()
    }
}

impl Loader {
    /// What is known of the model behind `id`. Reads the disk.
    ///
    /// Errors: nothing has this id any more; its file is here, and no model that can be loaded.
    pub(super) fn describe(&self, id: &ModelId) -> Result<Description, PoolError> {
        let names = self.names();
        let (path, manifest) = match names.target(id)? {
            Target::File(path) => (Some(path), None),
            Target::Catalog(manifest) => (names.store().installed(&manifest), Some(manifest)),
        };
        let manifest = manifest.as_deref();
        let n_ctx_default = manifest.and_then(|found| found.context_default);
        let (file, requirements) = if let Some(path) = path {
            let described = self.describe_file(&path, n_ctx_default);
            let (file, requirements) = described.map_err(|reason| PoolError::File {
                model: id.clone(),
                reason,
            })?;
            (Some(file), requirements)
        } else {
            let network = manifest.and_then(|found| found.network);
            let known = network.map(|network| self.foreseen(&network, n_ctx_default));
            (None, known.unwrap_or_default())
        };
        let strings = |of: &dyn Fn(&Manifest) -> Vec<String>| manifest.map(of).unwrap_or_default();
        Ok(Description {
            id: id.clone(),
            aliases: strings(&|found| found.aliases.clone()),
            sources: strings(&|found| found.sources.iter().map(ToString::to_string).collect()),
            license: manifest.and_then(|found| Some(found.license.as_ref()?.name.clone())),
            file,
            requirements,
        })
    }

    fn describe_file(
        &self,
        path: &Path,
        n_ctx_default: Option<u32>,
    ) -> Result<(FileDescription, Vec<Requirement>), String> {
        if path.is_dir() {
            let folder = self.describe_folder(path);
            return folder.map_err(|error| error.to_string());
        }
        let gguf = Gguf::open(path).map_err(|error| error.to_string())?;
        let config = ModelConfig::from_gguf(&gguf).map_err(|error| error.to_string())?;
        let metadata = gguf.metadata();
        let needs = |n_ctx, kv_type| {
            let (n_blocks, _) = block_counts(n_ctx, BLOCK_LEN, 1);
            let size = |n_layers| {
                self.size(&gguf, &config, (n_blocks, kv_type), n_layers)
                    .needs
            };
            size(self.n_device_layers(&config, |n_layers| size(n_layers).total().device))
        };
        let requirements = self.requirements(&config, n_ctx_default, needs);
        let name = metadata.opt_str("general.name").ok().flatten();
        let file = FileDescription {
            path: path.to_owned(),
            size_bytes: gguf.file_bytes(),
            architecture: metadata.architecture().unwrap_or_default().to_owned(),
            name: name.map(str::to_owned),
            n_parameters: gguf.tensors().iter().map(TensorInfo::n_elements).sum(),
            weight_type: most_common_type(&gguf),
            n_ctx: self.n_ctx(&config, n_ctx_default),
            shape: Shape::from(&config),
        };
        Ok((file, requirements))
    }

    fn describe_folder(
        &self,
        folder: &Path,
    ) -> Result<(FileDescription, Vec<Requirement>), LoadError> {
        let EmbeddingFolder { file, sentences } = EmbeddingFolder::open(folder)?;
        let n_ctx = self.n_input_tokens(&file, &sentences);
        let requirement = Requirement {
            n_ctx,
            kv_type: self.kv_type(),
            needs: encoder_needs(&file, n_ctx),
        };
        let file = FileDescription {
            path: folder.to_owned(),
            size_bytes: file.file_bytes(),
            architecture: "bert".to_owned(),
            name: None,
            n_parameters: file.n_parameters(),
            weight_type: file.weight_type(),
            shape: Shape::from(file.config()),
            n_ctx,
        };
        Ok((file, vec![requirement]))
    }

    /// What a model takes of the host's memory whose file is not here, but whose shape is known.
    pub(super) fn foreseen(
        &self,
        network: &Network,
        n_ctx_default: Option<u32>,
    ) -> Vec<Requirement> {
        let config = config_of(network);
        let needs = |n_ctx, kv_type| {
            let (n_blocks, _) = block_counts(n_ctx, BLOCK_LEN, 1);
            let limits = Limits {
                kv_type,
                ..self.limits(n_blocks)
            };
            let memory = Memory::of(network.weights_bytes.get(), &config, &limits);
            Needs {
                weights: Bytes::on_host(memory.weights_bytes),
                kv: Bytes::on_host(memory.kv_bytes),
                workspace: Bytes::on_host(
                    memory
                        .workspace_bytes
                        .saturating_add(text_bytes(config.n_vocab)),
                ),
            }
        };
        self.requirements(&config, n_ctx_default, needs)
    }

    fn requirements(
        &self,
        config: &ModelConfig,
        n_ctx_default: Option<u32>,
        needs: impl Fn(u32, KvType) -> Needs,
    ) -> Vec<Requirement> {
        let mut contexts = vec![self.n_ctx(config, n_ctx_default)];
        contexts.extend(CONTEXTS.into_iter().chain([config.context_length]));
        let mut requirements: Vec<Requirement> = Vec::new();
        for n_ctx in contexts {
            for kv_type in [self.kv_type(), KvType::F16, KvType::Int8] {
                let is_told = |told: &Requirement| (told.n_ctx, told.kv_type) == (n_ctx, kv_type);
                if n_ctx <= config.context_length && !requirements.iter().any(is_told) {
                    requirements.push(Requirement {
                        n_ctx,
                        kv_type,
                        needs: needs(n_ctx, kv_type),
                    });
                }
            }
        }
        requirements
    }
}

/// The shape as the network's estimates know it; norms and positions, which take no memory to speak of,
/// are the usual ones.
fn config_of(network: &Network) -> ModelConfig {
    let size = |value: NonZeroU32| value.get() as usize;
    let (n_embd, n_heads) = (size(network.n_embd), size(network.n_heads));
    let head_dim = n_embd / n_heads;
    ModelConfig {
        n_layers: size(network.n_layers),
        n_embd,
        n_heads,
        n_kv_heads: size(network.n_kv_heads),
        head_dim,
        n_ff: size(network.n_ff),
        n_vocab: size(network.n_vocab),
        context_length: network.context_length.get(),
        rms_norm_eps: 1e-5,
        rope: Rope {
            base: 10_000.0,
            dim: head_dim,
            scale: 1.0,
        },
        sliding_window: None,
    }
}

/// The type that most bytes are of.
fn most_common_type(gguf: &Gguf) -> &'static str {
    let mut bytes: Vec<(u32, u64, &'static str)> = Vec::new();
    for tensor in gguf.tensors() {
        match bytes.iter_mut().find(|(id, ..)| *id == tensor.ty.id()) {
            Some((_, sum, _)) => *sum = sum.saturating_add(tensor.n_bytes()),
            None => bytes.push((tensor.ty.id(), tensor.n_bytes(), tensor.ty.name())),
        }
    }
    let most = bytes.iter().max_by_key(|(_, sum, _)| *sum);
    most.map_or("none", |(.., name)| name)
}
