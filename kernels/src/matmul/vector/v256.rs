//! Eight rows.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_prefetch, _mm256_add_epi32,
    _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_cvtepi32_ps,
    _mm256_cvtph_ps, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32, _mm256_dpwssd_avx_epi32,
    _mm256_dpwssd_epi32, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_mul_ps,
    _mm256_mullo_epi16, _mm256_mullo_epi32, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_shuffle_epi8, _mm256_sll_epi16, _mm256_slli_epi32, _mm256_sra_epi16,
    _mm256_srai_epi32, _mm256_srl_epi16, _mm256_srl_epi32, _mm256_srli_epi32, _mm256_sub_epi8,
    _mm256_xor_ps, _mm256_xor_si256,
};
use std::marker::PhantomData;

use super::{Floats, Sums, Vector, Vnni};
use crate::isa::{Avx2, Evex, Vex};

/// What proves AVX2, FMA and F16C, and perhaps more.
pub(in crate::matmul) trait Proof: Copy {}

impl Proof for Avx2 {}
impl Proof for Vex {}
impl Proof for Evex {}

/// 256 bits of words, and the proof `P`.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct V256<P>(pub(in crate::matmul) __m256i, PhantomData<P>);

impl<P: Proof> V256<P> {
    #[inline(always)]
    fn of(vector: __m256i) -> Self {
        Self(vector, PhantomData)
    }
}

/// 256 bits of floats, and proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct F256(pub(in crate::matmul) __m256);

/// Calls an intrinsic whose instructions a value proves.
macro_rules! proven {
    ($call:expr) => {{
        // SAFETY: a value, or the proof it came from, is at hand: its instructions exist.
        unsafe { $call }
    }};
}

impl<P: Proof> Vector for V256<P> {
    type Proof = P;
    type Floats = F256;
    const PARTS: usize = 2;
    const PREFETCH_BYTES: usize = 4096;

    #[inline(always)]
    fn words(_: P, words: &[u32; 16], part: usize) -> Self {
        Self::of(bytemuck::cast::<[u32; 8], _>(words.as_chunks().0[part]))
    }

    #[inline(always)]
    fn floats(_: P, floats: &Sums, part: usize) -> F256 {
        F256(bytemuck::cast::<[f32; 8], _>(floats.as_chunks().0[part]))
    }

    #[inline(always)]
    fn load(_: P, bytes: &[u8]) -> Self {
        Self::of(bytemuck::cast(
            *bytes.first_chunk::<32>().unwrap_or(&[0; 32]),
        ))
    }

    #[inline(always)]
    fn load_halves(_: P, bytes: &[u8]) -> F256 {
        let halves = *bytes.first_chunk::<16>().unwrap_or(&[0; 16]);
        F256(proven!(_mm256_cvtph_ps(bytemuck::cast(halves))))
    }

    #[inline(always)]
    fn prefetch(_: P, at: *const u8) {
        // A hint only: no address can fault. All the way to the first cache: at this width the products
        // are slow enough for it to have places for lines that are under way.
        proven!(_mm_prefetch::<_MM_HINT_T0>(at.cast()));
    }

    #[inline(always)]
    fn store(self, words: &mut [u32; 16], part: usize) {
        words.as_chunks_mut().0[part] = bytemuck::cast::<_, [u32; 8]>(self.0);
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self::of(proven!(_mm256_or_si256(self.0, other.0)))
    }

