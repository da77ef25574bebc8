use candle_core::{CpuStorage, CudaStorage, Error, InplaceOp2, Layout, Result};
use ingle_kernels::Output;
use ingle_kernels::cuda::{Into, linear_f32, linear_quantized};

use super::Place;
use super::on_cuda::{run, values, values_mut};
use crate::model::weight_matrix::LibraryMatrix;

/// The same as [`Linear`](super::Linear) on a GPU, by our kernel: `out`'s columns from `column` on become
/// `x · Wᵀ`, or have it added. A row's result is the same in any batch.
///
/// `x` is quantised words or floats, whichever the matrix takes; `out` is `[n_tokens, stride]`.
pub(in crate::model) struct DeviceLinear<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) matrix: &'a LibraryMatrix,
    pub(in crate::model) column: usize,
    pub(in crate::model) stride: usize,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) output: Output,
}

impl InplaceOp2 for DeviceLinear<'_> {
    fn name(&self) -> &'static str {
        "device_linear"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        Err(Error::msg("this matrix lies on a GPU"))
    }

    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let on = self.place.launcher()?;
        let matrix = self.matrix.on_device()?;
        let out = Into {
            values: values_mut(on, out, out_layout)?,
            stride: self.stride,
            column: self.column,
            output: self.output,
        };
        let launch = if self.matrix.takes_quantized() {
            linear_quantized(values(on, x, x_layout)?, matrix, self.n_tokens, out)
        } else {
            linear_f32(values(on, x, x_layout)?, matrix, self.n_tokens, out)
        };
        run(on, launch)
    }
}
