//! Between memory and lanes: loads, stores, and the transpose that gives each weight row a lane.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm256_and_si256, _mm256_castsi128_si256, _mm256_castsi256_si128,
    _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_packus_epi32,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_setr_epi32, _mm256_srli_epi32,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::super::panel::TILE_ROWS;

/// One block of each of eight rows.
pub(super) type Blocks<'a, const N: usize> = [&'a [u8; N]; 8];

/// Blocks `first .. first + n_blocks` of rows `8 * half .. 8 * half + 8`.
#[inline]
pub(super) fn block_runs<'a, const N: usize>(
    rows: &[&'a [u8]; TILE_ROWS],
    half: usize,
    first: usize,
    n_blocks: usize,
) -> [&'a [[u8; N]]; 8] {
    std::array::from_fn(|i| &rows[8 * half + i].as_chunks::<N>().0[first..first + n_blocks])
}

/// Block `block_idx` of each run.
#[inline]
pub(super) fn blocks_at<'a, const N: usize>(
    runs: &[&'a [[u8; N]]; 8],
    block_idx: usize,
) -> Blocks<'a, N> {
    [
        &runs[0][block_idx],
        &runs[1][block_idx],
        &runs[2][block_idx],
        &runs[3][block_idx],
        &runs[4][block_idx],
        &runs[5][block_idx],
        &runs[6][block_idx],
        &runs[7][block_idx],
    ]
}

/// Block `block_idx` of rows `8 * half .. 8 * half + 8`.
#[inline]
pub(super) fn blocks<'a, const N: usize>(
    rows: &[&'a [u8]; TILE_ROWS],
    half: usize,
    block_idx: usize,
) -> Blocks<'a, N> {
    blocks_at(&block_runs(rows, half, block_idx, 1), 0)
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

/// The first 16 of some bytes; zeros where there are fewer, which there never are.
#[inline]
#[target_feature(enable = "avx2")]
fn load_16(bytes: &[u8]) -> __m128i {
    bytemuck::cast(*bytes.first_chunk::<16>().unwrap_or(&[0; 16]))
}

/// The 16 bytes at `at` of block `low` in the lower half, those of block `high` in the upper.
#[inline]
#[target_feature(enable = "avx2")]
fn load_two(low: &[u8], high: &[u8], at: usize) -> __m256i {
    let low = _mm256_castsi128_si256(load_16(&low[at..at + 16]));
    _mm256_inserti128_si256::<1>(low, load_16(&high[at..at + 16]))
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
