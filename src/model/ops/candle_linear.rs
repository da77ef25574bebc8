use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::Output;

use super::{first, first_mut};
use crate::model::weight_matrix::CandleMatrix;

/// The same as [`Linear`](super::Linear) by the tensor library's own product, which allocates its result:
/// `out`'s columns from `column` on become `x · Wᵀ`, or have it added.
///
/// `x` is floats; `out` is `[n_tokens, stride]`.
pub(in crate::model) struct CandleLinear<'a> {
    pub(in crate::model) matrix: &'a CandleMatrix,
    pub(in crate::model) column: usize,
    pub(in crate::model) stride: usize,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) output: Output,
}

impl InplaceOp2 for CandleLinear<'_> {
    fn name(&self) -> &'static str {
        "candle_linear"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let (n, k) = (self.matrix.n(), self.matrix.k());
        let x = first::<f32>(x, x_layout, self.n_tokens * k)?;
        let out = first_mut(out, out_layout, self.n_tokens * self.stride)?;
        let product = self.matrix.multiply(x)?;
        for (out, values) in out
            .chunks_exact_mut(self.stride)
            .zip(product.chunks_exact(n))
        {
            for (out, value) in out[self.column..].iter_mut().zip(values) {
                match self.output {
                    Output::Write => *out = *value,
                    Output::Add => *out += *value,
                }
            }
        }
        Ok(())
    }
}
