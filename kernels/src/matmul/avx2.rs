//! The quantised product in 256-bit vectors: a vector holds eight weight rows, a lane each.
//!
//! The functions here are safe but for their features; whoever calls them without has to hold a token.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_sub_epi32,
};
use std::ops::Range;

use super::direct::{Arithmetic, DirectRows, add_strip};
use super::panel::{GroupScales, Law, Panel, Sums, TILE_ROWS, Unpack};
use super::unpack::{Packing, Rows};
use super::vector::{F256, V256, Vector};
use crate::isa::Avx2;
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM};

/// The functions that multiply a strip directly: one row only, for more of them there are too few
/// registers.
pub(super) fn direct_of<P: Packing>() -> &'static [DirectRows] {
    const { &[(1, direct::<P> as _)] }
}

/// The function that unpacks a type.
pub(super) fn unpack_of<P: Packing>() -> Unpack {
    unpack::<P>
}

#[target_feature(enable = "avx2,fma,f16c")]
fn direct<P: Packing>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx2::assume() };
    add_strip::<P, V256<Avx2>, 1>(proof, strip, acts, sums);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack<P: Packing>(strip: &[u8], groups: Range<usize>, panel: &mut Panel) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx2::assume() };
    let blocks = strip.chunks_exact(P::STRIP_BLOCK_BYTES);
    let blocks = blocks.skip(groups.start / P::GROUPS);
    let quants = panel.quants[..groups.len()].chunks_exact_mut(P::GROUPS);
    let scales = panel.scales[..groups.len()].chunks_exact_mut(P::GROUPS);
    for (block, (quants, scales)) in blocks.zip(quants.zip(scales)) {
        for part in 0..V256::<Avx2>::PARTS {
            let rows = Rows::<V256<Avx2>>::new(proof, block, part);
            P::scales(rows, scales);
            for (run, quants) in quants.chunks_exact_mut(P::RUN_GROUPS).enumerate() {
                // Written out, so that a group's constants are constants.
                unpack_group::<P, 0>(rows, run, quants);
                unpack_group::<P, 1>(rows, run, quants);
                unpack_group::<P, 2>(rows, run, quants);
                unpack_group::<P, 3>(rows, run, quants);
            }
        }
    }
}

/// Unpacks one group of a run, if the run has it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_group<P: Packing, const GROUP: usize>(
    rows: Rows<'_, V256<Avx2>>,
    run: usize,
    groups: &mut [[[u32; TILE_ROWS]; 8]],
) {
    if GROUP < P::RUN_GROUPS {
        let quants = P::quants::<V256<Avx2>, GROUP>(rows, run);
        for (vector, words) in quants.iter().zip(&mut groups[GROUP]) {
            vector.store(words, rows.part());
        }
    }
}

/// Adds the products of a panel to the sums: four activation rows at a time where there are as many,
/// so that a loaded weight serves them all.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<L: Law>(panel: &Panel, acts: &[&[ActGroup]], sums: &mut [Sums]) {
    let (act_fours, last_acts) = acts.as_chunks::<4>();
    let (sum_fours, last_sums) = sums.as_chunks_mut::<4>();
    for (acts, sums) in act_fours.iter().zip(sum_fours) {
        for part in 0..V256::<Avx2>::PARTS {
            dot_rows::<L, 4>(panel, part, acts, sums);
        }
    }
    for (act, sums) in last_acts.iter().zip(last_sums) {
        for part in 0..V256::<Avx2>::PARTS {
            dot_rows::<L, 1>(panel, part, &[act], std::array::from_mut(sums));
        }
    }
}

