//! Weights laid out for the products: 16 rows side by side, so that a vector has a row in each lane.
//!
//! A strip is 16 rows, block after block. Within a block of a strip every 4-byte word stands 16 times
//! in a row, once for each weight row. The words stand in the order in which products read them: what
//! is read to and fro, no processor fetches ahead. The one 2-byte float of blocks whose size is no
//! multiple of 4 stands first: in blocks of 32 weights as it is, in those of 256 as a word, so that
//! what follows keeps its alignment. Nothing but the order of bytes changes: a row can be read back.

mod floats;

use crate::memory::Memory;
use crate::team::Disjoint;
use crate::{Turn, WeightType};
pub(crate) use floats::{FLOAT_STRIP_ROWS, PackedFloats};

/// Weight rows of a strip: a 512-bit vector of 32-bit lanes.
pub(crate) const STRIP_ROWS: usize = 16;
/// What vectors like their addresses to be multiples of.
const ALIGNMENT: usize = 64;
/// Bytes a task packs, at least.
const TASK_BYTES: usize = 1 << 18;

/// A packed matrix.
pub(crate) struct Packed(Strips);

/// The memory of a packed matrix, of either kind.
struct Strips {
    bytes: Memory,
    /// Where the first strip begins: the first aligned byte.
    start: usize,
    strip_bytes: usize,
}

impl Strips {
    /// Has `pack` write every strip; what it leaves is zeros.
    fn new(
        turn: &Turn<'_>,
        n_strips: usize,
        strip_bytes: usize,
        pack: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) -> Self {
        let mut bytes = Memory::zeroed(n_strips * strip_bytes + ALIGNMENT);
        let memory = bytes.bytes_mut();
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let strips = Disjoint::new(&mut memory[start..start + n_strips * strip_bytes]);
        let task_strips = TASK_BYTES.div_ceil(strip_bytes.max(1));
        turn.run(n_strips.div_ceil(task_strips), &|task_idx| {
            for strip_idx in task_idx * task_strips..n_strips.min((task_idx + 1) * task_strips) {
                let place = strip_idx * strip_bytes..(strip_idx + 1) * strip_bytes;
                // SAFETY: each strip belongs to one task.
                pack(strip_idx, unsafe { strips.slice_mut(place) });
            }
        });
        Self {
            bytes,
            start,
            strip_bytes,
        }
    }

    fn strip(&self, strip_idx: usize) -> &[u8] {
        let start = self.start + strip_idx * self.strip_bytes;
        &self.bytes.bytes()[start..start + self.strip_bytes]
    }
}

impl Packed {
    /// Packs the rows of a quantised matrix; rows that are missing from the last strip are zeros.
    pub(crate) fn new(turn: &Turn<'_>, weight_type: WeightType, n: usize, rows: &[u8]) -> Self {
        let block_bytes = weight_type.block_bytes();
        let row_bytes = rows.len() / n.max(1);
        let strip_bytes = row_bytes / block_bytes * strip_block_bytes(block_bytes);
        let pack = |strip_idx: usize, strip: &mut [u8]| {
            let rows = rows.chunks_exact(row_bytes).skip(strip_idx * STRIP_ROWS);
            for (row_idx, row) in rows.take(STRIP_ROWS).enumerate() {
                pack_row(row, row_idx, block_bytes, strip);
            }
        };
        Self(Strips::new(
            turn,
            n.div_ceil(STRIP_ROWS),
            strip_bytes,
            &pack,
        ))
    }

    /// The strip of rows from `STRIP_ROWS * strip_idx` on.
    pub(crate) fn strip(&self, strip_idx: usize) -> &[u8] {
        self.0.strip(strip_idx)
    }

    /// Reads a block of a row back.
    pub(crate) fn read_block(&self, row: usize, block_idx: usize, block: &mut [u8]) {
        let strip = self.strip(row / STRIP_ROWS);
        read_block(strip, row % STRIP_ROWS, block_idx, block);
    }
}

/// Bytes of a block that stand together in a strip.
type Piece = std::ops::Range<usize>;

