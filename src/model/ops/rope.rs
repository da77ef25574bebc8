use candle_core::{CpuStorage, InplaceOp1, Layout, Result};
use ingle_kernels::{RopeTable, Turn};

use super::{first_mut, shape};

/// Turns the first heads of every token by its position: rows of `stride` values.
pub(in crate::model) struct Rope<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) n_heads: usize,
    pub(in crate::model) stride: usize,
    pub(in crate::model) positions: &'a [u32],
    pub(in crate::model) table: &'a RopeTable,
}

impl InplaceOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Self {
            turn,
            n_heads,
            stride,
            positions,
            table,
        } = *self;
        let x = first_mut(x, layout, positions.len() * stride)?;
        ingle_kernels::rope::rope(turn, x, n_heads, stride, positions, table).map_err(shape)
    }
}
