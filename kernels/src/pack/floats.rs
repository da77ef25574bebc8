//! Float weights laid out for the products: 32 rows side by side, value by value.

use super::Strips;
use crate::{Turn, WeightType};

/// Weight rows of a strip.
pub(crate) const FLOAT_STRIP_ROWS: usize = 32;
/// Values of a row that are moved before the next row's turn comes: all rows' fit the nearest cache.
const PIECE_LEN: usize = 64;

/// A packed matrix of floats of any width. Value `i` of row `r` of a strip stands at `32 * i + r`.
pub(crate) struct PackedFloats {
    strips: Strips,
    value_bytes: usize,
}

impl PackedFloats {
    /// Packs `n` rows; rows that are missing from the last strip are zeros.
    pub(crate) fn new(turn: &Turn<'_>, weight_type: WeightType, n: usize, rows: &[u8]) -> Self {
        let value_bytes = weight_type.block_bytes();
        let row_bytes = rows.len() / n.max(1);
        let strip_bytes = row_bytes * FLOAT_STRIP_ROWS;
        let n_strips = n.div_ceil(FLOAT_STRIP_ROWS);
        let pack = |strip_idx: usize, strip: &mut [u8]| {
            let first = strip_idx * FLOAT_STRIP_ROWS;
            let rows = &rows[first * row_bytes..n.min(first + FLOAT_STRIP_ROWS) * row_bytes];
            if value_bytes == 2 {
                pack_strip::<2>(rows, row_bytes, strip);
            } else {
                pack_strip::<4>(rows, row_bytes, strip);
            }
        };
        Self {
            strips: Strips::new(turn, n_strips, strip_bytes, &pack),
            value_bytes,
        }
    }

    /// The strip of rows from `FLOAT_STRIP_ROWS * strip_idx` on.
    pub(crate) fn strip(&self, strip_idx: usize) -> &[u8] {
        self.strips.strip(strip_idx)
    }

    /// Calls `take` with the bytes of each value of a row.
    pub(crate) fn read_row(&self, row: usize, mut take: impl FnMut(&[u8])) {
        let values = self
            .strip(row / FLOAT_STRIP_ROWS)
            .chunks_exact(self.value_bytes);
        let values = values
            .skip(row % FLOAT_STRIP_ROWS)
            .step_by(FLOAT_STRIP_ROWS);
        values.for_each(&mut take);
    }
}

/// Puts rows of values of `B` bytes side by side.
fn pack_strip<const B: usize>(rows: &[u8], row_bytes: usize, strip: &mut [u8]) {
    let (values, _) = strip.as_chunks_mut::<B>();
    let pieces = values.chunks_mut(PIECE_LEN * FLOAT_STRIP_ROWS);
    for (piece_idx, piece) in pieces.enumerate() {
        let start = piece_idx * PIECE_LEN * B;
        for (row_idx, row) in rows.chunks_exact(row_bytes).enumerate() {
            let from = row[start..].as_chunks::<B>().0.iter();
            let to = piece.iter_mut().skip(row_idx).step_by(FLOAT_STRIP_ROWS);
            for (to, from) in to.zip(from) {
                *to = *from;
            }
        }
    }
}
