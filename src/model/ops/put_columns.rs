#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::Output;

use super::{Place, first, first_mut};

/// Puts a product of the tensor library, `[n_tokens, n]`, into `out`'s columns from `column` on, or adds
/// it; `out` is `[n_tokens, stride]`.
pub(in crate::model) struct PutColumns<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) n: usize,
    pub(in crate::model) column: usize,
    pub(in crate::model) stride: usize,
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) output: Output,
}

impl InplaceOp2 for PutColumns<'_> {
    fn name(&self) -> &'static str {
        "put_columns"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        product: &CpuStorage,
        product_layout: &Layout,
    ) -> Result<()> {
        // What the library computed is hot in the cache of the thread it ended on: this one.
        self.place.turn()?;
        let product = first::<f32>(product, product_layout, self.n_tokens * self.n)?;
        let out = first_mut(out, out_layout, self.n_tokens * self.stride)?;
        let rows = out.chunks_exact_mut(self.stride);
        for (out, values) in rows.zip(product.chunks_exact(self.n)) {
            for (out, value) in out[self.column..].iter_mut().zip(values) {
                match self.output {
                    Output::Write => *out = *value,
                    Output::Add => *out += *value,
                }
            }
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        product: &CudaStorage,
        product_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let product = values(on, product, product_layout)?;
        let out = ingle_kernels::cuda::Into {
            values: values_mut(on, out, out_layout)?,
            stride: self.stride,
            column: self.column,
            output: self.output,
        };
        run(
            on,
            ingle_kernels::cuda::place(product, self.n_tokens, self.n, out),
        )
    }
}
