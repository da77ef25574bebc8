//! Attention over the paged cache, whose layout is the processor's.

use super::{Arg, DeviceSlice, DeviceSliceMut, Indices, Launch, check_len, dim};
use crate::attention::SPAN;
use crate::{AttentionArgs, KvShape, KvType, ShapeError};

/// Query rows of a unit.
const UNIT_ROWS: usize = 8;
/// Threads of a block.
const THREADS: u32 = 128;
/// Positions of a block of the cache.
const BLOCK_LEN: usize = 32;
/// Values of a head, at most.
const HEAD_DIM_MOST: usize = 256;
/// Blocks of threads that occupy a device: with fewer, units share out their spans.
const ENOUGH_BLOCKS: usize = 512;

/// Some query rows of a sequence and the spans they attend to: `AttentionUnit` of attention.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    first_token: u32,
    first_row: u32,
    n_rows: u32,
    first_block: u32,
    first_span: u32,
    n_spans: u32,
}

impl Unit {
    /// Words of one.
    const WORDS: usize = 6;

    /// As it lies in memory.
    fn words(&self) -> [u32; Self::WORDS] {
        [
            self.first_token,
            self.first_row,
            self.n_rows,
            self.first_block,
            self.first_span,
            self.n_spans,
        ]
    }
}

/// How the attention of a step is cut into units: the same for every layer.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    units: Vec<Unit>,
    /// Where the units of the same rows begin, and the end; none where units are whole.
    firsts: Vec<u32>,
    /// All sequences' block tables, one after the other.
    tables: Vec<u32>,
    /// Blocks of the cache that the tables were checked against.
    n_blocks: usize,
}

impl AttentionPlan {
    /// Plans a step over a cache of `n_blocks`; spans are shared out where that gives work to more of
    /// the device and their results fit `partial_values` floats. The bits are the same either way.
    ///
    /// # Errors
    /// [`ShapeError`] when a length does not match, a table names a block past the cache, or the
    /// kernels do not know the shape.
    pub fn new(
        args: &AttentionArgs<'_>,
        n_blocks: usize,
        partial_values: usize,
    ) -> Result<Self, ShapeError> {
        args.check(n_blocks)?;
        let shape = args.shape;
        ShapeError::check_length("a block of the cache", shape.block_len, BLOCK_LEN)?;
        ShapeError::check_range("the length of a head", shape.head_dim, HEAD_DIM_MOST + 1)?;
        let mut plan = Self {
            units: Vec::new(),
            firsts: Vec::new(),
            tables: Vec::new(),
            n_blocks,
        };
        for (ends, table) in args.cu_seqlens.windows(2).zip(args.block_tables) {
            plan.add_sequence(args, ends[0] as usize..ends[1] as usize)?;
            plan.tables.extend_from_slice(table);
        }
        let n_spans: usize = plan.units.iter().map(|unit| unit.n_spans as usize).sum();
        let values = n_spans
            .saturating_mul(shape.n_kv_heads * UNIT_ROWS)
            .saturating_mul(shape.head_dim + 2);
        let n_grid_blocks = plan.units.len() * shape.n_kv_heads;
        let is_idle = n_grid_blocks < ENOUGH_BLOCKS;
        if n_spans > plan.units.len() && is_idle && values <= partial_values {
            plan.share_out();
        }
        Ok(plan)
    }

    /// Cuts the rows of the tokens of one sequence, whose table is the next.
    fn add_sequence(
        &mut self,
        args: &AttentionArgs<'_>,
        tokens: std::ops::Range<usize>,
    ) -> Result<(), ShapeError> {
        let group_heads = args.group_heads();
        let n_rows = tokens.len() * group_heads;
        for first_row in (0..n_rows).step_by(UNIT_ROWS) {
            let rows = first_row..n_rows.min(first_row + UNIT_ROWS);
            let (mut begin, mut end) = (usize::MAX, 0);
            for row in rows.clone() {
                let position = args.positions[tokens.start + row / group_heads];
                let visible = args.visible(position);
                (begin, end) = (begin.min(visible.start), end.max(visible.end));
            }
            let spans = begin / SPAN..end.div_ceil(SPAN);
            self.units.push(Unit {
                first_token: super::small(tokens.start)?,
                first_row: super::small(first_row)?,
                n_rows: super::small(rows.len())?,
                first_block: super::small(self.tables.len())?,
                first_span: super::small(spans.start)?,
                n_spans: super::small(spans.len())?,
            });
        }
        Ok(())
    }

    /// Makes a unit of every span.
    fn share_out(&mut self) {
        let whole = std::mem::take(&mut self.units);
        let mut first = 0;
        for unit in whole {
            self.firsts.push(first);
            first += unit.n_spans;
            self.units.extend((0..unit.n_spans).map(|i| Unit {
                first_span: unit.first_span + i,
                n_spans: 1,
                ..unit
            }));
        }
        self.firsts.push(first);
    }

    /// What the device needs of it, as words to copy there: see [`AttentionBuffers::of`].
    pub fn words(&self) -> impl Iterator<Item = u32> {
        let units = self.units.iter().flat_map(Unit::words);
        units.chain(self.firsts.iter().chain(&self.tables).copied())
    }

    /// How many words those are.
    pub fn n_words(&self) -> usize {
        self.units.len() * Unit::WORDS + self.firsts.len() + self.tables.len()
    }
}

