//! Between half and single precision.

use half::f16;

use crate::Isa;

/// Widens half-precision floats, given as their bytes.
pub(crate) fn from_half_bytes(isa: Isa, bytes: &[u8], floats: &mut [f32]) {
    match isa {
        Isa::Scalar => {
            for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *float = f16::from_le_bytes(*bytes).to_f32_const();
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) | Isa::AvxVnni(_) | Isa::Avx512Vnni(_) => {
            // SAFETY: all tokens prove F16C.
            unsafe { x86::from_half_bytes(bytes, floats) }
        }
    }
}

/// Narrows to half precision, ties to even.
pub(crate) fn to_half(isa: Isa, floats: &[f32], halves: &mut [f16]) {
    match isa {
        Isa::Scalar => {
            for (half, float) in halves.iter_mut().zip(floats) {
                *half = f16::from_f32_const(*float);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) | Isa::AvxVnni(_) | Isa::Avx512Vnni(_) => {
            // SAFETY: all tokens prove F16C.
            unsafe { x86::to_half(floats, halves) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm256_cvtph_ps, _mm256_cvtps_ph};

    use half::f16;

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn from_half_bytes(bytes: &[u8], floats: &mut [f32]) {
        let (eights, tail) = floats.as_chunks_mut::<8>();
        let (byte_eights, byte_tail) = bytes.as_chunks::<16>();
        for (floats, bytes) in eights.iter_mut().zip(byte_eights) {
            *floats = bytemuck::cast(_mm256_cvtph_ps(bytemuck::cast(*bytes)));
        }
        for (float, bytes) in tail.iter_mut().zip(byte_tail.as_chunks::<2>().0) {
            *float = f16::from_le_bytes(*bytes).to_f32_const();
        }
    }

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn to_half(floats: &[f32], halves: &mut [f16]) {
        let (eights, tail) = halves.as_chunks_mut::<8>();
        let (float_eights, float_tail) = floats.as_chunks::<8>();
        for (halves, floats) in eights.iter_mut().zip(float_eights) {
            let narrow = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(bytemuck::cast(*floats));
            let bits: [u16; 8] = bytemuck::cast(narrow);
            *halves = bits.map(f16::from_bits);
        }
        for (half, float) in tail.iter_mut().zip(float_tail) {
            *half = f16::from_f32_const(*float);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_converts_alike_and_back() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        for isa in Isa::available() {
            // An odd length, so that there is a tail.
            let n = if cfg!(miri) { 99 } else { halves.len() - 1 };
            let mut floats = vec![0.0; n];
            from_half_bytes(isa, &bytes[..2 * n], &mut floats);
            let mut back = vec![f16::ZERO; n];
            to_half(isa, &floats, &mut back);
            for ((half, float), back) in halves.iter().zip(&floats).zip(&back) {
                assert!(
                    half.is_nan() && back.is_nan() || half == back,
                    "{half:?} {back:?}"
                );
                assert!(half.is_nan() || f32::from(*half).to_bits() == float.to_bits());
            }
        }
    }

    #[test]
    fn narrowing_rounds_ties_to_even() {
        for isa in Isa::available() {
            let mut halves = [f16::ZERO; 9];
            to_half(
                isa,
                &[2049.0, 2051.0, 1e9, -1e-9, 0.1, 0.2, 0.3, 2049.0, 2051.0],
                &mut halves,
            );
            let expected = [2048.0, 2052.0, f32::INFINITY];
            assert_eq!([0, 1, 2].map(|i| halves[i].to_f32()), expected);
            assert_eq!([7, 8].map(|i| halves[i].to_f32()), [2048.0, 2052.0]);
        }
    }
}
