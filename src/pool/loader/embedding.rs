//! Loading a model that makes vectors.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{LoadError, Loader, Opened, Prepared, Watch, text_bytes};
use crate::engine::Embedder;
use crate::model::{Encoder, EncoderConfig, EncoderFile};
use crate::pool::bytes::Bytes;
use crate::pool::memory::{Needs, Size};
use crate::pool::status::ModelId;
use crate::text::Sentences;

/// Tokens of the input that warms it up.
const WARM_UP_TOKENS: u32 = 16;

/// A model that makes vectors, in memory.
pub struct EmbeddingModel {
    /// Token ids in, vectors out.
    pub embedder: Embedder,
    /// Texts to token ids.
    pub sentences: Sentences,
    /// Its shape.
    pub config: EncoderConfig,
}

/// Its folder, open.
pub(in crate::pool) struct EmbeddingFolder {
    pub(in crate::pool) file: EncoderFile,
    pub(in crate::pool) sentences: Sentences,
}

impl EmbeddingFolder {
    /// Opens a folder.
    pub(in crate::pool) fn open(folder: &Path) -> Result<Self, LoadError> {
        Ok(Self {
            file: EncoderFile::open(folder)?,
            sentences: Sentences::from_folder(folder)?,
        })
    }
}

/// What it takes for inputs of at most `n_ctx` tokens.
pub(in crate::pool) fn encoder_needs(file: &EncoderFile, n_ctx: u32) -> Needs {
    let memory = file.memory(n_ctx as usize);
    Needs {
        weights: Bytes::on_host(memory.weights_bytes),
        kv: Bytes::on_host(memory.kv_bytes),
        workspace: Bytes::on_host(
            memory
                .workspace_bytes
                .saturating_add(text_bytes(file.config().n_vocab)),
        ),
    }
}

impl Loader {
    /// Tokens of an input at most.
    pub(in crate::pool) fn n_input_tokens(&self, file: &EncoderFile, sentences: &Sentences) -> u32 {
        let n_positions = file.config().n_positions;
        let n_most = sentences.max_tokens().unwrap_or(n_positions);
        let n_most = u32::try_from(n_most.min(n_positions)).unwrap_or(u32::MAX);
        self.n_ctx.unwrap_or(n_most).min(n_most)
    }

    /// Opens a folder and estimates its memory. Blocks its thread.
    pub(super) fn open_embedding(&self, id: ModelId, folder: &Path) -> Result<Prepared, LoadError> {
        let begun = Instant::now();
        let folder = EmbeddingFolder::open(folder)?;
        let n_ctx = self.n_input_tokens(&folder.file, &folder.sentences);
        let size = Size {
            n_blocks: 0,
            needs: encoder_needs(&folder.file, n_ctx),
        };
        Ok(Prepared {
            id,
            n_ctx,
            least: size,
            wanted: size,
            opening_took: begun.elapsed(),
            file: Opened::Embedding(Box::new(folder)),
        })
    }

    /// Loads it and warms it up. Blocks its thread.
    pub(super) fn load_embedding(
        &self,
        id: &ModelId,
        folder: EmbeddingFolder,
        n_ctx: u32,
        watch: Watch<'_>,
    ) -> Result<EmbeddingModel, LoadError> {
        let EmbeddingFolder { file, sentences } = folder;
        let team = Arc::clone(&self.team);
        let encoder = Encoder::load(&file, team, &mut |done, total| watch.weights(done, total))?;
        let config = encoder.config().clone();
        tracing::info!(
            model = %id,
            pooling = %config.readout.pooling,
            normalised = config.readout.is_normalised,
            as_said_by = config.readout_source,
            "vectors"
        );
        let embedder = Embedder::start(encoder, id.as_str(), n_ctx, &self.engine)?;
        watch.warming_up()?;
        warm_up(&embedder, config.n_vocab)?;
        Ok(EmbeddingModel {
            embedder,
            sentences,
            config,
        })
    }
}

/// A first vector: touches every weight once. Blocks its thread.
fn warm_up(embedder: &Embedder, n_vocab: usize) -> Result<(), LoadError> {
    let failed = |error: &dyn std::fmt::Display| LoadError::WarmUp(error.to_string());
    let n_vocab = u32::try_from(n_vocab).unwrap_or(u32::MAX).max(1);
    let n_tokens = WARM_UP_TOKENS.min(embedder.n_tokens_most());
    let input = (0..n_tokens).map(|token| token % n_vocab).collect();
    let reply = embedder
        .submit(vec![input])
        .map_err(|error| failed(&error))?;
    let vectors = reply
        .blocking_recv()
        .map_err(|_| failed(&"the embedder stopped"))?;
    vectors.map(drop).map_err(|error| failed(&error))
}
