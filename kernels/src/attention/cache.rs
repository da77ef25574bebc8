//! The paged cache: where a head's keys and values lie, and in what form.
//!
//! A block is `[n_kv_heads]` parts of a head each. Keys lie dimension by dimension, `[head_dim,
//! block_len]`, so that a vector holds one dimension of many positions and scores need no sums across
//! lanes; values lie position by position, `[block_len, head_dim]`. In eight bits, a part ends with
//! the scales of its positions, `[block_len]` in f32.

use half::f16;

use crate::half_floats::{from_half_bytes, to_half};
use crate::isa::vectorized;
use crate::quantize::nearest_bytes;
use crate::team::Disjoint;
use crate::{Columns, Isa, ShapeError, Turn};

/// Bytes of a position's scale.
const SCALE_BYTES: usize = size_of::<f32>();
/// Values that are narrowed at once.
const NARROWED: usize = 64;

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// Eight bits, with a scale for each token and head.
    Int8,
}

impl KvType {
    /// Every form.
    pub const ALL: [Self; 2] = [Self::F16, Self::Int8];

    /// The name it goes by: `f16` or `int8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Whether each position has a scale.
    pub(super) const fn is_scaled(self) -> bool {
        matches!(self, Self::Int8)
    }

    /// Bytes of one head's keys, or values, of one token.
    pub const fn token_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F16 => 2 * head_dim,
            Self::Int8 => head_dim + SCALE_BYTES,
        }
    }
}

/// Which half of a layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvPart {
    /// What queries are compared with.
    Keys,
    /// What is summed.
    Values,
}

/// The shape of one layer's key or value cache: `n_blocks` blocks of `n_kv_heads` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads that keys and values have.
    pub n_kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Tokens in a block; it divides 256.
    pub block_len: usize,
    /// The form of the values.
    pub kv_type: KvType,
}

impl KvShape {
    /// Bytes of one block, all heads. Units: bytes.
    pub const fn block_bytes(&self) -> usize {
        self.n_kv_heads * self.part_bytes()
    }

    /// Bytes of a head's part of a block.
    const fn part_bytes(&self) -> usize {
        self.block_len * self.kv_type.token_bytes(self.head_dim)
    }

    /// Values of a head's part of a block.
    pub(super) const fn part_values(&self) -> usize {
        self.block_len * self.head_dim
    }

    /// Blocks that a cache of `len` bytes holds.
    pub(crate) fn n_blocks(&self, what: &'static str, len: usize) -> Result<usize, ShapeError> {
        ShapeError::check_multiple("the number of KV heads", self.n_kv_heads, 1)?;
        ShapeError::check_multiple("a head", self.head_dim, 1)?;
        ShapeError::check_multiple(
            "the positions reduced together",
            super::SPAN,
            self.block_len,
        )?;
        let n_blocks = len / self.block_bytes();
        ShapeError::check_length(what, len, n_blocks * self.block_bytes())?;
        Ok(n_blocks)
    }

    /// Where a head's part of a block lies.
    pub(super) fn part(&self, block: u32, kv_head: usize) -> std::ops::Range<usize> {
        let start = (block as usize * self.n_kv_heads + kv_head) * self.part_bytes();
        start..start + self.part_bytes()
    }

    /// Widens a head's part of a block: the values as they lie, and a scale for each position.
    pub(super) fn widen(&self, isa: Isa, part: &[u8], values: &mut [f32], scales: &mut [f32]) {
        match self.kv_type {
            KvType::F16 => {
                from_half_bytes(isa, part, values);
                scales.fill(1.0);
            }
            KvType::Int8 => {
                let (quants, bytes) = part.split_at(self.part_values());
                widen_bytes(isa, quants, values);
                for (scale, bytes) in scales.iter_mut().zip(bytes.as_chunks().0) {
                    *scale = f32::from_le_bytes(*bytes);
                }
            }
        }
    }
}

