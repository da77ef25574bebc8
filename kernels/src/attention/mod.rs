//! Attention over a paged cache of keys and values.
//!
//! The visible positions of a token are cut into spans at fixed multiples of [`SPAN`]; each span is
//! reduced on its own and the spans are merged in ascending order. So a token's result depends on its
//! position and on what the cache holds, never on its batch, its chunk or the number of threads.

mod span;

use half::f16;

use crate::half_floats::to_half;
use crate::team::Disjoint;
use crate::{ShapeError, Turn};
use span::Span;

/// Positions that are reduced together.
const SPAN: usize = 256;

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

impl KvShape {
    /// Values of one block, all heads.
    fn block_values(&self) -> usize {
        self.n_kv_heads * self.block_len * self.head_dim
    }

    /// Blocks that a cache of `len` values holds.
    fn n_blocks(&self, what: &'static str, len: usize) -> Result<usize, ShapeError> {
        ShapeError::check_multiple("the number of KV heads", self.n_kv_heads, 1)?;
        ShapeError::check_multiple("a head", self.head_dim, 1)?;
        ShapeError::check_multiple("the positions reduced together", SPAN, self.block_len)?;
        let n_blocks = len / self.block_values();
        ShapeError::check_length(what, len, n_blocks * self.block_values())?;
        Ok(n_blocks)
    }

    /// Where a head's part of a block begins.
    fn start(&self, block: u32, kv_head: usize) -> usize {
        (block as usize * self.n_kv_heads + kv_head) * self.block_len * self.head_dim
    }
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

impl<'a> AttentionArgs<'a> {
    /// Checks the tables against a cache of `n_blocks`.
    fn check(&self, n_blocks: usize) -> Result<(), ShapeError> {
        let Self {
            shape,
            positions,
            cu_seqlens,
            ..
        } = *self;
        ShapeError::check_multiple("the number of heads", self.n_heads, shape.n_kv_heads)?;
        if let Some(window) = self.sliding_window {
            ShapeError::check_multiple("the sliding window", window as usize, 1)?;
        }
        let n_seqs = self.block_tables.len();
        ShapeError::check_length("the sequence starts", cu_seqlens.len(), n_seqs + 1)?;
        ShapeError::check_length("before the first sequence", cu_seqlens[0] as usize, 0)?;
        let last = cu_seqlens[n_seqs] as usize;
        ShapeError::check_length("the positions", positions.len(), last)?;
        for (ends, table) in cu_seqlens.windows(2).zip(self.block_tables) {
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            ShapeError::check_range("the start of a sequence", start, end + 1)?;
            ShapeError::check_range("the end of a sequence", end, last + 1)?;
            for &position in &positions[start..end] {
                let index = position as usize / shape.block_len;
                ShapeError::check_range("the position's block", index, table.len())?;
            }
            for &block in *table {
                ShapeError::check_range("the block", block as usize, n_blocks)?;
            }
        }
        Ok(())
    }

    /// The block table of every token's sequence.
    fn tables(&self) -> Vec<&'a [u32]> {
        let mut tables = Vec::with_capacity(self.positions.len());
        for (ends, table) in self.cu_seqlens.windows(2).zip(self.block_tables) {
            tables.extend((ends[0]..ends[1]).map(|_| *table));
        }
        tables
    }

    /// The first position a token at `position` sees.
    fn first_visible(&self, position: u32) -> usize {
        let window = self.sliding_window.unwrap_or(u32::MAX);
        (position as usize + 1).saturating_sub(window as usize)
    }
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
    let n_blocks = shape.n_blocks("the cache", cache.len())?;
    let (n_kv_heads, head_dim) = (shape.n_kv_heads, shape.head_dim);
    let n_values = slot_mapping.len() * n_kv_heads * head_dim;
    ShapeError::check_length("the keys or values", src.len(), n_values)?;
    for &slot in slot_mapping {
        ShapeError::check_range("the slot", slot as usize, n_blocks * shape.block_len)?;
    }
    let isa = turn.isa();
    let cache = Disjoint::new(cache);
    turn.run(n_kv_heads, &|kv_head| {
        for (token, &slot) in slot_mapping.iter().enumerate() {
            let slot = slot as usize;
            let head = (slot / shape.block_len) * n_kv_heads + kv_head;
            let start = (head * shape.block_len + slot % shape.block_len) * head_dim;
            // SAFETY: each head's parts of the cache belong to one task.
            let row = unsafe { cache.slice_mut(start..start + head_dim) };
            let from = (token * n_kv_heads + kv_head) * head_dim;
            to_half(isa, &src[from..from + head_dim], row);
        }
    });
    Ok(())
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
    let shape = args.shape;
    let n_blocks = shape.n_blocks("the key cache", k_cache.len())?;
    ShapeError::check_length("the value cache", v_cache.len(), k_cache.len())?;
    args.check(n_blocks)?;
    let n_values = args.positions.len() * args.n_heads * shape.head_dim;
    ShapeError::check_length("the queries", q.len(), n_values)?;
    ShapeError::check_length("out", out.len(), n_values)?;

