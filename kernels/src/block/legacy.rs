//! Blocks of 32 weights.
//!
//! Source: the layouts are those of ggml's `block_q4_0` and its kin.

use super::{GROUP_LEN, Group, half_at};

/// Low nibbles are the first 16 quants, high nibbles the last 16.
fn nibbles(bytes: &[u8]) -> [u8; GROUP_LEN] {
    std::array::from_fn(|i| (bytes[i % 16] >> (i / 16 * 4)) & 15)
}

/// Adds a fifth bit to each quant: bit `i` of the four bytes.
fn with_fifth_bits(mut quants: [u8; GROUP_LEN], bits: &[u8]) -> [u8; GROUP_LEN] {
    for (i, quant) in quants.iter_mut().enumerate() {
        *quant |= ((bits[i / 8] >> (i % 8)) & 1) << 4;
    }
    quants
}

/// scale, 16 bytes of nibbles; offset 8.
pub(super) fn q4_0(block: &[u8; 18]) -> Group {
    Group::whole(nibbles(&block[2..]), half_at(block, 0), 0.0)
}

/// scale, minimum, 16 bytes of nibbles.
pub(super) fn q4_1(block: &[u8; 20]) -> Group {
    Group::whole(nibbles(&block[4..]), half_at(block, 0), half_at(block, 2))
}

/// scale, fifth bits, 16 bytes of nibbles; offset 16.
pub(super) fn q5_0(block: &[u8; 22]) -> Group {
    let quants = with_fifth_bits(nibbles(&block[6..]), &block[2..6]);
    Group::whole(quants, half_at(block, 0), 0.0)
}

/// scale, minimum, fifth bits, 16 bytes of nibbles.
pub(super) fn q5_1(block: &[u8; 24]) -> Group {
    let quants = with_fifth_bits(nibbles(&block[8..]), &block[4..8]);
    Group::whole(quants, half_at(block, 0), half_at(block, 2))
}

/// scale, 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34]) -> Group {
    Group::whole(
        std::array::from_fn(|i| block[2 + i]),
        half_at(block, 0),
        0.0,
    )
}
