//! Floats that operations read beside their buffers: on the host, and on a GPU where one reads them.

use super::device::Device;

/// A tensor of one dimension.
#[derive(Debug)]
pub(super) struct Vector {
    host: Vec<f32>,
    #[cfg(feature = "cuda")]
    device: Option<candle_core::cuda_backend::cudarc::driver::CudaSlice<f32>>,
}

impl Vector {
    /// Copies the values to `device`, if that is a GPU with kernels of ours.
    ///
    /// Errors: it has no memory for them.
    #[cfg(feature = "cuda")]
    pub(super) fn new(host: Vec<f32>, device: &Device) -> candle_core::Result<Self> {
        let device = match device {
            Device::Cpu | Device::Library(_) => None,
            Device::Cuda(gpu) => Some(gpu.candle().clone_htod(&host)?),
        };
        Ok(Self { host, device })
    }

    /// Keeps the values on the host.
    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unnecessary_wraps, reason = "a GPU may have no memory")]
    pub(super) fn new(host: Vec<f32>, _: &Device) -> candle_core::Result<Self> {
        Ok(Self { host })
    }

    /// The values here.
    pub(super) fn host(&self) -> &[f32] {
        &self.host
    }

    /// The values on the GPU of `on`.
    #[cfg(feature = "cuda")]
    pub(super) fn device(
        &self,
        on: &ingle_kernels::cuda::Launcher,
    ) -> candle_core::Result<ingle_kernels::cuda::DeviceSlice<'_, f32>> {
        let values = self.device.as_ref();
        let values =
            values.ok_or_else(|| candle_core::Error::msg("values lie on the host only"))?;
        Ok(on.slice(values))
    }
}