    let group_values = args.n_heads / shape.n_kv_heads * shape.head_dim;
    let tables = args.tables();
    let caches = Caches {
        shape,
        k: k_cache,
        v: v_cache,
    };
    let isa = turn.isa();
    let out = Disjoint::new(out);
    let n_tasks = args.positions.len() * shape.n_kv_heads;
    let scratch_len = Scratch::len(&shape, args.n_heads);
    turn.run_with_scratch(n_tasks, scratch_len, &|task_idx, memory| {
        // Late positions see most: beginning with them, the threads end together.
        let task_idx = n_tasks - 1 - task_idx;
        let (token, kv_head) = (task_idx / shape.n_kv_heads, task_idx % shape.n_kv_heads);
        let part = task_idx * group_values..(task_idx + 1) * group_values;
        // SAFETY: each token's group of heads belongs to one task.
        let out = unsafe { out.slice_mut(part.clone()) };
        let row = Row {
            table: tables[token],
            kv_head,
            visible: args.first_visible(args.positions[token])..args.positions[token] as usize + 1,
            scale: args.scale,
        };
        let mut scratch = Scratch::new(&shape, memory);
        caches.attend(isa, &row, &q[part], &mut scratch, out);
    });
    Ok(())
}

/// Keys and values of one layer.
struct Caches<'a> {
    shape: KvShape,
    k: &'a [f16],
    v: &'a [f16],
}

/// One token's view of the heads that share one KV head.
struct Row<'a> {
    table: &'a [u32],
    kv_head: usize,
    visible: std::ops::Range<usize>,
    scale: f32,
}

/// A task's working memory.
struct Scratch<'a> {
    /// One block's keys or values of a head: `[block_len, head_dim]`.
    block: &'a mut [f32],
    /// Scores and then weights of a span: `[n_group_heads, SPAN]`.
    scores: &'a mut [f32],
    /// The weighted values of a span: `[n_group_heads, head_dim]`.
    values: &'a mut [f32],
    /// Maximum and sum of the weights merged so far: `[n_group_heads, 2]`.
    merged: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn len(shape: &KvShape, n_heads: usize) -> usize {
        let n_group_heads = n_heads / shape.n_kv_heads;
        shape.block_len * shape.head_dim + n_group_heads * (SPAN + shape.head_dim + 2)
    }

    fn new(shape: &KvShape, memory: &'a mut [f32]) -> Self {
        let (block, rest) = memory.split_at_mut(shape.block_len * shape.head_dim);
        let n_group_heads = rest.len() / (SPAN + shape.head_dim + 2);
        let (scores, rest) = rest.split_at_mut(n_group_heads * SPAN);
        let (values, merged) = rest.split_at_mut(n_group_heads * shape.head_dim);
        Self {
            block,
            scores,
            values,
            merged,
        }
    }
}

impl Caches<'_> {
    /// Attends with the heads of one group: `q` and `out` are `[n_group_heads, head_dim]`.
    fn attend(
        &self,
        isa: crate::Isa,
        row: &Row<'_>,
        q: &[f32],
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) {
        // Nothing is merged yet: the first span's weight against it is e^-inf, which is 0.
        out.fill(0.0);
        for state in scratch.merged.as_chunks_mut::<2>().0 {
            *state = [f32::NEG_INFINITY, 0.0];
        }
        let mut start = row.visible.start;
        while start < row.visible.end {
            let end = row.visible.end.min((start / SPAN + 1) * SPAN);
            let span = Span {
                shape: self.shape,
                table: row.table,
                kv_head: row.kv_head,
                positions: start..end,
            };
            span.score(isa, q, row.scale, self.k, scratch);
            span.weigh(isa, self.v, scratch, out);
            start = end;
        }
        for (out, state) in out
            .chunks_exact_mut(self.shape.head_dim)
            .zip(scratch.merged.as_chunks::<2>().0)
        {
            span::divide(isa, out, state[1]);
        }
    }
}

#[cfg(test)]
mod tests;
