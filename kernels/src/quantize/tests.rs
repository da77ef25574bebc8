use std::num::NonZeroUsize;

use super::{ActRow, quantize_rows, row_words};
use crate::testing::Random;
use crate::{Isa, ShapeError, Team};

/// What a quantised row stands for.
pub(crate) fn decode(row: &ActRow<'_>, out: &mut [f32]) {
    for (group_idx, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            let byte = row.quants[group_idx][i / 4].to_le_bytes()[i % 4].cast_signed();
            *out = row.scales[group_idx] * f32::from(byte);
        }
    }
}

fn quantized(isa: Isa, n_threads: usize, x: &[f32], k: usize) -> Vec<u32> {
    let team = Team::new(NonZeroUsize::new(n_threads).unwrap(), isa);
    let mut out = vec![0; x.len() / k * row_words(k)];
    quantize_rows(&team.take_turn(), x, k, &mut out).unwrap();
    out
}

#[test]
fn a_row_comes_back_within_half_a_step() {
    let mut random = Random::new(1);
    for k in [32, 64, 576, 1536] {
        let x = random.floats(3 * k);
        for isa in Isa::available() {
            let words = quantized(isa, 2, &x, k);
            for (words, x) in words.chunks_exact(row_words(k)).zip(x.chunks_exact(k)) {
                let row = ActRow::new(words);
                let mut back = vec![0.0; k];
                decode(&row, &mut back);
                for (i, (x, back)) in x.iter().zip(&back).enumerate() {
                    assert!(
                        (x - back).abs() <= 0.5001 * row.scales[i / 32],
                        "{i}: {x} {back}"
                    );
                }
                check_sums(&row);
            }
        }
    }
}

fn check_sums(row: &ActRow<'_>) {
    for (group_idx, quants) in row.quants.iter().enumerate() {
        let bytes: Vec<i32> = quants
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .map(|byte| i32::from(byte.cast_signed()))
            .collect();
        let [low, high] = [&bytes[..16], &bytes[16..]].map(|half| half.iter().sum::<i32>());
        let sum = row.scales[group_idx] * (low + high) as f32;
        assert_eq!(row.sums[group_idx].to_bits(), sum.to_bits());
        let word = row.half_sums[group_idx].to_le_bytes();
        assert_eq!(i32::from(i16::from_le_bytes([word[0], word[1]])), low);
        assert_eq!(i32::from(i16::from_le_bytes([word[2], word[3]])), high);
    }
}

#[test]
fn tiers_and_teams_give_the_same_bits() {
    let mut random = Random::new(2);
    let k = 576;
    let mut x = random.floats(70 * k);
    // Ties, and the ends of the range.
    x[..5].copy_from_slice(&[127.0, 0.5, 1.5, -2.5, -127.0]);
    let plain = quantized(Isa::Scalar, 1, &x, k);
    assert_eq!(plain[0].to_le_bytes().map(u8::cast_signed), [127, 0, 2, -2]);
    for isa in Isa::available() {
        assert_eq!(quantized(isa, 3, &x, k), plain, "{isa:?}");
    }
}

#[test]
fn odd_values_do_no_harm_and_stay_visible() {
    for isa in Isa::available() {
        for (value, scale_is_nan) in [
            (0.0, false),
            (-0.0, false),
            (f32::MIN_POSITIVE / 8.0, false),
            (1e-37, false),
            (1e38, false),
            (f32::NAN, true),
            (f32::INFINITY, true),
            (f32::NEG_INFINITY, true),
        ] {
            let mut x = [0.0; 64];
            x[3] = value;
            x[40] = 1.0;
            let words = quantized(isa, 1, &x, 64);
            let row = ActRow::new(&words);
            assert_eq!(row.scales[0].is_nan(), scale_is_nan, "{isa:?} {value}");
            assert_eq!(row.sums[0].is_nan(), scale_is_nan, "{isa:?} {value}");
            let mut back = [0.0; 64];
            decode(&row, &mut back);
            assert!(
                (back[40] - 1.0).abs() < 1e-6,
                "a group does not touch the next"
            );
            if !scale_is_nan {
                assert!(
                    (back[3] - value).abs() <= 1e-6 * value.abs() + 1e-35,
                    "{value}"
                );
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
    let turn = team.take_turn();
    let wrong_k = quantize_rows(&turn, &[0.0; 33], 33, &mut []).unwrap_err();
    assert_eq!(
        wrong_k,
        ShapeError::Multiple {
            what: "k",
            got: 33,
            of: 32
        }
    );
    assert!(quantize_rows(&turn, &[0.0; 33], 32, &mut [0; 11]).is_err());
    assert!(quantize_rows(&turn, &[0.0; 32], 32, &mut [0; 10]).is_err());
    assert!(quantize_rows(&turn, &[], 32, &mut []).is_ok());
}
