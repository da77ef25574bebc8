#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::attention::{KvPart, write_kv};
use ingle_kernels::cuda::Indices;
use ingle_kernels::{Columns, KvShape};

use super::{Place, first, halves_mut, shape};

/// Writes the keys and values of new tokens into their slots of a layer's cache: rows of `stride`
/// values, of which the keys begin at `first_key` and the values follow.
pub(in crate::model) struct WriteKv<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) shape: KvShape,
    pub(in crate::model) stride: usize,
    pub(in crate::model) first_key: usize,
    pub(in crate::model) slot_mapping: Indices<'a>,
}

impl InplaceOp2 for WriteKv<'_> {
    fn name(&self) -> &'static str {
        "write_kv"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        let Self {
            place,
            shape: kv_shape,
            stride,
            first_key,
            slot_mapping,
        } = *self;
        let slots = slot_mapping.host;
        let values = first::<f32>(rows, rows_layout, slots.len() * stride)?;
        let first_value = first_key + kv_shape.n_kv_heads * kv_shape.head_dim;
        let (k_cache, v_cache) = halves_mut(cache, cache_layout)?;
        for (part, first, cache) in [
            (KvPart::Keys, first_key, k_cache),
            (KvPart::Values, first_value, v_cache),
        ] {
            let src = Columns {
                values,
                stride,
                first,
            };
            write_kv(place.turn()?, kv_shape, part, src, slots, cache).map_err(shape)?;
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        cache: &mut CudaStorage,
        cache_layout: &Layout,
        rows: &CudaStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        use super::on_cuda::{run, values, values_mut};
        let on = self.place.launcher()?;
        let rows = values(on, rows, rows_layout)?;
        let cache = values_mut(on, cache, cache_layout)?;
        let places = [self.stride, self.first_key];
        run(
            on,
            ingle_kernels::cuda::write_kv(self.shape, rows, places, self.slot_mapping, cache),
        )
    }
}
