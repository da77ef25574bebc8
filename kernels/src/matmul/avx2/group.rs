//! The products of one group of weights, of eight or sixteen weight rows, with a few rows of activations.
//!
//! Bytes are multiplied in pairs that are summed in 16 bits, as many steps as fit; then the sums are
//! widened, and scaled by their integers where the halves of a group have any.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_sub_epi32,
};

use super::super::panel::{GroupScales, Law, Sums, TILE_ROWS};
use super::super::vector::{F256, V256};
use crate::isa::Avx2;
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM};

/// Lanes of a vector.
const LANES: usize = 8;
/// Steps of a group, and of half of it.
const STEPS: usize = 8;
const HALF_STEPS: usize = STEPS / 2;

/// Where the quants of a group are.
pub(super) trait Quants: Copy {
    /// Four quants of each of eight weight rows.
    fn step(self, step: usize, part: usize) -> __m256i;
}

/// In registers: eight weight rows.
impl Quants for &[V256<Avx2>; STEPS] {
    #[inline(always)]
    fn step(self, step: usize, _: usize) -> __m256i {
        self[step].0
    }
}

/// In a panel: sixteen.
impl Quants for &[[u32; TILE_ROWS]; STEPS] {
    #[inline(always)]
    fn step(self, step: usize, part: usize) -> __m256i {
        bytemuck::cast::<[u32; LANES], _>(self[step].as_chunks().0[part])
    }
}

/// What goes with the quants of `P` times eight weight rows.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    scales: &'a GroupScales,
    first_part: usize,
}

impl<'a> Scales<'a> {
    /// All sixteen rows.
    pub(super) fn whole(scales: &'a GroupScales) -> Self {
        Self::part(scales, 0)
    }

    /// Eight rows.
    pub(super) fn part(scales: &'a GroupScales, part: usize) -> Self {
        Self {
            scales,
            first_part: part,
        }
    }

    #[inline(always)]
    fn floats(self, floats: &Sums, part: usize) -> __m256 {
        bytemuck::cast::<[f32; LANES], _>(floats.as_chunks().0[self.first_part + part])
    }

    #[inline(always)]
    fn words(self, words: &[u32; TILE_ROWS], part: usize) -> __m256i {
        bytemuck::cast::<[u32; LANES], _>(words.as_chunks().0[self.first_part + part])
    }
}

/// Where the sums of each row of activations are.
pub(super) trait Totals {
    fn get(&self, row: usize, part: usize) -> __m256;
    fn set(&mut self, row: usize, part: usize, total: __m256);
}

/// In registers: eight weight rows.
impl<const M: usize> Totals for [F256; M] {
    #[inline(always)]
    fn get(&self, row: usize, _: usize) -> __m256 {
        self[row].0
    }

    #[inline(always)]
    fn set(&mut self, row: usize, _: usize, total: __m256) {
        self[row] = F256(total);
    }
}

/// In memory: sixteen.
impl<const M: usize> Totals for [Sums; M] {
    #[inline(always)]
    fn get(&self, row: usize, part: usize) -> __m256 {
        bytemuck::cast::<[f32; LANES], _>(self[row].as_chunks().0[part])
    }

    #[inline(always)]
    fn set(&mut self, row: usize, part: usize, total: __m256) {
        self[row].as_chunks_mut().0[part] = bytemuck::cast::<_, [f32; LANES]>(total);
    }
}

/// Dot products of `M` rows of activations with `P` times eight weight rows.
pub(super) type Dots<const P: usize, const M: usize> = [[__m256i; P]; M];

/// The integer part of the products of one group.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn dots<L: Law, Q: Quants, const P: usize, const M: usize>(
    quants: Q,
    weights: Scales<'_>,
    groups: &[&ActGroup; M],
) -> Dots<P, M> {
    if L::SIGNED {
        return signed_dots::<Q, P, M>(quants, groups);
    }
    let mut sub_scales = [_mm256_setzero_si256(); P];
    if L::SUB_SCALES {
        for (part, sub_scales) in sub_scales.iter_mut().enumerate() {
            *sub_scales = weights.words(&weights.scales.sub_scales, part);
        }
    }
    let mut dots = unsigned_dots::<L, Q, P, M>(quants, &sub_scales, groups);
    if L::OFFSET != 0 {
        for (dots, group) in dots.iter_mut().zip(groups) {
            let half_sums = _mm256_set1_epi32(group[HALF_SUMS].cast_signed());
            for (dot, sub_scales) in dots.iter_mut().zip(&sub_scales) {
                *dot = less_offset::<L>(*dot, half_sums, *sub_scales);
            }
        }
    }
    dots
}

