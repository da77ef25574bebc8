//! The quantised product in 256-bit vectors: a vector holds eight weight rows, a lane each.
//!
//! One to four rows of activations are multiplied straight from a strip, more by way of a panel.
//! The functions here are safe but for their features; whoever calls them without has to hold a token.

mod group;

use std::ops::Range;

use super::direct::{Arithmetic, DirectRows, LINE_BYTES, add_strip};
use super::panel::{GroupScales, Law, Panel, Sums, TILE_ROWS, Unpack};
use super::unpack::{Packing, Rows};
use super::vector::{F256, V256, Vector};
use crate::isa::Avx2;
use crate::quantize::ActGroup;
use group::Scales;

/// The functions that multiply a strip directly: as many rows as there are registers for.
pub(super) fn direct_of<P: Packing>() -> &'static [DirectRows] {
    const {
        &[
            (4, direct::<P, 4> as _),
            (2, direct::<P, 2> as _),
            (1, direct::<P, 1> as _),
        ]
    }
}

/// The function that unpacks a type.
pub(super) fn unpack_of<P: Packing>() -> Unpack {
    unpack::<P>
}

#[target_feature(enable = "avx2,fma,f16c")]
fn direct<P: Packing, const M: usize>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx2::assume() };
    add_strip::<P, V256<Avx2>, M>(proof, strip, acts, sums);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack<P: Packing>(strip: &[u8], groups: Range<usize>, panel: &mut Panel) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx2::assume() };
    let blocks = strip.chunks_exact(P::STRIP_BLOCK_BYTES);
    let blocks = blocks.skip(groups.start / P::GROUPS);
    let quants = panel.quants[..groups.len()].chunks_exact_mut(P::GROUPS);
    let scales = panel.scales[..groups.len()].chunks_exact_mut(P::GROUPS);
    for (block, (quants, scales)) in blocks.zip(quants.zip(scales)) {
        for line in (0..P::STRIP_BLOCK_BYTES).step_by(LINE_BYTES) {
            let ahead = V256::<Avx2>::PREFETCH_BYTES + line;
            V256::prefetch(proof, block.as_ptr().wrapping_add(ahead));
        }
        for part in 0..V256::<Avx2>::PARTS {
            let rows = Rows::<V256<Avx2>>::new(proof, block, part);
            P::scales(rows, scales);
            for (run, quants) in quants.chunks_exact_mut(P::RUN_GROUPS).enumerate() {
                // Written out, so that a group's constants are constants.
                unpack_group::<P, 0>(rows, run, quants);
                unpack_group::<P, 1>(rows, run, quants);
                unpack_group::<P, 2>(rows, run, quants);
                unpack_group::<P, 3>(rows, run, quants);
            }
        }
    }
}

/// Unpacks one group of a run, if the run has it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_group<P: Packing, const GROUP: usize>(
    rows: Rows<'_, V256<Avx2>>,
    run: usize,
    groups: &mut [[[u32; TILE_ROWS]; 8]],
) {
    if GROUP < P::RUN_GROUPS {
        let quants = P::quants::<V256<Avx2>, GROUP>(rows, run);
        for (vector, words) in quants.iter().zip(&mut groups[GROUP]) {
            vector.store(words, rows.part());
        }
    }
}

/// Adds the products of a panel to the sums of up to four rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<L: Law>(panel: &Panel, acts: &[&[ActGroup]], sums: &mut [Sums]) {
    match sums.len() {
        4.. => dot_rows::<L, 4>(panel, acts, sums),
        3 => dot_rows::<L, 3>(panel, acts, sums),
        2 => dot_rows::<L, 2>(panel, acts, sums),
        _ => dot_rows::<L, 1>(panel, acts, sums),
    }
}

/// The products of a panel with `M` rows of activations: a loaded weight serves all of them, a loaded
/// activation both vectors of weight rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<L: Law, const M: usize>(panel: &Panel, acts: &[&[ActGroup]], sums: &mut [Sums]) {
    let (Some(acts), Some(sums)) = (acts.first_chunk::<M>(), sums.first_chunk_mut::<M>()) else {
        return; // the caller has as many rows
    };
    let groups = panel.quants.iter().zip(&panel.scales).take(acts[0].len());
    for (group_idx, (quants, scales)) in groups.enumerate() {
        let mut groups = [&acts[0][group_idx]; M];
        for (group, act) in groups.iter_mut().zip(acts) {
            *group = &act[group_idx];
        }
        let scales = Scales::whole(scales);
        let dots = group::dots::<L, _, 2, M>(quants, scales, &groups);
        group::finish::<L, 2, M>(&dots, scales, &groups, &mut *sums);
    }
}

impl Arithmetic for V256<Avx2> {
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "compiled for the caller's instructions"
    )]
    fn add_group<L: Law, const M: usize>(
        _: Avx2,
        quants: &[Self; 8],
        scales: &GroupScales,
        part: usize,
        acts: &[&ActGroup; M],
        totals: &mut [F256; M],
    ) {
        let scales = Scales::part(scales, part);
        // SAFETY: the vectors prove AVX2, FMA and F16C.
        let dots = unsafe { group::dots::<L, _, 1, M>(quants, scales, acts) };
        // SAFETY: as above.
        unsafe { group::finish::<L, 1, M>(&dots, scales, acts, totals) }
    }
}
