//! The kinds of weights a GGUF file holds, and their bits.

mod k;
mod legacy;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::ShapeError;

/// Weights in a group: what one activation scale goes with.
pub(crate) const GROUP_LEN: usize = 32;

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

    /// Bytes of the largest block.
    pub(crate) const BLOCK_BYTES_MOST: usize = 210;

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

/// 32 consecutive weights of a row, in the form every quantised product takes them in.
///
/// Weight `i` is `scale * sub_scales[i / 16] * (quants[i] - offset) + bias * sub_mins[i / 16]`, with
/// the offset of [`WeightType::offset`]; types that scale whole groups have ones for `sub_scales` and
/// `sub_mins`. `quants` are unsigned but for Q8_0, whose bytes are two's complement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) quants: [u8; GROUP_LEN],
    pub(crate) scale: f32,
    pub(crate) bias: f32,
    pub(crate) sub_scales: [i16; 2],
    pub(crate) sub_mins: [i16; 2],
}

impl Group {
    /// A group with one scale.
    fn whole(quants: [u8; GROUP_LEN], scale: f32, bias: f32) -> Self {
        Self {
            quants,
            scale,
            bias,
            sub_scales: [1; 2],
            sub_mins: [1; 2],
        }
    }
}

impl WeightType {
    /// What is subtracted from a quant before it is scaled.
    pub(crate) const fn offset(self) -> u8 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q3K => 4,
            Self::Q6K => 32,
            _ => 0,
        }
    }

    /// Reads group `group_idx` of a row; none for floats and past the end of the row.
    pub(crate) fn group(self, row: &[u8], group_idx: usize) -> Option<Group> {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Q4_0 => row.as_chunks().0.get(group_idx).map(legacy::q4_0),
            Self::Q4_1 => row.as_chunks().0.get(group_idx).map(legacy::q4_1),
            Self::Q5_0 => row.as_chunks().0.get(group_idx).map(legacy::q5_0),
            Self::Q5_1 => row.as_chunks().0.get(group_idx).map(legacy::q5_1),
            Self::Q8_0 => row.as_chunks().0.get(group_idx).map(legacy::q8_0),
            Self::Q2K => row
                .as_chunks()
                .0
                .get(group_idx / 8)
                .map(|b| k::q2(b, group_idx % 8)),
            Self::Q3K => row
                .as_chunks()
                .0
                .get(group_idx / 8)
                .map(|b| k::q3(b, group_idx % 8)),
            Self::Q4K => row
                .as_chunks()
                .0
                .get(group_idx / 8)
                .map(|b| k::q4(b, group_idx % 8)),
            Self::Q5K => row
                .as_chunks()
                .0
                .get(group_idx / 8)
                .map(|b| k::q5(b, group_idx % 8)),
            Self::Q6K => row
                .as_chunks()
                .0
                .get(group_idx / 8)
                .map(|b| k::q6(b, group_idx % 8)),
        }
    }

    /// Decodes a row of weights.
    ///
    /// Shapes: `row` holds exactly `out.len()` weights.
    ///
    /// # Errors
    /// [`ShapeError`] when `out` is not a whole number of blocks or `row` has another length.
    pub fn dequantize(self, row: &[u8], out: &mut [f32]) -> Result<(), ShapeError> {
        let expected = self.row_bytes(out.len()).ok_or(ShapeError::Multiple {
            what: "a row of weights",
            got: out.len(),
            of: self.block_len(),
        })?;
        ShapeError::check_length("the bytes of a row", row.len(), expected)?;
        match self {
            Self::F32 => decode(row, out, f32::from_le_bytes),
            Self::F16 => decode(row, out, |bytes| f16::from_le_bytes(bytes).to_f32_const()),
            Self::BF16 => decode(row, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => {
                for (group_idx, out) in out.chunks_exact_mut(GROUP_LEN).enumerate() {
                    if let Some(group) = self.group(row, group_idx) {
                        self.decode_group(&group, out);
                    }
                }
            }
        }
        Ok(())
    }

    fn decode_group(self, group: &Group, out: &mut [f32]) {
        for (i, (out, &quant)) in out.iter_mut().zip(&group.quants).enumerate() {
            let quant = if self == Self::Q8_0 {
                i16::from(quant.cast_signed())
            } else {
                i16::from(quant) - i16::from(self.offset())
            };
            let scale = group.scale * f32::from(group.sub_scales[i / 16]);
            *out = scale * f32::from(quant) + group.bias * f32::from(group.sub_mins[i / 16]);
        }
    }
}

/// Decodes a row of floats of `N` bytes each.
fn decode<const N: usize>(row: &[u8], out: &mut [f32], float: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(row.as_chunks().0) {
        *out = float(bytes);
    }
}

/// Reads the half-precision float at `at`.
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32_const()
}
