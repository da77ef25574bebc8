//! The quantised product: which code serves a matrix, and how the work is cut.
//!
//! A task takes tiles of 16 weight rows. A tile's weights are unpacked once for 256 of `k` and up to
//! 64 rows of activations; the sums stay at hand until the tile is done.

use super::panel::{
    BiasedFives, BiasedNibbles, Bytes, Dot, DotOne, Fives, Law, Nibbles, PANEL_GROUPS, Panel,
    PanelGroup, SubSixes, SubThrees, SubTwos, Sums, TILE_ROWS, Unpack,
};
use super::{Matrix, Output, Weights, scalar};
use crate::block::GROUP_LEN;
use crate::pack::Packed;
use crate::quantize::{ActGroup, row_words};
use crate::team::Disjoint;
use crate::{Isa, Turn, WeightType};

/// Activation rows a tile is multiplied with at once: their sums are 4 KiB.
const BATCH_ROWS: usize = 64;
/// Activation rows whose addresses are held at once.
const ACT_ROWS: usize = 4;
/// Multiplications a task should have, at least: some microseconds.
const TASK_PRODUCTS: usize = 1 << 17;
/// Tasks a thread should find, where there is work enough: the last to finish keeps the rest waiting.
const TASKS_PER_THREAD: usize = 6;

/// The code for one weight type on one tier.
#[derive(Clone, Copy)]
struct Kernel {
    unpack: Unpack,
    dot: Dot,
    /// For one row of activations, where there is a way without a panel.
    dot_one: Option<DotOne>,
}

/// A product under way.
struct Product<'a> {
    w: &'a Matrix,
    packed: &'a Packed,
    acts: &'a [u32],
    out: Disjoint<'a, f32>,
    output: Output,
    m: usize,
    kernel: Kernel,
}

/// Computes `out = acts · wᵀ`; the shapes were checked, and neither is empty.
pub(super) fn linear(turn: &Turn<'_>, w: &Matrix, acts: &[u32], out: &mut [f32], output: Output) {
    let m = acts.len() / row_words(w.k);
    let n_tiles = w.n.div_ceil(TILE_ROWS);
    let tile_products = TILE_ROWS * w.k * m;
    let task_tiles = TASK_PRODUCTS
        .div_ceil(tile_products)
        .max(n_tiles / (turn.n_threads() * TASKS_PER_THREAD))
        .min(n_tiles);
    let kernel = Kernel::of(turn.isa(), w.weight_type);
    let Weights::Packed(packed) = &w.weights else {
        // The caller checked that the weights are quantised.
        return;
    };
    let product = Product {
        w,
        packed,
        acts,
        out: Disjoint::new(out),
        output,
        m,
        kernel,
    };
    turn.run(n_tiles.div_ceil(task_tiles), &|task_idx| {
        let mut panel = [PanelGroup::ZERO; PANEL_GROUPS];
        let tiles = task_idx * task_tiles..n_tiles.min((task_idx + 1) * task_tiles);
        tiles.for_each(|tile_idx| product.tile(tile_idx, &mut panel));
    });
}

