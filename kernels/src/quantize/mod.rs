//! Activations in eight bits: one format for every quantised weight type.
//!
//! A row of `k` values is `row_words(k)` words, in four runs: the quants (4 to a word, lowest byte
//! first), the scale of each group of 32 (f32 bits), the scaled sum of each group (f32 bits), and the
//! integer sums of each group's halves (two i16). A value is `scale * quant`. The sums are what weights
//! with a minimum or an offset need.
//!
//! A group that holds a NaN or an infinity has a NaN for its scale, so that the fault is seen in every
//! product instead of being hidden.

use crate::block::GROUP_LEN;
use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Words of a group: 8 of quants, scale, scaled sum, sums of halves.
const GROUP_WORDS: usize = 11;
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
    fn quantize_row(x: &[f32], out: &mut [u32]) {
        let n_groups = x.len() / GROUP_LEN;
        let (quants, rest) = out.split_at_mut(n_groups * 8);
        let (scales, rest) = rest.split_at_mut(n_groups);
        let (sums, half_sums) = rest.split_at_mut(n_groups);
        let groups = x.as_chunks::<GROUP_LEN>().0.iter().zip(quants.as_chunks_mut::<8>().0);
        for (group_idx, (x, quants)) in groups.enumerate() {
            let magnitude = magnitude(x);
            let inverse = if magnitude >= TINY { 127.0 / magnitude } else { 0.0 };
            let (bytes, half_sum) = quantize_group(x, inverse);
            for (word, bytes) in quants.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            let scale = if magnitude >= TINY || magnitude.is_nan() { magnitude / 127.0 } else { 0.0 };
            scales[group_idx] = scale.to_bits();
            let sum = i32::from(half_sum[0]) + i32::from(half_sum[1]);
            sums[group_idx] = (scale * sum as f32).to_bits();
            half_sums[group_idx] = pair(half_sum);
        }
    }
}

/// The largest absolute value; NaN if one is not finite.
#[inline(always)]
fn magnitude(x: &[f32; GROUP_LEN]) -> f32 {
    // As integers, the bits of magnitudes are in their order, and NaN is above all.
    let mut largest = [0_u32; 8];
    for x in x.as_chunks::<8>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = (*largest).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if largest.is_finite() {
        largest
    } else {
        f32::NAN
    }
}

/// The quants, and the sums of their halves.
#[inline(always)]
fn quantize_group(x: &[f32; GROUP_LEN], inverse: f32) -> ([u8; GROUP_LEN], [i16; 2]) {
    let mut bytes = [0; GROUP_LEN];
    // Of a NaN's group nothing but the scale matters; its inverse is 0, and NaN or infinity times 0
    // gives any byte at all, so the sum is taken from the bytes.
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * inverse + ROUND).to_bits().to_le_bytes()[0];
    }
    let sum = |half: &[u8]| half.iter().map(|byte| i16::from(byte.cast_signed())).sum();
    let sums = [sum(&bytes[..GROUP_LEN / 2]), sum(&bytes[GROUP_LEN / 2..])];
    (bytes, sums)
}

/// Two i16 in a word, the first lowest.
pub(crate) fn pair(values: [i16; 2]) -> u32 {
    let [low, high] = values.map(|value| u32::from(value.cast_unsigned()));
    low | high << 16
}

/// One quantised row, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct ActRow<'a> {
    /// Eight words for each group.
    pub(crate) quants: &'a [[u32; 8]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
    pub(crate) half_sums: &'a [u32],
}

impl<'a> ActRow<'a> {
    /// Takes the row apart; its length is a whole number of groups.
    pub(crate) fn new(words: &'a [u32]) -> Self {
        let n_groups = words.len() / GROUP_WORDS;
        let (quants, rest) = words.split_at(n_groups * 8);
        let (scales, rest) = rest.split_at(n_groups);
        let (sums, half_sums) = rest.split_at(n_groups);
        Self {
            quants: quants.as_chunks().0,
            scales: bytemuck::cast_slice(scales),
            sums: bytemuck::cast_slice(sums),
            half_sums,
        }
    }

    /// The groups `first .. first + n`.
    pub(crate) fn groups(&self, first: usize, n: usize) -> Self {
        Self {
            quants: &self.quants[first..first + n],
            scales: &self.scales[first..first + n],
            sums: &self.sums[first..first + n],
            half_sums: &self.half_sums[first..first + n],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use tests::decode;
