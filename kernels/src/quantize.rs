//! Activations in eight bits: one format for every quantised weight type.

use crate::{ShapeError, Turn};

/// The number of `u32` words that hold one quantised row of `k` values; `k % 32 == 0`.
pub const fn row_words(k: usize) -> usize {
    k / 32 * 11
}

/// Quantises rows of `k` values.
///
/// Shapes: `x` is `[m, k]`; `out` is `[m, row_words(k)]`.
///
/// # Errors
/// [`ShapeError`] when `k` is not a multiple of 32 or a length does not match.
pub fn quantize_rows(
    turn: &Turn<'_>,
    x: &[f32],
    k: usize,
    out: &mut [u32],
) -> Result<(), ShapeError> {
    todo!()
}
