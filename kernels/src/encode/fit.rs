//! Scales for a block of weights: of several that are near, the one whose levels come nearest to the
//! weights.
//!
//! Source: the searches of ggml's reference code, operation by operation in its order, so that a file has
//! the bits that llama.cpp's quantiser gives it where that does not fuse multiply-adds.

use super::lanes::{Lanes, Mask, Strip, round, to_byte};

/// Blocks whose greatest weight is below this are zero.
pub(super) const TINY: f32 = 1e-15;

/// How a scale and a minimum are searched.
#[derive(Clone, Copy)]
pub(super) struct Search {
    /// The greatest level.
    pub(super) most: f32,
    /// The first scale tried spreads the levels by so many more.
    pub(super) first: f32,
    /// Each further one by so many more again.
    pub(super) step: f32,
    /// The last one's number.
    pub(super) n_steps: u8,
    /// What is to be small.
    pub(super) deviation: Deviation,
}

/// How far a level is from its weight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Deviation {
    Absolute,
    Squared,
}

impl Deviation {
    #[inline(always)]
    fn of(self, difference: Lanes) -> Lanes {
        match self {
            Self::Absolute => difference.abs(),
            Self::Squared => difference * difference,
        }
    }
}

/// Levels from 0: a weight is `scale * level - min`.
pub(super) struct Affine<const N: usize> {
    pub(super) scale: Lanes,
    pub(super) min: Lanes,
    pub(super) levels: Strip<N>,
}

/// Levels from 0: a weight is `scale * (level - offset)`, or all are zero.
pub(super) struct Symmetric<const N: usize> {
    pub(super) scale: Lanes,
    pub(super) levels: Strip<N>,
}

/// What the tries of one block have in common.
struct Tries<'a, const N: usize> {
    x: &'a Strip<N>,
    weights: &'a Strip<N>,
    sum_w: Lanes,
    sum_x: Lanes,
    most: f32,
}

/// Finds scale and minimum by weighted least squares over several spreads of the levels.
#[inline(always)]
pub(super) fn affine<const N: usize>(
    x: &Strip<N>,
    weights: &Strip<N>,
    search: Search,
) -> Affine<N> {
    let zero = Lanes::all(0.0);
    let (mut low, mut high) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for i in 1..N {
        low = low.least(x[i]);
        high = high.most(x[i]);
        sum_w = sum_w + weights[i];
        sum_x = sum_x + weights[i] * x[i];
    }
    low = low.greater(zero).pick(zero, low);
    let is_flat = high.equal(low);
    let tries = Tries {
        x,
        weights,
        sum_w,
        sum_x,
        most: search.most,
    };
    let mut inverse = Lanes::all(search.most) / (high - low);
    let mut scale = Lanes::all(1.0) / inverse;
    let mut from = low;
    let mut min = low;
    let (levels, _) = tries.levels(inverse, from);
    let mut best = tries.error(&levels, scale, min, search.deviation);
    for step in 0..=search.n_steps {
        // What is tried spreads from the best minimum so far.
        let spread = search.first + search.step * f32::from(step) + search.most;
        let new_inverse = Lanes::all(spread) / (high - min);
        let (levels, sums) = tries.levels(new_inverse, min);
        let (new_scale, new_min, is_solved) = tries.solve(sums);
        let error = tries.error(&levels, new_scale, new_min, search.deviation);
        let is_better = is_solved & error.less(best);
        best = is_better.pick(error, best);
        inverse = is_better.pick(new_inverse, inverse);
        from = is_better.pick(min, from);
        scale = is_better.pick(new_scale, scale);
        min = is_better.pick(new_min, min);
    }
    let (mut levels, _) = tries.levels(inverse, from);
    for level in &mut levels {
        *level = is_flat.pick(zero, *level);
    }
    Affine {
        scale: is_flat.pick(zero, scale),
        min: is_flat.pick(low, min).map(|min| -min),
        levels,
    }
}

/// Weighted sums over a block's levels: of themselves, of their squares, with the weights.
type Sums = (Lanes, Lanes, Lanes);

