//! What a weight type has to say of itself, made into functions over whole strips.

use super::super::panel::{DotOne, Unpack};

/// The functions of a weight type.
#[derive(Clone, Copy)]
pub(super) struct TypeKernels {
    pub(super) unpack: Unpack,
    pub(super) dot_one: DotOne,
}

/// Makes the functions of a type whose blocks have so many bytes, and so many runs of the listed
/// groups:
/// - `scales(rows, half, groups)` writes the scales and minima of a block's rows into the panel;
/// - `quants::<GROUP, LEN>(rows, run)` gives a group's quants, a vector for four of `k`.
///
/// Runs are a loop and the groups of a run are written out: all of a block's groups written out would
/// be too much for the compiler to keep in one function.
macro_rules! type_kernels {
    ($name:ident: $bytes:literal bytes, $law:ty, $runs:literal x $groups:tt, $scales:path, $quants:ident) => {
        pub(super) const $name: TypeKernels = {
            const LEN: usize = 16 * $bytes;
            const N_GROUPS: usize = $runs * $groups.len();

            #[target_feature(enable = "avx2,fma,f16c")]
            fn unpack(strip: &[u8], first_group: usize, panel: &mut [PanelGroup]) {
                let blocks = &strip.as_chunks::<LEN>().0[first_group / N_GROUPS..];
                for (block, groups) in blocks.iter().zip(panel.as_chunks_mut::<N_GROUPS>().0) {
                    for half in 0..2 {
                        let rows = Rows::new(block, half);
                        $scales(rows, half, groups);
                        for (run, groups) in groups.chunks_exact_mut($groups.len()).enumerate() {
                            each_group!($groups, GROUP, {
                                let quants = $quants::<GROUP, LEN>(rows, run);
                                let bytes = groups[GROUP].quants.iter_mut();
                                for (vector, bytes) in quants.iter().zip(bytes) {
                                    store_bytes(*vector, &mut bytes[half]);
                                }
                            });
                        }
                    }
                }
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            fn dot_one(strip: &[u8], acts: &[ActGroup], panel: &mut Panel, sums: &mut Sums) {
                let Some(scales) = panel.first_chunk_mut::<N_GROUPS>() else {
                    return; // a panel has groups enough for any type
                };
                let mut totals = [[load_floats(&sums[0])], [load_floats(&sums[1])]];
                let blocks = strip.as_chunks::<LEN>().0;
                for (block, acts) in blocks.iter().zip(acts.as_chunks::<N_GROUPS>().0) {
                    for (half, totals) in totals.iter_mut().enumerate() {
                        let rows = Rows::new(block, half);
                        $scales(rows, half, scales);
                        let runs = scales.chunks_exact($groups.len());
                        let acts = acts.chunks_exact($groups.len());
                        for (run, (groups, acts)) in runs.zip(acts).enumerate() {
                            each_group!($groups, GROUP, {
                                let quants = $quants::<GROUP, LEN>(rows, run);
                                let act = [&acts[GROUP]];
                                add_group::<$law, 1>(&quants, &groups[GROUP], half, &act, totals);
                            });
                        }
                    }
                }
                for (total, sums) in totals.into_iter().zip(sums) {
                    store_floats(total[0], sums);
                }
            }

            TypeKernels { unpack, dot_one }
        };
    };
}
pub(super) use type_kernels;

/// Repeats a block for each number of a list, as a constant.
macro_rules! each_group {
    ([$($number:literal),+], $constant:ident, $block:block) => {$({
        const $constant: usize = $number;
        $block
    })+};
}
pub(super) use each_group;
