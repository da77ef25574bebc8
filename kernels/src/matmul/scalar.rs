//! The quantised product in plain Rust: what every other tier is measured against.

use std::ops::Range;

use super::fused::mul_add;
use super::panel::{GroupScales, Law, Panel, Sums, TILE_ROWS, Unpack};
use crate::WeightType;
use crate::block::GROUP_LEN;
use crate::pack::read_block;
use crate::quantize::{ActGroup, HALF_SUMS, SCALE, SUM};

/// The function that unpacks a type.
pub(super) fn unpack_of(weight_type: WeightType) -> Unpack {
    match weight_type {
        WeightType::Q4_1 => |strip, groups, panel| unpack(WeightType::Q4_1, strip, groups, panel),
        WeightType::Q5_0 => |strip, groups, panel| unpack(WeightType::Q5_0, strip, groups, panel),
        WeightType::Q5_1 => |strip, groups, panel| unpack(WeightType::Q5_1, strip, groups, panel),
        WeightType::Q8_0 => |strip, groups, panel| unpack(WeightType::Q8_0, strip, groups, panel),
        WeightType::Q2K => |strip, groups, panel| unpack(WeightType::Q2K, strip, groups, panel),
        WeightType::Q3K => |strip, groups, panel| unpack(WeightType::Q3K, strip, groups, panel),
        WeightType::Q4K => |strip, groups, panel| unpack(WeightType::Q4K, strip, groups, panel),
        WeightType::Q5K => |strip, groups, panel| unpack(WeightType::Q5K, strip, groups, panel),
        WeightType::Q6K => |strip, groups, panel| unpack(WeightType::Q6K, strip, groups, panel),
        // Floats are not unpacked: their rows hold no groups.
        WeightType::Q4_0 | WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
            |strip, groups, panel| unpack(WeightType::Q4_0, strip, groups, panel)
        }
    }
}

/// Unpacks groups of a strip of any quantised type.
fn unpack(weight_type: WeightType, strip: &[u8], groups: Range<usize>, panel: &mut Panel) {
    let groups_in_block = weight_type.block_len() / GROUP_LEN;
    let mut block = [0; WeightType::BLOCK_BYTES_MOST];
    let block = &mut block[..weight_type.block_bytes()];
    for row_idx in 0..TILE_ROWS {
        for (i, group_idx) in groups.clone().enumerate() {
            if i == 0 || group_idx.is_multiple_of(groups_in_block) {
                read_block(strip, row_idx, group_idx / groups_in_block, block);
            }
            if let Some(group) = weight_type.group(block, group_idx % groups_in_block) {
                panel.put(i, row_idx, &group);
            }
        }
    }
}

/// Adds the products of a panel to the sums.
pub(super) fn dot<L: Law>(panel: &Panel, acts: &[&[ActGroup]], sums: &mut [Sums]) {
    for (acts, sums) in acts.iter().zip(sums) {
        for ((quants, scales), act) in panel.quants.iter().zip(&panel.scales).zip(*acts) {
            dot_group::<L>(quants, scales, act, sums);
        }
    }
}

/// Adds the products of one group to the sums of a tile's rows.
fn dot_group<L: Law>(
    quants: &[[u32; TILE_ROWS]; 8],
    scales: &GroupScales,
    act: &ActGroup,
    sums: &mut Sums,
) {
    let half_sums = halves(act[HALF_SUMS]);
    let (act_scale, act_sum) = (f32::from_bits(act[SCALE]), f32::from_bits(act[SUM]));
    let dots = half_dots::<L>(quants, act);
    for (lane, sum) in sums.iter_mut().enumerate() {
        let dots = [dots[0][lane], dots[1][lane]];
        let dot = group_dot::<L>(dots, scales.sub_scales[lane], half_sums);
        *sum = mul_add(dot as f32, scales.scales[lane] * act_scale, *sum);
        let bias = scales.biases[lane];
        if L::BIAS {
            *sum = mul_add(bias, act_sum, *sum);
        }
        if L::SUB_MINS {
            let [low, high] = halves(scales.sub_mins[lane]);
            let min = low * half_sums[0] + high * half_sums[1];
            *sum = mul_add(min as f32, bias * act_scale, *sum);
        }
    }
}

/// The dot products of both halves of a group.
fn half_dots<L: Law>(quants: &[[u32; TILE_ROWS]; 8], act: &ActGroup) -> [[i32; TILE_ROWS]; 2] {
    let mut dots = [[0; TILE_ROWS]; 2];
    for (step, (rows, acts)) in quants.iter().zip(act).enumerate() {
        let acts = acts.to_le_bytes().map(u8::cast_signed);
        for (dot, quants) in dots[step / 4].iter_mut().zip(rows) {
            for (quant, act) in quants.to_le_bytes().into_iter().zip(acts) {
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