vectorized! {
    /// Signed bytes as floats.
    fn widen_bytes(bytes: &[u8], values: &mut [f32]) {
        for (value, byte) in values.iter_mut().zip(bytes) {
            *value = f32::from(byte.cast_signed());
        }
    }
}

/// Values a task should write, at least.
const TASK_VALUES: usize = 8192;

/// Writes keys or values of new tokens into their slots.
///
/// Shapes: a row of `src` is `[n_kv_heads, head_dim]`, one a token; `slot_mapping` is `[n_tokens]`, each
/// `block * block_len + offset`, no two the same; `cache` is blocks of `shape`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a slot is past the cache.
pub fn write_kv(
    turn: &Turn<'_>,
    shape: KvShape,
    part: KvPart,
    src: Columns<'_>,
    slot_mapping: &[u32],
    cache: &mut [u8],
) -> Result<(), ShapeError> {
    let n_blocks = shape.n_blocks("the cache", cache.len())?;
    let (n_kv_heads, head_dim) = (shape.n_kv_heads, shape.head_dim);
    let row_values = n_kv_heads * head_dim;
    src.check("the keys or values", slot_mapping.len(), row_values)?;
    for &slot in slot_mapping {
        ShapeError::check_range("the slot", slot as usize, n_blocks * shape.block_len)?;
    }
    let isa = turn.isa();
    let cache = Disjoint::new(cache);
    let task_heads = TASK_VALUES.div_ceil((slot_mapping.len() * head_dim).max(1));
    let write_head = |kv_head: usize| {
        for (token, &slot) in slot_mapping.iter().enumerate() {
            let offset = slot as usize % shape.block_len;
            let block = slot / block_len_u32(&shape);
            // SAFETY: each head's parts of the cache belong to one task.
            let bytes = unsafe { cache.slice_mut(shape.part(block, kv_head)) };
            let row = src.part(token, kv_head * head_dim, head_dim);
            let slot = Slot {
                shape,
                part,
                offset,
            };
            slot.write(isa, row, bytes);
        }
    };
    turn.run(n_kv_heads.div_ceil(task_heads), &|task_idx| {
        let heads = task_idx * task_heads..n_kv_heads.min((task_idx + 1) * task_heads);
        heads.for_each(write_head);
    });
    Ok(())
}

/// A block's length divides 256.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 256, as was checked"
)]
const fn block_len_u32(shape: &KvShape) -> u32 {
    shape.block_len as u32
}

/// A position of a head's part of a block.
struct Slot {
    shape: KvShape,
    part: KvPart,
    offset: usize,
}

impl Slot {
    /// Where a dimension's value lies, counted in values.
    fn place(&self, dim: usize) -> usize {
        match self.part {
            KvPart::Keys => dim * self.shape.block_len + self.offset,
            KvPart::Values => self.offset * self.shape.head_dim + dim,
        }
    }

    fn write(&self, isa: Isa, row: &[f32], bytes: &mut [u8]) {
        match self.shape.kv_type {
            KvType::F16 => self.write_halves(isa, row, bytes),
            KvType::Int8 => self.write_bytes(row, bytes),
        }
    }

    fn write_halves(&self, isa: Isa, row: &[f32], bytes: &mut [u8]) {
        let places = bytes.as_chunks_mut::<2>().0;
        for (chunk_idx, row) in row.chunks(NARROWED).enumerate() {
            let mut halves = [f16::ZERO; NARROWED];
            let halves = &mut halves[..row.len()];
            to_half(isa, row, halves);
            for (i, half) in halves.iter().enumerate() {
                places[self.place(chunk_idx * NARROWED + i)] = half.to_le_bytes();
            }
        }
    }

    fn write_bytes(&self, row: &[f32], bytes: &mut [u8]) {
        let (quants, scales) = bytes.split_at_mut(self.shape.part_values());
        let scale = nearest_bytes(row, |dim, byte| quants[self.place(dim)] = byte);
        scales.as_chunks_mut().0[self.offset] = scale.to_le_bytes();
    }
}
