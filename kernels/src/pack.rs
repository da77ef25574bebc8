//! Weights laid out for the products: 16 rows side by side, so that a vector has a row in each lane.
//!
//! A strip is 16 rows, block after block. Within a block of a strip every 4-byte word stands 16 times
//! in a row, once for each weight row; the one 2-byte float of blocks whose size is no multiple of 4
//! does likewise, in its place. Nothing but the order of bytes changes, so a row can be read back.

use crate::memory::Memory;
use crate::team::Disjoint;
use crate::{Turn, WeightType};

/// Weight rows of a strip: a 512-bit vector of 32-bit lanes.
pub(crate) const STRIP_ROWS: usize = 16;
/// What vectors like their addresses to be multiples of.
const ALIGNMENT: usize = 64;
/// Bytes a task packs, at least.
const TASK_BYTES: usize = 1 << 18;

/// A packed matrix.
pub(crate) struct Packed {
    bytes: Memory,
    /// Where the first strip begins: the first aligned byte.
    start: usize,
    strip_bytes: usize,
}

impl Packed {
    /// Packs the rows of a quantised matrix; rows that are missing from the last strip are zeros.
    pub(crate) fn new(turn: &Turn<'_>, weight_type: WeightType, n: usize, rows: &[u8]) -> Self {
        let block_bytes = weight_type.block_bytes();
        let row_bytes = rows.len() / n.max(1);
        let strip_bytes = row_bytes * STRIP_ROWS;
        let n_strips = n.div_ceil(STRIP_ROWS);
        let mut bytes = Memory::zeroed(n_strips * strip_bytes + ALIGNMENT);
        let memory = bytes.bytes_mut();
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let strips = Disjoint::new(&mut memory[start..start + n_strips * strip_bytes]);
        let task_strips = TASK_BYTES.div_ceil(strip_bytes.max(1));
        turn.run(n_strips.div_ceil(task_strips), &|task_idx| {
            for strip_idx in task_idx * task_strips..n_strips.min((task_idx + 1) * task_strips) {
                // SAFETY: each strip belongs to one task.
                let strip = unsafe {
                    strips.slice_mut(strip_idx * strip_bytes..(strip_idx + 1) * strip_bytes)
                };
                let rows = rows.chunks_exact(row_bytes).skip(strip_idx * STRIP_ROWS);
                for (row_idx, row) in rows.take(STRIP_ROWS).enumerate() {
                    pack_row(row, row_idx, block_bytes, strip);
                }
            }
        });
        Self {
            bytes,
            start,
            strip_bytes,
        }
    }

    /// The strip of rows from `STRIP_ROWS * strip_idx` on.
    pub(crate) fn strip(&self, strip_idx: usize) -> &[u8] {
        let start = self.start + strip_idx * self.strip_bytes;
        &self.bytes.bytes()[start..start + self.strip_bytes]
    }

    /// Reads a block of a row back.
    pub(crate) fn read_block(&self, row: usize, block_idx: usize, block: &mut [u8]) {
        let strip = self.strip(row / STRIP_ROWS);
        read_block(strip, row % STRIP_ROWS, block_idx, block);
    }
}

/// Where the 2-byte float of a block stands, if it has one: in front of blocks of 32 weights, at the
/// end of blocks of 256.
const fn odd_half(block_bytes: usize) -> Option<usize> {
    match block_bytes % 4 {
        2 if block_bytes < 64 => Some(0),
        2 => Some(block_bytes - 2),
        _ => None,
    }
}

/// Where the element at byte `at` of a block stands in a strip's block, for the first row: every byte
/// stands 16 times, whatever the width of its element.
pub(crate) const fn place(at: usize) -> usize {
    at * STRIP_ROWS
}

/// Puts a row's bytes into their places.
fn pack_row(row: &[u8], row_idx: usize, block_bytes: usize, strip: &mut [u8]) {
    let blocks = row.chunks_exact(block_bytes);
    for (block, packed) in blocks.zip(strip.chunks_exact_mut(block_bytes * STRIP_ROWS)) {
        let (half, words, words_place) = split(block_bytes);
        if let Some(at) = half {
            let place = place(at) + 2 * row_idx;
            packed[place..place + 2].copy_from_slice(&block[at..at + 2]);
        }
        let packed = packed[words_place..].as_chunks_mut::<4>().0;
        let lanes = packed.iter_mut().skip(row_idx).step_by(STRIP_ROWS);
        for (packed, word) in lanes.zip(block[words].as_chunks::<4>().0) {
            *packed = *word;
        }
    }
}

/// Reads block `block_idx` of a strip's row back.
pub(crate) fn read_block(strip: &[u8], row_idx: usize, block_idx: usize, block: &mut [u8]) {
    let block_bytes = block.len();
    let packed = &strip[block_idx * block_bytes * STRIP_ROWS..][..block_bytes * STRIP_ROWS];
    let (half, words, words_place) = split(block_bytes);
    if let Some(at) = half {
        let place = place(at) + 2 * row_idx;
        block[at..at + 2].copy_from_slice(&packed[place..place + 2]);
    }
    let packed = packed[words_place..].as_chunks::<4>().0;
    let lanes = packed.iter().skip(row_idx).step_by(STRIP_ROWS);
    for (word, packed) in block[words].as_chunks_mut::<4>().0.iter_mut().zip(lanes) {
        *word = *packed;
    }
}

/// Where a block's odd half stands, which of its bytes are words, and where those begin in a strip.
fn split(block_bytes: usize) -> (Option<usize>, std::ops::Range<usize>, usize) {
    match odd_half(block_bytes) {
        Some(0) => (Some(0), 2..block_bytes, place(2)),
        Some(at) => (Some(at), 0..at, 0),
        None => (None, 0..block_bytes, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::testing::{Random, random_blocks};
    use crate::{Isa, Team};

    #[test]
    fn every_row_comes_back_and_words_stand_side_by_side() {
        let mut random = Random::new(1);
        let team = Team::new(NonZeroUsize::new(3).unwrap(), Isa::Scalar);
        for weight_type in WeightType::ALL {
            if !weight_type.takes_quantized() {
                continue;
            }
            let (n, k) = (35, 512);
            let bytes = random_blocks(weight_type, n * k, &mut random);
            let row_bytes = bytes.len() / n;
            let packed = Packed::new(&team.take_turn(), weight_type, n, &bytes);
            let block_bytes = weight_type.block_bytes();
            for (row_idx, row) in bytes.chunks_exact(row_bytes).enumerate() {
                for (block_idx, expected) in row.chunks_exact(block_bytes).enumerate() {
                    let mut block = vec![0; block_bytes];
                    packed.read_block(row_idx, block_idx, &mut block);
                    assert_eq!(block, expected, "{weight_type:?}");
                }
            }
            let strip = packed.strip(1);
            assert_eq!(strip.as_ptr().align_offset(ALIGNMENT), 0);
            let at = if odd_half(block_bytes) == Some(0) {
                2
            } else {
                4
            };
            for row_idx in 0..STRIP_ROWS {
                let row = &bytes[(STRIP_ROWS + row_idx) * row_bytes..];
                let place = place(at) + 4 * row_idx;
                assert_eq!(strip[place..place + 4], row[at..at + 4], "{weight_type:?}");
            }
        }
    }
}
