//! The operations by the tensor library's own, for devices that have no kernels of ours: Metal. Plain
//! formulas, with a tensor for every step of them; on the processor they are what tests hold them to.

use candle_core::{D, DType, Result, Tensor};
use ingle_kernels::{AttentionArgs, Output};

use super::{
    Embed, Gather, PagedAttention, Place, PutColumns, RmsNorm, Rope, SiluMul, TakeRows, WriteKv,
};

/// An operation that the tensor library can do as well.
pub(in crate::model) trait ByLibrary {
    /// Where it runs.
    fn place(&self) -> Place<'_>;

    /// Writes `out` from what it reads.
    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()>;
}

/// The first rows of a buffer.
fn rows(buffer: &Tensor, n_rows: usize, len: usize) -> Result<Tensor> {
    buffer.narrow(0, 0, n_rows * len)?.reshape((n_rows, len))
}

/// Writes the first elements of a buffer.
fn put(buffer: &Tensor, values: &Tensor) -> Result<()> {
    buffer.slice_set(&values.contiguous()?.flatten_all()?, 0, 0)
}

impl ByLibrary for Embed<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, _: &[&Tensor]) -> Result<()> {
        let ids = Tensor::new(self.token_ids.host, out.device())?;
        put(out, &self.embedding.rows(&ids)?)
    }
}

impl ByLibrary for TakeRows<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, _: &[&Tensor]) -> Result<()> {
        put(out, &Tensor::new(self.values, out.device())?)
    }
}

impl ByLibrary for Gather<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let chosen = Tensor::new(self.rows.host, out.device())?;
        let x = rows(inputs[0], self.n_rows, self.row_len)?;
        put(out, &x.index_select(&chosen, 0)?)
    }
}

impl ByLibrary for RmsNorm<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let weight = self.weight.host();
        let x = rows(inputs[0], self.n_tokens, weight.len())?;
        let mean = (x.sqr()?.sum_keepdim(D::Minus1)? / weight.len() as f64)?;
        let normed = x.broadcast_div(&(mean + f64::from(self.eps))?.sqrt()?)?;
        let weight = Tensor::new(weight, out.device())?;
        put(out, &normed.broadcast_mul(&weight)?)
    }
}

impl ByLibrary for SiluMul<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let both = rows(inputs[0], self.n_tokens, 2 * self.n)?;
        let gate = both.narrow(1, 0, self.n)?.contiguous()?.silu()?;
        put(out, &(gate * both.narrow(1, self.n, self.n)?)?)
    }
}

impl ByLibrary for PutColumns<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let product = rows(&inputs[0].flatten_all()?, self.n_tokens, self.n)?;
        let whole = rows(out, self.n_tokens, self.stride)?;
        let before = whole.narrow(1, self.column, self.n)?;
        let values = match self.output {
            Output::Write => product,
            Output::Add => (before + product)?,
        };
        let end = self.column + self.n;
        let left = whole.narrow(1, 0, self.column)?;
        let right = whole.narrow(1, end, self.stride - end)?;
        let parts: Vec<Tensor> = [left, values, right]
            .into_iter()
            .filter(|part| part.elem_count() > 0)
            .collect();
        put(out, &Tensor::cat(&parts, 1)?)
    }
}

impl ByLibrary for Rope<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, x: &Tensor, _: &[&Tensor]) -> Result<()> {
        let (n_tokens, n_pairs) = (self.positions.host.len(), self.table.rope_dim() / 2);
        let rope_dim = 2 * n_pairs;
        // The turns of the step's positions, cosine and sine.
        let of_position = |position: &u32| {
            let start = *position as usize * rope_dim;
            &self.table.values()[start..start + rope_dim]
        };
        let turns: Vec<f32> = self
            .positions
            .host
            .iter()
            .flat_map(of_position)
            .copied()
            .collect();
        let turns = Tensor::from_vec(turns, (n_tokens, 1, n_pairs, 2), x.device())?;
        let (cosine, sine) = (turns.narrow(3, 0, 1)?, turns.narrow(3, 1, 1)?);
        let all = rows(x, n_tokens, self.stride)?;
        let n_values = self.n_heads * self.head_dim;
        let heads = all.narrow(1, 0, n_values)?.contiguous()?;
        let heads = heads.reshape((n_tokens, self.n_heads, self.head_dim))?;
        let pairs = heads.narrow(2, 0, rope_dim)?.contiguous()?;
        let pairs = pairs.reshape((n_tokens, self.n_heads, n_pairs, 2))?;
        let (a, b) = (pairs.narrow(3, 0, 1)?, pairs.narrow(3, 1, 1)?);
        let turned_a = (a.broadcast_mul(&cosine)? - b.broadcast_mul(&sine)?)?;
        let turned_b = (a.broadcast_mul(&sine)? + b.broadcast_mul(&cosine)?)?;
        let turned = Tensor::cat(&[turned_a, turned_b], 3)?;
        let turned = turned.reshape((n_tokens, self.n_heads, rope_dim))?;
        let turned = if rope_dim < self.head_dim {
            let rest = heads.narrow(2, rope_dim, self.head_dim - rope_dim)?;
            Tensor::cat(&[turned, rest], 2)?
        } else {
            turned
        };
        let turned = turned.reshape((n_tokens, n_values))?;
        let rest = all.narrow(1, n_values, self.stride - n_values)?;
        put(x, &Tensor::cat(&[turned, rest], 1)?)
    }
}

