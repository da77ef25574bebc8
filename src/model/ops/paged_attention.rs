use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use ingle_kernels::attention::paged_attention;
use ingle_kernels::{AttentionArgs, Columns, Turn};

use super::{first, first_mut, halves, shape};

/// Attention of queries to a layer's cache: rows of `stride` values that begin with `[n_heads, head_dim]`.
pub(in crate::model) struct PagedAttention<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) args: AttentionArgs<'a>,
    pub(in crate::model) stride: usize,
}

impl InplaceOp3 for PagedAttention<'_> {
    fn name(&self) -> &'static str {
        "paged_attention"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        q: &CpuStorage,
        q_layout: &Layout,
        cache: &CpuStorage,
        cache_layout: &Layout,
    ) -> Result<()> {
        let args = &self.args;
        let n_values = args.positions.len() * args.n_heads * args.shape.head_dim;
        let out = first_mut(out, out_layout, n_values)?;
        let q = Columns {
            values: first::<f32>(q, q_layout, args.positions.len() * self.stride)?,
            stride: self.stride,
            first: 0,
        };
        let (k_cache, v_cache) = halves(cache, cache_layout)?;
        paged_attention(self.turn, args, q, k_cache, v_cache, out).map_err(shape)
    }
}
