#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::quantize::{quantize_rows, row_words};

use super::{Place, first, first_words_mut, shape};

/// Quantises activations for the matrices that take them so: rows of `k` values.
pub(in crate::model) struct Quantize<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) k: usize,
}

impl InplaceOp2 for Quantize<'_> {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn cpu_fwd(
        &self,
        words: &mut CpuStorage,
        words_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let n_words = self.n_tokens * row_words(self.k);
        let words = first_words_mut(words, words_layout, n_words)?;
        let x = first::<f32>(x, x_layout, self.n_tokens * self.k)?;
        quantize_rows(self.place.turn()?, x, self.k, words).map_err(shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        words: &mut CudaStorage,
        words_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let x = values(on, x, x_layout)?;
        let words = values_mut(on, words, words_layout)?;
        run(
            on,
            ingle_kernels::cuda::quantize_rows(x, self.n_tokens, self.k, words),
        )
    }
}
