#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result};
use ingle_kernels::cuda::Indices;

use super::{Place, first_mut};
use crate::model::weight_matrix::WeightMatrix;

/// Writes the embeddings of `token_ids`: `[n_tokens, n_embd]`.
pub(in crate::model) struct Embed<'a> {
    pub(in crate::model) place: Place<'a>,
    /// `[n_vocab, n_embd]`.
    pub(in crate::model) embedding: &'a WeightMatrix,
    pub(in crate::model) token_ids: Indices<'a>,
}

impl InplaceOp1 for Embed<'_> {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, out: &mut CpuStorage, layout: &Layout) -> Result<()> {
        // A few rows are too short to share out.
        self.place.turn()?;
        let n_embd = self.embedding.k();
        let token_ids = self.token_ids.host;
        let out = first_mut(out, layout, token_ids.len() * n_embd)?;
        for (row, token) in out.chunks_exact_mut(n_embd).zip(token_ids) {
            self.embedding.dequantize_row(*token as usize, row)?;
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        use super::on_cuda::{run, values_mut};
        let on = self.place.launcher()?;
        let table = self.embedding.on_device()?;
        let out = values_mut(on, out, layout)?;
        run(on, ingle_kernels::cuda::embed(table, self.token_ids, out))
    }
}
