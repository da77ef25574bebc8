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
pub(super) use v512::V512;

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
    /// How far ahead weights are asked for: farther than memory is slow.
    const PREFETCH_BYTES: usize;

    /// A part of 16 words.
    fn words(proof: Self::Proof, words: &[u32; 16], part: usize) -> Self;
    /// A part of 16 floats.
    fn floats(proof: Self::Proof, floats: &Sums, part: usize) -> Self::Floats;
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

/// A vector of words with the byte dot product.
pub(super) trait Vnni: Vector {
    /// A word in every lane.
    fn splat(proof: Self::Proof, word: u32) -> Self;
    /// Adds to each lane the products of its four unsigned bytes with four signed ones.
    fn add_dots(self, unsigned: Self, signed: u32) -> Self;
    /// Adds to each lane the products of its two signed halves with two others.
    fn add_half_dots(self, halves: Self, others: u32) -> Self;
    /// Raises signed bytes by 128, which makes them unsigned.
    fn raise_bytes(self) -> Self;
    /// The lower and the upper half of each lane, signed.
    fn signed_halves(self) -> [Self; 2];
    /// Multiplies both halves of each lane by a factor; the products fit.
    fn scale_halves(self, factor: i16) -> Self;
    /// Multiplies lane by lane; the products fit.
    fn multiply_lanes(self, other: Self) -> Self;
    fn add_lanes(self, other: Self) -> Self;
}

/// A vector of floats.
pub(super) trait Floats: Copy {
    fn multiply(self, other: Self) -> Self;
    /// `self * factor + sum`, rounded once.
    fn multiply_add(self, factor: Self, sum: Self) -> Self;
    /// Multiplies every lane by the same factor.
    fn scale(self, factor: f32) -> Self;
    /// `self * factor + sum`, the same factor in every lane, rounded once.
    fn scale_add(self, factor: f32, sum: Self) -> Self;
    fn negate(self) -> Self;
    /// Writes the vector into a part of 16 floats.
    fn store(self, floats: &mut Sums, part: usize);
}
