use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::matmul::{linear_f32, linear_quantized};
use ingle_kernels::quantize::row_words;
use ingle_kernels::{Matrix, Output, Turn};

use super::{first, first_mut, shape};

/// Multiplies activations by a matrix: `out = x · Wᵀ`, or added to what `out` holds.
///
/// `x` is quantised words or floats, whichever the matrix takes.
pub(in crate::model) struct Linear<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    /// `[n, k]`.
    pub(in crate::model) matrix: &'a Matrix,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) output: Output,
}

impl InplaceOp2 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let Self {
            turn,
            matrix,
            n_tokens,
            output,
        } = *self;
        let out = first_mut(out, out_layout, n_tokens * matrix.n())?;
        if matrix.takes_quantized() {
            let words = first::<u32>(x, x_layout, n_tokens * row_words(matrix.k()))?;
            linear_quantized(turn, matrix, words, out, output).map_err(shape)
        } else {
            let floats = first::<f32>(x, x_layout, n_tokens * matrix.k())?;
            linear_f32(turn, matrix, floats, out, output).map_err(shape)
        }
    }
}
