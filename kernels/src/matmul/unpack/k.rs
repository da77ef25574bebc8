//! Super-blocks of 256 weights, their words in the order of `crate::pack`.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use std::cmp::Ordering;

use super::super::panel::{BiasedFives, BiasedNibbles, GroupScales, SubSixes, SubThrees, SubTwos};
use super::super::vector::{Floats, Vector};
use super::{Packing, RUN_GROUPS_MOST, Rows};

/// `mask` of each byte shifted down, moved up again: shifted once, then masked.
#[inline(always)]
fn bits<V: Vector>(vector: V, mask: u8, down: usize, up: usize) -> V {
    let moved = match down.cmp(&up) {
        Ordering::Greater => vector.shift_right_16(amount(down - up)),
        Ordering::Less => vector.shift_left_16(amount(up - down)),
        Ordering::Equal => vector,
    };
    moved.and_byte(mask << up)
}

/// A number of bits, as the shifts take it.
#[inline(always)]
const fn amount(bits: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 24")]
    {
        bits as u32
    }
}

/// The upper two bits of six, from the top of each byte.
#[inline(always)]
fn upper_two<V: Vector>(word: V) -> V {
    word.shift_right_16(2).and_byte(0x30)
}

/// The six-bit scales of eight groups, four to a word, then their minima, from a block's first words.
#[inline(always)]
fn scales_and_mins<V: Vector>(low_scales: V, low_mins: V, high: V) -> [[V; 2]; 2] {
    let high_scales = high.and_byte(0x0f);
    let high_mins = high.shift_right_16(4).and_byte(0x0f);
    [
        [
            low_scales.and_byte(0x3f),
            high_scales.or(upper_two(low_scales)),
        ],
        [low_mins.and_byte(0x3f), high_mins.or(upper_two(low_mins))],
    ]
}

/// Byte `group_idx` of eight, as a float.
#[inline(always)]
fn byte_float<V: Vector>(words: [V; 2], group_idx: usize) -> V::Floats {
    let word = words[usize::from(group_idx >= 4)];
    let byte = word.shift_right_32(amount(group_idx % 4 * 8));
    byte.and_word(0xff).to_floats()
}

/// The scales and biases of all groups of Q4_K and Q5_K, whose blocks start alike.
#[inline(always)]
fn scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    let [halves, low_scales, low_mins, high] = rows.quads(0);
    let [scale, min] = halves.half_pairs();
    let bias = min.negate();
    let [scales, mins] = scales_and_mins(low_scales, low_mins, high);
    for (group_idx, group) in groups.iter_mut().enumerate() {
        let scale = scale.multiply(byte_float(scales, group_idx));
        scale.store(&mut group.scales, rows.part());
        let bias = bias.multiply(byte_float(mins, group_idx));
        bias.store(&mut group.biases, rows.part());
    }
}

/// Two bytes of 16 sub-scales, each in the lower half of its 16 bits.
#[inline(always)]
fn sub_pair<V: Vector>(words: [V; 4], group_idx: usize) -> V {
    let pair = shifted(words, group_idx);
    pair.shuffle([0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1])
}

/// Likewise, signed.
#[inline(always)]
fn signed_sub_pair<V: Vector>(words: [V; 4], group_idx: usize) -> V {
    let pair = shifted(words, group_idx);
    let upper = pair.shuffle([-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13]);
    // Shifting down from the upper half keeps the sign.
    upper.shift_right_signed_16(8)
}

/// A group's two bytes, lowest in each lane.
#[inline(always)]
fn shifted<V: Vector>(words: [V; 4], group_idx: usize) -> V {
    let word = words[group_idx / 2];
    if group_idx % 2 == 1 {
        word.shift_right_32(16)
    } else {
        word
    }
}

/// Signed sub-scales, and one scale for all groups of a block.
#[inline(always)]
fn sub_scales<V: Vector>(words: [V; 4], scale: V::Floats, part: usize, groups: &mut [GroupScales]) {
    for (group_idx, group) in groups.iter_mut().enumerate() {
        signed_sub_pair(words, group_idx).store(&mut group.sub_scales, part);
        scale.store(&mut group.scales, part);
    }
}

/// Implements [`Packing`] where two functions do the work.
macro_rules! packing {
    ($(#[$meta:meta])* $name:ident: $bytes:literal bytes, $law:ty, $runs:literal x $groups:literal, $scales:ident, $step:ident) => {
        $(#[$meta])*
        pub(in crate::matmul) struct $name;

        impl Packing for $name {
            type Law = $law;
            const BLOCK_BYTES: usize = $bytes;
            const RUNS: usize = $runs;
            const RUN_GROUPS: usize = $groups;

            #[inline(always)]
            fn scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
                $scales(rows, groups);
            }

            #[inline(always)]
            fn step<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; RUN_GROUPS_MOST] {
                $step(rows, run, step)
            }
        }
    };
}

