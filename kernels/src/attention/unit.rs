//! A unit of the work: some tokens of one sequence and the heads that share one KV head.

use std::ops::Range;

use super::weights::{NOTHING, State, divide, merge, multiply, soften};
use super::{AttentionArgs, SPAN};
use crate::dense::{Strided, product};
use crate::{Columns, Isa, Out, Output};

/// Query rows of a unit, where a token's heads are not more: their scores are 64 KiB.
const UNIT_ROWS: usize = 64;

/// Some tokens of one sequence.
#[derive(Clone)]
pub(super) struct Tile<'a> {
    table: &'a [u32],
    /// Places in the batch.
    tokens: Range<usize>,
    /// Positions that any of them sees.
    visible: Range<usize>,
}

impl<'a> Tile<'a> {
    /// Cuts the batch.
    pub(super) fn all(args: &AttentionArgs<'a>) -> Vec<Self> {
        let tile_tokens = (UNIT_ROWS / args.group_heads()).max(1);
        let mut tiles = Vec::new();
        for (ends, table) in args.cu_seqlens.windows(2).zip(args.block_tables) {
            let end = ends[1] as usize;
            let mut start = ends[0] as usize;
            while start < end {
                let tokens = start..end.min(start + tile_tokens);
                let positions = args.positions[tokens.clone()].iter();
                let seen = positions.map(|position| args.visible(*position));
                let visible = seen
                    .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
                    .unwrap_or_default();
                start = tokens.end;
                tiles.push(Self {
                    table,
                    tokens,
                    visible,
                });
            }
        }
        tiles
    }

    /// The spans that hold visible positions, counted from position 0.
    pub(super) fn spans(&self) -> Range<usize> {
        self.visible.start / SPAN..self.visible.end.div_ceil(SPAN)
    }

    fn positions(&self, span: usize) -> Range<usize> {
        self.visible.start.max(span * SPAN)..self.visible.end.min((span + 1) * SPAN)
    }
}

/// What is attended to, and how.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    pub(super) isa: Isa,
    pub(super) args: AttentionArgs<'a>,
    pub(super) k: &'a [u8],
    pub(super) v: &'a [u8],
}

/// What a unit makes of a span, or of all of them.
pub(super) struct Partial<'a> {
    /// `[n_rows, head_dim]`.
    pub(super) values: &'a mut [f32],
    /// `[n_rows]`.
    pub(super) states: &'a mut [State],
}

impl<'a> Partial<'a> {
    /// Values of a unit's partial, states included.
    pub(super) fn len(args: &AttentionArgs<'_>) -> usize {
        Scratch::n_rows(args) * (args.shape.head_dim + 2)
    }

    pub(super) fn new(args: &AttentionArgs<'_>, memory: &'a mut [f32]) -> Self {
        let (values, states) = memory.split_at_mut(Scratch::n_rows(args) * args.shape.head_dim);
        Self {
            values,
            states: states.as_chunks_mut().0,
        }
    }

    /// Begins with nothing.
    pub(super) fn clear(&mut self) {
        self.values.fill(0.0);
        self.states.fill(NOTHING);
    }
}

/// A task's working memory.
pub(super) struct Scratch<'a> {
    /// Scaled queries: `[n_rows, head_dim]`.
    q: &'a mut [f32],
    /// A head's part of a block, widened.
    block: &'a mut [f32],
    /// The scales of its positions.
    scales: &'a mut [f32],
    /// Scores and then weights of a span: `[n_rows, SPAN]`.
    scores: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Rows of a unit, at most.
    fn n_rows(args: &AttentionArgs<'_>) -> usize {
        let group_heads = args.group_heads();
        (UNIT_ROWS / group_heads).max(1) * group_heads
    }

    pub(super) fn len(args: &AttentionArgs<'_>) -> usize {
        let shape = &args.shape;
        Self::n_rows(args) * (shape.head_dim + SPAN) + shape.part_values() + shape.block_len
    }

    pub(super) fn new(args: &AttentionArgs<'_>, memory: &'a mut [f32]) -> Self {
        let shape = &args.shape;
        let (q, rest) = memory.split_at_mut(Self::n_rows(args) * shape.head_dim);
        let (scores, rest) = rest.split_at_mut(Self::n_rows(args) * SPAN);
        let (block, scales) = rest.split_at_mut(shape.part_values());
        Self {
            q,
            block,
            scales,
            scores,
        }
    }
}

/// A tile and a KV head.
pub(super) struct Unit<'a> {
    pub(super) attention: Attention<'a>,
    pub(super) tile: &'a Tile<'a>,
    pub(super) kv_head: usize,
}