impl<const N: usize> Tries<'_, N> {
    /// The levels above a minimum under an inverse scale, and their sums.
    #[inline(always)]
    fn levels(&self, inverse: Lanes, min: Lanes) -> (Strip<N>, Sums) {
        let zero = Lanes::all(0.0);
        let mut levels = [zero; N];
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for ((slot, x), weight) in levels.iter_mut().zip(self.x).zip(self.weights) {
            let level = (inverse * (*x - min)).level(0.0, self.most);
            let weighted = *weight * level;
            sum_l = sum_l + weighted;
            sum_l2 = sum_l2 + weighted * level;
            sum_xl = sum_xl + weighted * *x;
            *slot = level;
        }
        (levels, (sum_l, sum_l2, sum_xl))
    }

    /// Scale and minimum of least squares, the minimum not above zero; and whether there are any.
    #[inline(always)]
    fn solve(&self, (sum_l, sum_l2, sum_xl): Sums) -> (Lanes, Lanes, Mask) {
        let zero = Lanes::all(0.0);
        let (sum_w, sum_x) = (self.sum_w, self.sum_x);
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        let scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        let is_above = min.greater(zero);
        (
            is_above.pick(sum_xl / sum_l2, scale),
            is_above.pick(zero, min),
            determinant.greater(zero),
        )
    }

    #[inline(always)]
    fn error(&self, levels: &Strip<N>, scale: Lanes, min: Lanes, deviation: Deviation) -> Lanes {
        let mut error = Lanes::all(0.0);
        for ((level, x), weight) in levels.iter().zip(self.x).zip(self.weights) {
            let difference = scale * *level + min - *x;
            error = error + *weight * deviation.of(difference);
        }
        error
    }
}

/// The weight of the greatest magnitude, the first of several, and that magnitude.
#[inline(always)]
pub(super) fn greatest<const N: usize>(x: &Strip<N>) -> (Lanes, Lanes) {
    let (mut signed, mut magnitude) = (Lanes::all(0.0), Lanes::all(0.0));
    for value in x {
        let is_greater = value.abs().greater(magnitude);
        magnitude = is_greater.pick(value.abs(), magnitude);
        signed = is_greater.pick(*value, signed);
    }
    (signed, magnitude)
}

/// Finds a scale for levels from `-most` to `most - 1`, given from 0.
#[inline(always)]
pub(super) fn symmetric<const N: usize>(
    x: &Strip<N>,
    weights: &Strip<N>,
    most: f32,
) -> Symmetric<N> {
    let zero = Lanes::all(0.0);
    let (signed, magnitude) = greatest(x);
    let is_tiny = magnitude.less(Lanes::all(TINY));
    let mut best_inverse = Lanes::all(-most) / signed;
    let (sum_lx, sum_l2) = products(x, weights, best_inverse, most);
    let mut scale = sum_l2.equal(zero).pick(zero, sum_lx / sum_l2);
    let mut best = scale * sum_lx;
    for step in (-9_i8..=9).filter(|step| *step != 0) {
        let inverse = Lanes::all(-(most + 0.1 * f32::from(step))) / signed;
        let (sum_lx, sum_l2) = products(x, weights, inverse, most);
        let is_better = sum_l2.greater(zero) & (sum_lx * sum_lx).greater(best * sum_l2);
        let new_scale = sum_lx / sum_l2;
        scale = is_better.pick(new_scale, scale);
        best = is_better.pick(new_scale * sum_lx, best);
        best_inverse = is_better.pick(inverse, best_inverse);
    }
    let mut levels = [zero; N];
    for i in 0..N {
        let level = (best_inverse * x[i]).level(-most, most - 1.0);
        levels[i] = is_tiny.pick(zero, level + Lanes::all(most));
    }
    Symmetric {
        scale: is_tiny.pick(zero, scale),
        levels,
    }
}

/// Weighted sums of the levels with the weights, and of the levels' squares.
#[inline(always)]
fn products<const N: usize>(
    x: &Strip<N>,
    weights: &Strip<N>,
    inverse: Lanes,
    most: f32,
) -> (Lanes, Lanes) {
    let (mut sum_lx, mut sum_l2) = (Lanes::all(0.0), Lanes::all(0.0));
    for i in 0..N {
        let level = (inverse * x[i]).level(-most, most - 1.0);
        sum_lx = sum_lx + weights[i] * x[i] * level;
        sum_l2 = sum_l2 + weights[i] * level * level;
    }
    (sum_lx, sum_l2)
}

