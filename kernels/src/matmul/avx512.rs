//! The quantised product in 512-bit vectors with the byte dot product: a vector holds the sixteen rows
//! of a tile, a lane each. Unpacking is that of the 256-bit tier.
//!
//! The instruction multiplies unsigned weights with signed activations and sums without saturation, so
//! signed weights are raised by 128 and the offset is taken off again.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_srai_epi32, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_xor_si512,
};

use super::panel::{Law, PanelGroup, Sums};
use crate::quantize::ActRow;

/// Adds the products of a panel to the sums: up to four activation rows at a time, so that a loaded
/// weight serves them all.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn dot<L: Law>(panel: &[PanelGroup], acts: &[ActRow<'_>], sums: &mut [Sums]) {
    let (act_fours, last_acts) = acts.as_chunks::<4>();
    let (sum_fours, last_sums) = sums.as_chunks_mut::<4>();
    for (acts, sums) in act_fours.iter().zip(sum_fours) {
        dot_rows::<L, 4>(panel, acts, sums);
    }
    for (act, sums) in last_acts.iter().zip(last_sums) {
        dot_rows::<L, 1>(panel, std::array::from_ref(act), std::array::from_mut(sums));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_rows<L: Law, const M: usize>(
    panel: &[PanelGroup],
    acts: &[ActRow<'_>; M],
    sums: &mut [Sums; M],
) {
    let mut totals = [_mm512_set1_ps(0.0); M];
    for (total, sums) in totals.iter_mut().zip(&*sums) {
        *total = load_floats(sums);
    }
    for (group_idx, weights) in panel.iter().enumerate() {
        let quants: [&[u32; 8]; M] = std::array::from_fn(|row| &acts[row].quants[group_idx]);
        let halves = half_dots::<L, M>(weights, &quants);
        for row in 0..M {
            let half_sums = _mm512_set1_epi32(acts[row].half_sums[group_idx].cast_signed());
            let dot = group_dot::<L>(halves[row], half_sums, &weights.sub_scales);
            let act_scale = _mm512_set1_ps(acts[row].scales[group_idx]);
            let scale = _mm512_mul_ps(load_floats(&weights.scales), act_scale);
            let mut total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, totals[row]);
            let bias = load_floats(&weights.biases);
            if L::BIAS {
                let act_sum = _mm512_set1_ps(acts[row].sums[group_idx]);
                total = _mm512_fmadd_ps(bias, act_sum, total);
            }
            if L::SUB_MINS {
                let min = _mm512_madd_epi16(load_words(&weights.sub_mins), half_sums);
                let scale = _mm512_mul_ps(bias, act_scale);
                total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(min), scale, total);
            }
            totals[row] = total;
        }
    }
    for (total, sums) in totals.into_iter().zip(sums) {
        store_floats(total, sums);
    }
}

/// The dot products of both halves of a group, the offset still in them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn half_dots<L: Law, const M: usize>(
    weights: &PanelGroup,
    acts: &[&[u32; 8]; M],
) -> [[__m512i; 2]; M] {
    let mut dots = [[_mm512_setzero_si512(); 2]; M];
    for (step, rows) in weights.quants.iter().enumerate() {
        let quants = load_bytes(rows);
        let quants = if L::SIGNED {
            _mm512_xor_si512(quants, _mm512_set1_epi8(-128))
        } else {
            quants
        };
        for row in 0..M {
            let act = _mm512_set1_epi32(acts[row][step].cast_signed());
            dots[row][step / 4] = _mm512_dpbusd_epi32(dots[row][step / 4], quants, act);
        }
    }
    dots
}

/// The integer part of the law: offsets off, halves scaled and summed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn group_dot<L: Law>(
    halves: [__m512i; 2],
    half_sums: __m512i,
    sub_scales: &[[u32; 8]; 2],
) -> __m512i {
    if L::SUB_SCALES {
        let pairs = load_words(sub_scales);
        let low = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
        let high = _mm512_srai_epi32::<16>(pairs);
        let dot = _mm512_add_epi32(
            _mm512_mullo_epi32(halves[0], low),
            _mm512_mullo_epi32(halves[1], high),
        );
        if L::OFFSET == 0 {
            return dot;
        }
        let share = _mm512_madd_epi16(pairs, half_sums);
        let offset = _mm512_set1_epi32(i32::from(L::OFFSET));
        return _mm512_sub_epi32(dot, _mm512_mullo_epi32(share, offset));
    }
    let dot = _mm512_add_epi32(halves[0], halves[1]);
    let offset = if L::SIGNED { 128 } else { L::OFFSET };
    if offset == 0 {
        return dot;
    }
    _mm512_sub_epi32(dot, _mm512_madd_epi16(half_sums, _mm512_set1_epi16(offset)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(bytes: &[[u8; 32]; 2]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(words: &[[u32; 8]; 2]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(floats: &Sums) -> __m512 {
    // SAFETY: the reference covers the 64 bytes; no alignment is needed.
    unsafe { _mm512_loadu_ps(floats.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_floats(vector: __m512, floats: &mut Sums) {
    // SAFETY: the reference covers the 64 bytes; no alignment is needed.
    unsafe { _mm512_storeu_ps(floats.as_mut_ptr().cast(), vector) }
}
