//! Random weights: a pool of blocks of each type, written over and over from random places.

use std::io::{self, Write};

use half::f16;
use ingle_kernels::WeightType;

/// The standard deviation of the weights: large enough to matter, small enough that activations stay
/// finite through any number of layers.
const DEVIATION: f32 = 0.02;
/// Half the levels of a quantised weight lie within so many standard deviations.
const REACH: f32 = 2.5;
/// Bytes of a pool: it takes milliseconds to draw and is far longer than a row.
const POOL_BYTES: usize = 1 << 20;

/// SplitMix64.
///
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let number = self.next() % (limit as u64);
        usize::try_from(number).unwrap_or_default()
    }

    /// A byte of `from..=to`.
    fn byte(&mut self, from: u8, to: u8) -> u8 {
        let number = self.next() % (u64::from(to - from) + 1);
        from + u8::try_from(number).unwrap_or_default()
    }

    /// About normal, of mean 0 and deviation 1: the sum of four even numbers.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4)
            .map(|quarter| (bits >> (16 * quarter)) & 0xffff)
            .sum();
        // Four of deviation 65536 / √12 each, and of mean 32767.5.
        (sum as f32 - 131_070.0) / 37_837.2
    }

    /// A quant of 0..=`most` around `zero`.
    fn quant(&mut self, zero: f32, most: u8) -> u8 {
        let quant = zero + self.normal() * quant_deviation(most);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is clamped to the range of a byte"
        )]
        let quant = quant.round().clamp(0.0, f32::from(most)) as u8;
        quant
    }
}

/// The standard deviation of quants of 0..=`most`.
fn quant_deviation(most: u8) -> f32 {
    f32::midpoint(f32::from(most), 1.0) / REACH
}

/// Random blocks of one type.
pub(super) struct Pool {
    bytes: Vec<u8>,
    block_bytes: usize,
}

impl Pool {
    /// Draws a pool. Types that no recipe names become zeros.
    pub(super) fn new(weight: WeightType, random: &mut Random) -> Self {
        let block_bytes = weight.block_bytes();
        let mut bytes = vec![0; POOL_BYTES / block_bytes * block_bytes];
        for block in bytes.chunks_exact_mut(block_bytes) {
            fill(weight, block, random);
        }
        Self { bytes, block_bytes }
    }

