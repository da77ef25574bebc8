//! Sixteen blocks side by side: a value of each in every lane, so that what is summed over a block is
//! summed in the order of its values, whatever the vectors of the processor.

use std::array::from_fn;
use std::ops::{Add, BitAnd, Div, Mul, Sub};

/// Blocks side by side.
pub(super) const LANES: usize = 16;
/// Adding and subtracting it rounds a small float to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// One value of each block.
#[derive(Clone, Copy)]
pub(super) struct Lanes(pub(super) [f32; LANES]);

/// Yes or no for each block: all bits set, or none.
#[derive(Clone, Copy)]
pub(super) struct Mask([u32; LANES]);

/// `N` values of each block.
pub(super) type Strip<const N: usize> = [Lanes; N];

/// Up to sixteen blocks of `N` consecutive values; the lanes of those that are not there are zero.
#[inline(always)]
pub(super) fn load<const N: usize>(values: &[f32]) -> Strip<N> {
    let mut strip = [Lanes::all(0.0); N];
    for (lane, block) in values.as_chunks::<N>().0.iter().take(LANES).enumerate() {
        for (lanes, value) in strip.iter_mut().zip(block) {
            lanes.0[lane] = *value;
        }
    }
    strip
}

/// The small whole numbers of a strip, block after block.
#[inline(always)]
pub(super) fn store<const N: usize>(strip: &Strip<N>, levels: &mut [u8]) {
    for (lane, block) in levels
        .as_chunks_mut::<N>()
        .0
        .iter_mut()
        .take(LANES)
        .enumerate()
    {
        for (level, lanes) in block.iter_mut().zip(strip) {
            *level = to_byte(lanes.0[lane]);
        }
    }
}

/// The lowest byte of a whole number, as a conversion between integers gives it.
#[inline(always)]
pub(super) fn to_byte(whole: f32) -> u8 {
    // As large a number as this has its integer in the lowest bits.
    (whole + ROUND).to_bits().to_le_bytes()[0]
}

/// The nearest whole number of a small float, ties to even.
#[inline(always)]
pub(super) fn round(value: f32) -> f32 {
    (value + ROUND) - ROUND
}

impl Lanes {
    /// The same value for all.
    #[inline(always)]
    pub(super) fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    pub(super) fn map(self, each: impl Fn(f32) -> f32) -> Self {
        Self(from_fn(|lane| each(self.0[lane])))
    }

    #[inline(always)]
    fn with(self, other: Self, each: impl Fn(f32, f32) -> f32) -> Self {
        Self(from_fn(|lane| each(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn compare(self, other: Self, holds: impl Fn(f32, f32) -> bool) -> Mask {
        Mask(from_fn(|lane| {
            if holds(self.0[lane], other.0[lane]) {
                u32::MAX
            } else {
                0
            }
        }))
    }

    #[inline(always)]
    pub(super) fn less(self, other: Self) -> Mask {
        self.compare(other, |a, b| a < b)
    }

    #[inline(always)]
    pub(super) fn greater(self, other: Self) -> Mask {
        self.compare(other, |a, b| a > b)
    }

    #[inline(always)]
    pub(super) fn equal(self, other: Self) -> Mask {
        self.compare(other, |a, b| a == b)
    }

    /// The smaller one, itself where they are equal.
    #[inline(always)]
    pub(super) fn least(self, other: Self) -> Self {
        self.with(other, |a, b| if b < a { b } else { a })
    }

    /// The greater one, itself where they are equal.
    #[inline(always)]
    pub(super) fn most(self, other: Self) -> Self {
        self.with(other, |a, b| if b > a { b } else { a })
    }

    /// The nearest whole numbers, none below `least` or above `most`.
    #[inline(always)]
    pub(super) fn level(self, least: f32, most: f32) -> Self {
        self.map(|value| {
            let whole = round(value);
            let whole = if whole < most { whole } else { most };
            if whole > least { whole } else { least }
        })
    }

    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        self.map(f32::abs)
    }
}

impl Mask {
    /// `yes` where it holds, else `no`.
    #[inline(always)]
    pub(super) fn pick(self, yes: Lanes, no: Lanes) -> Lanes {
        Lanes(from_fn(|lane| {
            let mask = self.0[lane];
            f32::from_bits((yes.0[lane].to_bits() & mask) | (no.0[lane].to_bits() & !mask))
        }))
    }

    /// Whether it holds for any.
    #[inline(always)]
    pub(super) fn any(self) -> bool {
        self.0.iter().fold(0, |all, mask| all | mask) != 0
    }

    /// Where it does not hold.
    #[inline(always)]
    pub(super) fn not(self) -> Self {
        Self(self.0.map(|mask| !mask))
    }
}

impl BitAnd for Mask {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(from_fn(|lane| self.0[lane] & other.0[lane]))
    }
}

/// Writes an operator of two values for all lanes.
macro_rules! operator {
    ($operator:ident, $name:ident, $sign:tt) => {
        impl $operator for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                self.with(other, |a, b| a $sign b)
            }
        }
    };
}
operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);