#[inline(always)]
fn q2_scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    let [scale, min] = rows.word(0).half_pairs();
    let subs = rows.quads(4);
    let bias = min.negate();
    for (group_idx, group) in groups.iter_mut().enumerate() {
        let pair = sub_pair(subs, group_idx);
        pair.and_word(0x000f_000f)
            .store(&mut group.sub_scales, rows.part());
        pair.shift_right_16(4)
            .store(&mut group.sub_mins, rows.part());
        scale.store(&mut group.scales, rows.part());
        bias.store(&mut group.biases, rows.part());
    }
}

#[inline(always)]
fn q2<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; 4] {
    let word = rows.word(20 + 32 * run + 4 * step);
    [
        bits(word, 3, 0, 0),
        bits(word, 3, 2, 0),
        bits(word, 3, 4, 0),
        bits(word, 3, 6, 0),
    ]
}

/// Four sub-scales: four bits of each byte, and two more.
#[inline(always)]
fn q3_sub_scales<V: Vector>(low: V, low_shift: usize, high: V, high_shift: usize) -> V {
    let low = bits(low, 15, low_shift, 0);
    low.or(bits(high, 3, high_shift, 4)).sub_byte(32)
}

#[inline(always)]
fn q3_scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    let (low, middle, high) = (rows.word(4), rows.word(8), rows.word(12));
    let words = [
        q3_sub_scales(low, 0, high, 0),
        q3_sub_scales(middle, 0, high, 2),
        q3_sub_scales(low, 4, high, 4),
        q3_sub_scales(middle, 4, high, 6),
    ];
    let [scale, _] = rows.word(0).half_pairs();
    sub_scales(words, scale, rows.part(), groups);
}

#[inline(always)]
fn q3<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; 4] {
    let thirds = rows.word(16 + 4 * step);
    // The run's bits lowest first.
    let thirds = if run == 0 {
        thirds
    } else {
        thirds.shift_right_16(4)
    };
    let word = rows.word(48 + 32 * run + 4 * step);
    [
        bits(word, 3, 0, 0).or(bits(thirds, 1, 0, 2)),
        bits(word, 3, 2, 0).or(bits(thirds, 1, 1, 2)),
        bits(word, 3, 4, 0).or(bits(thirds, 1, 2, 2)),
        bits(word, 3, 6, 0).or(bits(thirds, 1, 3, 2)),
    ]
}

#[inline(always)]
fn q4<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; 4] {
    let word = rows.word(16 + 32 * run + 4 * step);
    [bits(word, 15, 0, 0), bits(word, 15, 4, 0), word, word]
}

#[inline(always)]
fn q5<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; 4] {
    // The run's bits lowest first: the shift by the run is no constant.
    let fifths = rows.word(16 + 4 * step).shift_right_16(amount(2 * run));
    let word = rows.word(48 + 32 * run + 4 * step);
    [
        bits(word, 15, 0, 0).or(bits(fifths, 1, 0, 4)),
        bits(word, 15, 4, 0).or(bits(fifths, 1, 1, 4)),
        word,
        word,
    ]
}

#[inline(always)]
fn q6_scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    let [scale, _] = rows.word(0).half_pairs();
    sub_scales(rows.quads(4), scale, rows.part(), groups);
}

#[inline(always)]
fn q6<V: Vector>(rows: Rows<'_, V>, run: usize, step: usize) -> [V; 4] {
    let high = rows.word(20 + 96 * run + 4 * step);
    let low = rows.word(52 + 96 * run + 4 * step);
    let later = rows.word(84 + 96 * run + 4 * step);
    [
        bits(low, 15, 0, 0).or(bits(high, 3, 0, 4)),
        bits(later, 15, 0, 0).or(bits(high, 3, 2, 4)),
        bits(low, 15, 4, 0).or(bits(high, 3, 4, 4)),
        bits(later, 15, 4, 0).or(bits(high, 3, 6, 4)),
    ]
}

packing!(
    /// Scales and minima of 16 weights, 256 quants of two bits.
    Q2K: 84 bytes, SubTwos, 2 x 4, q2_scales, q2
);
packing!(
    /// Third bits, quants of two bits, scales of 16 weights.
    Q3K: 110 bytes, SubThrees, 2 x 4, q3_scales, q3
);
packing!(
    /// Scales and minima of 32 weights, nibbles.
    Q4K: 144 bytes, BiasedNibbles, 4 x 2, scales, q4
);
packing!(
    /// Scales and minima of 32 weights, fifth bits, nibbles.
    Q5K: 176 bytes, BiasedFives, 4 x 2, scales, q5
);
packing!(
    /// Nibbles, upper bits, scales of 16 weights.
    Q6K: 210 bytes, SubSixes, 2 x 4, q6_scales, q6
);
