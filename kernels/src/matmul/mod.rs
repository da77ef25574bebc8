//! Activations times a weight matrix.
//!
//! One arithmetic per weight type for every batch size: the exact integer dot product of a group of
//! 32, then one fused multiply-add into an f32 sum, group after group (and one more for a minimum).
//! All tiers of instructions give the same bits. Only float weights are summed in an order of lanes
//! of their own, the same for every batch size but not for every tier: see [`linear_f32`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod direct;
mod float;
mod fused;
mod panel;
mod quantized;
mod scalar;
#[cfg(test)]
mod tests;
mod unpack;
mod vector;

use std::sync::Arc;

use crate::pack::Packed;
use crate::quantize::row_words;
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

/// A weight matrix `[n, k]`. Quantised ones are packed, floats stay where they are.
#[derive(Clone)]
pub struct Matrix {
    weight_type: WeightType,
    n: usize,
    k: usize,
    weights: Weights,
}

/// Where a matrix's weights are.
#[derive(Clone)]
enum Weights {
    /// Rows of floats, in place.
    Floats(Arc<dyn WeightBytes>),
    Packed(Arc<Packed>),
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
    /// Takes `n` rows of `k` weights, as GGUF has them. Quantised ones are copied into a layout of
    /// their own; `source` is not held on to.
    ///
    /// # Errors
    /// [`ShapeError`] when `k` is not a whole number of blocks (of at least 32 weights where they
    /// are quantised) or the bytes are not `n` rows.
    pub fn new(
        turn: &Turn<'_>,
        weight_type: WeightType,
        n: usize,
        k: usize,
        source: Arc<dyn WeightBytes>,
    ) -> Result<Self, ShapeError> {
        ShapeError::check_multiple("k", k, weight_type.block_len())?;
        let too_large = ShapeError::Range {
            what: "n",
            got: n,
            limit: usize::MAX / k,
        };
        let row_bytes = weight_type.row_bytes(k).ok_or_else(|| too_large.clone())?;
        let n_bytes = row_bytes.checked_mul(n).ok_or(too_large)?;
        ShapeError::check_length("the weights' bytes", source.bytes().len(), n_bytes)?;
        let weights = if weight_type.takes_quantized() {
            Weights::Packed(Arc::new(Packed::new(turn, weight_type, n, source.bytes())))
        } else {
            Weights::Floats(source)
        };
        Ok(Self {
            weight_type,
            n,
            k,
            weights,
        })
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
        ShapeError::check_range("the row", row, self.n)?;
        ShapeError::check_length("out", out.len(), self.k)?;
        match &self.weights {
            Weights::Floats(source) => {
                let row_bytes = source.bytes().len() / self.n;
                let bytes = &source.bytes()[row * row_bytes..(row + 1) * row_bytes];
                self.weight_type.dequantize(bytes, out)
            }
            Weights::Packed(packed) => {
                let mut block = [0; WeightType::BLOCK_BYTES_MOST];
                let block = &mut block[..self.weight_type.block_bytes()];
                let outs = out.chunks_exact_mut(self.weight_type.block_len());
                for (block_idx, out) in outs.enumerate() {
                    packed.read_block(row, block_idx, block);
                    self.weight_type.dequantize(block, out)?;
                }
                Ok(())
            }
        }
    }

    /// Checks the shape of a product and gives its number of rows.
    fn check(
        &self,
        x: (usize, usize),
        out: usize,
        takes_quantized: bool,
    ) -> Result<usize, ShapeError> {
        if self.takes_quantized() != takes_quantized {
            return Err(ShapeError::Activations {
                weight_type: self.weight_type.name(),
                needed: if takes_quantized { "f32" } else { "quantised" },
            });
        }
        let (len, row_len) = x;
        let m = len / row_len;
        ShapeError::check_length("the activations", len, m * row_len)?;
        ShapeError::check_length("out", out, m * self.n)?;
        Ok(m)
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Matrix({} [{}, {}])",
            self.weight_type.name(),
            self.n,
            self.k
        )
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
    let m = w.check((acts.len(), row_words(w.k).max(1)), out.len(), true)?;
    if m > 0 && w.n > 0 {
        quantized::linear(turn, w, acts, out, output);
    }
    Ok(())
}

/// Computes `out = x · Wᵀ` for weights of type F32, F16 or BF16.
///
/// The products of a row are summed in 16 lanes, then the lanes in a fixed order: with fused
/// multiply-adds where the processor has them, without in the scalar tier, where a fused one would be
/// a slow library call.
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
    let m = w.check((x.len(), w.k), out.len(), false)?;
    if m > 0 && w.n > 0 {
        float::linear(turn, w, x, out, output);
    }
    Ok(())
}