/// What attention of a step reads and writes.
#[derive(Debug)]
pub struct AttentionBuffers<'a> {
    /// Rows of `stride` values that begin with `[n_heads, head_dim]`.
    pub q: DeviceSlice<'a, f32>,
    /// Values of a row of `q`.
    pub stride: usize,
    /// A layer's cache: the blocks of keys, then those of values.
    pub cache: DeviceSlice<'a, u8>,
    /// The tokens' positions.
    pub positions: DeviceSlice<'a, u32>,
    /// The plan's words.
    pub plan: DeviceSlice<'a, u32>,
    /// Room for the results of single spans: as many values as the plan was made for.
    pub partials: DeviceSliceMut<'a, f32>,
    /// `[n_tokens, n_heads, head_dim]` and more.
    pub out: DeviceSliceMut<'a, f32>,
}

/// Attention of every token to its sequence up to its own position: see
/// [`crate::attention::paged_attention`].
///
/// # Errors
/// [`ShapeError`] when a buffer is too short for `args` or the plan, which must have been made of them.
pub fn paged_attention<'a>(
    args: &AttentionArgs<'_>,
    plan: &AttentionPlan,
    buffers: &'a mut AttentionBuffers<'_>,
) -> Result<Vec<Launch<'a>>, ShapeError> {
    let shape = args.shape;
    let m = args.positions.len();
    let is_shared_out = !plan.firsts.is_empty();
    let n_blocks = shape.n_blocks("the key cache", buffers.cache.len / 2)?;
    ShapeError::check_length("the blocks of the cache", n_blocks, plan.n_blocks)?;
    check_len("the queries", buffers.q.len, m * buffers.stride)?;
    let head_values = args.n_heads * shape.head_dim;
    ShapeError::check_range("the end of a row's heads", head_values, buffers.stride + 1)?;
    check_len("out", buffers.out.len, m * head_values)?;
    check_len("the positions", buffers.positions.len, m)?;
    check_len("the plan", buffers.plan.len, plan.n_words())?;
    let places = plan.units.len() * shape.n_kv_heads * UNIT_ROWS;
    if is_shared_out {
        let needed = places * (shape.head_dim + 2);
        check_len("the spans' results", buffers.partials.len, needed)?;
    }
    let word = |index: usize| Arg::Address(buffers.plan.address + 4 * index as u64);
    let first_word = plan.units.len() * Unit::WORDS;
    let states = buffers.partials.address + 4 * (places * shape.head_dim) as u64;
    let [partials, states] = [buffers.partials.address, states]
        .map(|address| Arg::Address(if is_shared_out { address } else { 0 }));
    let kernel = match shape.kv_type {
        KvType::F16 => "paged_attention_f16",
        KvType::Int8 => "paged_attention_int8",
    };
    let window = Arg::U32(args.sliding_window.unwrap_or(u32::MAX));
    let attend = vec![
        buffers.q.into(),
        buffers.cache.into(),
        buffers.positions.into(),
        word(first_word + plan.firsts.len()),
        word(0),
        Arg::U64(buffers.cache.len as u64 / 2),
        dim(buffers.stride)?,
        dim(shape.n_kv_heads)?,
        dim(args.group_heads())?,
        dim(shape.head_dim)?,
        window,
        Arg::F32(args.scale),
        Arg::Address(buffers.out.address),
        partials,
        states,
    ];
    let grid = [plan.units.len(), shape.n_kv_heads];
    let mut launches = vec![Launch::new(kernel, grid, THREADS, attend)?];
    if is_shared_out {
        let merge = vec![
            word(0),
            word(first_word),
            partials,
            states,
            buffers.positions.into(),
            dim(shape.n_kv_heads)?,
            dim(args.group_heads())?,
            dim(shape.head_dim)?,
            window,
            Arg::Address(buffers.out.address),
        ];
        let grid = [plan.firsts.len() - 1, shape.n_kv_heads];
        launches.push(Launch::new("merge_spans", grid, THREADS, merge)?);
    }
    Ok(launches)
}

/// Writes the keys and values of new tokens into their slots: see [`crate::attention::write_kv`]; with
/// the same bits.
///
/// Shapes: `rows` is `[m, stride]` and more, the keys beginning at `first_key` and the values following;
/// `cache` is the blocks of keys, then those of values.
///
/// # Errors
/// [`ShapeError`] when a buffer is too short, or a slot is past the cache.
pub fn write_kv<'a>(
    shape: KvShape,
    rows: DeviceSlice<'a, f32>,
    [stride, first_key]: [usize; 2],
    slots: Indices<'a>,
    cache: DeviceSliceMut<'a, u8>,
) -> Result<Launch<'a>, ShapeError> {
    ShapeError::check_length("a block of the cache", shape.block_len, BLOCK_LEN)?;
    let n_blocks = shape.n_blocks("the key cache", cache.len / 2)?;
    slots.check("the slot", n_blocks * BLOCK_LEN)?;
    let m = slots.host.len();
    check_len("the keys and values", rows.len, m * stride)?;
    let end = first_key + 2 * shape.n_kv_heads * shape.head_dim;
    ShapeError::check_range("the end of a row's columns", end, stride + 1)?;
    let kernel = match shape.kv_type {
        KvType::F16 => "write_kv_f16",
        KvType::Int8 => "write_kv_int8",
    };
    let half_bytes = cache.len as u64 / 2;
    let args = vec![
        rows.into(),
        slots.device.into(),
        dim(stride)?,
        dim(first_key)?,
        dim(shape.n_kv_heads)?,
        dim(shape.head_dim)?,
        Arg::U64(half_bytes),
        cache.into(),
    ];
    let grid = [m, 2 * shape.n_kv_heads];
    Launch::new(kernel, grid, THREADS, args)
}
