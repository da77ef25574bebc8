//! The gated activation of the feed-forward layer.

use crate::{ShapeError, Turn};

/// Computes `out = silu(gate) * up`, element by element.
///
/// Shapes: all three of one length.
///
/// # Errors
/// [`ShapeError`] when a length does not match.
pub fn silu_mul(
    turn: &Turn<'_>,
    gate: &[f32],
    up: &[f32],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    todo!()
}
