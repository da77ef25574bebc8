//! The engine of this machine as a backend.

use crate::chat::ChatRequest;
use crate::pool::{ModelInfo, Pool};

use super::{BackendError, ChatStream, Deadline};

/// Answers from models in this machine's memory.
#[derive(Clone)]
pub struct LocalBackend {
    pool: Pool,
}

impl LocalBackend {
    /// A backend over `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The pool behind it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Models that can be asked for without fetching: installed, served by path, in memory.
    pub async fn models(&self) -> Vec<ModelInfo> {
        self.pool.models().await
    }

    /// Answers `request`. The stream begins once the request is queued in the engine.
    ///
    /// Errors: [`BackendError`], here or as the stream's last item.
    pub async fn chat(
        &self,
        request: &ChatRequest,
        deadline: Deadline,
    ) -> Result<ChatStream, BackendError> {
        let _ = (request, deadline);
        todo!()
    }
}
