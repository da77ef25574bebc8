//! Vectors of 32-bit lanes, a weight row a lane: what unpacking needs of them, whatever their width.
//!
//! A value of such a type proves that its instructions exist: the first one comes from a proof, all
//! others from values. So the operations are safe, and what is written with them is written once.

#[cfg(target_arch = "x86_64")]
mod v256;
#[cfg(target_arch = "x86_64")]
mod v512;

#[cfg(target_arch = "x86_64")]
pub(super) use v256::{F256, V256};
#[cfg(target_arch = "x86_64")]
pub(super) use v512::{F512, V512};

use super::panel::Sums;

/// A vector of words.
pub(super) trait Vector: Copy {
    /// What proves that the instructions exist.
    type Proof: Copy;
    /// A vector of floats of the same width.
    type Floats: Floats;
    /// Parts of a strip: 16 rows are so many vectors.
    const PARTS: usize;
    /// Bytes of a vector.
    const BYTES: usize = 64 / Self::PARTS;

    /// The first bytes of a slice, which has as many.
    fn load(proof: Self::Proof, bytes: &[u8]) -> Self;
    /// Widens the first half-precision floats of a slice, one a lane.
    fn load_halves(proof: Self::Proof, bytes: &[u8]) -> Self::Floats;
    /// Asks for the cache line at an address, whatever is there.
    fn prefetch(proof: Self::Proof, at: *const u8);
    /// Writes the vector into a part of 16 words.
    fn store(self, words: &mut [u32; 16], part: usize);

    fn or(self, other: Self) -> Self;
    /// And with a byte, in every byte.
    fn and_byte(self, byte: u8) -> Self;
    /// And with a word, in every lane.
    fn and_word(self, word: u32) -> Self;
    /// Subtracts a byte from every byte.
    fn sub_byte(self, byte: u8) -> Self;
    /// Shifts 16-bit halves down.
    fn shift_right_16(self, by: u32) -> Self;
    /// Shifts 16-bit halves up.
    fn shift_left_16(self, by: u32) -> Self;
    /// Shifts 16-bit halves down, keeping their sign.
    fn shift_right_signed_16(self, by: u32) -> Self;
    /// Shifts lanes down.
    fn shift_right_32(self, by: u32) -> Self;
    /// Picks bytes among each 128 bits; 0 where the place is negative.
    fn shuffle(self, places: [i8; 16]) -> Self;
    /// `value` in the bytes that have the one bit which their byte of `mask` has.
    fn where_set(self, mask: u32, value: u8) -> Self;
    /// The lower and the upper half of each lane, from half precision.
    fn half_pairs(self) -> [Self::Floats; 2];
    /// Each lane, an integer, as a float.
    fn to_floats(self) -> Self::Floats;
}

/// A vector of floats.
pub(super) trait Floats: Copy {
    fn multiply(self, other: Self) -> Self;
    fn negate(self) -> Self;
    /// Writes the vector into a part of 16 floats.
    fn store(self, floats: &mut Sums, part: usize);
}
