#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::activation::{silu_mul, silu_mul_quantized};
use ingle_kernels::quantize::row_words;

use super::{Place, first, first_mut, first_words_mut, shape};

/// Computes `out = silu(gate) * up` of rows `[2, n]`; into a buffer of words, quantised.
pub(in crate::model) struct SiluMul<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) n: usize,
}

impl InplaceOp2 for SiluMul<'_> {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        gate_up: &CpuStorage,
        gate_up_layout: &Layout,
    ) -> Result<()> {
        let Self { place, n_tokens, n } = *self;
        let turn = place.turn()?;
        let gate_up = first::<f32>(gate_up, gate_up_layout, n_tokens * 2 * n)?;
        if let CpuStorage::U32(_) = out {
            let out = first_words_mut(out, out_layout, n_tokens * row_words(n))?;
            return silu_mul_quantized(turn, gate_up, n, out).map_err(shape);
        }
        let out = first_mut(out, out_layout, n_tokens * n)?;
        silu_mul(turn, gate_up, n, out).map_err(shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        gate_up: &CudaStorage,
        gate_up_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let gate_up = values(on, gate_up, gate_up_layout)?;
        let out = values_mut(on, out, out_layout)?;
        run(
            on,
            ingle_kernels::cuda::silu_mul(gate_up, self.n_tokens, self.n, out),
        )
    }
}
