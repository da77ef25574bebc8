//! Where a network, or the later part of it, lies and computes.

#[cfg(feature = "cuda")]
use std::sync::Arc;

#[cfg(feature = "cuda")]
use super::cuda::{Cuda, Driver};
use super::error::Error;
#[cfg(all(feature = "metal", not(feature = "cuda")))]
use super::metal::Driver;
#[cfg(not(any(feature = "cuda", feature = "metal")))]
use super::no_gpu::Driver;

/// A GPU that networks can lie on.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number among those the driver shows, from 0.
    pub ordinal: usize,
    /// What the driver calls it.
    pub name: String,
    /// All of its memory. Units: bytes.
    pub total_bytes: u64,
    driver: Driver,
}

impl Gpu {
    /// Asks the driver for GPU `ordinal`.
    ///
    /// # Errors
    /// [`Error::Gpu`]: there is no driver, no such GPU, or this program was built without them.
    pub fn find(ordinal: usize) -> Result<Self, Error> {
        let driver = Driver::of(ordinal)?;
        Ok(Self {
            ordinal,
            name: driver.name()?,
            total_bytes: driver.memory()?.1,
            driver,
        })
    }

    /// Whether its memory is the host's, and counted there.
    pub const fn is_unified(&self) -> bool {
        Driver::IS_UNIFIED
    }

    /// What stands behind it, as `system_fingerprint` says it: `cuda` or `metal`.
    pub const fn backend(&self) -> &'static str {
        Driver::BACKEND
    }

    /// Whether it has products of ours, whose rows are the same in any batch.
    pub const fn can_be_deterministic(&self) -> bool {
        Driver::HAS_OUR_PRODUCTS
    }

    /// Memory of it that is free. Units: bytes.
    ///
    /// # Errors
    /// [`Error::Gpu`]: it was lost.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        Ok(self.driver.memory()?.0)
    }

    /// Opens it for one model, with a stream of its own.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::GpuMemory`], [`Error::Compute`]: the driver's.
    pub fn open(&self) -> Result<Device, Error> {
        self.driver.open()
    }
}

/// The processor, or a GPU.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// The processor, whose memory is the host's.
    #[default]
    Cpu,
    /// A CUDA GPU: a stream of its own.
    #[cfg(feature = "cuda")]
    Cuda(Arc<Cuda>),
    /// A device for which there are no kernels of ours, where the tensor library's own operations serve:
    /// Metal; in tests, the processor.
    Library(candle_core::Device),
}

impl Device {
    /// Whether it is the processor.
    pub fn is_cpu(&self) -> bool {
        match self {
            Self::Cpu => true,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => false,
            Self::Library(_) => false,
        }
    }

    /// The processor by the tensor library's operations alone, as other devices compute.
    pub fn library_on_cpu() -> Self {
        Self::Library(candle_core::Device::Cpu)
    }

    /// The tensor library's name for it.
    pub(super) fn candle(&self) -> candle_core::Device {
        match self {
            Self::Cpu => candle_core::Device::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => candle_core::Device::Cuda(gpu.candle().clone()),
            Self::Library(device) => device.clone(),
        }
    }
}

/// Which layers of a network lie where, and what becomes of their weights.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// What becomes of the file's matrices in memory.
    pub form: Form,
    /// Where the last layers lie.
    pub device: Device,
    /// How many: with all of them the embedding lies there too, with any the output.
    pub n_device_layers: usize,
    /// Multiply so that a row's result is the same in any batch there too; elsewhere it always is.
    pub is_deterministic: bool,
    /// When the cache's pages come from the system, on the processor.
    pub cache_pages: CachePages,
}

/// When memory for keys and values comes from the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePages {
    /// As they are written: an idle cache takes address space only.
    #[default]
    AsWritten,
    /// At once, so that a machine that is too full shows it at the load and not in the middle of an answer.
    AtOnce,
}

/// What becomes of a file's matrices in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// They stay of the file's type.
    #[default]
    AsInFile,
    /// They stay so, and the quantised ones are the tensor library's to multiply with, as they are on
    /// processors for which Ingle has no vector kernels: with more memory, and with bits that may depend
    /// on the batch.
    ForCandle,
    /// Every weight becomes a float, so that activations are not rounded to eight bits either: what the
    /// file's network computes without the engine's own rounding (but that of keys and values to f16).
    /// Four bytes a weight: see [`Memory::estimate_decoded`](super::Memory::estimate_decoded).
    Decoded,
}

impl Placement {
    /// Everything on the processor, the matrices in this form.
    pub fn on_cpu(form: Form) -> Self {
        Self {
            form,
            ..Self::default()
        }
    }

    /// The first of `n_layers` that lies on the device.
    pub(super) fn first_device_layer(&self, n_layers: usize) -> usize {
        if self.device.is_cpu() {
            return n_layers;
        }
        n_layers.saturating_sub(self.n_device_layers)
    }
}
