//! Rotary position embedding over adjacent pairs, as GGUF files of architecture `llama` want it.

use crate::{ShapeError, Turn};

/// Cosines and sines of every position up to a limit.
#[derive(Clone, Debug)]
pub struct RopeTable {
    head_dim: usize,
}

impl RopeTable {
    /// Computes the table for positions `0..n_positions`.
    ///
    /// The first `rope_dim` values of a head are rotated; pair `i` turns by
    /// `position / base^(2i / rope_dim) / freq_factors[i]`.
    ///
    /// # Errors
    /// [`ShapeError`] when `rope_dim` is odd or larger than `head_dim`, or there are not
    /// `rope_dim / 2` frequency factors.
    pub fn new(
        head_dim: usize,
        rope_dim: usize,
        base: f32,
        freq_factors: Option<&[f32]>,
        n_positions: usize,
    ) -> Result<Self, ShapeError> {
        todo!()
    }
}

/// Rotates every head of every token to its position, in place.
///
/// Shapes: `x` is `[positions.len(), n_heads, head_dim]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a position is past the table.
pub fn rope(
    turn: &Turn<'_>,
    x: &mut [f32],
    n_heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &RopeTable,
) -> Result<(), ShapeError> {
    todo!()
}
