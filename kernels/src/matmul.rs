//! Activations times a weight matrix.

use std::sync::Arc;

use crate::{ShapeError, Turn, WeightType};

/// Bytes that stay where they are for as long as they are held: a mapped file, a buffer.
pub trait WeightBytes: Send + Sync {
    /// The bytes; always the same ones.
    fn bytes(&self) -> &[u8];
}

impl WeightBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A weight matrix `[n, k]`: rows of GGUF blocks.
#[derive(Clone)]
pub struct Matrix {
    weight_type: WeightType,
    n: usize,
    k: usize,
    source: Arc<dyn WeightBytes>,
}

/// What becomes of the values that the result has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// They are overwritten.
    Write,
    /// The product is added to them.
    Add,
}

impl Matrix {
    /// Takes `n` rows of `k` weights.
    ///
    /// # Errors
    /// [`ShapeError`] when `k` is not a whole number of blocks or the bytes are not `n` rows.
    pub fn new(
        weight_type: WeightType,
        n: usize,
        k: usize,
        source: Arc<dyn WeightBytes>,
    ) -> Result<Self, ShapeError> {
        todo!()
    }

    /// The number of rows: the length of a result.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The length of a row: the length of an input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The kind of weights.
    pub fn weight_type(&self) -> WeightType {
        self.weight_type
    }

    /// Whether [`linear_quantized`] is the product to call, as against [`linear_f32`].
    pub fn takes_quantized(&self) -> bool {
        self.weight_type.takes_quantized()
    }

    /// Decodes one row.
    ///
    /// # Errors
    /// [`ShapeError`] when there is no such row or `out` is not `k` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        todo!()
    }
}

/// Computes `out = x · Wᵀ` for activations that [`crate::quantize::quantize_rows`] made.
///
/// Shapes: `acts` is `[m, row_words(k)]`; `out` is `[m, n]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or the weights are floats.
pub fn linear_quantized(
    turn: &Turn<'_>,
    w: &Matrix,
    acts: &[u32],
    out: &mut [f32],
    output: Output,
) -> Result<(), ShapeError> {
    todo!()
}

/// Computes `out = x · Wᵀ` for weights of type F32, F16 or BF16.
///
/// Shapes: `x` is `[m, k]`; `out` is `[m, n]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or the weights are quantised.
pub fn linear_f32(
    turn: &Turn<'_>,
    w: &Matrix,
    x: &[f32],
    out: &mut [f32],
    output: Output,
) -> Result<(), ShapeError> {
    todo!()
}
