//! Networks whose layers lie where the tensor library computes, as they do on Metal, and networks split
//! between it and our kernels, as they are where a GPU's memory is short.

use ingle::gguf::Gguf;
use ingle::model::{Device, Error, KvType, Limits, Model, ModelConfig, Placement, unwatched};

use super::{Bench, LIMITS, best, cosine, open, team, tokens};
use crate::fixtures;
use crate::gguf_file::TinyLlama;

impl Bench {
    /// With so many of the last layers in the tensor library's hands.
    fn placed(gguf: &Gguf, n_device_layers: usize) -> Self {
        Self::of(load(gguf, LIMITS, n_device_layers).unwrap())
    }
}

fn load(gguf: &Gguf, limits: Limits, n_device_layers: usize) -> Result<Model, Error> {
    let config = ModelConfig::from_gguf(gguf).unwrap();
    let placement = Placement {
        device: Device::library_on_cpu(),
        n_device_layers,
        ..Placement::default()
    };
    Model::load(gguf, &config, limits, &placement, team(1), &mut unwatched)
}

/// Holds every split of a network of floats to the network on our kernels.
fn check(tiny: &TinyLlama) {
    let gguf = open(tiny.to_bytes());
    let tokens = tokens(3, 150, tiny.n_vocab);
    let expected = Bench::new(&gguf, 1).logits(&tokens, &[150]);
    let n_layers = tiny.n_layers as usize;
    for n_device_layers in 1..=n_layers {
        let mut bench = Bench::placed(&gguf, n_device_layers);
        // Other blocks the second time, with what the first left in them.
        for cut in [vec![150], vec![1, 63, 40, 46]] {
            let got = bench.logits(&tokens, &cut);
            for (got, expected) in got.iter().zip(&expected) {
                let cosine = cosine(got, expected);
                assert!(
                    cosine > 0.99999,
                    "{n_device_layers} of {n_layers}: {cosine}"
                );
            }
        }
    }
}

#[test]
fn floats_are_computed_alike_wherever_the_layers_lie() {
    let plain = TinyLlama {
        n_layers: 3,
        ..TinyLlama::default()
    };
    check(&plain);
    check(&TinyLlama {
        tied: !plain.tied,
        sliding_window: Some(40),
        rope_factors: true,
        ..plain
    });
    check(&TinyLlama::of_type("F16"));
    check(&TinyLlama::of_type("BF16"));
}

#[test]
fn sequences_beside_each_other_do_not_mix() {
    let tiny = TinyLlama::default();
    let gguf = open(tiny.to_bytes());
    let mut bench = Bench::placed(&gguf, 1);
    let (a, b) = (tokens(5, 70, tiny.n_vocab), tokens(6, 70, tiny.n_vocab));
    let alone = bench.logits(&b, &[70]);
    let (mut first, mut second) = (bench.sequence(&a), bench.sequence(&b));
    bench.step(&mut [(&mut first, 33)]);
    bench.step(&mut [(&mut first, 1), (&mut second, 60)]);
    let last = bench.step(&mut [(&mut first, 30), (&mut second, 10)]);
    for (got, expected) in last[30..].iter().zip(&alone[60..]) {
        assert!(cosine(got, expected) > 0.99999);
    }
}

#[test]
fn smollm2_says_the_same_with_half_of_it_elsewhere() {
    let gguf = Gguf::open(&fixtures::smollm2()).unwrap();
    let tokens = tokens(8, 40, 49_152);
    let expected = Bench::new(&gguf, 1).logits(&tokens, &[40]);
    let got = Bench::placed(&gguf, 15).logits(&tokens, &[40]);
    let cosines: Vec<f64> = got
        .iter()
        .zip(&expected)
        .map(|(a, b)| cosine(a, b))
        .collect();
    // Activations are rounded otherwise there: see ARCHITECTURE.md.
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(mean > 0.995, "{mean}");
    let is_best = |(a, b): (&Vec<f32>, &Vec<f32>)| best(a).0 == best(b).0;
    let n_alike = got
        .iter()
        .zip(&expected)
        .filter(|pair| is_best(*pair))
        .count();
    assert!(n_alike >= 32, "{n_alike} of 40");
}

#[test]
fn eight_bit_keys_are_refused_where_nothing_reads_them() {
    let gguf = open(TinyLlama::default().to_bytes());
    let limits = Limits {
        kv_type: KvType::Int8,
        ..LIMITS
    };
    let error = load(&gguf, limits, 1).unwrap_err();
    assert!(error.to_string().contains("eight bits"), "{error}");
}
