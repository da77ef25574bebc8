//! Attention over a paged cache of keys and values.

use half::f16;

use crate::{ShapeError, Turn};

/// The shape of one layer's key or value cache: `[n_blocks, n_kv_heads, block_len, head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads that keys and values have.
    pub n_kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Tokens in a block; it divides 256.
    pub block_len: usize,
}

/// What a call of [`paged_attention`] attends to.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// The shape of the caches.
    pub shape: KvShape,
    /// Heads that queries have: a multiple of `shape.n_kv_heads`.
    pub n_heads: usize,
    /// What scores are multiplied by, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Attend only to this many last positions, the own one included.
    pub sliding_window: Option<u32>,
    /// The absolute position of every token of the batch.
    pub positions: &'a [u32],
    /// Where each sequence's tokens start, and the end: `n_seqs + 1` values.
    pub cu_seqlens: &'a [u32],
    /// For each sequence, the block that holds its positions `block_len * i ..`.
    pub block_tables: &'a [&'a [u32]],
}

/// Writes keys or values of new tokens into their slots.
///
/// Shapes: `src` is `[n_tokens, n_kv_heads, head_dim]`; `slot_mapping` is `[n_tokens]`, each
/// `block * block_len + offset`; `cache` is `[n_blocks, n_kv_heads, block_len, head_dim]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a slot is past the cache.
pub fn write_kv(
    turn: &Turn<'_>,
    shape: KvShape,
    src: &[f32],
    slot_mapping: &[u32],
    cache: &mut [f16],
) -> Result<(), ShapeError> {
    todo!()
}

/// Causal attention of every token to the cached positions of its sequence up to its own.
///
/// Shapes: `q` and `out` are `[n_tokens, n_heads, head_dim]`; the caches are
/// `[n_blocks, n_kv_heads, block_len, head_dim]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a table names a block past the cache.
pub fn paged_attention(
    turn: &Turn<'_>,
    args: &AttentionArgs<'_>,
    q: &[f32],
    k_cache: &[f16],
    v_cache: &[f16],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    todo!()
}
