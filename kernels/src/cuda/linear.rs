//! Products with matrices as a GGUF file has them, and their rows.

use super::{Arg, DeviceSlice, DeviceSliceMut, Indices, Launch, check_len, dim};
use crate::block::GROUP_LEN;
use crate::quantize::row_words;
use crate::{Output, ShapeError, WeightType};

/// Rows of weights a block multiplies, one a warp.
const BLOCK_WEIGHT_ROWS: usize = 4;
/// Rows of activations it multiplies them with.
const BLOCK_ROWS: usize = 8;
/// Its threads.
const THREADS: u32 = 128;
/// Threads of a block that decodes rows.
const EMBED_THREADS: u32 = 256;

/// A matrix of weights `[n, k]` on the device, its rows as in the file.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMatrix<'a> {
    /// The kind of its weights.
    pub weight_type: WeightType,
    /// Its rows.
    pub n: usize,
    /// Weights in a row.
    pub k: usize,
    /// The rows' bytes, and maybe more behind them.
    pub bytes: DeviceSlice<'a, u8>,
}

impl DeviceMatrix<'_> {
    /// Bytes of a row, of which there are enough.
    fn row_bytes(&self) -> Result<usize, ShapeError> {
        let row_bytes = self.weight_type.row_bytes(self.k);
        let row_bytes = row_bytes.ok_or(ShapeError::Multiple {
            what: "a row of weights",
            got: self.k,
            of: self.weight_type.block_len(),
        })?;
        check_len("the matrix", self.bytes.len, self.n * row_bytes)?;
        Ok(row_bytes)
    }
}

/// Where rows of results go: columns of wider rows.
#[derive(Debug)]
pub struct Into<'a> {
    /// `[m, stride]` and more.
    pub values: DeviceSliceMut<'a, f32>,
    /// Values of a row.
    pub stride: usize,
    /// The first column.
    pub column: usize,
    /// Whether results are added to what is there.
    pub output: Output,
}

impl Into<'_> {
    /// Checks that `m` rows of `n` results fit.
    pub(super) fn check(&self, m: usize, n: usize) -> Result<(), ShapeError> {
        let end = self.column.saturating_add(n);
        ShapeError::check_range("the end of a row's columns", end, self.stride + 1)?;
        check_len("out", self.values.len, m * self.stride)
    }

    /// As the kernels take it.
    pub(super) fn into_args(self) -> Result<[Arg; 4], ShapeError> {
        Ok([
            dim(self.column)?,
            dim(self.stride)?,
            Arg::U32(u32::from(self.output == Output::Add)),
            self.values.into(),
        ])
    }
}

/// Decodes the rows that tokens name.
///
/// Shapes: `out` is `[token_ids.len(), k]` and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or there is no such row.
pub fn embed<'a>(
    table: DeviceMatrix<'a>,
    token_ids: Indices<'a>,
    out: DeviceSliceMut<'a, f32>,
) -> Result<Launch<'a>, ShapeError> {
    let row_bytes = table.row_bytes()?;
    token_ids.check("the token", table.n)?;
    let m = token_ids.host.len();
    check_len("out", out.len, m * table.k)?;
    let args = vec![
        table.bytes.into(),
        dim(row_bytes)?,
        token_ids.device.into(),
        dim(table.k)?,
        out.into(),
    ];
    let grid = [m, table.k.div_ceil(EMBED_THREADS as usize)];
    Launch::new(kernels(table.weight_type).0, grid, EMBED_THREADS, args)
}

/// Multiplies quantised rows by a quantised matrix. A row's result is the same in any batch.
///
/// Shapes: `words` is `[m, row_words(k)]` and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or the matrix takes f32.
pub fn linear_quantized<'a>(
    words: DeviceSlice<'a, u32>,
    matrix: DeviceMatrix<'a>,
    m: usize,
    out: Into<'a>,
) -> Result<Launch<'a>, ShapeError> {
    check_activations(matrix, true)?;
    check_len("the quantised rows", words.len, m * row_words(matrix.k))?;
    multiply(words.into(), matrix, matrix.k / GROUP_LEN, m, out)
}

/// Multiplies rows by a matrix of floats. A row's result is the same in any batch.
///
/// Shapes: `x` is `[m, k]` and more.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or the matrix takes quantised rows.
pub fn linear_f32<'a>(
    x: DeviceSlice<'a, f32>,
    matrix: DeviceMatrix<'a>,
    m: usize,
    out: Into<'a>,
) -> Result<Launch<'a>, ShapeError> {
    check_activations(matrix, false)?;
    check_len("x", x.len, m * matrix.k)?;
    multiply(x.into(), matrix, matrix.k, m, out)
}

fn check_activations(matrix: DeviceMatrix<'_>, quantized: bool) -> Result<(), ShapeError> {
    if matrix.weight_type.takes_quantized() == quantized {
        return Ok(());
    }
    Err(ShapeError::Activations {
        weight_type: matrix.weight_type.name(),
        needed: if quantized { "f32" } else { "quantised" },
    })
}

/// A product whose rows are `len` groups or values long.
fn multiply<'a>(
    x: Arg,
    matrix: DeviceMatrix<'a>,
    len: usize,
    m: usize,
    out: Into<'a>,
) -> Result<Launch<'a>, ShapeError> {
    let row_bytes = matrix.row_bytes()?;
    out.check(m, matrix.n)?;
    let mut args = vec![
        x,
        matrix.bytes.into(),
        dim(row_bytes)?,
        dim(len)?,
        dim(m)?,
        dim(matrix.n)?,
    ];
    args.extend(out.into_args()?);
    let grid = [matrix.n.div_ceil(BLOCK_WEIGHT_ROWS), m.div_ceil(BLOCK_ROWS)];
    Launch::new(kernels(matrix.weight_type).1, grid, THREADS, args)
}

/// The kernels that decode and that multiply weights of a kind.
const fn kernels(weight_type: WeightType) -> (&'static str, &'static str) {
    match weight_type {
        WeightType::F32 => ("embed_f32", "linear_f32"),
        WeightType::F16 => ("embed_f16", "linear_f16"),
        WeightType::BF16 => ("embed_bf16", "linear_bf16"),
        WeightType::Q4_0 => ("embed_q4_0", "linear_q4_0"),
        WeightType::Q4_1 => ("embed_q4_1", "linear_q4_1"),
        WeightType::Q5_0 => ("embed_q5_0", "linear_q5_0"),
        WeightType::Q5_1 => ("embed_q5_1", "linear_q5_1"),
        WeightType::Q8_0 => ("embed_q8_0", "linear_q8_0"),
        WeightType::Q2K => ("embed_q2_k", "linear_q2_k"),
        WeightType::Q3K => ("embed_q3_k", "linear_q3_k"),
        WeightType::Q4K => ("embed_q4_k", "linear_q4_k"),
        WeightType::Q5K => ("embed_q5_k", "linear_q5_k"),
        WeightType::Q6K => ("embed_q6_k", "linear_q6_k"),
    }
}
