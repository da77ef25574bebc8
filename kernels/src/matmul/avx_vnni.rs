//! The quantised product in 256-bit vectors with the byte dot product, in both ways of writing it.

use super::direct::{DirectRows, add_strip};
use super::panel::Sums;
use super::unpack::Packing;
use super::vector::V256;
use crate::isa::{AvxVnni, Encoding, Evex, Vex};
use crate::quantize::ActGroup;

/// The functions that multiply a strip directly, the one for most rows first: as many as 16 registers
/// hold sums for.
pub(super) fn direct_of<P: Packing>(AvxVnni(encoding): AvxVnni) -> &'static [DirectRows] {
    match encoding {
        Encoding::Vex(_) => {
            const {
                &[
                    (4, vex::<P, 4> as _),
                    (2, vex::<P, 2> as _),
                    (1, vex::<P, 1> as _),
                ]
            }
        }
        Encoding::Evex(_) => {
            const {
                &[
                    (4, evex::<P, 4> as _),
                    (2, evex::<P, 2> as _),
                    (1, evex::<P, 1> as _),
                ]
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn vex<P: Packing, const M: usize>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Vex::assume() };
    add_strip::<P, V256<Vex>, M>(proof, strip, acts, sums);
}

#[target_feature(enable = "avx2,fma,f16c,avx512vl,avx512vnni")]
fn evex<P: Packing, const M: usize>(strip: &[u8], acts: &[&[ActGroup]], sums: &mut [Sums]) {
    // SAFETY: this function's own instructions.
    let proof = unsafe { Evex::assume() };
    add_strip::<P, V256<Evex>, M>(proof, strip, acts, sums);
}
