use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use ingle_kernels::attention::{KvPart, write_kv};
use ingle_kernels::{Columns, KvShape, Turn};

use super::{first, halves_mut, shape};

/// Writes the keys and values of new tokens into their slots of a layer's cache: rows of `stride`
/// values, of which the keys begin at `first_key` and the values follow.
pub(in crate::model) struct WriteKv<'a> {
    pub(in crate::model) turn: &'a Turn<'a>,
    pub(in crate::model) shape: KvShape,
    pub(in crate::model) stride: usize,
    pub(in crate::model) first_key: usize,
    pub(in crate::model) slot_mapping: &'a [u32],
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
            turn,
            shape: kv_shape,
            stride,
            first_key,
            slot_mapping,
        } = *self;
        let values = first::<f32>(rows, rows_layout, slot_mapping.len() * stride)?;
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
            write_kv(turn, kv_shape, part, src, slot_mapping, cache).map_err(shape)?;
        }
        Ok(())
    }
}
