//! Blocks of 32 weights.
#![expect(
    clippy::inline_always,
    reason = "compiled for the caller's instructions"
)]

use super::super::panel::{BiasedFives, BiasedNibbles, Bytes, Fives, GroupScales, Nibbles};
use super::super::vector::{Floats, Vector};
use super::{Packing, Rows};

/// Low nibbles of 16 bytes, then high ones: a whole group's quants.
#[inline(always)]
fn nibbles<V: Vector>(bytes: [V; 4]) -> [V; 8] {
    let [a, b, c, d] = bytes;
    let mut quants = [a, b, c, d, a, b, c, d];
    for quants in &mut quants[4..] {
        *quants = quants.shift_right_16(4);
    }
    for quants in &mut quants {
        *quants = quants.and_byte(15);
    }
    quants
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

/// Adds a fifth bit to each quant: bit `i` of its row's word.
#[inline(always)]
fn with_fifth_bits<V: Vector>(quants: [V; 8], bits: V) -> [V; 8] {
    // The bits of a byte's lower and of its upper nibble, one a byte.
    const NIBBLES: [u32; 2] = [0x0804_0201, 0x8040_2010];
    const PLACES: [[i8; 16]; 4] = [four_times(0), four_times(1), four_times(2), four_times(3)];
    let mut quants = quants;
    for (quants, places) in quants.as_chunks_mut::<2>().0.iter_mut().zip(PLACES) {
        let byte = bits.shuffle(places);
        for (quants, nibble) in quants.iter_mut().zip(NIBBLES) {
            *quants = quants.or(byte.where_set(nibble, 16));
        }
    }
    quants
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
    ($($(#[$meta:meta])* $name:ident: $bytes:literal bytes, $law:ty, $scales:ident, |$rows:ident| $quants:expr;)*) => {$(
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
            fn quants<V: Vector, const GROUP: usize>($rows: Rows<'_, V>, _: usize) -> [V; 8] {
                $quants
            }
        }
    )*};
}

packings! {
    /// A scale, 32 nibbles.
    Q4_0: 18 bytes, Nibbles, scale, |rows| nibbles(rows.quads(2));
    /// A scale and a minimum, 32 nibbles.
    Q4_1: 20 bytes, BiasedNibbles, scale_and_min, |rows| nibbles(rows.quads(4));
    /// A scale, 32 fifth bits, 32 nibbles.
    Q5_0: 22 bytes, Fives, scale, |rows| {
        with_fifth_bits(nibbles(rows.quads(6)), rows.word(2))
    };
    /// A scale and a minimum, 32 fifth bits, 32 nibbles.
    Q5_1: 24 bytes, BiasedFives, scale_and_min, |rows| {
        with_fifth_bits(nibbles(rows.quads(8)), rows.word(4))
    };
    /// A scale, 32 bytes.
    Q8_0: 34 bytes, Bytes, scale, |rows| rows.octets(2);
}
