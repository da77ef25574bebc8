//! The quantised product: which code serves a matrix, and how the work is cut.
//!
//! A task takes tiles of 16 weight rows. A tile is multiplied with a few rows of activations at a time,
//! its weights unpacked in registers; where those are too few, its weights are unpacked to a panel, once
//! for 256 of `k` and up to 64 rows of activations.

use std::ops::Range;

use super::direct::DirectRows;
use super::panel::{Dot, PANEL_GROUPS, Panel, Sums, TILE_ROWS, Unpack};
use super::unpack::{self, Packing};
use super::{Matrix, Out, Output, Part, Weights, scalar};
use crate::block::GROUP_LEN;
use crate::pack::Packed;
use crate::quantize::{ActGroup, row_words};
use crate::team::Disjoint;
use crate::{Isa, Turn, WeightType};

/// Activation rows a panel serves: their sums are 4 KiB.
const BATCH_ROWS: usize = 64;
/// Activation rows that a panel is multiplied with at once.
const PANEL_ROWS: usize = 4;
/// Activation rows from which on making a panel pays.
const PANEL_FROM: usize = 5;
/// The most activation rows of a direct function.
const DIRECT_ROWS: usize = 8;
/// Multiplications a task should have, at least: some microseconds.
const TASK_PRODUCTS: usize = 1 << 17;
/// Tasks a thread should find, where there is work enough: the last to finish keeps the rest waiting.
const TASKS_PER_THREAD: usize = 24;

/// The code for one weight type on one tier.
#[derive(Clone, Copy)]
struct Kernel {
    /// Functions for certain numbers of activation rows, the largest number first.
    direct: &'static [DirectRows],
    /// For every number of rows, by way of a panel.
    panel: Option<(Unpack, Dot)>,
}

/// A part of a product under way.
struct Product<'a> {
    w: &'a Matrix,
    packed: &'a Packed,
    /// The first column of the result.
    column: usize,
    acts: &'a [u32],
    out: &'a Disjoint<'a, f32>,
    stride: usize,
    output: Output,
    m: usize,
    kernel: Kernel,
}

/// Computes all parts; the shapes were checked, and none is empty.
pub(super) fn linear(turn: &Turn<'_>, parts: &[Part<'_>], acts: &[u32], out: &mut Out<'_>) {
    let (stride, output) = (out.stride, out.output);
    let out = Disjoint::new(out.values);
    let products: Vec<Product<'_>> = parts
        .iter()
        .filter_map(|part| {
            let w = part.matrix;
            let Weights::Packed(packed) = &w.weights else {
                return None; // the caller checked that the weights are quantised
            };
            Some(Product {
                w,
                packed,
                column: part.column,
                acts,
                out: &out,
                stride,
                output,
                m: acts.len() / row_words(w.k),
                kernel: Kernel::of(turn.isa(), w.weight_type),
            })
        })
        .collect();
    let all_tiles: usize = products.iter().map(Product::n_tiles).sum();
    let least_tiles = all_tiles / (turn.n_threads() * TASKS_PER_THREAD);
    let n_tasks =
        |product: &Product<'_>| product.n_tiles().div_ceil(product.task_tiles(least_tiles));
    turn.run(products.iter().map(n_tasks).sum(), &|mut task_idx| {
        // Made where it is needed.
        let mut panel = None;
        for product in &products {
            let n_tasks = n_tasks(product);
            if task_idx < n_tasks {
                let task_tiles = product.task_tiles(least_tiles);
                let end = product.n_tiles().min((task_idx + 1) * task_tiles);
                (task_idx * task_tiles..end)
                    .for_each(|tile_idx| product.tile(tile_idx, &mut panel));
                return;
            }
            task_idx -= n_tasks;
        }
    });
}

