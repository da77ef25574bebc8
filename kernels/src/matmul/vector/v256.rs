//! Eight rows.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_prefetch, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_cvtepi32_ps, _mm256_cvtph_ps,
    _mm256_extracti128_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_shuffle_epi8, _mm256_sll_epi16, _mm256_sra_epi16, _mm256_srl_epi16, _mm256_srl_epi32,
    _mm256_srli_epi32, _mm256_sub_epi8, _mm256_xor_ps,
};

use super::{Floats, Sums, Vector};
use crate::isa::Avx2;

/// 256 bits of words, and proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct V256(pub(in crate::matmul) __m256i);

/// 256 bits of floats, and the same proof.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct F256(pub(in crate::matmul) __m256);

/// Calls an intrinsic whose instructions a value proves.
macro_rules! proven {
    ($call:expr) => {{
        // SAFETY: a value, or the proof it came from, is at hand: its instructions exist.
        unsafe { $call }
    }};
}

impl Vector for V256 {
    type Proof = Avx2;
    type Floats = F256;
    const PARTS: usize = 2;

    #[inline(always)]
    fn load(_: Avx2, bytes: &[u8]) -> Self {
        Self(bytemuck::cast(
            *bytes.first_chunk::<32>().unwrap_or(&[0; 32]),
        ))
    }

    #[inline(always)]
    fn load_halves(_: Avx2, bytes: &[u8]) -> F256 {
        let halves = *bytes.first_chunk::<16>().unwrap_or(&[0; 16]);
        F256(proven!(_mm256_cvtph_ps(bytemuck::cast(halves))))
    }

    #[inline(always)]
    fn prefetch(_: Avx2, at: *const u8) {
        // A hint only: no address can fault.
        proven!(_mm_prefetch::<_MM_HINT_T0>(at.cast()));
    }

    #[inline(always)]
    fn store(self, words: &mut [u32; 16], part: usize) {
        words.as_chunks_mut().0[part] = bytemuck::cast::<_, [u32; 8]>(self.0);
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(proven!(_mm256_or_si256(self.0, other.0)))
    }

    #[inline(always)]
    fn and_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm256_set1_epi8(byte.cast_signed()));
        Self(proven!(_mm256_and_si256(self.0, bytes)))
    }

    #[inline(always)]
    fn and_word(self, word: u32) -> Self {
        let words = proven!(_mm256_set1_epi32(word.cast_signed()));
        Self(proven!(_mm256_and_si256(self.0, words)))
    }

    #[inline(always)]
    fn sub_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm256_set1_epi8(byte.cast_signed()));
        Self(proven!(_mm256_sub_epi8(self.0, bytes)))
    }

    #[inline(always)]
    fn shift_right_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm256_srl_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_left_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm256_sll_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_signed_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm256_sra_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_32(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm256_srl_epi32(self.0, by)))
    }

    #[inline(always)]
    fn shuffle(self, places: [i8; 16]) -> Self {
        let places = bytemuck::cast([places, places]);
        Self(proven!(_mm256_shuffle_epi8(self.0, places)))
    }

    #[inline(always)]
    fn where_set(self, mask: u32, value: u8) -> Self {
        let masks = proven!(_mm256_set1_epi32(mask.cast_signed()));
        let is_set = proven!(_mm256_cmpeq_epi8(self.and_word(mask).0, masks));
        Self(is_set).and_byte(value)
    }

    #[inline(always)]
    fn half_pairs(self) -> [F256; 2] {
        let low = self.and_word(0xffff).0;
        let high = proven!(_mm256_srli_epi32::<16>(self.0));
        let packed = proven!(_mm256_packus_epi32(low, high));
        let packed = proven!(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        let low = proven!(_mm256_castsi256_si128(packed));
        let high = proven!(_mm256_extracti128_si256::<1>(packed));
        [
            F256(proven!(_mm256_cvtph_ps(low))),
            F256(proven!(_mm256_cvtph_ps(high))),
        ]
    }

    #[inline(always)]
    fn to_floats(self) -> F256 {
        F256(proven!(_mm256_cvtepi32_ps(self.0)))
    }
}

impl Floats for F256 {
    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        Self(proven!(_mm256_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn negate(self) -> Self {
        let signs = proven!(_mm256_set1_ps(-0.0));
        Self(proven!(_mm256_xor_ps(self.0, signs)))
    }

    #[inline(always)]
    fn store(self, floats: &mut Sums, part: usize) {
        floats.as_chunks_mut().0[part] = bytemuck::cast::<_, [f32; 8]>(self.0);
    }
}
