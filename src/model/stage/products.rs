//! What a stage multiplies, by whose code, and the forms its rows take for that.

use candle_core::{InplaceOp2, Tensor};
use ingle_kernels::{Output, Part};

use super::{Rows, Stage, Step};
use crate::model::error::Error;
#[cfg(feature = "cuda")]
use crate::model::ops::DeviceLinear;
use crate::model::ops::{ByLibrary, Linear, PutColumns, Quantize, run_on};
use crate::model::weight_matrix::{LibraryMatrix, WeightMatrix};

impl Stage {
    /// Computes rows from `x` into the words, into `floats`, or into both, as the matrices take them.
    pub(super) fn make(
        &self,
        rows: Rows<'_>,
        op: &(impl InplaceOp2 + ByLibrary),
        x: &Tensor,
        floats: &Tensor,
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        let takes_quantized = |matrix: &&WeightMatrix| matrix.takes_quantized();
        let as_it_makes = rows.place.quantizes_as_it_makes();
        if as_it_makes && matrices.iter().any(takes_quantized) {
            run_on(&self.workspace.words, x, op)?;
        }
        if !(as_it_makes && matrices.iter().all(takes_quantized)) {
            run_on(floats, x, op)?;
        }
        if as_it_makes {
            return Ok(());
        }
        self.quantize(rows, floats, matrices)
    }

    /// Quantises `x` if one of the matrices takes it so.
    pub(super) fn quantize(
        &self,
        Rows { place, n_tokens }: Rows<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
    ) -> Result<(), Error> {
        if let Some(matrix) = matrices.iter().find(|matrix| matrix.takes_quantized()) {
            let k = matrix.k();
            let quantize = Quantize { place, n_tokens, k };
            self.workspace.words.inplace_op2(x, &quantize)?;
        }
        Ok(())
    }

    /// Multiplies by matrices whose results stand side by side.
    pub(super) fn project(
        &self,
        step: &Step<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
        out: &Tensor,
    ) -> Result<(), Error> {
        self.multiply(step.rows(), x, matrices, out, Output::Write)
    }

    /// Adds a product to the residual stream.
    pub(super) fn add(
        &self,
        step: &Step<'_>,
        x: &Tensor,
        matrix: &WeightMatrix,
    ) -> Result<(), Error> {
        let state = &self.workspace.state;
        self.multiply(step.rows(), x, &[matrix], state, Output::Add)
    }

    /// Multiplies `x`, or the words made from it, by each matrix.
    pub(super) fn multiply(
        &self,
        rows: Rows<'_>,
        x: &Tensor,
        matrices: &[&WeightMatrix],
        out: &Tensor,
        output: Output,
    ) -> Result<(), Error> {
        let stride = matrices.iter().map(|matrix| matrix.n()).sum();
        let mut column = 0;
        let mut parts = [Vec::new(), Vec::new()];
        for &matrix in matrices {
            match matrix {
                WeightMatrix::Own(matrix) => {
                    let takes_quantized = usize::from(matrix.takes_quantized());
                    parts[takes_quantized].push(Part { matrix, column });
                }
                WeightMatrix::Library(matrix) => {
                    let put = PutColumns {
                        place: rows.place,
                        n: matrix.n(),
                        column,
                        stride,
                        n_tokens: rows.n_tokens,
                        output,
                    };
                    let x = if matrix.takes_quantized() {
                        &self.workspace.words
                    } else {
                        x
                    };
                    multiply_with_library(matrix, x, out, &put)?;
                }
            }
            column += matrix.n();
        }
        for (parts, x) in parts.iter().zip([x, &self.workspace.words]) {
            if !parts.is_empty() {
                let linear = Linear {
                    place: rows.place,
                    parts,
                    stride,
                    n_tokens: rows.n_tokens,
                    output,
                };
                out.inplace_op2(x, &linear)?;
            }
        }
        Ok(())
    }
}

/// Multiplies by a matrix in the tensor library's hands: by its product, or by our kernel there.
fn multiply_with_library(
    matrix: &LibraryMatrix,
    x: &Tensor,
    out: &Tensor,
    put: &PutColumns<'_>,
) -> Result<(), Error> {
    #[cfg(feature = "cuda")]
    if matrix.by_our_kernel() {
        let linear = DeviceLinear {
            place: put.place,
            matrix,
            column: put.column,
            stride: put.stride,
            n_tokens: put.n_tokens,
            output: put.output,
        };
        return Ok(out.inplace_op2(x, &linear)?);
    }
    let product = matrix.multiply(x, put.n_tokens)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        crate::model::cuda::check_library()?;
    }
    Ok(run_on(out, &product, put)?)
}
