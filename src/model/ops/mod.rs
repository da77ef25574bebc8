//! The operations of the network: in-place custom operations on candle tensors.
//!
//! Each struct carries what one call needs beside its tensors (packed weights, the step's metadata, its
//! place: the team's turn or a GPU's stream) and works on the first elements of its buffers, which are as
//! large as the largest step. The processor's side calls `ingle_kernels`, the CUDA side launches the
//! kernels of `ingle_kernels::cuda`.

mod by_library;
#[cfg(feature = "cuda")]
mod device_linear;
mod embed;
mod gather;
mod linear;
#[cfg(feature = "cuda")]
mod on_cuda;
mod paged_attention;
mod place;
mod put_columns;
mod quantize;
mod rms_norm;
mod rope;
mod silu_mul;
mod take_rows;
mod write_kv;

#[cfg(feature = "cuda")]
pub(super) use device_linear::DeviceLinear;
pub(super) use embed::Embed;
pub(super) use gather::Gather;
pub(super) use linear::Linear;
pub(super) use paged_attention::PagedAttention;
pub(super) use place::Place;
pub(super) use put_columns::PutColumns;
pub(super) use quantize::Quantize;
pub(super) use rms_norm::RmsNorm;
pub(super) use rope::Rope;
pub(super) use silu_mul::SiluMul;
pub(super) use take_rows::TakeRows;
pub(super) use write_kv::WriteKv;

pub(super) use by_library::ByLibrary;
use candle_core::{
    CpuStorage, Error, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor, WithDType,
};
use place::shape;

/// Runs an operation that reads nothing but its buffer.
pub(super) fn run(out: &Tensor, op: &(impl InplaceOp1 + ByLibrary)) -> Result<()> {
    if let Place::Library = op.place() {
        return op.by_library(out, &[]);
    }
    out.inplace_op1(op)
}

/// Runs an operation that reads one other buffer.
pub(super) fn run_on(out: &Tensor, x: &Tensor, op: &(impl InplaceOp2 + ByLibrary)) -> Result<()> {
    if let Place::Library = op.place() {
        return op.by_library(out, &[x]);
    }
    out.inplace_op2(x, op)
}

/// Runs an operation that reads two other buffers.
pub(super) fn run_on_two(
    out: &Tensor,
    [x, y]: [&Tensor; 2],
    op: &(impl InplaceOp3 + ByLibrary),
) -> Result<()> {
    if let Place::Library = op.place() {
        return op.by_library(out, &[x, y]);
    }
    out.inplace_op3(x, y, op)
}

/// The first `n` elements of a buffer.
fn first<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout, n: usize) -> Result<&'a [T]> {
    let values = storage.as_slice::<T>()?;
    let start = layout.start_offset();
    values
        .get(start..start.saturating_add(n))
        .ok_or_else(|| too_short(values.len(), start, n))
}

/// The first `n` elements of a buffer of floats, to write.
fn first_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout, n: usize) -> Result<&'a mut [f32]> {
    match storage {
        CpuStorage::F32(values) => part_mut(values, layout, n),
        other => Err(wrong_type("f32", other)),
    }
}

/// The first `n` elements of a buffer of words, to write.
fn first_words_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
    n: usize,
) -> Result<&'a mut [u32]> {
    match storage {
        CpuStorage::U32(values) => part_mut(values, layout, n),
        other => Err(wrong_type("u32", other)),
    }
}

/// Both halves of a cache, keys and values.
fn halves<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(&'a [u8], &'a [u8])> {
    let n_bytes = layout.shape().elem_count();
    Ok(first(storage, layout, n_bytes)?.split_at(n_bytes / 2))
}

/// Both halves of a cache, to write.
fn halves_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<(&'a mut [u8], &'a mut [u8])> {
    let n_bytes = layout.shape().elem_count();
    match storage {
        CpuStorage::U8(bytes) => Ok(part_mut(bytes, layout, n_bytes)?.split_at_mut(n_bytes / 2)),
        other => Err(wrong_type("u8", other)),
    }
}

fn part_mut<'a, T>(values: &'a mut [T], layout: &Layout, n: usize) -> Result<&'a mut [T]> {
    let (len, start) = (values.len(), layout.start_offset());
    values
        .get_mut(start..start.saturating_add(n))
        .ok_or_else(|| too_short(len, start, n))
}

fn too_short(len: usize, start: usize, n: usize) -> Error {
    Error::msg(format!(
        "a buffer of {len} elements has no {n} from {start} on"
    ))
}

fn wrong_type(expected: &str, storage: &CpuStorage) -> Error {
    use candle_core::backend::BackendStorage;
    Error::msg(format!(
        "a buffer of {expected} is needed, not of {:?}",
        storage.dtype()
    ))
}
