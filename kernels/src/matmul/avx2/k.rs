//! Unpacking super-blocks of 256 weights; a panel is one super-block.

use std::arch::x86_64::{
    __m256, __m256i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_sll_epi16, _mm256_srai_epi16, _mm256_srl_epi16,
    _mm256_srl_epi32, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_sub_epi8, _mm256_xor_ps,
};

use super::super::panel::{PANEL_GROUPS, PanelGroup};
use super::lanes::{
    Rows, half_pairs, octets, odd_half, quads, store_bytes, store_floats, store_words, word,
};

/// `vector >> by` in 16-bit lanes, for an amount that the compiler knows once it unrolls.
#[inline]
#[target_feature(enable = "avx2")]
fn shift_right(vector: __m256i, by: i32) -> __m256i {
    _mm256_srl_epi16(vector, _mm_cvtsi32_si128(by))
}

/// The lowest `1 << BITS` values of each byte of `vector >> by`, moved up by `UP` bits.
#[inline]
#[target_feature(enable = "avx2")]
fn bits<const MASK: i8>(vector: __m256i, by: i32, up: i32) -> __m256i {
    let low = _mm256_and_si256(shift_right(vector, by), _mm256_set1_epi8(MASK));
    if up == 0 {
        low
    } else {
        _mm256_sll_epi16(low, _mm_cvtsi32_si128(up))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn negated(floats: __m256) -> __m256 {
    _mm256_xor_ps(floats, _mm256_set1_ps(-0.0))
}

/// The six-bit scales of eight groups, four to a word, then their minima, from a block's first words.
#[inline]
#[target_feature(enable = "avx2")]
fn scales_and_mins(low_scales: __m256i, low_mins: __m256i, high: __m256i) -> [[__m256i; 2]; 2] {
    let six = _mm256_set1_epi8(0x3f);
    let four = _mm256_set1_epi8(0x0f);
    let upper_two = |word| _mm256_and_si256(_mm256_srli_epi16::<2>(word), _mm256_set1_epi8(0x30));
    let high_scales = _mm256_and_si256(high, four);
    let high_mins = _mm256_and_si256(_mm256_srli_epi16::<4>(high), four);
    [
        [
            _mm256_and_si256(low_scales, six),
            _mm256_or_si256(high_scales, upper_two(low_scales)),
        ],
        [
            _mm256_and_si256(low_mins, six),
            _mm256_or_si256(high_mins, upper_two(low_mins)),
        ],
    ]
}

/// Byte `group_idx` of eight, as a float.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_float(words: [__m256i; 2], group_idx: i32) -> __m256 {
    let word = words[usize::from(group_idx >= 4)];
    let byte = _mm256_srl_epi32(word, _mm_cvtsi32_si128(group_idx % 4 * 8));
    _mm256_cvtepi32_ps(_mm256_and_si256(byte, _mm256_set1_epi32(0xff)))
}

/// Stores the scales and biases of all groups of Q4_K and Q5_K, whose blocks start alike.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store_scales<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, panel: &mut [PanelGroup]) {
    let [halves, low_scales, low_mins, high] = quads(rows, 0);
    let [scale, min] = half_pairs(halves);
    let bias = negated(min);
    let [scales, mins] = scales_and_mins(low_scales, low_mins, high);
    for (group_idx, group) in (0..).zip(panel) {
        let scale = _mm256_mul_ps(scale, byte_float(scales, group_idx));
        store_floats(scale, &mut group.scales[half]);
        let bias = _mm256_mul_ps(bias, byte_float(mins, group_idx));
        store_floats(bias, &mut group.biases[half]);
    }
}

/// Two bytes of 16 sub-scales, each in the upper or the lower half of its 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn sub_pair(words: &[__m256i; 4], group_idx: usize, upper: bool) -> __m256i {
    let at_even = _mm256_setr_epi8(
        0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1, 5, -1, 8,
        -1, 9, -1, 12, -1, 13, -1,
    );
    let at_even_upper = _mm256_setr_epi8(
        -1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1, 5, -1,
        8, -1, 9, -1, 12, -1, 13,
    );
    let word = words[group_idx / 2];
    let word = if group_idx % 2 == 1 {
        _mm256_srli_epi32::<16>(word)
    } else {
        word
    };
    _mm256_shuffle_epi8(word, if upper { at_even_upper } else { at_even })
}

