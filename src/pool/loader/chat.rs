//! Loading a model that writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{LoadError, Loader, Opened, Prepared, Watch, text_bytes};
use crate::catalog::Manifest;
use crate::chat::Sampling;
use crate::engine::{self, Engine, EngineOptions, GenerateRequest};
use crate::gguf::Gguf;
use crate::model::{BLOCK_LEN, KvType, Limits, Memory, Model, ModelConfig, Placement, Readout};
use crate::pool::bytes::Bytes;
use crate::pool::memory::{CONTEXTS_WANTED, Needs, Size, block_counts, blocks_within};
use crate::pool::status::ModelId;
use crate::text::{Text, TextOptions};

/// Tokens of one sequence at most, unless the configuration or the catalogue says otherwise.
const N_CTX_DEFAULT: u32 = 8192;
/// Tokens of the prompt, and of the answer, that measure the rates.
const WARM_UP_PROMPT_TOKENS: u32 = 32;
const WARM_UP_NEW_TOKENS: u32 = 4;

/// A model that writes, in memory.
pub struct ChatModel {
    /// Token ids in, token ids out.
    pub engine: Engine,
    /// Text to token ids and back.
    pub text: Text,
    /// Its shape.
    pub config: ModelConfig,
    /// How a text's states become its vector.
    pub readout: Readout,
}

/// What it asked of the memory, and got.
#[derive(Clone, Copy)]
pub(super) struct ChatSize {
    pub(super) least: Size,
    pub(super) wanted: Size,
    pub(super) granted: Bytes,
    /// Tokens of one sequence at most.
    pub(super) n_ctx: u32,
}

/// Its file, open.
pub(super) struct ChatFile {
    gguf: Gguf,
    config: ModelConfig,
    text: TextOptions,
    readout: Readout,
    /// How many of its last layers go to the GPU.
    n_device_layers: usize,
}

impl Loader {
    /// Opens a file and estimates its memory. Blocks its thread.
    pub(super) fn open_chat(
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
            n_ctx,
            least,
            wanted,
            opening_took,
            file: Opened::Chat(Box::new(ChatFile {
                readout: Readout::from_gguf(&gguf)?,
                gguf,
                config,
                text,
                n_device_layers,
            })),
        })
    }

    /// Tokens of one sequence at most.
    pub(in crate::pool) fn n_ctx(&self, config: &ModelConfig, n_ctx_default: Option<u32>) -> u32 {
        let n_ctx = self.n_ctx.or(n_ctx_default).unwrap_or(N_CTX_DEFAULT);
        n_ctx.min(config.context_length)
    }

    /// How many of the last layers go to the GPU, where so many take so many bytes of its memory.
    pub(in crate::pool) fn n_device_layers(
        &self,
        config: &ModelConfig,
        device_bytes: impl Fn(usize) -> u64,
    ) -> usize {
        let gpu = self.gpu.as_ref();
        gpu.map_or(0, |gpu| gpu.n_layers(config.n_layers, device_bytes))
    }

    /// What the model needs with a cache of so many blocks of that form, and so many layers on the GPU.
    pub(in crate::pool) fn size(
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

    pub(in crate::pool) fn limits(&self, n_blocks: usize) -> Limits {
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

    /// Loads it within what was `granted`, and warms it up. Blocks its thread.
    pub(super) fn load_chat(
        &self,
        id: &ModelId,
        file: ChatFile,
        size: &ChatSize,
        watch: Watch<'_>,
    ) -> Result<(ChatModel, Needs), LoadError> {
        let ChatFile {
            gguf,
            config,
            text,
            readout,
            n_device_layers,
        } = file;
        let ChatSize {
            least,
            wanted,
            granted,
            n_ctx,
        } = *size;
        let n_blocks = blocks_within(least, wanted, granted);
        let cache = (n_blocks, self.kv_type);
        let memory = self.size(&gguf, &config, cache, n_device_layers).needs;
        let placement = self.placement(n_device_layers)?;
        let model = Model::load(
            &gguf,
            &config,
            self.limits(n_blocks),
            &placement,
            Arc::clone(&self.team),
            &mut |done, total| watch.weights(done, total),
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
        watch.warming_up()?;
        warm_up(&engine, n_ctx, config.n_vocab)?;
        let model = ChatModel {
            engine,
            text,
            config,
            readout,
        };
        Ok((model, memory))
    }
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
                temperature: Some(0.0),
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

pub(super) fn text_options(manifest: &Manifest) -> TextOptions {
    TextOptions {
        chat_template: manifest.chat_template.clone(),
        template_name: manifest.template_name.clone(),
        stop_tokens: manifest.stop_tokens.clone(),
    }
}
