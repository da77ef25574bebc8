//! Bytes: what this machine has, and what a model needs of them.

/// What a model needs in memory. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The weights, used in place from the mapped file.
    pub weights_bytes: u64,
    /// The blocks of the KV cache.
    pub kv_bytes: u64,
    /// Activations and logits of the largest step.
    pub workspace_bytes: u64,
}

impl Needs {
    /// All of it.
    pub fn total(self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.workspace_bytes)
    }
}
