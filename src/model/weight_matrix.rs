//! A matrix of weights, and whose code multiplies with it.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::{cast_slice, cast_slice_mut};
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Module, Tensor};
#[cfg(feature = "cuda")]
use ingle_kernels::cuda::{DeviceMatrix, DeviceSlice};
use ingle_kernels::{Matrix, ShapeError, WeightType};

/// A matrix `[n, k]`.
#[derive(Clone, Debug)]
pub(super) enum WeightMatrix {
    /// Our kernels.
    Own(Matrix),
    /// The tensor library's: on a GPU, and on processors for which there are no vector kernels of ours.
    Library(LibraryMatrix),
}

/// A matrix in the tensor library's hands, its rows as in the file.
#[derive(Clone, Debug)]
pub(super) struct LibraryMatrix {
    weight_type: WeightType,
    n: usize,
    k: usize,
    weights: Arc<QTensor>,
    /// Whether a kernel of ours multiplies with it there.
    by_our_kernel: bool,
    /// Floats as the library multiplies with them, where it does: it would make them anew each time.
    floats: Option<QMatMul>,
}

impl WeightMatrix {
    /// The number of rows: the length of a result.
    pub(super) fn n(&self) -> usize {
        match self {
            Self::Own(matrix) => matrix.n(),
            Self::Library(matrix) => matrix.n,
        }
    }

    /// The length of a row: the length of an input.
    pub(super) fn k(&self) -> usize {
        match self {
            Self::Own(matrix) => matrix.k(),
            Self::Library(matrix) => matrix.k,
        }
    }

    /// Whether it takes quantised activations, as against floats.
    pub(super) fn takes_quantized(&self) -> bool {
        match self {
            Self::Own(matrix) => matrix.takes_quantized(),
            Self::Library(matrix) => matrix.takes_quantized(),
        }
    }

    /// Rows by the tensor library: `[ids.len(), k]`.
    pub(super) fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Own(_) => Err(candle_core::Error::msg("the library has no packed matrix")),
            Self::Library(matrix) => matrix.weights.embedding(ids),
        }
    }

    /// As our kernels on a GPU take it.
    #[cfg(feature = "cuda")]
    pub(super) fn on_device(&self) -> candle_core::Result<DeviceMatrix<'_>> {
        match self {
            Self::Own(_) => Err(candle_core::Error::msg("a packed matrix lies on no GPU")),
            Self::Library(matrix) => matrix.on_device(),
        }
    }

    /// Decodes one row.
    pub(super) fn dequantize_row(&self, row: usize, out: &mut [f32]) -> candle_core::Result<()> {
        match self {
            Self::Own(matrix) => matrix.dequantize_row(row, out).map_err(wrap),
            Self::Library(matrix) => matrix.dequantize_row(row, out),
        }
    }
}

impl LibraryMatrix {
    /// Takes `n` rows of `k` weights, as GGUF has them, to `device`. On a GPU our kernel multiplies with
    /// floats, and with the others if `is_deterministic`.
    ///
    /// *Errors*: the tensor library's.
    pub(super) fn new(
        weight_type: WeightType,
        (n, k): (usize, usize),
        rows: &[u8],
        device: &candle_core::Device,
        is_deterministic: bool,
    ) -> candle_core::Result<Self> {
        // The library casts the bytes to blocks and panics where they are not aligned.
        let mut words = Vec::new();
        let mut bytes = rows;
        if !rows.as_ptr().addr().is_multiple_of(4) {
            words.resize(rows.len().div_ceil(4), 0_u32);
            cast_slice_mut(&mut words)[..rows.len()].copy_from_slice(rows);
            bytes = &cast_slice(&words)[..rows.len()];
        }
        let storage = QStorage::from_data(Cow::Borrowed(bytes), device, dtype(weight_type))?;
        let weights = Arc::new(QTensor::new(storage, (n, k))?);
        let is_float = !weight_type.takes_quantized();
        let by_our_kernel = device.is_cuda() && (is_float || is_deterministic);
        Ok(Self {
            weight_type,
            n,
            k,
            floats: (is_float && !by_our_kernel)
                .then(|| QMatMul::from_arc(Arc::clone(&weights)))
                .transpose()?,
            weights,
            by_our_kernel,
        })
    }

    /// The number of rows.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Whether a kernel of ours multiplies with it, as against [`Self::multiply`].
    #[cfg(feature = "cuda")]
    pub(super) fn by_our_kernel(&self) -> bool {
        self.by_our_kernel
    }

    /// Whether it takes quantised activations, as against floats.
    pub(super) fn takes_quantized(&self) -> bool {
        self.by_our_kernel && self.weight_type.takes_quantized()
    }

    /// Multiplies the first `m` rows of a buffer, `[m, k]` and more, and returns `[m, n]`.
    pub(super) fn multiply(&self, x: &Tensor, m: usize) -> candle_core::Result<Tensor> {
        let x = x.narrow(0, 0, m * self.k)?.reshape((m, self.k))?;
        match &self.floats {
            Some(floats) => floats.forward(&x),
            None => QMatMul::from_arc(Arc::clone(&self.weights))?.forward(&x),
        }
    }

    /// As our kernels take it.
    #[cfg(feature = "cuda")]
    #[expect(unsafe_code, reason = "the library gives the address only")]
    pub(super) fn on_device(&self) -> candle_core::Result<DeviceMatrix<'_>> {
        let address = self.weights.device_ptr()? as u64;
        let len = self.weights.storage_size_in_bytes();
        Ok(DeviceMatrix {
            weight_type: self.weight_type,
            n: self.n,
            k: self.k,
            // SAFETY: the library's buffer, which is borrowed with the matrix, on the stream of its
            // model, and never written.
            bytes: unsafe { DeviceSlice::new(address, len) },
        })
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

/// The tensor library's name for a type.
fn dtype(weight_type: WeightType) -> GgmlDType {
    match weight_type {
        WeightType::F32 => GgmlDType::F32,
        WeightType::F16 => GgmlDType::F16,
        WeightType::BF16 => GgmlDType::BF16,
        WeightType::Q4_0 => GgmlDType::Q4_0,
        WeightType::Q4_1 => GgmlDType::Q4_1,
        WeightType::Q5_0 => GgmlDType::Q5_0,
        WeightType::Q5_1 => GgmlDType::Q5_1,
        WeightType::Q8_0 => GgmlDType::Q8_0,
        WeightType::Q2K => GgmlDType::Q2K,
        WeightType::Q3K => GgmlDType::Q3K,
        WeightType::Q4K => GgmlDType::Q4K,
        WeightType::Q5K => GgmlDType::Q5K,
        WeightType::Q6K => GgmlDType::Q6K,
    }
}
