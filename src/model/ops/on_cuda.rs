//! What the CUDA sides of the operations share.

use candle_core::cuda_backend::CudaDType;
use candle_core::{CudaStorage, Layout, Result};
use ingle_kernels::ShapeError;
use ingle_kernels::cuda::{DeviceSlice, DeviceSliceMut, Launch, Launcher};

use crate::model::cuda::wrap;

/// A buffer's values, from where its layout begins.
pub(super) fn values<'a, T: CudaDType>(
    on: &Launcher,
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<DeviceSlice<'a, T>> {
    let slice = on.slice(storage.as_cuda_slice::<T>()?);
    Ok(slice.part(layout.start_offset()..slice.len()))
}

/// The same to write.
pub(super) fn values_mut<'a, T: CudaDType>(
    on: &Launcher,
    storage: &'a mut CudaStorage,
    layout: &Layout,
) -> Result<DeviceSliceMut<'a, T>> {
    let slice = on.slice_mut(storage.as_cuda_slice_mut::<T>()?);
    Ok(slice.from(layout.start_offset()))
}

/// Runs a launch whose shapes fit.
pub(super) fn run(
    on: &Launcher,
    launch: std::result::Result<Launch<'_>, ShapeError>,
) -> Result<()> {
    let launch = launch.map_err(super::shape)?;
    on.run(&launch).map_err(wrap)
}
