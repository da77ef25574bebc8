use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use ingle_kernels::Turn;
use ingle_kernels::activation::silu_mul;

use super::{first, first_mut, shape};

/// Computes `out = silu(gate) * up`.
pub(in crate::model) struct SiluMul<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) n_values: usize,
}

impl InplaceOp3 for SiluMul<'_> {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<()> {
        let out = first_mut(out, out_layout, self.n_values)?;
        let gate = first::<f32>(gate, gate_layout, self.n_values)?;
        let up = first::<f32>(up, up_layout, self.n_values)?;
        silu_mul(self.turn, gate, up, out).map_err(shape)
    }
}
