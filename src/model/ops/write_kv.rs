use candle_core::{CpuStorage, InplaceOp3, Layout, Result};
use ingle_kernels::attention::{KvPart, write_kv};
use ingle_kernels::{KvShape, Turn};

use super::{first, halves_mut, shape};

/// Writes the keys and values of new tokens into their slots of a layer's cache.
pub(in crate::model) struct WriteKv<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) shape: KvShape,
    pub(in crate::model) slot_mapping: &'a [u32],
}

impl InplaceOp3 for WriteKv<'_> {
    fn name(&self) -> &'static str {
        "write_kv"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<()> {
        let KvShape {
            n_kv_heads,
            head_dim,
            ..
        } = self.shape;
        let n_values = self.slot_mapping.len() * n_kv_heads * head_dim;
        let k = first::<f32>(k, k_layout, n_values)?;
        let v = first::<f32>(v, v_layout, n_values)?;
        let (k_cache, v_cache) = halves_mut(cache, cache_layout)?;
        for (part, rows, cache) in [(KvPart::Keys, k, k_cache), (KvPart::Values, v, v_cache)] {
            write_kv(self.turn, self.shape, part, rows, self.slot_mapping, cache).map_err(shape)?;
        }
        Ok(())
    }
}
