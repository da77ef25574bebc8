//! Activations times a weight matrix.
//!
//! One arithmetic per weight type for every batch size: the exact integer dot product of a group of
//! 32, then one fused multiply-add into an f32 sum, group after group (and one more for a minimum).
//! All tiers of instructions give the same bits, but for float weights, whose multiply-adds are fused
//! where that is one instruction: see [`linear_f32`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "the tiers that are made of it are x86-64's")
)]
mod direct;
mod float;
mod fused;
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "the tiers that are made of it are x86-64's")
)]
mod panel;
mod quantized;
mod scalar;
#[cfg(test)]
mod tests;
mod unpack;
mod vector;
mod vnni;

use std::sync::Arc;

use crate::pack::{Packed, PackedFloats};
use crate::quantize::row_words;
use crate::{ShapeError, Turn, WeightType};

/// A weight matrix `[n, k]`, packed.
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
    Floats(Arc<PackedFloats>),
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
    /// Takes `n` rows of `k` weights, as GGUF has them, and copies them into a layout of its own.
    ///
    /// # Errors
    /// [`ShapeError`] when `k` is not a whole number of blocks (of at least 32 weights where they
    /// are quantised) or the bytes are not `n` rows.
    pub fn new(
        turn: &Turn<'_>,
        weight_type: WeightType,
        n: usize,
        k: usize,
        rows: &[u8],
    ) -> Result<Self, ShapeError> {
        ShapeError::check_multiple("k", k, weight_type.block_len())?;
        let too_large = ShapeError::Range {
            what: "n",
            got: n,
            limit: usize::MAX / k,
        };
        let row_bytes = weight_type.row_bytes(k).ok_or_else(|| too_large.clone())?;
        let n_bytes = row_bytes.checked_mul(n).ok_or(too_large)?;
        ShapeError::check_length("the weights' bytes", rows.len(), n_bytes)?;
        let weights = if weight_type.takes_quantized() {
            Weights::Packed(Arc::new(Packed::new(turn, weight_type, n, rows)))
        } else {
            let packed = PackedFloats::new(turn, weight_type, n, rows);
            Weights::Floats(Arc::new(packed))
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
            Weights::Floats(packed) => {
                let mut outs = out.chunks_exact_mut(1);
                packed.read_row(row, |value| {
                    if let Some(out) = outs.next() {
                        // One value is a whole block: it cannot fail.
                        drop(self.weight_type.dequantize(value, out));
                    }
                });
                Ok(())
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

/// A matrix of a product, and the columns of the result that are its own.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// `[n, k]`.
    pub matrix: &'a Matrix,
    /// The first of its `n` columns.
    pub column: usize,
}

/// Where a product goes.
#[derive(Debug)]
pub struct Out<'a> {
    /// `[m, stride]`.
    pub values: &'a mut [f32],
    /// Values of a row.
    pub stride: usize,
    /// What becomes of the values that the rows have already.
    pub output: Output,
}

/// Checks the shapes of a product and tells whether there is anything to compute.
fn check(
    parts: &[Part<'_>],
    (x_len, x_row_len): (usize, impl Fn(usize) -> usize),
    out: &Out<'_>,
    takes_quantized: bool,
) -> Result<bool, ShapeError> {
    let Some(first) = parts.first() else {
        return Ok(false);
    };
    let k = first.matrix.k;
    let row_len = x_row_len(k);
    let m = x_len / row_len.max(1);
    ShapeError::check_length("the activations", x_len, m * row_len)?;
    ShapeError::check_length("out", out.values.len(), m * out.stride)?;
    let mut end = 0;
    for part in parts {
        let matrix = part.matrix;
        if matrix.takes_quantized() != takes_quantized {
            return Err(ShapeError::Activations {
                weight_type: matrix.weight_type.name(),
                needed: if takes_quantized { "f32" } else { "quantised" },
            });
        }
        ShapeError::check_length("a row of the weights", matrix.k, k)?;
        // In order, so that no two parts write the same columns.
        ShapeError::check_range("the end of the columns before", end, part.column + 1)?;
        end = part.column.saturating_add(matrix.n);
        ShapeError::check_range("the end of a part's columns", end, out.stride + 1)?;
    }
    Ok(m > 0 && end > 0)
}

/// Computes `out = x · Wᵀ` for activations that [`crate::quantize::quantize_rows`] made, and for several
/// matrices side by side.
///
/// Shapes: `acts` is `[m, row_words(k)]`; the parts' columns ascend.
///
/// # Errors
/// [`ShapeError`] when a length does not match, columns overlap or weights are floats.
pub fn linear_quantized(
    turn: &Turn<'_>,
    parts: &[Part<'_>],
    acts: &[u32],
    out: &mut Out<'_>,
) -> Result<(), ShapeError> {
    if check(parts, (acts.len(), row_words), out, true)? {
        quantized::linear(turn, parts, acts, out);
    }
    Ok(())
}

/// Computes `out = x · Wᵀ` for weights of type F32, F16 or BF16, and for several matrices side by side.
///
/// The products of a row are summed in ascending order, in pieces whose sums are then added: with fused
/// multiply-adds where the processor has them, without in the scalar tier, where a fused one would be
/// a slow library call.
///
/// Shapes: `x` is `[m, k]`; the parts' columns ascend.
///
/// # Errors
/// [`ShapeError`] when a length does not match, columns overlap or weights are quantised.
pub fn linear_f32(
    turn: &Turn<'_>,
    parts: &[Part<'_>],
    x: &[f32],
    out: &mut Out<'_>,
) -> Result<(), ShapeError> {
    if check(parts, (x.len(), |k| k), out, false)? {
        for part in parts.iter().filter(|part| part.matrix.n > 0) {
            float::linear(turn, *part, x, out);
        }
    }
    Ok(())
}
