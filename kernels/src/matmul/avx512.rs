//! The quantised product in 512-bit vectors: a vector holds the sixteen rows of a tile, a lane each.

use super::direct::{DirectRows, add_strip};
use super::panel::Sums;
use super::unpack::Packing;
use super::vector::V512;
use crate::isa::Avx512Vnni;
use crate::quantize::ActGroup;

/// The functions that multiply a strip directly, the one for most rows first.
pub(super) fn direct_of<P: Packing>() -> &'static [DirectRows] {
    const {
        &[
            (8, direct::<P, 8> as _),
            (4, direct::<P, 4> as _),
            (2, direct::<P, 2> as _),
            (1, direct::<P, 1> as _),
        ]
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn direct<P: Packing, const M: usize>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Avx512Vnni::assume() };
    add_strip::<P, V512, M>(proof, strip, acts, sums);
}
