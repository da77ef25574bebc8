use std::num::NonZeroUsize;
use std::sync::Arc;

use super::*;
use crate::Team;

/// Weights that look like a model's: most are small, some rows hold zeros, a few weights stand out.
fn weights(n: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..n)
        .map(|i| {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                u16::try_from(state >> 48).unwrap()
            };
            let sum: f32 = (0..4).map(|_| f32::from(next())).sum();
            let value = (sum - 131_070.0) / 1_048_576.0;
            let stands_out = next() < 200;
            match i / 64 % 37 {
                5 => 0.0,
                9 => value.abs(),
                _ if stands_out => value * 16.0,
                _ => value,
            }
        })
        .collect()
}

const K: usize = 2304;
const N_ROWS: usize = 40;

fn importance() -> Vec<f32> {
    weights(K).iter().map(|v| v * v * 100.0).collect()
}

fn team(isa: Isa, n_threads: usize) -> Arc<Team> {
    Team::new(NonZeroUsize::new(n_threads).unwrap(), isa)
}

fn encoded(team: &Team, to: WeightType, importance: Option<&[f32]>) -> Vec<u8> {
    let x = weights(K * N_ROWS);
    let recode = Recode {
        from: WeightType::F32,
        to,
        k: K,
        importance,
    };
    let mut out = vec![0; to.row_bytes(K).unwrap() * N_ROWS];
    let rows = bytemuck::cast_slice(&x);
    recode.rows(&team.take_turn(), rows, &mut out).unwrap();
    out
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What `ggml_quantize_chunk` of llama.cpp makes of these weights, without importance and with.
///
/// Source: libggml-base of llama-cpp-python 0.3.36, x86-64.
#[rustfmt::skip]
const BY_LLAMA_CPP: [(WeightType, u64, u64); 10] = [
    (WeightType::Q4_0, 0x9d06_00fc_01da_9b4a, 0xed79_5022_6faa_1006),
    (WeightType::Q4_1, 0x23ae_9b4e_e430_e31d, 0xe534_e50c_2865_340a),
    (WeightType::Q5_0, 0xb818_b6bd_ccc4_cf89, 0x4be9_09aa_5433_43a6),
    (WeightType::Q5_1, 0x5129_d1a3_ad80_9698, 0x94b0_ab44_9446_0847),
    (WeightType::Q8_0, 0xd552_d3ab_01ee_0ead, 0xd552_d3ab_01ee_0ead),
    (WeightType::Q2K, 0xae24_d06b_fb84_1984, 0x4804_18fd_3267_a35c),
    (WeightType::Q3K, 0x42a3_5025_7352_d1c5, 0x1115_4db9_8e39_8f69),
    (WeightType::Q4K, 0x3dc1_4729_cb98_32d3, 0xd8d5_188a_d0f0_13bc),
    (WeightType::Q5K, 0x23e1_779e_1ed8_c280, 0x8c53_ea0c_adae_e5ad),
    (WeightType::Q6K, 0x0110_4feb_8879_c9f7, 0x7ead_0bc5_fbe4_07f4),
];

#[test]
fn every_tier_and_any_number_of_threads_give_llama_cpps_bits() {
    let importance = importance();
    for isa in Isa::available() {
        let team = team(isa, 3);
        for (to, plain, weighted) in BY_LLAMA_CPP {
            let got = [None, Some(&importance[..])].map(|it| hash(&encoded(&team, to, it)));
            assert_eq!(got, [plain, weighted], "{} {to:?}", isa.name());
        }
    }
}

#[test]
fn what_was_encoded_is_near_and_nearer_with_more_bits() {
    use WeightType::{BF16, F16, F32, Q2K, Q3K, Q4K, Q5K, Q6K, Q8_0};
    let team = team(Isa::detect(), 1);
    let x = weights(K * N_ROWS);
    let error = |to: WeightType| {
        let out = encoded(&team, to, None);
        let mut decoded = vec![0.0; x.len()];
        let rows = out.chunks(to.row_bytes(K).unwrap());
        for (row, decoded) in rows.zip(decoded.chunks_mut(K)) {
            to.dequantize(row, decoded).unwrap();
        }
        let squares = x
            .iter()
            .zip(&decoded)
            .map(|(x, y)| f64::from(x - y).powi(2));
        let of_all = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        (squares.sum::<f64>() / of_all).sqrt()
    };
    let mut last = 0.5;
    for to in [Q2K, Q3K, Q4K, Q5K, Q6K, Q8_0, BF16, F16] {
        let error = error(to);
        assert!(error < last, "{to:?}: {error} is not below {last}");
        last = error;
    }
    assert_eq!(error(F32), 0.0);
}

#[test]
fn floats_come_back_from_floats_that_hold_them() {
    let team = team(Isa::detect(), 2);
    for ty in [WeightType::F16, WeightType::BF16] {
        let halves = encoded(&team, ty, None);
        let recode = |from, to, rows: &[u8]| {
            let recode = Recode {
                from,
                to,
                k: K,
                importance: None,
            };
            let mut out = vec![0; to.row_bytes(K).unwrap() * N_ROWS];
            recode.rows(&team.take_turn(), rows, &mut out).unwrap();
            out
        };
        let floats = recode(ty, WeightType::F32, &halves);
        assert_eq!(recode(WeightType::F32, ty, &floats), halves);
    }
}

#[test]
fn weights_that_cannot_be_written_are_refused_by_row() {
    let team = team(Isa::detect(), 2);
    let refused = |value: f32, to| {
        let mut x = weights(256 * 200);
        x[256 * 150 + 7] = value;
        x[256 * 170] = value;
        let recode = Recode {
            from: WeightType::F32,
            to,
            k: 256,
            importance: None,
        };
        let mut out = vec![0; to.row_bytes(256).unwrap() * 200];
        let rows = bytemuck::cast_slice(&x);
        recode.rows(&team.take_turn(), rows, &mut out).unwrap_err()
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = refused(value, WeightType::Q4K);
        assert_eq!(error, RecodeError::NotFinite { row_idx: 150 });
    }
    let too_great = |to: WeightType| RecodeError::TooGreat {
        row_idx: 150,
        to: to.name(),
    };
    for to in [WeightType::F16, WeightType::Q4_0, WeightType::Q6K] {
        assert_eq!(refused(1e30, to), too_great(to));
    }
    assert_eq!(
        refused(3.4e38, WeightType::BF16),
        too_great(WeightType::BF16)
    );
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let team = team(Isa::detect(), 1);
    let recode = |k, importance, n_bytes: usize, n_out: usize| {
        let recode = Recode {
            from: WeightType::F32,
            to: WeightType::Q4K,
            k,
            importance,
        };
        let mut out = vec![0; n_out];
        recode.rows(&team.take_turn(), &vec![0; n_bytes], &mut out)
    };
    assert!(recode(256, None, 2048, 288).is_ok());
    assert!(recode(100, None, 400, 144).is_err(), "half a block");
    assert!(recode(0, None, 0, 0).is_err(), "no weights");
    assert!(recode(256, None, 1000, 144).is_err(), "half a row");
    assert!(recode(256, None, 2048, 144).is_err(), "room for one of two");
    assert!(
        recode(256, Some(&[1.0; 255]), 1024, 144).is_err(),
        "short importance"
    );
}
