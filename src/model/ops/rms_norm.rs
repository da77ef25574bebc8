#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::norm::{rms_norm, rms_norm_quantized};
use ingle_kernels::quantize::row_words;

use super::{Place, first, first_mut, first_words_mut, shape};
use crate::model::vector::Vector;

/// Normalises rows: `out = x / sqrt(mean(x²) + eps) * weight`; into a buffer of words, quantised.
pub(in crate::model) struct RmsNorm<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) weight: &'a Vector,
    pub(in crate::model) eps: f32,
}

impl InplaceOp2 for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let (turn, weight) = (self.place.turn()?, self.weight.host());
        let n_values = self.n_tokens * weight.len();
        let x = first::<f32>(x, x_layout, n_values)?;
        if let CpuStorage::U32(_) = out {
            let n_words = self.n_tokens * row_words(weight.len());
            let out = first_words_mut(out, out_layout, n_words)?;
            return rms_norm_quantized(turn, x, weight, self.eps, out).map_err(shape);
        }
        let out = first_mut(out, out_layout, n_values)?;
        rms_norm(turn, x, weight, self.eps, out).map_err(shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let x = values(on, x, x_layout)?;
        let weight = self.weight.device(on)?;
        let out = values_mut(on, out, out_layout)?;
        run(
            on,
            ingle_kernels::cuda::rms_norm(x, weight, self.eps, self.n_tokens, out),
        )
    }
}
