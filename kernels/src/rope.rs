//! Rotary position embedding over adjacent pairs, as GGUF files of architecture `llama` want it.

use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Values a task should have, at least.
const TASK_VALUES: usize = 16_384;

/// Cosines and sines of every position up to a limit.
#[derive(Clone)]
pub struct RopeTable {
    head_dim: usize,
    rope_dim: usize,
    n_positions: usize,
    /// For each position, cosine and sine of each pair.
    turns: Vec<[f32; 2]>,
}

impl RopeTable {
    /// Computes the table for positions `0..n_positions`, in f64, rounded once at the end.
    ///
    /// The first `rope_dim` values of a head are rotated; pair `i` turns by
    /// `position / base^(2i / rope_dim) / freq_factors[i]`.
    ///
    /// # Errors
    /// [`ShapeError`] when `rope_dim` is odd or larger than `head_dim`, or there are not
    /// `rope_dim / 2` frequency factors.
    pub fn new(
        head_dim: usize,
        rope_dim: usize,
        base: f32,
        freq_factors: Option<&[f32]>,
        n_positions: usize,
    ) -> Result<Self, ShapeError> {
        ShapeError::check_multiple("the number of rotated dimensions", rope_dim, 2)?;
        ShapeError::check_range("the number of rotated dimensions", rope_dim, head_dim + 1)?;
        let n_pairs = rope_dim / 2;
        if let Some(factors) = freq_factors {
            ShapeError::check_length("the frequency factors", factors.len(), n_pairs)?;
        }
        let frequency = |pair: usize| {
            let factor = freq_factors.map_or(1.0, |factors| factors[pair]);
            f64::from(base).powf(-(2.0 * pair as f64) / rope_dim as f64) / f64::from(factor)
        };
        let frequencies: Vec<f64> = (0..n_pairs).map(frequency).collect();
        let mut turns = Vec::with_capacity(n_positions * n_pairs);
        for position in 0..n_positions {
            turns.extend(frequencies.iter().map(|frequency| {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                [narrow(cosine), narrow(sine)]
            }));
        }
        Ok(Self {
            head_dim,
            rope_dim,
            n_positions,
            turns,
        })
    }

    /// How many positions the table has.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Rotated values of a head.
    pub fn rope_dim(&self) -> usize {
        self.rope_dim
    }

    /// All of it: for each position and pair, cosine and sine.
    pub fn values(&self) -> &[f32] {
        self.turns.as_flattened()
    }

    /// The turns of a position's pairs.
    fn turns(&self, position: u32) -> &[[f32; 2]] {
        let n_pairs = self.rope_dim / 2;
        let start = position as usize * n_pairs;
        &self.turns[start..start + n_pairs]
    }
}

impl std::fmt::Debug for RopeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RopeTable")
            .field("head_dim", &self.head_dim)
            .field("rope_dim", &self.rope_dim)
            .field("n_positions", &self.n_positions)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Rotates every head of every token to its position, in place.
///
/// Shapes: `x` is `[positions.len(), stride]`, a row beginning with `[n_heads, head_dim]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match or a position is past the table.
pub fn rope(
    turn: &Turn<'_>,
    x: &mut [f32],
    n_heads: usize,
    stride: usize,
    positions: &[u32],
    table: &RopeTable,
) -> Result<(), ShapeError> {
    let head_dim = table.head_dim;
    let token_len = n_heads * head_dim;
    ShapeError::check_range("the end of a row's heads", token_len, stride + 1)?;
    ShapeError::check_length("x", x.len(), positions.len() * stride)?;
    if let Some(&last) = positions.iter().max() {
        ShapeError::check_range("the position", last as usize, table.n_positions)?;
    }
    let task_tokens = TASK_VALUES.div_ceil(token_len.max(1));
    let isa = turn.isa();
    let x = Disjoint::new(x);
    turn.run(positions.len().div_ceil(task_tokens), &|task_idx| {
        let first = task_idx * task_tokens;
        for (i, position) in positions[first..].iter().take(task_tokens).enumerate() {
            let start = (first + i) * stride;
            // SAFETY: each token belongs to one task.
            let heads = unsafe { x.slice_mut(start..start + token_len) };
            rotate(isa, heads, head_dim, table.turns(*position));
        }
    });
    Ok(())
}

