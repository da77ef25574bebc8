//! The gated activation of the feed-forward layer.

use crate::elementary::exp;
use crate::isa::vectorized;
use crate::team::Disjoint;
use crate::{ShapeError, Turn};

/// Values a task should have, at least.
const TASK_VALUES: usize = 8192;

/// Computes `out = silu(gate) * up`, element by element.
///
/// Shapes: all three of one length.
///
/// # Errors
/// [`ShapeError`] when a length does not match.
pub fn silu_mul(
    turn: &Turn<'_>,
    gate: &[f32],
    up: &[f32],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let n = gate.len();
    ShapeError::check_length("up", up.len(), n)?;
    ShapeError::check_length("out", out.len(), n)?;
    let isa = turn.isa();
    let out = Disjoint::new(out);
    turn.run(n.div_ceil(TASK_VALUES), &|task_idx| {
        let part = task_idx * TASK_VALUES..n.min((task_idx + 1) * TASK_VALUES);
        // SAFETY: each part belongs to one task.
        let out = unsafe { out.slice_mut(part.clone()) };
        silu_mul_part(isa, &gate[part.clone()], &up[part], out);
    });
    Ok(())
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
    use crate::testing::Random;
    use crate::{Isa, Team};

    #[test]
    fn it_is_the_formula_with_the_same_bits_everywhere() {
        let mut random = Random::new(1);
        for n in [0, 1, 7, 1536, 20_000] {
            let gate: Vec<f32> = random.floats(n).iter().map(|x| 20.0 * x).collect();
            let up = random.floats(n);
            let mut first: Option<Vec<f32>> = None;
            for (isa, n_threads) in Isa::available()
                .into_iter()
                .flat_map(|isa| [(isa, 1), (isa, 3)])
            {
                let team = Team::new(NonZeroUsize::new(n_threads).unwrap(), isa);
                let mut out = vec![0.0; n];
                silu_mul(&team.take_turn(), &gate, &up, &mut out).unwrap();
                for ((out, gate), up) in out.iter().zip(&gate).zip(&up) {
                    let (gate, up) = (f64::from(*gate), f64::from(*up));
                    let expected = gate / (1.0 + (-gate).exp()) * up;
                    assert!((f64::from(*out) - expected).abs() <= 1e-6 * expected.abs() + 1e-30);
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{isa:?}");
            }
        }
    }

    #[test]
    fn lengths_that_differ_are_errors() {
        let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
        let turn = team.take_turn();
        assert!(silu_mul(&turn, &[0.0; 2], &[0.0; 3], &mut [0.0; 2]).is_err());
        assert!(silu_mul(&turn, &[0.0; 2], &[0.0; 2], &mut [0.0; 3]).is_err());
    }
}
