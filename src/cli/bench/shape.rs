//! The shapes of real models, and the mix of weight types a real file of them has.

use clap::ValueEnum;
use ingle_kernels::WeightType;

/// A model by the name of its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ShapeName {
    #[value(name = "llama3-8b")]
    Llama3_8b,
    #[value(name = "llama3.2-1b")]
    Llama3_2_1b,
    #[value(name = "mistral-7b")]
    Mistral7b,
    #[value(name = "codellama-7b")]
    CodeLlama7b,
    #[value(name = "codellama-13b")]
    CodeLlama13b,
    /// No real model: small enough for tests, wide enough for the K types.
    #[value(name = "tiny")]
    Tiny,
}

/// What the keys of a file say of its network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) n_embd: u32,
    pub(super) n_ff: u32,
    pub(super) n_layers: u32,
    pub(super) n_heads: u32,
    pub(super) n_kv_heads: u32,
    pub(super) n_vocab: u32,
    pub(super) context_length: u32,
    pub(super) rope_base: f32,
    /// The file has a tensor that stretches the rotary frequencies, as those of Llama 3.1 and later.
    pub(super) has_rope_factors: bool,
    /// The embedding is the output matrix too.
    pub(super) is_tied: bool,
}

impl ShapeName {
    /// The shape. Mistral is version 0.3, as in the catalogue: no sliding window.
    pub(super) fn shape(self) -> Shape {
        let llama3 = Shape {
            name: "llama3-8b",
            n_embd: 4096,
            n_ff: 14_336,
            n_layers: 32,
            n_heads: 32,
            n_kv_heads: 8,
            n_vocab: 128_256,
            context_length: 8192,
            rope_base: 500_000.0,
            has_rope_factors: false,
            is_tied: false,
        };
        let code_llama = Shape {
            name: "codellama-7b",
            n_ff: 11_008,
            n_kv_heads: 32,
            n_vocab: 32_016,
            context_length: 16_384,
            rope_base: 1e6,
            ..llama3
        };
        match self {
            Self::Llama3_8b => llama3,
            Self::Llama3_2_1b => Shape {
                name: "llama3.2-1b",
                n_embd: 2048,
                n_ff: 8192,
                n_layers: 16,
                context_length: 131_072,
                has_rope_factors: true,
                is_tied: true,
                ..llama3
            },
            Self::Mistral7b => Shape {
                name: "mistral-7b",
                n_vocab: 32_768,
                context_length: 32_768,
                rope_base: 1e6,
                ..llama3
            },
            Self::CodeLlama7b => code_llama,
            Self::CodeLlama13b => Shape {
                name: "codellama-13b",
                n_embd: 5120,
                n_ff: 13_824,
                n_layers: 40,
                n_heads: 40,
                n_kv_heads: 40,
                ..code_llama
            },
            Self::Tiny => Shape {
                name: "tiny",
                n_embd: 256,
                n_ff: 768,
                n_layers: 4,
                n_heads: 8,
                n_kv_heads: 2,
                n_vocab: 32_000,
                context_length: 2048,
                rope_base: 10_000.0,
                ..llama3
            },
        }
    }
}

/// What files of a kind are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Recipe {
    #[value(name = "q4_k_m")]
    Q4KM,
    #[value(name = "q5_k_m")]
    Q5KM,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q6_k")]
    Q6K,
}

impl Recipe {
    /// The number `general.file_type` has for it.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
        }
    }

    /// The type of most matrices.
    pub(super) fn plain(self) -> WeightType {
        match self {
            Self::Q4KM => WeightType::Q4K,
            Self::Q5KM => WeightType::Q5K,
            Self::Q4_0 => WeightType::Q4_0,
            Self::Q4_1 => WeightType::Q4_1,
            Self::Q8_0 => WeightType::Q8_0,
            Self::Q6K => WeightType::Q6K,
        }
    }

    /// The type of the output matrix, which a tied embedding is too.
    pub(super) fn output(self) -> WeightType {
        match self {
            Self::Q8_0 => WeightType::Q8_0,
            _ => WeightType::Q6K,
        }
    }

    /// The type of `attn_v` and `ffn_down` in a layer.
    ///
    /// Source: `llama_tensor_get_type` and `use_more_bits` of llama.cpp.
    pub(super) fn rich(self, layer: u32, n_layers: u32) -> WeightType {
        let eighth = n_layers / 8;
        let has_more_bits =
            layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
        match self {
            Self::Q4KM | Self::Q5KM if has_more_bits => WeightType::Q6K,
            _ => self.plain(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_layers_get_more_bits() {
        let rich = |layer| Recipe::Q5KM.rich(layer, 32) == WeightType::Q6K;
        let layers: Vec<u32> = (0..32).filter(|layer| rich(*layer)).collect();
        let expected = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        assert_eq!(layers, expected);
        assert_eq!(Recipe::Q4_0.rich(0, 32), WeightType::Q4_0);
        assert_eq!(Recipe::Q8_0.output(), WeightType::Q8_0);
        assert_eq!(Recipe::Q4_0.output(), WeightType::Q6K);
    }

    #[test]
    fn heads_divide_states_and_rows_are_whole_blocks() {
        for name in ShapeName::value_variants() {
            let shape = name.shape();
            assert_eq!(shape.n_embd % shape.n_heads, 0, "{}", shape.name);
            assert_eq!(shape.n_heads % shape.n_kv_heads, 0, "{}", shape.name);
            assert_eq!(
                (shape.n_embd % 256, shape.n_ff % 256),
                (0, 0),
                "{}",
                shape.name
            );
        }
    }
}
