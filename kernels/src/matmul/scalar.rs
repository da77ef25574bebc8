//! The quantised product in plain Rust: what every other tier is measured against.

use super::fused::mul_add;
use super::panel::{Law, PanelGroup, Sums, TILE_ROWS, Unpack};
use crate::WeightType;
use crate::quantize::ActRow;

/// The function that unpacks a type.
pub(super) fn unpack_of(weight_type: WeightType) -> Unpack {
    match weight_type {
        WeightType::Q4_1 => |rows, first, panel| unpack(WeightType::Q4_1, rows, first, panel),
        WeightType::Q5_0 => |rows, first, panel| unpack(WeightType::Q5_0, rows, first, panel),
        WeightType::Q5_1 => |rows, first, panel| unpack(WeightType::Q5_1, rows, first, panel),
        WeightType::Q8_0 => |rows, first, panel| unpack(WeightType::Q8_0, rows, first, panel),
        WeightType::Q2K => |rows, first, panel| unpack(WeightType::Q2K, rows, first, panel),
        WeightType::Q3K => |rows, first, panel| unpack(WeightType::Q3K, rows, first, panel),
        WeightType::Q4K => |rows, first, panel| unpack(WeightType::Q4K, rows, first, panel),
        WeightType::Q5K => |rows, first, panel| unpack(WeightType::Q5K, rows, first, panel),
        WeightType::Q6K => |rows, first, panel| unpack(WeightType::Q6K, rows, first, panel),
        // Floats are not unpacked: their rows hold no groups.
        WeightType::Q4_0 | WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
            |rows, first, panel| unpack(WeightType::Q4_0, rows, first, panel)
        }
    }
}

/// Unpacks groups of rows of any quantised type.
fn unpack(
    weight_type: WeightType,
    rows: &[&[u8]; TILE_ROWS],
    first_group: usize,
    panel: &mut [PanelGroup],
) {
    for (group_idx, unpacked) in panel.iter_mut().enumerate() {
        for (row_idx, row) in rows.iter().enumerate() {
            if let Some(group) = weight_type.group(row, first_group + group_idx) {
                unpacked.put(row_idx, &group);
            }
        }
    }
}

/// Adds the products of a panel to the sums.
pub(super) fn dot<L: Law>(panel: &[PanelGroup], acts: &[ActRow<'_>], sums: &mut [Sums]) {
    for (act, sums) in acts.iter().zip(sums) {
        for (group_idx, weights) in panel.iter().enumerate() {
            let quants: &[i8; 32] = bytemuck::cast_ref(&act.quants[group_idx]);
            let half_sums = halves(act.half_sums[group_idx]);
            for (half, sums) in sums.iter_mut().enumerate() {
                let dots = half_dots::<L>(weights, half, quants);
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let dots = [dots[0][lane], dots[1][lane]];
                    let dot = group_dot::<L>(dots, weights.sub_scales[half][lane], half_sums);
                    let scale = weights.scales[half][lane] * act.scales[group_idx];
                    *sum = mul_add(dot as f32, scale, *sum);
                    let bias = weights.biases[half][lane];
                    if L::BIAS {
                        *sum = mul_add(bias, act.sums[group_idx], *sum);
                    }
                    if L::SUB_MINS {
                        let [low, high] = halves(weights.sub_mins[half][lane]);
                        let min = low * half_sums[0] + high * half_sums[1];
                        *sum = mul_add(min as f32, bias * act.scales[group_idx], *sum);
                    }
                }
            }
        }
    }
}

/// The dot products of both halves of a group, for eight rows.
fn half_dots<L: Law>(weights: &PanelGroup, half: usize, acts: &[i8; 32]) -> [[i32; 8]; 2] {
    let mut dots = [[0; 8]; 2];
    for (step, (rows, acts)) in weights
        .quants
        .iter()
        .zip(acts.as_chunks::<4>().0)
        .enumerate()
    {
        for (dot, quants) in dots[step / 4].iter_mut().zip(rows[half].as_chunks::<4>().0) {
            for (&quant, &act) in quants.iter().zip(acts) {
                let quant = if L::SIGNED {
                    i32::from(quant.cast_signed())
                } else {
                    i32::from(quant)
                };
                *dot += quant * i32::from(act);
            }
        }
    }
    dots
}

/// The integer part of the law for one row.
fn group_dot<L: Law>(dots: [i32; 2], sub_scales: u32, sums: [i32; 2]) -> i32 {
    let dots = [0, 1].map(|h| dots[h] - i32::from(L::OFFSET) * sums[h]);
    if L::SUB_SCALES {
        let sub_scales = halves(sub_scales);
        sub_scales[0] * dots[0] + sub_scales[1] * dots[1]
    } else {
        dots[0] + dots[1]
    }
}

/// The two i16 of a word.
fn halves(word: u32) -> [i32; 2] {
    let halves: [i16; 2] = bytemuck::cast(word);
    if cfg!(target_endian = "big") {
        [halves[1], halves[0]]
    } else {
        halves
    }
    .map(i32::from)
}