impl Unit<'_> {
    fn n_rows(&self) -> usize {
        self.tile.tokens.len() * self.attention.args.group_heads()
    }

    /// Where each token's heads of this group lie in the result.
    pub(super) fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let args = &self.attention.args;
        let len = args.group_heads() * args.shape.head_dim;
        let (n_kv_heads, kv_head) = (args.shape.n_kv_heads, self.kv_head);
        let starts = self.tile.tokens.clone();
        starts.map(move |token| {
            let start = (token * n_kv_heads + kv_head) * len;
            start..start + len
        })
    }

    /// Takes the unit's queries, scaled.
    pub(super) fn take_queries(&self, q: Columns<'_>, scratch: &mut Scratch<'_>) {
        let args = &self.attention.args;
        let len = args.group_heads() * args.shape.head_dim;
        let tokens = self.tile.tokens.clone();
        for (token, rows) in tokens.zip(scratch.q.chunks_exact_mut(len)) {
            let heads = q.part(token, self.kv_head * len, len);
            for (to, from) in rows.iter_mut().zip(heads) {
                *to = from * args.scale;
            }
        }
    }

    /// Attends to one span.
    pub(super) fn attend(&self, span: usize, scratch: &mut Scratch<'_>, out: &mut Partial<'_>) {
        let positions = self.tile.positions(span);
        self.score(&positions, scratch);
        let group_heads = self.attention.args.group_heads();
        let rows = scratch.scores.chunks_exact_mut(SPAN);
        let states = out.states[..self.n_rows()].iter_mut();
        for (row_idx, (scores, state)) in rows.zip(states).enumerate() {
            let token = self.tile.tokens.start + row_idx / group_heads;
            let visible = self
                .attention
                .args
                .visible(self.attention.args.positions[token]);
            let start = visible.start.clamp(positions.start, positions.end);
            let end = visible.end.clamp(start, positions.end);
            let [before, start, end, after] =
                [positions.start, start, end, positions.end].map(|at| at - span * SPAN);
            scores[before..start].fill(0.0);
            scores[end..after].fill(0.0);
            *state = if start < end {
                soften(self.attention.isa, &mut scores[start..end])
            } else {
                NOTHING
            };
        }
        self.weigh(&positions, scratch, out.values);
    }

    /// Computes the scores of a span, also of positions that only some tokens see.
    fn score(&self, positions: &Range<usize>, scratch: &mut Scratch<'_>) {
        let Attention { isa, args, k, .. } = self.attention;
        let shape = args.shape;
        let n_rows = self.n_rows();
        for index in positions.start / shape.block_len..positions.end.div_ceil(shape.block_len) {
            let part = shape.part(self.tile.table[index], self.kv_head);
            shape.widen(isa, &k[part], scratch.block, scratch.scales);
            let column = index * shape.block_len % SPAN;
            let scores = &mut scratch.scores[..n_rows * SPAN];
            let q = Strided {
                values: scratch.q,
                stride: shape.head_dim,
                n_rows,
            };
            let block = &*scratch.block;
            let mut out = Out {
                values: &mut scores[column..],
                stride: SPAN,
                output: Output::Write,
            };
            product(isa, q, block, shape.block_len, &mut out);
            if shape.kv_type.is_scaled() {
                for row in scores.chunks_exact_mut(SPAN) {
                    multiply(
                        isa,
                        &mut row[column..column + shape.block_len],
                        scratch.scales,
                    );
                }
            }
        }
    }

    /// Sums the values of a span by their weights.
    fn weigh(&self, positions: &Range<usize>, scratch: &mut Scratch<'_>, out: &mut [f32]) {
        let Attention { isa, args, v, .. } = self.attention;
        let shape = args.shape;
        let n_rows = self.n_rows();
        let out = &mut out[..n_rows * shape.head_dim];
        // The first block's values begin the sums.
        let mut out = Out {
            values: out,
            stride: shape.head_dim,
            output: Output::Write,
        };
        for index in positions.start / shape.block_len..positions.end.div_ceil(shape.block_len) {
            let part = shape.part(self.tile.table[index], self.kv_head);
            shape.widen(isa, &v[part], scratch.block, scratch.scales);
            // What lies outside is nobody's: a weight of 0 would not hide a NaN there.
            let first = index * shape.block_len;
            let start = positions.start.max(first);
            let end = positions.end.min(first + shape.block_len);
            let columns = start % SPAN..start % SPAN + (end - start);
            let within = start - first..end - first;
            let scores = &mut scratch.scores[..n_rows * SPAN];
            if shape.kv_type.is_scaled() {
                for row in scores.chunks_exact_mut(SPAN) {
                    let scales = &scratch.scales[within.clone()];
                    multiply(isa, &mut row[columns.clone()], scales);
                }
            }
            let weights = Strided {
                values: &scores[columns.start..],
                stride: SPAN,
                n_rows,
            };
            let head_dim = shape.head_dim;
            let block = &scratch.block[within.start * head_dim..within.end * head_dim];
            product(isa, weights, block, head_dim, &mut out);
            out.output = Output::Add;
        }
    }

    /// Adds a later span to what there is; rows that saw nothing of it stay as they are.
    pub(super) fn merge(&self, all: &mut Partial<'_>, later: &Partial<'_>) {
        let head_dim = self.attention.args.shape.head_dim;
        let values = all.values.chunks_exact_mut(head_dim);
        let later_values = later.values.chunks_exact(head_dim);
        let rows = values
            .zip(later_values)
            .zip(&mut *all.states)
            .zip(&*later.states);
        for (((values, later_values), state), later_state) in rows.take(self.n_rows()) {
            if *later_state != NOTHING {
                merge(self.attention.isa, values, state, later_values, later_state);
            }
        }
    }

    /// Writes a token's heads from what all spans gave.
    pub(super) fn finish(&self, all: &Partial<'_>, token_idx: usize, out: &mut [f32]) {
        let args = &self.attention.args;
        let head_dim = args.shape.head_dim;
        let first = token_idx * args.group_heads();
        for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let row = first + i;
            let values = &all.values[row * head_dim..(row + 1) * head_dim];
            divide(self.attention.isa, values, all.states[row][1], out);
        }
    }
}
