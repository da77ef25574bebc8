//! Unpacking super-blocks of 256 weights; a panel is one super-block.

use std::arch::x86_64::{
    __m256, __m256i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_sll_epi16, _mm256_srai_epi16, _mm256_srl_epi16,
    _mm256_srl_epi32, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_sub_epi8, _mm256_xor_ps,
};

use super::super::panel::{
    BiasedFives, BiasedNibbles, Panel, PanelGroup, SubSixes, SubThrees, SubTwos, Sums,
};
use super::add_group;
use super::lanes::{
    Rows, half_pairs, load_floats, octets, odd_half, quads, store_bytes, store_floats, store_words,
    word,
};
use super::types::{TypeKernels, each_group, type_kernels};
use crate::quantize::ActGroup;

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

/// A number of bits, as the shifts take it.
const fn amount(bits: usize) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "at most 8"
    )]
    {
        bits as i32
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
fn store_scales<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, panel: &mut [PanelGroup; 8]) {
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
fn store_sub_scales(words: &[__m256i; 4], half: usize, panel: &mut [PanelGroup; 8]) {
    for (group_idx, group) in panel.iter_mut().enumerate() {
        // Shifting down from the upper half keeps the sign.
        let pair = _mm256_srai_epi16::<8>(sub_pair(words, group_idx, true));
        store_words(pair, &mut group.sub_scales[half]);
    }
}

/// One scale for all groups of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn store_scale(scale: __m256, half: usize, groups: &mut [PanelGroup; 8]) {
    for group in groups {
        store_floats(scale, &mut group.scales[half]);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q2_scales<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, groups: &mut [PanelGroup; 8]) {
    let subs = quads(rows, 0);
    let [scale, min] = half_pairs(word(rows, 80));
    let nibble = _mm256_set1_epi16(15);
    for (group_idx, group) in groups.iter_mut().enumerate() {
        let pair = sub_pair(&subs, group_idx, false);
        store_words(_mm256_and_si256(pair, nibble), &mut group.sub_scales[half]);
        store_words(_mm256_srli_epi16::<4>(pair), &mut group.sub_mins[half]);
        store_floats(negated(min), &mut group.biases[half]);
    }
    store_scale(scale, half, groups);
}

#[inline]
#[target_feature(enable = "avx2")]
fn q2<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, run: usize) -> [__m256i; 8] {
    let mut quants = octets(rows, 16 + 32 * run);
    for quants in &mut quants {
        *quants = bits::<3>(*quants, amount(2 * GROUP), 0);
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q3_scales<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, groups: &mut [PanelGroup; 8]) {
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
    store_sub_scales(&sub_scales, half, groups);
    store_scale(odd_half(rows, 108), half, groups);
}

#[inline]
#[target_feature(enable = "avx2")]
fn q3<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, run: usize) -> [__m256i; 8] {
    let third_bits = octets(rows, 0);
    let mut quants = octets(rows, 32 + 32 * run);
    for (quants, third_bits) in quants.iter_mut().zip(third_bits) {
        let low = bits::<3>(*quants, amount(2 * GROUP), 0);
        *quants = _mm256_or_si256(low, bits::<1>(third_bits, amount(4 * run + GROUP), 2));
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2")]
fn q4<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, run: usize) -> [__m256i; 8] {
    let mut quants = octets(rows, 16 + 32 * run);
    for quants in &mut quants {
        *quants = bits::<15>(*quants, amount(4 * GROUP), 0);
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2")]
fn q5<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, run: usize) -> [__m256i; 8] {
    let fifth_bits = octets(rows, 16);
    let mut quants = octets(rows, 48 + 32 * run);
    for (quants, fifth_bits) in quants.iter_mut().zip(fifth_bits) {
        let low = bits::<15>(*quants, amount(4 * GROUP), 0);
        *quants = _mm256_or_si256(low, bits::<1>(fifth_bits, amount(2 * run + GROUP), 4));
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q6_scales<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, groups: &mut [PanelGroup; 8]) {
    store_sub_scales(&quads(rows, 192), half, groups);
    store_scale(odd_half(rows, 208), half, groups);
}

#[inline]
#[target_feature(enable = "avx2")]
fn q6<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, run: usize) -> [__m256i; 8] {
    let high_bits = octets(rows, 128 + 32 * run);
    let mut quants = octets(rows, 64 * run + 32 * (GROUP % 2));
    for (quants, high_bits) in quants.iter_mut().zip(high_bits) {
        let low = bits::<15>(*quants, amount(4 * (GROUP / 2)), 0);
        *quants = _mm256_or_si256(low, bits::<3>(high_bits, amount(2 * GROUP), 4));
    }
    quants
}

type_kernels!(Q2: 84 bytes, SubTwos, 2 x [0, 1, 2, 3], q2_scales, q2);
type_kernels!(Q3: 110 bytes, SubThrees, 2 x [0, 1, 2, 3], q3_scales, q3);
type_kernels!(Q4: 144 bytes, BiasedNibbles, 4 x [0, 1], store_scales, q4);
type_kernels!(Q5: 176 bytes, BiasedFives, 4 x [0, 1], store_scales, q5);
type_kernels!(Q6: 210 bytes, SubSixes, 2 x [0, 1, 2, 3], q6_scales, q6);