impl Product<'_> {
    fn n_tiles(&self) -> usize {
        self.w.n.div_ceil(TILE_ROWS)
    }

    /// Tiles of a task, of which all parts together should have `least_tiles` at least.
    fn task_tiles(&self, least_tiles: usize) -> usize {
        let tile_products = TILE_ROWS * self.w.k * self.m;
        let tiles = TASK_PRODUCTS.div_ceil(tile_products).max(least_tiles);
        tiles.min(self.n_tiles())
    }

    /// Computes 16 columns of the result.
    fn tile(&self, tile_idx: usize, panel: &mut Option<Panel>) {
        let strip = self.packed.strip(tile_idx);
        let mut first = 0;
        while first < self.m {
            let left = self.m - first;
            let direct = self.kernel.direct.iter();
            let fitting = direct.copied().find(|(n_rows, _)| *n_rows <= left);
            first += match (fitting, self.kernel.panel) {
                // Few rows are multiplied sooner than a panel is made.
                (Some((n_rows, direct)), panel) if left < PANEL_FROM || panel.is_none() => {
                    let mut sums = [Sums::default(); DIRECT_ROWS];
                    let acts = self.rows::<DIRECT_ROWS>(first, n_rows, 0..self.n_groups());
                    // SAFETY: `Kernel::of` chose the code by a token that proves its instructions.
                    unsafe { direct(strip, &acts[..n_rows], &mut sums[..n_rows]) };
                    self.store(tile_idx, first, &sums[..n_rows]);
                    n_rows
                }
                (_, Some(functions)) => {
                    let n_rows = left.min(BATCH_ROWS);
                    let mut sums = [Sums::default(); BATCH_ROWS];
                    let panel = panel.get_or_insert(Panel::ZERO);
                    self.batch(functions, strip, first, panel, &mut sums[..n_rows]);
                    self.store(tile_idx, first, &sums[..n_rows]);
                    n_rows
                }
                // There is a way for one row at least.
                (_, None) => left,
            };
        }
    }

    /// Groups of a row.
    fn n_groups(&self) -> usize {
        self.w.k / GROUP_LEN
    }

    /// Some groups of `n_rows` activation rows; where there are fewer than `N`, the last one fills up.
    fn rows<const N: usize>(
        &self,
        first: usize,
        n_rows: usize,
        groups: Range<usize>,
    ) -> [&[ActGroup]; N] {
        let (acts, _) = self.acts.as_chunks();
        std::array::from_fn(|i| {
            let row_idx = first + i.min(n_rows - 1);
            &acts[row_idx * self.n_groups()..][groups.clone()]
        })
    }

    /// Adds all groups' products for activation rows from `first` on.
    fn batch(
        &self,
        (unpack, dot): (Unpack, Dot),
        strip: &[u8],
        first: usize,
        panel: &mut Panel,
        sums: &mut [Sums],
    ) {
        for first_group in (0..self.n_groups()).step_by(PANEL_GROUPS) {
            let groups = first_group..self.n_groups().min(first_group + PANEL_GROUPS);
            // SAFETY: `Kernel::of` chose the code by a token that proves its instructions.
            unsafe { unpack(strip, groups.clone(), panel) };
            for (chunk_idx, sums) in sums.chunks_mut(PANEL_ROWS).enumerate() {
                let first = first + chunk_idx * PANEL_ROWS;
                let acts = self.rows::<PANEL_ROWS>(first, sums.len(), groups.clone());
                // SAFETY: as above.
                unsafe { dot(panel, &acts[..sums.len()], sums) };
            }
        }
    }

    /// Writes the finished sums of a tile into the result.
    fn store(&self, tile_idx: usize, first_act: usize, sums: &[Sums]) {
        let first_row = tile_idx * TILE_ROWS;
        let n_rows = TILE_ROWS.min(self.w.n - first_row);
        for (i, sums) in sums.iter().enumerate() {
            let start = (first_act + i) * self.stride + self.column + first_row;
            // SAFETY: a tile, and with it these columns, belongs to one task.
            let out = unsafe { self.out.slice_mut(start..start + n_rows) };
            // A whole tile's columns are a number the compiler knows.
            match out.first_chunk_mut::<TILE_ROWS>() {
                Some(out) => put(self.output, sums, out),
                None => put(self.output, sums, out),
            }
        }
    }
}

/// Puts sums into a row of the result.
#[inline]
fn put(output: Output, sums: &Sums, out: &mut [f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        match output {
            Output::Write => *out = *sum,
            Output::Add => *out += *sum,
        }
    }
}

impl Kernel {
    /// The code for a quantised weight type.
    fn of(isa: Isa, weight_type: WeightType) -> Self {
        match weight_type {
            // Floats never come here; were one to, its rows would hold no groups.
            WeightType::F32 | WeightType::F16 | WeightType::BF16 | WeightType::Q4_0 => {
                Self::with::<unpack::Q4_0>(isa, weight_type)
            }
            WeightType::Q4_1 => Self::with::<unpack::Q4_1>(isa, weight_type),
            WeightType::Q5_0 => Self::with::<unpack::Q5_0>(isa, weight_type),
            WeightType::Q5_1 => Self::with::<unpack::Q5_1>(isa, weight_type),
            WeightType::Q8_0 => Self::with::<unpack::Q8_0>(isa, weight_type),
            WeightType::Q2K => Self::with::<unpack::Q2K>(isa, weight_type),
            WeightType::Q3K => Self::with::<unpack::Q3K>(isa, weight_type),
            WeightType::Q4K => Self::with::<unpack::Q4K>(isa, weight_type),
            WeightType::Q5K => Self::with::<unpack::Q5K>(isa, weight_type),
            WeightType::Q6K => Self::with::<unpack::Q6K>(isa, weight_type),
        }
    }

    fn with<P: Packing>(isa: Isa, weight_type: WeightType) -> Self {
        match isa {
            Isa::Scalar => Self {
                direct: &[],
                panel: Some((scalar::unpack_of(weight_type), scalar::dot::<P::Law>)),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => Self {
                direct: super::avx2::direct_of::<P>(),
                panel: Some((super::avx2::unpack_of::<P>(), super::avx2::dot::<P::Law>)),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(proof) => Self {
                direct: super::avx_vnni::direct_of::<P>(proof),
                panel: None,
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => Self {
                direct: super::avx512::direct_of::<P>(),
                panel: None,
            },
        }
    }
}
