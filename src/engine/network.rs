//! What the loop asks of a network.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{self, Batch, LogitRow, Model, Seen};

/// Why a step could not be computed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) error: Arc<dyn StdError + Send + Sync>,
    /// Whether no later step can be computed either: the device is lost.
    pub(super) is_final: bool,
}

/// The bounds of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetworkLimits {
    pub(super) n_vocab: usize,
    /// Tokens of context it was trained for.
    pub(super) context_length: u32,
    pub(super) n_blocks: usize,
    pub(super) max_batch_tokens: usize,
    pub(super) max_logit_rows: usize,
}

/// Something that computes logits: a [`Model`]. The loop knows no more of it than this, so that
/// its own tests can make it fail.
pub(super) trait Network: Send {
    fn limits(&self) -> NetworkLimits;

    /// Computes a step and shows `see` the logits of each of `batch.logit_rows`, in order: the greatest
    /// of a row first, if the network finds them, and the whole row if it then is needed.
    fn forward(
        &mut self,
        batch: &Batch,
        see: &mut dyn FnMut(LogitRow<'_>) -> Seen,
    ) -> Result<(), Fault>;

    /// How long the last step waited for the threads that compute, which other engines use too.
    fn waited(&self) -> Duration;

    /// Shows `see` the state of each of `batch.state_rows`, in order; `batch` was computed last.
    fn states(&mut self, batch: &Batch, see: &mut dyn FnMut(&[f32])) -> Result<(), Fault>;
}

impl Network for Model {
    fn limits(&self) -> NetworkLimits {
        let limits = Model::limits(self);
        NetworkLimits {
            n_vocab: self.config().n_vocab,
            context_length: self.config().context_length,
            n_blocks: limits.n_blocks,
            max_batch_tokens: limits.max_batch_tokens,
            max_logit_rows: limits.max_logit_rows,
        }
    }

    fn forward(
        &mut self,
        batch: &Batch,
        see: &mut dyn FnMut(LogitRow<'_>) -> Seen,
    ) -> Result<(), Fault> {
        self.forward_rows(batch, see).map_err(Fault::from)
    }

    fn waited(&self) -> Duration {
        Model::waited(self)
    }

    fn states(&mut self, batch: &Batch, see: &mut dyn FnMut(&[f32])) -> Result<(), Fault> {
        Model::states(self, batch, see).map_err(Fault::from)
    }
}

impl From<model::Error> for Fault {
    fn from(error: model::Error) -> Self {
        Self {
            is_final: error.is_final(),
            error: Arc::new(error),
        }
    }
}
