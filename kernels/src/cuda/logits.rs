//! What sampling needs of rows of logits, in fewer bytes than the rows.

use super::{Arg, DeviceSlice, DeviceSliceMut, Launch, check_len, dim};
use crate::ShapeError;

/// Logits that are kept of a row.
pub const TOP: usize = 256;
/// Sums of a row: the greatest logit, the sum of all weights against it, the number of bad logits.
pub const SUMS: usize = 3;
/// Threads of a block.
const THREADS: u32 = 1024;

/// Finds the greatest logits of each row, and what the row adds up to.
///
/// Shapes: `logits` is `[m, n_vocab]`, `top` is `[m, TOP]`, `sums` is `[m, SUMS]`, and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short.
pub fn top_logits<'a>(
    logits: DeviceSlice<'a, f32>,
    [m, n_vocab]: [usize; 2],
    top: DeviceSliceMut<'a, u64>,
    sums: DeviceSliceMut<'a, f32>,
) -> Result<Launch<'a>, ShapeError> {
    ShapeError::check_multiple("the number of logits", n_vocab, 1)?;
    check_len("the logits", logits.len, m * n_vocab)?;
    check_len("the greatest logits", top.len, m * TOP)?;
    check_len("the sums", sums.len, m * SUMS)?;
    let args: Vec<Arg> = vec![logits.into(), dim(n_vocab)?, top.into(), sums.into()];
    Launch::new("top_logits", [m, 1], THREADS, args)
}

/// A token and its logit, out of a key of [`top_logits`]; none where the row had no more.
pub fn token_of(key: u64) -> Option<(u32, f32)> {
    if key == 0 {
        return None;
    }
    let [token, bits] = [key, key >> 32].map(low_word);
    let bits = if bits & 0x8000_0000 == 0 {
        !bits
    } else {
        bits & 0x7fff_ffff
    };
    Some((!token, f32::from_bits(bits)))
}

/// The lower half of a key.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the other half is another word"
)]
const fn low_word(key: u64) -> u32 {
    key as u32
}