/// The pieces of a block, in a strip's order.
const fn pieces(block_bytes: usize) -> &'static [Piece] {
    match block_bytes {
        // Q2_K: scale and minimum, sub-scales, quants.
        84 => &[80..84, 0..16, 16..80],
        // Q3_K: scale, sub-scales, third bits, quants.
        110 => &[108..110, 96..108, 0..32, 32..96],
        // Q6_K: scale, sub-scales, then for each half the upper bits and the nibbles.
        210 => &[208..210, 192..208, 128..160, 0..64, 160..192, 64..128],
        18 => &[0..2, 2..18],
        22 => &[0..2, 2..22],
        34 => &[0..2, 2..34],
        20 => &[0..4, 4..20],
        24 => &[0..8, 8..24],
        144 => &[0..16, 16..144],
        _ => &[0..16, 16..176],
    }
}

/// Bytes that a block takes in a strip, for one row.
pub(crate) const fn packed_bytes(block_bytes: usize) -> usize {
    if block_bytes > 64 {
        block_bytes.next_multiple_of(4)
    } else {
        block_bytes
    }
}

/// Bytes of a strip's block.
pub(crate) const fn strip_block_bytes(block_bytes: usize) -> usize {
    place(packed_bytes(block_bytes))
}

/// Where the element at byte `at` of a packed block stands in a strip's block, for the first row: every
/// byte stands 16 times, whatever the width of its element.
pub(crate) const fn place(at: usize) -> usize {
    at * STRIP_ROWS
}

/// Puts a row's bytes into their places.
fn pack_row(row: &[u8], row_idx: usize, block_bytes: usize, strip: &mut [u8]) {
    let strip_blocks = strip.chunks_exact_mut(strip_block_bytes(block_bytes));
    for (block, packed) in row.chunks_exact(block_bytes).zip(strip_blocks) {
        let mut at = 0;
        for piece in pieces(block_bytes) {
            let bytes = &block[piece.clone()];
            if let Ok(half) = <[u8; 2]>::try_from(bytes) {
                let width = half_width(block_bytes);
                let place = place(at) + width * row_idx;
                packed[place..place + 2].copy_from_slice(&half);
                at += width;
                continue;
            }
            let lanes = packed[place(at)..].as_chunks_mut::<4>().0.iter_mut();
            for (packed, word) in lanes
                .skip(row_idx)
                .step_by(STRIP_ROWS)
                .zip(bytes.as_chunks().0)
            {
                *packed = *word;
            }
            at += bytes.len();
        }
    }
}

/// Bytes from one row's 2-byte float to the next row's.
const fn half_width(block_bytes: usize) -> usize {
    if block_bytes > 64 { 4 } else { 2 }
}

/// Reads block `block_idx` of a strip's row back.
pub(crate) fn read_block(strip: &[u8], row_idx: usize, block_idx: usize, block: &mut [u8]) {
    let block_bytes = block.len();
    let strip_block_bytes = strip_block_bytes(block_bytes);
    let packed = &strip[block_idx * strip_block_bytes..][..strip_block_bytes];
    let mut at = 0;
    for piece in pieces(block_bytes) {
        let bytes = &mut block[piece.clone()];
        if bytes.len() == 2 {
            let width = half_width(block_bytes);
            let place = place(at) + width * row_idx;
            bytes.copy_from_slice(&packed[place..place + 2]);
            at += width;
            continue;
        }
        let lanes = packed[place(at)..].as_chunks::<4>().0.iter();
        let words = bytes.as_chunks_mut().0.iter_mut();
        for (word, packed) in words.zip(lanes.skip(row_idx).step_by(STRIP_ROWS)) {
            *word = *packed;
        }
        at += bytes.len();
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
            // A word of the last piece.
            let (piece, at) = (
                pieces(block_bytes).last().unwrap(),
                packed_bytes(block_bytes),
            );
            let at = at - piece.len();
            for row_idx in 0..STRIP_ROWS {
                let row = &bytes[(STRIP_ROWS + row_idx) * row_bytes..];
                let place = place(at) + 4 * row_idx;
                let expected = &row[piece.start..piece.start + 4];
                assert_eq!(strip[place..place + 4], *expected, "{weight_type:?}");
            }
        }
    }
}
