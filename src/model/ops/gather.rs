use candle_core::{CpuStorage, Error, InplaceOp2, Layout, Result};

use super::{first, first_mut};

/// Copies chosen rows: `out[i] = x[rows[i]]`, rows of `row_len` values.
pub(in crate::model) struct Gather<'a> {
    pub(in crate::model) rows: &'a [u32],
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
        let x = first::<f32>(x, x_layout, self.n_rows * self.row_len)?;
        let out = first_mut(out, out_layout, self.rows.len() * self.row_len)?;
        for (out, row) in out.chunks_exact_mut(self.row_len).zip(self.rows) {
            let start = *row as usize * self.row_len;
            let row = x
                .get(start..start + self.row_len)
                .ok_or_else(|| Error::msg(format!("row {row} of {}", self.n_rows)))?;
            out.copy_from_slice(row);
        }
        Ok(())
    }
}
