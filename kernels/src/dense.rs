//! Rows times a small matrix of floats, in registers: what attention is made of, twice, and every product
//! with float weights.

use crate::isa::vectorized;
use crate::{Out, Output};

/// Rows of a matrix, `stride` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) n_rows: usize,
}

vectorized! {
    /// Computes `out = a · b` for `b` of `[len, width]` and rows of `a` that begin with `len` values, or
    /// adds it; rows of `out` begin with `width` values.
    ///
    /// A value's products are added one by one, in the order of `len`, whatever the number of rows.
    pub(crate) fn product(a: Strided<'_>, b: &[f32], width: usize, out: &mut Out<'_>) {
        let mut row_idx = 0;
        while row_idx < a.n_rows {
            let part = Part {
                a: &a.values[row_idx * a.stride..],
                a_stride: a.stride,
                b,
                width,
                out_stride: out.stride,
                output: out.output,
            };
            let out = &mut out.values[row_idx * out.stride..];
            // As many rows as there are registers for their sums.
            row_idx += match a.n_rows - row_idx {
                8.. if WIDE => part.compute::<8, 32, FUSED>(out),
                6.. => part.compute::<6, 16, FUSED>(out),
                4.. => part.compute::<4, 16, FUSED>(out),
                3 => part.compute::<3, 32, FUSED>(out),
                2 => part.compute::<2, 32, FUSED>(out),
                _ if width.is_multiple_of(64) => part.compute::<1, 64, FUSED>(out),
                _ => part.compute::<1, 32, FUSED>(out),
            };
        }
    }
}

/// Some rows of the product.
struct Part<'a> {
    a: &'a [f32],
    a_stride: usize,
    b: &'a [f32],
    width: usize,
    out_stride: usize,
    output: Output,
}

impl Part<'_> {
    /// Computes the product of `R` rows and returns their number: `W` columns at a time, then one by one.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn compute<const R: usize, const W: usize, const FUSED: bool>(&self, out: &mut [f32]) -> usize {
        let whole = self.width / W * W;
        for column in (0..whole).step_by(W) {
            self.compute_columns::<R, W, FUSED>(column, out);
        }
        for column in whole..self.width {
            self.compute_columns::<R, 1, FUSED>(column, out);
        }
        R
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn compute_columns<const R: usize, const W: usize, const FUSED: bool>(
        &self,
        column: usize,
        out: &mut [f32],
    ) {
        let len = self.b.len() / self.width;
        let mut rows = [&self.a[..0]; R];
        let mut sums = [[0.0_f32; W]; R];
        for (i, (row, sums)) in rows.iter_mut().zip(&mut sums).enumerate() {
            *row = &self.a[i * self.a_stride..][..len];
            let values = out[i * self.out_stride + column..].first_chunk();
            if let (Output::Add, Some(values)) = (self.output, values) {
                *sums = *values;
            }
        }
        for (i, b) in self.b.chunks_exact(self.width).enumerate() {
            let Some(b) = b[column..].first_chunk::<W>() else {
                return; // the column lies within the width
            };
            for (row, sums) in rows.iter().zip(&mut sums) {
                let a = row[i];
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = if FUSED {
                        a.mul_add(*b, *sum)
                    } else {
                        a * b + *sum
                    };
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            if let Some(values) = out[i * self.out_stride + column..].first_chunk_mut() {
                *values = *sums;
            }
        }
    }
}
