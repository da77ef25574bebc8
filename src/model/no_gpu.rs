//! No GPU: this program was built for processors only.

use super::device::Device;
use super::error::Error;

/// There is none.
#[derive(Clone, Debug)]
pub(super) enum Driver {}

impl Driver {
    /// Whether kernels of ours can multiply on it.
    pub(super) const HAS_OUR_PRODUCTS: bool = false;
    /// What it goes by.
    pub(super) const BACKEND: &'static str = "none";
    /// What is not there has no memory of its own.
    pub(super) const IS_UNIFIED: bool = true;

    /// Says that there is none.
    pub(super) fn of(ordinal: usize) -> Result<Self, Error> {
        Err(Error::Gpu {
            what: format!(
                "GPU {ordinal} cannot be used: this program was built for processors only, \
                 `make cuda` builds the other"
            ),
        })
    }

    pub(super) fn name(&self) -> Result<String, Error> {
        match *self {}
    }

    pub(super) fn memory(&self) -> Result<(u64, u64), Error> {
        match *self {}
    }

    pub(super) fn open(&self) -> Result<Device, Error> {
        match *self {}
    }
}
