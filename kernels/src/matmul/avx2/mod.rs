//! The quantised product in 256-bit vectors: a vector holds eight weight rows, a lane each.
//!
//! The functions here are safe but for their features; whoever calls them without has to hold a token.

mod k;
mod lanes;
mod legacy;
mod types;

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_sub_epi32,
};

use super::panel::{DotOne, Law, PanelGroup, Sums, Unpack};
use crate::WeightType;
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM};
use lanes::{load_bytes, load_floats, load_words, store_floats};
use types::TypeKernels;

/// The function that unpacks a type.
pub(super) fn unpack_of(weight_type: WeightType) -> Unpack {
    kernels_of(weight_type).unpack
}

/// The function that multiplies a strip of a type with one row of activations.
pub(super) fn dot_one_of(weight_type: WeightType) -> DotOne {
    kernels_of(weight_type).dot_one
}

fn kernels_of(weight_type: WeightType) -> TypeKernels {
    match weight_type {
        // Floats never come here: they are not packed.
        WeightType::F32 | WeightType::F16 | WeightType::BF16 | WeightType::Q4_0 => legacy::Q4_0,
        WeightType::Q4_1 => legacy::Q4_1,
        WeightType::Q5_0 => legacy::Q5_0,
        WeightType::Q5_1 => legacy::Q5_1,
        WeightType::Q8_0 => legacy::Q8_0,
        WeightType::Q2K => k::Q2,
        WeightType::Q3K => k::Q3,
        WeightType::Q4K => k::Q4,
        WeightType::Q5K => k::Q5,
        WeightType::Q6K => k::Q6,
    }
}

/// Adds the products of a panel to the sums: four activation rows at a time where there are as many,
/// so that a loaded weight serves them all.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<L: Law>(panel: &[PanelGroup], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    let (act_fours, last_acts) = acts.as_chunks::<4>();
    let (sum_fours, last_sums) = sums.as_chunks_mut::<4>();
    for (acts, sums) in act_fours.iter().zip(sum_fours) {
        for half in 0..2 {
            dot_rows::<L, 4>(panel, half, acts, sums);
        }
    }
    for (act, sums) in last_acts.iter().zip(last_sums) {
        for half in 0..2 {
            dot_rows::<L, 1>(panel, half, &[act], std::array::from_mut(sums));
        }
    }
}

/// The products of eight weight rows with `M` activation rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<L: Law, const M: usize>(
    panel: &[PanelGroup],
    half: usize,
    acts: &[&[ActGroup]; M],
    sums: &mut [Sums; M],
) {
    let mut totals = [_mm256_setzero_ps(); M];
    for (total, sums) in totals.iter_mut().zip(&*sums) {
        *total = load_floats(&sums[half]);
    }
    for (group_idx, weights) in panel.iter().enumerate() {
        let mut groups = [&acts[0][group_idx]; M];
        for (group, act) in groups.iter_mut().zip(acts) {
            *group = &act[group_idx];
        }
        let mut quants = [_mm256_setzero_si256(); 8];
        for (quants, bytes) in quants.iter_mut().zip(&weights.quants) {
            *quants = load_bytes(&bytes[half]);
        }
        add_group::<L, M>(&quants, weights, half, &groups, &mut totals);
    }
    for (total, sums) in totals.into_iter().zip(sums) {
        store_floats(total, &mut sums[half]);
    }
}

