//! The gated activation of the feed-forward layer.

use crate::block::GROUP_LEN;
use crate::elementary::exp;
use crate::isa::vectorized;
use crate::quantize::{quantize_row, row_words};
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Values a task should have, at least.
const TASK_VALUES: usize = 8192;

/// Computes `out = silu(gate) * up`, element by element.
///
/// Shapes: `gate_up` is `[m, 2, n]`, a row's gate before its up; `out` is `[m, n]`.
///
/// # Errors
/// [`ShapeError`] when `n` is 0 or a length does not match.
pub fn silu_mul(
    turn: &Turn<'_>,
    gate_up: &[f32],
    n: usize,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let m = check(gate_up, n)?;
    ShapeError::check_length("out", out.len(), m * n)?;
    let isa = turn.isa();
    let out = Disjoint::new(out);
    // Parts of a row: a single token's row is work for all threads.
    let row_parts = n.div_ceil(TASK_VALUES);
    turn.run(m * row_parts, &|task_idx| {
        let (row, part) = (task_idx / row_parts, task_idx % row_parts);
        let part = part * TASK_VALUES..n.min((part + 1) * TASK_VALUES);
        // SAFETY: each part of a row belongs to one task.
        let out = unsafe { out.slice_mut(row * n + part.start..row * n + part.end) };
        let (gate, up) = gate_up[row * 2 * n..(row + 1) * 2 * n].split_at(n);
        silu_mul_part(isa, &gate[part.clone()], &up[part], out);
    });
    Ok(())
}

/// Computes the same and quantises it: the bits of [`silu_mul`] and then
/// [`quantize_rows`](crate::quantize::quantize_rows), without a trip through memory.
///
/// Shapes: `gate_up` is `[m, 2, n]`; `out` is `[m, row_words(n)]`.
///
/// # Errors
/// [`ShapeError`] when `n` is not a multiple of 32 or a length does not match.
pub fn silu_mul_quantized(
    turn: &Turn<'_>,
    gate_up: &[f32],
    n: usize,
    out: &mut [u32],
) -> Result<(), ShapeError> {
    ShapeError::check_multiple("the length of a row", n, GROUP_LEN)?;
    let m = check(gate_up, n)?;
    ShapeError::check_length("out", out.len(), m * row_words(n))?;
    let isa = turn.isa();
    let out = Disjoint::new(out);
    let row_parts = n.div_ceil(TASK_VALUES);
    turn.run_with_scratch(m * row_parts, TASK_VALUES, &|task_idx, product| {
        let (row, part) = (task_idx / row_parts, task_idx % row_parts);
        let part = part * TASK_VALUES..n.min((part + 1) * TASK_VALUES);
        let words = row * row_words(n) + row_words(part.start);
        // SAFETY: each part of a row belongs to one task.
        let out = unsafe { out.slice_mut(words..words + row_words(part.len())) };
        let (gate, up) = gate_up[row * 2 * n..(row + 1) * 2 * n].split_at(n);
        let product = &mut product[..part.len()];
        silu_mul_part(isa, &gate[part.clone()], &up[part], product);
        quantize_row(isa, product, out);
    });
    Ok(())
}

/// The number of rows.
fn check(gate_up: &[f32], n: usize) -> Result<usize, ShapeError> {
    ShapeError::check_multiple("the length of a row", n, 1)?;
    let m = gate_up.len() / (2 * n);
    ShapeError::check_length("gate and up", gate_up.len(), m * 2 * n)?;
    Ok(m)
}

vectorized! {
    /// One task's part.
    fn silu_mul_part(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
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
        for (m, n) in [(0, 5), (1, 1), (3, 7), (2, 1536), (1, 20_000), (5, 96)] {
            let gate_up: Vec<f32> = random.floats(2 * m * n).iter().map(|x| 20.0 * x).collect();
            let mut first: Option<Vec<f32>> = None;
            for (isa, n_threads) in Isa::available()
                .into_iter()
                .flat_map(|isa| [(isa, 1), (isa, 3)])
            {
                let team = Team::new(NonZeroUsize::new(n_threads).unwrap(), isa);
                let turn = team.take_turn();
                let mut out = vec![0.0; m * n];
                silu_mul(&turn, &gate_up, n, &mut out).unwrap();
                for (rows, out) in gate_up.chunks_exact(2 * n).zip(out.chunks_exact(n)) {
                    let (gate, up) = rows.split_at(n);
                    for ((out, gate), up) in out.iter().zip(gate).zip(up) {
                        let (gate, up) = (f64::from(*gate), f64::from(*up));
                        let expected = gate / (1.0 + (-gate).exp()) * up;
                        let error = (f64::from(*out) - expected).abs();
                        assert!(error <= 1e-6 * expected.abs() + 1e-30);
                    }
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{isa:?}");
                if n % 32 == 0 {
                    let mut expected = vec![0; m * row_words(n)];
                    quantize_rows(&turn, &out, n, &mut expected).unwrap();
                    let mut words = vec![1; expected.len()];
                    silu_mul_quantized(&turn, &gate_up, n, &mut words).unwrap();
                    assert_eq!(words, expected, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
        let turn = team.take_turn();
        assert!(silu_mul(&turn, &[0.0; 5], 2, &mut [0.0; 2]).is_err());
        assert!(silu_mul(&turn, &[0.0; 4], 2, &mut [0.0; 3]).is_err());
        assert!(silu_mul(&turn, &[0.0; 4], 0, &mut []).is_err());
        assert!(silu_mul_quantized(&turn, &[0.0; 4], 2, &mut [0; 2]).is_err());
    }
}
