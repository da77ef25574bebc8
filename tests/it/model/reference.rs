//! The network as its formula says, in double precision, over weights that candle decodes.

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use ingle::gguf::{Gguf, TensorType};
use ingle::model::ModelConfig;

use super::{Bench, best, cosine, open, tokens};
use crate::gguf_file::TinyLlama;

/// Every tensor, decoded.
struct Reference {
    config: ModelConfig,
    tensors: HashMap<String, Vec<f64>>,
}

/// Keys or values of all positions, of one layer.
type Cache = Vec<Vec<f64>>;

impl Reference {
    fn new(bytes: &[u8], gguf: &Gguf) -> Self {
        let mut reader = Cursor::new(bytes);
        let content = Content::read(&mut reader).unwrap();
        let decoded = content.tensor_infos.keys().map(|name| {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
            let values = tensor.dequantize(&Device::Cpu).unwrap();
            let values: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
            (name.clone(), values.into_iter().map(f64::from).collect())
        });
        Self {
            tensors: decoded.collect(),
            config: ModelConfig::from_gguf(gguf).unwrap(),
        }
    }

    fn tensor(&self, name: &str) -> &[f64] {
        &self.tensors[name]
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensor(name).chunks_exact(x.len());
        rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.config.rms_norm_eps)).sqrt();
        let weight = self.tensor(name);
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
    }

    fn rope(&self, heads: &mut [f64], position: usize) {
        let rope = &self.config.rope;
        for head in heads.chunks_exact_mut(self.config.head_dim) {
            for pair in 0..rope.dim / 2 {
                let factors = self.tensors.get("rope_freqs.weight");
                let factor = factors.map_or(1.0, |factors| factors[pair]);
                let exponent = 2.0 * pair as f64 / rope.dim as f64;
                let frequency = f64::from(rope.base).powf(-exponent) / factor;
                let (sin, cos) = (position as f64 / f64::from(rope.scale) * frequency).sin_cos();
                let (a, b) = (head[2 * pair], head[2 * pair + 1]);
                head[2 * pair] = a * cos - b * sin;
                head[2 * pair + 1] = a * sin + b * cos;
            }
        }
    }

    fn attention(&self, q: &[f64], keys: &Cache, values: &Cache) -> Vec<f64> {
        let ModelConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.config;
        let window = self
            .config
            .sliding_window
            .map_or(usize::MAX, |w| w as usize);
        let first = keys.len().saturating_sub(window);
        let mut out = Vec::new();
        for (head, q) in q.chunks_exact(head_dim).enumerate() {
            let kv_head = head / (n_heads / n_kv_heads);
            let part = kv_head * head_dim..(kv_head + 1) * head_dim;
            let score = |key: &Vec<f64>| -> f64 {
                let products = key[part.clone()].iter().zip(q).map(|(k, q)| k * q);
                products.sum::<f64>() / (head_dim as f64).sqrt()
            };
            let weights: Vec<f64> = keys[first..].iter().map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend(part.clone().map(|i| {
                let weighted = weights.iter().zip(&values[first..]);
                weighted
                    .map(|(weight, value)| weight * value[i])
                    .sum::<f64>()
                    / total
            }));
        }
        out
    }

    /// The logits of every position.
    fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let config = &self.config;
        let mut caches = vec![(Cache::new(), Cache::new()); config.n_layers];
        let mut all = Vec::new();
        for (position, token) in tokens.iter().enumerate() {
            let row = *token as usize * config.n_embd;
            let mut x = self.tensor("token_embd.weight")[row..row + config.n_embd].to_vec();
            for (layer, (keys, values)) in caches.iter_mut().enumerate() {
                let name = |part: &str| format!("blk.{layer}.{part}.weight");
                let h = self.norm(&name("attn_norm"), &x);
                let mut q = self.linear(&name("attn_q"), &h);
                let mut k = self.linear(&name("attn_k"), &h);
                self.rope(&mut q, position);
                self.rope(&mut k, position);
                keys.push(k);
                values.push(self.linear(&name("attn_v"), &h));
                let attended = self.attention(&q, keys, values);
                add(&mut x, &self.linear(&name("attn_output"), &attended));
                let h = self.norm(&name("ffn_norm"), &x);
                let gate = self.linear(&name("ffn_gate"), &h);
                let up = self.linear(&name("ffn_up"), &h);
                let silu = |g: f64| g / (1.0 + (-g).exp());
                let gated: Vec<f64> = gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect();
                add(&mut x, &self.linear(&name("ffn_down"), &gated));
            }
            let h = self.norm("output_norm.weight", &x);
            let tied = !self.tensors.contains_key("output.weight");
            let output = if tied {
                "token_embd.weight"
            } else {
                "output.weight"
            };
            #[expect(clippy::cast_possible_truncation, reason = "as the model's logits are")]
            all.push(self.linear(output, &h).iter().map(|v| *v as f32).collect());
        }
        all
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Compares every position; `exact` where the weights are floats and only rounding differs.
fn check(tiny: &TinyLlama, exact: bool) {
    let bytes = tiny.to_bytes();
    let gguf = open(bytes.clone());
    let tokens = tokens(3, 90, tiny.n_vocab);
    let expected = Reference::new(&bytes, &gguf).logits(&tokens);
    let ours = Bench::new(&gguf, 2).logits(&tokens, &[90]);
    let (cosine_least, margin) = if exact {
        (0.999_999, 0.01)
    } else {
        (0.999, 0.3)
    };
    for (position, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        let cosine = cosine(ours, expected);
        assert!(
            cosine > cosine_least,
            "{tiny:?}, position {position}: {cosine}"
        );
        let (token, distance) = best(expected);
        if distance > margin {
            assert_eq!(best(ours).0, token, "{tiny:?}, position {position}");
        }
    }
}

