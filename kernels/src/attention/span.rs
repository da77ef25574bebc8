//! One span of positions: scores, weights and weighted values of the heads that share a KV head.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{KvShape, SPAN, Scratch};
use crate::Isa;
use crate::elementary::exp;
use crate::half_floats::from_half_bytes;
use crate::isa::vectorized;

/// Lanes of a sum: lane `l` sums `l`, `l + 16`, ….
const LANES: usize = 16;

/// At most [`SPAN`] positions of a sequence, none of them past a multiple of [`SPAN`].
pub(super) struct Span<'a> {
    pub(super) shape: KvShape,
    pub(super) table: &'a [u32],
    pub(super) kv_head: usize,
    pub(super) positions: Range<usize>,
}

impl Span<'_> {
    /// Computes the scores of every head.
    ///
    /// Shapes: `q` is `[n_group_heads, head_dim]`.
    pub(super) fn score(
        &self,
        isa: Isa,
        q: &[f32],
        scale: f32,
        k: &[f16],
        scratch: &mut Scratch<'_>,
    ) {
        let head_dim = self.shape.head_dim;
        self.for_each_block(isa, k, scratch.block, |within, rows| {
            let heads = q.chunks_exact(head_dim);
            for (q, scores) in heads.zip(scratch.scores.chunks_exact_mut(SPAN)) {
                dots(isa, q, rows, scale, &mut scores[within.clone()]);
            }
        });
    }

    /// Turns scores into weights and merges the weighted values into `out`, `[n_group_heads, head_dim]`.
    pub(super) fn weigh(&self, isa: Isa, v: &[f16], scratch: &mut Scratch<'_>, out: &mut [f32]) {
        let head_dim = self.shape.head_dim;
        let Scratch {
            block,
            scores,
            values,
            merged,
        } = scratch;
        let n = self.positions.len();
        let mut heads = scores.chunks_exact_mut(SPAN).zip(merged.as_chunks_mut().0);
        for (out, (scores, state)) in out.chunks_exact_mut(head_dim).zip(&mut heads) {
            let rescale = soften(isa, &mut scores[..n], state);
            multiply(isa, out, rescale);
        }
        values.fill(0.0);
        self.for_each_block(isa, v, block, |within, rows| {
            let heads = values.chunks_exact_mut(head_dim);
            for (values, weights) in heads.zip(scores.chunks_exact(SPAN)) {
                accumulate(isa, &weights[within.clone()], rows, values);
            }
        });
        for (out, value) in out.iter_mut().zip(values.iter()) {
            *out += value;
        }
    }

    /// Widens the head's rows of every block in turn and shows them, with their places in the span.
    fn for_each_block(
        &self,
        isa: Isa,
        cache: &[f16],
        memory: &mut [f32],
        mut see: impl FnMut(Range<usize>, &[f32]),
    ) {
        let KvShape {
            block_len,
            head_dim,
            ..
        } = self.shape;
        let mut position = self.positions.start;
        while position < self.positions.end {
            let index = position / block_len;
            let end = self.positions.end.min((index + 1) * block_len);
            let start = self.shape.start(self.table[index], self.kv_head);
            let rows = position % block_len * head_dim..(end - index * block_len) * head_dim;
            let halves = &cache[start + rows.start..start + rows.end];
            let floats = &mut memory[..halves.len()];
            let bits: &[u16] = halves.reinterpret_cast();
            from_half_bytes(isa, bytemuck::cast_slice(bits), floats);
            see(
                position - self.positions.start..end - self.positions.start,
                floats,
            );
            position = end;
        }
    }
}

vectorized! {
    /// Computes the scaled product of a query and each row.
    fn dots(q: &[f32], rows: &[f32], scale: f32, scores: &mut [f32]) {
        for (row, score) in rows.chunks_exact(q.len()).zip(scores) {
            let mut lanes = [0.0_f32; LANES];
            let (q_chunks, q_tail) = q.as_chunks::<LANES>();
            let (row_chunks, row_tail) = row.as_chunks::<LANES>();
            for (q, row) in q_chunks.iter().zip(row_chunks) {
                for lane in 0..LANES {
                    lanes[lane] += q[lane] * row[lane];
                }
            }
            for ((lane, q), row) in lanes.iter_mut().zip(q_tail).zip(row_tail) {
                *lane += q * row;
            }
            *score = sum(&lanes) * scale;
        }
    }
}

/// The sum of the lanes, halves first: vectors do it so.
#[inline]
fn sum(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

vectorized! {
    /// Turns the scores of a span into weights against the highest score so far, counts them into
    /// the state (highest score, sum of weights), and returns what earlier weights shrink by.
    fn soften(scores: &mut [f32], state: &mut [f32; 2]) -> f32 {
        let [before, total] = *state;
        let highest = scores.iter().fold(before, |highest, score| highest.max(*score));
        let mut lanes = [0.0_f32; LANES];
        let (chunks, tail) = scores.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *score = exp(*score - highest);
                *lane += *score;
            }
        }
        for (lane, score) in lanes.iter_mut().zip(tail) {
            *score = exp(*score - highest);
            *lane += *score;
        }
        let rescale = exp(before - highest);
        *state = [highest, total * rescale + sum(&lanes)];
        rescale
    }
}

vectorized! {
    /// Adds the weighted rows to `values`, in order.
    fn accumulate(weights: &[f32], rows: &[f32], values: &mut [f32]) {
        let head_dim = values.len();
        let (chunks, tail) = values.as_chunks_mut::<LANES>();
        let tail_start = head_dim - tail.len();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            let mut lanes = *chunk;
            for (weight, row) in weights.iter().zip(rows.chunks_exact(head_dim)) {
                let row = &row[i * LANES..(i + 1) * LANES];
                for (lane, value) in lanes.iter_mut().zip(row) {
                    *lane += weight * value;
                }
            }
            *chunk = lanes;
        }
        for (weight, row) in weights.iter().zip(rows.chunks_exact(head_dim)) {
            for (lane, value) in tail.iter_mut().zip(&row[tail_start..]) {
                *lane += weight * value;
            }
        }
    }
}

vectorized! {
    /// Multiplies all values by a factor.
    fn multiply(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }
}

vectorized! {
    /// Divides all values by the sum of their weights.
    pub(super) fn divide(values: &mut [f32], weight: f32) {
        let factor = 1.0 / weight;
        for value in values {
            *value *= factor;
        }
    }
}
