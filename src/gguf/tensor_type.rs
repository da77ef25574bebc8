//! The types a tensor can have: every one ggml has names for, readable by Ingle or not.

use std::fmt;

use ingle_kernels::WeightType;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy)]
pub struct TensorType(&'static Layout);

/// One row of the table.
struct Layout {
    id: u32,
    name: &'static str,
    block_len: u64,
    block_bytes: u64,
}

const fn layout(id: u32, name: &'static str, block_len: u64, block_bytes: u64) -> Layout {
    Layout {
        id,
        name,
        block_len,
        block_bytes,
    }
}

/// Every type with its geometry (weights a block, bytes a block), by ascending id.
///
/// Ids 4 and 5 were given up before GGUF existed. 31 to 33 and 36 to 38 are the types that
/// interleave rows for one processor; ggml no longer writes them.
///
/// Source: `ggml.h` (`enum ggml_type`) and the block structs of `ggml-common.h`.
static TABLE: [Layout; 40] = [
    layout(0, "F32", 1, 4),
    layout(1, "F16", 1, 2),
    layout(2, "Q4_0", 32, 18),
    layout(3, "Q4_1", 32, 20),
    layout(6, "Q5_0", 32, 22),
    layout(7, "Q5_1", 32, 24),
    layout(8, "Q8_0", 32, 34),
    layout(9, "Q8_1", 32, 36),
    layout(10, "Q2_K", 256, 84),
    layout(11, "Q3_K", 256, 110),
    layout(12, "Q4_K", 256, 144),
    layout(13, "Q5_K", 256, 176),
    layout(14, "Q6_K", 256, 210),
    layout(15, "Q8_K", 256, 292),
    layout(16, "IQ2_XXS", 256, 66),
    layout(17, "IQ2_XS", 256, 74),
    layout(18, "IQ3_XXS", 256, 98),
    layout(19, "IQ1_S", 256, 50),
    layout(20, "IQ4_NL", 32, 18),
    layout(21, "IQ3_S", 256, 110),
    layout(22, "IQ2_S", 256, 82),
    layout(23, "IQ4_XS", 256, 136),
    layout(24, "I8", 1, 1),
    layout(25, "I16", 1, 2),
    layout(26, "I32", 1, 4),
    layout(27, "I64", 1, 8),
    layout(28, "F64", 1, 8),
    layout(29, "IQ1_M", 256, 56),
    layout(30, "BF16", 1, 2),
    layout(31, "Q4_0_4_4", 32, 18),
    layout(32, "Q4_0_4_8", 32, 18),
    layout(33, "Q4_0_8_8", 32, 18),
    layout(34, "TQ1_0", 256, 54),
    layout(35, "TQ2_0", 256, 66),
    layout(36, "IQ4_NL_4_4", 32, 18),
    layout(37, "IQ4_NL_4_8", 32, 18),
    layout(38, "IQ4_NL_8_8", 32, 18),
    layout(39, "MXFP4", 32, 17),
    layout(40, "NVFP4", 64, 36),
    layout(41, "Q1_0", 128, 18),
];

impl TensorType {
    /// The type with ggml's number `id`, if ggml has one.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|layout| layout.id == id).map(Self)
    }

    /// The type with ggml's name, e.g. `Q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|layout| layout.name == name).map(Self)
    }

    /// Every type, by ascending id.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(Self)
    }

    /// ggml's number for the type.
    pub fn id(self) -> u32 {
        self.0.id
    }

    /// ggml's name for the type.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Weights in a block.
    pub fn block_len(self) -> u64 {
        self.0.block_len
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> u64 {
        self.0.block_bytes
    }

    /// The type as the kernels know it; none for types that Ingle does not compute with.
    pub fn weight_type(self) -> Option<WeightType> {
        Some(match self.0.name {
            "F32" => WeightType::F32,
            "F16" => WeightType::F16,
            "BF16" => WeightType::BF16,
            "Q4_0" => WeightType::Q4_0,
            "Q4_1" => WeightType::Q4_1,
            "Q5_0" => WeightType::Q5_0,
            "Q5_1" => WeightType::Q5_1,
            "Q8_0" => WeightType::Q8_0,
            "Q2_K" => WeightType::Q2K,
            "Q3_K" => WeightType::Q3K,
            "Q4_K" => WeightType::Q4K,
            "Q5_K" => WeightType::Q5K,
            "Q6_K" => WeightType::Q6K,
            _ => return None,
        })
    }

    /// Bytes of a tensor of these dimensions; none when a row is no whole number of blocks, or when
    /// the number does not fit 64 bits.
    pub fn tensor_bytes(self, dims: &[u64]) -> Option<u64> {
        let (row, rest) = dims.split_first()?;
        if row % self.0.block_len != 0 {
            return None;
        }
        let row_bytes = (row / self.0.block_len).checked_mul(self.0.block_bytes)?;
        rest.iter()
            .try_fold(row_bytes, |bytes, n| bytes.checked_mul(*n))
    }
}

impl From<WeightType> for TensorType {
    fn from(weight: WeightType) -> Self {
        let place = match weight {
            WeightType::F32 => 0,
            WeightType::F16 => 1,
            WeightType::Q4_0 => 2,
            WeightType::Q4_1 => 3,
            WeightType::Q5_0 => 4,
            WeightType::Q5_1 => 5,
            WeightType::Q8_0 => 6,
            WeightType::Q2K => 8,
            WeightType::Q3K => 9,
            WeightType::Q4K => 10,
            WeightType::Q5K => 11,
            WeightType::Q6K => 12,
            WeightType::BF16 => 28,
        };
        Self(&TABLE[place])
    }
}

impl PartialEq for TensorType {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for TensorType {}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_agree_on_every_geometry() {
        for weight in WeightType::ALL {
            let same = TensorType::all().filter(|ty| ty.weight_type() == Some(weight));
            let [ty] = same.collect::<Vec<_>>()[..] else {
                panic!("{weight:?} is not in the table once")
            };
            assert_eq!(ty.block_len(), weight.block_len() as u64, "{ty}");
            assert_eq!(ty.block_bytes(), weight.block_bytes() as u64, "{ty}");
            assert_eq!(TensorType::from(weight), ty);
        }
    }

    #[test]
    fn ids_ascend_and_names_are_unique() {
        assert!(TABLE.is_sorted_by(|a, b| a.id < b.id));
        for ty in TensorType::all() {
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(TensorType::from_name(ty.name()), Some(ty));
        }
    }

    #[test]
    fn a_tensor_is_as_long_as_its_blocks_or_has_no_length() {
        let q4_k = TensorType::from_name("Q4_K").unwrap();
        assert_eq!(q4_k.tensor_bytes(&[512, 3]), Some(2 * 144 * 3));
        assert_eq!(q4_k.tensor_bytes(&[500, 3]), None, "half a block");
        assert_eq!(
            q4_k.tensor_bytes(&[1 << 40, 1 << 40]),
            None,
            "beyond 64 bits"
        );
        assert_eq!(q4_k.tensor_bytes(&[]), None);
    }
}
