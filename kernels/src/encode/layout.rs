//! Where the bits of a block lie: what [`crate::block`] reads.

use half::f16;

use super::k::{SUPER_LEN, SuperBlock};

/// The low four bits of 32 levels, the second half of the levels in the upper halves of the bytes.
#[inline(always)]
pub(super) fn halves(levels: &[u8; 32], out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (levels[i] & 15) | (levels[i + 16] & 15) << 4;
    }
}

/// The fifth bit of 32 levels.
#[inline(always)]
pub(super) fn fifth_bits(levels: &[u8; 32]) -> [u8; 4] {
    let bits = levels
        .iter()
        .rev()
        .fold(0_u32, |bits, level| bits << 1 | u32::from(level >> 4 & 1));
    bits.to_le_bytes()
}

/// Two bits of each level: 32 bytes hold 128 levels, the first 32 lowest.
#[inline(always)]
fn quarters(levels: &[u8; SUPER_LEN], shift: u32, out: &mut [u8]) {
    for (out, levels) in out.chunks_exact_mut(32).zip(levels.as_chunks::<128>().0) {
        for (i, byte) in out.iter_mut().enumerate() {
            let bits = |quarter: usize| levels[32 * quarter + i] >> shift & 3;
            *byte = bits(0) | bits(1) << 2 | bits(2) << 4 | bits(3) << 6;
        }
    }
}

/// One bit of each level: byte `i` holds those of every 32nd level.
#[inline(always)]
fn one_bit(levels: &[u8; SUPER_LEN], shift: u32, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |bits, run| {
            bits | (levels[32 * run + i] >> shift & 1) << run
        });
    }
}

/// Four bits of each level: 32 bytes hold 64 levels.
#[inline(always)]
fn nibbles(levels: &[u8; SUPER_LEN], out: &mut [u8]) {
    for (out, levels) in out.chunks_exact_mut(32).zip(levels.as_chunks::<64>().0) {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = (levels[i] & 15) | (levels[32 + i] & 15) << 4;
        }
    }
}

/// Six-bit scales and minima of eight sub-blocks in twelve bytes.
#[inline(always)]
fn six_bits(scales: &SuperBlock<8>, out: &mut [u8]) {
    for i in 0..4 {
        let (scale, min) = (scales.scales[i + 4], scales.mins[i + 4]);
        out[i] = scales.scales[i] | (scale >> 4) << 6;
        out[i + 4] = scales.mins[i] | (min >> 4) << 6;
        out[i + 8] = (scale & 15) | (min & 15) << 4;
    }
}

#[inline(always)]
pub(super) fn q2(scales: &SuperBlock<16>, levels: &[u8; SUPER_LEN], block: &mut [u8; 84]) {
    let pairs = scales.scales.iter().zip(&scales.mins);
    for (byte, (scale, min)) in block.iter_mut().zip(pairs) {
        *byte = scale | min << 4;
    }
    quarters(levels, 0, &mut block[16..80]);
    block[80..82].copy_from_slice(&scales.scale.to_le_bytes());
    block[82..].copy_from_slice(&scales.min.to_le_bytes());
}

#[inline(always)]
pub(super) fn q3(scale: f16, scales: &[u8; 16], levels: &[u8; SUPER_LEN], block: &mut [u8; 110]) {
    one_bit(levels, 2, &mut block[..32]);
    quarters(levels, 0, &mut block[32..96]);
    for i in 0..8 {
        block[96 + i] = (scales[i] & 15) | (scales[i + 8] & 15) << 4;
    }
    for i in 0..4 {
        let bits = |quarter: usize| scales[4 * quarter + i] >> 4 & 3;
        block[104 + i] = bits(0) | bits(1) << 2 | bits(2) << 4 | bits(3) << 6;
    }
    block[108..].copy_from_slice(&scale.to_le_bytes());
}

#[inline(always)]
pub(super) fn q4(scales: &SuperBlock<8>, levels: &[u8; SUPER_LEN], block: &mut [u8; 144]) {
    block[..2].copy_from_slice(&scales.scale.to_le_bytes());
    block[2..4].copy_from_slice(&scales.min.to_le_bytes());
    six_bits(scales, &mut block[4..16]);
    nibbles(levels, &mut block[16..]);
}

#[inline(always)]
pub(super) fn q5(scales: &SuperBlock<8>, levels: &[u8; SUPER_LEN], block: &mut [u8; 176]) {
    block[..2].copy_from_slice(&scales.scale.to_le_bytes());
    block[2..4].copy_from_slice(&scales.min.to_le_bytes());
    six_bits(scales, &mut block[4..16]);
    one_bit(levels, 4, &mut block[16..48]);
    nibbles(levels, &mut block[48..]);
}

#[inline(always)]
pub(super) fn q6(scale: f16, scales: &[u8; 16], levels: &[u8; SUPER_LEN], block: &mut [u8; 210]) {
    for (out, levels) in block[..128]
        .chunks_exact_mut(64)
        .zip(levels.as_chunks::<128>().0)
    {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = (levels[i] & 15) | (levels[64 + i] & 15) << 4;
        }
    }
    quarters(levels, 4, &mut block[128..192]);
    block[192..208].copy_from_slice(scales);
    block[208..].copy_from_slice(&scale.to_le_bytes());
}
