//! The product with float weights.
//!
//! A task takes weight rows four at a time, brings them to f32 once, and multiplies them with all
//! activation rows. A dot product has 16 lanes: lane `l` sums the products at `l`, `l + 16`, ….

use super::{Matrix, Out, Output, Part, Weights};
use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{Isa, Turn, WeightType};

/// Lanes of a dot product.
const LANES: usize = 16;
/// Weight rows multiplied at once.
const TILE_ROWS: usize = 4;
/// Multiplications a task should have, at least: some microseconds.
const TASK_PRODUCTS: usize = 1 << 15;
/// Tasks a thread should find, where there is work enough.
const TASKS_PER_THREAD: usize = 6;

/// Computes one part of a product; the shapes were checked, and neither is empty.
pub(super) fn linear(turn: &Turn<'_>, part: Part<'_>, x: &[f32], out: &mut Out<'_>) {
    let w = part.matrix;
    let m = x.len() / w.k;
    let n_tiles = w.n.div_ceil(TILE_ROWS);
    let task_tiles = TASK_PRODUCTS
        .div_ceil(TILE_ROWS * w.k * m)
        .max(n_tiles / (turn.n_threads() * TASKS_PER_THREAD))
        .min(n_tiles);
    let Weights::Floats(source) = &w.weights else {
        // The caller checked that the weights are floats.
        return;
    };
    let bytes = source.bytes();
    let isa = turn.isa();
    let (stride, output) = (out.stride, out.output);
    let out = Disjoint::new(out.values);
    turn.run_with_scratch(
        n_tiles.div_ceil(task_tiles),
        TILE_ROWS * w.k,
        &|task_idx, scratch| {
            for tile_idx in task_idx * task_tiles..n_tiles.min((task_idx + 1) * task_tiles) {
                let first_row = tile_idx * TILE_ROWS;
                let rows = float_rows(isa, (w, bytes), first_row, scratch);
                for (act_idx, x) in x.chunks_exact(w.k).enumerate() {
                    let dots = dot_rows(isa, &rows, x);
                    let start = act_idx * stride + part.column + first_row;
                    // SAFETY: a tile, and with it these columns, belongs to one task.
                    let out =
                        unsafe { out.slice_mut(start..start + TILE_ROWS.min(w.n - first_row)) };
                    for (out, dot) in out.iter_mut().zip(dots) {
                        match output {
                            Output::Write => *out = dot,
                            Output::Add => *out += dot,
                        }
                    }
                }
            }
        },
    );
}

/// Four rows as f32: where they lie if they are that already, else brought into `scratch`.
fn float_rows<'a>(
    isa: Isa,
    (w, bytes): (&Matrix, &'a [u8]),
    first_row: usize,
    scratch: &'a mut [f32],
) -> [&'a [f32]; TILE_ROWS] {
    let row_bytes = bytes.len() / w.n;
    // Where there are fewer rows, the last one stands in.
    let rows: [&[u8]; TILE_ROWS] = std::array::from_fn(|i| {
        let row = (first_row + i).min(w.n - 1);
        &bytes[row * row_bytes..(row + 1) * row_bytes]
    });
    if w.weight_type == WeightType::F32 && cfg!(target_endian = "little") {
        let in_place = rows.map(bytemuck::try_cast_slice);
        if let [Ok(a), Ok(b), Ok(c), Ok(d)] = in_place {
            return [a, b, c, d];
        }
    }
    for (row, floats) in rows.iter().zip(scratch.chunks_exact_mut(w.k)) {
        match w.weight_type {
            WeightType::F16 => crate::half_floats::from_half_bytes(isa, row, floats),
            WeightType::BF16 => from_upper_halves(isa, row, floats),
            // The lengths are those of a row: it cannot fail.
            _ => drop(w.weight_type.dequantize(row, floats)),
        }
    }
    let scratch: &[f32] = scratch;
    std::array::from_fn(|i| &scratch[i * w.k..(i + 1) * w.k])
}

vectorized! {
    /// Widens BF16.
    fn from_upper_halves(bytes: &[u8], floats: &mut [f32]) {
        for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *float = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}

vectorized! {
    /// The dot products of four weight rows with one row of activations.
    fn dot_rows(rows: &[&[f32]; TILE_ROWS], x: &[f32]) -> [f32; TILE_ROWS] {
        let mut lanes = [[0.0; LANES]; TILE_ROWS];
        let (chunks, tail) = x.as_chunks::<LANES>();
        let [a, b, c, d] = rows.map(|row| row.as_chunks::<LANES>().0);
        for ((((x, a), b), c), d) in chunks.iter().zip(a).zip(b).zip(c).zip(d) {
            lanes[0] = add_products::<FUSED>(lanes[0], a, x);
            lanes[1] = add_products::<FUSED>(lanes[1], b, x);
            lanes[2] = add_products::<FUSED>(lanes[2], c, x);
            lanes[3] = add_products::<FUSED>(lanes[3], d, x);
        }
        for (row, lanes) in rows.iter().zip(&mut lanes) {
            for ((w, x), lane) in row[row.len() - tail.len()..].iter().zip(tail).zip(lanes) {
                *lane = multiply_add::<FUSED>(*w, *x, *lane);
            }
        }
        lanes.map(sum)
    }
}

#[inline]
fn add_products<const FUSED: bool>(
    mut lanes: [f32; LANES],
    w: &[f32; LANES],
    x: &[f32; LANES],
) -> [f32; LANES] {
    for i in 0..LANES {
        lanes[i] = multiply_add::<FUSED>(w[i], x[i], lanes[i]);
    }
    lanes
}

/// `a * b + c`, fused where that is one instruction.
#[inline]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Sums lanes pairwise, always in the same order.
#[inline]
fn sum(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
