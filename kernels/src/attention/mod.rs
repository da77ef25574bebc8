//! Attention over a paged cache of keys and values.
//!
//! The visible positions of a token are cut into spans at fixed multiples of [`SPAN`]; each span is
//! reduced on its own and the spans are merged in ascending order. So a token's result depends on its
//! position and on what the cache holds, never on its batch, its chunk or the number of threads.

mod cache;
#[cfg(test)]
mod tests;
mod unit;
mod weights;

use crate::team::Disjoint;
use crate::{Columns, ShapeError, Turn};
pub use cache::{KvPart, KvShape, KvType, write_kv};
use unit::{Attention, Partial, Scratch, Tile, Unit};

/// Positions that are reduced together.
pub(crate) const SPAN: usize = 256;
/// Units of work a thread should find: where there are fewer, spans of positions are shared out too.
const UNITS_PER_THREAD: usize = 4;

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

impl AttentionArgs<'_> {
    /// Checks the tables against a cache of `n_blocks`.
    pub(crate) fn check(&self, n_blocks: usize) -> Result<(), ShapeError> {
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

    /// Heads that share a KV head.
    pub(crate) fn group_heads(&self) -> usize {
        self.n_heads / self.shape.n_kv_heads
    }

    /// The positions a token at `position` sees.
    pub(crate) fn visible(&self, position: u32) -> std::ops::Range<usize> {
        let window = self.sliding_window.unwrap_or(u32::MAX);
        let end = position as usize + 1;
        end.saturating_sub(window as usize)..end
    }
}

/// Causal attention of every token to the cached positions of its sequence up to its own.
///
/// Shapes: a row of `q` and of `out` is `[n_heads, head_dim]`, one a token; the caches are blocks of
/// `args.shape`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a table names a block past the cache.
pub fn paged_attention(
    turn: &Turn<'_>,
    args: &AttentionArgs<'_>,
    q: Columns<'_>,
    k_cache: &[u8],
    v_cache: &[u8],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let shape = args.shape;
    let n_blocks = shape.n_blocks("the key cache", k_cache.len())?;
    ShapeError::check_length("the value cache", v_cache.len(), k_cache.len())?;
    args.check(n_blocks)?;
    let n_values = args.positions.len() * args.n_heads * shape.head_dim;
    let token_values = args.n_heads * shape.head_dim;
    q.check("the queries", args.positions.len(), token_values)?;
    ShapeError::check_length("out", out.len(), n_values)?;
    let tiles = Tile::all(args);
    let work = Work {
        attention: Attention {
            isa: turn.isa(),
            args: *args,
            k: k_cache,
            v: v_cache,
        },
        tiles: &tiles,
        q,
        out: Disjoint::new(out),
    };
    let most_spans = tiles.iter().map(|tile| tile.spans().len()).max();
    let wanted = (turn.n_threads() * UNITS_PER_THREAD).div_ceil(work.n_units().max(1));
    // One thread alone has nobody to share spans with.
    match wanted.min(most_spans.unwrap_or(0)) {
        0 | 1 => work.whole(turn),
        _ if turn.n_threads() == 1 => work.whole(turn),
        n_parts => work.in_parts(turn, n_parts, most_spans.unwrap_or(0)),
    }
    Ok(())
}

/// A call under way.
struct Work<'a> {
    attention: Attention<'a>,
    tiles: &'a [Tile<'a>],
    q: Columns<'a>,
    out: Disjoint<'a, f32>,
}

impl Work<'_> {
    fn n_units(&self) -> usize {
        self.tiles.len() * self.attention.args.shape.n_kv_heads
    }

    /// The units from the last: late positions see most, and begun first they end with the rest.
    fn unit(&self, unit_idx: usize) -> Unit<'_> {
        let unit_idx = self.n_units() - 1 - unit_idx;
        let n_kv_heads = self.attention.args.shape.n_kv_heads;
        Unit {
            attention: self.attention,
            tile: &self.tiles[unit_idx / n_kv_heads],
            kv_head: unit_idx % n_kv_heads,
        }
    }

    /// Each unit is one task.
    fn whole(&self, turn: &Turn<'_>) {
        let args = &self.attention.args;
        let (scratch_len, partial_len) = (Scratch::len(args), Partial::len(args));
        let len = scratch_len + 2 * partial_len;
        turn.run_with_scratch(self.n_units(), len, &|unit_idx, memory| {
            let unit = self.unit(unit_idx);
            let (memory, partials) = memory.split_at_mut(scratch_len);
            let (all, partial) = partials.split_at_mut(partial_len);
            let mut scratch = Scratch::new(args, memory);
            let [mut all, mut partial] = [all, partial].map(|memory| Partial::new(args, memory));
            all.clear();
            unit.take_queries(self.q, &mut scratch);
            for span in unit.tile.spans() {
                unit.attend(span, &mut scratch, &mut partial);
                unit.merge(&mut all, &partial);
            }
            self.finish(&unit, &all);
        });
    }

    /// Each unit is `n_parts` tasks, which leave what every span gives; then the spans are merged.
    fn in_parts(&self, turn: &Turn<'_>, n_parts: usize, most_spans: usize) {
        let args = &self.attention.args;
        let (scratch_len, partial_len) = (Scratch::len(args), Partial::len(args));
        let n_units = self.n_units();
        let len = n_units * most_spans * partial_len;
        turn.with_shared_memory(len, &|memory| {
            let partials = Disjoint::new(memory);
            let place = |unit_idx: usize, span_idx: usize| {
                let start = (unit_idx * most_spans + span_idx) * partial_len;
                start..start + partial_len
            };
            let attend = |task_idx: usize, memory: &mut [f32]| {
                let (unit_idx, part) = (task_idx / n_parts, task_idx % n_parts);
                let unit = self.unit(unit_idx);
                let mut scratch = Scratch::new(args, memory);
                unit.take_queries(self.q, &mut scratch);
                // Every `n_parts`th span: the shares differ by one span at most.
                for (span_idx, span) in unit.tile.spans().enumerate().skip(part).step_by(n_parts) {
                    // SAFETY: each unit's span belongs to one task.
                    let memory = unsafe { partials.slice_mut(place(unit_idx, span_idx)) };
                    unit.attend(span, &mut scratch, &mut Partial::new(args, memory));
                }
            };
            turn.run_with_scratch(n_units * n_parts, scratch_len, &attend);
            let merge = |unit_idx: usize, memory: &mut [f32]| {
                let unit = self.unit(unit_idx);
                let mut all = Partial::new(args, memory);
                all.clear();
                for span_idx in 0..unit.tile.spans().len() {
                    // SAFETY: the tasks that wrote it have ended, and each unit belongs to one task.
                    let memory = unsafe { partials.slice_mut(place(unit_idx, span_idx)) };
                    unit.merge(&mut all, &Partial::new(args, memory));
                }
                self.finish(&unit, &all);
            };
            turn.run_with_scratch(n_units, partial_len, &merge);
        });
    }

    /// Writes a unit's results.
    fn finish(&self, unit: &Unit<'_>, all: &Partial<'_>) {
        for (token_idx, part) in unit.parts().enumerate() {
            // SAFETY: each token's group of heads belongs to one unit, and that to one task.
            let out = unsafe { self.out.slice_mut(part) };
            unit.finish(all, token_idx, out);
        }
    }
}
