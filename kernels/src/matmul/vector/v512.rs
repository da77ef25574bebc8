//! Sixteen rows.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_cvtsi32_si128, _mm_prefetch, _mm512_add_epi32,
    _mm512_and_si512, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_maskz_set1_epi8,
    _mm512_mul_ps, _mm512_mullo_epi16, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_shuffle_epi8, _mm512_sll_epi16,
    _mm512_slli_epi32, _mm512_sra_epi16, _mm512_srai_epi32, _mm512_srl_epi16, _mm512_srl_epi32,
    _mm512_srli_epi32, _mm512_sub_epi8, _mm512_test_epi8_mask, _mm512_xor_ps, _mm512_xor_si512,
};

use super::{Floats, Sums, Vector, Vnni};
use crate::isa::Avx512Vnni;

/// 512 bits of words, and proof of AVX-512.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct V512(__m512i);

/// 512 bits of floats, and the same proof.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct F512(__m512);

/// Calls an intrinsic whose instructions a value proves.
macro_rules! proven {
    ($call:expr) => {{
        // SAFETY: a value, or the proof it came from, is at hand: its instructions exist.
        unsafe { $call }
    }};
}

impl Vector for V512 {
    type Proof = Avx512Vnni;
    type Floats = F512;
    const PARTS: usize = 1;
    const PREFETCH_BYTES: usize = 8192;

    #[inline(always)]
    fn words(_: Avx512Vnni, words: &[u32; 16], _: usize) -> Self {
        Self(bytemuck::cast(*words))
    }

    #[inline(always)]
    fn floats(_: Avx512Vnni, floats: &Sums, _: usize) -> F512 {
        F512(bytemuck::cast(*floats))
    }

    #[inline(always)]
    fn load(_: Avx512Vnni, bytes: &[u8]) -> Self {
        Self(bytemuck::cast(
            *bytes.first_chunk::<64>().unwrap_or(&[0; 64]),
        ))
    }

    #[inline(always)]
    fn load_halves(_: Avx512Vnni, bytes: &[u8]) -> F512 {
        let halves = *bytes.first_chunk::<32>().unwrap_or(&[0; 32]);
        F512(proven!(_mm512_cvtph_ps(bytemuck::cast(halves))))
    }

    #[inline(always)]
    fn prefetch(_: Avx512Vnni, at: *const u8) {
        // A hint only: no address can fault. As near as the second cache: the first has too few places
        // for lines that are under way.
        proven!(_mm_prefetch::<_MM_HINT_T1>(at.cast()));
    }

    #[inline(always)]
    fn store(self, words: &mut [u32; 16], _: usize) {
        *words = bytemuck::cast(self.0);
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(proven!(_mm512_or_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn and_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm512_set1_epi8(byte.cast_signed()));
        Self(proven!(_mm512_and_si512(self.0, bytes)))
    }

    #[inline(always)]
    fn and_word(self, word: u32) -> Self {
        let words = proven!(_mm512_set1_epi32(word.cast_signed()));
        Self(proven!(_mm512_and_si512(self.0, words)))
    }

    #[inline(always)]
    fn sub_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm512_set1_epi8(byte.cast_signed()));
        Self(proven!(_mm512_sub_epi8(self.0, bytes)))
    }

    #[inline(always)]
    fn shift_right_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm512_srl_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_left_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm512_sll_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_signed_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm512_sra_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_32(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self(proven!(_mm512_srl_epi32(self.0, by)))
    }

    #[inline(always)]
    fn shuffle(self, places: [i8; 16]) -> Self {
        let places = bytemuck::cast([places; 4]);
        Self(proven!(_mm512_shuffle_epi8(self.0, places)))
    }

    #[inline(always)]
    fn where_set(self, mask: u32, value: u8) -> Self {
        let masks = proven!(_mm512_set1_epi32(mask.cast_signed()));
        let is_set = proven!(_mm512_test_epi8_mask(self.0, masks));
        Self(proven!(_mm512_maskz_set1_epi8(is_set, value.cast_signed())))
    }

    #[inline(always)]
    fn half_pairs(self) -> [F512; 2] {
        let low = proven!(_mm512_cvtepi32_epi16(self.0));
        let high = proven!(_mm512_srli_epi32::<16>(self.0));
        let high = proven!(_mm512_cvtepi32_epi16(high));
        [
            F512(proven!(_mm512_cvtph_ps(low))),
            F512(proven!(_mm512_cvtph_ps(high))),
        ]
    }

    #[inline(always)]
    fn to_floats(self) -> F512 {
        F512(proven!(_mm512_cvtepi32_ps(self.0)))
    }
}

impl Vnni for V512 {
    #[inline(always)]
    fn splat(_: Avx512Vnni, word: u32) -> Self {
        Self(proven!(_mm512_set1_epi32(word.cast_signed())))
    }

    #[inline(always)]
    fn add_dots(self, unsigned: Self, signed: u32) -> Self {
        let signed = proven!(_mm512_set1_epi32(signed.cast_signed()));
        Self(proven!(_mm512_dpbusd_epi32(self.0, unsigned.0, signed)))
    }

    #[inline(always)]
    fn add_half_dots(self, halves: Self, others: u32) -> Self {
        let others = proven!(_mm512_set1_epi32(others.cast_signed()));
        Self(proven!(_mm512_dpwssd_epi32(self.0, halves.0, others)))
    }

    #[inline(always)]
    fn raise_bytes(self) -> Self {
        let raise = proven!(_mm512_set1_epi8(-128));
        Self(proven!(_mm512_xor_si512(self.0, raise)))
    }

    #[inline(always)]
    fn signed_halves(self) -> [Self; 2] {
        let low = proven!(_mm512_slli_epi32::<16>(self.0));
        [
            Self(proven!(_mm512_srai_epi32::<16>(low))),
            Self(proven!(_mm512_srai_epi32::<16>(self.0))),
        ]
    }

    #[inline(always)]
    fn scale_halves(self, factor: i16) -> Self {
        let factors = proven!(_mm512_set1_epi16(factor));
        Self(proven!(_mm512_mullo_epi16(self.0, factors)))
    }

    #[inline(always)]
    fn multiply_lanes(self, other: Self) -> Self {
        Self(proven!(_mm512_mullo_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn add_lanes(self, other: Self) -> Self {
        Self(proven!(_mm512_add_epi32(self.0, other.0)))
    }
}

impl Floats for F512 {
    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        Self(proven!(_mm512_fmadd_ps(self.0, factor.0, sum.0)))
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        let factor = proven!(_mm512_set1_ps(factor));
        Self(proven!(_mm512_mul_ps(self.0, factor)))
    }

    #[inline(always)]
    fn scale_add(self, factor: f32, sum: Self) -> Self {
        let factor = proven!(_mm512_set1_ps(factor));
        Self(proven!(_mm512_fmadd_ps(self.0, factor, sum.0)))
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        Self(proven!(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn negate(self) -> Self {
        let signs = proven!(_mm512_set1_ps(-0.0));
        Self(proven!(_mm512_xor_ps(self.0, signs)))
    }

    #[inline(always)]
    fn store(self, floats: &mut Sums, _: usize) {
        *floats = bytemuck::cast(self.0);
    }
}
