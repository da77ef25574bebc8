#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result};
use ingle_kernels::RopeTable;
use ingle_kernels::cuda::Indices;

use super::{Place, first_mut, shape};
#[cfg(feature = "cuda")]
use crate::model::vector::Vector;

/// Turns the first heads of every token by its position: rows of `stride` values.
pub(in crate::model) struct Rope<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) n_heads: usize,
    pub(in crate::model) head_dim: usize,
    pub(in crate::model) stride: usize,
    pub(in crate::model) positions: Indices<'a>,
    pub(in crate::model) table: &'a RopeTable,
    /// The table's values on the GPU.
    #[cfg(feature = "cuda")]
    pub(in crate::model) turns: &'a Vector,
}

impl InplaceOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (turn, positions) = (self.place.turn()?, self.positions.host);
        let x = first_mut(x, layout, positions.len() * self.stride)?;
        ingle_kernels::rope::rope(turn, x, self.n_heads, self.stride, positions, self.table)
            .map_err(shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
        use super::on_cuda::{run, values_mut};
        let on = self.place.launcher()?;
        let x = values_mut(on, x, layout)?;
        let shape = [self.n_heads, self.head_dim, self.stride];
        let (turns, rope_dim) = (self.turns.device(on)?, self.table.rope_dim());
        run(
            on,
            ingle_kernels::cuda::rope(x, shape, self.positions, turns, rope_dim),
        )
    }
}
