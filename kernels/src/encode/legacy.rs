//! The types with blocks of 32 weights and a scale each, sixteen blocks at a time.
//!
//! Source: the arithmetic of ggml's reference code, in its order.

use half::f16;

use super::fit::{affine, symmetric};
use super::k::{by_importance, sum_of_squares, weighted};
use super::lanes::{LANES, Lanes, Strip, load, store, to_byte};
use super::layout;

const LEN: usize = 32;
/// Weights of as many blocks as there are lanes.
const STRIP_LEN: usize = LEN * LANES;

/// What a block is made of.
struct Block {
    scale: f32,
    /// The weight that level 0 stands for, in types that have one.
    min: f32,
    levels: [u8; LEN],
}

/// Sixteen of them.
struct Fit {
    scale: Lanes,
    min: Lanes,
    levels: Strip<LEN>,
}

fn half(value: f32) -> [u8; 2] {
    f16::from_f32_const(value).to_le_bytes()
}

#[inline(always)]
pub(super) fn q4_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let lay = |found: &Block, block: &mut [u8; 18]| {
        block[..2].copy_from_slice(&half(found.scale));
        layout::halves(&found.levels, &mut block[2..]);
    };
    blocks(
        row,
        importance,
        out,
        |x| signed(x, 8.0),
        |x, w| found(x, w, 8.0),
        lay,
    );
}

#[inline(always)]
pub(super) fn q4_1(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let lay = |found: &Block, block: &mut [u8; 20]| {
        block[..2].copy_from_slice(&half(found.scale));
        block[2..4].copy_from_slice(&half(found.min));
        layout::halves(&found.levels, &mut block[4..]);
    };
    blocks(
        row,
        importance,
        out,
        |x| ranged(x, 15.0),
        |x, w| found_range(x, w, 15.0),
        lay,
    );
}

#[inline(always)]
pub(super) fn q5_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let lay = |found: &Block, block: &mut [u8; 22]| {
        block[..2].copy_from_slice(&half(found.scale));
        block[2..6].copy_from_slice(&layout::fifth_bits(&found.levels));
        layout::halves(&found.levels, &mut block[6..]);
    };
    blocks(
        row,
        importance,
        out,
        |x| signed(x, 16.0),
        |x, w| found(x, w, 16.0),
        lay,
    );
}

#[inline(always)]
pub(super) fn q5_1(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let lay = |found: &Block, block: &mut [u8; 24]| {
        block[..2].copy_from_slice(&half(found.scale));
        block[2..4].copy_from_slice(&half(found.min));
        block[4..8].copy_from_slice(&layout::fifth_bits(&found.levels));
        layout::halves(&found.levels, &mut block[8..]);
    };
    blocks(
        row,
        importance,
        out,
        |x| ranged(x, 31.0),
        |x, w| found_range(x, w, 31.0),
        lay,
    );
}

#[inline(always)]
pub(super) fn q8_0(row: &[f32], out: &mut [u8]) {
    let blocks = out.as_chunks_mut::<34>().0;
    for (block, x) in blocks.iter_mut().zip(row.as_chunks::<LEN>().0) {
        let scale = magnitude(x) / 127.0;
        let inverse = inverse(scale);
        block[..2].copy_from_slice(&f16::from_f32_const(scale).to_le_bytes());
        for (level, value) in block[2..].iter_mut().zip(x) {
            // Halves go away from zero here, unlike elsewhere.
            *level = to_byte((value * inverse).round());
        }
    }
}

/// Encodes the blocks of a row, one after the other, or by a search sixteen at a time.
#[inline(always)]
fn blocks<const BYTES: usize>(
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    plain: impl Fn(&[f32; LEN]) -> Block,
    search: impl Fn(&Strip<LEN>, &Strip<LEN>) -> Fit,
    lay: impl Fn(&Block, &mut [u8; BYTES]),
) {
    let blocks = out.as_chunks_mut::<BYTES>().0;
    let Some(importance) = importance else {
        for (block, x) in blocks.iter_mut().zip(row.as_chunks().0) {
            lay(&plain(x), block);
        }
        return;
    };
    let spread = Lanes::all(sum_of_squares(row) / row.len() as f32);
    for (strip_idx, blocks) in blocks.chunks_mut(LANES).enumerate() {
        let start = strip_idx * STRIP_LEN;
        let end = row.len().min(start + STRIP_LEN);
        let x = load::<LEN>(&row[start..end]);
        let importance = load::<LEN>(&importance[start..end]);
        let fit = search(&x, &by_importance(&x, &importance, &spread));
        let mut bytes = [0; STRIP_LEN];
        store(&fit.levels, &mut bytes);
        for (lane, (block, levels)) in blocks.iter_mut().zip(bytes.as_chunks().0).enumerate() {
            let found = Block {
                scale: fit.scale.0[lane],
                min: fit.min.0[lane],
                levels: *levels,
            };
            lay(&found, block);
        }
    }
}

