//! Weights as plain floats, whatever the file holds: the network without any rounding of its own.

use bytemuck::cast_slice;
use ingle_kernels::{ShapeError, WeightBytes, WeightType};

/// What becomes of a file's matrices in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// They stay of the file's type.
    AsInFile,
    /// Every weight becomes a float, so that activations are not rounded either.
    Decoded,
}

/// Rows of floats, their bytes in the order of a file.
pub(super) struct Decoded(Vec<u32>);

impl Decoded {
    /// Decodes rows of `k` weights each.
    pub(super) fn new(weight_type: WeightType, k: usize, rows: &[u8]) -> Result<Self, ShapeError> {
        let row_bytes = weight_type.row_bytes(k).unwrap_or_default().max(1);
        let mut floats = vec![0.0_f32; k];
        let mut words = Vec::with_capacity(rows.len() / row_bytes * k);
        for row in rows.chunks(row_bytes) {
            weight_type.dequantize(row, &mut floats)?;
            words.extend(floats.iter().map(|float| float.to_bits().to_le()));
        }
        Ok(Self(words))
    }
}

impl WeightBytes for Decoded {
    fn bytes(&self) -> &[u8] {
        cast_slice(&self.0)
    }
}
