//! Activations in eight bits: one format for every quantised weight type.
//!
//! A row is a sequence of groups of 32 values, 11 words each: eight words of quants (lowest byte first),
//! the scale (f32 bits), the scaled sum of the quants (f32 bits), and the sums of the two halves' quants
//! (two i16, the first lowest). A value is `scale * quant`. The sums are what weights with a minimum or
//! an offset need.
//!
//! A group that holds a NaN or an infinity has a NaN for its scale, so that the fault is seen in every
//! product instead of being hidden.

use crate::block::GROUP_LEN;
use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Words of a group.
const GROUP_WORDS: usize = 11;
/// The word of the scale, after the quants.
pub(crate) const SCALE: usize = 8;
/// The word of the scaled sum.
pub(crate) const SUM: usize = 9;
/// The word of the halves' sums.
pub(crate) const HALF_SUMS: usize = 10;
/// A quantised group.
pub(crate) type ActGroup = [u32; GROUP_WORDS];
/// Groups below this magnitude are zero: their scale's inverse would not be finite.
const TINY: f32 = 1e-35;
/// Adding and subtracting it rounds a small float to the nearest integer, ties to even; the sum's
/// lowest byte is that integer in two's complement.
const ROUND: f32 = 12_582_912.0;
/// Values a task should have, at least.
const TASK_VALUES: usize = 8192;

/// The number of `u32` words that hold one quantised row of `k` values; `k % 32 == 0`.
pub const fn row_words(k: usize) -> usize {
    k / GROUP_LEN * GROUP_WORDS
}

/// Quantises rows of `k` values.
///
/// Shapes: `x` is `[m, k]`; `out` is `[m, row_words(k)]`.
///
/// # Errors
/// [`ShapeError`] when `k` is not a multiple of 32 or a length does not match.
pub fn quantize_rows(
    turn: &Turn<'_>,
    x: &[f32],
    k: usize,
    out: &mut [u32],
) -> Result<(), ShapeError> {
    ShapeError::check_multiple("k", k, GROUP_LEN)?;
    let m = x.len() / k;
    ShapeError::check_length("x", x.len(), m * k)?;
    ShapeError::check_length("the quantised rows", out.len(), m * row_words(k))?;
    let task_rows = TASK_VALUES.div_ceil(k);
    let isa = turn.isa();
    let out = Disjoint::new(out);
    turn.run(m.div_ceil(task_rows), &|task_idx| {
        let rows = task_idx * task_rows..m.min((task_idx + 1) * task_rows);
        for row_idx in rows {
            let words = row_idx * row_words(k)..(row_idx + 1) * row_words(k);
            // SAFETY: each row belongs to one task.
            let words = unsafe { out.slice_mut(words) };
            quantize_row(isa, &x[row_idx * k..(row_idx + 1) * k], words);
        }
    });
    Ok(())
}

vectorized! {
    /// Quantises one row.
    pub(crate) fn quantize_row(x: &[f32], out: &mut [u32]) {
        for (x, out) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
            *out = quantize_group(x);
        }
    }
}

/// Rounds a row of any length to signed bytes and returns their scale, NaN if a value is not finite.
pub(crate) fn nearest_bytes(x: &[f32], mut put: impl FnMut(usize, u8)) -> f32 {
    let mut largest = 0_u32;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let [scale, inverse] = scales(finite_or_nan(largest));
    for (i, x) in x.iter().enumerate() {
        put(i, nearest(*x, inverse));
    }
    scale
}

/// The scale of bytes whose largest stands for `magnitude`, and what values are multiplied with.
#[inline]
fn scales(magnitude: f32) -> [f32; 2] {
    let is_zero = magnitude < TINY;
    let scale = if is_zero { 0.0 } else { magnitude / 127.0 };
    // Where there is a NaN nothing but the scale matters.
    let inverse = if is_zero || magnitude.is_nan() {
        0.0
    } else {
        127.0 / magnitude
    };
    [scale, inverse]
}

/// Quantises one group, in loops that compile to vectors.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn quantize_group(x: &[f32; GROUP_LEN]) -> ActGroup {
    let [scale, inverse] = scales(magnitude(x));
    let mut quants = [0_i32; GROUP_LEN];
    let mut bytes = [0; GROUP_LEN];
    for ((quant, byte), x) in quants.iter_mut().zip(&mut bytes).zip(x) {
        let word = (x * inverse + ROUND).to_bits();
        // A NaN gives any byte at all, so the sums are taken from the bytes.
        *quant = (word << 24).cast_signed() >> 24;
        *byte = word.to_le_bytes()[0];
    }
    let half_sums = half_sums(&quants);
    let mut group = [0; GROUP_WORDS];
    for (word, bytes) in group.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let sum = i32::from(half_sums[0]) + i32::from(half_sums[1]);
    group[SCALE] = scale.to_bits();
    group[SUM] = (scale * sum as f32).to_bits();
    group[HALF_SUMS] = pair(half_sums);
    group
}

/// The sums of a group's halves.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn half_sums(quants: &[i32; GROUP_LEN]) -> [i16; 2] {
    let mut sums = [0_i32; 2];
    for (sum, half) in sums
        .iter_mut()
        .zip(quants.as_chunks::<{ GROUP_LEN / 2 }>().0)
    {
        for quant in half {
            *sum += quant;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bytes")]
    sums.map(|sum| sum as i16)
}

/// The largest absolute value; NaN if one is not finite.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn magnitude(x: &[f32; GROUP_LEN]) -> f32 {
    // As integers, the bits of magnitudes are in their order, and NaN is above all.
    let mut largest = x.map(|x| x.to_bits() & 0x7fff_ffff);
    for width in [16, 8, 4, 2, 1] {
        for i in 0..width {
            largest[i] = largest[i].max(largest[i + width]);
        }
    }
    finite_or_nan(largest[0])
}

/// The float of these bits; NaN for infinity.
#[inline]
fn finite_or_nan(bits: u32) -> f32 {
    let float = f32::from_bits(bits);
    if float.is_finite() { float } else { f32::NAN }
}

/// The nearest signed byte of a scaled value; any byte for a NaN.
#[inline]
fn nearest(x: f32, inverse: f32) -> u8 {
    (x * inverse + ROUND).to_bits().to_le_bytes()[0]
}

/// Two i16 in a word, the first lowest.
#[inline]
pub(crate) const fn pair(values: [i16; 2]) -> u32 {
    let [low, high] = values;
    low.cast_unsigned() as u32 | (high.cast_unsigned() as u32) << 16
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use tests::decode;
