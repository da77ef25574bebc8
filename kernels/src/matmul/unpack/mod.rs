//! From the bits of a packed strip to quants and scales, for vectors of any width.
//!
//! What is written here is compiled for the instructions of whoever calls it: everything is inlined,
//! and closures, which would not always be, are not used.

mod k;
mod legacy;

pub(super) use k::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(super) use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

use super::panel::{GroupScales, Law};
use super::vector::Vector;
use crate::pack::{place, strip_block_bytes};

/// Groups of a block, at most: those of a super-block.
pub(super) const BLOCK_GROUPS_MOST: usize = 8;
/// Groups of a run, at most.
pub(super) const RUN_GROUPS_MOST: usize = 4;

/// How a weight type packs its quants and scales. A block is a number of runs, a run of groups; the
/// groups of a run differ in constants only.
pub(super) trait Packing {
    /// How its quants become a product.
    type Law: Law;
    /// Bytes of a row's block.
    const BLOCK_BYTES: usize;
    /// Runs of a block.
    const RUNS: usize;
    /// Groups of a run.
    const RUN_GROUPS: usize;
    /// Groups of a block.
    const GROUPS: usize = Self::RUNS * Self::RUN_GROUPS;
    /// Bytes of a strip's block.
    const STRIP_BLOCK_BYTES: usize = strip_block_bytes(Self::BLOCK_BYTES);

    /// Writes the scales of all groups of some rows of a block.
    fn scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]);

    /// The quants of all groups of a run at one step: for four of `k`. What a run has no group for is
    /// arbitrary.
    fn step<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; RUN_GROUPS_MOST];

    /// The quants of a group of a run, a vector for each step.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn quants<V: Vector, const GROUP: usize>(rows: Rows<'_, V>, run: usize) -> [V; 8] {
        // Written out: a loop's steps are no constants.
        [
            Self::step(rows, run, 0)[GROUP],
            Self::step(rows, run, 1)[GROUP],
            Self::step(rows, run, 2)[GROUP],
            Self::step(rows, run, 3)[GROUP],
            Self::step(rows, run, 4)[GROUP],
            Self::step(rows, run, 5)[GROUP],
            Self::step(rows, run, 6)[GROUP],
            Self::step(rows, run, 7)[GROUP],
        ]
    }
}

/// As many rows of a strip's block as a vector has lanes.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, V: Vector> {
    proof: V::Proof,
    block: &'a [u8],
    part: usize,
}

#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
impl<'a, V: Vector> Rows<'a, V> {
    /// Part `part` of the rows of a block.
    #[inline(always)]
    pub(super) fn new(proof: V::Proof, block: &'a [u8], part: usize) -> Self {
        Self { proof, block, part }
    }

    /// The proof that the instructions exist.
    #[inline(always)]
    pub(super) fn proof(self) -> V::Proof {
        self.proof
    }

    /// The rows' block, with those of all other rows of the strip.
    #[inline(always)]
    pub(super) fn block(self) -> &'a [u8] {
        self.block
    }

    /// Which of the vectors that make up 16 rows.
    #[inline(always)]
    pub(super) fn part(self) -> usize {
        self.part
    }

    /// The word at `at` of each row's packed block.
    #[inline(always)]
    fn word(self, at: usize) -> V {
        V::load(self.proof, &self.block[place(at) + V::BYTES * self.part..])
    }

    /// The four words from `at` on.
    #[inline(always)]
    fn quads(self, at: usize) -> [V; 4] {
        [
            self.word(at),
            self.word(at + 4),
            self.word(at + 8),
            self.word(at + 12),
        ]
    }

    /// The half-precision float at `at` of each row's packed block, where it takes two bytes.
    #[inline(always)]
    fn odd_half(self, at: usize) -> V::Floats {
        let start = place(at) + V::BYTES / 2 * self.part;
        V::load_halves(self.proof, &self.block[start..])
    }
}
