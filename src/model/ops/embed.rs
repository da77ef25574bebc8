use candle_core::{CpuStorage, InplaceOp1, Layout, Result};

use super::first_mut;
use crate::chat::TokenId;
use crate::model::weight_matrix::WeightMatrix;

/// Writes the embeddings of `token_ids`: `[n_tokens, n_embd]`.
pub(in crate::model) struct Embed<'a> {
    /// `[n_vocab, n_embd]`.
    pub(in crate::model) embedding: &'a WeightMatrix,
    pub(in crate::model) token_ids: &'a [TokenId],
}

impl InplaceOp1 for Embed<'_> {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, out: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let n_embd = self.embedding.k();
        let out = first_mut(out, layout, self.token_ids.len() * n_embd)?;
        for (row, token) in out.chunks_exact_mut(n_embd).zip(self.token_ids) {
            self.embedding.dequantize_row(*token as usize, row)?;
        }
        Ok(())
    }
}
