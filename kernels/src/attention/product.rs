//! The product that attention is made of, twice: rows times a matrix, in registers.

use crate::isa::vectorized;

/// Rows of a matrix, `stride` values apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) n_rows: usize,
}

vectorized! {
    /// Computes `out = a · b`, or `out += a · b` if `adds`, for `b` of `[len, width]` and rows of `a` that begin with `len` values;
    /// rows of `out` begin with `width` values, `out_stride` apart.
    ///
    /// A value's products are added one by one, in the order of `len`, whatever the number of rows.
    pub(super) fn product(
        a: Rows<'_>,
        b: &[f32],
        width: usize,
        out: &mut [f32],
        out_stride: usize,
        adds: bool,
    ) {
        let mut row_idx = 0;
        while row_idx < a.n_rows {
            let rows = &a.values[row_idx * a.stride..];
            let out = &mut out[row_idx * out_stride..];
            // As many rows as there are registers for their sums.
            let left = a.n_rows - row_idx;
            let part = Part { a: rows, a_stride: a.stride, b, width, out_stride, adds };
            row_idx += match left {
                8.. if WIDE => part.add::<8, 32, FUSED>(out),
                6.. => part.add::<6, 16, FUSED>(out),
                4.. => part.add::<4, 16, FUSED>(out),
                3 => part.add::<3, 32, FUSED>(out),
                2 => part.add::<2, 32, FUSED>(out),
                _ => part.add::<1, 64, FUSED>(out),
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
    adds: bool,
}

impl Part<'_> {
    /// Adds the product of `R` rows and returns their number: `W` columns at a time, then one by one.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn add<const R: usize, const W: usize, const FUSED: bool>(&self, out: &mut [f32]) -> usize {
        let whole = self.width / W * W;
        for column in (0..whole).step_by(W) {
            self.add_columns::<R, W, FUSED>(column, out);
        }
        for column in whole..self.width {
            self.add_columns::<R, 1, FUSED>(column, out);
        }
        R
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn add_columns<const R: usize, const W: usize, const FUSED: bool>(
        &self,
        column: usize,
        out: &mut [f32],
    ) {
        let len = self.b.len() / self.width;
        let mut rows = [&self.a[..0]; R];
        let mut sums = [[0.0_f32; W]; R];
        for (i, (row, sums)) in rows.iter_mut().zip(&mut sums).enumerate() {
            *row = &self.a[i * self.a_stride..][..len];
            if let (true, Some(values)) =
                (self.adds, out[i * self.out_stride + column..].first_chunk())
            {
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