/// Finds a scale for levels from `-most` to `most - 1`, given from 0, by moving one level after the other.
#[inline(always)]
pub(super) fn refined<const N: usize>(x: &Strip<N>, most: f32) -> Symmetric<N> {
    const ROUNDS: usize = 5;
    let zero = Lanes::all(0.0);
    let (signed, magnitude) = greatest(x);
    let is_tiny = magnitude.less(Lanes::all(TINY));
    let inverse = Lanes::all(-most) / signed;
    let mut levels = [zero; N];
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for i in 0..N {
        levels[i] = (inverse * x[i]).level(-most, most - 1.0);
        let weight = x[i] * x[i];
        sum_lx = sum_lx + weight * x[i] * levels[i];
        sum_l2 = sum_l2 + weight * levels[i] * levels[i];
    }
    for _ in 0..ROUNDS {
        let mut has_moved = false;
        for i in 0..N {
            let weight = x[i] * x[i];
            let rest_lx = sum_lx - weight * x[i] * levels[i];
            let rest_l2 = sum_l2 - weight * levels[i] * levels[i];
            let level = (x[i] * rest_l2 / rest_lx).level(-most, most - 1.0);
            let new_lx = rest_lx + weight * x[i] * level;
            let new_l2 = rest_l2 + weight * level * level;
            let moves = rest_lx.greater(zero)
                & level.equal(levels[i]).not()
                & new_l2.greater(zero)
                & (new_lx * new_lx * sum_l2).greater(sum_lx * sum_lx * new_l2);
            has_moved |= moves.any();
            levels[i] = moves.pick(level, levels[i]);
            sum_lx = moves.pick(new_lx, sum_lx);
            sum_l2 = moves.pick(new_l2, sum_l2);
        }
        if !has_moved {
            break;
        }
    }
    for level in &mut levels {
        *level = is_tiny.pick(zero, *level + Lanes::all(most));
    }
    let scale = sum_l2.greater(zero).pick(sum_lx / sum_l2, zero);
    Symmetric {
        scale: is_tiny.pick(zero, scale),
        levels,
    }
}

/// Finds a scale for values that are not negative and their levels from 0 to `most`.
pub(super) fn positive<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    most: f32,
) -> (f32, [u8; N]) {
    let greatest = x
        .iter()
        .fold(0.0, |most: f32, x| if *x > most { *x } else { most });
    if greatest < TINY {
        return (0.0, [0; N]);
    }
    let error = |inverse: f32, scale: f32, level: &dyn Fn(f32) -> f32| {
        let mut error = 0.0;
        for (x, weight) in x.iter().zip(weights) {
            let difference = x - scale * level(inverse * x);
            error += weight * difference * difference;
        }
        error
    };
    let at_most = |value: f32| {
        let whole = round(value);
        if whole < most { whole } else { most }
    };
    let mut inverse = most / greatest;
    let mut best = error(inverse, 1.0 / inverse, &|value| {
        f32::from(to_byte(round(value)))
    });
    for step in (-4_i8..=4).filter(|step| *step != 0) {
        let tried = (0.1 * f32::from(step) + most) / greatest;
        let error = error(tried, 1.0 / tried, &at_most);
        if error < best {
            (best, inverse) = (error, tried);
        }
    }
    let mut levels = x.map(|x| f32::from(to_byte(at_most(inverse * x))));
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for i in 0..N {
        let level = at_most(inverse * x[i]);
        sum_lx += weights[i] * x[i] * level;
        sum_l2 += weights[i] * level * level;
    }
    move_levels(
        x,
        weights,
        &mut levels,
        (&mut sum_lx, &mut sum_l2),
        &at_most,
    );
    let scale = if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 };
    (scale, levels.map(to_byte))
}

/// Moves one level after the other where that comes nearer.
fn move_levels<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    levels: &mut [f32; N],
    (sum_lx, sum_l2): (&mut f32, &mut f32),
    at_most: &dyn Fn(f32) -> f32,
) {
    const ROUNDS: usize = 5;
    for _ in 0..ROUNDS {
        let mut has_moved = false;
        for i in 0..N {
            let weight = weights[i];
            let mut new_lx = *sum_lx - weight * x[i] * levels[i];
            let mut new_l2 = *sum_l2 - weight * levels[i] * levels[i];
            if new_lx <= 0.0 || new_l2 <= 0.0 {
                continue;
            }
            let level = at_most(x[i] * new_l2 / new_lx);
            if level == levels[i] {
                continue;
            }
            new_lx += weight * x[i] * level;
            new_l2 += weight * level * level;
            if new_lx * new_lx * *sum_l2 > *sum_lx * *sum_lx * new_l2 {
                levels[i] = f32::from(to_byte(level));
                (*sum_lx, *sum_l2) = (new_lx, new_l2);
                has_moved = true;
            }
        }
        if !has_moved {
            break;
        }
    }
}
