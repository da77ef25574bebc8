//! The greatest logits of a row without sorting the row.

use crate::chat::TokenId;
use std::cmp::Ordering;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) token: TokenId,
}

/// Fills `into` with the `n` greatest logits above −∞, greatest first, of equal ones the lowest
/// token first. No logit is NaN.
///
/// One pass that remembers at most `2n` candidates and halves them when they are full; after the
/// first few hundred tokens nearly every logit falls to the first comparison.
pub(super) fn greatest(logits: &[f32], n: usize, into: &mut Vec<Candidate>) {
    into.clear();
    if n == 0 {
        return;
    }
    let n_full = n.saturating_mul(2);
    let mut threshold = f32::NEG_INFINITY;
    for (token, logit) in (0..).zip(logits) {
        // A later token of the threshold's own logit would come after it: strictly greater.
        if *logit > threshold {
            into.push(Candidate {
                logit: *logit,
                token,
            });
            if into.len() == n_full {
                into.select_nth_unstable_by(n - 1, likelier_first);
                into.truncate(n);
                threshold = into[n - 1].logit;
            }
        }
    }
    if into.len() > n {
        into.select_nth_unstable_by(n - 1, likelier_first);
        into.truncate(n);
    }
    into.sort_unstable_by(likelier_first);
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "sorting compares references"
)]
fn likelier_first(a: &Candidate, b: &Candidate) -> Ordering {
    // Not `total_cmp`: 0 and −0 are equally likely.
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.token.cmp(&b.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_head_of_the_sorted_row(
            // Few distinct values, so that many are equal.
            row in prop::collection::vec(-4i8..5, 0..400),
            n in 0usize..500,
        ) {
            let logits: Vec<f32> = row.iter().map(|l| -f32::from(*l) / 4.0).collect();
            let mut sorted: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
            sorted.truncate(n);
            let mut found = Vec::new();
            greatest(&logits, n, &mut found);
            let found: Vec<(usize, f32)> =
                found.iter().map(|c| (c.token as usize, c.logit)).collect();
            prop_assert_eq!(found, sorted);
        }
    }

    #[test]
    fn leaves_out_what_may_never_be_drawn() {
        let mut found = Vec::new();
        greatest(
            &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 2.0],
            3,
            &mut found,
        );
        assert_eq!(found.iter().map(|c| c.token).collect::<Vec<_>>(), [3, 1]);
    }
}
