//! What tests share: random numbers and random blocks.
#![cfg(test)]

use half::f16;

use crate::WeightType;

/// A small generator of numbers: the same ones every time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap()
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.word()).unwrap() % limit
    }

    /// A number from -1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.word().cast_signed() as f32 / 2.0_f32.powi(31)
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Bytes of `n_weights` weights: any bits, but scales that are tame.
pub(crate) fn random_blocks(
    weight_type: WeightType,
    n_weights: usize,
    random: &mut Random,
) -> Vec<u8> {
    let n_bytes = weight_type.row_bytes(n_weights).unwrap();
    match weight_type {
        WeightType::F32 => random
            .floats(n_weights)
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect(),
        WeightType::F16 => {
            let halves = random
                .floats(n_weights)
                .into_iter()
                .map(f16::from_f32_const);
            halves.flat_map(f16::to_le_bytes).collect()
        }
        WeightType::BF16 => {
            let halves = random
                .floats(n_weights)
                .into_iter()
                .map(half::bf16::from_f32_const);
            halves.flat_map(half::bf16::to_le_bytes).collect()
        }
        _ => {
            let mut bytes: Vec<u8> = (0..n_bytes)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect();
            set_scales(weight_type, &mut bytes, |_| {
                f16::from_f32_const(0.1 * random.float())
            });
            bytes
        }
    }
}

/// Sets the half-precision scales and minima of all blocks.
pub(crate) fn set_scales(
    weight_type: WeightType,
    bytes: &mut [u8],
    mut scale: impl FnMut(usize) -> f16,
) {
    let places: &[usize] = match weight_type {
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => &[],
        WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 => &[0],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
        WeightType::Q2K => &[80, 82],
        WeightType::Q3K => &[108],
        WeightType::Q6K => &[208],
    };
    for block in bytes.chunks_exact_mut(weight_type.block_bytes()) {
        for &place in places {
            block[place..place + 2].copy_from_slice(&scale(place).to_le_bytes());
        }
    }
}