/// The greatest magnitude. Those of floats are ordered as their bits.
#[inline(always)]
fn magnitude(x: &[f32; LEN]) -> f32 {
    let bits = x.iter().map(|value| value.abs().to_bits());
    f32::from_bits(bits.fold(0, u32::max))
}

/// One over a scale, zero for none.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The least weight and the greatest; of zeros with and without a sign, the first.
#[inline(always)]
fn extremes(x: &[f32; LEN]) -> (f32, f32) {
    // Ordered as floats are, but for the zero with a sign, which is less.
    let order = |value: &f32| {
        let bits = value.to_bits().cast_signed();
        bits ^ ((bits >> 31) & i32::MAX)
    };
    let float = |order: i32| {
        let bits = order ^ ((order >> 31) & i32::MAX);
        let value = f32::from_bits(bits.cast_unsigned());
        let first = || x.iter().find(|other| **other == 0.0).copied();
        if value == 0.0 {
            first().unwrap_or(value)
        } else {
            value
        }
    };
    let low = x.iter().map(order).fold(i32::MAX, i32::min);
    let high = x.iter().map(order).fold(i32::MIN, i32::max);
    (float(low), float(high))
}

/// Levels around `half`: the weight of the greatest magnitude has the lowest.
#[inline(always)]
fn signed(x: &[f32; LEN], half: f32) -> Block {
    let (low, high) = extremes(x);
    let greatest = if high > -low {
        high
    } else if high < -low {
        low
    } else {
        // Of both signs, the first.
        let is_greatest = |value: &&f32| value.abs() == high;
        x.iter().find(is_greatest).copied().unwrap_or(high)
    };
    // A block of zeros has no sign.
    let greatest = if greatest == 0.0 { 0.0 } else { greatest };
    let scale = greatest / -half;
    let inverse = inverse(scale);
    let most = 2.0 * half - 1.0;
    Block {
        scale,
        min: 0.0,
        levels: levels(x, |value| below(value * inverse + (half + 0.5), most)),
    }
}

/// Levels from the least weight to the greatest.
#[inline(always)]
fn ranged(x: &[f32; LEN], most: f32) -> Block {
    let (low, high) = extremes(x);
    let scale = (high - low) / most;
    let inverse = inverse(scale);
    Block {
        scale,
        min: low,
        levels: levels(x, |value| below((value - low) * inverse + 0.5, most)),
    }
}

#[inline(always)]
fn levels(x: &[f32; LEN], level: impl Fn(f32) -> u8) -> [u8; LEN] {
    let mut levels = [0; LEN];
    for (out, value) in levels.iter_mut().zip(x) {
        *out = level(*value);
    }
    levels
}

/// The whole number below a level that is not negative, `most` at most.
#[inline(always)]
fn below(level: f32, most: f32) -> u8 {
    let whole = level.floor();
    to_byte(if whole < most { whole } else { most })
}

#[inline(always)]
fn found(x: &Strip<LEN>, weights: &Strip<LEN>, half: f32) -> Fit {
    let fit = symmetric(x, weights, half);
    Fit {
        scale: fit.scale,
        min: Lanes::all(0.0),
        levels: fit.levels,
    }
}

#[inline(always)]
fn found_range(x: &Strip<LEN>, weights: &Strip<LEN>, most: f32) -> Fit {
    let fit = affine(x, weights, weighted(most));
    Fit {
        scale: fit.scale,
        min: fit.min.map(|min| -min),
        levels: fit.levels,
    }
}
