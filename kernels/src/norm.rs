//! Root-mean-square normalisation.

use crate::{ShapeError, Turn};

/// Computes `out = x / sqrt(mean(x²) + eps) * weight`, row by row.
///
/// Shapes: `weight` is `[n]`; `x` and `out` are `[m, n]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match.
pub fn rms_norm(
    turn: &Turn<'_>,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    todo!()
}