#[test]
fn every_weight_type_gives_the_formula() {
    for name in ["F32", "F16", "BF16"] {
        check(&TinyLlama::of_type(name), true);
    }
    let quantised = [
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    ];
    for name in quantised {
        check(&TinyLlama::of_type(name), false);
    }
}

#[test]
fn a_mixture_of_types_gives_the_formula() {
    let named = |name| TensorType::from_name(name).unwrap();
    check(
        &TinyLlama {
            overrides: vec![("attn_v", named("Q6_K")), ("attn_k", named("F16"))],
            tied: false,
            ..TinyLlama::of_type("Q4_K")
        },
        false,
    );
}

#[test]
fn every_variant_of_the_architecture_gives_the_formula() {
    let plain = TinyLlama::default;
    let variants = [
        TinyLlama {
            tied: false,
            ..plain()
        },
        TinyLlama {
            rope_factors: true,
            rope_base: 500_000.0,
            ..plain()
        },
        TinyLlama {
            rope_base: 1_000_000.0,
            ..plain()
        },
        TinyLlama {
            sliding_window: Some(20),
            ..plain()
        },
        TinyLlama {
            sliding_window: Some(0),
            ..plain()
        },
        TinyLlama {
            n_kv_heads: 4,
            ..plain()
        },
        TinyLlama {
            n_kv_heads: 1,
            ..plain()
        },
        TinyLlama {
            head_dim: Some(32),
            ..plain()
        },
        TinyLlama {
            n_layers: 5,
            n_embd: 96,
            n_heads: 3,
            n_kv_heads: 3,
            ..plain()
        },
    ];
    for variant in variants {
        check(&variant, true);
    }
}

#[test]
fn linear_scaling_divides_positions() {
    let tiny = TinyLlama::default();
    let file = tiny
        .file()
        .with("llama.rope.scaling.type", "linear")
        .with("llama.rope.scaling.factor", 4.0_f32);
    let bytes = file.to_bytes();
    let gguf = open(bytes.clone());
    let tokens = tokens(5, 60, tiny.n_vocab);
    let expected = Reference::new(&bytes, &gguf).logits(&tokens);
    let ours = Bench::new(&gguf, 1).logits(&tokens, &[60]);
    let plain = Bench::tiny(&tiny, 1).logits(&tokens, &[60]);
    for (ours, expected) in ours.iter().zip(&expected) {
        assert!(cosine(ours, expected) > 0.999_999);
    }
    assert_ne!(ours[59], plain[59]);
}
