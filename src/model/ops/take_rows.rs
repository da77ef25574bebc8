#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result};

use super::{Place, first_mut};

/// Takes in what an earlier stage computed on the processor.
pub(in crate::model) struct TakeRows<'a> {
    pub(in crate::model) place: Place<'a>,
    pub(in crate::model) values: &'a [f32],
}

impl InplaceOp1 for TakeRows<'_> {
    fn name(&self) -> &'static str {
        "take_rows"
    }

    fn cpu_fwd(&self, out: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.place.turn()?;
        first_mut(out, layout, self.values.len())?.copy_from_slice(self.values);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let device = out.device.clone();
        let out = out.as_cuda_slice_mut::<f32>()?;
        let start = layout.start_offset();
        let mut rows = out.slice_mut(start..start + self.values.len());
        device.memcpy_htod(self.values, &mut rows)
    }
}
