//! A fused multiply-add that is exact everywhere and slow nowhere.

/// Computes `a * b + c` with one rounding.
///
/// Where the processor's own instruction may not be used, it goes through f64: the product of two f32
/// is exact there, and rounding the sum to odd makes the second rounding, to f32, the only one that
/// counts. The library's `mul_add` would be many times slower.
#[inline]
pub(super) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        return a.mul_add(b, c);
    }
    emulated(a, b, c)
}

#[inline]
fn emulated(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    // What the sum lost: exact whichever of the two is larger.
    let of_c = sum - product;
    let error = (product - (sum - of_c)) + (c - of_c);
    let bits = sum.to_bits();
    let is_even = bits & 1 == 0;
    // Where the sum is infinite its error is NaN.
    let is_inexact = error != 0.0 && !error.is_nan();
    let odd = if is_even && is_inexact {
        // Away from zero where the error has the sum's sign, else towards it.
        if (error > 0.0) == (sum > 0.0) {
            bits + 1
        } else {
            bits - 1
        }
    } else {
        bits
    };
    narrow(f64::from_bits(odd))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::emulated;

    #[test]
    fn emulation_rounds_once() {
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits(u32::try_from(state >> 32).unwrap())
        };
        let n_cases = if cfg!(miri) { 1000 } else { 1_000_000 };
        for _ in 0..n_cases {
            let (a, b) = (random(), random());
            // Near the product, so that the sum cancels or ties as often as not.
            let near = f32::from_bits((a * b).to_bits() ^ (random().to_bits() & 0x83ff_ffff));
            for c in [random(), near] {
                let (fused, expected) = (emulated(a, b, c), a.mul_add(b, c));
                assert!(
                    fused.to_bits() == expected.to_bits() || (fused.is_nan() && expected.is_nan()),
                    "{a:e} * {b:e} + {c:e}: {fused:e}, not {expected:e}"
                );
            }
        }
        // The classic double rounding: 1 + 2^-24 (a tie in f32) + a little.
        let little = 2.0_f32.powi(-80);
        assert_eq!(
            emulated(1.0 + f32::EPSILON, 1.0, 2.0_f32.powi(-24)),
            1.0 + 2.0 * f32::EPSILON
        );
        assert_eq!(emulated(little, 1.0, 1.0), 1.0);
    }
}
