//! Penalties for tokens that were there before.

use std::collections::HashMap;

use crate::chat::{Sampling, TokenId};

/// The penalties of one sequence and the tokens they fall on.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Penalties {
    repetition: f32,
    frequency: f32,
    presence: f32,
    /// Tokens of the prompt and the answer, with how often each was generated.
    seen: HashMap<TokenId, u16>,
}

impl Penalties {
    /// `None` when all are neutral: then nothing needs to be remembered.
    #[expect(clippy::float_cmp, reason = "neutral is one value, not those near it")]
    pub(super) fn new(sampling: &Sampling, prompt: &[TokenId]) -> Option<Self> {
        let Sampling {
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            ..
        } = *sampling;
        let neutral =
            repetition_penalty == 1.0 && frequency_penalty == 0.0 && presence_penalty == 0.0;
        (!neutral).then(|| Self {
            repetition: repetition_penalty,
            frequency: frequency_penalty,
            presence: presence_penalty,
            seen: prompt.iter().map(|token| (*token, 0)).collect(),
        })
    }

    /// Counts a generated token.
    pub(super) fn observe(&mut self, token: TokenId) {
        let n_generated = self.seen.entry(token).or_default();
        *n_generated = n_generated.saturating_add(1);
    }

    /// Lowers the logits of tokens seen before. What is finite stays finite.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (token, n_generated) in &self.seen {
            let Some(logit) = logits.get_mut(*token as usize).filter(|l| l.is_finite()) else {
                continue;
            };
            *logit = finite(if *logit > 0.0 {
                *logit / self.repetition
            } else {
                *logit * self.repetition
            });
            if *n_generated > 0 {
                *logit = finite(*logit - finite(self.frequency * f32::from(*n_generated)));
                *logit = finite(*logit - self.presence);
            }
        }
    }
}

fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
#[expect(
    clippy::float_cmp,
    reason = "the numbers are chosen to have no rounding"
)]
mod tests {
    use super::*;

    fn penalties(sampling: &Sampling, prompt: &[TokenId], answer: &[TokenId]) -> Penalties {
        let mut penalties = Penalties::new(sampling, prompt).unwrap();
        for token in answer {
            penalties.observe(*token);
        }
        penalties
    }

    #[test]
    fn neutral_values_are_no_penalties() {
        assert!(Penalties::new(&Sampling::default(), &[1, 2]).is_none());
    }

    #[test]
    fn repetition_falls_on_prompt_and_answer_once_and_always_downwards() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let mut logits = [4.0, -4.0, 4.0, -4.0, 0.0];
        penalties(&sampling, &[0, 1, 0], &[4, 4]).apply(&mut logits);
        assert_eq!(logits, [2.0, -8.0, 4.0, -4.0, 0.0]);
    }

    #[test]
    fn presence_counts_once_frequency_each_time_and_both_for_the_answer_only() {
        let presence = Sampling {
            presence_penalty: 0.5,
            ..Sampling::default()
        };
        let mut logits = [1.0; 3];
        penalties(&presence, &[0], &[1, 1, 2]).apply(&mut logits);
        assert_eq!(logits, [1.0, 0.5, 0.5]);

        let frequency = Sampling {
            frequency_penalty: 0.5,
            ..Sampling::default()
        };
        let mut logits = [1.0; 3];
        penalties(&frequency, &[0], &[1, 1, 2]).apply(&mut logits);
        assert_eq!(logits, [1.0, 0.0, 0.5]);
    }

    #[test]
    fn extremes_stay_finite_and_what_is_masked_stays_masked() {
        let sampling = Sampling {
            repetition_penalty: f32::MIN_POSITIVE,
            frequency_penalty: f32::MAX,
            presence_penalty: -f32::MAX,
            ..Sampling::default()
        };
        let mut logits = [f32::MAX, f32::MIN, f32::NEG_INFINITY];
        penalties(&sampling, &[], &[0, 0, 1, 1, 2]).apply(&mut logits);
        assert!(logits[0].is_finite() && logits[1].is_finite(), "{logits:?}");
        assert_eq!(logits[2], f32::NEG_INFINITY);
    }
}
