//! Blocks of 32 weights.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use super::super::panel::{BiasedFives, BiasedNibbles, Bytes, Fives, GroupScales, Nibbles};
use super::super::vector::{Floats, Vector};
use super::{Packing, RUN_GROUPS_MOST, Rows};

/// Low nibbles of the 16 bytes from `at` on, then high ones: a whole group's quants.
#[inline(always)]
fn nibbles<V: Vector>(rows: Rows<'_, V>, at: usize, step: usize) -> V {
    let word = rows.word(at + 4 * (step % 4));
    let word = if step < 4 {
        word
    } else {
        word.shift_right_16(4)
    };
    word.and_byte(15)
}

/// Each lane's byte of that index, four times.
const fn four_times(byte: i8) -> [i8; 16] {
    let mut places = [byte; 16];
    let mut i = 0;
    while i < 16 {
        places[i] += [0, 4, 8, 12][i / 4];
        i += 1;
    }
    places
}

/// The fifth bits of a step's quants: bit `4 * step + i` of each row's word.
#[inline(always)]
fn fifth_bits<V: Vector>(bits: V, step: usize) -> V {
    // The bits of a byte's lower and of its upper nibble, one a byte.
    const NIBBLES: [u32; 2] = [0x0804_0201, 0x8040_2010];
    const PLACES: [[i8; 16]; 4] = [four_times(0), four_times(1), four_times(2), four_times(3)];
    let byte = bits.shuffle(PLACES[step / 2]);
    byte.where_set(NIBBLES[step % 2], 16)
}

/// The scale of blocks that have no minimum.
#[inline(always)]
fn scale<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    if let [group] = groups {
        rows.odd_half(0).store(&mut group.scales, rows.part());
    }
}

/// The scale and the minimum of a block.
#[inline(always)]
fn scale_and_min<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
    if let [group] = groups {
        let [scale, min] = rows.word(0).half_pairs();
        scale.store(&mut group.scales, rows.part());
        min.store(&mut group.biases, rows.part());
    }
}

macro_rules! packings {
    ($($(#[$meta:meta])* $name:ident: $bytes:literal bytes, $law:ty, $scales:ident, |$rows:ident, $step:ident| $quants:expr;)*) => {$(
        $(#[$meta])*
        pub(in crate::matmul) struct $name;

        impl Packing for $name {
            type Law = $law;
            const BLOCK_BYTES: usize = $bytes;
            const RUNS: usize = 1;
            const RUN_GROUPS: usize = 1;

            #[inline(always)]
            fn scales<V: Vector>(rows: Rows<'_, V>, groups: &mut [GroupScales]) {
                $scales(rows, groups);
            }

            #[inline(always)]
            fn step<V: Vector>($rows: Rows<'_, V>, _: usize, $step: usize) -> [V; RUN_GROUPS_MOST] {
                [$quants; RUN_GROUPS_MOST]
            }
        }
    )*};
}

packings! {
    /// A scale, 32 nibbles.
    Q4_0: 18 bytes, Nibbles, scale, |rows, step| nibbles(rows, 2, step);
    /// A scale and a minimum, 32 nibbles.
    Q4_1: 20 bytes, BiasedNibbles, scale_and_min, |rows, step| nibbles(rows, 4, step);
    /// A scale, 32 fifth bits, 32 nibbles.
    Q5_0: 22 bytes, Fives, scale, |rows, step| {
        nibbles(rows, 6, step).or(fifth_bits(rows.word(2), step))
    };
    /// A scale and a minimum, 32 fifth bits, 32 nibbles.
    Q5_1: 24 bytes, BiasedFives, scale_and_min, |rows, step| {
        nibbles(rows, 8, step).or(fifth_bits(rows.word(4), step))
    };
    /// A scale, 32 bytes.
    Q8_0: 34 bytes, Bytes, scale, |rows, step| rows.word(2 + 4 * step);
}
