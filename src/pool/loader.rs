//! From a name to a running engine.

use std::time::Duration;

use crate::engine::Engine;
use crate::model::ModelConfig;
use crate::text::Text;

use super::ModelId;
use super::memory::Needs;

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
    /// What opening, loading and warming up took.
    pub load_time: Duration,
}
