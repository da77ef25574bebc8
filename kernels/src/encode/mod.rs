//! Weights from floats: the blocks of a GGUF file, as llama.cpp's quantiser makes them.
//!
//! Every tier gives the same bits, and those of ggml's reference code compiled without fused
//! multiply-adds, with and without importance. Sixteen blocks go through a search side by side, one a
//! lane; nothing is summed across lanes.

#![expect(
    clippy::inline_always,
    reason = "compiled for every tier as a part of what calls it"
)]

mod fit;
mod k;
mod lanes;
mod layout;
mod legacy;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

use crate::half_floats::{from_half_bytes, to_half};
use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{Isa, ShapeError, Turn, WeightType};

/// No block with a scale in half precision holds a greater weight, and no square of a lesser one is infinite.
const GREATEST: f32 = 65_504.0 * 128.0;
/// Values a task should have, at least.
const TASK_VALUES: usize = 8192;

/// Why rows of weights cannot be written in another type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecodeError {
    /// A length does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A weight is infinite or none at all.
    #[error("row {row_idx} holds a weight that is not finite")]
    NotFinite {
        /// The first such row, counted from 0.
        row_idx: usize,
    },
    /// A weight, or the scale of a block, is greater than a half-precision float can be.
    #[error("row {row_idx} holds a weight too great for half precision, in which {to} keeps it")]
    TooGreat {
        /// The first such row, counted from 0.
        row_idx: usize,
        /// The type it was to be written in.
        to: &'static str,
    },
}

/// Rows of `k` weights in one type, to be written in another.
#[derive(Clone, Copy, Debug)]
pub struct Recode<'a> {
    /// What they are in.
    pub from: WeightType,
    /// What they are to be in.
    pub to: WeightType,
    /// Weights of a row.
    pub k: usize,
    /// How much an error in each weight of a row matters; none: as its magnitude.
    pub importance: Option<&'a [f32]>,
}

impl Recode<'_> {
    /// Writes rows, shared out among the team.
    ///
    /// Shapes: `rows` and `out` hold as many rows of `k` weights, in either type.
    ///
    /// # Errors
    /// [`RecodeError`]: a length does not fit, or a weight cannot be written.
    pub fn rows(&self, turn: &Turn<'_>, rows: &[u8], out: &mut [u8]) -> Result<(), RecodeError> {
        let (from_bytes, to_bytes) = (self.row_bytes(self.from)?, self.row_bytes(self.to)?);
        if let Some(importance) = self.importance {
            ShapeError::check_length("the importance", importance.len(), self.k)?;
        }
        ShapeError::check_multiple(
            "the bytes of all rows",
            rows.len().max(from_bytes),
            from_bytes,
        )?;
        let n_rows = rows.len() / from_bytes;
        ShapeError::check_length("the rows to write", out.len(), n_rows * to_bytes)?;
        let (not_finite, too_great) = (AtomicUsize::new(n_rows), AtomicUsize::new(n_rows));
        let (isa, task_rows) = (turn.isa(), TASK_VALUES.div_ceil(self.k));
        let out = Disjoint::new(out);
        turn.run_with_scratch(n_rows.div_ceil(task_rows), self.k, &|task_idx, floats| {
            for row_idx in task_idx * task_rows..n_rows.min((task_idx + 1) * task_rows) {
                let row = &rows[row_idx * from_bytes..][..from_bytes];
                // SAFETY: each row belongs to one task.
                let out = unsafe { out.slice_mut(row_idx * to_bytes..(row_idx + 1) * to_bytes) };
                decode(isa, self.from, row, floats);
                let magnitude = magnitude_bits(isa, floats);
                let is_too_great = magnitude > GREATEST.to_bits() && self.to.takes_quantized();
                if magnitude >= f32::INFINITY.to_bits() {
                    not_finite.fetch_min(row_idx, Ordering::Relaxed);
                } else if is_too_great || !self.encode(isa, floats, out) {
                    too_great.fetch_min(row_idx, Ordering::Relaxed);
                }
            }
        });
        let (not_finite, too_great) = (not_finite.into_inner(), too_great.into_inner());
        if not_finite < n_rows {
            return Err(RecodeError::NotFinite {
                row_idx: not_finite,
            });
        }
        if too_great < n_rows {
            return Err(RecodeError::TooGreat {
                row_idx: too_great,
                to: self.to.name(),
            });
        }
        Ok(())
    }

    fn row_bytes(&self, ty: WeightType) -> Result<usize, ShapeError> {
        ShapeError::check_multiple("k", self.k, ty.block_len())?;
        ty.row_bytes(self.k).ok_or(ShapeError::Multiple {
            what: "k",
            got: self.k,
            of: ty.block_len(),
        })
    }

    /// Encodes a row. Whether every half-precision float in it is finite.
    fn encode(&self, isa: Isa, row: &[f32], out: &mut [u8]) -> bool {
        let importance = self.importance;
        match self.to {
            WeightType::F32 => {
                for (bytes, float) in out.as_chunks_mut().0.iter_mut().zip(row) {
                    *bytes = float.to_le_bytes();
                }
            }
            WeightType::F16 => f16_row(isa, row, out),
            WeightType::BF16 => bf16_row(isa, row, out),
            WeightType::Q4_0 => q4_0(isa, row, importance, out),
            WeightType::Q4_1 => q4_1(isa, row, importance, out),
            WeightType::Q5_0 => q5_0(isa, row, importance, out),
            WeightType::Q5_1 => q5_1(isa, row, importance, out),
            WeightType::Q8_0 => q8_0(isa, row, out),
            WeightType::Q2K => q2_k(isa, row, importance, out),
            WeightType::Q3K => q3_k(isa, row, importance, out),
            WeightType::Q4K => q4_k(isa, row, importance, out),
            WeightType::Q5K => q5_k(isa, row, importance, out),
            WeightType::Q6K => q6_k(isa, row, importance, out),
        }
        halves_are_finite(self.to, out)
    }
}

