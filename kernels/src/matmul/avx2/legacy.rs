//! Unpacking blocks of 32 weights.

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
};

use super::super::panel::{
    BiasedFives, BiasedNibbles, Bytes, Fives, Nibbles, Panel, PanelGroup, Sums,
};
use super::add_group;
use super::lanes::{
    Rows, half_pairs, load_floats, octets, odd_half, quads, store_bytes, store_floats, word,
};
use super::types::{TypeKernels, each_group, type_kernels};
use crate::quantize::ActGroup;

/// Low nibbles of the 16 bytes at `at`, then high ones: a whole group's quants.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: [__m256i; 4]) -> [__m256i; 8] {
    let mask = _mm256_set1_epi8(15);
    let [a, b, c, d] = bytes;
    let low = |bytes| _mm256_and_si256(bytes, mask);
    let high = |bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
    [
        low(a),
        low(b),
        low(c),
        low(d),
        high(a),
        high(b),
        high(c),
        high(d),
    ]
}

/// Adds a fifth bit to each quant: bit `i` of its row's word.
#[inline]
#[target_feature(enable = "avx2")]
fn with_fifth_bits(quants: [__m256i; 8], bits: __m256i) -> [__m256i; 8] {
    let fifth = _mm256_set1_epi8(16);
    // Each lane's byte `i / 2` four times; the bits of its lower and its upper nibble in turn.
    let first_bytes = _mm256_setr_epi8(
        0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12,
        12, 12, 12,
    );
    let nibble_bits = [0x0804_0201, 0x8040_2010_u32].map(u32::cast_signed);
    let mut with_fifth = quants;
    for (i, quants) in (0_i8..).zip(&mut with_fifth) {
        let byte = std::arch::x86_64::_mm256_add_epi8(first_bytes, _mm256_set1_epi8(i / 2));
        let mask = _mm256_set1_epi32(nibble_bits[usize::from(i % 2 == 1)]);
        let bits = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte), mask);
        let is_set = _mm256_cmpeq_epi8(bits, mask);
        *quants = _mm256_or_si256(*quants, _mm256_and_si256(is_set, fifth));
    }
    with_fifth
}

/// The scale of blocks that have no minimum.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scale<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, groups: &mut [PanelGroup; 1]) {
    store_floats(odd_half(rows, 0), &mut groups[0].scales[half]);
}

/// The scale and the minimum of a block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scale_and_min<const LEN: usize>(rows: Rows<'_, LEN>, half: usize, groups: &mut [PanelGroup; 1]) {
    let [scale, min] = half_pairs(word(rows, 0));
    store_floats(scale, &mut groups[0].scales[half]);
    store_floats(min, &mut groups[0].biases[half]);
}

#[inline]
#[target_feature(enable = "avx2")]
fn q4_0<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, _: usize) -> [__m256i; 8] {
    nibbles(quads(rows, 2))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q4_1<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, _: usize) -> [__m256i; 8] {
    nibbles(quads(rows, 4))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q5_0<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, _: usize) -> [__m256i; 8] {
    with_fifth_bits(nibbles(quads(rows, 6)), word(rows, 2))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q5_1<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, _: usize) -> [__m256i; 8] {
    with_fifth_bits(nibbles(quads(rows, 8)), word(rows, 4))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q8_0<const GROUP: usize, const LEN: usize>(rows: Rows<'_, LEN>, _: usize) -> [__m256i; 8] {
    octets(rows, 2)
}

type_kernels!(Q4_0: 18 bytes, Nibbles, 1 x [0], scale, q4_0);
type_kernels!(Q4_1: 20 bytes, BiasedNibbles, 1 x [0], scale_and_min, q4_1);
type_kernels!(Q5_0: 22 bytes, Fives, 1 x [0], scale, q5_0);
type_kernels!(Q5_1: 24 bytes, BiasedFives, 1 x [0], scale_and_min, q5_1);
type_kernels!(Q8_0: 34 bytes, Bytes, 1 x [0], scale, q8_0);
