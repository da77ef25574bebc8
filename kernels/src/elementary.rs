//! The exponential function, in a form that compilers turn into vectors.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has few bits, so that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Adding and subtracting it rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;
/// Below it the result is not a normal number any more: it counts as 0.
const LOWEST: f32 = -87.0;
/// Above it the result is infinite.
const HIGHEST: f32 = 88.722;

/// Computes e^x to about one unit in the last place; 0 below -87, NaN for NaN.
///
/// Nothing but sums and products in a fixed order: the same bits on every tier.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    // Clamping keeps NaN: neither comparison holds for it.
    let clamped = if x > HIGHEST { HIGHEST } else { x };
    let clamped = if clamped < LOWEST { LOWEST } else { clamped };
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    // e^r for |r| <= ln 2 / 2: the coefficients are those of Cephes' expf.
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e_r = (p * r) * r + r + 1.0;
    // Twice half the power: n reaches 128, whose power is not a float.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let half_power = f32::from_bits(n.wrapping_add(126) << 23);
    let y = e_r * half_power * 2.0;
    let y = if x < LOWEST { 0.0 } else { y };
    if x > HIGHEST { f32::INFINITY } else { y }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_accurate_over_its_range() {
        let step = if cfg!(miri) { 1.37 } else { 0.000_37 };
        let mut x = -86.9_f32;
        while x < 88.7 {
            let (y, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (y - expected).abs() <= 2e-7 * expected,
                "{x}: {y} {expected}"
            );
            x += step;
        }
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