/// The cache in the library's hands: `[2, n_slots, n_kv_heads * head_dim]` in half precision, flat.
impl ByLibrary for WriteKv<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, cache: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let row_len = self.shape.n_kv_heads * self.shape.head_dim;
        let slots = self.slot_mapping.host;
        let new = rows(inputs[0], slots.len(), self.stride)?;
        let half = cache.elem_count() / 2;
        for (first, start) in [(self.first_key, 0), (self.first_key + row_len, half)] {
            let values = new.narrow(1, first, row_len)?.contiguous()?;
            let values = values.to_dtype(DType::F16)?;
            // Slots that follow each other are one copy.
            let mut begin = 0;
            for run in slots.chunk_by(|a, b| a + 1 == *b) {
                let values = values.narrow(0, begin, run.len())?.contiguous()?;
                let place = start + run[0] as usize * row_len;
                cache.slice_set(&values.flatten_all()?, 0, place)?;
                begin += run.len();
            }
        }
        Ok(())
    }
}

impl ByLibrary for PagedAttention<'_> {
    fn place(&self) -> Place<'_> {
        self.place
    }

    fn by_library(&self, out: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let args = &self.args;
        let n_values = args.n_heads * args.shape.head_dim;
        let q = rows(inputs[0], args.positions.len(), self.stride)?;
        let q = q.narrow(1, 0, n_values)?.contiguous()?;
        let mut parts = Vec::new();
        for (ends, table) in args.cu_seqlens.windows(2).zip(args.block_tables) {
            let tokens = ends[0] as usize..ends[1] as usize;
            let q = q.narrow(0, tokens.start, tokens.len())?;
            parts.push(attend(args, &q, &args.positions[tokens], table, inputs[1])?);
        }
        put(out, &Tensor::cat(&parts, 0)?)
    }
}

/// Attention of some tokens of one sequence.
fn attend(
    args: &AttentionArgs<'_>,
    q: &Tensor,
    positions: &[u32],
    table: &[u32],
    cache: &Tensor,
) -> Result<Tensor> {
    let shape = &args.shape;
    let (n_tokens, n_kv_heads, head_dim) = (positions.len(), shape.n_kv_heads, shape.head_dim);
    let group_heads = args.n_heads / n_kv_heads;
    let len = positions.iter().max().map_or(0, |last| last + 1);
    let block_len = u32::try_from(shape.block_len).map_err(candle_core::Error::wrap)?;
    let slot = |position: u32| {
        let block = table.get((position / block_len) as usize).copied();
        block.unwrap_or_default() * block_len + position % block_len
    };
    let slots: Vec<u32> = (0..len).map(slot).collect();
    let len = slots.len();
    let slots = Tensor::from_vec(slots, len, q.device())?;
    let half = cache.elem_count() / 2;
    let row_len = n_kv_heads * head_dim;
    // [n_kv_heads, len, head_dim]
    let of_half = |start: usize| {
        let all = cache
            .narrow(0, start, half)?
            .reshape((half / row_len, row_len))?;
        let seen = all.index_select(&slots, 0)?.to_dtype(DType::F32)?;
        let heads = seen.reshape((len, n_kv_heads, head_dim))?;
        heads.transpose(0, 1)?.contiguous()
    };
    let (k, v) = (of_half(0)?, of_half(half)?);
    let n_rows = n_tokens * group_heads;
    let q = q.reshape((n_tokens, n_kv_heads, group_heads, head_dim))?;
    let q = q.permute((1, 0, 2, 3))?.contiguous()?;
    let q = (q.reshape((n_kv_heads, n_rows, head_dim))? * f64::from(args.scale))?;
    let scores = q.matmul(&k.transpose(1, 2)?.contiguous()?)?;
    let mut mask = Vec::with_capacity(n_rows * len);
    for position in positions {
        let end = *position as usize + 1;
        let begin = end.saturating_sub(args.sliding_window.unwrap_or(u32::MAX) as usize);
        let seen = |at: usize| {
            if (begin..end).contains(&at) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        };
        for _ in 0..group_heads {
            mask.extend((0..len).map(seen));
        }
    }
    let mask = Tensor::from_vec(mask, (1, n_rows, len), scores.device())?;
    let scores = scores.broadcast_add(&mask)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
    let attended = weights.matmul(&v)?;
    let attended = attended.reshape((n_kv_heads, n_tokens, group_heads, head_dim))?;
    let attended = attended.permute((1, 0, 2, 3))?.contiguous()?;
    attended.reshape((n_tokens, args.n_heads * head_dim))
}
