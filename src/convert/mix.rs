//! Which type each tensor gets: the mixes llama.cpp's quantiser makes, in which layers that matter more
//! have more bits.
//!
//! Source: the rules of `llama-quant.cpp` for dense networks of the Llama family.

use ingle_kernels::WeightType::{
    self, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0,
};

use super::Error;
use crate::gguf::TensorType;

/// A kind of file. Its number is `general.file_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it is")]
#[expect(non_camel_case_types, reason = "the names llama.cpp gives them")]
pub enum Mix {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q8_0 = 7,
    Q5_0 = 8,
    Q5_1 = 9,
    Q2_K = 10,
    Q3_K_S = 11,
    Q3_K_M = 12,
    Q3_K_L = 13,
    Q4_K_S = 14,
    Q4_K_M = 15,
    Q5_K_S = 16,
    Q5_K_M = 17,
    Q6_K = 18,
    BF16 = 32,
}

impl Mix {
    /// Every kind with its name.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::F32, "F32"),
        (Self::F16, "F16"),
        (Self::BF16, "BF16"),
        (Self::Q8_0, "Q8_0"),
        (Self::Q6_K, "Q6_K"),
        (Self::Q5_K_M, "Q5_K_M"),
        (Self::Q5_K_S, "Q5_K_S"),
        (Self::Q5_1, "Q5_1"),
        (Self::Q5_0, "Q5_0"),
        (Self::Q4_K_M, "Q4_K_M"),
        (Self::Q4_K_S, "Q4_K_S"),
        (Self::Q4_1, "Q4_1"),
        (Self::Q4_0, "Q4_0"),
        (Self::Q3_K_L, "Q3_K_L"),
        (Self::Q3_K_M, "Q3_K_M"),
        (Self::Q3_K_S, "Q3_K_S"),
        (Self::Q2_K, "Q2_K"),
    ];

    /// The kind of that name, whatever the case; `Q4_K` and its like are the middle ones.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = match &*name {
            "Q3_K" => "Q3_K_M",
            "Q4_K" => "Q4_K_M",
            "Q5_K" => "Q5_K_M",
            other => other,
        };
        let found = Self::ALL.iter().find(|(_, its)| *its == name);
        found.map(|(mix, _)| *mix)
    }

    /// Its name, e.g. `Q4_K_M`.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(mix, _)| *mix == self);
        found.map_or("", |(_, name)| name)
    }

    /// What most of its weights are in.
    fn base(self) -> WeightType {
        match self {
            Self::F32 => F32,
            Self::F16 => F16,
            Self::BF16 => WeightType::BF16,
            Self::Q8_0 => Q8_0,
            Self::Q4_0 => Q4_0,
            Self::Q4_1 => Q4_1,
            Self::Q5_0 => Q5_0,
            Self::Q5_1 => Q5_1,
            Self::Q2_K => Q2K,
            Self::Q3_K_S | Self::Q3_K_M | Self::Q3_K_L => Q3K,
            Self::Q4_K_S | Self::Q4_K_M => Q4K,
            Self::Q5_K_S | Self::Q5_K_M => Q5K,
            Self::Q6_K => Q6K,
        }
    }
}

/// What of a network its mix depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) has_importance: bool,
    /// An output matrix beside the embedding.
    pub(super) has_output: bool,
}

impl Network {
    fn heads_per_kv_head(&self) -> usize {
        self.n_heads.checked_div(self.n_kv_heads).unwrap_or(1)
    }

    /// Two Llamas have eighty layers and shared keys; both are of seventy billion weights.
    fn is_70b(&self) -> bool {
        self.n_layers == 80 && self.n_heads != self.n_kv_heads
    }
}

/// Gives types to one tensor after the other, in the order of their layers.
pub(super) struct Mixer {
    mix: Mix,
    network: Network,
    /// Types that were asked for instead.
    pub(super) output: Option<WeightType>,
    pub(super) embedding: Option<WeightType>,
    n_values_seen: usize,
    n_downs_seen: usize,
    /// Tensors whose rows are no whole number of blocks of what they should be in.
    pub(super) n_fallbacks: usize,
}

impl Mixer {
    pub(super) fn new(mix: Mix, network: Network) -> Self {
        Self {
            mix,
            network,
            output: None,
            embedding: None,
            n_values_seen: 0,
            n_downs_seen: 0,
            n_fallbacks: 0,
        }
    }