impl Product<'_> {
    /// Computes 16 columns of the result.
    fn tile(&self, tile_idx: usize, panel: &mut Panel) {
        let first_row = tile_idx * TILE_ROWS;
        let strip = self.packed.strip(tile_idx);
        let n_groups = self.w.k / GROUP_LEN;
        for first in (0..self.m).step_by(BATCH_ROWS) {
            let n_rows = BATCH_ROWS.min(self.m - first);
            if let (1, Some(dot_one)) = (n_rows, self.kernel.dot_one) {
                let mut sums = [Sums::default(); 1];
                let (acts, _) = self.acts.as_chunks();
                let acts = &acts[first * n_groups..(first + 1) * n_groups];
                // SAFETY: `Kernel::of` chose the code by a token that proves its instructions.
                unsafe { dot_one(strip, acts, panel, &mut sums[0]) };
                self.store(first_row, first, &sums);
            } else {
                let mut sums = [Sums::default(); BATCH_ROWS];
                self.batch(strip, n_groups, first, panel, &mut sums[..n_rows]);
                self.store(first_row, first, &sums[..n_rows]);
            }
        }
    }

    /// Adds all groups' products for activation rows from `first` on.
    fn batch(
        &self,
        strip: &[u8],
        n_groups: usize,
        first: usize,
        panel: &mut Panel,
        sums: &mut [Sums],
    ) {
        let (acts, _) = self.acts.as_chunks();
        for first_group in (0..n_groups).step_by(PANEL_GROUPS) {
            let panel = &mut panel[..PANEL_GROUPS.min(n_groups - first_group)];
            // SAFETY: `Kernel::of` chose the code by a token that proves its instructions.
            unsafe { (self.kernel.unpack)(strip, first_group, panel) };
            for (chunk_idx, sums) in sums.chunks_mut(ACT_ROWS).enumerate() {
                let first_act = first + chunk_idx * ACT_ROWS;
                // Where a chunk is short, its last row fills the array and is not used.
                let acts: [&[ActGroup]; ACT_ROWS] = std::array::from_fn(|i| {
                    let row_idx = first_act + i.min(sums.len() - 1);
                    &acts[row_idx * n_groups + first_group..][..panel.len()]
                });
                // SAFETY: as above.
                unsafe { (self.kernel.dot)(panel, &acts[..sums.len()], sums) };
            }
        }
    }

    /// Writes the finished sums of a tile into the result.
    fn store(&self, first_row: usize, first_act: usize, sums: &[Sums]) {
        let n_rows = TILE_ROWS.min(self.w.n - first_row);
        for (i, sums) in sums.iter().enumerate() {
            let start = (first_act + i) * self.w.n + first_row;
            // SAFETY: a tile, and with it these columns, belongs to one task.
            let out = unsafe { self.out.slice_mut(start..start + n_rows) };
            for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
                match self.output {
                    Output::Write => *out = *sum,
                    Output::Add => *out += *sum,
                }
            }
        }
    }
}

impl Kernel {
    /// The code for a quantised weight type.
    fn of(isa: Isa, weight_type: WeightType) -> Self {
        match weight_type {
            // Floats never come here; were one to, its rows would hold no groups.
            WeightType::F32 | WeightType::F16 | WeightType::BF16 | WeightType::Q4_0 => {
                Self::with_law::<Nibbles>(isa, weight_type)
            }
            WeightType::Q4_1 | WeightType::Q4K => Self::with_law::<BiasedNibbles>(isa, weight_type),
            WeightType::Q5_0 => Self::with_law::<Fives>(isa, weight_type),
            WeightType::Q5_1 | WeightType::Q5K => Self::with_law::<BiasedFives>(isa, weight_type),
            WeightType::Q8_0 => Self::with_law::<Bytes>(isa, weight_type),
            WeightType::Q2K => Self::with_law::<SubTwos>(isa, weight_type),
            WeightType::Q3K => Self::with_law::<SubThrees>(isa, weight_type),
            WeightType::Q6K => Self::with_law::<SubSixes>(isa, weight_type),
        }
    }

    fn with_law<L: Law>(isa: Isa, weight_type: WeightType) -> Self {
        match isa {
            Isa::Scalar => Self {
                unpack: scalar::unpack_of(weight_type),
                dot: scalar::dot::<L>,
                dot_one: None,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => Self {
                unpack: super::avx2::unpack_of(weight_type),
                dot: super::avx2::dot::<L>,
                dot_one: Some(super::avx2::dot_one_of(weight_type)),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => Self {
                unpack: super::avx2::unpack_of(weight_type),
                dot: super::avx512::dot::<L>,
                // One row waits for memory, not for wider vectors.
                dot_one: Some(super::avx2::dot_one_of(weight_type)),
            },
        }
    }
}
