//! The quantised product in 512-bit vectors with the byte dot product: a vector holds the sixteen rows
//! of a tile, a lane each.
//!
//! The instruction multiplies unsigned weights with signed activations and sums without saturation, so
//! signed weights are raised by 128 and the offset is taken off again.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::ops::Range;

use super::direct::{Arithmetic, DirectRows, add_strip};
use super::panel::{GroupScales, Law, Sums};
use super::unpack::Packing;
use super::vector::{F512, V512, Vector};
use crate::isa::Avx512Vnni;
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM, pair};

/// The functions that multiply a strip directly, the one for most rows first.
pub(super) fn direct_of<P: Packing>() -> &'static [DirectRows] {
    const {
        &[
            (8, direct::<P, 8> as _),
            (4, direct::<P, 4> as _),
            (2, direct::<P, 2> as _),
            (1, direct::<P, 1> as _),
        ]
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn direct<P: Packing, const M: usize>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx512Vnni::assume() };
    add_strip::<P, V512, M>(proof, strip, acts, sums);
}

impl Arithmetic for V512 {
    #[inline(always)]
    fn load_sums(_: Avx512Vnni, sums: &Sums, _: usize) -> F512 {
        F512(bytemuck::cast(*sums))
    }

    #[inline(always)]
    fn add_group<L: Law, const M: usize>(
        proof: Avx512Vnni,
        quants: &[Self; 8],
        weights: &GroupScales,
        _: usize,
        acts: &[&ActGroup; M],
        totals: &mut [F512; M],
    ) {
        let dots = if L::SUB_SCALES {
            scaled_dots::<L, M>(
                proof,
                quants,
                V512(bytemuck::cast(weights.sub_scales)),
                acts,
            )
        } else {
            whole_dots::<L, M>(proof, quants, acts)
        };
        let scale = F512(bytemuck::cast(weights.scales));
        let bias = F512(bytemuck::cast(weights.biases));
        let sub_mins = V512(bytemuck::cast(weights.sub_mins));
        for row in 0..M {
            let act_scale = f32::from_bits(acts[row][SCALE]);
            let mut total = dots[row].multiply_add(scale.scale(act_scale), totals[row]);
            if L::BIAS {
                total = bias.scale_add(f32::from_bits(acts[row][SUM]), total);
            }
            if L::SUB_MINS {
                let min = V512::splat(proof, 0).add_half_dots(sub_mins, acts[row][HALF_SUMS]);
                total = min.to_floats().multiply_add(bias.scale(act_scale), total);
            }
            totals[row] = total;
        }
    }
}

/// The dot products of a group with one scale: a single sum, which begins with the offset's share.
#[inline(always)]
fn whole_dots<L: Law, const M: usize>(
    proof: Avx512Vnni,
    quants: &[V512; 8],
    acts: &[&ActGroup; M],
) -> [F512; M] {
    let offset = if L::SIGNED { 128 } else { L::OFFSET };
    let mut sums = less_offset(proof, [offset, offset], acts);
    add_dots::<L, M>(quants, 0..8, acts, &mut sums);
    to_floats(&sums)
}

/// The dot products of a group whose halves have scales of their own.
#[inline(always)]
fn scaled_dots<L: Law, const M: usize>(
    proof: Avx512Vnni,
    quants: &[V512; 8],
    sub_scales: V512,
    acts: &[&ActGroup; M],
) -> [F512; M] {
    let mut halves = [[V512::splat(proof, 0); M]; 2];
    let [first, second] = &mut halves;
    add_dots::<L, M>(quants, 0..4, acts, first);
    add_dots::<L, M>(quants, 4..8, acts, second);
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

/// What the offsets of a group's halves take off its dot products.
#[inline(always)]
fn less_offset<const M: usize>(
    proof: Avx512Vnni,
    offsets: [i16; 2],
    acts: &[&ActGroup; M],
) -> [V512; M] {
    let mut sums = [V512::splat(proof, 0); M];
    if offsets[0] != 0 || offsets[1] != 0 {
        let offsets = V512::splat(proof, pair([-offsets[0], -offsets[1]]));
        for (sum, act) in sums.iter_mut().zip(acts) {
            *sum = sum.add_half_dots(offsets, act[HALF_SUMS]);
        }
    }
    sums
}

/// Adds the dot products of some steps of a group.
#[inline(always)]
fn add_dots<L: Law, const M: usize>(
    quants: &[V512; 8],
    steps: Range<usize>,
    acts: &[&ActGroup; M],
    sums: &mut [V512; M],
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
fn to_floats<const M: usize>(sums: &[V512; M]) -> [F512; M] {
    let mut floats = [sums[0].to_floats(); M];
    for (float, sum) in floats.iter_mut().zip(sums) {
        *float = sum.to_floats();
    }
    floats
}