    /// The type of a tensor that now has type `from`.
    ///
    /// Errors: no type that was asked for fits its rows.
    pub(super) fn ty(
        &mut self,
        name: &str,
        dims: &[u64],
        from: TensorType,
    ) -> Result<TensorType, Error> {
        if !is_quantized(name, dims) {
            return Ok(from);
        }
        let asked = match name {
            "token_embd.weight" => self.embedding,
            "output.weight" => self.output,
            _ => None,
        };
        if let Some(asked) = asked {
            let ty = TensorType::from(asked);
            return ty.tensor_bytes(dims).map(|_| ty).ok_or_else(|| {
                let row = dims.first().copied().unwrap_or_default();
                let problem = format!("has rows of {row}, no whole number of blocks of {ty}");
                Error::tensor(name, problem)
            });
        }
        let base = self.mix.base();
        if !base.takes_quantized() {
            return Ok(base.into());
        }
        let row_len = dims.first().copied().unwrap_or_default();
        let ty = self.quantized(name, row_len, base);
        Ok(self.fitting(row_len, ty).into())
    }

    fn quantized(&mut self, name: &str, row_len: u64, base: WeightType) -> WeightType {
        let is_output = name == "output.weight";
        let is_tied = name == "token_embd.weight" && !self.network.has_output;
        if is_output || is_tied {
            return match self.output {
                Some(asked) => asked,
                None if !row_len.is_multiple_of(base.block_len() as u64) => Q8_0,
                None if base == Q8_0 => Q8_0,
                None => Q6K,
            };
        }
        if name.contains("attn_v.weight") {
            self.n_values_seen += 1;
            self.of_values(self.n_values_seen - 1, base)
        } else if name.contains("ffn_down") {
            self.n_downs_seen += 1;
            self.of_down(self.n_downs_seen - 1, base)
        } else if name.contains("attn_output.weight") {
            match self.mix {
                Mix::Q2_K => Q3K,
                Mix::Q3_K_M => Q4K,
                Mix::Q3_K_L => Q5K,
                _ => base,
            }
        } else {
            base
        }
    }

    fn of_values(&self, layer: usize, base: WeightType) -> WeightType {
        let ty = match self.mix {
            Mix::Q2_K if self.network.heads_per_kv_head() >= 4 => Q4K,
            Mix::Q2_K => Q3K,
            Mix::Q3_K_M if layer < 2 => Q5K,
            Mix::Q3_K_M => Q4K,
            Mix::Q3_K_L => Q5K,
            Mix::Q4_K_M | Mix::Q5_K_M if self.has_more_bits(layer) => Q6K,
            Mix::Q4_K_S if layer < 4 => Q5K,
            _ => base,
        };
        match ty {
            Q3K | Q4K if self.network.is_70b() => Q5K,
            ty => ty,
        }
    }

    fn of_down(&self, layer: usize, base: WeightType) -> WeightType {
        let n_layers = self.network.n_layers;
        let is_first = layer < n_layers / 8;
        match self.mix {
            Mix::Q2_K => Q3K,
            Mix::Q3_K_M if layer < n_layers / 16 => Q5K,
            Mix::Q3_K_M => Q4K,
            Mix::Q3_K_L => Q5K,
            Mix::Q4_K_M | Mix::Q5_K_M if self.has_more_bits(layer) => Q6K,
            Mix::Q4_K_S if is_first => Q5K,
            Mix::Q4_0 if is_first && self.network.has_importance => Q4_1,
            Mix::Q5_0 if is_first && self.network.has_importance => Q5_1,
            _ => base,
        }
    }

    /// The first and the last eighth, and every third of those between.
    fn has_more_bits(&self, layer: usize) -> bool {
        let n_layers = self.network.n_layers;
        layer < n_layers / 8 || layer >= 7 * n_layers / 8 || (layer - n_layers / 8) % 3 == 2
    }

    /// The type itself or, where a row is no whole number of its blocks, one that has smaller ones.
    fn fitting(&mut self, row_len: u64, ty: WeightType) -> WeightType {
        let fits = |ty: WeightType| row_len.is_multiple_of(ty.block_len() as u64);
        if fits(ty) {
            return ty;
        }
        self.n_fallbacks += 1;
        let smaller = match ty {
            Q2K | Q3K => Q4_0,
            Q4K => Q5_0,
            Q5K => Q5_1,
            Q6K => Q8_0,
            _ => F16,
        };
        if fits(smaller) { smaller } else { F16 }
    }
}

/// Whether a tensor is one that a mix quantises: a matrix of weights, not a norm.
pub(super) fn is_quantized(name: &str, dims: &[u64]) -> bool {
    let is_matrix = dims.iter().skip(1).any(|dim| *dim > 1);
    is_matrix
        && name.ends_with("weight")
        && !name.contains("_norm.weight")
        && !name.contains("ffn_gate_inp.weight")
}
