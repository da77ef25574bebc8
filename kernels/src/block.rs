//! The kinds of weights a GGUF file holds, and their bits.

/// A kind of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// 4 bits and a scale for 32 weights.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 weights.
    Q4_1,
    /// 5 bits and a scale for 32 weights.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 weights.
    Q5_1,
    /// 8 bits and a scale for 32 weights.
    Q8_0,
    /// 2 bits, with scales and minima for 16 weights, in super-blocks of 256.
    Q2K,
    /// 3 bits, with scales for 16 weights, in super-blocks of 256.
    Q3K,
    /// 4 bits, with scales and minima for 32 weights, in super-blocks of 256.
    Q4K,
    /// 5 bits, with scales and minima for 32 weights, in super-blocks of 256.
    Q5K,
    /// 6 bits, with scales for 16 weights, in super-blocks of 256.
    Q6K,
}

impl WeightType {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Weights in a block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `k` weights; none if `k` is not a whole number of blocks.
    pub const fn row_bytes(self, k: usize) -> Option<usize> {
        if k.is_multiple_of(self.block_len()) {
            (k / self.block_len()).checked_mul(self.block_bytes())
        } else {
            None
        }
    }

    /// The name GGUF knows the kind by, e.g. `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Whether activations are quantised for it, as against taken as f32.
    pub const fn takes_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}
