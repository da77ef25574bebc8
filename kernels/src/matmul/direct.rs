//! The product of a strip with a few rows of activations, the quants never leaving their registers.

use super::panel::{GroupScales, Law, Sums};
use super::unpack::{BLOCK_GROUPS_MOST, Packing, Rows};
use super::vector::Vector;
use crate::quantize::ActGroup;

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// Adds the products of a whole strip with some rows of activations to their sums.
///
/// The number of rows is the function's own; it has the instructions of its tier.
pub(super) type Direct = unsafe fn(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]);

/// A number of rows and the function for them.
pub(super) type DirectRows = (usize, Direct);

/// The arithmetic of a group, on vectors of a width.
pub(super) trait Arithmetic: Vector {
    /// Adds the products of a group of weights with groups of `M` rows of activations.
    fn add_group<L: Law, const M: usize>(
        proof: Self::Proof,
        quants: &[Self; 8],
        scales: &GroupScales,
        part: usize,
        acts: &[&ActGroup; M],
        totals: &mut [Self::Floats; M],
    );
}

/// What a [`Direct`] does, once it is compiled for its instructions.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
pub(super) fn add_strip<P: Packing, V: Arithmetic, const M: usize>(
    proof: V::Proof,
    strip: &[u8],
    acts: &[&[ActGroup]],
    sums: &mut [Sums],
) {
    let (Some(acts), Some(sums)) = (acts.first_chunk::<M>(), sums.first_chunk_mut::<M>()) else {
        return; // the caller has as many rows
    };
    let mut scales = [GroupScales::ZERO; BLOCK_GROUPS_MOST];
    let scales = &mut scales[..P::GROUPS];
    // Two parts at most.
    let mut totals = [[V::floats(proof, &sums[0], 0); M]; 2];
    for (part, totals) in totals.iter_mut().enumerate().take(V::PARTS) {
        for (total, sums) in totals.iter_mut().zip(&*sums) {
            *total = V::floats(proof, sums, part);
        }
    }
    for (block_idx, block) in strip.chunks_exact(P::STRIP_BLOCK_BYTES).enumerate() {
        let acts = part_of(acts, block_idx * P::GROUPS, P::GROUPS);
        for (part, totals) in totals.iter_mut().enumerate().take(V::PARTS) {
            let rows = Rows::<V>::new(proof, block, part);
            P::scales(rows, scales);
            for run in 0..P::RUNS {
                let first = run * P::RUN_GROUPS;
                let scales = &scales[first..first + P::RUN_GROUPS];
                let acts = part_of(&acts, first, P::RUN_GROUPS);
                // Written out, so that a group's constants are constants.
                add_group::<P, V, 0, M>(rows, run, scales, &acts, totals);
                add_group::<P, V, 1, M>(rows, run, scales, &acts, totals);
                add_group::<P, V, 2, M>(rows, run, scales, &acts, totals);
                add_group::<P, V, 3, M>(rows, run, scales, &acts, totals);
            }
        }
    }
    for (part, totals) in totals.iter().enumerate().take(V::PARTS) {
        for (total, sums) in totals.iter().zip(&mut *sums) {
            super::vector::Floats::store(*total, sums, part);
        }
    }
}

/// Asks for weights further on, as many as a group has: no processor foresees the next page, and between
/// two groups' loads there is work enough to let it fall behind.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn prefetch<P: Packing, V: Vector>(rows: Rows<'_, V>, group_idx: usize) {
    let group_bytes = P::STRIP_BLOCK_BYTES / P::GROUPS / V::PARTS;
    // In the order of addresses, whatever part is under way: out of it, they came a third slower.
    let place = (rows.part() * P::GROUPS + group_idx) * group_bytes;
    let start = rows.block().as_ptr();
    let start = start.wrapping_add(V::PREFETCH_BYTES + place);
    for line in (0..group_bytes).step_by(LINE_BYTES) {
        V::prefetch(rows.proof(), start.wrapping_add(line));
    }
}

/// Some groups of each row.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn part_of<'a, const M: usize>(
    rows: &[&'a [ActGroup]; M],
    first: usize,
    len: usize,
) -> [&'a [ActGroup]; M] {
    let mut parts = *rows;
    for part in &mut parts {
        *part = &part[first..first + len];
    }
    parts
}

/// Adds the products of one group of a run, if the run has it.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]
fn add_group<P: Packing, V: Arithmetic, const GROUP: usize, const M: usize>(
    rows: Rows<'_, V>,
    run: usize,
    scales: &[GroupScales],
    acts: &[&[ActGroup]; M],
    totals: &mut [V::Floats; M],
) {
    if GROUP < P::RUN_GROUPS {
        prefetch::<P, V>(rows, run * P::RUN_GROUPS + GROUP);
        let quants = P::quants::<V, GROUP>(rows, run);
        let mut groups = [&acts[0][GROUP]; M];
        for (group, row) in groups.iter_mut().zip(acts) {
            *group = &row[GROUP];
        }
        V::add_group::<P::Law, M>(
            rows.proof(),
            &quants,
            &scales[GROUP],
            rows.part(),
            &groups,
            totals,
        );
    }
}
