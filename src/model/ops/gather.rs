#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Error, InplaceOp2, Layout, Result};
use ingle_kernels::cuda::Indices;

use super::{Place, first, first_mut};

/// Copies chosen rows: `out[i] = x[rows[i]]`, rows of `row_len` values.
pub(in crate::model) struct Gather<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) rows: Indices<'a>,
    pub(in crate::model) row_len: usize,
    /// Rows that `x` has.
    pub(in crate::model) n_rows: usize,
}

impl InplaceOp2 for Gather<'_> {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        // Copies are too short to share out.
        self.place.turn()?;
        let rows = self.rows.host;
        let x = first::<f32>(x, x_layout, self.n_rows * self.row_len)?;
        let out = first_mut(out, out_layout, rows.len() * self.row_len)?;
        for (out, row) in out.chunks_exact_mut(self.row_len).zip(rows) {
            let start = *row as usize * self.row_len;
            let row = x
                .get(start..start + self.row_len)
                .ok_or_else(|| Error::msg(format!("row {row} of {}", self.n_rows)))?;
            out.copy_from_slice(row);
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let x = values(on, x, x_layout)?.part(0..self.n_rows * self.row_len);
        let out = values_mut(on, out, out_layout)?;
        run(
            on,
            ingle_kernels::cuda::gather(x, self.rows, self.row_len, out),
        )
    }
}