/// Adds the products of one group to the totals.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn finish<L: Law, const P: usize, const M: usize>(
    dots: &Dots<P, M>,
    weights: Scales<'_>,
    groups: &[&ActGroup; M],
    totals: &mut impl Totals,
) {
    for (row, (dots, group)) in dots.iter().zip(groups).enumerate() {
        let act_scale = _mm256_set1_ps(f32::from_bits(group[SCALE]));
        let act_sum = _mm256_set1_ps(f32::from_bits(group[SUM]));
        for (part, dot) in dots.iter().enumerate() {
            let scale = weights.floats(&weights.scales.scales, part);
            let scale = _mm256_mul_ps(scale, act_scale);
            let total = totals.get(row, part);
            let mut total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*dot), scale, total);
            let bias = weights.floats(&weights.scales.biases, part);
            if L::BIAS {
                total = _mm256_fmadd_ps(bias, act_sum, total);
            }
            if L::SUB_MINS {
                let half_sums = _mm256_set1_epi32(group[HALF_SUMS].cast_signed());
                let sub_mins = weights.words(&weights.scales.sub_mins, part);
                let min = _mm256_madd_epi16(sub_mins, half_sums);
                let scale = _mm256_mul_ps(bias, act_scale);
                total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min), scale, total);
            }
            totals.set(row, part, total);
        }
    }
}

/// Takes the offset's share off a dot product.
#[inline]
#[target_feature(enable = "avx2")]
fn less_offset<L: Law>(dot: __m256i, half_sums: __m256i, sub_scales: __m256i) -> __m256i {
    let offset = _mm256_set1_epi16(L::OFFSET);
    let share = if L::SUB_SCALES {
        // A sub-scale times an offset fits 16 bits; a sum times an offset might not.
        let scaled = _mm256_mullo_epi16(sub_scales, offset);
        _mm256_madd_epi16(scaled, half_sums)
    } else {
        _mm256_madd_epi16(half_sums, offset)
    };
    _mm256_sub_epi32(dot, share)
}

/// Steps whose pairs of products are summed in 16 bits: as many as fit, of those that share a scale.
const fn run_steps<L: Law>() -> usize {
    // A step adds two products to a 16-bit lane.
    let fitting = i16::MAX / (2 * 127 * L::LARGEST);
    let longest = if L::SUB_SCALES { HALF_STEPS } else { STEPS };
    let mut run = longest;
    while run > fitting.cast_unsigned() as usize {
        run /= 2;
    }
    run
}

/// Dot products of unsigned quants.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned_dots<L: Law, Q: Quants, const P: usize, const M: usize>(
    quants: Q,
    sub_scales: &[__m256i; P],
    acts: &[&ActGroup; M],
) -> Dots<P, M> {
    let run = const { run_steps::<L>() };
    let mut dots = [[_mm256_setzero_si256(); P]; M];
    for first in (0..STEPS).step_by(run) {
        let mut pairs = [[_mm256_setzero_si256(); P]; M];
        for step in first..first + run {
            for (act, pairs) in acts.iter().zip(&mut pairs) {
                let act = _mm256_set1_epi32(act[step].cast_signed());
                for (part, pairs) in pairs.iter_mut().enumerate() {
                    let products = _mm256_maddubs_epi16(quants.step(step, part), act);
                    *pairs = _mm256_add_epi16(*pairs, products);
                }
            }
        }
        for (dots, pairs) in dots.iter_mut().zip(&pairs) {
            for ((dot, pairs), sub_scales) in dots.iter_mut().zip(pairs).zip(sub_scales) {
                let factor = if L::SUB_SCALES {
                    sub_scale(*sub_scales, first >= HALF_STEPS)
                } else {
                    _mm256_set1_epi16(1)
                };
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(*pairs, factor));
            }
        }
    }
    dots
}

/// The first or second half's sub-scale of each row, in both 16-bit halves of its lane.
#[inline]
#[target_feature(enable = "avx2")]
fn sub_scale(sub_scales: __m256i, second: bool) -> __m256i {
    let bytes: [u8; 32] = const {
        let mut bytes = [0; 32];
        let mut i = 0;
        while i < 32 {
            // The low 16 bits of each lane, twice; lanes of a shuffle are 128 bits.
            bytes[i] = [0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13][i % 16];
            i += 1;
        }
        bytes
    };
    let low = bytemuck::cast(bytes);
    let control = if second {
        _mm256_add_epi16(low, _mm256_set1_epi16(0x0202))
    } else {
        low
    };
    _mm256_shuffle_epi8(sub_scales, control)
}

/// Dot products of signed quants: their signs move to the activations.
///
/// Two products of a step reach 2 · 128 · 127, which fits 16 bits; a second step would not.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_dots<Q: Quants, const P: usize, const M: usize>(
    quants: Q,
    acts: &[&ActGroup; M],
) -> Dots<P, M> {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); P]; M];
    for step in 0..STEPS {
        for (act, dots) in acts.iter().zip(&mut dots) {
            let act = _mm256_set1_epi32(act[step].cast_signed());
            for (part, dot) in dots.iter_mut().enumerate() {
                let quants = quants.step(step, part);
                let magnitudes = _mm256_sign_epi8(quants, quants);
                let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(act, quants));
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    dots
}
