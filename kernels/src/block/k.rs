//! Super-blocks of 256 weights: eight groups with small integer scales under a common one.
//!
//! Source: the layouts are those of ggml's `block_q2_K` and its kin.

use super::{GROUP_LEN, Group, half_at};

/// Quants of `bits` bits: each run of `GROUP_LEN` bytes holds `8 / bits` groups, the first lowest.
fn packed(bytes: &[u8], bits: usize, group_idx: usize) -> [u8; GROUP_LEN] {
    let groups_in_run = 8 / bits;
    let run = &bytes[group_idx / groups_in_run * GROUP_LEN..];
    let shift = group_idx % groups_in_run * bits;
    let mask = (1 << bits) - 1;
    std::array::from_fn(|i| (run[i] >> shift) & mask)
}

/// The six-bit scale and minimum of a group of 32, out of twelve bytes.
fn scale_and_min(bytes: &[u8], group_idx: usize) -> (u8, u8) {
    if group_idx < 4 {
        return (bytes[group_idx] & 63, bytes[group_idx + 4] & 63);
    }
    let low = bytes[group_idx + 4];
    let scale = (low & 15) | (bytes[group_idx - 4] >> 6) << 4;
    let min = (low >> 4) | (bytes[group_idx] >> 6) << 4;
    (scale, min)
}

/// 16 bytes of four-bit scales and minima, quants of 2 bits, scale, minimum.
pub(super) fn q2(block: &[u8; 84], group_idx: usize) -> Group {
    let sub = [block[2 * group_idx], block[2 * group_idx + 1]];
    Group {
        quants: packed(&block[16..], 2, group_idx),
        scale: half_at(block, 80),
        bias: -half_at(block, 82),
        sub_scales: sub.map(|byte| i16::from(byte & 15)),
        sub_mins: sub.map(|byte| i16::from(byte >> 4)),
    }
}

/// third bits, quants of 2 bits, 12 bytes of six-bit scales offset by 32, scale; offset 4.
pub(super) fn q3(block: &[u8; 110], group_idx: usize) -> Group {
    let high = packed(&block[..32], 1, group_idx);
    let low = packed(&block[32..], 2, group_idx);
    let scales = &block[96..108];
    let sub_scale = |sub_idx: usize| {
        let low = (scales[sub_idx % 8] >> (sub_idx / 8 * 4)) & 15;
        let high = (scales[8 + sub_idx % 4] >> (sub_idx / 4 * 2)) & 3;
        i16::from(low | high << 4) - 32
    };
    Group {
        quants: std::array::from_fn(|i| low[i] | high[i] << 2),
        scale: half_at(block, 108),
        bias: 0.0,
        sub_scales: [sub_scale(2 * group_idx), sub_scale(2 * group_idx + 1)],
        sub_mins: [1; 2],
    }
}

/// scale, minimum, 12 bytes of six-bit scales and minima, quants of 4 bits.
pub(super) fn q4(block: &[u8; 144], group_idx: usize) -> Group {
    let (scale, min) = scale_and_min(&block[4..16], group_idx);
    Group::whole(
        packed(&block[16..], 4, group_idx),
        half_at(block, 0) * f32::from(scale),
        -half_at(block, 2) * f32::from(min),
    )
}

/// scale, minimum, 12 bytes of six-bit scales and minima, fifth bits, quants of 4 bits.
pub(super) fn q5(block: &[u8; 176], group_idx: usize) -> Group {
    let (scale, min) = scale_and_min(&block[4..16], group_idx);
    let high = packed(&block[16..48], 1, group_idx);
    let low = packed(&block[48..], 4, group_idx);
    Group::whole(
        std::array::from_fn(|i| low[i] | high[i] << 4),
        half_at(block, 0) * f32::from(scale),
        -half_at(block, 2) * f32::from(min),
    )
}

/// low 4 bits, high 2 bits, 16 signed scales, scale; offset 32.
pub(super) fn q6(block: &[u8; 210], group_idx: usize) -> Group {
    let (run, quarter) = (group_idx / 4, group_idx % 4);
    let low = &block[64 * run + 32 * (quarter % 2)..];
    let high = packed(&block[128..192], 2, group_idx);
    let sub_scale = |sub_idx: usize| i16::from(block[192 + sub_idx].cast_signed());
    Group {
        quants: std::array::from_fn(|i| ((low[i] >> (quarter / 2 * 4)) & 15) | high[i] << 4),
        scale: half_at(block, 208),
        bias: 0.0,
        sub_scales: [sub_scale(2 * group_idx), sub_scale(2 * group_idx + 1)],
        sub_mins: [1; 2],
    }
}
