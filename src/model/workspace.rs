//! The buffers of a step, allocated once for the largest one.

use candle_core::{DType, Device, Tensor};
use ingle_kernels::KvType;

use super::config::ModelConfig;
use super::device::CachePages;
use super::error::Error;
use super::memory::{Limits, Sizes, kv_bytes};

/// One tensor a buffer: an operation may not read the storage it writes.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The residual stream.
    pub(super) state: Tensor,
    /// The same, normalised.
    pub(super) normed: Tensor,
    /// A token's queries, keys and values, one after the other.
    pub(super) qkv: Tensor,
    /// What attention makes of the queries.
    pub(super) attended: Tensor,
    /// A token's gate, then its up.
    pub(super) gate_up: Tensor,
    /// The gated product of the two.
    pub(super) gated: Tensor,
    /// Quantised activations, made from whichever buffer is multiplied next.
    pub(super) words: Tensor,
    /// The rows whose logits are wanted.
    pub(super) picked: Tensor,
    /// The same, normalised.
    pub(super) picked_normed: Tensor,
    pub(super) logits: Tensor,
}

impl Workspace {
    /// Allocates all of them on `device`.
    pub(super) fn new(
        config: &ModelConfig,
        limits: &Limits,
        device: &Device,
    ) -> Result<Self, Error> {
        let sizes = Sizes::new(config, limits);
        // At least one element: an empty tensor has no storage to speak of.
        let floats = |n: usize| Tensor::zeros(n.max(1), DType::F32, device);
        Ok(Self {
            state: floats(sizes.state)?,
            normed: floats(sizes.state)?,
            qkv: floats(sizes.heads.saturating_add(sizes.kv_heads.saturating_mul(2)))?,
            attended: floats(sizes.heads)?,
            gate_up: floats(sizes.ff.saturating_mul(2))?,
            gated: floats(sizes.ff)?,
            words: Tensor::zeros(sizes.words.max(1), DType::U32, device)?,
            picked: floats(sizes.picked)?,
            picked_normed: floats(sizes.picked)?,
            logits: floats(sizes.logits)?,
        })
    }
}

/// The cache of one layer: the blocks of keys, then those of values, as the kernels lay them out; in the
/// tensor library's hands rows of half precision.
///
/// On the host its pages come from the system when `pages` says.
///
/// Errors: there is not so much memory, or the tensor library is to keep keys and values in eight bits.
pub(super) fn kv_cache(
    config: &ModelConfig,
    limits: &Limits,
    device: &super::Device,
    pages: CachePages,
) -> Result<Tensor, Error> {
    let n_bytes = kv_bytes(config, limits);
    let on = device.candle();
    Ok(match device {
        super::Device::Cpu => Tensor::from_vec(host_bytes(n_bytes, pages), n_bytes, &on)?,
        #[cfg(feature = "cuda")]
        super::Device::Cuda(_) => Tensor::zeros(n_bytes, DType::U8, &on)?,
        super::Device::Library(_) if limits.kv_type == KvType::F16 => {
            Tensor::zeros(n_bytes / 2, DType::F16, &on)?
        }
        super::Device::Library(_) => {
            return Err(Error::Unsupported {
                what: "keys and values in eight bits on Metal".to_owned(),
            });
        }
    })
}

/// Zeroes.
fn host_bytes(n_bytes: usize, pages: CachePages) -> Vec<u8> {
    /// No system has smaller pages.
    const PAGE_BYTES: usize = 4096;
    let mut bytes = vec![0_u8; n_bytes];
    if pages == CachePages::AtOnce {
        for page in bytes.chunks_mut(PAGE_BYTES) {
            // Written, though it changes nothing: that is what takes the page.
            page[0] = std::hint::black_box(0);
        }
    }
    bytes
}