    /// Writes whole blocks, `n_bytes` of them together.
    pub(super) fn write(
        &self,
        n_bytes: u64,
        random: &mut Random,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let n_blocks = self.bytes.len() / self.block_bytes;
        let mut left = n_bytes;
        while left > 0 {
            let start = random.below(n_blocks) * self.block_bytes;
            let run = &self.bytes[start..];
            let run = &run[..run.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            out.write_all(run)?;
            left -= run.len() as u64;
        }
        Ok(())
    }
}

/// Draws one block.
///
/// Source: the layouts are those of ggml's `block_q4_0` and its kin.
fn fill(weight: WeightType, block: &mut [u8], random: &mut Random) {
    match weight {
        WeightType::F32 => block.copy_from_slice(&(DEVIATION * random.normal()).to_le_bytes()),
        WeightType::Q4_0 => {
            set_half(block, 0, DEVIATION / quant_deviation(15));
            fill_nibbles(&mut block[2..], 8.0, random);
        }
        WeightType::Q4_1 => {
            let scale = DEVIATION / quant_deviation(15);
            set_half(block, 0, scale);
            set_half(block, 2, -7.5 * scale);
            fill_nibbles(&mut block[4..], 7.5, random);
        }
        WeightType::Q8_0 => {
            set_half(block, 0, DEVIATION / quant_deviation(u8::MAX));
            // Two's complement: half way round the circle from an unsigned byte.
            block[2..].fill_with(|| random.quant(128.0, u8::MAX) ^ 0x80);
        }
        WeightType::Q4K => {
            fill_scales(block, 15, random);
            fill_nibbles(&mut block[16..], 7.5, random);
        }
        WeightType::Q5K => {
            fill_scales(block, 31, random);
            fill_q5_k(block, random);
        }
        WeightType::Q6K => fill_q6_k(block, random),
        _ => {}
    }
}

fn set_half(block: &mut [u8], at: usize, value: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn fill_nibbles(bytes: &mut [u8], zero: f32, random: &mut Random) {
    bytes.fill_with(|| random.quant(zero, 15) | random.quant(zero, 15) << 4);
}

/// The scale, the minimum and the twelve bytes of six-bit scales and minima of a `Q4_K` or `Q5_K`
/// block. Minima are equal to scales, so that every group is centred.
fn fill_scales(block: &mut [u8], most: u8, random: &mut Random) {
    let sub: [u8; 8] = std::array::from_fn(|_| random.byte(40, 62));
    let scale = DEVIATION / quant_deviation(most) / 51.0;
    set_half(block, 0, scale);
    set_half(block, 2, scale * f32::from(most) / 2.0);
    for group in 0..4 {
        let (first, second) = (sub[group], sub[group + 4]);
        block[4 + group] = first | (second >> 4) << 6;
        block[8 + group] = block[4 + group];
        block[12 + group] = (second & 15) | second << 4;
    }
}

/// Fifth bits at 16, nibbles at 48.
fn fill_q5_k(block: &mut [u8], random: &mut Random) {
    block[16..].fill(0);
    for group in 0..8 {
        for i in 0..32 {
            let quant = random.quant(15.5, 31);
            block[16 + i] |= (quant >> 4) << group;
            block[48 + 32 * (group / 2) + i] |= (quant & 15) << (4 * (group % 2));
        }
    }
}

/// Nibbles at 0, upper two bits at 128, sixteen scales at 192, the scale at 208.
fn fill_q6_k(block: &mut [u8], random: &mut Random) {
    block.fill(0);
    for group in 0..8 {
        let (run, quarter) = (group / 4, group % 4);
        for i in 0..32 {
            let quant = random.quant(32.0, 63);
            block[64 * run + 32 * (quarter % 2) + i] |= (quant & 15) << (4 * (quarter / 2));
            block[128 + 32 * run + i] |= (quant >> 4) << (2 * quarter);
        }
    }
    block[192..208].fill_with(|| random.byte(80, 120));
    set_half(block, 208, DEVIATION / quant_deviation(63) / 100.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_type_are_about_normal() {
        for weight in [
            WeightType::F32,
            WeightType::Q4_0,
            WeightType::Q4_1,
            WeightType::Q8_0,
            WeightType::Q4K,
            WeightType::Q5K,
            WeightType::Q6K,
        ] {
            let pool = Pool::new(weight, &mut Random::new(1));
            let n_blocks = pool.bytes.len() / weight.block_bytes();
            let mut values = vec![0.0; n_blocks * weight.block_len()];
            weight.dequantize(&pool.bytes, &mut values).unwrap();
            let n_values = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n_values;
            let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n_values;
            assert!(mean.abs() < 3e-4, "{weight:?}: mean {mean}");
            let deviation = square.sqrt();
            assert!(
                (0.018..0.022).contains(&deviation),
                "{weight:?}: deviation {deviation}"
            );
            let near = values.iter().filter(|v| v.abs() < DEVIATION).count() as f64 / n_values;
            assert!(
                (0.6..0.78).contains(&near),
                "{weight:?}: {near} within a deviation"
            );
        }
    }

    #[test]
    fn a_tensor_is_as_long_as_it_has_to_be_and_differs_with_the_seed() {
        let mut random = Random::new(1);
        let pool = Pool::new(WeightType::Q4K, &mut random);
        let written = |random: &mut Random| {
            let mut out = Vec::new();
            pool.write(144 * 20_000, random, &mut out).unwrap();
            out
        };
        let first = written(&mut random);
        assert_eq!(first.len(), 144 * 20_000);
        assert_ne!(first, written(&mut random));
    }
}
