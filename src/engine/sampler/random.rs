//! Random numbers that are a function, not a stream.
//!
//! Philox 4x32 with 10 rounds: a number depends on its key and counter alone, so there is no state
//! to lose, to share or to replay. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
//! easy as 1, 2, 3" (SC 2011).

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const N_ROUNDS: usize = 10;

/// A number in `[0, 1)` with 53 random bits, fixed by `seed` and `counter`.
pub(super) fn uniform(seed: u64, counter: u64) -> f64 {
    let key = halves(seed);
    let [low, high] = halves(counter);
    let [a, b, ..] = philox([low, high, 0, 0], key);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 * (-53f64).exp2()
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..N_ROUNDS {
        let [low_0, high_0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low_1, high_1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [
            high_1 ^ counter[1] ^ key[0],
            low_1,
            high_0 ^ counter[3] ^ key[1],
            low_0,
        ];
        key = [
            key[0].wrapping_add(KEY_STEPS[0]),
            key[1].wrapping_add(KEY_STEPS[1]),
        ];
    }
    counter
}

/// The low and the high half.
fn halves(n: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = n.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the known answers of the authors' Random123 library, `philox4x32 10`.
    #[test]
    fn gives_the_known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn is_even_over_positions_and_over_seeds() {
        for by_position in [true, false] {
            let mut n_in_bin = [0u32; 64];
            for n in 0..64_000 {
                let value = if by_position {
                    uniform(42, n)
                } else {
                    uniform(n, 42)
                };
                assert!((0.0..1.0).contains(&value));
                let bin = n_in_bin
                    .iter()
                    .enumerate()
                    .take_while(|(k, _)| *k as f64 / 64.0 <= value);
                let bin = bin.count() - 1;
                n_in_bin[bin] += 1;
            }
            let chi_square: f64 = n_in_bin
                .iter()
                .map(|n| (f64::from(*n) - 1000.0).powi(2) / 1000.0)
                .sum();
            // 63 degrees of freedom: one in a million lies above 126.
            assert!(chi_square < 126.0, "chi² {chi_square}");
        }
    }
}
