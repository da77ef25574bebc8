//! Weights unpacked for a while: 16 rows of up to 8 groups.

use std::ops::Range;

use crate::block::Group;
use crate::pack::STRIP_ROWS;
use crate::quantize::{ActGroup, pair};

/// Weight rows of a panel: a 512-bit vector of 32-bit sums.
pub(super) const TILE_ROWS: usize = STRIP_ROWS;
/// Groups of a panel: a super-block.
pub(super) const PANEL_GROUPS: usize = 8;

/// What goes with the quants of a group of each of 16 rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct GroupScales {
    pub(super) scales: Sums,
    pub(super) biases: Sums,
    /// Two i16 a row: the scales of the group's halves.
    pub(super) sub_scales: [u32; TILE_ROWS],
    /// Two i16 a row: the minima of the group's halves.
    pub(super) sub_mins: [u32; TILE_ROWS],
}

/// The unpacked weights of a tile, lane by lane.
///
/// A 32-bit lane belongs to a row, so that a dot product leaves each row's sum in its lane and nothing
/// is ever summed across. `quants[group][i]` holds the quants `4 * i .. 4 * i + 4`, four bytes a row.
#[repr(C, align(64))]
pub(super) struct Panel {
    pub(super) quants: [[[u32; TILE_ROWS]; 8]; PANEL_GROUPS],
    pub(super) scales: [GroupScales; PANEL_GROUPS],
}

/// The running sums of a tile's rows for one activation row.
pub(super) type Sums = [f32; TILE_ROWS];

impl GroupScales {
    pub(super) const ZERO: Self = Self {
        scales: [0.0; TILE_ROWS],
        biases: [0.0; TILE_ROWS],
        sub_scales: [0; TILE_ROWS],
        sub_mins: [0; TILE_ROWS],
    };
}

impl Panel {
    pub(super) const ZERO: Self = Self {
        quants: [[[0; TILE_ROWS]; 8]; PANEL_GROUPS],
        scales: [GroupScales::ZERO; PANEL_GROUPS],
    };

    /// Puts a row's group into its lane.
    pub(super) fn put(&mut self, group_idx: usize, row: usize, group: &Group) {
        let words = self.quants[group_idx].iter_mut();
        for (words, bytes) in words.zip(group.quants.as_chunks().0) {
            words[row] = u32::from_le_bytes(*bytes);
        }
        let scales = &mut self.scales[group_idx];
        scales.scales[row] = group.scale;
        scales.biases[row] = group.bias;
        scales.sub_scales[row] = pair(group.sub_scales);
        scales.sub_mins[row] = pair(group.sub_mins);
    }
}

/// How the quants of a weight type become a product; the constants choose among code at compile time.
///
/// With `dot[h]` and `sum[h]` over the halves of a group, and everything up to the last step in
/// integers:
/// - a group with one scale: `dot = Σ dot[h] - OFFSET * Σ sum[h]`;
/// - with `SUB_SCALES`: `dot = Σ sub_scale[h] * (dot[h] - OFFSET * sum[h])`;
/// - then `total = fma(dot, scale * act_scale, total)`;
/// - with `BIAS`: `total = fma(bias, act_scaled_sum, total)`;
/// - with `SUB_MINS`: `total = fma(Σ sub_min[h] * sum[h], bias * act_scale, total)`.
pub(super) trait Law {
    /// What is subtracted from a quant.
    const OFFSET: i16 = 0;
    /// The largest quant before the offset is subtracted.
    const LARGEST: i16;
    /// The quants are signed bytes.
    const SIGNED: bool = false;
    /// There is a bias for the group.
    const BIAS: bool = false;
    /// The halves have integer scales.
    const SUB_SCALES: bool = false;
    /// The halves have integer minima, which the bias scales.
    const SUB_MINS: bool = false;
}

macro_rules! laws {
    ($($(#[$meta:meta])* $name:ident { $($constant:ident: $ty:ty = $value:expr),* })*) => {$(
        $(#[$meta])*
        pub(super) struct $name;
        impl Law for $name { $(const $constant: $ty = $value;)* }
    )*};
}

laws! {
    /// Q4_0.
    Nibbles { LARGEST: i16 = 15, OFFSET: i16 = 8 }
    /// Q4_1 and Q4_K.
    BiasedNibbles { LARGEST: i16 = 15, BIAS: bool = true }
    /// Q5_0.
    Fives { LARGEST: i16 = 31, OFFSET: i16 = 16 }
    /// Q5_1 and Q5_K.
    BiasedFives { LARGEST: i16 = 31, BIAS: bool = true }
    /// Q8_0.
    Bytes { LARGEST: i16 = 127, SIGNED: bool = true }
    /// Q2_K.
    SubTwos { LARGEST: i16 = 3, SUB_SCALES: bool = true, SUB_MINS: bool = true }
    /// Q3_K.
    SubThrees { LARGEST: i16 = 7, OFFSET: i16 = 4, SUB_SCALES: bool = true }
    /// Q6_K.
    SubSixes { LARGEST: i16 = 63, OFFSET: i16 = 32, SUB_SCALES: bool = true }
}

/// Unpacks groups of a strip to the front of the panel.
pub(super) type Unpack = unsafe fn(strip: &[u8], groups: Range<usize>, &mut Panel);

/// Adds the products of a panel to the sums, row by row of activations, which have as many groups as
/// were unpacked.
pub(super) type Dot = unsafe fn(panel: &Panel, acts: &[&[ActGroup]], sums: &mut [Sums]);
