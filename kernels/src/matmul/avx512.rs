//! The quantised product in 512-bit vectors with the byte dot product: a vector holds the sixteen rows
//! of a tile, a lane each.
//!
//! The instruction multiplies unsigned weights with signed activations and sums without saturation, so
//! signed weights are raised by 128 and the offset is taken off again.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps,
    _mm512_madd_epi16, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_xor_si512,
};
use std::ops::Range;

use super::direct::{Arithmetic, DirectRows, add_strip};
use super::panel::{GroupScales, Law, Sums};
use super::unpack::Packing;
use super::vector::{F512, V512};
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
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn load_sums(_: Avx512Vnni, sums: &Sums, _: usize) -> F512 {
        F512(bytemuck::cast(*sums))
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn add_group<L: Law, const M: usize>(
        quants: &[Self; 8],
        scales: &GroupScales,
        _: usize,
        acts: &[&ActGroup; M],
        totals: &mut [F512; M],
    ) {
        // SAFETY: the vectors prove AVX-512 with VNNI.
        unsafe { add_group::<L, M>(quants, scales, acts, totals) }
    }
}

/// Adds the products of one group to the totals of sixteen rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_group<L: Law, const M: usize>(
    quants: &[V512; 8],
    weights: &GroupScales,
    groups: &[&ActGroup; M],
    totals: &mut [F512; M],
) {
    let dots = if L::SUB_SCALES {
        scaled_dots::<L, M>(quants, bytemuck::cast(weights.sub_scales), groups)
    } else {
        whole_dots::<L, M>(quants, groups)
    };
    let weight_scale = bytemuck::cast(weights.scales);
    let bias = bytemuck::cast(weights.biases);
    for row in 0..M {
        let act_scale = _mm512_set1_ps(f32::from_bits(groups[row][SCALE]));
        let scale = _mm512_mul_ps(weight_scale, act_scale);
        let mut total = _mm512_fmadd_ps(dots[row], scale, totals[row].0);
        if L::BIAS {
            let act_sum = _mm512_set1_ps(f32::from_bits(groups[row][SUM]));
            total = _mm512_fmadd_ps(bias, act_sum, total);
        }
        if L::SUB_MINS {
            let half_sums = _mm512_set1_epi32(groups[row][HALF_SUMS].cast_signed());
            let min = _mm512_madd_epi16(bytemuck::cast(weights.sub_mins), half_sums);
            let scale = _mm512_mul_ps(bias, act_scale);
            total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(min), scale, total);
        }
        totals[row] = F512(total);
    }
}

/// The dot products of a group with one scale: a single sum, which begins with the offset's share.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn whole_dots<L: Law, const M: usize>(quants: &[V512; 8], groups: &[&ActGroup; M]) -> [__m512; M] {
    let offset = if L::SIGNED { 128 } else { L::OFFSET };
    let mut sums = [_mm512_setzero_si512(); M];
    if offset != 0 {
        for (sum, group) in sums.iter_mut().zip(groups) {
            *sum = less_offset([offset, offset], group);
        }
    }
    add_dots::<L, M>(quants, 0..8, groups, &mut sums);
    let mut dots = [_mm512_setzero_ps(); M];
    for (dot, sum) in dots.iter_mut().zip(sums) {
        *dot = _mm512_cvtepi32_ps(sum);
    }
    dots
}

/// The dot products of a group whose halves have scales of their own.
///
/// In floats, for a product of integers takes twice as long, and yet exact: with the offset taken off,
/// a half's sum is at most 16 · 32 · 127, times a scale of at most 128, twice: below 2²⁴.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scaled_dots<L: Law, const M: usize>(
    quants: &[V512; 8],
    sub_scales: __m512i,
    groups: &[&ActGroup; M],
) -> [__m512; M] {
    const { assert!(!L::SUB_SCALES || (!L::SIGNED && L::LARGEST <= 63)) };
    let mut halves = [[_mm512_setzero_si512(); M]; 2];
    if L::OFFSET != 0 {
        for (row, group) in groups.iter().enumerate() {
            halves[0][row] = less_offset([L::OFFSET, 0], group);
            halves[1][row] = less_offset([0, L::OFFSET], group);
        }
    }
    add_dots::<L, M>(quants, 0..4, groups, &mut halves[0]);
    add_dots::<L, M>(quants, 4..8, groups, &mut halves[1]);
    let low = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(sub_scales));
    let low = _mm512_cvtepi32_ps(low);
    let high = _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(sub_scales));
    let mut dots = [_mm512_setzero_ps(); M];
    for (row, dot) in dots.iter_mut().enumerate() {
        let first = _mm512_mul_ps(_mm512_cvtepi32_ps(halves[0][row]), low);
        *dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(halves[1][row]), high, first);
    }
    dots
}

/// What the offsets of a group's halves take off its dot product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn less_offset(offsets: [i16; 2], group: &ActGroup) -> __m512i {
    let offsets = _mm512_set1_epi32(pair(offsets.map(|offset| -offset)).cast_signed());
    let half_sums = _mm512_set1_epi32(group[HALF_SUMS].cast_signed());
    _mm512_dpwssd_epi32(_mm512_setzero_si512(), offsets, half_sums)
}

/// Adds the dot products of some steps of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_dots<L: Law, const M: usize>(
    quants: &[V512; 8],
    steps: Range<usize>,
    groups: &[&ActGroup; M],
    sums: &mut [__m512i; M],
) {
    for step in steps {
        let mut quants = quants[step].0;
        if L::SIGNED {
            quants = _mm512_xor_si512(quants, _mm512_set1_epi8(-128));
        }
        for (sum, group) in sums.iter_mut().zip(groups) {
            let act = _mm512_set1_epi32(group[step].cast_signed());
            *sum = _mm512_dpbusd_epi32(*sum, quants, act);
        }
    }
}
