//! Metal, as thin as it can be: the tensor library's own operations compute. Compiled and checked for
//! Apple's processors, but not yet run on one.

use super::device::Device;
use super::error::Error;

/// A Metal GPU.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    device: candle_core::Device,
}

impl Driver {
    /// Whether kernels of ours can multiply on it.
    pub(super) const HAS_OUR_PRODUCTS: bool = false;
    /// What it goes by.
    pub(super) const BACKEND: &'static str = "metal";
    /// Its memory is the host's.
    pub(super) const IS_UNIFIED: bool = true;

    /// Opens GPU `ordinal`.
    pub(super) fn of(ordinal: usize) -> Result<Self, Error> {
        // The library takes the number out of the list of devices, and panics past its end.
        let opened = std::panic::catch_unwind(|| candle_core::Device::new_metal(ordinal));
        let what = |reason: &dyn std::fmt::Display| Error::Gpu {
            what: format!("GPU {ordinal} cannot be used: {reason}"),
        };
        let device = opened.map_err(|_| what(&"Metal has no such device"))?;
        Ok(Self {
            device: device.map_err(|error| what(&error))?,
        })
    }

    /// What it is called.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as every driver has it"
    )]
    pub(super) fn name(&self) -> Result<String, Error> {
        Ok("Metal".to_owned())
    }

    /// Its memory, which is counted as the host's. Units: bytes.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as every driver has it"
    )]
    pub(super) fn memory(&self) -> Result<(u64, u64), Error> {
        Ok((0, 0))
    }

    /// Opens it for one model.
    #[expect(clippy::unnecessary_wraps, reason = "as every driver has it")]
    pub(super) fn open(&self) -> Result<Device, Error> {
        Ok(Device::Library(self.device.clone()))
    }
}
