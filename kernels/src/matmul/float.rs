//! The product with float weights.
//!
//! A task takes strips of 32 weight rows. Some of a strip's values are brought to f32, whereupon rows of
//! activations are multiplied with them in registers. A dot product is summed in the order of `k` within
//! each piece, then piece after piece.

use super::{Out, Output, Part, Weights};
use crate::dense::{Strided, product};
use crate::half_floats::from_half_bytes;
use crate::isa::vectorized;
use crate::pack::{FLOAT_STRIP_ROWS, PackedFloats};
use crate::team::Disjoint;
use crate::{Isa, Turn, WeightType};

/// Values of each weight row that are multiplied at a time: as floats they take 16 KiB.
const PIECE_LEN: usize = 128;
/// Values of a piece, all rows together.
const PIECE_VALUES: usize = PIECE_LEN * FLOAT_STRIP_ROWS;
/// Rows of activations that a piece serves: their sums are 4 KiB.
const BATCH_ROWS: usize = 32;
/// Sums of a batch.
const BATCH_SUMS: usize = BATCH_ROWS * FLOAT_STRIP_ROWS;
/// Multiplications a task should have, at least: some microseconds.
const TASK_PRODUCTS: usize = 1 << 16;
/// Tasks a thread should find, where there is work enough.
const TASKS_PER_THREAD: usize = 12;

/// One part of a product under way.
struct Product<'a> {
    isa: Isa,
    part: Part<'a>,
    packed: &'a PackedFloats,
    x: &'a [f32],
    out: Disjoint<'a, f32>,
    stride: usize,
    output: Output,
}

/// Computes one part of a product; the shapes were checked, and neither is empty.
pub(super) fn linear(turn: &Turn<'_>, part: Part<'_>, x: &[f32], out: &mut Out<'_>) {
    let w = part.matrix;
    let Weights::Floats(packed) = &w.weights else {
        return; // the caller checked that the weights are floats
    };
    let m = x.len() / w.k;
    let n_strips = w.n.div_ceil(FLOAT_STRIP_ROWS);
    let task_strips = TASK_PRODUCTS
        .div_ceil(FLOAT_STRIP_ROWS * w.k * m)
        .max(n_strips / (turn.n_threads() * TASKS_PER_THREAD))
        .min(n_strips);
    let product = Product {
        isa: turn.isa(),
        part,
        packed,
        x,
        stride: out.stride,
        output: out.output,
        out: Disjoint::new(out.values),
    };
    let scratch_len = PIECE_VALUES + 2 * BATCH_SUMS;
    turn.run_with_scratch(
        n_strips.div_ceil(task_strips),
        scratch_len,
        &|task_idx, scratch| {
            for strip_idx in task_idx * task_strips..n_strips.min((task_idx + 1) * task_strips) {
                for first in (0..m).step_by(BATCH_ROWS) {
                    let n_rows = BATCH_ROWS.min(m - first);
                    product.batch(strip_idx, first, n_rows, scratch);
                }
            }
        },
    );
}

impl Product<'_> {
    /// Multiplies a strip with some rows of activations.
    fn batch(&self, strip_idx: usize, first: usize, n_rows: usize, scratch: &mut [f32]) {
        let w = self.part.matrix;
        let (piece, sums) = scratch.split_at_mut(PIECE_VALUES);
        let (sums, partial) = sums.split_at_mut(BATCH_SUMS);
        let n_sums = n_rows * FLOAT_STRIP_ROWS;
        let (sums, partial) = (&mut sums[..n_sums], &mut partial[..n_sums]);
        sums.fill(0.0);
        let bytes = self.packed.strip(strip_idx);
        let piece_bytes = PIECE_VALUES * w.weight_type.block_bytes();
        for (piece_idx, bytes) in bytes.chunks(piece_bytes).enumerate() {
            let weights = floats(self.isa, w.weight_type, bytes, piece);
            let rows = Strided {
                values: &self.x[first * w.k + piece_idx * PIECE_LEN..],
                stride: w.k,
                n_rows,
            };
            let mut out = Out {
                values: partial,
                stride: FLOAT_STRIP_ROWS,
                output: Output::Write,
            };
            product(self.isa, rows, weights, FLOAT_STRIP_ROWS, &mut out);
            add(self.isa, sums, partial);
        }
        let first_row = strip_idx * FLOAT_STRIP_ROWS;
        let n_columns = FLOAT_STRIP_ROWS.min(w.n - first_row);
        for (row, sums) in sums.chunks_exact(FLOAT_STRIP_ROWS).enumerate() {
            let start = (first + row) * self.stride + self.part.column + first_row;
            // SAFETY: a strip, and with it these columns, belongs to one task.
            let out = unsafe { self.out.slice_mut(start..start + n_columns) };
            match self.output {
                Output::Write => out.copy_from_slice(&sums[..n_columns]),
                Output::Add => add(self.isa, out, &sums[..n_columns]),
            }
        }
    }
}

/// Values as f32: where they lie if they are that already, else brought into `space`.
fn floats<'a>(
    isa: Isa,
    weight_type: WeightType,
    bytes: &'a [u8],
    space: &'a mut [f32],
) -> &'a [f32] {
    if weight_type == WeightType::F32
        && cfg!(target_endian = "little")
        && let Ok(floats) = bytemuck::try_cast_slice(bytes)
    {
        return floats;
    }
    let floats = &mut space[..bytes.len() / weight_type.block_bytes()];
    match weight_type {
        WeightType::F16 => from_half_bytes(isa, bytes, floats),
        WeightType::BF16 => from_upper_halves(isa, bytes, floats),
        // The lengths are those of a row: it cannot fail.
        _ => drop(weight_type.dequantize(bytes, floats)),
    }
    floats
}

vectorized! {
    /// Adds value by value.
    fn add(sums: &mut [f32], values: &[f32]) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

vectorized! {
    /// Widens BF16.
    fn from_upper_halves(bytes: &[u8], floats: &mut [f32]) {
        for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *float = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}
