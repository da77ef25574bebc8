//! A matrix of weights, and whose code multiplies with it.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::{cast_slice, cast_slice_mut};
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use ingle_kernels::{Matrix, ShapeError, WeightType};

/// A matrix `[n, k]`.
#[derive(Clone, Debug)]
pub(super) enum WeightMatrix {
    /// Our kernels.
    Own(Matrix),
    /// The tensor library's, on processors for which there are no vector kernels of ours.
    Candle(CandleMatrix),
}

/// A quantised matrix in the tensor library's hands.
#[derive(Clone, Debug)]
pub(super) struct CandleMatrix {
    weight_type: WeightType,
    n: usize,
    k: usize,
    weights: Arc<QTensor>,
}

impl WeightMatrix {
    /// The number of rows: the length of a result.
    pub(super) fn n(&self) -> usize {
        match self {
            Self::Own(matrix) => matrix.n(),
            Self::Candle(matrix) => matrix.n,
        }
    }

    /// The length of a row: the length of an input.
    pub(super) fn k(&self) -> usize {
        match self {
            Self::Own(matrix) => matrix.k(),
            Self::Candle(matrix) => matrix.k,
        }
    }

    /// Whether it takes quantised activations, as against floats.
    pub(super) fn takes_quantized(&self) -> bool {
        match self {
            Self::Own(matrix) => matrix.takes_quantized(),
            Self::Candle(_) => false,
        }
    }

    /// Decodes one row.
    pub(super) fn dequantize_row(&self, row: usize, out: &mut [f32]) -> candle_core::Result<()> {
        match self {
            Self::Own(matrix) => matrix.dequantize_row(row, out).map_err(wrap),
            Self::Candle(matrix) => matrix.dequantize_row(row, out),
        }
    }
}

impl CandleMatrix {
    /// Takes `n` rows of `k` quantised weights, as GGUF has them; none of floats, which our own kernels
    /// multiply well enough everywhere.
    ///
    /// *Errors*: the tensor library's.
    pub(super) fn new(
        weight_type: WeightType,
        (n, k): (usize, usize),
        rows: &[u8],
    ) -> candle_core::Result<Option<Self>> {
        let Some(dtype) = dtype(weight_type) else {
            return Ok(None);
        };
        // The library casts the bytes to blocks and panics where they are not aligned.
        let mut words = vec![0_u32; rows.len().div_ceil(4)];
        cast_slice_mut(&mut words)[..rows.len()].copy_from_slice(rows);
        let bytes: &[u8] = &cast_slice(&words)[..rows.len()];
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
        Ok(Some(Self {
            weight_type,
            n,
            k,
            weights: Arc::new(QTensor::new(storage, (n, k))?),
        }))
    }

    /// The number of rows.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// The length of a row.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Multiplies rows of activations, `[m, k]`, and returns `[m, n]`.
    pub(super) fn multiply(&self, x: &[f32]) -> candle_core::Result<Vec<f32>> {
        let x = Tensor::from_slice(x, (x.len() / self.k, self.k), &Device::Cpu)?;
        let product = QMatMul::from_arc(Arc::clone(&self.weights))?.forward(&x)?;
        product.flatten_all()?.to_vec1()
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) -> candle_core::Result<()> {
        let data = self.weights.data()?;
        let row_bytes = data.len() / self.n.max(1);
        let bytes = data.get(row * row_bytes..(row + 1) * row_bytes);
        let bytes = bytes.ok_or_else(|| {
            candle_core::Error::msg(format!("a matrix of {} rows has no row {row}", self.n))
        })?;
        self.weight_type.dequantize(bytes, out).map_err(wrap)
    }
}

/// A kernel's complaint as the tensor library's.
fn wrap(error: ShapeError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// The tensor library's name for a quantised type; none for floats.
fn dtype(weight_type: WeightType) -> Option<GgmlDType> {
    match weight_type {
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => None,
        WeightType::Q4_0 => Some(GgmlDType::Q4_0),
        WeightType::Q4_1 => Some(GgmlDType::Q4_1),
        WeightType::Q5_0 => Some(GgmlDType::Q5_0),
        WeightType::Q5_1 => Some(GgmlDType::Q5_1),
        WeightType::Q8_0 => Some(GgmlDType::Q8_0),
        WeightType::Q2K => Some(GgmlDType::Q2K),
        WeightType::Q3K => Some(GgmlDType::Q3K),
        WeightType::Q4K => Some(GgmlDType::Q4K),
        WeightType::Q5K => Some(GgmlDType::Q5K),
        WeightType::Q6K => Some(GgmlDType::Q6K),
    }
}