/// Stores the signed sub-scales of all groups.
#[inline]
#[target_feature(enable = "avx2")]
fn store_sub_scales(words: &[__m256i; 4], half: usize, panel: &mut [PanelGroup]) {
    for (group_idx, group) in panel.iter_mut().enumerate() {
        // Shifting down from the upper half keeps the sign.
        let pair = _mm256_srai_epi16::<8>(sub_pair(words, group_idx, true));
        store_words(pair, &mut group.sub_scales[half]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q2(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
    for half in 0..2 {
        let block = &strip.as_chunks::<{ 16 * 84 }>().0[first_group / PANEL_GROUPS];
        let rows = Rows::new(block, half);
        let subs = quads(rows, 0);
        let [scale, min] = half_pairs(word(rows, 80));
        let nibble = _mm256_set1_epi16(15);
        for (group_idx, group) in panel.iter_mut().enumerate() {
            let pair = sub_pair(&subs, group_idx, false);
            store_words(_mm256_and_si256(pair, nibble), &mut group.sub_scales[half]);
            store_words(_mm256_srli_epi16::<4>(pair), &mut group.sub_mins[half]);
            store_floats(scale, &mut group.scales[half]);
            store_floats(negated(min), &mut group.biases[half]);
        }
        for (run_idx, groups) in panel.chunks_mut(4).enumerate() {
            let packed = octets(rows, 16 + 32 * run_idx);
            for (shift, group) in (0..).step_by(2).zip(groups) {
                for (packed, bytes) in packed.iter().zip(&mut group.quants) {
                    store_bytes(bits::<3>(*packed, shift, 0), &mut bytes[half]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q3(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
    for half in 0..2 {
        let block = &strip.as_chunks::<{ 16 * 110 }>().0[first_group / PANEL_GROUPS];
        let rows = Rows::new(block, half);
        let low = word(rows, 96);
        let middle = word(rows, 100);
        let high = word(rows, 104);
        let sub_scale = |low: __m256i, low_shift, high_shift| {
            let word = _mm256_or_si256(
                bits::<15>(low, low_shift, 0),
                bits::<3>(high, high_shift, 4),
            );
            _mm256_sub_epi8(word, _mm256_set1_epi8(32))
        };
        let sub_scales = [
            sub_scale(low, 0, 0),
            sub_scale(middle, 0, 2),
            sub_scale(low, 4, 4),
            sub_scale(middle, 4, 6),
        ];
        store_sub_scales(&sub_scales, half, panel);
        let scale = odd_half(rows, 108);
        for group in panel.iter_mut() {
            store_floats(scale, &mut group.scales[half]);
        }
        let third_bits = octets(rows, 0);
        for (run_idx, groups) in (0..).zip(panel.chunks_mut(4)) {
            let packed = octets(rows, if run_idx == 0 { 32 } else { 64 });
            for (group_idx, group) in (0..).zip(groups) {
                for (i, bytes) in group.quants.iter_mut().enumerate() {
                    let low = bits::<3>(packed[i], 2 * group_idx, 0);
                    let high = bits::<1>(third_bits[i], 4 * run_idx + group_idx, 2);
                    store_bytes(_mm256_or_si256(low, high), &mut bytes[half]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
    let nibble = _mm256_set1_epi8(15);
    for half in 0..2 {
        let block = &strip.as_chunks::<{ 16 * 144 }>().0[first_group / PANEL_GROUPS];
        let rows = Rows::new(block, half);
        store_scales(rows, half, panel);
        for (run_idx, groups) in panel.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let packed = octets(rows, 16 + 32 * run_idx);
            for (i, packed) in packed.into_iter().enumerate() {
                let high = _mm256_srli_epi16::<4>(packed);
                store_bytes(
                    _mm256_and_si256(packed, nibble),
                    &mut groups[0].quants[i][half],
                );
                store_bytes(
                    _mm256_and_si256(high, nibble),
                    &mut groups[1].quants[i][half],
                );
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
    for half in 0..2 {
        let block = &strip.as_chunks::<{ 16 * 176 }>().0[first_group / PANEL_GROUPS];
        let rows = Rows::new(block, half);
        store_scales(rows, half, panel);
        let fifth_bits = octets(rows, 16);
        for (run_idx, groups) in (0..).zip(panel.as_chunks_mut::<2>().0) {
            let packed = octets(rows, 48 + 32 * run_idx);
            let shift = 2 * i32::try_from(run_idx).unwrap_or(0);
            for (i, packed) in packed.into_iter().enumerate() {
                for (nibble_idx, group) in (0..).zip(&mut *groups) {
                    let low = bits::<15>(packed, 4 * nibble_idx, 0);
                    let high = bits::<1>(fifth_bits[i], shift + nibble_idx, 4);
                    store_bytes(_mm256_or_si256(low, high), &mut group.quants[i][half]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q6(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
    for half in 0..2 {
        let block = &strip.as_chunks::<{ 16 * 210 }>().0[first_group / PANEL_GROUPS];
        let rows = Rows::new(block, half);
        store_sub_scales(&quads(rows, 192), half, panel);
        let scale = odd_half(rows, 208);
        for group in panel.iter_mut() {
            store_floats(scale, &mut group.scales[half]);
        }
        for (run_idx, groups) in panel.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high_bits = octets(rows, 128 + 32 * run_idx);
            for side in 0..2 {
                let packed = octets(rows, 64 * run_idx + 32 * side);
                let [first, second] = [side, side + 2];
                let shift = if side == 0 { 0 } else { 2 };
                for i in 0..8 {
                    let high = bits::<3>(high_bits[i], shift, 4);
                    let quants = _mm256_or_si256(bits::<15>(packed[i], 0, 0), high);
                    store_bytes(quants, &mut groups[first].quants[i][half]);
                    let high = bits::<3>(high_bits[i], shift + 4, 4);
                    let quants = _mm256_or_si256(bits::<15>(packed[i], 4, 0), high);
                    store_bytes(quants, &mut groups[second].quants[i][half]);
                }
            }
        }
    }
}