/// Adds the products of one group to the totals of eight rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_group<L: Law, const M: usize>(
    quants: &[__m256i; 8],
    weights: &PanelGroup,
    half: usize,
    groups: &[&ActGroup; M],
    totals: &mut [__m256; M],
) {
    let sub_scales = &weights.sub_scales[half];
    let dots = if L::SIGNED {
        signed_dots::<M>(quants, groups)
    } else {
        unsigned_dots::<L, M>(quants, sub_scales, groups)
    };
    let scale = load_floats(&weights.scales[half]);
    let bias = load_floats(&weights.biases[half]);
    for row in 0..M {
        let group = groups[row];
        let half_sums = _mm256_set1_epi32(group[HALF_SUMS].cast_signed());
        let act_scale = _mm256_set1_ps(f32::from_bits(group[SCALE]));
        let dot = less_offset::<L>(dots[row], half_sums, sub_scales);
        let scale = _mm256_mul_ps(scale, act_scale);
        totals[row] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, totals[row]);
        if L::BIAS {
            let act_sum = _mm256_set1_ps(f32::from_bits(group[SUM]));
            totals[row] = _mm256_fmadd_ps(bias, act_sum, totals[row]);
        }
        if L::SUB_MINS {
            let min = _mm256_madd_epi16(load_words(&weights.sub_mins[half]), half_sums);
            let scale = _mm256_mul_ps(bias, act_scale);
            totals[row] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min), scale, totals[row]);
        }
    }
}

/// Takes the offset's share off a dot product.
#[inline]
#[target_feature(enable = "avx2")]
fn less_offset<L: Law>(dot: __m256i, half_sums: __m256i, sub_scales: &[u32; 8]) -> __m256i {
    if L::OFFSET == 0 {
        return dot;
    }
    let offset = _mm256_set1_epi16(L::OFFSET);
    let share = if L::SUB_SCALES {
        // A sub-scale times an offset fits 16 bits; a sum times an offset might not.
        let scaled = _mm256_mullo_epi16(load_words(sub_scales), offset);
        _mm256_madd_epi16(scaled, half_sums)
    } else {
        _mm256_madd_epi16(half_sums, offset)
    };
    _mm256_sub_epi32(dot, share)
}

/// Dot products of unsigned quants: as many steps as fit are summed in 16 bits; then the halves of the
/// group are scaled by their integers, if they have any.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned_dots<L: Law, const M: usize>(
    quants: &[__m256i; 8],
    sub_scales: &[u32; 8],
    acts: &[&ActGroup; M],
) -> [__m256i; M] {
    // A step adds two products to a 16-bit lane; sub-scales end a run after half a group.
    let fitting_steps = const { i16::MAX / (2 * 127 * L::LARGEST) };
    let longest = if L::SUB_SCALES { 4 } else { 8 };
    let run = if fitting_steps >= longest {
        longest
    } else if fitting_steps >= 4 {
        4
    } else {
        2
    };
    let run = usize::from(run.cast_unsigned());
    let mut dots = [_mm256_setzero_si256(); M];
    let mut first = 0;
    while first < 8 {
        let mut pairs = [_mm256_setzero_si256(); M];
        for step in first..first + run {
            for (pairs, act) in pairs.iter_mut().zip(acts) {
                let act = _mm256_set1_epi32(act[step].cast_signed());
                *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(quants[step], act));
            }
        }
        let factor = if L::SUB_SCALES {
            sub_scale(sub_scales, first >= 4)
        } else {
            _mm256_set1_epi16(1)
        };
        for (dot, pairs) in dots.iter_mut().zip(pairs) {
            *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, factor));
        }
        first += run;
    }
    dots
}

/// The first or second half's sub-scale of each row, in both 16-bit halves of its lane.
#[inline]
#[target_feature(enable = "avx2")]
fn sub_scale(sub_scales: &[u32; 8], second: bool) -> __m256i {
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
    let low = load_bytes(&bytes);
    let control = if second {
        _mm256_add_epi16(low, _mm256_set1_epi16(0x0202))
    } else {
        low
    };
    _mm256_shuffle_epi8(load_words(sub_scales), control)
}

/// Dot products of signed quants: their signs move to the activations.
///
/// Two products of a step reach 2 · 128 · 127, which fits 16 bits; a second step would not.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_dots<const M: usize>(quants: &[__m256i; 8], acts: &[&ActGroup; M]) -> [__m256i; M] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [_mm256_setzero_si256(); M];
    for (step, &quants) in quants.iter().enumerate() {
        let magnitudes = _mm256_sign_epi8(quants, quants);
        for (dot, act) in dots.iter_mut().zip(acts) {
            let act = _mm256_set1_epi32(act[step].cast_signed());
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(act, quants));
            *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
        }
    }
    dots
}
