//! The arithmetic of groups with the byte dot product, on vectors of any width.
//!
//! The instruction multiplies unsigned weights with signed activations and sums without saturation, so
//! signed weights are raised by 128 and the offset is taken off again.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::ops::Range;

use super::direct::Arithmetic;
use super::panel::{GroupScales, Law};
use super::vector::{Floats, Vnni};
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM, pair};

impl<V: Vnni> Arithmetic for V {
    #[inline(always)]
    fn add_group<L: Law, const M: usize>(
        proof: V::Proof,
        quants: &[V; 8],
        weights: &GroupScales,
        part: usize,
        acts: &[&ActGroup; M],
        totals: &mut [V::Floats; M],
    ) {
        let dots = if L::SUB_SCALES {
            let sub_scales = V::words(proof, &weights.sub_scales, part);
            scaled_dots::<V, L, M>(proof, quants, sub_scales, acts)
        } else {
            whole_dots::<V, L, M>(proof, quants, acts)
        };
        let scale = V::floats(proof, &weights.scales, part);
        let bias = V::floats(proof, &weights.biases, part);
        let sub_mins = V::words(proof, &weights.sub_mins, part);
        for row in 0..M {
            let act_scale = f32::from_bits(acts[row][SCALE]);
            let mut total = dots[row].multiply_add(scale.scale(act_scale), totals[row]);
            if L::BIAS {
                total = bias.scale_add(f32::from_bits(acts[row][SUM]), total);
            }
            if L::SUB_MINS {
                let min = V::splat(proof, 0).add_half_dots(sub_mins, acts[row][HALF_SUMS]);
                total = min.to_floats().multiply_add(bias.scale(act_scale), total);
            }
            totals[row] = total;
        }
    }
}

/// The dot products of a group with one scale: a single sum, which begins with the offset's share.
#[inline(always)]
fn whole_dots<V: Vnni, L: Law, const M: usize>(
    proof: V::Proof,
    quants: &[V; 8],
    acts: &[&ActGroup; M],
) -> [V::Floats; M] {
    let offset = if L::SIGNED { 128 } else { L::OFFSET };
    let mut sums = less_offset::<V, M>(proof, offset, acts);
    add_dots::<V, L, M>(quants, 0..8, acts, &mut sums);
    to_floats(&sums)
}

/// The dot products of a group whose halves have scales of their own.
#[inline(always)]
fn scaled_dots<V: Vnni, L: Law, const M: usize>(
    proof: V::Proof,
    quants: &[V; 8],
    sub_scales: V,
    acts: &[&ActGroup; M],
) -> [V::Floats; M] {
    let mut halves = [[V::splat(proof, 0); M]; 2];
    let [first, second] = &mut halves;
    add_dots::<V, L, M>(quants, 0..4, acts, first);
    add_dots::<V, L, M>(quants, 4..8, acts, second);
    let [first_scale, second_scale] = sub_scales.signed_halves();
    let offsets = sub_scales.scale_halves(-L::OFFSET);
    let mut sums = halves[0];
    for (row, sum) in sums.iter_mut().enumerate() {
        let second = halves[1][row].multiply_lanes(second_scale);
        *sum = sum.multiply_lanes(first_scale).add_lanes(second);
        if L::OFFSET != 0 {
            *sum = sum.add_half_dots(offsets, acts[row][HALF_SUMS]);
        }
    }
    to_floats(&sums)
}

/// What the offset takes off a group's dot products.
#[inline(always)]
fn less_offset<V: Vnni, const M: usize>(
    proof: V::Proof,
    offset: i16,
    acts: &[&ActGroup; M],
) -> [V; M] {
    let mut sums = [V::splat(proof, 0); M];
    if offset != 0 {
        let offsets = V::splat(proof, pair([-offset, -offset]));
        for (sum, act) in sums.iter_mut().zip(acts) {
            *sum = sum.add_half_dots(offsets, act[HALF_SUMS]);
        }
    }
    sums
}

/// Adds the dot products of some steps of a group.
#[inline(always)]
fn add_dots<V: Vnni, L: Law, const M: usize>(
    quants: &[V; 8],
    steps: Range<usize>,
    acts: &[&ActGroup; M],
    sums: &mut [V; M],
) {
    for step in steps {
        let quants = if L::SIGNED {
            quants[step].raise_bytes()
        } else {
            quants[step]
        };
        for (sum, act) in sums.iter_mut().zip(acts) {
            *sum = sum.add_dots(quants, act[step]);
        }
    }
}

#[inline(always)]
fn to_floats<V: Vnni, const M: usize>(sums: &[V; M]) -> [V::Floats; M] {
    let mut floats = [sums[0].to_floats(); M];
    for (float, sum) in floats.iter_mut().zip(sums) {
        *float = sum.to_floats();
    }
    floats
}
