use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{Matrix, Out, Output, Part, linear_f32, linear_quantized};
use crate::quantize::{quantize_rows, row_words};
use crate::testing::{Random, random_blocks};
use crate::{Isa, ShapeError, Team, WeightType};

/// One matrix, some activations, and all that is asked of them.
struct Case {
    weight_type: WeightType,
    n: usize,
    m: usize,
    k: usize,
}

impl Case {
    fn matrix(&self, random: &mut Random) -> Matrix {
        let bytes = random_blocks(self.weight_type, self.n * self.k, random);
        Matrix::new(
            &team(2, Isa::Scalar).take_turn(),
            self.weight_type,
            self.n,
            self.k,
            &bytes,
        )
        .unwrap()
    }
}

fn team(n_threads: usize, isa: Isa) -> Arc<Team> {
    Team::new(NonZeroUsize::new(n_threads).unwrap(), isa)
}

/// A matrix as the only part of a product.
fn whole(matrix: &Matrix) -> Part<'_> {
    Part { matrix, column: 0 }
}

fn into(values: &mut [f32], stride: usize, output: Output) -> Out<'_> {
    Out {
        values,
        stride,
        output,
    }
}

/// The product on a team, by the function the type asks for.
fn product(team: &Team, w: &Matrix, x: &[f32], output: Output) -> Vec<f32> {
    let turn = team.take_turn();
    let m = x.len() / w.k();
    let mut out = vec![0.25; m * w.n()];
    if w.takes_quantized() {
        let mut acts = vec![0; m * row_words(w.k())];
        quantize_rows(&turn, x, w.k(), &mut acts).unwrap();
        linear_quantized(
            &turn,
            &[whole(w)],
            &acts,
            &mut into(&mut out, w.n(), output),
        )
        .unwrap();
    } else {
        linear_f32(&turn, &[whole(w)], x, &mut into(&mut out, w.n(), output)).unwrap();
    }
    out
}

