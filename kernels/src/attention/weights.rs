//! From scores to weights, and from parts of a softmax to the whole.

use crate::elementary::exp;
use crate::isa::vectorized;

/// Lanes of a sum: lane `l` sums `l`, `l + 16`, ….
const LANES: usize = 16;

/// The highest score of some positions and the sum of their weights against it.
pub(super) type State = [f32; 2];

/// The state of no positions at all.
pub(super) const NOTHING: State = [f32::NEG_INFINITY, 0.0];

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
    /// Turns scores into weights against the highest of them.
    pub(super) fn soften(scores: &mut [f32]) -> State {
        let mut highest = [f32::NEG_INFINITY; LANES];
        let (chunks, tail) = scores.as_chunks::<LANES>();
        for chunk in chunks {
            for (highest, score) in highest.iter_mut().zip(chunk) {
                *highest = if *score > *highest { *score } else { *highest };
            }
        }
        for (highest, score) in highest.iter_mut().zip(tail) {
            *highest = if *score > *highest { *score } else { *highest };
        }
        let highest = highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
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
        [highest, sum(&lanes)]
    }
}

vectorized! {
    /// Adds the weighted values of later positions to those of earlier ones.
    pub(super) fn merge(
        values: &mut [f32],
        state: &mut [f32; 2],
        later: &[f32],
        later_state: &[f32; 2],
    ) {
        let highest = state[0].max(later_state[0]);
        let [before, after] = [state[0], later_state[0]].map(|score| exp(score - highest));
        for (value, later) in values.iter_mut().zip(later) {
            *value = *value * before + later * after;
        }
        *state = [highest, state[1] * before + later_state[1] * after];
    }
}

vectorized! {
    /// Divides all values by the sum of their weights.
    pub(super) fn divide(values: &[f32], weight: f32, out: &mut [f32]) {
        let factor = 1.0 / weight;
        for (out, value) in out.iter_mut().zip(values) {
            *out = value * factor;
        }
    }
}

vectorized! {
    /// Multiplies `values` by `factors`, one by one.
    pub(super) fn multiply(values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}
