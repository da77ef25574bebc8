use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::matmul::{linear_f32, linear_quantized};
use ingle_kernels::quantize::row_words;
use ingle_kernels::{Out, Output, Part};

use super::{Place, first, first_mut, shape};

/// Multiplies activations by packed matrices side by side: `out = x · Wᵀ`, or added to what `out` holds.
///
/// `x` is quantised words or floats, whichever all of the matrices take; `out` is `[n_tokens, stride]`.
pub(in crate::model) struct Linear<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) parts: &'a [Part<'a>],
    pub(in crate::model) stride: usize,
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
            place,
            parts,
            stride,
            n_tokens,
            output,
        } = *self;
        let Some(Part { matrix, .. }) = parts.first() else {
            return Ok(());
        };
        let turn = place.turn()?;
        let mut out = Out {
            values: first_mut(out, out_layout, n_tokens * stride)?,
            stride,
            output,
        };
        if matrix.takes_quantized() {
            let words = first::<u32>(x, x_layout, n_tokens * row_words(matrix.k()))?;
            linear_quantized(turn, parts, words, &mut out).map_err(shape)
        } else {
            let floats = first::<f32>(x, x_layout, n_tokens * matrix.k())?;
            linear_f32(turn, parts, floats, &mut out).map_err(shape)
        }
    }
}
