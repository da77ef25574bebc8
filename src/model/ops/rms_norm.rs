use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::Turn;
use ingle_kernels::norm::{rms_norm, rms_norm_quantized};
use ingle_kernels::quantize::row_words;

use super::{first, first_mut, first_words_mut, shape};

/// Normalises rows: `out = x / sqrt(mean(x²) + eps) * weight`; into a buffer of words, quantised.
pub(in crate::model) struct RmsNorm<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) weight: &'a [f32],
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
        let n_values = self.n_tokens * self.weight.len();
        let x = first::<f32>(x, x_layout, n_values)?;
        let Self {
            turn, weight, eps, ..
        } = *self;
        if let CpuStorage::U32(_) = out {
            let n_words = self.n_tokens * row_words(weight.len());
            let out = first_words_mut(out, out_layout, n_words)?;
            return rms_norm_quantized(turn, x, weight, eps, out).map_err(shape);
        }
        let out = first_mut(out, out_layout, n_values)?;
        rms_norm(turn, x, weight, eps, out).map_err(shape)
    }
}
