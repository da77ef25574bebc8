//! The quantised product in 256-bit vectors: a vector holds eight weight rows, a lane each.
//!
//! The functions here are safe but for their features; whoever calls them without has to hold a token.

mod k;
mod lanes;
mod legacy;

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_sub_epi32,
};

use super::panel::{Law, PanelGroup, Sums, Unpack};
use crate::WeightType;
use crate::quantize::ActRow;
use lanes::{load_floats, load_words, store_floats};

/// The function that unpacks a type.
pub(super) fn unpack_of(weight_type: WeightType) -> Unpack {
    match weight_type {
        // Floats are not unpacked: their rows hold no groups.
        WeightType::F32 | WeightType::F16 | WeightType::BF16 | WeightType::Q4_0 => legacy::q4_0,
        WeightType::Q4_1 => legacy::q4_1,
        WeightType::Q5_0 => legacy::q5_0,
        WeightType::Q5_1 => legacy::q5_1,
        WeightType::Q8_0 => legacy::q8_0,
        WeightType::Q2K => k::q2,
        WeightType::Q3K => k::q3,
        WeightType::Q4K => k::q4,
        WeightType::Q5K => k::q5,
        WeightType::Q6K => k::q6,
    }
}

/// Adds the products of a panel to the sums: two activation rows at a time, so that a loaded weight
/// serves twice.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<L: Law>(panel: &[PanelGroup], acts: &[ActRow<'_>], sums: &mut [Sums]) {
    let (act_pairs, last_act) = acts.as_chunks::<2>();
    let (sum_pairs, last_sums) = sums.as_chunks_mut::<2>();
    for (acts, sums) in act_pairs.iter().zip(sum_pairs) {
        dot_rows::<L, 2>(panel, acts, sums);
    }
    if let ([act], [sums]) = (last_act, last_sums) {
        dot_rows::<L, 1>(panel, std::array::from_ref(act), std::array::from_mut(sums));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<L: Law, const M: usize>(
    panel: &[PanelGroup],
    acts: &[ActRow<'_>; M],
    sums: &mut [Sums; M],
) {
    let mut totals = [[_mm256_set1_ps(0.0); 2]; M];
    for (totals, sums) in totals.iter_mut().zip(&*sums) {
        *totals = [load_floats(&sums[0]), load_floats(&sums[1])];
    }
    for (group_idx, weights) in panel.iter().enumerate() {
        let quants: [&[u32; 8]; M] = std::array::from_fn(|row| &acts[row].quants[group_idx]);
        let dots = if L::SIGNED {
            signed_dots(weights, &quants)
        } else if L::SUB_SCALES {
            sub_scaled_dots::<L, M>(weights, &quants)
        } else {
            unsigned_dots::<L, M>(weights, &quants)
        };
        for row in 0..M {
            let half_sums = _mm256_set1_epi32(acts[row].half_sums[group_idx].cast_signed());
            let act_scale = _mm256_set1_ps(acts[row].scales[group_idx]);
            let act_sum = _mm256_set1_ps(acts[row].sums[group_idx]);
            for half in 0..2 {
                let dot = less_offset::<L>(dots[row][half], half_sums, &weights.sub_scales[half]);
                let scale = _mm256_mul_ps(load_floats(&weights.scales[half]), act_scale);
                let mut total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, totals[row][half]);
                let bias = load_floats(&weights.biases[half]);
                if L::BIAS {
                    total = _mm256_fmadd_ps(bias, act_sum, total);
                }
                if L::SUB_MINS {
                    let min = _mm256_madd_epi16(load_words(&weights.sub_mins[half]), half_sums);
                    let scale = _mm256_mul_ps(bias, act_scale);
                    total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min), scale, total);
                }
                totals[row][half] = total;
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        store_floats(totals[0], &mut sums[0]);
        store_floats(totals[1], &mut sums[1]);
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

/// Dot products of unsigned quants: as many steps as fit are summed in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned_dots<L: Law, const M: usize>(
    weights: &PanelGroup,
    acts: &[&[u32; 8]; M],
) -> [[__m256i; 2]; M] {
    let ones = _mm256_set1_epi16(1);
    // A step adds two products to a 16-bit lane.
    let fits_whole = const { 8 * 2 * 127 * (L::LARGEST as i32) <= i16::MAX as i32 };
    let run = if fits_whole { 8 } else { 4 };
    let mut dots = [[_mm256_setzero_si256(); 2]; M];
    for first in (0..8).step_by(run) {
        let pairs = pair_sums(weights, acts, first, run);
        for row in 0..M {
            for half in 0..2 {
                let dot = _mm256_madd_epi16(pairs[row][half], ones);
                let so_far = dots[row][half];
                dots[row][half] = if first == 0 {
                    dot
                } else {
                    _mm256_add_epi32(so_far, dot)
                };
            }
        }
    }
    dots
}

/// Dot products of unsigned quants, the halves of the group scaled by their integers.
#[inline]
#[target_feature(enable = "avx2")]
fn sub_scaled_dots<L: Law, const M: usize>(
    weights: &PanelGroup,
    acts: &[&[u32; 8]; M],
) -> [[__m256i; 2]; M] {
    // Six bits are too many to sum a half group in 16 bits.
    let fits_half = const { 4 * 2 * 127 * (L::LARGEST as i32) <= i16::MAX as i32 };
    let run = if fits_half { 4 } else { 2 };
    let mut dots = [[_mm256_setzero_si256(); 2]; M];
    for first in (0..8).step_by(run) {
        let pairs = pair_sums(weights, acts, first, run);
        for half in 0..2 {
            let sub_scale = sub_scale(&weights.sub_scales[half], first >= 4);
            for row in 0..M {
                let dot = _mm256_madd_epi16(pairs[row][half], sub_scale);
                dots[row][half] = _mm256_add_epi32(dots[row][half], dot);
            }
        }
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
    let low = lanes::load_bytes(&bytes);
    let control = if second {
        _mm256_add_epi16(low, _mm256_set1_epi16(0x0202))
    } else {
        low
    };
    _mm256_shuffle_epi8(load_words(sub_scales), control)
}

/// Sums of products over `run` steps from `first` on, in 16-bit lanes: two to a row.
#[inline]
#[target_feature(enable = "avx2")]
fn pair_sums<const M: usize>(
    weights: &PanelGroup,
    acts: &[&[u32; 8]; M],
    first: usize,
    run: usize,
) -> [[__m256i; 2]; M] {
    let mut pairs = [[_mm256_setzero_si256(); 2]; M];
    for step in first..first + run {
        let rows = &weights.quants[step];
        let quants = [lanes::load_bytes(&rows[0]), lanes::load_bytes(&rows[1])];
        for row in 0..M {
            let act = _mm256_set1_epi32(acts[row][step].cast_signed());
            for half in 0..2 {
                let products = _mm256_maddubs_epi16(quants[half], act);
                let so_far = pairs[row][half];
                pairs[row][half] = if step == first {
                    products
                } else {
                    _mm256_add_epi16(so_far, products)
                };
            }
        }
    }
    pairs
}

/// Dot products of signed quants: their signs move to the activations.
///
/// Two products of a step reach 2 · 128 · 127, which fits 16 bits; a second step would not.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_dots<const M: usize>(weights: &PanelGroup, acts: &[&[u32; 8]; M]) -> [[__m256i; 2]; M] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 2]; M];
    for (step, rows) in weights.quants.iter().enumerate() {
        for half in 0..2 {
            let quants = lanes::load_bytes(&rows[half]);
            let magnitudes = _mm256_sign_epi8(quants, quants);
            for row in 0..M {
                let act = _mm256_set1_epi32(acts[row][step].cast_signed());
                let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(act, quants));
                let dot = _mm256_madd_epi16(pairs, ones);
                dots[row][half] = _mm256_add_epi32(dots[row][half], dot);
            }
        }
    }
    dots
}