/// The products of eight weight rows with `M` activation rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<L: Law, const M: usize>(
    panel: &Panel,
    part: usize,
    acts: &[&[ActGroup]; M],
    sums: &mut [Sums; M],
) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx2::assume() };
    let mut totals = [V256::floats(proof, &sums[0], part); M];
    for (total, sums) in totals.iter_mut().zip(&*sums) {
        *total = V256::floats(proof, sums, part);
    }
    let n_groups = acts[0].len();
    let groups = panel.quants.iter().zip(&panel.scales).take(n_groups);
    for (group_idx, (quants, scales)) in groups.enumerate() {
        let mut groups = [&acts[0][group_idx]; M];
        for (group, act) in groups.iter_mut().zip(acts) {
            *group = &act[group_idx];
        }
        let mut vectors = [V256::new(proof, _mm256_setzero_si256()); 8];
        for (vector, words) in vectors.iter_mut().zip(quants) {
            *vector = V256::words(proof, words, part);
        }
        add_group::<L, M>(proof, &vectors, scales, part, &groups, &mut totals);
    }
    for (total, sums) in totals.into_iter().zip(sums) {
        super::vector::Floats::store(total, sums, part);
    }
}

impl Arithmetic for V256<Avx2> {
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn add_group<L: Law, const M: usize>(
        proof: Avx2,
        quants: &[Self; 8],
        scales: &GroupScales,
        part: usize,
        acts: &[&ActGroup; M],
        totals: &mut [F256; M],
    ) {
        // SAFETY: the vectors prove AVX2, FMA and F16C.
        unsafe { add_group::<L, M>(proof, quants, scales, part, acts, totals) }
    }
}

/// Adds the products of one group to the totals of eight rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_group<L: Law, const M: usize>(
    proof: Avx2,
    quants: &[V256<Avx2>; 8],
    weights: &GroupScales,
    part: usize,
    groups: &[&ActGroup; M],
    totals: &mut [F256; M],
) {
    let sub_scales = V256::words(proof, &weights.sub_scales, part).0;
    let dots = if L::SIGNED {
        signed_dots::<M>(quants, groups)
    } else {
        unsigned_dots::<L, M>(quants, sub_scales, groups)
    };
    let scale = V256::floats(proof, &weights.scales, part).0;
    let bias = V256::floats(proof, &weights.biases, part).0;
    let sub_mins = V256::words(proof, &weights.sub_mins, part).0;
    for row in 0..M {
        let group = groups[row];
        let half_sums = _mm256_set1_epi32(group[HALF_SUMS].cast_signed());
        let act_scale = _mm256_set1_ps(f32::from_bits(group[SCALE]));
        let dot = less_offset::<L>(dots[row], half_sums, sub_scales);
        let scale = _mm256_mul_ps(scale, act_scale);
        let mut total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, totals[row].0);
        if L::BIAS {
            let act_sum = _mm256_set1_ps(f32::from_bits(group[SUM]));
            total = _mm256_fmadd_ps(bias, act_sum, total);
        }
        if L::SUB_MINS {
            let min = _mm256_madd_epi16(sub_mins, half_sums);
            let scale = _mm256_mul_ps(bias, act_scale);
            total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(min), scale, total);
        }
        totals[row] = F256(total);
    }
}

/// Takes the offset's share off a dot product.
#[inline]
#[target_feature(enable = "avx2")]
fn less_offset<L: Law>(dot: __m256i, half_sums: __m256i, sub_scales: __m256i) -> __m256i {
    if L::OFFSET == 0 {
        return dot;
    }
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

/// Dot products of unsigned quants: as many steps as fit are summed in 16 bits; then the halves of the
/// group are scaled by their integers, if they have any.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned_dots<L: Law, const M: usize>(
    quants: &[V256<Avx2>; 8],
    sub_scales: __m256i,
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
                *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(quants[step].0, act));
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
fn signed_dots<const M: usize>(quants: &[V256<Avx2>; 8], acts: &[&ActGroup; M]) -> [__m256i; M] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [_mm256_setzero_si256(); M];
    for (step, quants) in quants.iter().enumerate() {
        let quants = quants.0;
        let magnitudes = _mm256_sign_epi8(quants, quants);
        for (dot, act) in dots.iter_mut().zip(acts) {
            let act = _mm256_set1_epi32(act[step].cast_signed());
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(act, quants));
            *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(pairs, ones));
        }
    }
    dots
}