    #[inline(always)]
    fn and_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm256_set1_epi8(byte.cast_signed()));
        Self::of(proven!(_mm256_and_si256(self.0, bytes)))
    }

    #[inline(always)]
    fn and_word(self, word: u32) -> Self {
        let words = proven!(_mm256_set1_epi32(word.cast_signed()));
        Self::of(proven!(_mm256_and_si256(self.0, words)))
    }

    #[inline(always)]
    fn sub_byte(self, byte: u8) -> Self {
        let bytes = proven!(_mm256_set1_epi8(byte.cast_signed()));
        Self::of(proven!(_mm256_sub_epi8(self.0, bytes)))
    }

    #[inline(always)]
    fn shift_right_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self::of(proven!(_mm256_srl_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_left_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self::of(proven!(_mm256_sll_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_signed_16(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self::of(proven!(_mm256_sra_epi16(self.0, by)))
    }

    #[inline(always)]
    fn shift_right_32(self, by: u32) -> Self {
        let by = proven!(_mm_cvtsi32_si128(by.cast_signed()));
        Self::of(proven!(_mm256_srl_epi32(self.0, by)))
    }

    #[inline(always)]
    fn shuffle(self, places: [i8; 16]) -> Self {
        let places = bytemuck::cast([places, places]);
        Self::of(proven!(_mm256_shuffle_epi8(self.0, places)))
    }

    #[inline(always)]
    fn where_set(self, mask: u32, value: u8) -> Self {
        let masks = proven!(_mm256_set1_epi32(mask.cast_signed()));
        let is_set = proven!(_mm256_cmpeq_epi8(self.and_word(mask).0, masks));
        Self::of(is_set).and_byte(value)
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

/// The two instructions that are written in two ways.
pub(in crate::matmul) trait DotProof: Proof {
    fn dpbusd(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i;
    fn dpwssd(sums: __m256i, halves: __m256i, others: __m256i) -> __m256i;
}

impl DotProof for Vex {
    #[inline(always)]
    fn dpbusd(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        proven!(_mm256_dpbusd_avx_epi32(sums, unsigned, signed))
    }

    #[inline(always)]
    fn dpwssd(sums: __m256i, halves: __m256i, others: __m256i) -> __m256i {
        proven!(_mm256_dpwssd_avx_epi32(sums, halves, others))
    }
}

impl DotProof for Evex {
    #[inline(always)]
    fn dpbusd(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        proven!(_mm256_dpbusd_epi32(sums, unsigned, signed))
    }

    #[inline(always)]
    fn dpwssd(sums: __m256i, halves: __m256i, others: __m256i) -> __m256i {
        proven!(_mm256_dpwssd_epi32(sums, halves, others))
    }
}

impl<P: DotProof> Vnni for V256<P> {
    #[inline(always)]
    fn splat(_: P, word: u32) -> Self {
        Self::of(proven!(_mm256_set1_epi32(word.cast_signed())))
    }

    #[inline(always)]
    fn add_dots(self, unsigned: Self, signed: u32) -> Self {
        let signed = proven!(_mm256_set1_epi32(signed.cast_signed()));
        Self::of(P::dpbusd(self.0, unsigned.0, signed))
    }

    #[inline(always)]
    fn add_half_dots(self, halves: Self, others: u32) -> Self {
        let others = proven!(_mm256_set1_epi32(others.cast_signed()));
        Self::of(P::dpwssd(self.0, halves.0, others))
    }

    #[inline(always)]
    fn raise_bytes(self) -> Self {
        let raise = proven!(_mm256_set1_epi8(-128));
        Self::of(proven!(_mm256_xor_si256(self.0, raise)))
    }

    #[inline(always)]
    fn signed_halves(self) -> [Self; 2] {
        let low = proven!(_mm256_slli_epi32::<16>(self.0));
        [
            Self::of(proven!(_mm256_srai_epi32::<16>(low))),
            Self::of(proven!(_mm256_srai_epi32::<16>(self.0))),
        ]
    }

    #[inline(always)]
    fn scale_halves(self, factor: i16) -> Self {
        let factors = proven!(_mm256_set1_epi16(factor));
        Self::of(proven!(_mm256_mullo_epi16(self.0, factors)))
    }

    #[inline(always)]
    fn multiply_lanes(self, other: Self) -> Self {
        Self::of(proven!(_mm256_mullo_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn add_lanes(self, other: Self) -> Self {
        Self::of(proven!(_mm256_add_epi32(self.0, other.0)))
    }
}

impl Floats for F256 {
    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        Self(proven!(_mm256_fmadd_ps(self.0, factor.0, sum.0)))
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        let factor = proven!(_mm256_set1_ps(factor));
        Self(proven!(_mm256_mul_ps(self.0, factor)))
    }

    #[inline(always)]
    fn scale_add(self, factor: f32, sum: Self) -> Self {
        let factor = proven!(_mm256_set1_ps(factor));
        Self(proven!(_mm256_fmadd_ps(self.0, factor, sum.0)))
    }

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