/// Decodes a row whose length was checked.
fn decode(isa: Isa, from: WeightType, row: &[u8], floats: &mut [f32]) {
    match from {
        WeightType::F16 => from_half_bytes(isa, row, floats),
        WeightType::BF16 => from_bf16(isa, row, floats),
        _ => {
            let decoded = from.dequantize(row, floats);
            debug_assert!(decoded.is_ok(), "the lengths were checked");
        }
    }
}

fn f16_row(isa: Isa, row: &[f32], out: &mut [u8]) {
    const RUN: usize = 64;
    let mut halves = [f16::ZERO; RUN];
    for (floats, bytes) in row.chunks(RUN).zip(out.chunks_mut(2 * RUN)) {
        let halves = &mut halves[..floats.len()];
        to_half(isa, floats, halves);
        for (bytes, half) in bytes.as_chunks_mut().0.iter_mut().zip(halves) {
            *bytes = half.to_le_bytes();
        }
    }
}

/// Whether no half-precision float of a row of blocks is infinite.
fn halves_are_finite(ty: WeightType, out: &[u8]) -> bool {
    let is_finite = |block: &[u8], at: usize| {
        let exponent = 0x7c;
        block[at + 1] & exponent != exponent
    };
    let places: &[usize] = match ty {
        WeightType::F32 => return true,
        WeightType::BF16 => {
            return out
                .as_chunks::<2>()
                .0
                .iter()
                .all(|bytes| bf16::from_le_bytes(*bytes).is_finite());
        }
        WeightType::F16 | WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 => &[0],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
        WeightType::Q2K => &[80, 82],
        WeightType::Q3K => &[108],
        WeightType::Q6K => &[208],
    };
    let mut blocks = out.chunks_exact(ty.block_bytes());
    blocks.all(|block| places.iter().all(|at| is_finite(block, *at)))
}

vectorized! {
    fn magnitude_bits(row: &[f32]) -> u32 {
        // Those of floats are ordered as their bits, what is not finite being the greatest.
        row.iter().fold(0, |most, float| most.max(float.abs().to_bits()))
    }
}

vectorized! {
    fn from_bf16(row: &[u8], floats: &mut [f32]) {
        for (float, bytes) in floats.iter_mut().zip(row.as_chunks().0) {
            *float = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}

vectorized! {
    fn bf16_row(row: &[f32], out: &mut [u8]) {
        for (bytes, float) in out.as_chunks_mut().0.iter_mut().zip(row) {
            // Ties to even; the row has no NaN.
            let bits = float.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
            let [_, _, low, high] = rounded.to_le_bytes();
            *bytes = [low, high];
        }
    }
}

/// Compiles an encoder for every tier.
macro_rules! encoder {
    ($name:ident, $module:ident :: $encode:ident) => {
        vectorized! {
            fn $name(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
                $module::$encode(row, importance, out);
            }
        }
    };
}
encoder!(q4_0, legacy::q4_0);
encoder!(q4_1, legacy::q4_1);
encoder!(q5_0, legacy::q5_0);
encoder!(q5_1, legacy::q5_1);
encoder!(q2_k, k::q2);
encoder!(q3_k, k::q3);
encoder!(q4_k, k::q4);
encoder!(q5_k, k::q5);
encoder!(q6_k, k::q6);

vectorized! {
    fn q8_0(row: &[f32], out: &mut [u8]) {
        legacy::q8_0(row, out);
    }
}
