//! Between memory and lanes: loads and stores. A weight row has its lane in memory already.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_and_si256, _mm256_castsi256_si128, _mm256_cvtph_ps,
    _mm256_extracti128_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi32,
    _mm256_srli_epi32,
};

use crate::pack::place;

/// Eight rows of a strip's block of `LEN` bytes: the first eight, or the last.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, const LEN: usize> {
    block: &'a [u8; LEN],
    half: usize,
}

impl<'a, const LEN: usize> Rows<'a, LEN> {
    /// Half `half` of the rows of a block.
    pub(super) fn new(block: &'a [u8; LEN], half: usize) -> Self {
        Self { block, half }
    }
}

// Casts by value compile to unaligned vector loads and stores, without a pointer in sight.

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    bytemuck::cast(*bytes)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_bytes(vector: __m256i, bytes: &mut [u8; 32]) {
    *bytes = bytemuck::cast(vector);
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(words: &[u32; 8]) -> __m256i {
    bytemuck::cast(*words)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_words(vector: __m256i, words: &mut [u32; 8]) {
    *words = bytemuck::cast(vector);
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_floats(floats: &[f32; 8]) -> __m256 {
    bytemuck::cast(*floats)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_floats(vector: __m256, floats: &mut [f32; 8]) {
    *floats = bytemuck::cast(vector);
}

/// The word at `at` of each row's block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn word<const LEN: usize>(rows: Rows<'_, LEN>, at: usize) -> __m256i {
    let start = place(at) + 32 * rows.half;
    let words = rows.block[start..].first_chunk::<32>();
    load_bytes(words.unwrap_or(&[0; 32]))
}

/// The four words from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quads<const LEN: usize>(rows: Rows<'_, LEN>, at: usize) -> [__m256i; 4] {
    [
        word(rows, at),
        word(rows, at + 4),
        word(rows, at + 8),
        word(rows, at + 12),
    ]
}

/// The eight words from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn octets<const LEN: usize>(rows: Rows<'_, LEN>, at: usize) -> [__m256i; 8] {
    let [a, b, c, d] = quads(rows, at);
    let [e, f, g, h] = quads(rows, at + 16);
    [a, b, c, d, e, f, g, h]
}

/// The half-precision float at `at` of each row's block, which is no part of a word.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn odd_half<const LEN: usize>(rows: Rows<'_, LEN>, at: usize) -> __m256 {
    let start = place(at) + 16 * rows.half;
    let halves = rows.block[start..].first_chunk::<16>();
    _mm256_cvtph_ps(bytemuck::cast(*halves.unwrap_or(&[0; 16])))
}

/// The lower and the upper half of each word, from half precision.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn half_pairs(words: __m256i) -> [__m256; 2] {
    let low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    let high = _mm256_srli_epi32::<16>(words);
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
    [
        _mm256_cvtph_ps(_mm256_castsi256_si128(packed)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed)),
    ]
}