/// The product of what weights and activations decode to, in f64, and the sum of magnitudes.
fn reference(w: &Matrix, x: &[f32]) -> Vec<(f64, f64)> {
    let team = team(1, Isa::Scalar);
    let mut x = x.to_vec();
    if w.takes_quantized() {
        let mut acts = vec![0; x.len() / w.k() * row_words(w.k())];
        quantize_rows(&team.take_turn(), &x, w.k(), &mut acts).unwrap();
        let rows = acts
            .chunks_exact(row_words(w.k()))
            .zip(x.chunks_exact_mut(w.k()));
        rows.for_each(|(acts, x)| crate::quantize::decode(acts, x));
    }
    let mut row = vec![0.0; w.k()];
    let mut out = vec![(0.0, 0.0); x.len() / w.k() * w.n()];
    for row_idx in 0..w.n() {
        w.dequantize_row(row_idx, &mut row).unwrap();
        for (act_idx, x) in x.chunks_exact(w.k()).enumerate() {
            let products = row
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(*x));
            out[act_idx * w.n() + row_idx] =
                products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
        }
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every type with every shape; fewer where each instruction is interpreted.
fn cases() -> Vec<Case> {
    let shapes: &[(usize, usize, usize)] = if cfg!(miri) {
        &[(17, 5, 32), (3, 5, 256)]
    } else {
        &[
            (1, 1, 32),
            (17, 2, 64),
            (35, 5, 96),
            (16, 17, 256),
            (33, 3, 576),
            (20, 70, 512),
            (49, 1, 1536),
        ]
    };
    let all = WeightType::ALL.into_iter().flat_map(|weight_type| {
        shapes.iter().map(move |&(n, m, k)| Case {
            weight_type,
            n,
            m,
            k,
        })
    });
    all.filter(|case| case.k.is_multiple_of(case.weight_type.block_len()))
        .collect()
}

#[test]
fn products_match_decoded_weights_on_every_tier() {
    let mut random = Random::new(1);
    for case in cases() {
        let w = case.matrix(&mut random);
        let x = random.floats(case.m * case.k);
        let expected = reference(&w, &x);
        for isa in Isa::available() {
            let out = product(&team(2, isa), &w, &x, Output::Write);
            for (i, (out, (expected, size))) in out.iter().zip(&expected).enumerate() {
                // Rounding alone: each of k / 32 steps, or of k in a lane, loses half a unit at most.
                let error = (f64::from(*out) - expected).abs();
                assert!(
                    error <= 3e-6 * size + 1e-6,
                    "{w:?} {isa:?} {i}: {out} {expected}"
                );
            }
        }
    }
}

#[test]
fn tiers_give_the_same_bits_for_quantised_weights() {
    let mut random = Random::new(2);
    for case in cases()
        .into_iter()
        .filter(|case| case.weight_type.takes_quantized())
    {
        let w = case.matrix(&mut random);
        let x = random.floats(case.m * case.k);
        let plain = product(&team(1, Isa::Scalar), &w, &x, Output::Write);
        for isa in Isa::available() {
            let out = product(&team(1, isa), &w, &x, Output::Write);
            assert_eq!(bits(&out), bits(&plain), "{w:?} {isa:?}");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_any_team() {
    let mut random = Random::new(3);
    for case in cases() {
        let w = case.matrix(&mut random);
        let x = random.floats(case.m * case.k);
        for isa in Isa::available() {
            let whole = product(&team(1, isa), &w, &x, Output::Write);
            let shared = product(&team(3, isa), &w, &x, Output::Write);
            assert_eq!(bits(&whole), bits(&shared), "{w:?} {isa:?}");
            let alone = team(1, isa);
            for (x, whole) in x.chunks_exact(case.k).zip(whole.chunks_exact(case.n)) {
                assert_eq!(
                    bits(&product(&alone, &w, x, Output::Write)),
                    bits(whole),
                    "{w:?} {isa:?}"
                );
            }
        }
    }
}

#[test]
fn extreme_quants_do_not_saturate() {
    for weight_type in WeightType::ALL.into_iter().filter(|t| t.takes_quantized()) {
        for byte in [0xff, 0x80, 0x7f, 0x00] {
            let (n, k) = (16, 256);
            let mut bytes = vec![byte; weight_type.row_bytes(n * k).unwrap()];
            crate::testing::set_scales(weight_type, &mut bytes, |_| half::f16::ONE);
            let w =
                Matrix::new(&team(2, Isa::Scalar).take_turn(), weight_type, n, k, &bytes).unwrap();
            for sign in [1.0, -1.0] {
                // Every activation at the end of its range.
                let x = vec![127.0 * sign; 3 * k];
                let expected = reference(&w, &x);
                for isa in Isa::available() {
                    let out = product(&team(1, isa), &w, &x, Output::Write);
                    for (out, (expected, size)) in out.iter().zip(&expected) {
                        let error = (f64::from(*out) - expected).abs();
                        assert!(
                            error <= 3e-6 * size,
                            "{w:?} {isa:?} {byte}: {out} {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn adding_adds_and_an_empty_batch_is_nothing() {
    let mut random = Random::new(4);
    for weight_type in [WeightType::F32, WeightType::Q4_1] {
        let w = Case {
            weight_type,
            n: 19,
            m: 0,
            k: 64,
        }
        .matrix(&mut random);
        let x = random.floats(2 * 64);
        let team = team(2, Isa::detect());
        let written = product(&team, &w, &x, Output::Write);
        let added = product(&team, &w, &x, Output::Add);
        let expected: Vec<f32> = written.iter().map(|value| 0.25 + value).collect();
        assert_eq!(bits(&added), bits(&expected));
        assert!(product(&team, &w, &[], Output::Write).is_empty());
    }
}

#[test]
fn a_group_that_is_not_finite_shows_in_every_product() {
    let mut random = Random::new(5);
    let w = Case {
        weight_type: WeightType::Q8_0,
        n: 20,
        m: 0,
        k: 64,
    }
    .matrix(&mut random);
    for fault in [f32::NAN, f32::INFINITY] {
        let mut x = random.floats(2 * 64);
        x[70] = fault;
        for isa in Isa::available() {
            let out = product(&team(1, isa), &w, &x, Output::Write);
            assert!(out[..20].iter().all(|value| value.is_finite()));
            assert!(out[20..].iter().all(|value| value.is_nan()));
        }
    }
}

#[test]
fn parts_side_by_side_are_the_products_alone() {
    let mut random = Random::new(7);
    let types = [
        WeightType::Q4K,
        WeightType::Q6K,
        WeightType::F16,
        WeightType::F32,
    ];
    let matrices = types.map(|weight_type| {
        let case = Case {
            weight_type,
            n: 35,
            m: 0,
            k: 256,
        };
        case.matrix(&mut random)
    });
    for m in [1, 9] {
        let x = random.floats(m * 256);
        for pair in matrices.chunks_exact(2) {
            let team = team(3, Isa::detect());
            let alone = [0, 1].map(|i| product(&team, &pair[i], &x, Output::Write));
            let turn = team.take_turn();
            let parts = [(0, 1), (1, 40)].map(|(i, column)| Part {
                matrix: &pair[i],
                column,
            });
            let mut values = vec![7.0; m * 80];
            let mut out = into(&mut values, 80, Output::Write);
            if pair[0].takes_quantized() {
                let mut acts = vec![0; m * row_words(256)];
                quantize_rows(&turn, &x, 256, &mut acts).unwrap();
                linear_quantized(&turn, &parts, &acts, &mut out).unwrap();
            } else {
                linear_f32(&turn, &parts, &x, &mut out).unwrap();
            }
            for (row, values) in values.chunks_exact(80).enumerate() {
                assert_eq!(values[1..36], alone[0][row * 35..][..35]);
                assert_eq!(values[40..75], alone[1][row * 35..][..35]);
                let between = [&values[..1], &values[36..40], &values[75..]];
                assert!(between.concat().iter().all(|value| *value == 7.0));
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut random = Random::new(6);
    let bytes = [0; 20];
    let packing = team(1, Isa::Scalar);
    let made = |n, k| Matrix::new(&packing.take_turn(), WeightType::Q4_1, n, k, &bytes);
    assert!(made(1, 32).is_ok());
    assert!(matches!(
        made(2, 32),
        Err(ShapeError::Length { expected: 40, .. })
    ));
    assert!(matches!(
        made(1, 31),
        Err(ShapeError::Multiple { got: 31, .. })
    ));
    assert!(matches!(
        made(1, 0),
        Err(ShapeError::Multiple { got: 0, .. })
    ));
    assert!(made(usize::MAX, 32).is_err());
    let team = team(1, Isa::Scalar);
    let turn = team.take_turn();
    let w = Case {
        weight_type: WeightType::Q4_1,
        n: 3,
        m: 0,
        k: 64,
    }
    .matrix(&mut random);
    let mut out = [0.0; 4];
    let mut three = into(&mut out[..3], 3, Output::Write);
    let error = linear_f32(&turn, &[whole(&w)], &[0.0; 64], &mut three).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a Q4_1 matrix takes quantised activations"
    );
    let acts = vec![0; row_words(64)];
    let mut multiply = |parts: &[Part<'_>], acts: &[u32], len: usize, stride: usize| {
        linear_quantized(
            &turn,
            parts,
            acts,
            &mut into(&mut out[..len], stride, Output::Write),
        )
    };
    assert!(multiply(&[whole(&w)], &acts, 3, 3).is_ok());
    assert!(multiply(&[whole(&w)], &acts, 4, 3).is_err());
    assert!(multiply(&[whole(&w)], &acts, 2, 2).is_err());
    assert!(multiply(&[whole(&w)], &acts[1..], 3, 3).is_err());
    let second = |column| Part { matrix: &w, column };
    assert!(multiply(&[second(1)], &acts, 4, 4).is_ok());
    assert!(multiply(&[whole(&w), second(1)], &acts, 4, 4).is_err());
    assert!(w.dequantize_row(3, &mut [0.0; 64]).is_err());
    assert!(w.dequantize_row(2, &mut [0.0; 63]).is_err());
}
