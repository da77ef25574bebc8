//! Between memory and lanes: loads, stores, and the transpose that gives each weight row a lane.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi128_si256,
    _mm256_castsi256_si128, _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_inserti128_si256,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::super::panel::TILE_ROWS;

/// One block of each of eight rows.
pub(super) type Blocks<'a, const N: usize> = [&'a [u8; N]; 8];

/// Block `block_idx` of rows `8 * half .. 8 * half + 8`.
#[inline]
pub(super) fn blocks<'a, const N: usize>(
    rows: &[&'a [u8]; TILE_ROWS],
    half: usize,
    block_idx: usize,
) -> Blocks<'a, N> {
    std::array::from_fn(|i| &rows[8 * half + i].as_chunks::<N>().0[block_idx])
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_bytes(vector: __m256i, bytes: &mut [u8; 32]) {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(words: &[u32; 8]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_words(vector: __m256i, words: &mut [u32; 8]) {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_floats(floats: &[f32; 8]) -> __m256 {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_loadu_ps(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_floats(vector: __m256, floats: &mut [f32; 8]) {
    // SAFETY: the reference covers the 32 bytes; no alignment is needed.
    unsafe { _mm256_storeu_ps(floats.as_mut_ptr(), vector) }
}

/// The 16 bytes at `at` of block `low` in the lower half, those of block `high` in the upper.
#[inline]
#[target_feature(enable = "avx2")]
fn load_two(low: &[u8], high: &[u8], at: usize) -> __m256i {
    let (low, high) = (&low[at..at + 16], &high[at..at + 16]);
    // SAFETY: the slice is 16 bytes long; no alignment is needed.
    let low = unsafe { _mm_loadu_si128(low.as_ptr().cast()) };
    // SAFETY: as above.
    let high = unsafe { _mm_loadu_si128(high.as_ptr().cast()) };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}

/// Transposes the 16 bytes at `at`: vector `i` holds the `i`th word of each block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quads<const N: usize>(blocks: &Blocks<'_, N>, at: usize) -> [__m256i; 4] {
    let rows: [__m256i; 4] = [
        load_two(blocks[0], blocks[4], at),
        load_two(blocks[1], blocks[5], at),
        load_two(blocks[2], blocks[6], at),
        load_two(blocks[3], blocks[7], at),
    ];
    let low = _mm256_unpacklo_epi32(rows[0], rows[1]);
    let high = _mm256_unpackhi_epi32(rows[0], rows[1]);
    let low_next = _mm256_unpacklo_epi32(rows[2], rows[3]);
    let high_next = _mm256_unpackhi_epi32(rows[2], rows[3]);
    [
        _mm256_unpacklo_epi64(low, low_next),
        _mm256_unpackhi_epi64(low, low_next),
        _mm256_unpacklo_epi64(high, high_next),
        _mm256_unpackhi_epi64(high, high_next),
    ]
}

/// Transposes the 32 bytes at `at`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn octets<const N: usize>(blocks: &Blocks<'_, N>, at: usize) -> [__m256i; 8] {
    let [a, b, c, d] = quads(blocks, at);
    let [e, f, g, h] = quads(blocks, at + 16);
    [a, b, c, d, e, f, g, h]
}

/// The word at `at` of each block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn words<const N: usize>(blocks: &Blocks<'_, N>, at: usize) -> __m256i {
    let word = |i: usize| {
        let bytes = blocks[i];
        i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    _mm256_setr_epi32(
        word(0),
        word(1),
        word(2),
        word(3),
        word(4),
        word(5),
        word(6),
        word(7),
    )
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
