#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use ingle_kernels::attention::paged_attention;
use ingle_kernels::{AttentionArgs, Columns};

use super::{Place, first, first_mut, halves, shape};
#[cfg(feature = "cuda")]
use crate::model::cuda::AttentionPlace;

/// Attention of queries to a layer's cache: rows of `stride` values that begin with `[n_heads, head_dim]`.
pub(in crate::model) struct PagedAttention<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) args: AttentionArgs<'a>,
    pub(in crate::model) stride: usize,
    /// On a GPU: how the step's attention is cut, and room for its parts.
    #[cfg(feature = "cuda")]
    pub(in crate::model) on_gpu: Option<AttentionPlace<'a>>,
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
        paged_attention(self.place.turn()?, args, q, k_cache, v_cache, out).map_err(shape)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        q: &CudaStorage,
        q_layout: &Layout,
        cache: &CudaStorage,
        cache_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let on_gpu = self.on_gpu.as_ref();
        let on_gpu = on_gpu.ok_or_else(|| candle_core::Error::msg("attention was not planned"))?;
        let mut partials = on_gpu.partials.borrow_mut();
        let mut buffers = ingle_kernels::cuda::AttentionBuffers {
            q: values(on, q, q_layout)?,
            stride: self.stride,
            cache: values(on, cache, cache_layout)?,
            positions: on_gpu.positions,
            plan: on_gpu.words,
            partials: on.slice_mut(&mut *partials),
            out: values_mut(on, out, out_layout)?,
        };
        let launches = ingle_kernels::cuda::paged_attention(&self.args, on_gpu.plan, &mut buffers)
            .map_err(shape)?;
        launches
            .into_iter()
            .try_for_each(|launch| run(on, Ok(launch)))
    }
}
