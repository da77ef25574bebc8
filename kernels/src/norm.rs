//! Root-mean-square normalisation.

use crate::block::GROUP_LEN;
use crate::isa::vectorized;
use crate::quantize::{quantize_row, row_words};
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Lanes of the sum of squares: lane `l` sums `l`, `l + 16`, ….
const LANES: usize = 16;
/// Values a task should have, at least.
const TASK_VALUES: usize = 16_384;

/// Computes `out = x / sqrt(mean(x²) + eps) * weight`, row by row.
///
/// Shapes: `weight` is `[n]`; `x` and `out` are `[m, n]`.
///
/// # Errors
/// [`ShapeError`] when a length does not match.
pub fn rms_norm(
    turn: &Turn<'_>,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let n = weight.len();
    ShapeError::check_multiple("the length of a row", n, 1)?;
    let m = x.len() / n;
    ShapeError::check_length("x", x.len(), m * n)?;
    ShapeError::check_length("out", out.len(), m * n)?;
    let task_rows = TASK_VALUES.div_ceil(n);
    let isa = turn.isa();
    let out = Disjoint::new(out);
    turn.run(m.div_ceil(task_rows), &|task_idx| {
        let part = task_idx * task_rows * n..(m * n).min((task_idx + 1) * task_rows * n);
        // SAFETY: each part belongs to one task.
        let out = unsafe { out.slice_mut(part.clone()) };
        for (x, out) in x[part].chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            norm_row(isa, x, weight, eps, out);
        }
    });
    Ok(())
}

/// Normalises rows and quantises them: the bits of [`rms_norm`] and then
/// [`quantize_rows`](crate::quantize::quantize_rows), without a trip through memory.
///
/// Shapes: `weight` is `[n]`; `x` is `[m, n]`; `out` is `[m, row_words(n)]`.
///
/// # Errors
/// [`ShapeError`] when `n` is not a multiple of 32 or a length does not match.
pub fn rms_norm_quantized(
    turn: &Turn<'_>,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [u32],
) -> Result<(), ShapeError> {
    let n = weight.len();
    ShapeError::check_multiple("the length of a row", n, GROUP_LEN)?;
    let m = x.len() / n;
    ShapeError::check_length("x", x.len(), m * n)?;
    ShapeError::check_length("out", out.len(), m * row_words(n))?;
    let task_rows = TASK_VALUES.div_ceil(n);
    let isa = turn.isa();
    let out = Disjoint::new(out);
    turn.run_with_scratch(m.div_ceil(task_rows), n, &|task_idx, normed| {
        for row in task_idx * task_rows..m.min((task_idx + 1) * task_rows) {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.slice_mut(row * row_words(n)..(row + 1) * row_words(n)) };
            norm_row(isa, &x[row * n..(row + 1) * n], weight, eps, normed);
            quantize_row(isa, normed, out);
        }
    });
    Ok(())
}

vectorized! {
    /// Normalises one row.
    fn norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let mut lanes = [0.0_f32; LANES];
        let (chunks, tail) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x * x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(tail) {
            *lane += x * x;
        }
        let sum: f32 = lanes.iter().sum();
        let scale = 1.0 / (sum / x.len() as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::quantize::quantize_rows;
    use crate::testing::Random;
    use crate::{Isa, Team};

    #[test]
    fn it_is_the_formula_with_the_same_bits_everywhere() {
        let mut random = Random::new(1);
        for (m, n) in [(0, 5), (1, 1), (3, 17), (1, 576), (70, 576)] {
            let (x, weight) = (random.floats(m * n), random.floats(n));
            let mut first: Option<Vec<f32>> = None;
            for (isa, n_threads) in Isa::available()
                .into_iter()
                .flat_map(|isa| [(isa, 1), (isa, 3)])
            {
                let team = Team::new(NonZeroUsize::new(n_threads).unwrap(), isa);
                let mut out = vec![0.0; m * n];
                rms_norm(&team.take_turn(), &x, &weight, 1e-5, &mut out).unwrap();
                for (x, out) in x.chunks_exact(n).zip(out.chunks_exact(n)) {
                    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                    let scale = 1.0 / (squares / n as f64 + 1e-5).sqrt();
                    for ((out, x), weight) in out.iter().zip(x).zip(&weight) {
                        let expected = f64::from(*x) * scale * f64::from(*weight);
                        assert!((f64::from(*out) - expected).abs() <= 1e-6 * expected.abs());
                    }
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{isa:?}");
                if n % 32 == 0 {
                    let turn = team.take_turn();
                    let mut expected = vec![0; m * row_words(n)];
                    quantize_rows(&turn, &out, n, &mut expected).unwrap();
                    let mut words = vec![1; expected.len()];
                    rms_norm_quantized(&turn, &x, &weight, 1e-5, &mut words).unwrap();
                    assert_eq!(words, expected, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
        let turn = team.take_turn();
        assert!(rms_norm(&turn, &[0.0; 5], &[0.0; 2], 1e-5, &mut [0.0; 5]).is_err());
        assert!(rms_norm(&turn, &[0.0; 4], &[0.0; 2], 1e-5, &mut [0.0; 5]).is_err());
        assert!(rms_norm(&turn, &[], &[], 1e-5, &mut []).is_err());
    }
}