vectorized! {
    /// Rotates the heads of one token.
    fn rotate(heads: &mut [f32], head_dim: usize, turns: &[[f32; 2]]) {
        for head in heads.chunks_exact_mut(head_dim) {
            for (pair, [cosine, sine]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                let [a, b] = *pair;
                *pair = [a * cosine - b * sine, a * sine + b * cosine];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::testing::Random;
    use crate::{Isa, Team};

    fn x_stride(n_heads: usize, table: &RopeTable) -> usize {
        n_heads * table.head_dim
    }

    fn rotated(
        isa: Isa,
        x: &[f32],
        n_heads: usize,
        positions: &[u32],
        table: &RopeTable,
    ) -> Vec<f32> {
        let team = Team::new(NonZeroUsize::new(2).unwrap(), isa);
        let mut x = x.to_vec();
        rope(
            &team.take_turn(),
            &mut x,
            n_heads,
            x_stride(n_heads, table),
            positions,
            table,
        )
        .unwrap();
        x
    }

    #[test]
    fn pairs_turn_by_their_angles_and_the_rest_stays() {
        let mut random = Random::new(1);
        let factors: Vec<f32> = (0..6_u8).map(|i| 1.0 + f32::from(i)).collect();
        for (head_dim, rope_dim, factors) in [(64, 64, None), (16, 12, Some(factors.as_slice()))] {
            let table = RopeTable::new(head_dim, rope_dim, 10_000.0, factors, 200).unwrap();
            let positions = [0, 1, 199, 7];
            let x = random.floats(positions.len() * 3 * head_dim);
            let plain = rotated(Isa::Scalar, &x, 3, &positions, &table);
            for (i, y) in plain.iter().enumerate() {
                let (token, within) = (i / (3 * head_dim), i % head_dim);
                let pair = within / 2;
                if within >= rope_dim {
                    assert_eq!(y.to_bits(), x[i].to_bits());
                    continue;
                }
                let exponent = -2.0 * pair as f64 / rope_dim as f64;
                let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
                let angle = f64::from(positions[token]) * 10_000_f64.powf(exponent) / factor;
                let (a, b) = (f64::from(x[i / 2 * 2]), f64::from(x[i / 2 * 2 + 1]));
                let expected = if within % 2 == 0 {
                    a * angle.cos() - b * angle.sin()
                } else {
                    a * angle.sin() + b * angle.cos()
                };
                assert!(
                    (f64::from(*y) - expected).abs() < 3e-7,
                    "{i}: {y} {expected}"
                );
            }
            for isa in Isa::available() {
                assert_eq!(rotated(isa, &x, 3, &positions, &table), plain, "{isa:?}");
            }
        }
    }

    #[test]
    fn a_token_turns_alike_in_any_batch() {
        let mut random = Random::new(2);
        let table = RopeTable::new(64, 64, 500_000.0, None, 600).unwrap();
        let positions: Vec<u32> = (0..600).rev().collect();
        let x = random.floats(positions.len() * 64);
        let all = rotated(Isa::detect(), &x, 1, &positions, &table);
        for token in [0, 5, 599] {
            let part = token * 64..(token + 1) * 64;
            let alone = rotated(
                Isa::detect(),
                &x[part.clone()],
                1,
                &positions[token..=token],
                &table,
            );
            assert_eq!(alone, all[part]);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(RopeTable::new(64, 63, 1e4, None, 1).is_err());
        assert!(RopeTable::new(64, 66, 1e4, None, 1).is_err());
        assert!(RopeTable::new(64, 64, 1e4, Some(&[1.0; 31]), 1).is_err());
        let table = RopeTable::new(4, 4, 1e4, None, 3).unwrap();
        let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
        let turn = team.take_turn();
        let error = rope(&turn, &mut [0.0; 4], 1, 4, &[3], &table).unwrap_err();
        assert_eq!(error.to_string(), "the position is 3, which is not below 3");
        assert!(rope(&turn, &mut [0.0; 5], 1, 4, &[0], &table).is_err());
        assert!(rope(&turn, &mut [0.0; 8], 3, 8, &[0], &table).is_err());
        // What follows the heads in a row stays.
        let mut x = [1.0; 8];
        rope(&turn, &mut x, 1, 8, &[1], &table).unwrap();
        assert_ne!(x[..4], [1.0; 4]);
        assert_eq!(x[4..], [1.0; 4]);
    }
}
