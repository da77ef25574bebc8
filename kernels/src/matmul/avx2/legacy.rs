//! Unpacking blocks of 32 weights.

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_srli_epi16,
};

use super::super::panel::{PanelGroup, TILE_ROWS};
use super::lanes::{blocks, half_pairs, octets, quads, store_bytes, store_floats, words};

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

#[inline]
#[target_feature(enable = "avx2")]
fn store(quants: [__m256i; 8], half: usize, group: &mut PanelGroup) {
    for (vector, bytes) in quants.into_iter().zip(&mut group.quants) {
        store_bytes(vector, &mut bytes[half]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4_0(rows: &[&[u8]; TILE_ROWS], first_group: usize, panel: &mut [PanelGroup]) {
    for (i, group) in panel.iter_mut().enumerate() {
        for half in 0..2 {
            let blocks = blocks::<18>(rows, half, first_group + i);
            store(nibbles(quads(&blocks, 2)), half, group);
            let [scale, _] = half_pairs(words(&blocks, 0));
            store_floats(scale, &mut group.scales[half]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q4_1(rows: &[&[u8]; TILE_ROWS], first_group: usize, panel: &mut [PanelGroup]) {
    for (i, group) in panel.iter_mut().enumerate() {
        for half in 0..2 {
            let blocks = blocks::<20>(rows, half, first_group + i);
            store(nibbles(quads(&blocks, 4)), half, group);
            let [scale, min] = half_pairs(words(&blocks, 0));
            store_floats(scale, &mut group.scales[half]);
            store_floats(min, &mut group.biases[half]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_0(rows: &[&[u8]; TILE_ROWS], first_group: usize, panel: &mut [PanelGroup]) {
    for (i, group) in panel.iter_mut().enumerate() {
        for half in 0..2 {
            let blocks = blocks::<22>(rows, half, first_group + i);
            let quants = with_fifth_bits(nibbles(quads(&blocks, 6)), words(&blocks, 2));
            store(quants, half, group);
            let [scale, _] = half_pairs(words(&blocks, 0));
            store_floats(scale, &mut group.scales[half]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q5_1(rows: &[&[u8]; TILE_ROWS], first_group: usize, panel: &mut [PanelGroup]) {
    for (i, group) in panel.iter_mut().enumerate() {
        for half in 0..2 {
            let blocks = blocks::<24>(rows, half, first_group + i);
            let quants = with_fifth_bits(nibbles(quads(&blocks, 8)), words(&blocks, 4));
            store(quants, half, group);
            let [scale, min] = half_pairs(words(&blocks, 0));
            store_floats(scale, &mut group.scales[half]);
            store_floats(min, &mut group.biases[half]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q8_0(rows: &[&[u8]; TILE_ROWS], first_group: usize, panel: &mut [PanelGroup]) {
    for (i, group) in panel.iter_mut().enumerate() {
        for half in 0..2 {
            let blocks = blocks::<34>(rows, half, first_group + i);
            store(octets(&blocks, 2), half, group);
            let [scale, _] = half_pairs(words(&blocks, 0));
            store_floats(scale, &mut group.scales[half]);
        }
    }
}
