//! The tensor directory: what each tensor is, and where its bytes stand in the file.

use std::sync::Arc;

use super::header::{HeaderError, name, printable};
use super::reader::{Reader, What};
use super::source::{Source, TensorBytes};
use super::tensor_type::TensorType;

/// What the file says of a tensor.
#[derive(Clone)]
pub struct TensorInfo {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// How its numbers are stored.
    pub ty: TensorType,
    /// Lengths in GGUF's order: `dims[0]` is the contiguous one, for a matrix `[k, n]`. One to
    /// four, none of them 0.
    pub dims: Vec<u64>,
    data: TensorBytes,
    shard: usize,
}

impl TensorInfo {
    /// The layer its name puts it in: 3 for `blk.3.attn_q.weight`.
    pub fn layer(&self) -> Option<usize> {
        let (layer, _) = self.name.strip_prefix("blk.")?.split_once('.')?;
        layer.parse().ok()
    }

    /// Numbers in the tensor.
    pub fn n_elements(&self) -> u64 {
        // Checked not to overflow when the header was.
        self.dims
            .iter()
            .fold(1, |product, dim| product.saturating_mul(*dim))
    }

    /// Bytes of the tensor.
    pub fn n_bytes(&self) -> u64 {
        self.data.range().len() as u64
    }

    /// Where the tensor starts, from the start of its file.
    pub fn offset(&self) -> u64 {
        self.data.range().start as u64
    }

    /// Which of [`Gguf::shards`](super::Gguf::shards) the tensor is in.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The bytes of the tensor, in place.
    pub(super) fn data(&self) -> &TensorBytes {
        &self.data
    }

    /// The tensor as one of another shard than the first.
    pub(super) fn in_shard(self, shard: usize) -> Self {
        Self { shard, ..self }
    }
}

impl std::fmt::Debug for TensorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {:?} at {}",
            self.name,
            self.ty,
            self.dims,
            self.offset()
        )
    }
}

/// A tensor as the directory has it, not yet placed in the file.
pub(super) struct Description<'a> {
    name: &'a str,
    ty: TensorType,
    dims: Vec<u64>,
    offset: u64,
    n_bytes: u64,
}

/// Reads the `number`th tensor of the directory.
pub(super) fn describe<'a>(
    reader: &mut Reader<'a>,
    number: u64,
) -> Result<Description<'a>, HeaderError> {
    let name = name(reader, What::Tensor, number)?;
    let tensor = || printable(name);
    let n_dims = reader.u32(What::Tensor)?;
    if !(1..=4).contains(&n_dims) {
        return Err(HeaderError::DimCount {
            tensor: tensor(),
            n_dims,
        });
    }
    let dims: Vec<u64> = (0..n_dims)
        .map(|_| reader.u64(What::Tensor))
        .collect::<Result<_, _>>()?;
    let id = reader.u32(What::Tensor)?;
    let ty = TensorType::from_id(id).ok_or_else(|| HeaderError::TensorType {
        tensor: tensor(),
        id,
    })?;
    let offset = reader.u64(What::Tensor)?;
    if dims.contains(&0) {
        return Err(HeaderError::ZeroDim {
            tensor: tensor(),
            dims,
        });
    }
    let row_len = dims.first().copied().unwrap_or_default();
    if !row_len.is_multiple_of(ty.block_len()) {
        let (ty, block_len) = (ty.name(), ty.block_len());
        return Err(HeaderError::RowLen {
            tensor: tensor(),
            len: row_len,
            ty,
            block_len,
        });
    }
    let n_elements = dims
        .iter()
        .try_fold(1_u64, |product, dim| product.checked_mul(*dim));
    let Some(n_bytes) = n_elements.and(ty.tensor_bytes(&dims)) else {
        return Err(HeaderError::Overflow {
            tensor: tensor(),
            dims,
        });
    };
    Ok(Description {
        name,
        ty,
        dims,
        offset,
        n_bytes,
    })
}

/// Checks that every tensor lies in the file, aligned and apart from the others.
///
/// `data_start` is where offsets count from.
pub(super) fn place(
    source: &Arc<Source>,
    descriptions: Vec<Description<'_>>,
    data_start: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo>, HeaderError> {
    let room = (source.len() as u64).saturating_sub(data_start);
    for tensor in &descriptions {
        check_range(tensor, room, alignment)?;
    }
    check_overlaps(&descriptions)?;
    let tensors: Vec<TensorInfo> = descriptions
        .into_iter()
        .filter_map(|tensor| {
            // All fits: the range was checked against the length of a slice in memory.
            let start = usize::try_from(data_start + tensor.offset).ok()?;
            let n_bytes = usize::try_from(tensor.n_bytes).ok()?;
            Some(TensorInfo {
                name: tensor.name.to_owned(),
                ty: tensor.ty,
                dims: tensor.dims,
                data: TensorBytes::new(Arc::clone(source), start..start + n_bytes),
                shard: 0,
            })
        })
        .collect();
    Ok(tensors)
}

fn check_range(tensor: &Description<'_>, room: u64, alignment: u64) -> Result<(), HeaderError> {
    let &Description {
        offset, n_bytes, ..
    } = tensor;
    if !offset.is_multiple_of(alignment) {
        return Err(HeaderError::Misaligned {
            tensor: printable(tensor.name),
            offset,
            alignment,
        });
    }
    match offset.checked_add(n_bytes) {
        Some(end) if end <= room => Ok(()),
        _ => Err(HeaderError::OutOfFile {
            tensor: printable(tensor.name),
            offset,
            n_bytes,
            room,
        }),
    }
}

/// Expects every range to lie in the file.
fn check_overlaps(tensors: &[Description<'_>]) -> Result<(), HeaderError> {
    let mut by_offset: Vec<&Description<'_>> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if let [first, second] = pair
            && first.offset + first.n_bytes > second.offset
        {
            let (first, second) = (printable(first.name), printable(second.name));
            return Err(HeaderError::Overlap { first, second });
        }
    }
    Ok(())
}
