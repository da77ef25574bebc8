//! What is done row by row: norms, positions, activations, copies.

use super::{Arg, DeviceSlice, DeviceSliceMut, Indices, Launch, check_len, dim};
use crate::ShapeError;
use crate::block::GROUP_LEN;
use crate::quantize::row_words;

/// Threads of a block.
const THREADS: u32 = 256;

/// A grid of a thread a value: `m` rows of `n`.
fn by_value(m: usize, n: usize) -> [usize; 2] {
    [m, n.div_ceil(THREADS as usize)]
}

/// Normalises rows: see [`crate::norm::rms_norm`].
///
/// Shapes: `weight` is `[n]`; `x` and `out` are `[m, n]` and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short.
pub fn rms_norm<'a>(
    x: DeviceSlice<'a, f32>,
    weight: DeviceSlice<'a, f32>,
    eps: f32,
    m: usize,
    out: DeviceSliceMut<'a, f32>,
) -> Result<Launch<'a>, ShapeError> {
    let n = weight.len;
    ShapeError::check_multiple("the length of a row", n, 1)?;
    check_len("x", x.len, m * n)?;
    check_len("out", out.len, m * n)?;
    let args = vec![x.into(), weight.into(), Arg::F32(eps), dim(n)?, out.into()];
    Launch::new("rms_norm", [m, 1], THREADS, args)
}

/// Quantises rows of `k` values: see [`crate::quantize::quantize_rows`]; with the same bits.
///
/// Shapes: `x` is `[m, k]`, `out` is `[m, row_words(k)]`, and more.
///
/// # Errors
/// [`ShapeError`] when `k` is not a multiple of 32 or a buffer is too short.
pub fn quantize_rows<'a>(
    x: DeviceSlice<'a, f32>,
    m: usize,
    k: usize,
    out: DeviceSliceMut<'a, u32>,
) -> Result<Launch<'a>, ShapeError> {
    ShapeError::check_multiple("k", k, GROUP_LEN)?;
    check_len("x", x.len, m * k)?;
    check_len("the quantised rows", out.len, m * row_words(k))?;
    let n_groups = m * k / GROUP_LEN;
    let groups_in_block = THREADS as usize / GROUP_LEN;
    let args = vec![x.into(), dim(n_groups)?, out.into()];
    let grid = [n_groups.div_ceil(groups_in_block), 1];
    Launch::new("quantize", grid, THREADS, args)
}

/// Turns the first heads of every token by its position: see [`crate::rope::rope`]; with the same bits.
///
/// Shapes: `x` is `[m, stride]` and more, a row beginning with `[n_heads, head_dim]`; `turns` is
/// `[n_positions, rope_dim / 2, 2]`.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or a position is past the table.
pub fn rope<'a>(
    x: DeviceSliceMut<'a, f32>,
    [n_heads, head_dim, stride]: [usize; 3],
    positions: Indices<'a>,
    turns: DeviceSlice<'a, f32>,
    rope_dim: usize,
) -> Result<Launch<'a>, ShapeError> {
    let m = positions.host.len();
    ShapeError::check_multiple("the number of rotated dimensions", rope_dim, 2)?;
    ShapeError::check_range("the number of rotated dimensions", rope_dim, head_dim + 1)?;
    ShapeError::check_range("the end of a row's heads", n_heads * head_dim, stride + 1)?;
    check_len("x", x.len, m * stride)?;
    positions.check("the position", turns.len / rope_dim)?;
    let args = vec![
        x.into(),
        positions.device.into(),
        turns.into(),
        dim(n_heads)?,
        dim(head_dim)?,
        dim(rope_dim)?,
        dim(stride)?,
    ];
    let grid = by_value(m, n_heads * rope_dim / 2);
    Launch::new("rope", grid, THREADS, args)
}

/// Computes `silu(gate) * up`: see [`crate::activation::silu_mul`].
///
/// Shapes: `gate_up` is `[m, 2, n]`, `out` is `[m, n]`, and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short.
pub fn silu_mul<'a>(
    gate_up: DeviceSlice<'a, f32>,
    m: usize,
    n: usize,
    out: DeviceSliceMut<'a, f32>,
) -> Result<Launch<'a>, ShapeError> {
    check_len("gate and up", gate_up.len, m * 2 * n)?;
    check_len("out", out.len, m * n)?;
    let args = vec![gate_up.into(), dim(n)?, out.into()];
    Launch::new("silu_mul", by_value(m, n), THREADS, args)
}

/// Copies chosen rows of `n` values: `out[i] = x[rows[i]]`.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or a row is past the end.
pub fn gather<'a>(
    x: DeviceSlice<'a, f32>,
    rows: Indices<'a>,
    n: usize,
    out: DeviceSliceMut<'a, f32>,
) -> Result<Launch<'a>, ShapeError> {
    ShapeError::check_multiple("the length of a row", n, 1)?;
    rows.check("the row", x.len / n)?;
    check_len("out", out.len, rows.host.len() * n)?;
    let args = vec![x.into(), rows.device.into(), dim(n)?, out.into()];
    Launch::new("gather", by_value(rows.host.len(), n), THREADS, args)
}

/// Puts a product's rows of `n` values into the columns of `out`, or adds them.
///
/// Shapes: `product` is `[m, n]` and more; `out` is `[m, stride]` and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or the columns do not fit a row.
pub fn place<'a>(
    product: DeviceSlice<'a, f32>,
    m: usize,
    n: usize,
    out: super::Into<'a>,
) -> Result<Launch<'a>, ShapeError> {
    check_len("the product", product.len, m * n)?;
    out.check(m, n)?;
    let mut args = vec![product.into(), dim(n)?];
    args.extend(out.into_args()?);
    Launch::new("place", by_value(m, n), THREADS, args)
}
